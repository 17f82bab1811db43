//! What a node's policy says of an event: `trigger policy test`.

use std::fmt::Write;

use serde::Serialize;
use trigger_core::identity::{Certname, Environment, Tag, TriggerName};
use trigger_core::policy::{Decision, Policy, Request};

use super::text::{Text, texts};

/// What `trigger policy test` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PolicyDecision {
    /// The configuration file that has the rules.
    file: String,
    /// The trigger's name.
    trigger: Text<TriggerName>,
    /// The node that fires.
    origin: Text<Certname>,
    /// The tags of the event; empty: the whole catalog.
    tags: Vec<Text<Tag>>,
    /// Whether the event asks for a noop run.
    noop: bool,
    /// The environment of Puppet's that the event asks for; `null`: the node's own.
    environment: Option<Text<Environment>>,
    /// Whether the event may run Puppet on this node.
    accepted: bool,
    /// The number of the rule that decided, from 1; `null` if there are no rules, or none is for the event.
    rule: Option<usize>,
    /// Why the event is refused; `null` if it is accepted.
    reason: Option<String>,
    /// The rules in their order.
    rules: Vec<PolicyRule>,
    /// What the reader should know besides.
    warnings: Vec<String>,
}

/// A rule of a node's policy.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct PolicyRule {
    /// What it says.
    rule: String,
    /// Why it is not for the event; `null` if it is.
    mismatch: Option<String>,
}

impl PolicyDecision {
    pub(crate) fn of(
        policy: &Policy,
        request: &Request<'_>,
        decision: &Decision,
        warnings: Vec<String>,
    ) -> Self {
        let rules = policy.rules().iter().map(|rule| PolicyRule {
            rule: rule.to_string(),
            mismatch: rule.mismatch(request).map(|mismatch| mismatch.to_string()),
        });
        let reason = match decision {
            Decision::Accepted { .. } => None,
            Decision::Refused { reason, .. } => Some(reason.clone()),
        };
        Self {
            file: policy.source().to_owned(),
            trigger: Text(request.trigger.clone()),
            origin: Text(request.origin.clone()),
            tags: texts(&request.options.tags),
            noop: request.options.noop,
            environment: request.options.environment.clone().map(Text),
            accepted: reason.is_none(),
            rule: decision.rule(),
            reason,
            rules: rules.collect(),
            warnings,
        }
    }

    /// The same for people: the decision, then the rules down to the one that decided.
    pub(crate) fn text(&self) -> String {
        let Self { file, trigger, origin, .. } = self;
        let (trigger, origin) = (trigger.0.as_str(), origin.0.as_str());
        let mut text = match (&self.reason, self.rule) {
            (Some(reason), _) => format!("Refused: {reason}.\n"),
            (None, Some(rule)) => {
                format!("Accepted: the [[accept]] rule {rule} in {file} accepts '{trigger}' from {origin}.\n")
            }
            (None, None) => format!(
                "Accepted: {file} has no [[accept]] rules, so that every node of the fleet may trigger runs here.\n"
            ),
        };
        let shown = self.rule.unwrap_or(self.rules.len());
        for (index, PolicyRule { rule, mismatch }) in self.rules.iter().take(shown).enumerate() {
            let verdict = mismatch.as_deref().unwrap_or("it decides");
            let _ = writeln!(text, "  {}. {rule}: {verdict}", index + 1);
        }
        text
    }
}
