//! What is known of a node.

use std::time::Duration;

use crate::identity::Certname;
use crate::node::NodeRecord;
use crate::time::Timestamp;

/// All that was gathered. What is absent could not be looked at, or does not exist on this node.
#[derive(Debug, Clone)]
pub struct Facts {
    /// This node's clock.
    pub now: Timestamp,
    /// The version of this program.
    pub version: String,
    /// The configuration.
    pub configuration: Configuration,
    /// The names of this node.
    pub names: Option<Names>,
    /// The state directory.
    pub directory: Option<Directory>,
    /// The node's certificate.
    pub certificate: Option<Certificate>,
    /// The backend.
    pub backend: Option<Backend>,
    /// Puppet.
    pub puppet: Option<Puppet>,
    /// PuppetDB; absent if none is known here.
    pub puppetdb: Option<PuppetDb>,
    /// The copies of the Puppet module in Puppet's module path.
    pub modules: Option<Vec<Module>>,
    /// The agent's service; absent without systemd.
    pub service: Option<Service>,
    /// The agent.
    pub agent: Option<Agent>,
    /// The outbox.
    pub outbox: Option<Outbox>,
    /// The claim on the node's certname.
    pub claim: Option<Claim>,
}

impl Facts {
    /// The facts of a program of this version at this time, of which nothing else is known yet.
    pub fn new(now: Timestamp, version: &str) -> Self {
        Self {
            now,
            version: version.to_owned(),
            configuration: Configuration::default(),
            names: None,
            directory: None,
            certificate: None,
            backend: None,
            puppet: None,
            puppetdb: None,
            modules: None,
            service: None,
            agent: None,
            outbox: None,
            claim: None,
        }
    }
}

/// The configuration.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    /// The file.
    pub path: String,
    /// Whether the file exists.
    pub is_there: bool,
    /// Its mistakes, as sentences.
    pub problems: Vec<String>,
    /// What is allowed and probably not meant, as sentences.
    pub doubts: Vec<String>,
    /// Whether a backend is configured.
    pub names_backend: bool,
}

/// The names of a node.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// The certname in the configuration.
    pub configured: Option<Certname>,
    /// The certname that the state directory belongs to.
    pub owner: Option<Certname>,
    /// Puppet's own certname, or why Puppet does not report it; absent if it was not asked.
    pub puppets: Option<Result<Certname, String>>,
    /// The certname in the node's certificate.
    pub certificate: Option<Certname>,
}

/// The state directory.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// Its path.
    pub path: String,
    /// Why it cannot be used.
    pub problem: Option<String>,
    /// The free space on its disk.
    pub free_bytes: Option<u64>,
}

/// The certificate of a node that needs one.
#[derive(Debug, Clone, Default)]
pub struct Certificate {
    /// What is wrong with the files, or with the certificate in the node's own eyes: a sentence with its remedy.
    pub problem: Option<String>,
    /// Until when it is valid.
    pub not_after: Option<Timestamp>,
    /// Whether revocations are checked.
    pub checks_revocation: bool,
    /// Revocation lists that are out of date, as sentences with their remedies.
    pub stale_lists: Vec<String>,
}

/// The backend.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its URL.
    pub url: String,
    /// Whether it is a hub.
    pub is_hub: bool,
    /// What it answered, or why it did not.
    pub answer: Result<Answered, String>,
}

/// What a backend answered.
#[derive(Debug, Clone, Default)]
pub struct Answered {
    /// How long the first answer took, with the connection.
    pub took: Duration,
    /// The version of its program.
    pub version: Option<String>,
    /// By how much this node's clock is ahead of its clock at least.
    pub ahead: Duration,
    /// By how much this node's clock is behind its clock at least.
    pub behind: Duration,
    /// Why this node may not write what is its own there.
    pub denied: Option<String>,
}

/// Puppet.
#[derive(Debug, Clone, Default)]
pub struct Puppet {
    /// Whether anything depends on it: it is the run command, or gives the certname.
    pub is_needed: bool,
    /// Why it does not report its settings.
    pub problem: Option<String>,
    /// Why it is disabled on this node.
    pub disabled: Option<String>,
    /// The pid of a run in progress, or why it cannot be known.
    pub running: Option<Result<u32, String>>,
}

/// PuppetDB.
#[derive(Debug, Clone)]
pub struct PuppetDb {
    /// Its address, as far as it is one.
    pub url: String,
    /// Why it does not answer this node.
    pub problem: Option<String>,
    /// Whether runs here wait for what other nodes export.
    pub is_waited_for: bool,
}

/// A copy of the Puppet module.
#[derive(Debug, Clone)]
pub struct Module {
    /// Its directory.
    pub path: String,
    /// Its version.
    pub version: String,
}

/// The agent's service, as systemd says.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its unit.
    pub unit: String,
    /// Its `ActiveState`.
    pub active: String,
    /// Its `UnitFileState`; empty where there is no such unit.
    pub enabled: String,
}

/// The agent, as it answers over its socket.
#[derive(Debug, Clone)]
pub enum Agent {
    /// None runs.
    Absent,
    /// One runs and does not answer.
    Silent,
    /// One answers what this program does not understand.
    OtherVersion,
    /// It does not serve this user.
    Refuses(String),
    /// It answers.
    Answers {
        /// Why it receives no deliveries.
        disconnected: Option<String>,
        /// Why no run may start, other than a hold.
        blocked: Option<String>,
        /// Until when and why an operator holds the node.
        hold: Option<String>,
        /// How many deliveries are held.
        held: usize,
        /// How many deliveries it cannot read.
        unreadable: usize,
    },
}

/// The outbox.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outbox {
    /// Events that no backend has.
    pub spooled: usize,
    /// Those of them that are for a backend which the configuration does not name.
    pub elsewhere: usize,
    /// Files that can never be published.
    pub quarantined: usize,
}

/// The claim on the node's certname.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The certname.
    pub certname: Certname,
    /// What is registered under it.
    pub record: Option<NodeRecord>,
}
