//! The arguments of `trigger fire`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use trigger_core::duration;
use trigger_core::identity::EventId;
use trigger_core::lineage::Loops;
use trigger_core::loop_guard::{DEFAULT_TTL, MAX_TTL};

#[derive(Debug, Args)]
pub(crate) struct FireArgs {
    /// The trigger's name
    #[arg(required_unless_present = "retry")]
    pub(super) name: Option<String>,
    /// A node to run Puppet on; repeat for more
    #[arg(long = "host", value_name = "CERTNAME")]
    pub(super) hosts: Vec<String>,
    /// A file with a certname on each line ('-' is standard input)
    #[arg(long, value_name = "FILE")]
    pub(super) hosts_from: Option<PathBuf>,
    /// A group of nodes to run Puppet on; repeat for more
    #[arg(long = "group", value_name = "GROUP")]
    pub(super) groups: Vec<String>,
    // As an attribute: in a comment, rustdoc takes the query's brackets for a link.
    #[arg(
        long,
        value_name = "PQL",
        help = "The active nodes that PuppetDB finds for this query, such as 'nodes[certname] { … }' in PQL; asked once, now"
    )]
    pub(super) query: Option<String>,
    /// Fire an earlier event again, for the nodes where it failed, expired or was cancelled, with its name and options
    #[arg(long, value_name = "EVENT", conflicts_with_all = ["name", "hosts", "hosts_from", "groups", "query", "tags", "noop", "environment", "loops", "resource"])]
    pub(super) retry: Option<EventId>,
    /// Limit the runs to resources with this tag; repeat for more
    #[arg(long = "tag", value_name = "TAG")]
    pub(super) tags: Vec<String>,
    /// Let Puppet report what it would change, and change nothing
    #[arg(long)]
    pub(super) noop: bool,
    /// The environment of Puppet's to run in, where the nodes' rules allow it [default: each node's own]
    #[arg(long, value_name = "NAME")]
    pub(super) environment: Option<String>,
    /// The most hops that a chain of triggers may have, at most 64
    #[arg(long, value_name = "HOPS", default_value_t = DEFAULT_TTL, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TTL)), allow_negative_numbers = true)]
    pub(super) ttl: u32,
    /// Whether this trigger may make a node run again in the same chain
    #[arg(long, value_name = "WHETHER", default_value = "avoid")]
    pub(super) loops: LoopsChoice,
    /// How long a node that is away may still catch up, at most 7d [default: 1d]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_negative_numbers = true)]
    pub(super) expires_in: Option<Duration>,
    /// The key prefix that the agents are registered under [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    pub(super) prefix: Option<String>,
    /// The path of the Puppet resource that fires, for 'trigger why'; the Puppet module gives it
    #[arg(long, value_name = "PATH", hide = true)]
    pub(super) resource: Option<String>,
    /// The manifest that declares the resource
    #[arg(long, value_name = "FILE", hide = true, requires = "resource")]
    pub(super) resource_file: Option<String>,
    /// The line of the declaration
    #[arg(long, value_name = "LINE", hide = true, requires = "resource_file")]
    pub(super) resource_line: Option<u32>,
    /// The uuid of the catalog with which the resource fires: targets wait until PuppetDB has stored it
    #[arg(long, value_name = "UUID", hide = true, requires = "resource")]
    pub(super) catalog: Option<String>,
    /// Wait for the outcome of every node; fail unless all succeed
    #[arg(long)]
    pub(super) wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse, requires = "wait", allow_negative_numbers = true)]
    pub(super) timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LoopsChoice {
    /// No: the node is suppressed, with a warning
    Avoid,
    /// Yes: the chain ends by its --ttl, or after three fires of this trigger on a node
    Allow,
}

impl From<LoopsChoice> for Loops {
    fn from(choice: LoopsChoice) -> Self {
        match choice {
            LoopsChoice::Avoid => Self::Avoid,
            LoopsChoice::Allow => Self::Allow,
        }
    }
}
