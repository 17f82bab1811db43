//! Events: immutable requests that their targets converge.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::duration;
use crate::identity::{CatalogUuid, Certname, Environment, EventId, GroupName, RunId, Tag, TriggerName};
use crate::lineage::{Lineage, Loops};
use crate::reason::cleaned;
use crate::time::Timestamp;

/// The lifetime of an event unless its resource sets another.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest lifetime of an event. It bounds how long a node has to remember the events that it has honoured.
pub const MAX_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How far the clocks of origin and target may disagree without an event expiring too early (C12).
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// Nodes that one stored part of an event lists. etcd accepts 128 operations in one transaction by default.
pub const TARGETS_PER_PART: usize = 128;
/// The most nodes that one event may name.
pub const MAX_TARGETS: usize = 100_000;
/// The most tags that one event may carry.
pub const MAX_TAGS: usize = 64;
/// The most groups that one event may name.
pub const MAX_GROUPS: usize = 64;

/// Why an event is refused before it is fired.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum InvalidEvent {
    #[error("an event needs at least one target: name a host or a group")]
    NoTargets,
    #[error(
        "{count} hosts are too many for one event: at most {MAX_TARGETS}; name a group instead, or fire several events"
    )]
    TooManyHosts { count: usize },
    #[error("{count} groups are too many for one event: at most {MAX_GROUPS}")]
    TooManyGroups { count: usize },
    #[error(
        "{count} tags are too many for one event: at most {MAX_TAGS}; without tags, the whole catalog is applied"
    )]
    TooManyTags { count: usize },
    #[error("an event cannot expire in {}: from 1s to 7d", duration::format(Duration::from_secs(*seconds)))]
    BadLifetime { seconds: u64 },
}

/// How the targets are to run Puppet. These are typed values only: an event never carries a command (C8).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RunOptions {
    /// The run is limited to resources with one of these tags; empty means the whole catalog.
    pub tags: BTreeSet<Tag>,
    /// Puppet's noop: report what would change, change nothing.
    pub noop: bool,
    /// The environment of Puppet's in which the run is to happen; absent: the one that the node has.
    pub environment: Option<Environment>,
}

/// The kind of a run: two requests of one kind can share a run, requests of different kinds never (C5). Their order is that in
/// which the kinds take turns and are shown, the node's own environment first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RunKind {
    /// The environment of the run; absent: the node's own.
    pub environment: Option<Environment>,
    /// Whether nothing is changed.
    pub noop: bool,
}

impl RunOptions {
    /// The kind of the runs that can honour the request.
    pub fn kind(&self) -> RunKind {
        RunKind { environment: self.environment.clone(), noop: self.noop }
    }

    /// Whether the run is limited to some tags.
    pub fn is_tagged(&self) -> bool {
        !self.tags.is_empty()
    }

    /// The options of the smallest run that honours both requests. A full run honours a tagged request, never the
    /// reverse. Requests of different kinds have no run in common, so the caller keeps them apart (C5).
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        debug_assert_eq!(
            self.kind(),
            other.kind(),
            "no run honours a real request and a noop one, nor requests for different environments"
        );
        let tags = if self.is_tagged() && other.is_tagged() {
            self.tags.union(&other.tags).cloned().collect()
        } else {
            BTreeSet::new()
        };
        Self { tags, noop: self.noop, environment: self.environment.clone() }
    }
}

/// A target of an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// One node.
    Node(Certname),
    /// All nodes that had joined the group when the event was committed.
    Group(GroupName),
}

impl Target {
    /// Whether the target is a node rather than a group. A node deletes only the deliveries to itself; one to a group
    /// is read by all members.
    pub fn is_node(&self) -> bool {
        matches!(self, Self::Node(_))
    }
}

/// The targets of an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Targets {
    /// The nodes that the event names.
    pub hosts: BTreeSet<Certname>,
    /// The groups that the event names: every node that had joined one of them when the event was committed.
    pub groups: BTreeSet<GroupName>,
}

impl Targets {
    /// Whether there is no target at all.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.groups.is_empty()
    }
}

/// The longest text that an event carries about the resource that fired it, in characters each.
const MAX_RESOURCE_CHARS: usize = 300;

/// The Puppet resource that fired an event. It is shown to people and decides nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FiringResource {
    /// The path of the resource in its catalog, such as `/Stage[main]/Profile::Web/Trigger[refresh]`.
    pub path: String,
    /// The manifest that declares it, and the line there, as far as Puppet knows them.
    pub declared: Option<Declaration>,
}

/// Where a resource is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The manifest.
    pub file: String,
    /// The line in it.
    pub line: Option<u32>,
}

impl FiringResource {
    /// The resource, from what another program or machine wrote: control characters are replaced, long texts are cut.
    pub fn new(path: &str, declared: Option<(&str, Option<u32>)>) -> Self {
        let declared =
            declared.map(|(file, line)| Declaration { file: cleaned(file, MAX_RESOURCE_CHARS), line });
        Self { path: cleaned(path, MAX_RESOURCE_CHARS), declared }
    }
}

impl fmt::Display for FiringResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        match &self.declared {
            Some(Declaration { file, line: Some(line) }) => write!(f, " ({file}, line {line})"),
            Some(Declaration { file, line: None }) => write!(f, " ({file})"),
            None => Ok(()),
        }
    }
}

/// What fired an event, where that is more than a command line. It is shown to people and decides nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FiredBy {
    /// A Puppet resource that was notified.
    Resource(FiringResource),
    /// `trigger fire --retry` of an earlier event, for the targets at which that one came to nothing.
    RetryOf(EventId),
}

impl FiredBy {
    /// The Puppet resource, if it was one.
    pub fn resource(&self) -> Option<&FiringResource> {
        match self {
            Self::Resource(resource) => Some(resource),
            Self::RetryOf(_) => None,
        }
    }

    /// The event that was retried, if it was one.
    pub fn retried(&self) -> Option<EventId> {
        match self {
            Self::Resource(_) => None,
            Self::RetryOf(event) => Some(*event),
        }
    }
}

impl fmt::Display for FiredBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(resource) => resource.fmt(f),
            Self::RetryOf(event) => write!(f, "a retry of event {event}"),
        }
    }
}

/// An immutable request that its targets converge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Identifies the event; unique everywhere and at all times.
    pub id: EventId,
    /// The title of the resource that fired, or the name given on the command line.
    pub trigger: TriggerName,
    /// The node on which the event was fired.
    pub origin: Certname,
    /// The nodes and groups that are to run Puppet.
    pub targets: Targets,
    /// How they are to run Puppet.
    pub options: RunOptions,
    /// The chains of events and runs that led to this event.
    pub lineage: Lineage,
    /// The run on `origin` inside which the event was fired; absent for a root event.
    pub fired_in: Option<RunId>,
    /// The Puppet resource that fired the event, or the event that it retries; absent if it was fired on a command line.
    pub fired_by: Option<FiredBy>,
    /// The catalog that the origin applied when it fired, with what it exports. Absent if no Puppet server stores it in
    /// PuppetDB, as far as the origin knows.
    pub catalog: Option<CatalogUuid>,
    /// Whether the event may reach a target that its trigger made run before in the same chain.
    pub loops: Loops,
    /// When the event was fired, by the origin's clock. It serves display and expiry, never order.
    pub fired_at: Timestamp,
    /// The lifetime, counted from `fired_at`.
    pub expires_in: Duration,
}

impl Event {
    /// Checks the bounds of the event as a whole.
    ///
    /// # Errors
    ///
    /// The first bound that the event exceeds.
    pub fn validate(&self) -> Result<(), InvalidEvent> {
        if self.targets.is_empty() {
            return Err(InvalidEvent::NoTargets);
        }
        if self.targets.hosts.len() > MAX_TARGETS {
            return Err(InvalidEvent::TooManyHosts { count: self.targets.hosts.len() });
        }
        if self.targets.groups.len() > MAX_GROUPS {
            return Err(InvalidEvent::TooManyGroups { count: self.targets.groups.len() });
        }
        if self.options.tags.len() > MAX_TAGS {
            return Err(InvalidEvent::TooManyTags { count: self.options.tags.len() });
        }
        if self.expires_in < Duration::from_secs(1) || self.expires_in > MAX_LIFETIME {
            return Err(InvalidEvent::BadLifetime { seconds: self.expires_in.as_secs() });
        }
        Ok(())
    }

    /// The moment after which a target no longer starts a run for the event: the end of the event's lifetime and
    /// [`CLOCK_TOLERANCE`]. Only the target decides by it (C12).
    pub fn expires_at(&self) -> Timestamp {
        self.fired_at.plus(self.expires_in).plus(CLOCK_TOLERANCE)
    }

    /// Whether `now` is past [`Event::expires_at`].
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now > self.expires_at()
    }

    /// Divides the event into the parts in which it is stored, with at most [`TARGETS_PER_PART`] nodes each. The first
    /// part has the groups.
    pub fn into_parts(mut self) -> Vec<Part> {
        let groups = std::mem::take(&mut self.targets.groups);
        let hosts: Vec<Certname> = std::mem::take(&mut self.targets.hosts).into_iter().collect();
        let count = u32::try_from(hosts.len().div_ceil(TARGETS_PER_PART).max(1)).unwrap_or(u32::MAX);
        (0..count)
            .map(|index| {
                let from = index as usize * TARGETS_PER_PART;
                let to = (from + TARGETS_PER_PART).min(hosts.len());
                let targets = Targets {
                    hosts: hosts[from..to].iter().cloned().collect(),
                    groups: if index == 0 { groups.clone() } else { BTreeSet::new() },
                };
                Part { index, count, event: Self { targets, ..self.clone() } }
            })
            .collect()
    }
}

/// A part of a stored event: the whole event, but with a share of its targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The number of this part, from 0.
    pub index: u32,
    /// The number of parts of the event.
    pub count: u32,
    /// The event with the targets of this part.
    pub event: Event,
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use uuid::Uuid;

    pub(crate) fn event_id(n: u128) -> EventId {
        EventId::from_uuid(Uuid::from_u128(n))
    }

    pub(crate) fn event(n: u128, trigger: &str) -> Event {
        Event {
            id: event_id(n),
            trigger: trigger.parse().unwrap(),
            origin: "web01.example.com".parse().unwrap(),
            targets: Targets {
                hosts: BTreeSet::from(["lb01.example.com".parse().unwrap()]),
                groups: BTreeSet::new(),
            },
            options: RunOptions::default(),
            lineage: Lineage::root(event_id(n)),
            fired_in: None,
            fired_by: None,
            catalog: None,
            loops: Loops::Avoid,
            fired_at: Timestamp::from_unix_ms(1_763_812_800_000),
            expires_in: DEFAULT_LIFETIME,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(tags: &[&str]) -> RunOptions {
        RunOptions { tags: tags.iter().map(|t| t.parse().unwrap()).collect(), ..RunOptions::default() }
    }

    #[test]
    fn a_full_run_swallows_tags_and_tags_add_up() {
        assert_eq!(options(&["a"]).union(&options(&["b"])), options(&["a", "b"]));
        assert_eq!(options(&["a"]).union(&options(&[])), options(&[]));
        assert_eq!(options(&[]).union(&options(&["b"])), options(&[]));
    }

    #[test]
    fn parts_hold_every_target_once_and_groups_once() {
        let mut event = samples::event(1, "t");
        event.targets.hosts = (0..300).map(|n| format!("n{n}").parse().unwrap()).collect();
        event.targets.groups = BTreeSet::from(["lb".parse().unwrap()]);
        let parts = event.clone().into_parts();
        assert_eq!(parts.iter().map(|p| p.event.targets.hosts.len()).collect::<Vec<_>>(), [128, 128, 44]);
        assert_eq!(parts.iter().map(|p| p.event.targets.groups.len()).collect::<Vec<_>>(), [1, 0, 0]);
        let all: BTreeSet<_> = parts.iter().flat_map(|p| p.event.targets.hosts.iter().cloned()).collect();
        assert_eq!(all, event.targets.hosts);
        assert!(parts.iter().enumerate().all(|(i, p)| p.index as usize == i && p.count == 3));
    }

    #[test]
    fn an_event_for_a_group_alone_has_one_part() {
        let mut event = samples::event(1, "t");
        event.targets = Targets { hosts: BTreeSet::new(), groups: BTreeSet::from(["lb".parse().unwrap()]) };
        assert_eq!(event.into_parts().len(), 1);
    }

    #[test]
    fn bounds_are_checked_with_a_sentence() {
        let mut event = samples::event(1, "t");
        event.expires_in = MAX_LIFETIME + Duration::from_secs(1);
        assert_eq!(
            event.validate().unwrap_err().to_string(),
            "an event cannot expire in 7d 1s: from 1s to 7d"
        );
        event.expires_in = DEFAULT_LIFETIME;
        event.targets = Targets::default();
        assert_eq!(event.validate(), Err(InvalidEvent::NoTargets));
    }

    #[test]
    fn each_bound_may_be_reached_and_not_exceeded() {
        let check = |change: &dyn Fn(&mut Event), expected: Result<(), InvalidEvent>| {
            let mut event = samples::event(1, "t");
            change(&mut event);
            assert_eq!(event.validate(), expected);
        };
        let hosts = |event: &mut Event, count: usize| {
            event.targets.hosts = (0..count).map(|n| format!("n{n}").parse().unwrap()).collect();
        };
        check(&|event| hosts(event, 100_000), Ok(()));
        check(&|event| hosts(event, 100_001), Err(InvalidEvent::TooManyHosts { count: 100_001 }));
        let groups = |event: &mut Event, count: usize| {
            event.targets.groups = (0..count).map(|n| format!("g{n}").parse().unwrap()).collect();
        };
        check(&|event| groups(event, 64), Ok(()));
        check(&|event| groups(event, 65), Err(InvalidEvent::TooManyGroups { count: 65 }));
        let tags = |event: &mut Event, count: usize| {
            event.options.tags = (0..count).map(|n| format!("t{n}").parse().unwrap()).collect();
        };
        check(&|event| tags(event, 64), Ok(()));
        check(&|event| tags(event, 65), Err(InvalidEvent::TooManyTags { count: 65 }));
        let (shortest, longest) = (Duration::from_secs(1), MAX_LIFETIME);
        check(&|event| event.expires_in = shortest, Ok(()));
        check(
            &|event| event.expires_in = Duration::from_millis(999),
            Err(InvalidEvent::BadLifetime { seconds: 0 }),
        );
        check(&|event| event.expires_in = longest, Ok(()));
        check(
            &|event| event.expires_in = longest + Duration::from_millis(1),
            Err(InvalidEvent::BadLifetime { seconds: longest.as_secs() }),
        );
    }

    #[test]
    fn what_is_known_of_the_firing_resource_is_one_short_line() {
        let resource = FiringResource::new("/Stage[main]/A/Trigger[x\ny]", Some((&"f".repeat(400), Some(3))));
        let shown = resource.to_string();
        assert!(shown.starts_with("/Stage[main]/A/Trigger[x y] (ffff"), "{shown}");
        assert!(shown.ends_with("f…, line 3)"), "{shown}");
        assert_eq!(FiringResource::new("/T", Some(("m.pp", None))).to_string(), "/T (m.pp)");
        assert_eq!(FiringResource::new("/T", None).to_string(), "/T");
    }

    #[test]
    fn expiry_forgives_five_minutes_of_clock_skew() {
        let event = samples::event(1, "t");
        let nominal = event.fired_at.plus(event.expires_in);
        assert!(!event.is_expired(nominal.plus(CLOCK_TOLERANCE)));
        assert!(event.is_expired(nominal.plus(CLOCK_TOLERANCE + Duration::from_millis(1))));
    }
}
