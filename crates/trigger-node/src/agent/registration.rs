//! Keeps this node's registration in the backend: its claim on the certname, its groups and its activity.
//! [`trigger_fleet::claim`] decides about the claim; this module has the clock, the wake-ups and the file that
//! remembers the groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use trigger_core::identity::{GroupName, Revision};
use trigger_core::node::Activity;
use trigger_core::queue::ClaimBlocker;
use trigger_fleet::claim::{Claim, ClaimState, Claimant};

use super::end_note;
use super::{AgentSettings, Node};
use crate::host::{Host, timeout};
use crate::state::{FileError, read_if_present, write_durably};

/// The shortest interval between two writes of a changed activity.
const ACTIVITY_SPACING: Duration = Duration::from_millis(250);
/// How long a change of activity waits before it is written, so that a run that has just started is not delayed on this
/// node's processors and on the backend's disk.
const ACTIVITY_DELAY: Duration = Duration::from_millis(50);
/// How long an agent that stops tries to release its claim. After that it notes its end.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The registration's ends of the channels to the other tasks.
pub(super) struct Channels {
    pub(super) activity: watch::Receiver<Activity>,
    /// The latest revision at which a watch saw this node's own record written, by any agent.
    pub(super) seen: watch::Receiver<Revision>,
    /// Whether the certname is certainly this node's. A node that may have another name claims none.
    pub(super) may_claim: watch::Receiver<bool>,
    /// A request to end, because the agent was stopped in good order.
    pub(super) release: oneshot::Receiver<Release>,
    pub(super) standing: watch::Sender<ClaimState>,
}

/// A request to end.
pub(super) struct Release {
    /// Whether this state directory has no run and no outcome to end: otherwise no other agent may run yet.
    pub(super) nothing_is_open: bool,
    /// Reports the completion.
    pub(super) done: oneshot::Sender<()>,
}

/// The owner of this node's registration.
pub(super) struct Registration<H: Host> {
    node: Arc<Node<H>>,
    claim: Claim,
    /// The joined groups as the state directory has them.
    remembered: BTreeMap<GroupName, Revision>,
    activity: watch::Receiver<Activity>,
    seen: watch::Receiver<Revision>,
    may_claim: watch::Receiver<bool>,
    standing: watch::Sender<ClaimState>,
}

impl<H: Host> Registration<H> {
    /// Registers this node and keeps the registration up to date until a request to release the claim. `lock` is the
    /// name of the lock that this agent holds on its state directory.
    pub(super) async fn run(
        node: Arc<Node<H>>,
        lock: Option<String>,
        remembered: BTreeMap<GroupName, Revision>,
        channels: Channels,
    ) {
        let settings = &node.settings;
        let claimant = Claimant {
            instance: node.host.new_instance(),
            lock,
            may_inherit: settings.may_inherit_claim,
            ended: end_note::read(settings),
            host: node.host.name(),
            pid: node.host.pid(),
            directory: settings.state.path().display().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            groups: settings.groups.clone(),
        };
        let elapsed = node.host.now().elapsed;
        let claim = Claim::new(node.fleet.clone(), claimant, remembered.clone(), elapsed);
        let Channels { activity, seen, may_claim, release, standing } = channels;
        let mut registrar = Self { node, claim, remembered, activity, seen, may_claim, standing };
        tokio::select! {
            biased;
            () = registrar.keep() => {}
            Ok(Release { nothing_is_open, done }) = release => {
                registrar.end(nothing_is_open).await;
                let _ = done.send(());
            }
        }
    }

    async fn keep(&mut self) {
        let mut is_failing = false;
        let mut has_note = true;
        while !self.standing.is_closed() {
            // A claim that this agent holds is kept, so that status shows why its deliveries wait.
            if !self.claim.is_held() && self.may_claim.wait_for(|may_claim| *may_claim).await.is_err() {
                // The daemon has ended; the task that ends the agent decides whether the claim is released.
                std::future::pending::<()>().await;
            }
            let activity = self.activity.borrow_and_update().clone();
            // This renewal answers every write seen until now, even if the backend was recreated and its revisions
            // start from the beginning again.
            self.seen.mark_unchanged();
            let renewed = self.claim.renew(&activity, self.node.host.now()).await;
            if let Err(error) = &renewed
                && !is_failing
            {
                tracing::warn!(%error, "the registration waits for the backend");
            }
            is_failing = renewed.is_err();
            self.remember_groups();
            let elapsed = self.node.host.now().elapsed;
            self.tell(self.claim.state(elapsed));
            if has_note && self.claim.publishes_activity() {
                // It has served: the record is this agent's own now.
                end_note::remove(&self.node.settings);
                has_note = false;
            }
            let pause = self.claim.pause(elapsed, self.node.host.jitter());
            tokio::select! {
                biased;
                () = self.node.host.sleep(pause) => {}
                () = news(&self.claim, &mut self.seen) => {}
                () = change(&self.node.host, &mut self.activity), if self.claim.publishes_activity() => {}
            }
        }
    }

    fn remember_groups(&mut self) {
        if *self.claim.joined() != self.remembered {
            match write_joined(&self.node.settings, self.claim.joined()) {
                Ok(()) => self.remembered = self.claim.joined().clone(),
                Err(error) => {
                    tracing::error!(%error, "cannot store since when this node is in its groups")
                }
            }
        }
    }

    /// Gives the claim up, if nothing that only this state directory can end is open. Where that fails, or may not be
    /// done, the note of this agent's end spares the next agent of this directory the wait.
    async fn end(&mut self, nothing_is_open: bool) {
        if !(nothing_is_open && self.release().await)
            && let Err(error) = end_note::write(&self.node.settings, &self.claim.latest_stamps())
        {
            tracing::warn!(%error, "cannot note that this agent has ended");
        }
    }

    /// Returns whether the claim is given up, or was not this agent's.
    async fn release(&mut self) -> bool {
        // What waits for a certname that is no longer this node's is not this node's to explain.
        let is_named = *self.may_claim.borrow();
        let activity = if is_named { self.activity.borrow().clone() } else { Activity::default() };
        let now = self.node.host.now();
        match timeout(&self.node.host, RELEASE_TIMEOUT, self.claim.release(&activity, now)).await {
            Some(Ok(true)) => {
                tracing::info!(certname = %self.node.settings.certname, "released the claim");
                return true;
            }
            // It was another agent's, or this one has not written since the end of an earlier one.
            Some(Ok(false)) => return self.claim.latest_stamps().is_empty(),
            Some(Err(error)) => {
                tracing::warn!(%error, "the claim is not released; the next agent of this directory takes it over");
            }
            None => tracing::warn!(
                "the claim is not released; the next agent of this directory takes it over: no answer in time"
            ),
        }
        false
    }

    fn tell(&self, standing: ClaimState) {
        self.standing.send_if_modified(|known| {
            let changed = *known != standing;
            if changed {
                self.log(known, &standing);
                *known = standing;
            }
            changed
        });
    }

    /// Logs a change of the claim that an operator should know, once.
    fn log(&self, known: &ClaimState, standing: &ClaimState) {
        let blocker = standing.blocker(self.node.host.now().elapsed);
        let sentence = blocker.as_ref().map_or("", ClaimBlocker::reason);
        match (known, standing) {
            (ClaimState::Contended(before), ClaimState::Contended(rival))
                if before.is_alive() == rival.is_alive() => {}
            (_, ClaimState::Contended(rival)) if rival.is_alive() => {
                tracing::error!(reason = sentence, "nothing is run");
            }
            (_, ClaimState::Contended(_)) => tracing::warn!(reason = sentence, "nothing is run yet"),
            (ClaimState::Stale { .. }, ClaimState::Stale { .. }) | (_, ClaimState::Unregistered { .. }) => {}
            (_, ClaimState::Stale { .. }) => tracing::error!(reason = sentence, "nothing is run"),
            (ClaimState::Held { .. }, ClaimState::Held { .. }) => {}
            (_, ClaimState::Held { .. }) => {
                tracing::info!(certname = %self.node.settings.certname, "registered")
            }
        }
    }
}

/// Returns when a watch has seen that another agent wrote this node's record.
async fn news(claim: &Claim, seen: &mut watch::Receiver<Revision>) {
    while seen.changed().await.is_ok() {
        if claim.is_news(*seen.borrow_and_update()) {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Returns when the activity has changed and the change is due to be written.
async fn change<H: Host>(host: &H, activity: &mut watch::Receiver<Activity>) {
    host.sleep(ACTIVITY_SPACING).await;
    if activity.changed().await.is_err() {
        // The daemon has ended; the task that ends the agent decides whether the claim is released.
        std::future::pending::<()>().await;
    }
    host.sleep(ACTIVITY_DELAY).await;
}

/// Reads the joined groups. The first line of the file names the backend and prefix, because a revision of one backend
/// has no meaning in another.
pub(super) fn read_joined<H: Host>(
    settings: &AgentSettings<H>,
) -> Result<BTreeMap<GroupName, Revision>, FileError> {
    let text = read_if_present(settings.state.host(), &settings.state.file("groups"))?.unwrap_or_default();
    let Some(lines) = text.strip_prefix(&place(settings)) else { return Ok(BTreeMap::new()) };
    let line = |line: &str| {
        let (group, revision) = line.split_once(' ')?;
        Some((group.parse().ok()?, Revision(revision.parse().ok()?)))
    };
    let joined = lines.lines().filter_map(line);
    Ok(joined.filter(|(group, _)| settings.groups.contains(group)).collect())
}

fn write_joined<H: Host>(
    settings: &AgentSettings<H>,
    joined: &BTreeMap<GroupName, Revision>,
) -> Result<(), FileError> {
    let lines = joined.iter().map(|(group, revision)| format!("{group} {revision}\n"));
    let text: String = std::iter::once(place(settings)).chain(lines).collect();
    write_durably(settings.state.host(), &settings.state.file("groups"), text.as_bytes())
}

fn place<H: Host>(settings: &AgentSettings<H>) -> String {
    format!("{} {}\n", settings.backend, settings.prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{metrics, testing};
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use trigger_core::keyspace::Keyspace;
    use trigger_fleet::Fleet;
    use trigger_store::meddled::{Meddled, Meddler};
    use trigger_store::memory::MemoryStore;
    use trigger_store::store::{CasOutcome, Store, StoreError};

    /// A store that can be unreachable, and counts what it has written.
    #[derive(Default)]
    struct Faulty {
        store: MemoryStore,
        is_unreachable: AtomicBool,
        refused: AtomicU32,
        written: AtomicU32,
    }

    #[async_trait::async_trait]
    impl Meddler for Faulty {
        fn store(&self) -> &dyn Store {
            &self.store
        }

        async fn compare_and_swap(
            &self,
            key: &str,
            value: &str,
            expected: Option<Revision>,
        ) -> Result<CasOutcome, StoreError> {
            if self.is_unreachable.load(Ordering::Relaxed) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let (backend, detail) = ("here".to_owned(), "a fault".into());
                return Err(StoreError::Unreachable { backend, detail });
            }
            self.written.fetch_add(1, Ordering::Relaxed);
            self.store.compare_and_swap(key, value, expected).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_with_another_name_keeps_its_registration_through_a_failed_renewal() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Meddled(Faulty::default()));
        let fleet = Fleet::new(store.clone(), Keyspace::default()).acting_as("lb01".parse().unwrap());
        let settings = testing::settings(dir.path());
        let host = *settings.state.host();
        let node = Arc::new(Node { settings, metrics: metrics::Metrics::new(), fleet, host });
        let (_activity_in, activity) = watch::channel(Activity::default());
        let (_seen_in, seen) = watch::channel(Revision::default());
        let (may_claim_in, may_claim) = watch::channel(false);
        let (_release_in, release) = oneshot::channel();
        let (standing, mut claim) = watch::channel(ClaimState::Unregistered { trouble: None });
        let channels = Channels { activity, seen, may_claim, release, standing };
        let registration = tokio::spawn(Registration::run(node, None, BTreeMap::new(), channels));
        let pause = || tokio::time::sleep(2 * trigger_fleet::claim::RENEWAL_INTERVAL);
        pause().await;
        assert_eq!(store.written.load(Ordering::Relaxed), 0, "an uncertain name is not claimed");
        may_claim_in.send_replace(true);
        claim.wait_for(|claim| matches!(claim, ClaimState::Held { .. })).await.unwrap();
        may_claim_in.send_replace(false);
        store.is_unreachable.store(true, Ordering::Relaxed);
        pause().await;
        assert!(store.refused.load(Ordering::Relaxed) > 1, "it is tried again");
        store.is_unreachable.store(false, Ordering::Relaxed);
        let before = store.written.load(Ordering::Relaxed);
        pause().await;
        assert!(
            store.written.load(Ordering::Relaxed) > before,
            "it is renewed, so that status shows the reason"
        );
        registration.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_before_a_renewal_is_no_reason_for_another() {
        let claimant = Claimant {
            instance: "i".to_owned(),
            lock: None,
            may_inherit: true,
            ended: Vec::new(),
            host: "h".to_owned(),
            pid: 1,
            directory: "/f".to_owned(),
            version: "1".to_owned(),
            groups: Vec::new(),
        };
        let fleet = Fleet::new(Arc::new(MemoryStore::default()), Keyspace::default())
            .acting_as("lb01".parse().unwrap());
        let mut claim = Claim::new(fleet, claimant, BTreeMap::new(), Duration::ZERO);
        // Seen in a backend that has been recreated since.
        let (sender, mut seen) = watch::channel(Revision(1_000_000));
        let now = crate::os::Os::start().now();
        seen.mark_unchanged();
        claim.renew(&Activity::default(), now).await.unwrap();
        assert!(claim.is_news(Revision(1_000_000)), "it looks like news");
        let mut is_news =
            async || tokio::time::timeout(Duration::from_secs(1), news(&claim, &mut seen)).await.is_ok();
        assert!(!is_news().await);
        sender.send_replace(Revision::default());
        assert!(!is_news().await, "older than ours");
        sender.send_replace(Revision(1_000_001));
        assert!(is_news().await);
    }
}
