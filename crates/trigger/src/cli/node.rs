//! `trigger node forget`: removes a node that is gone.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use trigger_core::identity::{Certname, KeyPrefix};
use trigger_core::node::Presence;
use trigger_fleet::forgetting::Forgotten;
use trigger_node::clock;
use trigger_node::state::StateDir;

use super::globals::{Globals, OutputFormat, start_audit};
use crate::config::run_command;
use crate::documents::ForgottenNode;
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Remove a node that is gone: what waits for it ends as expired, and its registration is deleted
    Forget {
        /// The node
        // Not `certname`, which is the id of the setting of this node.
        #[arg(value_name = "CERTNAME")]
        node: String,
        /// The key prefix that the agents are registered under [default: /puppet_trigger/events]
        #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
        prefix: Option<KeyPrefix>,
    },
}

pub(crate) async fn run(
    globals: &Globals,
    args: &NodeArgs,
    warnings: &Warnings,
) -> Result<ExitCode, Failure> {
    let Action::Forget { node, prefix } = &args.action;
    let certname = Certname::fold_case(node).map_err(|error| Failure::usage(error.to_string()))?;
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let state = StateDir::open_existing(&globals.state_dir(&config)?).ok().flatten();
    let command = run_command(config.run_cmd.as_deref())?;
    let operator = globals.resolve_certname(&config, state.as_ref(), &command).await?;
    let fleet = globals.fleet(&config, prefix.as_ref(), warnings).await?.acting_as(operator.clone());
    if let Some(record) = fleet.node(&certname).await?
        && record.presence(clock::wall()) == Presence::Alive
    {
        return Err(Failure::failed(format!(
            "{certname} is not gone: its agent has renewed its registration a moment ago ({}): stop it there first",
            record.location
        )));
    }
    start_audit(&config)?;
    let forgotten = fleet.forget(&certname, &format!("{certname} was removed by {operator}")).await?;
    audit(&operator, &certname, &forgotten);
    print(globals.output, &certname, &forgotten, warnings);
    Ok(ExitCode::SUCCESS)
}

/// Notes in the audit who removed which node, and what ended by that.
fn audit(operator: &Certname, certname: &Certname, forgotten: &Forgotten) {
    let uid = rustix::process::getuid().as_raw();
    tracing::info!(
        target: "audit",
        action = "forget",
        decision = "accepted",
        certname = %operator,
        node = %certname,
        events = forgotten.expired.len(),
        uid,
    );
    for event in &forgotten.expired {
        let reason = format!("{certname} was removed by {operator}");
        tracing::info!(target: "audit", action = "end", certname = %certname, %event, state = "expired", reason);
    }
}

fn print(format: OutputFormat, certname: &Certname, forgotten: &Forgotten, warnings: &Warnings) {
    match format {
        OutputFormat::Json => output::document(&ForgottenNode::of(certname, forgotten, warnings.take())),
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(&warnings.take());
            output::print(&sentence(certname, forgotten));
        }
    }
}

fn sentence(certname: &Certname, Forgotten { expired, was_registered }: &Forgotten) -> String {
    let registration = if *was_registered { "its registration is deleted" } else { "it was not registered" };
    let events = match expired.len() {
        0 => "nothing waited for it".to_owned(),
        number => format!("{} expired", output::count(number, "delivery")),
    };
    format!("Removed {certname}: {registration}, and {events}.")
}
