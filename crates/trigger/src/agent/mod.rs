//! The node's daemon. One task owns the queue and the runs ([`daemon`]); the others carry things to it and
//! from it: [`intake`] reads deliveries, [`courier`] stores outcomes, [`registrar`] keeps the claim on the
//! certname, [`socket`] serves this node's commands, [`drainer`] empties the outbox,
//! [`sweeper`] removes from the backend what nobody needs any more.

mod courier;
mod daemon;
mod disabled;
mod drainer;
mod intake;
mod registrar;
pub(crate) mod socket;
mod sweeper;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use trigger_backend::store::Store;
use trigger_core::identity::{Certname, GroupName};
use trigger_core::layout::Layout;
use trigger_core::run_command::RunCommand;

use crate::clock::{self, Clock};
use crate::exit::Failure;
use crate::firing::{Publisher, Spool};
use crate::state::{Breaker, EndedLog, Outbox, Runs, StateDir};

pub(crate) use view::QueueView;

/// All that an agent is told.
#[derive(Debug, Clone)]
pub(crate) struct AgentSettings {
    pub(crate) certname: Certname,
    pub(crate) state: StateDir,
    pub(crate) backend: String,
    pub(crate) layout: Layout,
    pub(crate) groups: Vec<GroupName>,
    pub(crate) command: RunCommand,
    /// The run command in words, for the record of each run.
    pub(crate) command_words: Vec<String>,
    pub(crate) run_timeout: Duration,
    /// What a `trigger fire` inside a run needs to find this agent.
    pub(crate) run_environment: BTreeMap<String, String>,
}

/// Why the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It was told to.
    Terminated,
    /// It shall start again with a configuration that was found to be good.
    Reload,
}

/// What is shared by the agent's tasks and does not change.
struct Node {
    settings: AgentSettings,
    store: Arc<dyn Store>,
    clock: Clock,
}

/// Runs the agent until it is told to stop. `check_configuration` is asked before a reload.
pub(crate) async fn run(
    settings: AgentSettings,
    check_configuration: impl AsyncFn() -> Result<(), Failure>,
) -> Result<Stopped, Failure> {
    let state = settings.state.clone();
    let Some(_only_agent_here) = state.lock_for_agent()? else {
        return Err(Failure::failed(format!(
            "another agent already runs in {}; give this one a --state-dir of its own",
            state.path().display()
        )));
    };
    claim_state_dir(&settings)?;

    let spool = Spool { outbox: Outbox::open(&state)?, breaker: Breaker::new(&state) };
    let publisher = Arc::new(Publisher::new(Some(spool), settings.layout.prefix().clone()));
    let store = open_store(&publisher, &settings.backend)?;
    let runs = Runs::open(&state)?;
    let (ended_log, ended) = EndedLog::open(&state, clock::wall())?;

    let node = Arc::new(Node { settings, store, clock: Clock::start() });
    let (arrivals_in, arrivals) = mpsc::channel(16);
    let (errands_in, errands) = mpsc::unbounded_channel();
    let (claim_in, claim) = watch::channel(registrar::ClaimState::Unregistered);
    let (disabled_in, disabled) = watch::channel(disabled::DisabledLock::Unknown);
    let (link_in, link) = watch::channel(intake::Link::Down("not connected yet".to_owned()));
    let (activity_in, activity) = watch::channel(Default::default());
    let (questions_in, questions) = mpsc::channel(16);

    let registrar = registrar::Registrar::new(Arc::clone(&node), claim_in)?;
    let listener = socket::listen(&node.settings.state)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(socket::serve(listener, Arc::clone(&publisher), questions_in));
    tasks.spawn(drainer::run(Arc::clone(&publisher), link.clone()));
    tasks.spawn(courier::run(Arc::clone(&node), runs.clone(), errands));
    tasks.spawn(registrar.run(activity));
    tasks.spawn(sweeper::run(Arc::clone(&node)));
    tasks.spawn(intake::run(Arc::clone(&node), Breaker::new(&state), claim.clone(), link_in, arrivals_in));
    tokio::spawn(disabled::find(Arc::clone(&node), disabled_in));

    let channels = daemon::Channels {
        arrivals,
        claim,
        disabled,
        link,
        questions,
        errands: errands_in,
        activity: activity_in,
    };
    let daemon = daemon::Daemon::new(node, runs, ended_log, ended, channels)?;
    tokio::select! {
        stopped = daemon.run(check_configuration) => stopped,
        // None of them ends while the daemon lives. Better a restart than an agent that only looks alive.
        _ = tasks.join_next() => Err(Failure::failed("a part of the agent ended unexpectedly; see its log")),
    }
}

/// The backend that an agent watches; not every backend can be watched.
fn open_store(publisher: &Publisher, url: &str) -> Result<Arc<dyn Store>, Failure> {
    publisher.backend(url)?.store().cloned().ok_or_else(|| {
        Failure::config(format!(
            "backend '{url}' only takes events: an agent needs one that delivers them, such as hub+http:// or etcd://"
        ))
    })
}

/// Whether an agent could be started with these settings.
pub(crate) fn check(settings: &AgentSettings) -> Result<(), Failure> {
    let publisher = Publisher::new(None, settings.layout.prefix().clone());
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

/// A state folder belongs to one certname (contract 11): its runs and outcomes are that node's.
fn check_owner(state: &StateDir, certname: &Certname) -> Result<(), Failure> {
    match state.certname()? {
        Some(owner) if owner != *certname => Err(Failure::config(format!(
            "the state folder {} belongs to {owner}, not to {certname}: give each certname a --state-dir of its own",
            state.path().display(),
        ))),
        _ => Ok(()),
    }
}
