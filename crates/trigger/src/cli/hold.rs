//! `trigger hold` and `trigger release`: keep an agent from starting runs for a time, and let it start them again.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use trigger_core::duration;
use trigger_core::holds::{Demand, MAX_HOLD, MAX_REASON_CHARS};
use trigger_core::identity::{Certname, GroupName, InvalidName, KeyPrefix};
use trigger_core::node::NodeRecord;
use trigger_fleet::Fleet;
use trigger_fleet::holding::GivenOrders;
use trigger_node::clock;
use trigger_node::state::StateDir;

use super::globals::{Globals, OutputFormat, start_audit};
use crate::config::run_command;
use crate::documents::{HoldOrders, OrderState, OrderedNode};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::warnings::Warnings;

/// How often the registrations are read while the nodes answer.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    nodes: NodeArgs,
    /// For how long: at most 7 days from when it is given
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse, allow_negative_numbers = true)]
    lasts: Duration,
    /// Why: one line that every node of the fleet may read
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    rest: RestArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    nodes: NodeArgs,
    #[command(flatten)]
    rest: RestArgs,
}

/// Which nodes.
#[derive(Debug, Args)]
struct NodeArgs {
    /// The nodes
    #[arg(value_name = "CERTNAME")]
    certnames: Vec<String>,
    /// The nodes that are registered as members of this group now: each gets an order of its own, and one that joins later
    /// gets none; repeat for more
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
}

#[derive(Debug, Args)]
struct RestArgs {
    /// How long to wait until the nodes say whether they take the order
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse, allow_negative_numbers = true)]
    timeout: Duration,
    /// The key prefix that the agents are registered under [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    prefix: Option<KeyPrefix>,
}

/// The nodes that are wanted, each with its registration, if there is one.
type Wanted = BTreeMap<Certname, Option<NodeRecord>>;

pub(crate) async fn hold(
    globals: &Globals,
    args: &HoldArgs,
    warnings: &Warnings,
) -> Result<ExitCode, Failure> {
    let HoldArgs { nodes, lasts, reason, rest } = args;
    if *lasts < Duration::from_secs(1) || *lasts > MAX_HOLD {
        let most = duration::format_short(MAX_HOLD);
        return Err(Failure::usage(format!(
            "--for takes a second at least and {most} at most: hold the node again where it is to be held for longer"
        )));
    }
    let demand = Demand::hold(*lasts, Some(reason));
    match &demand {
        Demand::Hold { reason: None, .. } => {
            return Err(Failure::usage("--reason is empty: say why, for those who wonder why nothing runs"));
        }
        Demand::Hold { .. } if reason.chars().count() > MAX_REASON_CHARS => {
            warnings.push(format!("the reason is cut to {MAX_REASON_CHARS} characters"));
        }
        _ => {}
    }
    order(globals, nodes, rest, &demand, warnings).await
}

pub(crate) async fn release(
    globals: &Globals,
    args: &ReleaseArgs,
    warnings: &Warnings,
) -> Result<ExitCode, Failure> {
    order(globals, &args.nodes, &args.rest, &Demand::Release, warnings).await
}

async fn order(
    globals: &Globals,
    nodes: &NodeArgs,
    rest: &RestArgs,
    demand: &Demand,
    warnings: &Warnings,
) -> Result<ExitCode, Failure> {
    let usage = |error: InvalidName| Failure::usage(error.to_string());
    let certnames = nodes.certnames.iter().map(|name| Certname::fold_case(name));
    let certnames: BTreeSet<Certname> = certnames.collect::<Result<_, _>>().map_err(usage)?;
    let groups = nodes.groups.iter().map(|name| name.parse());
    let groups: BTreeSet<GroupName> = groups.collect::<Result<_, _>>().map_err(usage)?;
    if certnames.is_empty() && groups.is_empty() {
        return Err(Failure::usage("name a node, or a group with --group"));
    }
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let state = StateDir::open_existing(&globals.state_dir(&config)?).ok().flatten();
    let command = run_command(config.run_cmd.as_deref())?;
    let by = globals.resolve_certname(&config, state.as_ref(), &command).await?;
    let fleet = globals.fleet(&config, rest.prefix.as_ref(), warnings).await?.acting_as(by.clone());
    let wanted = wanted(&fleet, &certnames, &groups, warnings).await?;
    start_audit(&config)?;
    let GivenOrders { numbers, failed } = fleet.order_hold(&wanted, demand, clock::wall()).await?;
    audit(&by, &numbers, demand);
    warnings.extend(failed.iter().map(|(node, error)| format!("{node} has got no order: {error}")));
    let ordered = follow(&fleet, &by, &numbers, rest.timeout, warnings).await;
    let counts = |node: &OrderedNode| !matches!(node.state, OrderState::Refused | OrderState::Replaced);
    let is_done = failed.is_empty() && ordered.iter().all(counts);
    print(globals.output, ordered, warnings);
    Ok(if is_done { ExitCode::SUCCESS } else { Exit::Failed.into() })
}

/// The nodes that are named, and the registered members of the groups.
async fn wanted(
    fleet: &Fleet,
    certnames: &BTreeSet<Certname>,
    groups: &BTreeSet<GroupName>,
    warnings: &Warnings,
) -> Result<Wanted, Failure> {
    let registered = fleet.registered_targets(&certnames.iter().collect()).await?;
    for (certname, nearest) in &registered.unregistered {
        let meant = nearest.as_ref().map(|nearest| format!(" (did you mean {nearest}?)")).unwrap_or_default();
        warnings.push(format!(
            "no agent has registered as {certname}{meant}: the order waits there, and counts once one has, until its time is over"
        ));
    }
    let mut wanted: Wanted = fleet.nodes_among(&certnames.iter().collect::<Vec<_>>()).await?;
    if !groups.is_empty() {
        let nodes = fleet.nodes().await?;
        for group in groups {
            if !nodes.values().any(|node| node.groups.contains_key(group)) {
                return Err(Failure::failed(format!(
                    "no registered node belongs to the group {group}: 'trigger nodes' shows the groups of each; no order was given"
                )));
            }
        }
        let members = nodes.into_iter().filter(|(_, node)| node.groups.keys().any(|it| groups.contains(it)));
        wanted.extend(members.map(|(certname, node)| (certname, Some(node))));
    }
    Ok(wanted)
}

/// Reads the registrations until each of the nodes has said whether it takes the order, or the time is over.
async fn follow(
    fleet: &Fleet,
    by: &Certname,
    numbers: &BTreeMap<Certname, u64>,
    timeout: Duration,
    warnings: &Warnings,
) -> Vec<OrderedNode> {
    let certnames: Vec<&Certname> = numbers.keys().collect();
    let started = Instant::now();
    loop {
        let (registered, error) = match fleet.nodes_among(&certnames).await {
            Ok(registered) => (registered, None),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        let answer = |(certname, number): (&Certname, &u64)| {
            let record = registered.get(certname).and_then(Option::as_ref);
            OrderedNode::of(certname, *number, by, record.and_then(|record| record.activity.hold.as_ref()))
        };
        let nodes: Vec<OrderedNode> = numbers.iter().map(answer).collect();
        let waits = nodes.iter().any(|node| node.state == OrderState::Pending);
        if !waits || error.is_some() || started.elapsed() >= timeout {
            // The orders stand.
            warnings.extend(
                error.map(|error| format!("what the nodes say of their orders cannot be read: {error}")),
            );
            return nodes;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Notes in the audit who has ordered what.
fn audit(by: &Certname, numbers: &BTreeMap<Certname, u64>, demand: &Demand) {
    let uid = rustix::process::getuid().as_raw();
    let (action, lasts_seconds, reason) = demand.audited();
    for (node, number) in numbers {
        tracing::info!(
            target: "audit",
            action,
            decision = "asked",
            %node,
            %by,
            number,
            lasts_seconds,
            reason,
            uid,
        );
    }
}

fn print(format: OutputFormat, nodes: Vec<OrderedNode>, warnings: &Warnings) {
    if nodes.iter().any(|node| node.state == OrderState::Pending) {
        warnings.push(
            "not every node has answered yet: an agent that is off takes its order when it is back, unless its time is over then",
        );
    }
    match format {
        OutputFormat::Json => output::document(&HoldOrders { nodes, warnings: warnings.take() }),
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(&warnings.take());
            let mut table = output::table(&["CERTNAME", "STATE", "UNTIL", "REASON"]);
            for node in &nodes {
                table.add_row([
                    node.certname.0.to_string(),
                    node.state.as_str().to_owned(),
                    node.until.map(|until| until.0.date_and_time()).unwrap_or_default(),
                    node.reason.clone().unwrap_or_default(),
                ]);
            }
            output::print_table(&table);
        }
    }
}
