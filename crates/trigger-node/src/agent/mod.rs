//! The node's daemon. One task owns the queue and the runs ([`daemon`]); the others carry things to it and
//! from it: [`delivery_watcher`] reads deliveries, [`completion_writer`] stores outcomes, [`registration`] keeps
//! the claim on the certname, [`outbox_relay`] empties the outbox, [`sweeper`] removes from the backend what is not
//! needed any more.
//!
//! All these run on any [`Host`]. What only this machine has is started by [`on_os`]: [`socket`] serves this node's
//! commands, [`metrics_file`] writes the metrics, [`disable_watcher`] looks for Puppet's lock, [`reaper`] reaps the
//! supervisors of the program before a reload.

mod completion_writer;
mod daemon;
mod delivery_watcher;
mod disable_watcher;
mod error;
mod metrics;
mod metrics_file;
pub mod on_os;
mod outbox_relay;
mod reaper;
mod registration;
mod run_history;
pub mod socket;
mod suppressed;
mod sweeper;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument;
use trigger_core::identity::{Certname, GroupName, KeyPrefix};
use trigger_core::keyspace::Keyspace;
use trigger_core::publication::Publication;
use trigger_core::rate_limiter::RunsPerMinute;
use trigger_core::run::command::RunCommand;
use trigger_fleet::Fleet;
use trigger_fleet::claim::ClaimState;
use trigger_fleet::delivery_watcher::Outlets;
use trigger_store::credentials::Credentials;
use trigger_store::store::Store;
use trigger_store::url::BackendUrl;

use crate::fire_error::FireError;
use crate::firing::{FireReport, Publisher, Spool};
use crate::host::Host;
use crate::os::Os;
use crate::state::{Breaker, DedupLog, Outbox, Runs, StateDir};

use delivery_watcher::Connection;
pub use error::AgentError;
use registration::Registration;
pub use view::QueueView;

/// All that an agent is told.
#[derive(Debug, Clone)]
pub struct AgentSettings<H: Host = Os> {
    pub certname: Certname,
    pub state: StateDir<H>,
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

/// What an agent is asked to do from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop.
    Terminate,
    /// Start again, if the configuration is good.
    Reload,
}

/// Looks whether Puppet is disabled on this node.
pub trait DisableCheck: Send {
    /// Returns when the answer may have changed, for it is looked at elsewhere now. May be dropped and asked again.
    fn has_moved(&mut self) -> impl Future<Output = ()> + Send;

    /// Why no run may start, if so. It is looked for whether one is `about_to_start`, unless it was found within
    /// the last second that none may.
    fn reason(&mut self, about_to_start: bool) -> Option<String>;

    /// Takes over what a supervisor has asked Puppet meanwhile.
    fn take_over_cache(&mut self);
}

/// What is shared by the agent's tasks and does not change, but for what is counted.
struct Node<H: Host> {
    settings: AgentSettings<H>,
    metrics: metrics::Metrics,
    fleet: Fleet,
    host: H,
}

/// What an agent offers to the other processes of its machine.
pub struct Service<H: Host> {
    node: Arc<Node<H>>,
    publisher: Arc<Publisher<H>>,
    questions: mpsc::Sender<oneshot::Sender<QueueView>>,
    outbox: Outbox<H>,
    link: watch::Receiver<Connection>,
    claim: watch::Receiver<ClaimState>,
}

impl<H: Host> Service<H> {
    /// Fires an event for a command of this node.
    pub async fn fire(&self, publication: &Publication) -> Result<FireReport, FireError> {
        let event = &publication.event;
        let span = tracing::info_span!("fire", event = %event.id, trigger = %event.trigger);
        let report = self.publisher.fire(publication).instrument(span).await;
        self.node.metrics.fired(report.as_ref().ok().map(|report| &report.fired));
        report
    }

    /// What the queue holds; nothing where the agent is stopping.
    pub async fn queue(&self) -> Option<QueueView> {
        let (sender, receiver) = oneshot::channel();
        self.questions.send(sender).await.ok()?;
        receiver.await.ok()
    }

    /// Where the claim on the certname stands.
    pub fn claim(&self) -> &watch::Receiver<ClaimState> {
        &self.claim
    }
}

/// A task that lives as long as its agent.
pub type Part = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What an agent is run with besides its settings.
pub struct Surroundings<D, S> {
    /// What it is asked to do.
    pub signals: mpsc::Receiver<Signal>,
    /// Whether it may run Puppet.
    pub disabled: D,
    /// Offers what it is given to the other processes of the machine, by tasks.
    pub serve: S,
    /// Called once it serves.
    pub on_ready: Box<dyn FnOnce() + Send>,
}

/// Runs the agent until it is told to stop. `check_configuration` is asked before a reload.
pub async fn run<H: Host, D: DisableCheck, C: Future<Output = Result<(), E>>, E: fmt::Display>(
    settings: AgentSettings<H>,
    surroundings: Surroundings<D, impl FnOnce(Service<H>) -> Result<Vec<Part>, AgentError>>,
    check_configuration: impl Fn() -> C,
) -> Result<Stopped, AgentError> {
    let state = settings.state.clone();
    let host = state.host().clone();
    let Some(only_agent_here) = state.lock_for_agent()? else {
        return Err(AgentError::AlreadyRunning { path: state.path().to_owned() });
    };
    claim_state_dir(&settings)?;

    let outbox = Outbox::open(&state)?;
    let spool = Spool { outbox: outbox.clone(), breaker: Breaker::new(&state) };
    let (prefix, credentials) = (settings.prefix.clone(), settings.credentials.clone());
    let publisher = Arc::new(Publisher::new(host.clone(), Some(spool), prefix, credentials));
    let store = open_store(&publisher, &settings.backend)?;
    let keyspace = Keyspace::new(settings.prefix.clone());
    let fleet = Fleet::new(store, keyspace).acting_as(settings.certname.clone());
    let runs = Runs::open(&state)?;
    let (dedup_log, ended) = DedupLog::open(&state, host.wall())?;

    let node = Arc::new(Node { settings, metrics: metrics::Metrics::new(), fleet, host: host.clone() });
    let (arrivals_in, arrivals) = mpsc::channel(16);
    let (completions_in, completions) = mpsc::unbounded_channel();
    let (claim_in, claim) = watch::channel(ClaimState::Unregistered);
    let (link_in, link) = watch::channel(Connection::Down("deliveries are not read yet".to_owned()));
    let (activity_in, activity) = watch::channel(Default::default());
    let (own_record, seen) = watch::channel(Default::default());
    let (release_in, release) = oneshot::channel();
    let (questions_in, questions) = mpsc::channel(16);

    let lock = host.lock_name(&only_agent_here);
    let joined = registration::read_joined(&node.settings)?;
    let registration = registration::Channels { activity, seen, release, standing: claim_in };
    let service = Service {
        node: Arc::clone(&node),
        publisher: Arc::clone(&publisher),
        questions: questions_in,
        outbox,
        link: link.clone(),
        claim: claim.clone(),
    };
    let breaker = Breaker::new(&state);
    let outlets = Outlets { arrivals: arrivals_in, own_record };
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
        arrivals,
        claim,
        disabled: surroundings.disabled,
        link,
        questions,
        completions: completions_in,
        activity: activity_in,
    };
    let daemon = daemon::Daemon::new(node, runs.clone(), dedup_log, ended, channels)?;
    let stopped = tokio::select! {
        biased;
        stopped = daemon.run(check_configuration, surroundings.on_ready) => stopped?,
        // None of them ends while the daemon lives. Better a restart than an agent that only looks alive.
        _ = part_ended.recv() => {
            return Err(AgentError::PartEnded);
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

/// A part of the agent that says when it has ended, even by a panic.
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

/// The backend that an agent watches; not every backend can be watched.
fn open_store<H: Host>(publisher: &Publisher<H>, url: &BackendUrl) -> Result<Arc<dyn Store>, AgentError> {
    publisher.backend(url)?.store().cloned().ok_or_else(|| AgentError::WriteOnlyBackend { url: url.clone() })
}

/// Whether an agent could be started with these settings.
pub fn check<H: Host>(settings: &AgentSettings<H>) -> Result<(), AgentError> {
    let host = settings.state.host().clone();
    let publisher = Publisher::new(host, None, settings.prefix.clone(), settings.credentials.clone());
    open_store(&publisher, &settings.backend)?;
    check_owner(&settings.state, &settings.certname)
}

fn claim_state_dir<H: Host>(settings: &AgentSettings<H>) -> Result<(), AgentError> {
    check_owner(&settings.state, &settings.certname)?;
    if settings.state.certname()?.is_none() {
        settings.state.set_certname(&settings.certname)?;
    }
    Ok(())
}

/// A state directory belongs to one certname (C11): its runs and outcomes are that node's.
fn check_owner<H: Host>(state: &StateDir<H>, certname: &Certname) -> Result<(), AgentError> {
    match state.certname()? {
        Some(owner) if owner != *certname => {
            Err(AgentError::OtherOwner { path: state.path().to_owned(), owner, certname: certname.clone() })
        }
        _ => Ok(()),
    }
}
