//! `trigger etcd-roles`: the roles and users that an etcd needs, so that each node may do what it has to and no more.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use trigger_core::identity::{Certname, KeyPrefix};
use trigger_core::keyspace::Keyspace;

use super::globals::{Globals, OutputFormat};
use crate::documents::EtcdRoles;
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

/// The user of an etcd that may do everything, by its name.
const ETCD_ADMINISTRATOR: &str = "root";

#[derive(Debug, Args)]
#[command(
    after_help = "An etcd with --client-cert-auth and authentication takes the common name of a client's \
    certificate for its user. The commands make a user without a password for each node, with the role that all nodes of \
    the fleet have and one of its own. They do not switch authentication on. To run them again does no harm."
)]
pub(crate) struct EtcdRolesArgs {
    /// The nodes
    #[arg(value_name = "CERTNAME", required_unless_present_any = ["operators", "registered"])]
    nodes: Vec<String>,
    /// A node that may also read all, and remove what a node that is gone has left; repeat for more
    #[arg(long = "operator", value_name = "CERTNAME")]
    operators: Vec<String>,
    /// Every node whose agent has registered at the backend, besides those that are named
    #[arg(long)]
    registered: bool,
    /// The key prefix of the fleet [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    prefix: Option<KeyPrefix>,
}

pub(crate) async fn run(
    globals: &Globals,
    args: &EtcdRolesArgs,
    warnings: &Warnings,
) -> Result<ExitCode, Failure> {
    let mut nodes = certnames(&args.nodes)?;
    let operators = certnames(&args.operators)?;
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    if args.registered {
        let fleet = globals.fleet(&config, args.prefix.as_ref(), warnings).await?;
        let registered = fleet.nodes().await?.into_keys();
        let (refused, registered): (Vec<_>, Vec<_>) = registered.partition(is_administrator);
        warnings.extend(refused.iter().map(administrator));
        nodes.extend(registered);
    }
    let prefix = args.prefix.clone().map_or_else(|| config.prefix(), Ok)?;
    let roles = EtcdRoles::new(&Keyspace::new(prefix), &nodes, &operators, warnings.take());
    match globals.output {
        OutputFormat::Json => output::document(&roles),
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(roles.warnings());
            output::print_page(roles.script().trim_end());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn certnames(names: &[String]) -> Result<BTreeSet<Certname>, Failure> {
    let certname = |name: &String| match Certname::fold_case(name) {
        Ok(certname) if is_administrator(&certname) => Err(Failure::usage(administrator(&certname))),
        certname => certname.map_err(|error| Failure::usage(error.to_string())),
    };
    names.iter().map(certname).collect()
}

fn is_administrator(certname: &Certname) -> bool {
    certname.as_str() == ETCD_ADMINISTRATOR
}

fn administrator(certname: &Certname) -> String {
    format!(
        "'{certname}' is the name of etcd's administrator, and a node that has it could do everything there: give the \
         node another certname"
    )
}
