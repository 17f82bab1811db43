//! The roles of a backend that grants its clients access by ranges of keys and knows them by their certnames, such as
//! an etcd with authentication (C13).
//!
//! Such a backend never looks at a value. It cannot compare the origin of an event with the node that writes it, and an
//! outcome's key begins with the event. So every node may write all events, deliveries and outcomes, which signatures
//! protect, and a role of its own keeps others from what is one node's alone. Nothing outside the prefix is granted.

use crate::identity::Certname;
use crate::keyspace::{Keyspace, Kind};

/// What a role may do with a range of keys. Deleting is writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read and watch.
    Read,
    /// Write and delete.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    /// The word that etcd has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ReadWrite => "readwrite",
        }
    }
}

/// Access to one key, or to all keys that begin with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The access.
    pub access: Access,
    /// The key, or the text that the keys begin with.
    pub key: String,
    /// Whether it is that text.
    pub is_prefix: bool,
}

/// A role with all that it grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRole {
    /// The name: it says whose role it is, and below which prefix.
    pub name: String,
    /// The grants.
    pub grants: Vec<Grant>,
}

impl KeyRole {
    /// What each node of the fleet may do.
    pub fn of_fleet(keyspace: &Keyspace) -> Self {
        let access = |kind| {
            Some(match kind {
                // Answers are sealed to their readers. Sweeps list what was left behind of both.
                Kind::LogRequests | Kind::LogAnswers => Access::ReadWrite,
                Kind::Events | Kind::GroupDeliveries | Kind::Outcomes | Kind::Sweep => Access::ReadWrite,
                Kind::Deliveries => Access::Write,
                Kind::Nodes | Kind::RunHistories | Kind::Certificates => Access::Read,
                Kind::Holds => return None,
            })
        };
        let grants = Kind::ALL.into_iter().filter_map(|kind| Some(Grant::all(keyspace, kind, access(kind)?)));
        Self { name: format!("trigger:fleet:{}", keyspace.prefix()), grants: grants.collect() }
    }

    /// What one node may do besides.
    pub fn of_node(keyspace: &Keyspace, certname: &Certname) -> Self {
        let access = |kind| match kind {
            Kind::Deliveries => Some(Access::Read),
            Kind::Nodes | Kind::RunHistories | Kind::Certificates => Some(Access::Write),
            Kind::Events | Kind::GroupDeliveries | Kind::Outcomes | Kind::Sweep => None,
            Kind::Holds => Some(Access::ReadWrite),
            Kind::LogRequests | Kind::LogAnswers => None,
        };
        let grants = Kind::ALL.into_iter().filter_map(|kind| {
            let (key, is_prefix) = keyspace.of_node(kind, certname)?;
            Some(Grant { access: access(kind)?, key, is_prefix })
        });
        Self { name: format!("trigger:node:{certname}:{}", keyspace.prefix()), grants: grants.collect() }
    }

    /// What an operator may do besides: read all, hold nodes, and remove what a node that is gone has left.
    pub fn of_operator(keyspace: &Keyspace) -> Self {
        let access = |kind| match kind {
            Kind::Deliveries => Some(Access::Read),
            Kind::Nodes | Kind::RunHistories | Kind::Certificates => Some(Access::Write),
            Kind::Events | Kind::GroupDeliveries | Kind::Outcomes | Kind::Sweep => None,
            Kind::Holds => Some(Access::ReadWrite),
            Kind::LogRequests | Kind::LogAnswers => None,
        };
        let grants = Kind::ALL.into_iter().filter_map(|kind| Some(Grant::all(keyspace, kind, access(kind)?)));
        Self { name: format!("trigger:operator:{}", keyspace.prefix()), grants: grants.collect() }
    }
}

impl Grant {
    fn all(keyspace: &Keyspace, kind: Kind, access: Access) -> Self {
        let (key, is_prefix) = keyspace.of_kind(kind);
        Self { access, key, is_prefix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Fingerprint;
    use crate::event::samples::event_id;
    use crate::keyspace::Key;

    fn certname(text: &str) -> Certname {
        text.parse().unwrap()
    }

    /// What a user with these roles may do with a key: `rw`, or a dash in the place of each that it may not.
    fn may(roles: &[&KeyRole], key: &str) -> String {
        let grants: Vec<&Grant> = roles.iter().flat_map(|role| &role.grants).collect();
        let covers = |grant: &Grant| {
            if grant.is_prefix { key.starts_with(&grant.key) } else { key == grant.key }
        };
        let has = |access, letter| {
            let granted =
                |grant: &&&Grant| covers(grant) && [access, Access::ReadWrite].contains(&grant.access);
            if grants.iter().any(|grant| granted(&grant)) { letter } else { '-' }
        };
        [has(Access::Read, 'r'), has(Access::Write, 'w')].iter().collect()
    }

    /// Proves C13.
    #[test]
    fn a_node_has_its_own_keys_and_shares_those_that_are_signed() {
        let keyspace = Keyspace::default();
        let fleet = KeyRole::of_fleet(&keyspace);
        let node = KeyRole::of_node(&keyspace, &certname("web1"));
        let operator = KeyRole::of_operator(&keyspace);
        let check = |key: Key, of_a_node: &str, of_an_operator: &str| {
            let key = keyspace.key(&key);
            assert_eq!(may(&[&fleet, &node], &key), of_a_node, "a node, {key}");
            assert_eq!(may(&[&fleet, &node, &operator], &key), of_an_operator, "an operator, {key}");
        };
        let event = event_id(7);
        let fingerprint = Fingerprint::from_digest([0xab; 32]);
        check(Key::Part { event, index: 0 }, "rw", "rw");
        check(Key::Members { event, index: 0 }, "rw", "rw");
        check(Key::Settled { event }, "rw", "rw");
        check(Key::GroupDelivery { group: "lb".parse().unwrap(), event }, "rw", "rw");
        check(Key::Sweep, "rw", "rw");
        // A name that begins with its own is another node's.
        for (name, own) in [("web1", true), ("web10", false)] {
            let certname = certname(name);
            let of = |own_rights, rights| if own { own_rights } else { rights };
            check(Key::Outcome { event, certname: certname.clone() }, "rw", "rw");
            check(Key::Delivery { certname: certname.clone(), event }, of("rw", "-w"), "rw");
            check(Key::Node { certname: certname.clone() }, of("rw", "r-"), "rw");
            check(Key::RunHistory { certname: certname.clone() }, of("rw", "r-"), "rw");
            let other: Certname = self::certname("ops1");
            check(Key::LogRequest { certname: certname.clone(), reader: other.clone() }, "rw", "rw");
            check(Key::LogAnswer { reader: other, certname: certname.clone() }, "rw", "rw");
            check(Key::Hold { certname: certname.clone() }, of("rw", "--"), "rw");
            check(Key::Certificate { certname, fingerprint }, of("rw", "r-"), "rw");
        }
        for outside in
            ["/puppet_trigger/events", "/puppet_trigger/events/other", "/puppet_trigger/eventsnodes/web1"]
        {
            assert_eq!(may(&[&fleet, &node, &operator], outside), "--", "{outside}");
        }
    }
}
