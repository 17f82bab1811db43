//! The record that each node keeps of itself in the backend: its registration, its claim and its present activity.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::identity::{Certname, EventId, GroupName, Revision, RunId};
use crate::time::Timestamp;

/// An agent's registration, claim and present activity: the value under `nodes/<certname>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Identifies the agent that holds the claim on the certname: random, and new with every start of an agent.
    pub instance: String,
    /// The name of the file lock that the instance holds for as long as it lives. An agent that holds the lock of
    /// this name now knows that the instance is dead.
    pub lock: Option<String>,
    /// Whether the instance has stopped and released the claim, so that any agent may take it.
    pub released: bool,
    /// Where the instance runs, as shown to the operator of a second claimant.
    pub location: String,
    /// Counts the renewals. A contender watches it for change and trusts no clock (C12).
    pub renewals: u64,
    /// The agent's version of Trigger.
    pub version: String,
    /// When the record was last renewed, by the node's clock. For display only.
    pub seen_at: Timestamp,
    /// The groups that the node belongs to, each with the revision at which it had joined: earlier events to the
    /// group do not address it.
    pub groups: BTreeMap<GroupName, Revision>,
    /// What the node does now.
    pub activity: Activity,
}

/// An agent renews its registration at least once a minute; one that has not for this long is cut off, killed or gone, or
/// its clock is behind the reader's.
pub const SILENT_AFTER: Duration = Duration::from_secs(90);

/// Whether an agent is there, as far as its registration shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It has renewed its registration a short time ago.
    Alive,
    /// It was stopped, and has given its claim up.
    Stopped,
    /// It has not renewed its registration for this long.
    Silent(Duration),
}

impl NodeRecord {
    /// Whether the agent is there at the time `now` of the reader's clock.
    pub fn presence(&self, now: Timestamp) -> Presence {
        let silence = Duration::from_secs(now.since(self.seen_at).as_secs());
        match silence {
            _ if self.released => Presence::Stopped,
            silence if silence >= SILENT_AFTER => Presence::Silent(silence),
            _ => Presence::Alive,
        }
    }
}

/// What an agent does and what keeps it from doing more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Activity {
    /// The run in progress.
    pub running: Option<Running>,
    /// Deliveries that wait for another run after one that could not happen.
    pub retrying: Vec<Retrying>,
    /// Deliveries that wait because as many runs as allowed have started within a minute.
    pub delayed: Option<Delayed>,
    /// Deliveries that wait for a blocker that goes by itself.
    pub waiting: Option<Waiting>,
    /// Deliveries that wait for an operator: for a blocker that does not go by itself, or for an update of the agent.
    pub held: Vec<HeldDelivery>,
    /// What the node knows of orders to hold it; absent before the first one.
    pub hold: Option<HoldReport>,
}

impl Activity {
    /// All events that the node works on or that wait there, some of them maybe twice.
    pub fn events(&self) -> impl Iterator<Item = EventId> {
        let running = self.running.iter().flat_map(|running| &running.causes);
        let retrying = self.retrying.iter().flat_map(|retrying| &retrying.causes);
        let delayed = self.delayed.iter().flat_map(|delayed| &delayed.causes);
        let waiting = self.waiting.iter().flat_map(|waiting| &waiting.causes);
        let held = self.held.iter().map(|held| &held.event);
        running.chain(retrying).chain(delayed).chain(waiting).chain(held).copied()
    }
}

/// A run in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The run's id.
    pub run_id: RunId,
    /// When its record was written, by the node's clock.
    pub started_at: Timestamp,
    /// The events it covers.
    pub causes: Vec<EventId>,
}

/// Deliveries whose run could not happen and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retrying {
    /// When the next run may start, by the node's clock.
    pub at: Timestamp,
    /// Why the last run could not happen.
    pub reason: String,
    /// The events whose deliveries wait.
    pub causes: Vec<EventId>,
}

/// Deliveries whose run waits for the limit on runs, `runs_per_minute`, and for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delayed {
    /// When their run may start, by the node's clock.
    pub at: Timestamp,
    /// The same as a sentence, with the limit.
    pub reason: String,
    /// The events whose deliveries wait.
    pub causes: Vec<EventId>,
}

/// Deliveries that wait for something that happens without an operator, such as an answer of Puppet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What they wait for, as a sentence.
    pub reason: String,
    /// The events whose deliveries wait.
    pub causes: Vec<EventId>,
}

/// A delivery that waits for an operator: Puppet has to be enabled, say, or the agent has to be updated because the event
/// is of a newer version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldDelivery {
    /// The event.
    pub event: EventId,
    /// What it waits for, as a sentence.
    pub reason: String,
}

/// What a node says of orders to hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldReport {
    /// The number of the latest order that it has accepted.
    pub accepted: Option<u64>,
    /// The hold that is in force.
    pub held: Option<HeldNode>,
    /// The latest order that it has refused, unless it has accepted another one since.
    pub refused: Option<RefusedHold>,
}

/// A node that starts no run. [`fmt::Display`] says until when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldNode {
    /// When the hold ends by itself, by the node's clock. For display only.
    pub until: Timestamp,
    /// The node that has ordered it.
    pub by: Certname,
    /// Why, in the words of an operator.
    pub reason: Option<String>,
}

impl fmt::Display for HeldNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "held until {} by {}", self.until.date_and_time(), self.by)?;
        self.reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
    }
}

/// An order that does not count at its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedHold {
    /// The number of the order.
    pub number: u64,
    /// The node that has given it.
    pub by: Certname,
    /// Why it does not count, as a sentence.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_silent_that_has_missed_a_renewal() {
        let check = |released, seconds, expected| {
            let record = NodeRecord {
                instance: "i".to_owned(),
                lock: None,
                released,
                location: String::new(),
                renewals: 1,
                version: "0.1.0".to_owned(),
                seen_at: Timestamp::from_unix_ms(1_000_000),
                groups: BTreeMap::new(),
                activity: Activity::default(),
            };
            let now = Timestamp::from_unix_ms(1_000_000).plus(Duration::from_secs(seconds));
            assert_eq!(record.presence(now), expected, "{seconds}");
        };
        check(false, 0, Presence::Alive);
        check(false, 89, Presence::Alive);
        check(false, 90, Presence::Silent(Duration::from_secs(90)));
        check(true, 0, Presence::Stopped);
        check(true, 1000, Presence::Stopped);
    }
}
