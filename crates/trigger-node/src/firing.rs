//! Takes a fired event into the outbox, to the backend, and out of the outbox (C1).
//!
//! The code has two callers: the agent, which has a warm connection, and `trigger fire` itself if no agent is
//! alive.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use trigger_core::duration;
use trigger_core::identity::{EventId, KeyPrefix};
use trigger_core::keyspace::Keyspace;
use trigger_core::publication::Publication;
use trigger_fleet::Fleet;
use trigger_fleet::codec::Codec;
use trigger_fleet::publishing::{PublishError, Published};
use trigger_fleet::targets::RegisteredTargets;
use trigger_store::backend::Backend;
use trigger_store::credentials::Credentials;
use trigger_store::store::StoreError;
use trigger_store::url::BackendUrl;

use crate::fire_advice;
use crate::fire_error::{BackendError, FireError};
pub use crate::fire_report::{FireReport, Fired};
use crate::host::{Host, timeout};
use crate::node_backends::NodeBackends;
use crate::os::Os;
use crate::state::{Breaker, FileError, Outbox, Quarantined, Spooled, Taken};
use trigger_core::suppressed;

/// How long publishing one event may take before the event stays in the outbox. It is short, because a Puppet run
/// waits for it; a backend that does not answer at all is noticed before.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(4);
/// The same where no agent would publish the event later: a lookup with a dead nameserver, or a line with a round trip of
/// seconds, takes longer. The limits of the single steps still end the wait for a backend that is gone.
const PUBLISH_TIMEOUT_WITHOUT_AGENT: Duration = Duration::from_secs(15);
/// Added for each target, because publishing to ten thousand takes longer than publishing to one.
const PUBLISH_TIMEOUT_PER_TARGET: Duration = Duration::from_millis(1);
/// Added if the event is for groups, because every registration is read first to find their members.
const PUBLISH_TIMEOUT_FOR_GROUPS: Duration = Duration::from_secs(2);
/// How long a fire waits for what the registrations say about its targets.
const ADVICE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the outbox relay lets one event take. No Puppet run waits for it, so an event that takes longer than
/// [`PUBLISH_TIMEOUT`] is published all the same. A backend that does not answer is noticed long before.
const RELAY_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Publishes an event to a backend that stores events. A write-only backend accepts the event and drops it.
async fn publish_to(
    backend: &Backend,
    codec: &Codec,
    publication: &Publication,
    check_prefix: bool,
) -> Result<Published, PublishError> {
    match backend.store() {
        Some(store) => {
            let fleet = Fleet::new(Arc::clone(store), Keyspace::new(publication.prefix.clone()))
                .with_codec(codec.clone());
            fleet.publish(publication, check_prefix).await
        }
        None => Ok(Published::default()),
    }
}

/// Publishes events from this node.
pub struct Publisher<H: Host = Os> {
    host: H,
    /// Absent if no outbox can be written; then an event is committed at once or not at all.
    spool: Option<Spool<H>>,
    /// An event under any other prefix is refused if no agent is registered under it.
    own_prefix: KeyPrefix,
    credentials: Credentials,
    /// Signs what is published.
    codec: Codec,
    has_agent: bool,
    /// The longest time that firing may take, where the caller set one.
    longest: Option<Duration>,
    node_backends: NodeBackends,
    /// The events that wait for an operator, which have been logged.
    logged: Mutex<HashSet<EventId>>,
    /// Opened once, then kept. The credentials are part of the key, because a backend that they opened must not serve
    /// other credentials.
    backends: Mutex<HashMap<(BackendUrl, Credentials), Backend>>,
    spooled: Notify,
}

/// The files of a node that hold events for a backend that cannot take them yet.
pub struct Spool<H: Host = Os> {
    /// The events.
    pub outbox: Outbox<H>,
    /// Remembers a backend that did not answer, so that later fires do not wait for it.
    pub breaker: Breaker<H>,
}

/// The result of emptying the outbox.
#[derive(Debug, Default)]
pub struct Drained {
    /// How many events the backend has committed.
    pub published: usize,
    /// How many events stay, because their backend did not answer.
    pub left: usize,
    /// The files that can never be published and were moved to quarantine.
    pub quarantined: Vec<Quarantined>,
}

impl<H: Host> Publisher<H> {
    /// Creates a publisher that opens every backend with this node's own credentials.
    pub fn new(
        host: H,
        spool: Option<Spool<H>>,
        own_prefix: KeyPrefix,
        credentials: Credentials,
        node_backends: NodeBackends,
    ) -> Self {
        Self {
            host,
            spool,
            own_prefix,
            credentials,
            codec: Codec::default(),
            has_agent: true,
            longest: None,
            node_backends,
            logged: Mutex::default(),
            backends: Mutex::default(),
            spooled: Notify::new(),
        }
    }

    /// The same for a node that signs what it publishes.
    #[must_use]
    pub fn signing_with(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// With what it signs.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// The same for a process that publishes only where no agent does: it gives a slow backend more time, and connects to it
    /// while it signs.
    #[must_use]
    pub fn without_agent(self) -> Self {
        let host = self.host.clone();
        let codec = self.codec.clone().signing_aside(move |work| {
            let host = host.clone();
            Box::pin(async move { host.spawn_blocking(work).await })
        });
        Self { has_agent: false, codec, ..self }
    }

    /// The same for a caller that waits no longer than this for the backend.
    #[must_use]
    pub fn giving_up_after(self, longest: Duration) -> Self {
        Self { longest: Some(longest), ..self }
    }

    /// Returns how long firing this event by an agent may take.
    pub fn patience(publication: &Publication) -> Duration {
        let targets = u32::try_from(publication.event.targets.hosts.len()).unwrap_or(u32::MAX);
        let has_groups =
            !publication.event.targets.groups.is_empty() || !publication.suppressed_groups.is_empty();
        let for_groups = if has_groups { PUBLISH_TIMEOUT_FOR_GROUPS } else { Duration::ZERO };
        PUBLISH_TIMEOUT + PUBLISH_TIMEOUT_PER_TARGET * targets + for_groups
    }

    /// Returns the backend behind a URL. It is opened once, then kept.
    ///
    /// # Errors
    /// [`BackendError::Open`] if the backend refuses the URL or the credentials. No server is asked.
    pub fn backend(&self, url: &BackendUrl) -> Result<Backend, BackendError> {
        let key = (url.clone(), self.credentials.clone());
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(backend) = backends.get(&key) {
            return Ok(backend.clone());
        }
        let backend = self.host.open_backend(url, &self.credentials)?;
        backends.insert(key, backend.clone());
        Ok(backend)
    }

    /// Returns an event as it is published now: with the URL that its address stands for on this node, and under this
    /// node's prefix if it was fired before the node had a configuration. Another version of this program may have written
    /// the address.
    ///
    /// # Errors
    /// [`BackendError::Url`] if the address selects no backend.
    pub fn addressed(&self, publication: &Publication) -> Result<Publication, BackendError> {
        let mut publication = publication.clone();
        let url = self.node_backends.resolve(&publication.backend)?.to_string();
        // An address that is no URL had no configuration behind it, and then neither has the default prefix.
        if !publication.backend.contains(':') && publication.prefix == KeyPrefix::default() {
            publication.prefix = self.own_prefix.clone();
        }
        publication.backend = url;
        Ok(publication)
    }

    /// Returns the backend that an event is for.
    ///
    /// # Errors
    /// Those of [`Publisher::addressed`] and of [`Publisher::backend`].
    pub fn backend_of(&self, publication: &Publication) -> Result<Backend, BackendError> {
        let url: BackendUrl = self.addressed(publication)?.backend.parse()?;
        self.backend(&url)
    }

    /// Fires an event: when this returns `Ok`, the event is durable. An event whose backend cannot be opened is refused
    /// before anything is stored. A backend that did not answer a moment ago is asked only if the caller
    /// `ignores_pause`.
    ///
    /// # Errors
    /// A [`FireError`], whose variant says whether the event is kept on disk.
    pub async fn fire(
        &self,
        publication: &Publication,
        ignores_pause: bool,
    ) -> Result<FireReport, FireError> {
        self.backend_of(publication)?;
        // The outbox keeps the event with the address that it was fired with.
        let (to_store, publication) = (publication, &self.addressed(publication)?);
        let Some(spool) = &self.spool else {
            return without_outbox(self.publish_soon(publication).await, Vec::new());
        };
        let unwritable = |error| {
            format!("the outbox cannot be written, so the event went straight to the backend: {error}")
        };
        if !ignores_pause && spool.breaker.is_open(&publication.backend) {
            return match spool.outbox.store(to_store) {
                Ok(_) => {
                    self.spooled.notify_one();
                    let reason = format!(
                        "backend {} did not answer a moment ago (it is asked again after 30 s)",
                        publication.backend
                    );
                    Ok(Fired::Spooled(reason).into())
                }
                Err(error) => without_outbox(self.publish_soon(publication).await, vec![unwritable(error)]),
            };
        }
        // Storing and publishing run at the same time: either makes the event durable, and each waits for a disk.
        // This returns after both have ended, so the event is then in the outbox or in the backend.
        let storing = {
            let (outbox, publication) = (spool.outbox.clone(), to_store.clone());
            self.host.spawn_blocking(move || outbox.store(&publication))
        };
        let (stored, published) = tokio::join!(storing, self.publish_soon(publication));
        match stored {
            Ok(spooled) => {
                let mut warnings = published.as_ref().map_or_else(|_| Vec::new(), about_groups);
                let fired = self.settle(spool, publication, spooled, published)?;
                if let Fired::Spooled(reason) = &fired {
                    spool.outbox.note_tries(|_| true, [(publication.event.id, reason.clone())].into());
                }
                if matches!(fired, Fired::Committed(_)) {
                    warnings.extend(self.about_targets(publication).await);
                }
                Ok(FireReport { fired, warnings })
            }
            Err(error) => without_outbox(published, vec![unwritable(error)]),
        }
    }

    /// Warnings about an event that was committed: about names that no agent has registered under, and about clocks. They
    /// are worth a short wait and no failure.
    async fn about_targets(&self, publication: &Publication) -> Vec<String> {
        let Ok(Backend::Store(store)) = self.backend_of(publication) else { return Vec::new() };
        let fleet = Fleet::new(Arc::clone(&store), Keyspace::new(publication.prefix.clone()));
        let hosts = publication.event.targets.hosts.iter();
        let targets: BTreeSet<_> = hosts.filter(|host| !publication.suppressed.contains_key(*host)).collect();
        if targets.is_empty() {
            // The members of groups are known only to the backend, but its own clock is of use here too.
            let found = RegisteredTargets::default();
            return fire_advice::warnings(&found, store.clock_difference(), self.host.wall());
        }
        match timeout(&self.host, ADVICE_TIMEOUT, fleet.registered_targets(&targets)).await {
            // The clock is read after the registrations, so that one from the future is certain.
            Some(Ok(found)) => fire_advice::warnings(&found, store.clock_difference(), self.host.wall()),
            _ => Vec::new(),
        }
    }

    /// Publishes within the time a Puppet run can be made to wait.
    async fn publish_soon(&self, publication: &Publication) -> Result<Published, PublishError> {
        if self.has_agent {
            return self.publish(publication, self.within(Self::patience(publication))).await;
        }
        let more = PUBLISH_TIMEOUT_WITHOUT_AGENT - PUBLISH_TIMEOUT;
        let publishing = self.publish(publication, self.within(Self::patience(publication) + more));
        // Nothing is connected yet. A handshake takes about as long as the signature of an event, so both are made at once.
        let Ok(Backend::Store(store)) = self.backend_of(publication) else { return publishing.await };
        let mut publishing = pin!(publishing);
        tokio::select! {
            biased;
            () = store.prepare() => publishing.await,
            published = &mut publishing => published,
        }
    }

    fn within(&self, limit: Duration) -> Duration {
        self.longest.map_or(limit, |longest| longest.min(limit))
    }

    async fn publish(&self, publication: &Publication, limit: Duration) -> Result<Published, PublishError> {
        let unreachable = |detail: String| {
            PublishError::Store(StoreError::Unreachable {
                backend: publication.backend.clone(),
                detail: detail.into(),
            })
        };
        let backend = self.backend_of(publication).map_err(|error| unreachable(error.to_string()))?;
        let check_prefix = publication.prefix != self.own_prefix;
        match timeout(&self.host, limit, publish_to(&backend, &self.codec, publication, check_prefix)).await {
            Some(result) => result,
            None => Err(unreachable(format!(
                "it did not take the event within {}",
                duration::format_short(limit)
            ))),
        }
    }

    /// Publishes the events of the outbox, oldest first. After a backend has not answered, its other events stay, and
    /// the events for other backends are published. An event that can never be published is quarantined. A caller
    /// that is `in_a_hurry` also skips a backend that did not answer another process a moment ago.
    ///
    /// # Errors
    /// A [`FileError`] if the outbox cannot be listed.
    pub async fn drain(&self, in_a_hurry: bool) -> Result<Drained, FileError> {
        let mut drained = Drained::default();
        let mut silent: HashSet<String> = HashSet::new();
        let Some(spool) = &self.spool else { return Ok(drained) };
        let (mut waits, mut failed) = (HashSet::new(), BTreeMap::new());
        for path in spool.outbox.waiting()? {
            let taken = spool.outbox.take(&path, self.host.wall()).unwrap_or_else(|error| {
                // A file that cannot be opened or moved must not hold up the others.
                tracing::error!(%error, "a spooled event cannot be read and stays in the outbox");
                Taken::Busy
            });
            match taken {
                // It may wait on.
                Taken::Busy => waits.extend(Outbox::<H>::event_of(&path)),
                Taken::Quarantined(aside) => drained.quarantined.push(aside),
                Taken::Event(publication, spooled) => {
                    let event = publication.event.id;
                    let publication = match self.addressed(&publication) {
                        Ok(publication) => publication,
                        Err(error) => {
                            self.log_elsewhere(&publication, &error.to_string());
                            failed.insert(event, error.to_string());
                            drained.left += 1;
                            continue;
                        }
                    };
                    let backend = &publication.backend;
                    if silent.contains(backend) || (in_a_hurry && spool.breaker.is_open(backend)) {
                        waits.insert(event);
                        drained.left += 1;
                        continue;
                    }
                    let patience = if in_a_hurry { Self::patience(&publication) } else { RELAY_TIMEOUT };
                    let result = self.publish(&publication, patience).await;
                    let is_denied = result.as_ref().is_err_and(PublishError::is_denied);
                    match self.settle(spool, &publication, spooled, result) {
                        Ok(Fired::Committed(_)) => drained.published += 1,
                        Ok(Fired::Spooled(reason)) => {
                            drained.left += 1;
                            failed.insert(event, reason.clone());
                            if !self.is_for_this_node(&publication) {
                                self.log_elsewhere(&publication, &reason);
                            } else if is_denied {
                                self.log_denied(&publication, &reason);
                            }
                            // A backend that denies one event may take the next, which may have another prefix.
                            if !is_denied {
                                silent.insert(publication.backend);
                            }
                        }
                        Err(error) => {
                            tracing::error!(event = %publication.event.id, %error, "a spooled event can never be published")
                        }
                    }
                }
            }
        }
        spool.outbox.note_tries(|event| waits.contains(&event), failed);
        Ok(drained)
    }

    /// Applies the result of publishing to an event in the outbox: removes its file, keeps it, or quarantines it.
    fn settle(
        &self,
        spool: &Spool<H>,
        publication: &Publication,
        spooled: Spooled<H>,
        published: Result<Published, PublishError>,
    ) -> Result<Fired, FireError> {
        match published {
            Ok(Published { revision, .. }) => {
                spool.breaker.reset(&publication.backend);
                if let Err(error) = spooled.committed() {
                    // It will be published once more, which does no harm, because targets recognise its id.
                    tracing::warn!(event = %publication.event.id, %error, "cannot remove a published event from the outbox");
                }
                Ok(Fired::Committed(revision))
            }
            Err(error) if error.is_transient() => {
                if !error.is_denied() {
                    spool.breaker.trip(&publication.backend);
                }
                self.spooled.notify_one();
                Ok(Fired::Spooled(error.to_string()))
            }
            Err(source) => {
                let path = spooled.quarantine(&source.to_string())?.path;
                Err(FireError::Quarantined { path, source })
            }
        }
    }

    /// Whether an event is for a backend that the configuration of this node names.
    fn is_for_this_node(&self, publication: &Publication) -> bool {
        publication.backend.parse().is_ok_and(|url| self.node_backends.include(&url))
    }

    /// Logs once that an event waits for a backend that this node's configuration does not name.
    fn log_elsewhere(&self, publication: &Publication, reason: &str) {
        let event = publication.event.id;
        if self.logged.lock().unwrap_or_else(PoisonError::into_inner).insert(event) {
            tracing::warn!(
                %event,
                backend = publication.backend,
                reason,
                "a spooled event is for a backend that is not this node's; 'trigger outbox readdress' sends it to the \
                 node's own"
            );
        }
    }

    /// Logs once that an event waits for a right.
    fn log_denied(&self, publication: &Publication, reason: &str) {
        let event = publication.event.id;
        if self.logged.lock().unwrap_or_else(PoisonError::into_inner).insert(event) {
            tracing::warn!(%event, reason, "a spooled event waits until its backend allows this node to publish it");
        }
    }

    /// Returns when an event stays in the outbox because its backend did not answer.
    pub async fn has_spooled(&self) {
        self.spooled.notified().await;
    }
}

/// Returns the result of a fire whose event is in no outbox, so that only the backend can keep it.
fn without_outbox(
    published: Result<Published, PublishError>,
    mut warnings: Vec<String>,
) -> Result<FireReport, FireError> {
    match published {
        Ok(published) => {
            warnings.extend(about_groups(&published));
            Ok(FireReport { fired: Fired::Committed(published.revision), warnings })
        }
        Err(source) if source.is_transient() => {
            let reason = warnings.into_iter().next().unwrap_or_else(|| "there is no outbox here".to_owned());
            Err(FireError::NotSpooled { reason, source })
        }
        Err(error) => Err(FireError::Publish(error)),
    }
}

/// Warnings about groups: a group without members may be misspelt, and a member that will find a loop in the event's
/// chain is named.
fn about_groups(published: &Published) -> Vec<String> {
    let empty = published.empty_groups.iter();
    let empty = empty.map(|group| format!("no agent belongs to the group '{group}': no node runs for it"));
    empty.chain(suppressed::of_members(&published.repeating_members)).collect()
}

#[cfg(test)]
mod tests {
    use trigger_core::event::{DEFAULT_LIFETIME, Event, RunOptions, Targets};
    use trigger_core::lineage::{Lineage, Loops};

    use super::*;
    use crate::fire_error::FireErrorKind;
    use crate::node_backends::UNADDRESSED;
    use crate::state::StateDir;

    fn event() -> Event {
        let id = EventId::from_uuid(uuid::Uuid::now_v7());
        Event {
            id,
            trigger: "t".parse().unwrap(),
            origin: "a".parse().unwrap(),
            targets: Targets { hosts: ["b".parse().unwrap()].into(), groups: Default::default() },
            options: RunOptions::default(),
            lineage: Lineage::root(id),
            fired_in: None,
            fired_by: None,
            catalog: None,
            loops: Loops::Avoid,
            fired_at: Os::start().wall(),
            expires_in: DEFAULT_LIFETIME,
        }
    }

    fn publication(backend: &str) -> Publication {
        Publication {
            backend: backend.to_owned(),
            prefix: KeyPrefix::default(),
            event: event(),
            suppressed: Default::default(),
            suppressed_groups: Default::default(),
        }
    }

    /// An outbox, and the publisher of a node whose backend is `own`.
    fn publisher(dir: &std::path::Path, own: &str, prefix: &str) -> (Outbox, Publisher) {
        let state = StateDir::open(dir).unwrap();
        let outbox = Outbox::open(&state).unwrap();
        let spool = Spool { outbox: outbox.clone(), breaker: Breaker::new(&state) };
        let node = NodeBackends::new(own.parse().unwrap(), Vec::new());
        let prefix = prefix.parse().unwrap();
        (outbox, Publisher::new(Os::start(), Some(spool), prefix, Credentials::default(), node))
    }

    /// An event can come from a program of another version, by the agent's socket, with a URL that this one refuses.
    #[tokio::test]
    async fn an_event_for_a_url_that_is_refused_is_not_stored() {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, publisher) = publisher(dir.path(), "dummy:", "/p");
        for backend in ["hub+http://::1:8145", "etcds://a:2379", "nonsense", "etcd"] {
            assert_eq!(
                publisher.fire(&publication(backend), false).await.unwrap_err().kind(),
                FireErrorKind::Configuration,
                "{backend}"
            );
            assert!(outbox.waiting().unwrap().is_empty(), "{backend}");
        }
    }

    /// Proves C1. The first Puppet run of a node fires before it has a configuration.
    #[tokio::test]
    async fn an_event_without_an_address_is_taken_by_the_first_backend_that_the_node_gets_configured() {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, unconfigured) =
            publisher(dir.path(), "hub+http://127.0.0.1:9", KeyPrefix::default().as_str());
        let fired = unconfigured.fire(&publication(UNADDRESSED), false).await.unwrap().fired;
        assert!(matches!(fired, Fired::Spooled(_)), "{fired:?}");
        let elsewhere = publication("hub+http://127.0.0.1:10");
        drop(outbox.store(&elsewhere).unwrap());
        assert_eq!(outbox.waiting().unwrap().len(), 2);

        let (_, configured) = publisher(dir.path(), "dummy:", "/site");
        let addressed = configured.addressed(&publication(UNADDRESSED)).unwrap();
        assert_eq!((addressed.backend.as_str(), addressed.prefix.as_str()), ("dummy:", "/site"));
        let kept = configured.addressed(&elsewhere).unwrap();
        assert_eq!((&kept.backend, &kept.prefix), (&elsewhere.backend, &elsewhere.prefix));
        let drained = configured.drain(false).await.unwrap();
        assert_eq!((drained.published, drained.left), (1, 1));
        let tries = outbox.last_tries();
        let reasons: Vec<_> = tries.iter().collect();
        let [(event, reason)] = reasons[..] else { panic!("{tries:?}") };
        assert_eq!(*event, elsewhere.event.id, "what was published has no reason any more");
        assert!(reason.contains("hub+http://127.0.0.1:10 is unreachable"), "{reason}");
        let left = outbox.waiting().unwrap();
        assert!(left[0].to_string_lossy().contains(&elsewhere.event.id.to_string()), "{left:?}");
    }
}
