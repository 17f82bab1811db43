//! What a hub that knows its clients lets each of them do, through the client and the layers that nodes use.

mod attacks;
mod ordinary_use;

use std::collections::{BTreeMap, BTreeSet};

use trigger_core::authorization::{Actor, Operators};
use trigger_core::delivery::{Completion, DeliveryOutcome, DeliveryState};
use trigger_core::event::{DEFAULT_LIFETIME, Event, RunOptions, Target, Targets};
use trigger_core::identity::{Certname, EventId, GroupName, KeyPrefix, RunId};
use trigger_core::keyspace::{Key, Keyspace, Range};
use trigger_core::lineage::{Lineage, Loops};
use trigger_core::publication::Publication;
use trigger_core::run::history::{PastRun, RunHistory};
use trigger_core::run::record::{Cause, RunRecord};
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::time::{Now, Timestamp};
use trigger_fleet::Fleet;
use trigger_fleet::claim::{Claim, Claimant};
use trigger_fleet::deliveries::Arrival;
use trigger_store::memory::MemoryStore;

use super::*;
use crate::server::{Rights, serve_to};

const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);
const NAMES: [&str; 4] = ["web01", "lb01", "lb02", "db01"];

/// A hub in front of a store in memory, and what its clients have: `ops01` is an operator.
struct Hub {
    store: MemoryStore,
    addresses: BTreeMap<&'static str, SocketAddr>,
}

fn certname(name: &str) -> Certname {
    name.parse().unwrap()
}

/// Ids as real ones, so that no two events of a test are the same.
pub(super) fn event_id(n: u32) -> EventId {
    format!("0192a000-0000-7000-8000-{n:012x}").parse().unwrap()
}

fn run_id(n: u32) -> RunId {
    format!("0192a000-0000-7000-9000-{n:012x}").parse().unwrap()
}

fn key(key: &Key) -> String {
    Keyspace::default().key(key)
}

fn delivery(target: &str, n: u32) -> Key {
    Key::Delivery { certname: certname(target), event: event_id(n) }
}

fn outcome(n: u32, target: &str) -> Key {
    Key::Outcome { event: event_id(n), certname: certname(target) }
}

fn node(name: &str) -> Key {
    Key::Node { certname: certname(name) }
}

/// An event of `origin` for `targets`; groups have an `@` before them.
pub(super) fn publication(n: u32, origin: &str, targets: &str) -> Publication {
    let (groups, hosts): (Vec<&str>, Vec<&str>) =
        targets.split_whitespace().partition(|target| target.starts_with('@'));
    Publication {
        backend: "hub".to_owned(),
        prefix: KeyPrefix::default(),
        event: Event {
            id: event_id(n),
            trigger: "refresh load balancers".parse().unwrap(),
            origin: certname(origin),
            targets: Targets {
                hosts: hosts.into_iter().map(certname).collect(),
                groups: groups.into_iter().map(|group| group[1..].parse().unwrap()).collect(),
            },
            options: RunOptions::default(),
            lineage: Lineage::root(event_id(n)),
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

pub(super) fn done(n: u32, target: &str) -> Completion {
    let result = RunResult {
        outcome: RunOutcome::Changed,
        reason: None,
        reported_noop: false,
        drift: Default::default(),
        started_at: NOW,
        finished_at: NOW,
    };
    let run = CompletedRun { run_id: run_id(n), noop: false, result };
    Completion {
        event: event_id(n),
        addressed_as: BTreeSet::from([Target::Node(certname(target))]),
        outcome: DeliveryOutcome::Done(run),
    }
}

/// The history of a node that has run once, for an event.
fn history(completion: &Completion, event: Event) -> RunHistory {
    let DeliveryOutcome::Done(run) = &completion.outcome else { panic!("it is done") };
    let Some(Target::Node(name)) = completion.addressed_as.first() else { panic!("it is to a node") };
    let record = RunRecord {
        run_id: run.run_id,
        certname: name.clone(),
        command: Vec::new(),
        options: RunOptions::default(),
        timeout: Duration::ZERO,
        started_at: NOW,
        causes: vec![Cause {
            event,
            addressed_as: completion.addressed_as.clone(),
            interruptions: 0,
            without_catalog: false,
            signer: Default::default(),
        }],
        environment: BTreeMap::new(),
    };
    let mut history = RunHistory::default();
    history.push(PastRun::of(&record, run.result.clone(), 0, []));
    history
}

impl Hub {
    async fn start() -> Self {
        let store = MemoryStore::default();
        let operators = Operators { certnames: BTreeSet::from([certname("ops01")]), ..Operators::default() };
        let names: Vec<&str> = NAMES.into_iter().chain(["ops01"]).collect();
        let actor = |name: &&str| {
            let certname = certname(name);
            let role = operators.role(&certname, |_| None);
            Some(Actor { certname, role })
        };
        let mut actors: Vec<Option<Actor>> = names.iter().map(actor).collect();
        actors.push(None);
        let rights = Rights { keyspace: Keyspace::default(), operators: operators.clone() };
        let addresses = serve_to(Arc::new(store.clone()), rights, actors).await;
        Self { store, addresses: names.into_iter().chain(["nobody"]).zip(addresses).collect() }
    }

    /// The client of a node.
    fn client(&self, name: &str) -> HubStore {
        HubStore::connect(&self.addresses[name].to_string()).unwrap()
    }

    /// What a node does goes through this.
    fn fleet(&self, name: &str) -> Fleet {
        Fleet::new(Arc::new(self.client(name)), Keyspace::default()).acting_as(certname(name))
    }

    async fn fire(&self, n: u32, origin: &str, targets: &str) {
        let publication = publication(n, origin, targets);
        self.fleet(origin).publish(&publication, false).await.unwrap();
    }

    /// Registers a node as its agent does.
    async fn register(&self, name: &str, groups: &[&str]) -> BTreeMap<GroupName, Revision> {
        let claimant = Claimant {
            instance: format!("agent of {name}"),
            lock: None,
            may_inherit: false,
            ended: Vec::new(),
            host: name.to_owned(),
            pid: 1,
            directory: "/".to_owned(),
            version: "0".to_owned(),
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
        };
        let mut claim = Claim::new(self.fleet(name), claimant, BTreeMap::new(), Duration::ZERO);
        let activity = trigger_core::node::Activity::default();
        for seconds in 0..2 {
            let now = Now { wall: NOW, elapsed: Duration::from_secs(seconds) };
            claim.renew(&activity, now).await.unwrap();
        }
        assert!(claim.is_held());
        claim.joined().clone()
    }

    /// Ends run `n` of a node, which covers event `n`, as its agent does.
    async fn end(&self, n: u32, name: &str, origin: &str) {
        let completion = done(n, name);
        let history = history(&completion, publication(n, origin, name).event);
        self.fleet(name).finish_runs(&[completion], Some(&history)).await.unwrap();
    }

    async fn metrics(&self) -> String {
        let address = self.addresses["db01"];
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    }

    /// What the metrics say of denied requests.
    async fn denied(&self) -> String {
        let page = self.metrics().await;
        assert!(page.contains("trigger_hub_build"), "{page}");
        let denied = page.lines().filter(|line| line.starts_with("trigger_hub_denied_requests_total"));
        denied.collect::<Vec<_>>().join("\n")
    }

    /// The keys that are stored, without the prefix.
    async fn keys(&self) -> Vec<String> {
        let prefix = format!("{}/", KeyPrefix::default());
        let keys = self.store.list(&[KeyRange::Prefix(prefix.clone())]).await.unwrap();
        keys.into_iter().map(|(key, _)| key[prefix.len()..].to_owned()).collect()
    }
}

/// The states of an event as a node sees them.
pub(super) async fn states(fleet: &Fleet, n: u32) -> String {
    match fleet.event_status(event_id(n)).await {
        Ok(Some(status)) => {
            let state = |(certname, target): (&Certname, &trigger_core::status::DeliveryStatus)| {
                format!("{certname}={}", target.state)
            };
            let limited = status.limited_to.map_or_else(String::new, |to| format!(" for {to} only"));
            status.targets.iter().map(state).collect::<Vec<_>>().join(" ") + &limited
        }
        Ok(None) => "unknown".to_owned(),
        Err(error) => error.to_string(),
    }
}
