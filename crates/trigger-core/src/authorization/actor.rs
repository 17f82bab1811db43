//! Who asks.

use std::collections::BTreeSet;
use std::fmt;

use crate::identity::Certname;

/// The extension of Puppet's certificates that carries a role for authorization.
const AUTH_ROLE: &str = "pp_auth_role";
/// The extension by which Puppet's certificate authority marks an administrator's certificate.
const CLI_AUTH: &str = "pp_cli_auth";

/// A client that has proved its certname.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Its certname.
    pub certname: Certname,
    /// Its role.
    pub role: Role,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.certname.fmt(f)
    }
}

/// What a client may do besides acting for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing.
    Node,
    /// It may read all, and delete what a node has left behind that is gone.
    Operator,
}

/// By what a client is recognised as an operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Operators {
    /// The certnames of operators.
    pub certnames: BTreeSet<Certname>,
    /// Values of the trusted extension `pp_auth_role`.
    pub auth_roles: BTreeSet<String>,
    /// Whether a certificate with the trusted extension `pp_cli_auth` set to `true` is an operator's.
    pub cli_auth: bool,
}

impl Operators {
    /// The role of a client. `extension` returns the value of a trusted extension of its certificate, by its short name.
    ///
    /// A `pp_auth_role` may list several roles, with commas between them, as in puppetserver's own rules.
    pub fn role<'a>(&self, certname: &Certname, extension: impl Fn(&str) -> Option<&'a str>) -> Role {
        let has_role = || {
            let roles = extension(AUTH_ROLE).into_iter().flat_map(|roles| roles.split(','));
            roles.map(str::trim).any(|role| self.auth_roles.contains(role))
        };
        let is_operator = self.certnames.contains(certname)
            || has_role()
            || (self.cli_auth && extension(CLI_AUTH) == Some("true"));
        if is_operator { Role::Operator } else { Role::Node }
    }
}
