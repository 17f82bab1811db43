//! `trigger nodes`: the fleet at a glance.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::Args;
use trigger_core::delivery::DeliveryState;
use trigger_core::duration;
use trigger_core::identity::{Certname, GroupName, KeyPrefix};
use trigger_core::node::{HoldReport, NodeRecord, Presence};
use trigger_core::run::history::PastRun;
use trigger_core::time::Timestamp;
use trigger_fleet::overview::{NodeOverview, Overview};
use trigger_node::clock;

use super::globals::{Globals, OutputFormat};
use crate::documents::{Nodes, OpenDelivery};
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// The nodes to show [default: all that have registered]
    #[arg(value_name = "CERTNAME")]
    certnames: Vec<String>,
    /// Show the members of this group; repeat for more
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Show only nodes whose agent is stopped or silent
    #[arg(long)]
    away: bool,
    /// Show only nodes that an operator holds, or where deliveries are held
    #[arg(long)]
    held: bool,
    /// The key prefix that the agents are registered under [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    prefix: Option<KeyPrefix>,
}

/// Which nodes are shown.
#[derive(Default)]
struct Selection {
    certnames: BTreeSet<Certname>,
    groups: BTreeSet<GroupName>,
    away: bool,
    held: bool,
}

pub(crate) async fn run(
    globals: &Globals,
    args: &NodesArgs,
    warnings: &Warnings,
) -> Result<ExitCode, Failure> {
    let selection = Selection::of(args)?;
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let fleet = globals.fleet(&config, args.prefix.as_ref(), warnings).await?;
    let now = clock::wall();
    let overview = fleet.overview(|certname, node| selection.shows(certname, node, now)).await?;
    if let Some(denied) = &overview.runs_denied {
        warnings.push(format!("the latest runs of other nodes are shown to operators only: {denied}"));
    }
    warnings.extend(overview.unverified.sentences());
    let absent = if selection.has_conditions() { Vec::new() } else { selection.absent(&overview) };
    for certname in &absent {
        warnings.push(format!(
            "no agent has registered as {certname} under {}: 'trigger nodes' lists those that have",
            fleet.prefix()
        ));
    }
    match globals.output {
        OutputFormat::Json => output::document(&Nodes::of(&overview, now, warnings.take())),
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(&warnings.take());
            print(&overview, now, !selection.is_all());
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Selection {
    fn of(args: &NodesArgs) -> Result<Self, Failure> {
        let certnames = args.certnames.iter().map(|name| Certname::fold_case(name));
        let groups = args.groups.iter().map(|name| name.parse());
        let usage = |error: trigger_core::identity::InvalidName| Failure::usage(error.to_string());
        Ok(Self {
            certnames: certnames.collect::<Result<_, _>>().map_err(usage)?,
            groups: groups.collect::<Result<_, _>>().map_err(usage)?,
            away: args.away,
            held: args.held,
        })
    }

    /// A registration that cannot be read has no groups and no state; it is shown where nothing but its name is asked for.
    fn shows(&self, certname: &Certname, node: Option<&NodeRecord>, now: Timestamp) -> bool {
        if !self.certnames.is_empty() && !self.certnames.contains(certname) {
            return false;
        }
        let Some(node) = node else { return !self.has_conditions() };
        (self.groups.is_empty() || node.groups.keys().any(|group| self.groups.contains(group)))
            && (!self.away || node.presence(now) != Presence::Alive)
            && (!self.held || !node.activity.held.is_empty() || is_held(node))
    }

    fn has_conditions(&self) -> bool {
        !self.groups.is_empty() || self.away || self.held
    }

    fn is_all(&self) -> bool {
        self.certnames.is_empty() && !self.has_conditions()
    }

    /// The nodes that were asked for by name and are not there.
    fn absent(&self, overview: &Overview) -> Vec<Certname> {
        let is_there =
            |name: &Certname| overview.nodes.contains_key(name) || overview.unreadable.contains_key(name);
        self.certnames.iter().filter(|name| !is_there(name)).cloned().collect()
    }
}

fn print(overview: &Overview, now: Timestamp, is_selection: bool) {
    if overview.nodes.is_empty() && overview.unreadable.is_empty() {
        return output::print(if is_selection { "No such nodes." } else { "No agent has registered." });
    }
    let mut table = output::table(&[
        "CERTNAME",
        "AGENT",
        "VERSION",
        "LAST RUN",
        "ENDED",
        "CAUSE",
        "GROUPS",
        "HOLD",
        "DELIVERIES",
    ]);
    for (certname, NodeOverview { record, last_run }) in &overview.nodes {
        let run = last_run.as_ref();
        let groups: Vec<&str> = record.groups.keys().map(GroupName::as_str).collect();
        table.add_row([
            certname.to_string(),
            presence(record, now),
            record.version.clone(),
            run.map(|past| past.run.sentence()).unwrap_or_default(),
            run.map(|past| output::short_time(past.run.result.finished_at)).unwrap_or_default(),
            run.map(cause).unwrap_or_default(),
            groups.join(", "),
            record.activity.hold.as_ref().map(hold).unwrap_or_default(),
            deliveries(&OpenDelivery::list(record)),
        ]);
    }
    output::print_table(&table);
    if !overview.unreadable.is_empty() {
        output::print_heading("Registrations that this version cannot read");
        let mut table = output::table(&["CERTNAME", "REASON"]);
        for (certname, reason) in &overview.unreadable {
            table.add_row([certname.to_string(), reason.clone()]);
        }
        output::print_table(&table);
    }
}

fn is_held(node: &NodeRecord) -> bool {
    node.activity.hold.as_ref().is_some_and(|report| report.held.is_some())
}

/// What a node says of orders to hold it.
fn hold(HoldReport { held, refused, .. }: &HoldReport) -> String {
    let held = held.as_ref().map(ToString::to_string);
    let refused = refused.as_ref().map(|order| format!("refuses an order by {}: {}", order.by, order.reason));
    held.into_iter().chain(refused).collect::<Vec<_>>().join("; ")
}

fn presence(record: &NodeRecord, now: Timestamp) -> String {
    match record.presence(now) {
        Presence::Alive => "alive".to_owned(),
        Presence::Stopped => "stopped".to_owned(),
        Presence::Silent(silence) => format!("silent for {}", duration::format_short(silence)),
    }
}

/// What led to a run: its first cause, and the number of the others.
fn cause(past: &PastRun) -> String {
    let Some(first) = past.causes.listed.first() else { return String::new() };
    let others = match past.causes.count() - 1 {
        0 => String::new(),
        others => format!(" and {}", output::count(others, "more event")),
    };
    format!("{} from {}{others}", first.trigger, first.origin)
}

/// The deliveries of a node by state and reason, each with its number.
fn deliveries(open: &[OpenDelivery]) -> String {
    let mut kinds: BTreeMap<(&str, Option<&str>), usize> = BTreeMap::new();
    for delivery in open {
        let state: DeliveryState = delivery.state.0;
        *kinds.entry((state.as_str(), delivery.reason.as_deref())).or_default() += 1;
    }
    let words = kinds.into_iter().map(|((state, reason), number)| match reason {
        Some(reason) => format!("{number} {state}: {reason}"),
        None => format!("{number} {state}"),
    });
    words.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{NOON, registration};
    use trigger_core::node::HeldNode;

    const NOW: Timestamp = Timestamp::from_unix_ms(NOON);

    fn shows(selection: &Selection, certname: &str, node: Option<&NodeRecord>) -> bool {
        selection.shows(&certname.parse().unwrap(), node, NOW)
    }

    #[test]
    fn nodes_are_selected_by_name_group_and_state() {
        let node = registration(&["lb"]);
        let all = Selection::default();
        assert!(shows(&all, "a", Some(&node)) && shows(&all, "a", None));
        let named = Selection { certnames: ["a".parse().unwrap()].into(), ..Selection::default() };
        assert!(shows(&named, "a", None) && !shows(&named, "b", Some(&node)));
        let group = |name: &str| Selection { groups: [name.parse().unwrap()].into(), ..Selection::default() };
        assert!(shows(&group("lb"), "a", Some(&node)));
        assert!(!shows(&group("web"), "a", Some(&node)) && !shows(&group("lb"), "a", None));
        let away = Selection { away: true, ..Selection::default() };
        assert!(!shows(&away, "a", Some(&node)));
        let silent = NodeRecord { seen_at: Timestamp::from_unix_ms(NOON - 3_600_000), ..node.clone() };
        assert!(shows(&away, "a", Some(&silent)));
        assert!(shows(&away, "a", Some(&NodeRecord { released: true, ..node.clone() })));
        assert_eq!(presence(&silent, NOW), "silent for 1h");
        let held = Selection { held: true, ..Selection::default() };
        assert!(shows(&held, "a", Some(&node)));
        let mut idle = NodeRecord { activity: Default::default(), ..node };
        assert!(!shows(&held, "a", Some(&idle)));
        let shown = HeldNode { until: NOW, by: "ops01".parse().unwrap(), reason: None };
        idle.activity.hold = Some(HoldReport { accepted: Some(1), held: Some(shown), refused: None });
        assert!(shows(&held, "a", Some(&idle)));
    }

    #[test]
    fn equal_deliveries_are_counted() {
        let open = OpenDelivery::list(&registration(&[]));
        assert_eq!(deliveries(&open), "2 held: Puppet is disabled; 1 running");
        assert_eq!(deliveries(&[]), "");
    }
}
