//! What Puppet's fact `trigger` shows of a node: `trigger facts`.

use serde::Serialize;
use trigger_core::identity::{Certname, Environment, EventId, GroupName, KeyPrefix, RunId, TriggerName};
use trigger_core::run::record::{Cause, RunRecord};
use trigger_core::run::{RunOutcome, RunResult};
use trigger_node::queue_view::QueueView;

use super::text::{Text, Time, texts};

/// The most causes of a run that are listed: facts are stored for every node.
const MAX_CAUSES: usize = 8;

/// What `trigger facts` prints. It holds no secrets, and no backend is asked.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Facts {
    /// The version of this program.
    version: &'static str,
    /// The certname that is configured, or that the state directory belongs to; null if neither says.
    certname: Option<Text<Certname>>,
    /// The URL of the configured backend; null if none is configured.
    backend: Option<String>,
    /// Where in the backend the keys of the fleet are kept.
    prefix: String,
    /// The configured groups.
    groups: Vec<Text<GroupName>>,
    /// The running agent; null if none answers.
    agent: Option<AgentFacts>,
    /// The latest run that has ended; null if there is none on record.
    last_run: Option<LastRun>,
    /// What the reader should know besides.
    pub(crate) warnings: Vec<String>,
}

/// A running agent.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct AgentFacts {
    /// Whether it receives deliveries.
    connected: bool,
    /// Whether it has the right to act for its certname.
    holds_claim: bool,
    /// Why no run may start; null if runs may start.
    blocked: Option<String>,
}

/// A run that has ended.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LastRun {
    /// The run's id.
    run_id: Text<RunId>,
    /// How it ended.
    outcome: Text<RunOutcome>,
    /// Why it ended so.
    reason: Option<String>,
    /// Whether it was a noop run.
    noop: bool,
    /// The environment of Puppet's that its events asked for; null: the node's own.
    environment: Option<Text<Environment>>,
    /// When it started.
    started_at: Time,
    /// When it ended.
    finished_at: Time,
    /// The events that it covered, at most eight.
    causes: Vec<RunCause>,
    /// How many more events it covered.
    more_causes: usize,
}

/// An event that a run covered.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RunCause {
    /// The event's id.
    event_id: Text<EventId>,
    /// The trigger's name.
    trigger: Text<TriggerName>,
    /// The node that fired the event.
    origin: Text<Certname>,
}

impl Facts {
    pub(crate) fn new(
        certname: Option<Certname>,
        backend: Option<String>,
        prefix: &KeyPrefix,
        groups: &[GroupName],
        agent: Option<&QueueView>,
        last_run: Option<&(RunRecord, RunResult)>,
        warnings: Vec<String>,
    ) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            certname: certname.map(Text),
            backend,
            prefix: prefix.to_string(),
            groups: texts(groups),
            agent: agent.map(|view| AgentFacts {
                connected: view.disconnected.is_none(),
                holds_claim: view.holds_claim,
                blocked: view.blocked.clone(),
            }),
            last_run: last_run.map(|(record, result)| LastRun::new(record, result)),
            warnings,
        }
    }
}

impl LastRun {
    fn new(record: &RunRecord, result: &RunResult) -> Self {
        Self {
            run_id: Text(record.run_id),
            outcome: Text(result.outcome),
            reason: result.reason.clone(),
            noop: result.reported_noop || record.options.noop,
            environment: record.options.environment.clone().map(Text),
            started_at: Time(result.started_at),
            finished_at: Time(result.finished_at),
            causes: record.causes.iter().take(MAX_CAUSES).map(RunCause::new).collect(),
            more_causes: record.causes.len().saturating_sub(MAX_CAUSES),
        }
    }
}

impl RunCause {
    fn new(cause: &Cause) -> Self {
        let event = &cause.event;
        Self {
            event_id: Text(event.id),
            trigger: Text(event.trigger.clone()),
            origin: Text(event.origin.clone()),
        }
    }
}
