//! Where everything lies in the backend. The only place that builds or takes apart a key.
//!
//! ```text
//! events/<event_id>/<part>          the event for at most 128 targets
//! events/<event_id>/m<n>            who a group's members were when it was fired; read only by status
//! hosts/<certname>/<event_id>       a delivery: which part; written after the part
//! groups/<group>/<event_id>         a delivery to every member
//! outcomes/<event_id>/<certname>    how a delivery ended
//! nodes/<certname>                  the registration of an agent
//! runs/<certname>                   its latest runs
//! sweep                             who swept last
//! ```

use crate::identity::{Certname, EventId, GroupName, KeyPrefix};

/// Builds and reads keys below one prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keyspace {
    prefix: KeyPrefix,
}

/// A key taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the segments named above")]
pub enum Key {
    Part { event: EventId, index: u32 },
    Members { event: EventId, index: u32 },
    HostDelivery { certname: Certname, event: EventId },
    GroupDelivery { group: GroupName, event: EventId },
    Outcome { event: EventId, certname: Certname },
    Node { certname: Certname },
    Runs { certname: Certname },
}

impl Keyspace {
    /// The layout below `prefix`.
    pub fn new(prefix: KeyPrefix) -> Self {
        Self { prefix }
    }

    /// The prefix all keys share.
    pub fn prefix(&self) -> &KeyPrefix {
        &self.prefix
    }

    /// One part of an event.
    pub fn part(&self, event: EventId, index: u32) -> String {
        format!("{}{index}", self.event(event))
    }

    /// One portion of the members that a group had when the event was fired.
    pub fn members(&self, event: EventId, index: u32) -> String {
        format!("{}m{index}", self.event(event))
    }

    /// All that is stored of an event (a prefix).
    pub fn event(&self, event: EventId) -> String {
        format!("{}{event}/", self.events())
    }

    /// All events (a prefix).
    pub fn events(&self) -> String {
        format!("{}/events/", self.prefix)
    }

    /// A delivery to one node.
    pub fn host_delivery(&self, certname: &Certname, event: EventId) -> String {
        format!("{}{event}", self.host_deliveries(certname))
    }

    /// All deliveries to one node (a prefix).
    pub fn host_deliveries(&self, certname: &Certname) -> String {
        format!("{}/hosts/{certname}/", self.prefix)
    }

    /// A delivery to every member of a group.
    pub fn group_delivery(&self, group: &GroupName, event: EventId) -> String {
        format!("{}{event}", self.group_deliveries(group))
    }

    /// All deliveries to a group (a prefix).
    pub fn group_deliveries(&self, group: &GroupName) -> String {
        format!("{}/groups/{group}/", self.prefix)
    }

    /// How one delivery ended.
    pub fn outcome(&self, event: EventId, certname: &Certname) -> String {
        format!("{}{certname}", self.outcomes(event))
    }

    /// How an event's deliveries ended (a prefix).
    pub fn outcomes(&self, event: EventId) -> String {
        format!("{}/outcomes/{event}/", self.prefix)
    }

    /// One agent's registration.
    pub fn node(&self, certname: &Certname) -> String {
        format!("{}{certname}", self.nodes())
    }

    /// All registrations (a prefix).
    pub fn nodes(&self) -> String {
        format!("{}/nodes/", self.prefix)
    }

    /// What one node tells of its latest runs.
    pub fn runs(&self, certname: &Certname) -> String {
        format!("{}/runs/{certname}", self.prefix)
    }

    /// The note of the last sweep.
    pub fn sweep(&self) -> String {
        format!("{}/sweep", self.prefix)
    }

    /// Takes a key apart; nothing for a key that is not ours, whoever put it there.
    pub fn place(&self, key: &str) -> Option<Key> {
        let path = key.strip_prefix(self.prefix.as_str())?.strip_prefix('/')?;
        let segments: Vec<&str> = path.split('/').collect();
        Some(match segments[..] {
            ["events", event, part] => {
                let event = event.parse().ok()?;
                match part.strip_prefix('m') {
                    Some(index) => Key::Members { event, index: index.parse().ok()? },
                    None => Key::Part { event, index: part.parse().ok()? },
                }
            }
            ["hosts", certname, event] => {
                Key::HostDelivery { certname: certname.parse().ok()?, event: event.parse().ok()? }
            }
            ["groups", group, event] => {
                Key::GroupDelivery { group: group.parse().ok()?, event: event.parse().ok()? }
            }
            ["outcomes", event, certname] => {
                Key::Outcome { event: event.parse().ok()?, certname: certname.parse().ok()? }
            }
            ["nodes", certname] => Key::Node { certname: certname.parse().ok()? },
            ["runs", certname] => Key::Runs { certname: certname.parse().ok()? },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::samples::event_id;

    /// Proves C15.
    #[test]
    fn a_key_that_was_built_is_taken_apart_again() {
        let keyspace = Keyspace::default();
        let (certname, group, event): (Certname, GroupName, _) =
            ("lb01.example.com".parse().unwrap(), "lb".parse().unwrap(), event_id(7));
        let cases = [
            (keyspace.part(event, 12), Key::Part { event, index: 12 }),
            (keyspace.members(event, 3), Key::Members { event, index: 3 }),
            (
                keyspace.host_delivery(&certname, event),
                Key::HostDelivery { certname: certname.clone(), event },
            ),
            (keyspace.group_delivery(&group, event), Key::GroupDelivery { group, event }),
            (keyspace.outcome(event, &certname), Key::Outcome { event, certname: certname.clone() }),
            (keyspace.node(&certname), Key::Node { certname: certname.clone() }),
            (keyspace.runs(&certname), Key::Runs { certname }),
        ];
        for (key, place) in cases {
            assert_eq!(keyspace.place(&key), Some(place), "{key}");
        }
    }

    /// Proves C15.
    #[test]
    fn the_released_layout_stays() {
        let keyspace = Keyspace::default();
        let node = "lb01".parse().unwrap();
        assert_eq!(
            keyspace.host_delivery(&node, event_id(1)),
            "/puppet_trigger/events/hosts/lb01/00000000-0000-0000-0000-000000000001"
        );
    }

    #[test]
    fn garbage_under_our_prefix_has_no_place() {
        let keyspace = Keyspace::default();
        for key in [
            "",
            "/other",
            "/puppet_trigger/events",
            "/puppet_trigger/events/hosts/UPPER/x",
            "/puppet_trigger/events/hosts/a/b/c",
        ] {
            assert_eq!(keyspace.place(key), None, "{key}");
        }
    }
}
