//! The keys of what a fleet stores. This is the only module that builds or parses one.
//!
//! ```text
//! events/<event_id>/parts/<n>            the event for at most 128 targets, which the part lists
//! events/<event_id>/members/<n>          a portion of the members of its groups when it was fired; read by status
//! events/<event_id>/settled              all deliveries of the event have ended; written by a sweep, for later ones
//! deliveries/<certname>/<event_id>       a delivery to a node: which part names it; written after the part
//! deliveries/<certname>/<event_id>/cancelled                  the request to end that delivery
//! group-deliveries/<group>/<event_id>    a delivery to every member of a group
//! group-deliveries/<group>/<event_id>/cancelled               the request to end it at all members
//! group-deliveries/<group>/<event_id>/cancelled/<certname>    the request to end it at one member
//! outcomes/<event_id>/<certname>         how a delivery ended
//! nodes/<certname>                       the registration of an agent
//! run-history/<certname>                 the latest runs of a node
//! certificates/<certname>/<fingerprint>  a certificate of a node, by which its signatures are verified
//! holds/<certname>                       the latest order to hold or release a node
//! log-requests/<certname>/<reader>       a reader asks a node for the output of a run
//! log-answers/<reader>/<certname>        the node's answer, sealed to its reader
//! sweep                                  who swept last
//! ```
//!
//! A key is a list of segments: its kind, then identities. No segment can hold the separator, because the alphabets
//! of [`Certname`], [`GroupName`], [`EventId`] and [`Fingerprint`] exclude it. So a key has one reading, who may touch it can be decided
//! from its segments alone, and a backend with subjects instead of paths can map segments to tokens.

use std::fmt;
use std::str::FromStr;

use crate::certificate::{CertificateRef, Fingerprint};
use crate::identity::{Certname, EventId, GroupName, KeyPrefix};

/// Stands between the segments of a key.
pub const SEPARATOR: char = '/';

const EVENTS: &str = "events";
const PARTS: &str = "parts";
const MEMBERS: &str = "members";
const SETTLED: &str = "settled";
const DELIVERIES: &str = "deliveries";
const GROUP_DELIVERIES: &str = "group-deliveries";
const CANCELLED: &str = "cancelled";
const OUTCOMES: &str = "outcomes";
const NODES: &str = "nodes";
const RUN_HISTORY: &str = "run-history";
const CERTIFICATES: &str = "certificates";
const HOLDS: &str = "holds";
const LOG_REQUESTS: &str = "log-requests";
const LOG_ANSWERS: &str = "log-answers";
const SWEEP: &str = "sweep";

/// Names one stored value, below the prefix of its fleet. [`fmt::Display`] joins its segments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// The event for some of its targets.
    Part {
        /// The event.
        event: EventId,
        /// Counts the parts of an event from 0.
        index: u32,
    },
    /// A portion of the members that the groups of an event had when it was fired.
    Members {
        /// The event.
        event: EventId,
        /// Counts the portions from 0.
        index: u32,
    },
    /// A sweep's note that all deliveries of an event have ended.
    Settled {
        /// The event.
        event: EventId,
    },
    /// A delivery to one node.
    Delivery {
        /// The target.
        certname: Certname,
        /// The event.
        event: EventId,
    },
    /// A delivery to every member of a group.
    GroupDelivery {
        /// The group.
        group: GroupName,
        /// The event.
        event: EventId,
    },
    /// The request to end a delivery to one node.
    Cancellation {
        /// The target.
        certname: Certname,
        /// The event.
        event: EventId,
    },
    /// The request to end a delivery to a group.
    GroupCancellation {
        /// The group.
        group: GroupName,
        /// The event.
        event: EventId,
        /// The member at which it is to end; absent: all of them.
        member: Option<Certname>,
    },
    /// How the delivery of an event to one node ended.
    Outcome {
        /// The event.
        event: EventId,
        /// The target.
        certname: Certname,
    },
    /// An agent's registration, which is also its claim on its certname.
    Node {
        /// The certname claimed.
        certname: Certname,
    },
    /// The latest runs of a node.
    RunHistory {
        /// The node.
        certname: Certname,
    },
    /// A certificate of a node, stored before the first value that is signed with its key.
    Certificate {
        /// The node.
        certname: Certname,
        /// The certificate.
        fingerprint: Fingerprint,
    },
    /// The latest order to hold or release a node.
    Hold {
        /// The node.
        certname: Certname,
    },
    /// The request of a reader for the output of a run. A reader has one request at a time for each node.
    LogRequest {
        /// The node that is asked.
        certname: Certname,
        /// The node that asks.
        reader: Certname,
    },
    /// The answer to it.
    LogAnswer {
        /// The node that asked.
        reader: Certname,
        /// The node that answers.
        certname: Certname,
    },
    /// The note of the last sweep.
    Sweep,
}

/// The key that a certificate is stored under; it ends with the text of the reference.
impl From<CertificateRef> for Key {
    fn from(CertificateRef { certname, fingerprint }: CertificateRef) -> Self {
        Self::Certificate { certname, fingerprint }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part { event, index } => write!(f, "{EVENTS}/{event}/{PARTS}/{index}"),
            Self::Members { event, index } => write!(f, "{EVENTS}/{event}/{MEMBERS}/{index}"),
            Self::Settled { event } => write!(f, "{EVENTS}/{event}/{SETTLED}"),
            Self::Delivery { certname, event } => write!(f, "{DELIVERIES}/{certname}/{event}"),
            Self::GroupDelivery { group, event } => write!(f, "{GROUP_DELIVERIES}/{group}/{event}"),
            Self::Cancellation { certname, event } => {
                write!(f, "{DELIVERIES}/{certname}/{event}/{CANCELLED}")
            }
            Self::GroupCancellation { group, event, member: None } => {
                write!(f, "{GROUP_DELIVERIES}/{group}/{event}/{CANCELLED}")
            }
            Self::GroupCancellation { group, event, member: Some(member) } => {
                write!(f, "{GROUP_DELIVERIES}/{group}/{event}/{CANCELLED}/{member}")
            }
            Self::Outcome { event, certname } => write!(f, "{OUTCOMES}/{event}/{certname}"),
            Self::Node { certname } => write!(f, "{NODES}/{certname}"),
            Self::RunHistory { certname } => write!(f, "{RUN_HISTORY}/{certname}"),
            Self::Certificate { certname, fingerprint } => {
                write!(f, "{CERTIFICATES}/{certname}/{fingerprint}")
            }
            Self::Hold { certname } => write!(f, "{HOLDS}/{certname}"),
            Self::LogRequest { certname, reader } => write!(f, "{LOG_REQUESTS}/{certname}/{reader}"),
            Self::LogAnswer { reader, certname } => write!(f, "{LOG_ANSWERS}/{reader}/{certname}"),
            Self::Sweep => f.write_str(SWEEP),
        }
    }
}

/// Text that is not the key, or the range, that it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key of Trigger's")]
pub struct UnknownKey;

impl FromStr for Key {
    type Err = UnknownKey;

    fn from_str(path: &str) -> Result<Self, UnknownKey> {
        let segments: Vec<&str> = path.split(SEPARATOR).collect();
        Ok(match segments[..] {
            [EVENTS, event, PARTS, index] => Self::Part { event: segment(event)?, index: number(index)? },
            [EVENTS, event, MEMBERS, index] => {
                Self::Members { event: segment(event)?, index: number(index)? }
            }
            [EVENTS, event, SETTLED] => Self::Settled { event: segment(event)? },
            [DELIVERIES, certname, event] => {
                Self::Delivery { certname: segment(certname)?, event: segment(event)? }
            }
            [GROUP_DELIVERIES, group, event] => {
                Self::GroupDelivery { group: segment(group)?, event: segment(event)? }
            }
            [DELIVERIES, certname, event, CANCELLED] => {
                Self::Cancellation { certname: segment(certname)?, event: segment(event)? }
            }
            [GROUP_DELIVERIES, group, event, CANCELLED] => {
                Self::GroupCancellation { group: segment(group)?, event: segment(event)?, member: None }
            }
            [GROUP_DELIVERIES, group, event, CANCELLED, member] => Self::GroupCancellation {
                group: segment(group)?,
                event: segment(event)?,
                member: Some(segment(member)?),
            },
            [OUTCOMES, event, certname] => {
                Self::Outcome { event: segment(event)?, certname: segment(certname)? }
            }
            [NODES, certname] => Self::Node { certname: segment(certname)? },
            [RUN_HISTORY, certname] => Self::RunHistory { certname: segment(certname)? },
            [CERTIFICATES, certname, fingerprint] => {
                Self::Certificate { certname: segment(certname)?, fingerprint: segment(fingerprint)? }
            }
            [HOLDS, certname] => Self::Hold { certname: segment(certname)? },
            [LOG_REQUESTS, certname, reader] => {
                Self::LogRequest { certname: segment(certname)?, reader: segment(reader)? }
            }
            [LOG_ANSWERS, reader, certname] => {
                Self::LogAnswer { reader: segment(reader)?, certname: segment(certname)? }
            }
            [SWEEP] => Self::Sweep,
            _ => return Err(UnknownKey),
        })
    }
}

/// What a key names, by its first segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What is stored of events themselves: parts, members, notes of sweeps.
    Events,
    /// The deliveries to nodes, with their cancellations.
    Deliveries,
    /// The deliveries to groups, with their cancellations.
    GroupDeliveries,
    /// The outcomes.
    Outcomes,
    /// The registrations.
    Nodes,
    /// The latest runs of nodes.
    RunHistories,
    /// The certificates of nodes.
    Certificates,
    /// The orders to hold and release nodes.
    Holds,
    /// The requests for the output of runs.
    LogRequests,
    /// The answers to them.
    LogAnswers,
    /// The note of the last sweep, which is one key.
    Sweep,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Events,
        Self::Deliveries,
        Self::GroupDeliveries,
        Self::Outcomes,
        Self::Nodes,
        Self::RunHistories,
        Self::Certificates,
        Self::Holds,
        Self::LogRequests,
        Self::LogAnswers,
        Self::Sweep,
    ];

    const fn segment(self) -> &'static str {
        match self {
            Self::Events => EVENTS,
            Self::Deliveries => DELIVERIES,
            Self::GroupDeliveries => GROUP_DELIVERIES,
            Self::Outcomes => OUTCOMES,
            Self::Nodes => NODES,
            Self::RunHistories => RUN_HISTORY,
            Self::Certificates => CERTIFICATES,
            Self::Holds => HOLDS,
            Self::LogRequests => LOG_REQUESTS,
            Self::LogAnswers => LOG_ANSWERS,
            Self::Sweep => SWEEP,
        }
    }
}

/// All keys with some segments in common. [`fmt::Display`] gives the text that each of them begins with, which ends
/// with the separator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Range {
    /// All that is stored of events themselves: parts, members, notes of sweeps.
    Events,
    /// The same of one event.
    Event(EventId),
    /// The deliveries to one node, with their cancellations.
    Deliveries(Certname),
    /// The deliveries to one group, with their cancellations.
    GroupDeliveries(GroupName),
    /// The cancellations of one delivery to a group.
    GroupCancellations(GroupName, EventId),
    /// The outcomes of one event.
    Outcomes(EventId),
    /// All registrations.
    Nodes,
    /// All requests for the output of runs.
    LogRequests,
    /// Those to one node.
    LogRequestsTo(Certname),
    /// All answers to such requests.
    LogAnswers,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events => write!(f, "{EVENTS}/"),
            Self::Event(event) => write!(f, "{EVENTS}/{event}/"),
            Self::Deliveries(certname) => write!(f, "{DELIVERIES}/{certname}/"),
            Self::GroupDeliveries(group) => write!(f, "{GROUP_DELIVERIES}/{group}/"),
            Self::GroupCancellations(group, event) => write!(f, "{GROUP_DELIVERIES}/{group}/{event}/"),
            Self::Outcomes(event) => write!(f, "{OUTCOMES}/{event}/"),
            Self::Nodes => write!(f, "{NODES}/"),
            Self::LogRequests => write!(f, "{LOG_REQUESTS}/"),
            Self::LogRequestsTo(certname) => write!(f, "{LOG_REQUESTS}/{certname}/"),
            Self::LogAnswers => write!(f, "{LOG_ANSWERS}/"),
        }
    }
}

impl FromStr for Range {
    type Err = UnknownKey;

    fn from_str(path: &str) -> Result<Self, UnknownKey> {
        let segments: Vec<&str> = path.strip_suffix(SEPARATOR).ok_or(UnknownKey)?.split(SEPARATOR).collect();
        Ok(match segments[..] {
            [EVENTS] => Self::Events,
            [EVENTS, event] => Self::Event(segment(event)?),
            [DELIVERIES, certname] => Self::Deliveries(segment(certname)?),
            [GROUP_DELIVERIES, group] => Self::GroupDeliveries(segment(group)?),
            [GROUP_DELIVERIES, group, event] => Self::GroupCancellations(segment(group)?, segment(event)?),
            [OUTCOMES, event] => Self::Outcomes(segment(event)?),
            [NODES] => Self::Nodes,
            [LOG_REQUESTS] => Self::LogRequests,
            [LOG_REQUESTS, certname] => Self::LogRequestsTo(segment(certname)?),
            [LOG_ANSWERS] => Self::LogAnswers,
            _ => return Err(UnknownKey),
        })
    }
}

fn segment<T: FromStr>(text: &str) -> Result<T, UnknownKey> {
    text.parse().map_err(|_| UnknownKey)
}

/// A number in the one spelling that [`Key`] writes: `01` and `+1` would be second keys of the same part.
fn number(text: &str) -> Result<u32, UnknownKey> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text).ok_or(UnknownKey)
}

/// The keys of one fleet: all of them are below one prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keyspace {
    prefix: KeyPrefix,
}

impl Keyspace {
    /// The keyspace below `prefix`.
    pub fn new(prefix: KeyPrefix) -> Self {
        Self { prefix }
    }

    /// The prefix that all keys share.
    pub fn prefix(&self) -> &KeyPrefix {
        &self.prefix
    }

    /// The text of a key, as a backend stores it.
    pub fn key(&self, key: &Key) -> String {
        format!("{}/{key}", self.prefix)
    }

    /// The text that every key of a range begins with.
    pub fn range(&self, range: &Range) -> String {
        format!("{}/{range}", self.prefix)
    }

    /// The keys of a kind: the text that they begin with, or the one key that there is; and whether it is the former.
    pub fn of_kind(&self, kind: Kind) -> (String, bool) {
        let key = format!("{}/{}", self.prefix, kind.segment());
        if kind == Kind::Sweep { (key, false) } else { (format!("{key}{SEPARATOR}"), true) }
    }

    /// The same of those keys of a kind that are one node's, if the certname is their second segment.
    pub fn of_node(&self, kind: Kind, certname: &Certname) -> Option<(String, bool)> {
        let key = format!("{}/{}/{certname}", self.prefix, kind.segment());
        match kind {
            Kind::Deliveries | Kind::Certificates | Kind::LogRequests | Kind::LogAnswers => {
                Some((format!("{key}{SEPARATOR}"), true))
            }
            Kind::Nodes | Kind::RunHistories | Kind::Holds => Some((key, false)),
            Kind::Events | Kind::GroupDeliveries | Kind::Outcomes | Kind::Sweep => None,
        }
    }

    /// The key that [`Self::key`] made this text from. `None` for a key that is not Trigger's, or another fleet's: a
    /// backend may hold anything.
    pub fn parse(&self, text: &str) -> Option<Key> {
        self.strip(text)?.parse().ok()
    }

    /// The range that [`Self::range`] made this text from.
    pub fn parse_range(&self, text: &str) -> Option<Range> {
        self.strip(text)?.parse().ok()
    }

    fn strip<'a>(&self, text: &'a str) -> Option<&'a str> {
        text.strip_prefix(self.prefix.as_str())?.strip_prefix(SEPARATOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::samples::event_id;

    fn every_key() -> [(Key, &'static str); 16] {
        let certname: Certname = "lb01.example.com".parse().unwrap();
        let group: GroupName = "lb".parse().unwrap();
        let event = event_id(7);
        let of_group = |member| Key::GroupCancellation { group: group.clone(), event, member };
        [
            (
                Key::Cancellation { certname: certname.clone(), event },
                "deliveries/lb01.example.com/00000000-0000-0000-0000-000000000007/cancelled",
            ),
            (of_group(None), "group-deliveries/lb/00000000-0000-0000-0000-000000000007/cancelled"),
            (
                of_group(Some(certname.clone())),
                "group-deliveries/lb/00000000-0000-0000-0000-000000000007/cancelled/lb01.example.com",
            ),
            (Key::Part { event, index: 12 }, "events/00000000-0000-0000-0000-000000000007/parts/12"),
            (Key::Members { event, index: 3 }, "events/00000000-0000-0000-0000-000000000007/members/3"),
            (Key::Settled { event }, "events/00000000-0000-0000-0000-000000000007/settled"),
            (
                Key::Delivery { certname: certname.clone(), event },
                "deliveries/lb01.example.com/00000000-0000-0000-0000-000000000007",
            ),
            (
                Key::GroupDelivery { group: group.clone(), event },
                "group-deliveries/lb/00000000-0000-0000-0000-000000000007",
            ),
            (
                Key::Outcome { event, certname: certname.clone() },
                "outcomes/00000000-0000-0000-0000-000000000007/lb01.example.com",
            ),
            (Key::Node { certname: certname.clone() }, "nodes/lb01.example.com"),
            (Key::RunHistory { certname: certname.clone() }, "run-history/lb01.example.com"),
            (Key::Hold { certname: certname.clone() }, "holds/lb01.example.com"),
            (
                Key::LogRequest { certname: certname.clone(), reader: "ops01".parse().unwrap() },
                "log-requests/lb01.example.com/ops01",
            ),
            (
                Key::LogAnswer { reader: certname.clone(), certname: "web01".parse().unwrap() },
                "log-answers/lb01.example.com/web01",
            ),
            (
                Key::Certificate { certname, fingerprint: Fingerprint::from_digest([0xab; 32]) },
                "certificates/lb01.example.com/abababababababababababababababababababababababababababababababab",
            ),
            (Key::Sweep, "sweep"),
        ]
    }

    fn every_range() -> [Range; 10] {
        let event = event_id(7);
        [
            Range::Events,
            Range::Event(event),
            Range::Deliveries("lb01.example.com".parse().unwrap()),
            Range::GroupDeliveries("lb".parse().unwrap()),
            Range::GroupCancellations("lb".parse().unwrap(), event),
            Range::Outcomes(event),
            Range::Nodes,
            Range::LogRequests,
            Range::LogRequestsTo("lb01.example.com".parse().unwrap()),
            Range::LogAnswers,
        ]
    }

    /// Proves C15.
    #[test]
    fn the_keys_stay_as_they_are() {
        let keyspace = Keyspace::default();
        for (key, text) in every_key() {
            assert_eq!(keyspace.key(&key), format!("/puppet_trigger/events/{text}"));
        }
    }

    /// Proves C15.
    #[test]
    fn a_key_that_was_built_is_parsed_again() {
        let keyspace = Keyspace::default();
        for (key, _) in every_key() {
            assert_eq!(keyspace.parse(&keyspace.key(&key)), Some(key));
        }
        for range in every_range() {
            assert_eq!(keyspace.parse_range(&keyspace.range(&range)), Some(range));
        }
    }

    #[test]
    fn a_range_holds_the_keys_of_its_kind_and_no_others() {
        let keyspace = Keyspace::default();
        let held = |range: &Range| {
            let prefix = keyspace.range(range);
            let keys = every_key().into_iter().map(|(key, _)| keyspace.key(&key));
            keys.filter(|key| key.starts_with(&prefix)).count()
        };
        let counts: Vec<usize> = every_range().iter().map(held).collect();
        assert_eq!(counts, [3, 3, 2, 3, 2, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn each_key_is_of_one_kind_and_of_the_node_in_its_second_segment() {
        let keyspace = Keyspace::default();
        let covers = |(text, is_prefix): &(String, bool), key: &str| {
            if *is_prefix { key.starts_with(text.as_str()) } else { key == text }
        };
        let (own, other) = ("lb01.example.com".parse().unwrap(), "lb01.example.co".parse().unwrap());
        for (key, text) in every_key() {
            let key = keyspace.key(&key);
            assert_eq!(
                Kind::ALL.iter().filter(|kind| covers(&keyspace.of_kind(**kind), &key)).count(),
                1,
                "{key}"
            );
            let is_of = |certname: &Certname| {
                Kind::ALL
                    .iter()
                    .filter_map(|kind| keyspace.of_node(*kind, certname))
                    .any(|range| covers(&range, &key))
            };
            assert_eq!(is_of(&own), text.split('/').nth(1) == Some("lb01.example.com"), "{key}");
            assert!(!is_of(&other), "{key}");
        }
    }

    #[test]
    fn a_key_has_one_spelling() {
        let keyspace = Keyspace::default();
        for text in [
            "",
            "/other",
            "/puppet_trigger/events",
            "/puppet_trigger/events/",
            "/puppet_trigger/events/deliveries/UPPER/00000000-0000-0000-0000-000000000007",
            "/puppet_trigger/events/deliveries/a/b/c",
            "/puppet_trigger/events/deliveries/a/",
            "/puppet_trigger/events/deliveries//00000000-0000-0000-0000-000000000007",
            "/puppet_trigger/events/events/00000000-0000-0000-0000-000000000007/parts/01",
            "/puppet_trigger/events/events/00000000-0000-0000-0000-000000000007/parts/+1",
            "/puppet_trigger/events/events/00000000-0000-0000-0000-000000000007/0",
            "/puppet_trigger/eventsnodes/a",
        ] {
            assert_eq!(keyspace.parse(text), None, "{text}");
        }
        for text in
            ["/puppet_trigger/events/nodes", "/puppet_trigger/events/", "/puppet_trigger/events/outcomes/"]
        {
            assert_eq!(keyspace.parse_range(text), None, "{text}");
        }
    }
}
