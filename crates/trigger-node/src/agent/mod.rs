//! The node's daemon. One task owns the queue and the runs ([`daemon`]); the others bring inputs to it and take its
//! results: [`delivery_watcher`] reads deliveries, [`completion_writer`] stores outcomes, [`registration`] keeps
//! the claim on the certname, [`outbox_relay`] empties the outbox, [`sweeper`] removes expired data from the backend.
//!
//! All these run on any [`Host`]. The tasks that need the operating system are started by [`on_os`]: [`socket`] serves
//! this node's commands, [`metrics_file`] writes the metrics, [`disable_watcher`] watches Puppet's lock, [`reaper`]
//! reaps the supervisors of the program before a reload, [`output_limiter`] bounds the outputs of runs, [`log_server`]
//! answers those who may read them, [`catalogs`] asks PuppetDB.

mod audit;
mod callers;
pub mod catalogs;
mod certificates;
mod completion_writer;
mod connection;
mod current_run;
mod daemon;
mod daemon_log;
mod delivery_watcher;
mod disable_watcher;
mod end_note;
mod error;
mod hold_keeper;
mod known_ends;
mod log_server;
mod metrics;
mod metrics_file;
pub mod on_os;
mod outbox_relay;
mod output_limiter;
pub mod policy_file;
mod reaper;
mod recent_fires;
mod registration;
mod rename;
mod requests;
mod run_history;
mod socket;
mod start;
mod suppressed;
mod sweeper;
#[cfg(test)]
mod testing;
mod unreadable;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument;
use trigger_core::identity::{Certname, GroupName, KeyPrefix};
use trigger_core::policy::Policy;
use trigger_core::publication::Publication;
use trigger_core::queue::PuppetBlocker;
use trigger_core::rate_limiter::RunsPerMinute;
use trigger_core::run::command::RunCommand;
use trigger_fleet::Fleet;
use trigger_fleet::claim::ClaimState;
use trigger_fleet::codec::Codec;
use trigger_store::credentials::Credentials;
use trigger_store::store::Entry;
use trigger_store::url::BackendUrl;

use crate::fire_error::FireError;
use crate::fire_report::FireReport;
use crate::firing::Publisher;
use crate::host::Host;
use crate::node_backends::NodeBackends;
use crate::os::Os;
use crate::queue_view::QueueView;
use crate::state::{Outbox, StateDir};

use catalogs::CatalogChannels;
use connection::Connection;
pub use error::AgentError;
use recent_fires::RecentFires;
pub use rename::rename;
pub use start::{check, check_owner, run};

/// The settings of an agent, read from its configuration once for each start or reload.
#[derive(Debug, Clone)]
pub struct AgentSettings<H: Host = Os> {
    /// The certname whose deliveries the agent takes: the one that the state directory belongs to, if it has an owner.
    pub certname: Certname,
    /// Which certname this node is to have. While it is another one, the agent starts no run.
    pub certname_source: CertnameSource,
    /// The state directory, which belongs to this certname.
    pub state: StateDir<H>,
    /// The backend that the agent watches.
    pub backend: BackendUrl,
    /// The URLs that the bare names of kinds of backend stand for, at most one of each kind.
    pub named_backends: Vec<BackendUrl>,
    /// The credentials for every backend, this one and those of `trigger` resources that name another one.
    pub credentials: Credentials,
    /// With what the agent signs and verifies what is stored.
    pub codec: Codec,
    /// The key prefix of the fleet in the backend.
    pub prefix: KeyPrefix,
    /// The groups whose events the agent takes too.
    pub groups: Vec<GroupName>,
    /// The command of each run.
    pub command: RunCommand,
    /// The run command in words, for the record of each run.
    pub command_words: Vec<String>,
    /// How long a run may take before it is ended.
    pub run_timeout: Duration,
    /// The rate limiter's limit.
    pub runs_per_minute: RunsPerMinute,
    /// How long a run waits until PuppetDB has stored the catalogs that its events were fired with; zero for not at all.
    pub settle: Duration,
    /// Which events may run Puppet on this node, until [`Surroundings::policy`] has another policy.
    pub policy: Policy,
    /// The groups of the system whose members may fire events here and look at the queue. Without any, nobody but the
    /// agent's own user and root may.
    pub socket_groups: Vec<String>,
    /// The file for node_exporter's textfile collector; `None` writes no metrics.
    pub metrics_file: Option<PathBuf>,
    /// The environment by which a `trigger fire` inside a run finds this agent.
    pub run_environment: BTreeMap<String, String>,
    /// Whether every earlier agent that held this directory's lock is certainly dead, so that its claim may be taken
    /// over at once.
    pub may_inherit_claim: bool,
}

/// What decides which certname a node is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertnameSource {
    /// The configuration, a variable or a flag names it.
    Configured(Certname),
    /// It is Puppet's own certname.
    Puppet,
}

impl<H: Host> AgentSettings<H> {
    fn node_backends(&self) -> NodeBackends {
        NodeBackends::new(self.backend.clone(), self.named_backends.clone())
    }
}

/// Why the agent stopped without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// A signal ended it.
    Terminated,
    /// The caller shall start it again with the new configuration, which has been checked.
    Reload,
    /// Another agent has taken the claim and runs the waiting deliveries. The caller shall start this agent again.
    ClaimLost,
    /// The node has another certname than the one that this agent acted for, so that its claim was released. The caller
    /// shall start the agent again.
    Renamed,
}

/// A request to the agent from outside, by a Unix signal or the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop.
    Terminate,
    /// Start again, if the configuration passes its check.
    Reload,
}

/// Checks what Puppet's own settings and files say against a run, above all whether Puppet is disabled.
pub trait DisableCheck: Send {
    /// Returns when Puppet's settings have changed, so that the answer may have changed too. Safe to cancel.
    fn has_moved(&mut self) -> impl Future<Output = ()> + Send;

    /// Returns why no run may start, or `None` if one may for all that Puppet says. If a run is `about_to_start`, the lock is read again, unless
    /// a check within the last second has found that no run may start.
    fn reason(&mut self, about_to_start: bool) -> Option<PuppetBlocker>;

    /// Whether the certname that the agent acts for is certainly this node's, so that the agent may claim it.
    fn confirms_certname(&self) -> bool;

    /// Reads the cache again after a run, because its supervisor may have asked Puppet for its settings.
    fn take_over_cache(&mut self);
}

/// The data that the agent's tasks share. Only the metrics change.
struct Node<H: Host> {
    settings: AgentSettings<H>,
    metrics: metrics::Metrics,
    fleet: Fleet,
    host: H,
}

/// A question of a command to the daemon, with the channel for the answer.
enum Question {
    /// What the queue holds.
    Queue(oneshot::Sender<QueueView>),
    /// Whether the state directory can belong to another certname from now on.
    Rename(Certname, oneshot::Sender<Result<(), String>>),
}

/// The handle by which the other processes of the machine reach an agent.
pub struct Service<H: Host> {
    node: Arc<Node<H>>,
    publisher: Arc<Publisher<H>>,
    questions: mpsc::Sender<Question>,
    outbox: Outbox<H>,
    recent_fires: RecentFires,
    link: watch::Receiver<Connection>,
    claim: watch::Receiver<ClaimState>,
    /// The requests for the output of runs; taken once.
    log_requests: Option<mpsc::Receiver<Vec<Entry>>>,
}

impl<H: Host> Service<H> {
    /// Fires an event for a command of this node and counts it.
    ///
    /// # Errors
    /// Those of [`Publisher::fire`].
    pub async fn fire(
        &self,
        publication: &Publication,
        ignores_pause: bool,
    ) -> Result<FireReport, FireError> {
        let event = &publication.event;
        let span = tracing::info_span!("fire", event = %event.id, trigger = %event.trigger);
        let report = self.publisher.fire(publication, ignores_pause).instrument(span).await;
        self.node.metrics.fired(report.as_ref().ok().map(|report| &report.fired));
        report
    }

    /// Returns the content of the queue, or `None` if the agent is stopping.
    pub async fn queue(&self) -> Option<QueueView> {
        let (sender, receiver) = oneshot::channel();
        self.questions.send(Question::Queue(sender)).await.ok()?;
        receiver.await.ok()
    }

    /// Gives the state directory to another certname and makes the agent start again for it.
    ///
    /// # Errors
    /// A sentence, if a run is in progress or the agent could not start again.
    pub async fn rename(&self, certname: Certname) -> Result<(), String> {
        let (sender, receiver) = oneshot::channel();
        let stopping = || "the agent is stopping".to_owned();
        self.questions.send(Question::Rename(certname, sender)).await.map_err(|_| stopping())?;
        receiver.await.map_err(|_| stopping())?
    }

    /// Returns the state of the claim on the certname.
    pub fn claim(&self) -> &watch::Receiver<ClaimState> {
        &self.claim
    }
}

/// A task that lives as long as its agent.
pub type Part = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The connections of an agent to its machine, which differ between the program and the simulation.
pub struct Surroundings<D, S> {
    /// The requests to stop or reload.
    pub signals: mpsc::Receiver<Signal>,
    /// The policies that replace that of the settings, each with what is waiting then.
    pub policy: watch::Receiver<Policy>,
    /// Whether PuppetDB has stored what other nodes export.
    pub catalogs: CatalogChannels,
    /// Checks whether the agent may run Puppet.
    pub disabled: D,
    /// Returns the tasks that serve the [`Service`] to the other processes of the machine.
    pub serve: S,
    /// Called once the agent serves.
    pub on_ready: Box<dyn FnOnce() + Send>,
}
