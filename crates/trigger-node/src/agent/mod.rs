//! The node's daemon. One task owns the queue and the runs ([`daemon`]); the others carry things to it and
//! from it: [`delivery_watcher`] reads deliveries, [`completion_writer`] stores outcomes, [`registration`] keeps the claim on the
//! certname, [`socket`] serves this node's commands, [`outbox_relay`] empties the outbox,
//! [`sweeper`] removes from the backend what nobody needs any more, [`reaper`] reaps the supervisors of the
//! program before a reload, [`metrics_file`] tells what happened.

mod completion_writer;
mod daemon;
mod delivery_watcher;
mod disable_watcher;
mod metrics;
mod metrics_file;
mod outbox_relay;
mod reaper;
mod registration;
mod run_history;
pub mod socket;
mod suppressed;
mod sweeper;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use trigger_core::identity::{Certname, GroupName, KeyPrefix};
use trigger_core::keyspace::Keyspace;
use trigger_core::rate_limiter::RunsPerMinute;
use trigger_core::run::command::RunCommand;
use trigger_fleet::Fleet;
use trigger_fleet::claim::ClaimState;
use trigger_fleet::delivery_watcher::Outlets;
use trigger_store::credentials::Credentials;
use trigger_store::kinds;
use trigger_store::store::Store;
use trigger_store::url::BackendUrl;

use crate::clock::{self, Clock};
use crate::failure::Failure;
use crate::firing::{Publisher, Spool};
use crate::state::{self, Breaker, DedupLog, Outbox, Runs, StateDir};

use registration::Registration;
pub use view::QueueView;

/// All that an agent is told.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    pub certname: Certname,
    pub state: StateDir,
    pub backend: BackendUrl,
    /// With what backends are opened, this one and those of `trigger` resources that name a provider.
    pub credentials: Credentials,
    pub prefix: KeyPrefix,
    pub groups: Vec<GroupName>,
    pub command: RunCommand,
    /// The run command in words, for the record of each run.
    pub command_words: Vec<String>,
    pub run_timeout: Duration,
    pub runs_per_minute: RunsPerMinute,
    /// Where node_exporter looks for what it passes on; none where nobody asked.
    pub metrics_file: Option<PathBuf>,
    /// What a `trigger fire` inside a run needs to find this agent.
    pub run_environment: BTreeMap<String, String>,
    /// Whether an agent that held this directory's lock is certain to be dead.
    pub may_inherit_claim: bool,
}

/// Why the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It was told to.
    Terminated,
    /// It shall start again with a configuration that was found to be good.
    Reload,
    /// Likewise, since another agent has taken the claim: what waits here is that one's.
    ClaimLost,
}

/// What is shared by the agent's tasks and does not change, but for what is counted.
struct Node {
    settings: AgentSettings,
    metrics: metrics::Metrics,
    fleet: Fleet,
    clock: Clock,
}

/// Runs the agent until it is told to stop. `check_configuration` is asked before a reload.
pub async fn run(
    settings: AgentSettings,
    check_configuration: impl AsyncFn() -> Result<(), Failure>,
) -> Result<Stopped, Failure> {
    let state = settings.state.clone();
    let Some(only_agent_here) = state.lock_for_agent()? else {
        return Err(Failure::failed(format!(
            "another agent already runs in {}; give this one a --state-dir of its own",
            state.path().display()
        )));
    };
    tokio::spawn(reaper::reap(reaper::children()));
    claim_state_dir(&settings)?;

    let outbox = Outbox::open(&state)?;
    let spool = Spool { outbox: outbox.clone(), breaker: Breaker::new(&state) };
    let publisher =
        Arc::new(Publisher::new(Some(spool), settings.prefix.clone(), settings.credentials.clone()));
    let store = open_store(&publisher, &settings.backend)?;
    let keyspace = Keyspace::new(settings.prefix.clone());
    let fleet = Fleet::new(store, keyspace).acting_as(settings.certname.clone());
    let runs = Runs::open(&state)?;
    let (dedup_log, ended) = DedupLog::open(&state, clock::wall())?;

    let node = Arc::new(Node { settings, metrics: metrics::Metrics::new(), fleet, clock: Clock::start() });
    let (arrivals_in, arrivals) = mpsc::channel(16);
    let (completions_in, completions) = mpsc::unbounded_channel();
    let (claim_in, claim) = watch::channel(ClaimState::Unregistered);
    let disabled = disable_watcher::DisableWatcher::new();
    let (link_in, link) =
        watch::channel(delivery_watcher::Connection::Down("deliveries are not read yet".to_owned()));
    let (activity_in, activity) = watch::channel(Default::default());
    let (own_record, seen) = watch::channel(Default::default());
    let (release_in, release) = oneshot::channel();
    let (questions_in, questions) = mpsc::channel(16);

    let lock = state::name_of_lock(&only_agent_here);
    let joined = registration::read_joined(&node.settings)?;
    let registration = registration::Channels { activity, seen, release, standing: claim_in };
    let listener = socket::listen(&node.settings.state)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(socket::serve(listener, Arc::clone(&node), Arc::clone(&publisher), questions_in));
    if let Some(path) = node.settings.metrics_file.clone() {
        tasks.spawn(metrics_file::run(Arc::clone(&node), path, outbox, link.clone(), claim.clone()));
    }
    tasks.spawn(outbox_relay::run(Arc::clone(&publisher), link.clone()));
    tasks.spawn(completion_writer::run(Arc::clone(&node), runs.clone(), completions));
    tasks.spawn(Registration::run(Arc::clone(&node), lock, joined, registration));
    tasks.spawn(sweeper::run(Arc::clone(&node)));
    let breaker = Breaker::new(&state);
    let outlets = Outlets { arrivals: arrivals_in, own_record };
    tasks.spawn(delivery_watcher::run(Arc::clone(&node), breaker, claim.clone(), link_in, outlets));
    tokio::spawn(disabled.find(Arc::clone(&node)));

    let channels = daemon::Channels {
        arrivals,
        claim,
        disabled,
        link,
        questions,
        completions: completions_in,
        activity: activity_in,
    };
    let daemon = daemon::Daemon::new(node, runs.clone(), dedup_log, ended, channels)?;
    let stopped = tokio::select! {
        stopped = daemon.run(check_configuration) => stopped?,
        // None of them ends while the daemon lives. Better a restart than an agent that only looks alive.
        _ = tasks.join_next() => {
            return Err(Failure::failed("a part of the agent ended unexpectedly; see its log"));
        }
    };
    // What is in progress, or was not told yet, is this directory's to end: until then nobody else may run. A
    // reload keeps the claim, for the same lock is taken again at once.
    if stopped == Stopped::Terminated && runs.open_runs()?.is_empty() {
        let (released_in, released) = oneshot::channel();
        if release_in.send(released_in).is_ok() {
            let _ = released.await;
        }
    }
    Ok(stopped)
}

/// The backend that an agent watches; not every backend can be watched.
fn open_store(publisher: &Publisher, url: &BackendUrl) -> Result<Arc<dyn Store>, Failure> {
    publisher.backend(url)?.store().cloned().ok_or_else(|| {
        Failure::config(format!(
            "backend '{url}' only takes events: an agent needs one that delivers them, such as {}",
            kinds::readable_schemes()
        ))
    })
}

/// Whether an agent could be started with these settings.
pub fn check(settings: &AgentSettings) -> Result<(), Failure> {
    let publisher = Publisher::new(None, settings.prefix.clone(), settings.credentials.clone());
    open_store(&publisher, &settings.backend)?;
    check_owner(&settings.state, &settings.certname)
}

fn claim_state_dir(settings: &AgentSettings) -> Result<(), Failure> {
    check_owner(&settings.state, &settings.certname)?;
    if settings.state.certname()?.is_none() {
        settings.state.set_certname(&settings.certname)?;
    }
    Ok(())
}

/// A state directory belongs to one certname (C11): its runs and outcomes are that node's.
fn check_owner(state: &StateDir, certname: &Certname) -> Result<(), Failure> {
    match state.certname()? {
        Some(owner) if owner != *certname => Err(Failure::config(format!(
            "the state directory {} belongs to {owner}, not to {certname}: give each certname a --state-dir of its own",
            state.path().display(),
        ))),
        _ => Ok(()),
    }
}
