//! The node's daemon. One task owns the queue and the runs ([`daemon`]); the others carry things to it and
//! from it: [`delivery_watcher`] reads deliveries, [`completion_writer`] stores outcomes, [`registration`] keeps
//! the claim on the certname, [`outbox_relay`] empties the outbox, [`sweeper`] removes from the backend what is not
//! needed any more.
//!
//! All these run on any [`Host`]. What only this machine has is started by [`on_os`]: [`socket`] serves this node's
//! commands, [`metrics_file`] writes the metrics, [`disable_watcher`] looks for Puppet's lock, [`reaper`] reaps the
//! supervisors of the program before a reload.

mod completion_writer;
mod connection;
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
mod socket;
mod start;
mod suppressed;
mod sweeper;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument;
use trigger_core::identity::{Certname, GroupName, KeyPrefix};
use trigger_core::publication::Publication;
use trigger_core::rate_limiter::RunsPerMinute;
use trigger_core::run::command::RunCommand;
use trigger_fleet::Fleet;
use trigger_fleet::claim::ClaimState;
use trigger_store::credentials::Credentials;
use trigger_store::url::BackendUrl;

use crate::fire_error::FireError;
use crate::fire_report::FireReport;
use crate::firing::Publisher;
use crate::host::Host;
use crate::os::Os;
use crate::queue_view::QueueView;
use crate::state::{Outbox, StateDir};

use connection::Connection;
pub use error::AgentError;
pub use start::{check, run};

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
