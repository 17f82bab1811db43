//! A fleet on the store in memory whose nodes have signing keys, and an attacker who may write anything there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use trigger_core::event::{DEFAULT_LIFETIME, Event, RunOptions, Targets};
use trigger_core::identity::{Certname, EventId, KeyPrefix};
use trigger_core::keyspace::{Key, Keyspace};
use trigger_core::lineage::{Lineage, Loops};
use trigger_core::publication::Publication;
use trigger_core::time::Timestamp;
use trigger_core::wire::{Envelope, Signature, Stored};
use trigger_fleet::Fleet;
use trigger_fleet::codec::{Codec, Means};
use trigger_fleet::deliveries::Arrival;
use trigger_pki::testing::{Issued, TestCa};
use trigger_pki::{Pki, SharedKey, TlsFiles};
use trigger_store::memory::MemoryStore;
use trigger_store::store::{KeyRange, Store};
use uuid::Uuid;

/// When events are fired, and what the clock of all nodes says unless a test sets it.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);

pub(crate) fn id(n: u128) -> EventId {
    EventId::from_uuid(Uuid::from_u128(n))
}

pub(crate) fn node(name: &str) -> Certname {
    name.parse().unwrap()
}

pub(crate) fn key(key: &Key) -> String {
    Keyspace::default().key(key)
}

pub(crate) fn publication(n: u128, origin: &str, hosts: &[&str]) -> Publication {
    Publication {
        backend: "memory:".to_owned(),
        prefix: KeyPrefix::default(),
        event: Event {
            id: id(n),
            trigger: "refresh load balancers".parse().unwrap(),
            origin: node(origin),
            targets: Targets {
                hosts: hosts.iter().map(|host| node(host)).collect(),
                groups: Default::default(),
            },
            options: RunOptions::default(),
            lineage: Lineage::root(id(n)),
            fired_in: None,
            fired_by: None,
            catalog: None,
            loops: Loops::Avoid,
            fired_at: NOW,
            expires_in: DEFAULT_LIFETIME,
        },
        suppressed: BTreeMap::new(),
        suppressed_groups: BTreeMap::new(),
    }
}

/// What the nodes sign with.
pub(crate) enum Site {
    Certificates(Box<Authority>),
    SharedKey(SharedKey),
}

pub(crate) struct Authority {
    ca: TestCa,
    directory: tempfile::TempDir,
    nodes: BTreeMap<String, (Issued, Pki)>,
}

impl Site {
    pub(crate) fn certificates() -> Self {
        let (ca, directory) = (TestCa::new("test").unwrap(), tempfile::tempdir().unwrap());
        Self::Certificates(Box::new(Authority { ca, directory, nodes: BTreeMap::new() }))
    }

    pub(crate) fn shared_key() -> Self {
        Self::SharedKey(SharedKey::from_bytes(&[7; 32]))
    }
}

impl Authority {
    fn path(&self, certname: &str) -> PathBuf {
        self.directory.path().join(certname)
    }

    fn pki(&mut self, certname: &str) -> Pki {
        if let Some((_, pki)) = self.nodes.get(certname) {
            return pki.clone();
        }
        let directory = self.path(certname);
        std::fs::create_dir(&directory).unwrap();
        let issued = self.ca.issue(certname).unwrap();
        let files: TlsFiles = self.ca.write(&directory, certname, &issued).unwrap();
        let pki = Pki::open(files).unwrap();
        self.nodes.insert(certname.to_owned(), (issued, pki.clone()));
        pki
    }
}

pub(crate) struct World {
    pub(crate) store: MemoryStore,
    site: Mutex<Site>,
    clock: Arc<AtomicU64>,
}

impl World {
    pub(crate) fn new(site: Site) -> Self {
        let clock = Arc::new(AtomicU64::new(NOW.as_unix_ms()));
        Self { store: MemoryStore::default(), site: Mutex::new(site), clock }
    }

    pub(crate) fn has_certificates(&self) -> bool {
        matches!(&*self.site.lock().unwrap(), Site::Certificates(_))
    }

    fn means(&self, certname: &str) -> Means {
        match &mut *self.site.lock().unwrap() {
            Site::SharedKey(shared) => Means::SharedKey(shared.clone()),
            Site::Certificates(authority) => {
                let clock = self.clock.clone();
                let clock = Arc::new(move || Timestamp::from_unix_ms(clock.load(Ordering::Relaxed)));
                Means::Certificates { certificates: authority.pki(certname).into(), clock }
            }
        }
    }

    pub(crate) fn unsigned(&self) -> Fleet {
        Fleet::new(Arc::new(self.store.clone()), Keyspace::default())
    }

    /// The fleet as a node has it, which requires signatures.
    pub(crate) fn fleet(&self, certname: &str) -> Fleet {
        let codec = Codec::signing(self.means(certname), true);
        self.unsigned().acting_as(node(certname)).with_codec(codec)
    }

    pub(crate) fn fleet_not_requiring(&self, certname: &str) -> Fleet {
        let codec = Codec::signing(self.means(certname), false);
        self.unsigned().acting_as(node(certname)).with_codec(codec)
    }

    pub(crate) async fn arrivals(&self, certname: &str) -> Vec<Arrival> {
        self.arrivals_of(&self.fleet(certname)).await
    }

    pub(crate) async fn arrivals_of(&self, fleet: &Fleet) -> Vec<Arrival> {
        let entries = self.store.read(&fleet.delivery_ranges([])).await.unwrap();
        fleet.read_deliveries(&BTreeMap::new(), &entries).await.unwrap()
    }

    pub(crate) async fn read(&self, key: &str) -> String {
        let entries = self.store.read(&[KeyRange::Key(key.to_owned())]).await.unwrap();
        entries.into_iter().next().unwrap_or_else(|| panic!("nothing is stored under {key}")).value
    }

    pub(crate) async fn put(&self, key: &str, text: &str) {
        self.store.put_many(vec![(key.to_owned(), text.to_owned())]).await.remove(0).unwrap();
    }

    /// A value with the signature of a node, whoever's value it is.
    pub(crate) fn signed_as<T: Stored>(&self, certname: &str, key: &str, value: &T) -> String {
        let envelope = Envelope::of(value);
        let signature = match self.means(certname) {
            Means::SharedKey(shared) => {
                Signature { text: shared.sign(&envelope.signed_bytes(key)), certificate: None }
            }
            Means::Certificates { certificates, .. } => {
                let pki = certificates.get().unwrap();
                let text = pki.identity().sign(&envelope.signed_bytes(key)).unwrap();
                let reference = format!("{certname}/{}", pki.identity().fingerprint());
                Signature { text, certificate: Some(reference.parse().unwrap()) }
            }
        };
        envelope.signed(signature).to_string()
    }

    /// Publishes an event with the signatures of `certname`, whichever node its origin is.
    pub(crate) async fn publish_as(&self, certname: &str, publication: &Publication) {
        self.unsigned().publish(publication, false).await.unwrap();
        self.fleet(certname).announce_certificate().await.unwrap();
        for part in publication.event.clone().into_parts() {
            let key = key(&Key::Part { event: publication.event.id, index: part.index });
            self.put(&key, &self.signed_as(certname, &key, &part)).await;
        }
    }

    fn certificates(keyspace: &Keyspace) -> KeyRange {
        KeyRange::Prefix(keyspace.key(&Key::Sweep).replace("sweep", "certificates/"))
    }

    /// Removes all certificates, and returns them.
    pub(crate) async fn take_certificates(&self) -> Vec<(String, String)> {
        let stored = self.store.read(&[Self::certificates(&Keyspace::default())]).await.unwrap();
        self.store.delete_many(stored.iter().map(|entry| entry.key.clone()).collect()).await.unwrap();
        stored.into_iter().map(|entry| (entry.key, entry.value)).collect()
    }

    /// Copies the certificates into another keyspace.
    pub(crate) async fn copy_certificates(&self, to: &Keyspace) {
        for entry in self.store.read(&[Self::certificates(&Keyspace::default())]).await.unwrap() {
            let key = Keyspace::default().parse(&entry.key).unwrap();
            self.put(&to.key(&key), &entry.value).await;
        }
    }

    pub(crate) async fn copy_all_from(&self, other: &Self) {
        for entry in other.store.read(&[KeyRange::Prefix("/".to_owned())]).await.unwrap() {
            self.put(&entry.key, &entry.value).await;
        }
    }

    pub(crate) fn set_clock(&self, now: Timestamp) {
        self.clock.store(now.as_unix_ms(), Ordering::Relaxed);
    }

    /// Revokes the certificate of a node, and brings the list to all of them.
    pub(crate) fn revoke(&mut self, certname: &str) {
        let Site::Certificates(authority) = &mut *self.site.lock().unwrap() else { panic!("no CA") };
        authority.ca.revoke(&authority.nodes[certname].0);
        for (_, pki) in authority.nodes.values() {
            let crl = pki.files().crl.clone().unwrap();
            std::fs::write(crl, authority.ca.revocation_lists().unwrap()).unwrap();
            assert!(pki.reload().unwrap());
        }
    }
}
