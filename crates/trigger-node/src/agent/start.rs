//! Starts an agent: opens its files and its backend, connects its tasks, and runs them until the daemon stops.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use trigger_core::keyspace::Keyspace;
use trigger_fleet::Fleet;
use trigger_fleet::claim::ClaimState;
use trigger_fleet::delivery_watcher::Outlets;
use trigger_store::store::Store;
use trigger_store::url::BackendUrl;

use super::connection::Connection;
use super::recent_fires::RecentFires;
use super::registration::{self, Registration};
use super::{
    AgentError, AgentSettings, CertnameSource, DisableCheck, Node, Part, Service, Stopped, Surroundings,
};
use super::{completion_writer, daemon, delivery_watcher, metrics, outbox_relay, sweeper};
use crate::firing::{Publisher, Spool};
use crate::host::Host;
use crate::state::{Breaker, DedupLog, Outbox, Runs, StateDir};

/// How often the agent checks that its lock is in place.
const PLACE_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Runs the agent on any [`Host`] until a signal, a reload or the loss of its claim stops it. Calls
/// `check_configuration` before a reload.
///
/// # Errors
/// [`AgentError`] if the agent cannot start, or if one of its tasks has ended.
pub async fn run<H: Host, D: DisableCheck, C: Future<Output = Result<(), E>>, E: fmt::Display>(
    settings: AgentSettings<H>,
    surroundings: Surroundings<D, impl FnOnce(Service<H>) -> Result<Vec<Part>, AgentError>>,
    check_configuration: impl Fn() -> C,
) -> Result<Stopped, AgentError> {
    let state = settings.state.clone();
    let host = state.host().clone();
    let was_accessible = state.restrict()?;
    let Some(only_agent_here) = state.lock_for_agent()? else {
        return Err(AgentError::AlreadyRunning { path: state.path().to_owned() });
    };
    claim_state_dir(&settings)?;

    let outbox = Outbox::open(&state)?;
    let spool = Spool { outbox: outbox.clone(), breaker: Breaker::new(&state) };
    let (prefix, credentials) = (settings.prefix.clone(), settings.credentials.clone());
    let (backends, codec) = (settings.node_backends(), settings.codec.clone());
    let publisher = Arc::new(
        Publisher::new(host.clone(), Some(spool), prefix, credentials, backends).signing_with(codec),
    );
    let store = open_store(&publisher, &settings.backend)?;
    if was_accessible {
        tracing::warn!(path = %state.path().display(), "other users had access to the state directory; only its owner has now");
    }
    let keyspace = Keyspace::new(settings.prefix.clone());
    let fleet =
        Fleet::new(store, keyspace).acting_as(settings.certname.clone()).with_codec(settings.codec.clone());
    let runs = Runs::open(&state)?;
    let (dedup_log, ended) = DedupLog::open(&state, host.wall())?;

    let node = Arc::new(Node { settings, metrics: metrics::Metrics::new(), fleet, host: host.clone() });
    let (arrivals_in, arrivals) = mpsc::channel(16);
    let (completions_in, completions) = completion_writer::channel();
    let (claim_in, claim) = watch::channel(ClaimState::Unregistered { trouble: None });
    let is_named = match &node.settings.certname_source {
        CertnameSource::Configured(certname) => *certname == node.settings.certname,
        CertnameSource::Puppet => false,
    };
    let (may_claim_in, may_claim) = watch::channel(is_named);
    let (link_in, link) = watch::channel(Connection::NotTried);
    let (activity_in, activity) = watch::channel(Default::default());
    let (own_record, seen) = watch::channel(Default::default());
    let (release_in, release) = oneshot::channel();
    let (questions_in, questions) = mpsc::channel(16);
    let (log_requests_in, log_requests) = mpsc::channel(16);

    let lock = host.lock_name(&only_agent_here);
    let joined = registration::read_joined(&node.settings)?;
    let registration = registration::Channels { activity, seen, may_claim, release, standing: claim_in };
    let service = Service {
        node: Arc::clone(&node),
        publisher: Arc::clone(&publisher),
        questions: questions_in,
        outbox,
        recent_fires: RecentFires::new(host.wall()),
        link: link.clone(),
        claim: claim.clone(),
        log_requests: Some(log_requests),
    };
    let breaker = Breaker::new(&state);
    let outlets = Outlets { arrivals: arrivals_in, own_record, log_requests: log_requests_in };
    let mut parts = (surroundings.serve)(service)?;
    parts.push(Box::pin(outbox_relay::run(host.clone(), publisher, link.clone())));
    parts.push(Box::pin(completion_writer::run(Arc::clone(&node), runs.clone(), completions)));
    parts.push(Box::pin(Registration::run(Arc::clone(&node), lock, joined, registration)));
    parts.push(Box::pin(sweeper::run(Arc::clone(&node))));
    parts.push(Box::pin(delivery_watcher::run(Arc::clone(&node), breaker, claim.clone(), link_in, outlets)));
    let (ended_in, mut part_ended) = mpsc::channel(1);
    let _tasks: Vec<H::Task> = parts.into_iter().map(|part| host.spawn(watched(part, &ended_in))).collect();
    drop(ended_in);

    let channels = daemon::Channels {
        signals: surroundings.signals,
        policy: surroundings.policy,
        catalogs: surroundings.catalogs,
        arrivals,
        claim,
        disabled: surroundings.disabled,
        may_claim: may_claim_in,
        link,
        questions,
        completions: completions_in,
        activity: activity_in,
    };
    let daemon = daemon::Daemon::new(node, runs.clone(), dedup_log, ended, channels)?;
    let stopped = tokio::select! {
        biased;
        stopped = daemon.run(check_configuration, surroundings.on_ready) => stopped?,
        // No task ends while the daemon runs. After a panic in one, the service manager restarts the agent, which is
        // better than an agent that only looks alive.
        _ = part_ended.recv() => {
            return Err(AgentError::PartEnded);
        }
        () = loses_place(&state, &only_agent_here) => {
            return Err(AgentError::StateDirGone { path: state.path().to_owned() });
        }
    };
    // What is in progress, or was not stored yet, is this directory's to end: until then no other agent may run. A
    // reload keeps the claim, for the same lock is taken again at once.
    // While a run goes on, not even the next agent of this directory may be spared the wait: a copy of the directory may
    // be started elsewhere.
    let open = runs.open_runs()?;
    if let (Stopped::Terminated, Some(left)) = (stopped, open.iter().find(|run| run.is_alive)) {
        tracing::info!(
            run = %left.record.run_id,
            "the agent stops and its run goes on, which the next agent adopts: what systemd says now and at the next start of \
             remaining or left-over processes is about this run"
        );
    }
    if matches!(stopped, Stopped::Terminated | Stopped::Renamed) && !open.iter().any(|run| run.is_alive) {
        let (done_in, done) = oneshot::channel();
        let release = registration::Release { nothing_is_open: open.is_empty(), done: done_in };
        if release_in.send(release).is_ok() {
            let _ = done.await;
        }
    }
    Ok(stopped)
}

/// Returns when the lock no longer keeps other agents out. What is missing below the directory is created again where
/// it is needed; without the lock, two agents could run here.
async fn loses_place<H: Host>(state: &StateDir<H>, lock: &H::File) {
    loop {
        state.host().sleep(PLACE_CHECK_INTERVAL).await;
        if !state.is_locked_by(lock) {
            return;
        }
    }
}

/// Wraps a task of the agent so that it reports its end, even by a panic.
fn watched(part: Part, ended: &mpsc::Sender<()>) -> impl Future<Output = ()> + Send + use<> {
    struct AtEnd(mpsc::Sender<()>);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }
    let at_end = AtEnd(ended.clone());
    async move {
        let _at_end = at_end;
        part.await;
    }
}

/// Opens the backend that an agent watches. A write-only backend is refused.
fn open_store<H: Host>(publisher: &Publisher<H>, url: &BackendUrl) -> Result<Arc<dyn Store>, AgentError> {
    publisher.backend(url)?.store().cloned().ok_or_else(|| AgentError::WriteOnlyBackend { url: url.clone() })
}

/// Checks whether the certname that a node is to have is the one that its state directory belongs to.
///
/// # Errors
/// [`AgentError::OtherOwner`].
pub fn check_owner<H: Host>(settings: &AgentSettings<H>) -> Result<(), AgentError> {
    match &settings.certname_source {
        CertnameSource::Configured(certname) if *certname != settings.certname => {
            Err(AgentError::OtherOwner {
                path: settings.state.path().to_owned(),
                owner: settings.certname.clone(),
                certname: certname.clone(),
            })
        }
        _ => Ok(()),
    }
}

/// Checks whether an agent could be started with these settings. No server is asked.
///
/// # Errors
/// [`AgentError::Backend`] or [`AgentError::WriteOnlyBackend`].
pub fn check<H: Host>(settings: &AgentSettings<H>) -> Result<(), AgentError> {
    let host = settings.state.host().clone();
    let (prefix, credentials) = (settings.prefix.clone(), settings.credentials.clone());
    let publisher = Publisher::new(host, None, prefix, credentials, settings.node_backends());
    open_store(&publisher, &settings.backend).map(drop)
}

/// Notes whose state directory it is (C11): its runs and outcomes are that node's. A directory that belongs to another
/// certname has an agent that acts for that one and starts no run; see [`CertnameSource`].
fn claim_state_dir<H: Host>(settings: &AgentSettings<H>) -> Result<(), AgentError> {
    if settings.state.certname()?.is_none() {
        settings.state.set_certname(&settings.certname)?;
    }
    Ok(())
}
