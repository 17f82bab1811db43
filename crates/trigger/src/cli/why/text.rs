//! The chain as text for people: from the run or event that was asked about down to the roots.

use std::collections::BTreeSet;
use std::time::Duration;

use trigger_core::delivery::DeliveryState;
use trigger_core::event::{FiredBy, Target};
use trigger_core::identity::{Certname, Environment, EventId, RunId, Tag};
use trigger_core::lineage::{Chain, Lineage};
use trigger_core::run::history::FiredEvent;
use trigger_core::run::{CompletedRun, RunResult};
use trigger_core::status::{DeliveryRun, DeliveryStatus};
use trigger_core::why::{EventStep, Explanation, Question, RunState, RunStep};
use trigger_fleet::status::EventStatus;

use super::answer::Answer;
use super::tree::Branch;
use crate::cli::target_counts;
use crate::output::{count, one_line, short_time};
use crate::silence;

/// The most targets of an event that are listed; the others are counted.
const MAX_TARGETS: usize = 16;
/// The most kinds of events that are listed where events are only named; the others are counted.
const MAX_KINDS: usize = 5;
/// The most events of a run's own fires that are listed; the others are counted.
const MAX_FIRES: usize = 8;
/// The most chains of an event's lineage that are listed; the others are counted.
const MAX_CHAINS: usize = 3;

/// The text, in lines of at most `width` characters where words allow it.
pub(super) fn page(answer: &Answer, width: usize) -> String {
    let asked_for = match answer.question {
        Question::Run(..) => None,
        Question::Event(event) => Some(event),
    };
    let mut page = Page { explanation: &answer.explanation, asked_for, described: BTreeSet::new() };
    let mut tree = match &answer.question {
        Question::Run(..) => answer.explanation.runs.first().map(|run| page.run(run, true)),
        Question::Event(_) => answer.explanation.events.first().map(|event| page.event(event, "")),
    }
    .unwrap_or_default();
    if let Some(status) = &answer.event {
        tree.below.extend(targets(status));
    }
    tree.render(width)
}

struct Page<'a> {
    explanation: &'a Explanation,
    asked_for: Option<EventId>,
    /// Runs that have been described already. Where two chains meet, the rest is described once.
    described: BTreeSet<RunId>,
}

impl Page<'_> {
    fn run(&mut self, step: &RunStep, is_asked_for: bool) -> Branch {
        let mut branch = Branch::of(run_lines(step));
        if !self.described.insert(step.run_id) {
            branch.lines.push("(described above)".to_owned());
            return branch;
        }
        for &cause in &step.causes.listed {
            if let Some(event) = self.explanation.event(cause).filter(|event| event.is_followed) {
                branch.below.push(self.event(event, "because of "));
            }
        }
        branch.below.extend(merged(self.explanation, step));
        branch.below.extend(fires(step, is_asked_for, self.asked_for));
        branch
    }

    fn event(&mut self, step: &EventStep, lead: &str) -> Branch {
        let Some(what) = &step.what else {
            return Branch::of([
                format!("{lead}event {}", step.id),
                "which has been swept, so nothing more is known of it".to_owned(),
            ]);
        };
        let fired = format!("'{}', fired on {} at {}", what.trigger, what.origin, short_time(what.fired_at));
        let root = match &what.fired_by {
            _ if !step.is_root() => "",
            Some(FiredBy::Resource(_)) => ", the root: fired in a Puppet run that Trigger did not start",
            Some(FiredBy::RetryOf(_)) | None => ", the root: fired outside any run",
        };
        let mut branch = Branch::of([format!("{lead}{fired}"), format!("event {}{root}", step.id)]);
        branch.lines.extend(what.fired_by.as_ref().map(|fired_by| format!("by {fired_by}")));
        let run = what.fired_in.and_then(|run| self.explanation.run(run));
        match run {
            Some(run) if run.state == RunState::Gone => {
                let (run, certname) = (run.run_id, &run.certname);
                branch.lines.push(format!("fired in run {run} of {certname}, which is no longer on record"));
                branch.lines.extend(step.lineage.iter().flat_map(lineage_lines));
            }
            Some(run) => branch.below.push(self.run(run, false)),
            None if step.is_root() => {}
            None => branch.lines.extend(step.lineage.iter().flat_map(lineage_lines)),
        }
        branch
    }
}

fn run_lines(step: &RunStep) -> Vec<String> {
    let certname = &step.certname;
    let (sentence, limits, reason) = match &step.state {
        RunState::Running { started_at, seen_at } => {
            let silence =
                silence::sentence(*seen_at).map_or_else(String::new, |silence| format!("; {silence}"));
            let since = short_time(*started_at);
            (format!("{certname} has been running since {since}{silence}"), None, None)
        }
        RunState::Ended { run, tags, environment } => {
            let started_at = short_time(run.result.started_at);
            let sentence = format!("{certname} ran at {started_at}: {}", outcome(run));
            let limits = format!("{}{}", within(environment.as_ref()), tagged(tags));
            (sentence, Some(limits), run.result.reason.clone())
        }
        RunState::Gone => (format!("{certname} ran; the run is no longer on record"), None, None),
    };
    let lines = [sentence, format!("run {}{}", step.run_id, limits.unwrap_or_default())];
    lines.into_iter().chain(reason.as_deref().map(one_line)).collect()
}

pub(super) fn outcome(run: &CompletedRun) -> String {
    format!("{}, {:.1}s", run.sentence(), took(&run.result).as_secs_f64())
}

fn took(result: &RunResult) -> Duration {
    result.finished_at.since(result.started_at)
}

fn within(environment: Option<&Environment>) -> String {
    environment.map_or_else(String::new, |name| format!(", in the environment {name}"))
}

fn tagged(tags: &BTreeSet<Tag>) -> String {
    if tags.is_empty() {
        return String::new();
    }
    let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
    format!(", limited to {}", tags.join(", "))
}

/// The causes of a run that are not followed.
fn merged(explanation: &Explanation, step: &RunStep) -> Vec<Branch> {
    let (kinds, unnamed) = explanation.merged(step);
    let total = unnamed + kinds.iter().map(|(_, count)| count).sum::<usize>();
    let mut branches = Vec::new();
    if total > 0 {
        let mut shared = Branch::of([format!("and {} that shared the run", count(total, "more event"))]);
        shared.below.extend(kinds.iter().take(MAX_KINDS).map(|((trigger, origin, _), count)| {
            Branch::of([format!("{count} of '{trigger}', fired on {origin}")])
        }));
        let others = unnamed + kinds.iter().skip(MAX_KINDS).map(|(_, count)| count).sum::<usize>();
        if others > 0 {
            shared.below.push(Branch::of([count(others, "other")]));
        }
        branches.push(shared);
    }
    if step.superseded > 0 {
        let superseded = count(step.superseded, "earlier event");
        branches.push(Branch::of([format!("and {superseded} of a backlog that later ones superseded")]));
    }
    branches
}

/// The events that were fired in a run. Those with suppressed targets come first; the others are listed only for the run
/// that was asked about. The event that was asked about is skipped, because its targets are listed at the end.
fn fires(step: &RunStep, is_asked_for: bool, event: Option<EventId>) -> Vec<Branch> {
    let listed = step.fired.listed.iter().filter(|fired| Some(fired.event) != event);
    let (cut, whole): (Vec<_>, Vec<_>) = listed.partition(|fired| fired.suppressed.count() > 0);
    let whole = whole.into_iter().filter(|_| is_asked_for);
    let mut branches: Vec<Branch> = cut.into_iter().chain(whole).map(fired_branch).collect();
    let hidden = branches.len().saturating_sub(MAX_FIRES);
    branches.truncate(MAX_FIRES);
    let more = hidden + if is_asked_for { step.fired.more } else { 0 };
    if more > 0 {
        branches.push(Branch::of([format!("and it fired {}", count(more, "more event"))]));
    }
    branches
}

fn fired_branch(fired: &FiredEvent) -> Branch {
    let mut branch = Branch::of([format!("it fired '{}'", fired.trigger), format!("event {}", fired.event)]);
    branch.below.extend(fired.suppressed.listed.iter().map(|suppressed| {
        let target = match &suppressed.target {
            Target::Node(certname) => certname.to_string(),
            Target::Group(group) => format!("the group {group}"),
        };
        Branch::of([format!("suppressed at {target}: {}", suppressed.reason)])
    }));
    if fired.suppressed.more > 0 {
        let more = count(fired.suppressed.more, "more target");
        branch.below.push(Branch::of([format!("suppressed at {more}: trigger status {}", fired.event)]));
    }
    branch
}

/// The chains that an event itself carries, each from its root on.
fn lineage_lines(lineage: &Lineage) -> Vec<String> {
    let words = |chain: &Chain| {
        let hops: Vec<String> =
            chain.hops.iter().map(|hop| format!("'{}' → {}", hop.trigger, hop.certname)).collect();
        format!("the event's own lineage: {} (root event {})", hops.join(", "), chain.root)
    };
    let mut lines: Vec<String> = lineage.chains.iter().take(MAX_CHAINS).map(words).collect();
    if lineage.chains.len() > MAX_CHAINS {
        lines.push(format!("and {}", count(lineage.chains.len() - MAX_CHAINS, "more chain")));
    }
    lines
}

/// An event's deliveries, unsuccessful ones first, so that those are listed rather than counted.
pub(super) fn worst_first(status: &EventStatus) -> Vec<(&Certname, &DeliveryStatus)> {
    let mut targets: Vec<(&Certname, &DeliveryStatus)> = status.targets.iter().collect();
    targets.sort_by_key(|(_, target)| (target.state == DeliveryState::Done, target.state.is_success()));
    targets
}

/// The states of the event's deliveries.
fn targets(status: &EventStatus) -> Vec<Branch> {
    let targets = worst_first(status);
    let mut branches: Vec<Branch> =
        targets.iter().take(MAX_TARGETS).map(|(certname, target)| target_branch(certname, target)).collect();
    if targets.len() > MAX_TARGETS {
        let all = target_counts::sentence(status);
        let more = targets.len() - MAX_TARGETS;
        branches.push(Branch::of([format!(
            "and {more} more ({all} in all): trigger status {}",
            status.event.id
        )]));
    }
    branches
}

fn target_branch(certname: &Certname, target: &DeliveryStatus) -> Branch {
    let ran = match &target.run {
        Some(DeliveryRun::Ended(run)) => format!("{} at {}", outcome(run), short_time(run.result.started_at)),
        Some(DeliveryRun::Running(running)) => format!("since {}", short_time(running.started_at)),
        None => String::new(),
    };
    let words: Vec<String> = [ran]
        .into_iter()
        .filter(|word| !word.is_empty())
        .chain(silence::reason(target).as_deref().map(one_line))
        .collect();
    let words = if words.is_empty() { String::new() } else { format!(": {}", words.join("; ")) };
    let lines = [format!("at {certname} {}{words}", target.state)];
    let run = target.run.as_ref().map(|run| format!("run {}", run.run_id()));
    Branch::of(lines.into_iter().chain(run))
}
