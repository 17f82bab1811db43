//! The roles and users that an etcd needs for a fleet: `trigger etcd-roles`.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;
use trigger_core::identity::Certname;
use trigger_core::key_roles::{Grant, KeyRole};
use trigger_core::keyspace::Keyspace;

use super::text::Text;

/// What the commands begin with. To run them again, also for more nodes, does no harm.
const PREAMBLE: &str = "\
#!/bin/sh
# Run this where etcdctl acts as etcd's user root: ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY.
set -eu
export ETCDCTL_API=3
role() { etcdctl role get \"$1\" >/dev/null 2>&1 || etcdctl role add \"$1\"; }
user() { etcdctl user get \"$1\" >/dev/null 2>&1 || etcdctl user add --no-password \"$1\"; }
";

/// What `trigger etcd-roles` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct EtcdRoles {
    /// The key prefix of the fleet.
    prefix: String,
    /// The roles.
    roles: Vec<EtcdRole>,
    /// The users, which have no passwords: etcd takes the name from a client's certificate.
    users: Vec<EtcdUser>,
    /// What the reader should know besides.
    warnings: Vec<String>,
}

/// A role at an etcd.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct EtcdRole {
    /// Its name.
    name: String,
    /// What it grants.
    permissions: Vec<EtcdPermission>,
}

/// Access to one key, or to all keys that begin with a text.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct EtcdPermission {
    /// `read`, `write` or `readwrite`.
    access: &'static str,
    /// The key, or the text that the keys begin with.
    key: String,
    /// Whether it is that text.
    is_prefix: bool,
}

/// A user at an etcd.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct EtcdUser {
    /// The common name of its certificate.
    name: Text<Certname>,
    /// Its roles.
    roles: Vec<String>,
}

impl EtcdRoles {
    /// The roles of a fleet with these `nodes`, of which the `operators` may do more.
    pub(crate) fn new(
        keyspace: &Keyspace,
        nodes: &BTreeSet<Certname>,
        operators: &BTreeSet<Certname>,
        warnings: Vec<String>,
    ) -> Self {
        let (fleet, operator) = (KeyRole::of_fleet(keyspace), KeyRole::of_operator(keyspace));
        let mut users = Vec::new();
        let mut roles = vec![fleet.clone()];
        if !operators.is_empty() {
            roles.push(operator.clone());
        }
        for certname in nodes.union(operators) {
            let own = KeyRole::of_node(keyspace, certname);
            let mut of_user = vec![fleet.name.clone(), own.name.clone()];
            if operators.contains(certname) {
                of_user.push(operator.name.clone());
            }
            users.push(EtcdUser { name: Text(certname.clone()), roles: of_user });
            roles.push(own);
        }
        let roles = roles.into_iter().map(EtcdRole::of).collect();
        Self { prefix: keyspace.prefix().to_string(), roles, users, warnings }
    }

    /// The same as commands of a shell. Names, prefixes and keys hold no character that a shell interprets.
    pub(crate) fn script(&self) -> String {
        let mut text = PREAMBLE.to_owned();
        for EtcdRole { name, permissions } in &self.roles {
            let _ = writeln!(text, "\nrole {name}");
            for EtcdPermission { access, key, is_prefix } in permissions {
                let prefix = if *is_prefix { " --prefix" } else { "" };
                let _ = writeln!(text, "etcdctl role grant-permission{prefix} {name} {access} {key}");
            }
        }
        for EtcdUser { name: Text(name), roles } in &self.users {
            let _ = writeln!(text, "\nuser {name}");
            for role in roles {
                let _ = writeln!(text, "etcdctl user grant-role {name} {role}");
            }
        }
        text
    }

    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl EtcdRole {
    fn of(KeyRole { name, grants }: KeyRole) -> Self {
        let permission = |Grant { access, key, is_prefix }: Grant| EtcdPermission {
            access: access.as_str(),
            key,
            is_prefix,
        };
        Self { name, permissions: grants.into_iter().map(permission).collect() }
    }
}
