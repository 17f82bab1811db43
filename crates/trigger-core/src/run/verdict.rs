//! The outcome of a run, from its report, its exit and its output (C9).
//!
//! For Puppet, the report decides and never an exit code alone. Exit code 1 may mean that the lock was held, that the
//! wait for it was over, that Puppet is disabled, that there was no catalog, or that an error in a provider ended Puppet
//! on the way; and a run that was stopped half-way exits with 0. Puppet's output explains the outcome. It decides only
//! where nothing else shows that a signal ended the run.

use crate::run::command::CommandKind;
use crate::run::report::ReportSummary;
use crate::run::{Drift, RunOutcome};

/// The most characters of Puppet's own output in a reason, which is stored with the outcome.
const MAX_QUOTE_CHARS: usize = 300;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The process exited with this code.
    Code(i32),
    /// This signal ended the process.
    Signal(i32),
}

/// The verdict on a run: its outcome, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The outcome.
    pub outcome: RunOutcome,
    /// Why the run has this outcome, as a sentence where the outcome needs one.
    pub reason: Option<String>,
    /// Whether Puppet reports a noop run, because the event asked for it or because of the node's own settings.
    pub reported_noop: bool,
    /// What Puppet reports of changes and of pending ones.
    pub drift: Drift,
}

impl Verdict {
    /// A verdict without a report.
    pub fn new(outcome: RunOutcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: Some(reason.into()), reported_noop: false, drift: Drift::default() }
    }

    /// Adds what the outcome alone does not say: that no event asked for the noop run, that a noop run changed
    /// something, and that a run left something pending. `asked_noop` is whether the events asked for noop.
    #[must_use]
    pub fn explaining_noop(self, asked_noop: bool) -> Self {
        let Drift { noop_pending, really_changed } = self.drift;
        let has_changed = really_changed == Some(true);
        let sentence = match (self.reported_noop, asked_noop) {
            (true, false) if has_changed => Some(
                "this node's own settings made it a noop run: only resources with noop => false were changed",
            ),
            (true, false) => Some("this node's own settings made it a noop run: nothing was changed"),
            (true, true) if has_changed => Some("resources with noop => false were changed in this noop run"),
            (false, _) if noop_pending == Some(true) => {
                Some("resources with noop => true were not changed: their changes are pending")
            }
            _ => None,
        };
        self.with_sentence(sentence.map(str::to_owned))
    }

    /// Adds what limited a run that applied a catalog; see [`RunCommand::limits`](crate::run::command::RunCommand::limits).
    #[must_use]
    pub fn of_a_limited_run(self, limits: Option<String>) -> Self {
        let has_applied =
            matches!(self.outcome, RunOutcome::Unchanged | RunOutcome::Changed | RunOutcome::Failed);
        self.with_sentence(limits.filter(|_| has_applied))
    }

    fn with_sentence(mut self, sentence: Option<String>) -> Self {
        self.reason = match (self.reason, sentence) {
            (Some(reason), Some(sentence)) => Some(format!("{reason}; {sentence}")),
            (reason, sentence) => reason.or(sentence),
        };
        self
    }
}

/// The verdict on a run that ended by itself (C9). `report` is the report that is certainly this run's (it has the run's
/// job id, or was where only this run writes one), or the reason why there is none. `output` is what the run printed.
pub fn judge(kind: CommandKind, exit: Exit, report: Result<&ReportSummary, &str>, output: &str) -> Verdict {
    match (kind, exit, report) {
        (CommandKind::Other, Exit::Signal(signal), _) => interrupted(signal),
        (CommandKind::Other, Exit::Code(code), _) => {
            let outcome = if code == 0 { RunOutcome::Changed } else { RunOutcome::Failed };
            Verdict::new(outcome, format!("not Puppet: judged by its exit code {code} alone"))
        }
        (_, _, Ok(report)) => by_report(report, exit, output),
        (_, Exit::Signal(signal), Err(_)) => interrupted(signal),
        (_, Exit::Code(code), Err(why)) => without_report(kind, code, why, output),
    }
}

fn interrupted(signal: i32) -> Verdict {
    Verdict::new(RunOutcome::Interrupted, format!("ended by signal {signal}"))
}

fn by_report(report: &ReportSummary, exit: Exit, output: &str) -> Verdict {
    let (outcome, reason) = match (report.outcome(), exit) {
        (None, _) => cut_short(report, exit, output),
        (Some(RunOutcome::Failed), _) => {
            (RunOutcome::Failed, Some("resources failed: see the run's output".to_owned()))
        }
        (Some(RunOutcome::Unknown), _) => {
            (RunOutcome::Unknown, Some("its report has an unknown status: see the run's output".to_owned()))
        }
        // Something after the catalog failed, such as the `postrun_command`.
        (Some(outcome), Exit::Code(1)) => {
            (outcome, Some(explained("the catalog was applied, but Puppet ended with exit code 1", output)))
        }
        (Some(outcome), _) => (outcome, None),
    };
    Verdict { outcome, reason, reported_noop: report.noop, drift: report.drift() }
}

/// The outcome where no catalog was applied to its end: Puppet was stopped, failed on the way, or had no catalog.
fn cut_short(report: &ReportSummary, exit: Exit, output: &str) -> (RunOutcome, Option<String>) {
    let (outcome, reason) = match (exit, signal_in(output)) {
        (Exit::Signal(signal), _) => (RunOutcome::Interrupted, format!("ended by signal {signal}")),
        // When `puppet agent` is stopped by a signal, it exits with 0.
        (Exit::Code(0), _) => {
            (RunOutcome::Interrupted, "Puppet was stopped before its catalog was applied".to_owned())
        }
        (_, Some(signal)) => (RunOutcome::Interrupted, format!("ended by {signal}")),
        // Something may have been changed. Another run would probably fail at the same place, again and again.
        _ if report.catalog_uuid.is_some() => {
            (RunOutcome::Failed, explained("the catalog was not applied to its end", output))
        }
        _ => (RunOutcome::NotRun, explained("no catalog was applied", output)),
    };
    (outcome, Some(reason))
}

fn without_report(kind: CommandKind, code: i32, why: &str, output: &str) -> Verdict {
    if let (1, Some(signal)) = (code, signal_in(output)) {
        return Verdict::new(RunOutcome::Interrupted, format!("ended by {signal}"));
    }
    match (kind, code) {
        (_, 1) => Verdict::new(RunOutcome::NotRun, explained("Puppet did not run", output)),
        // Probably it was stopped before it had a report to write. One repetition costs less than a lost event.
        (CommandKind::PuppetAgent, 0) => Verdict::new(
            RunOutcome::Interrupted,
            format!("Puppet left no report, as when it is stopped before its run ({why})"),
        ),
        // A shell around Puppet reports the signal that ended it in this way.
        (_, 129..=192) => interrupted(code - 128),
        _ => Verdict::new(RunOutcome::Unknown, format!("exit code {code}, but {why}")),
    }
}

/// A sentence about what did not happen, with the line of Puppet's output that explains it.
fn explained(what: &str, output: &str) -> String {
    match explaining_line(output) {
        Some(line) => format!("{what}: {line} (see the run's output)"),
        None => format!("{what}: see the run's output"),
    }
}

/// The line of Puppet's output that explains why it did nothing. This is its first error, since later errors follow from
/// it, or else its last notice, by which Puppet reports locks. Errors of Facter are ignored: it reports some in every
/// container.
fn explaining_line(output: &str) -> Option<String> {
    let mut errors = output.lines().filter_map(|line| line.strip_prefix("Error: "));
    let error = errors.find(|line| !line.starts_with("Facter:"));
    let line = error.or_else(|| output.lines().rev().find_map(|line| line.strip_prefix("Notice: ")))?;
    let line = line.trim().trim_end_matches([';', '.']);
    let mut short: String = line.chars().take(MAX_QUOTE_CHARS).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    Some(short)
}

/// The signal that ended Puppet according to its output, where its exit code does not show it.
///
/// `puppet apply` reports a signal as an error and exits with 1: `Error: Could not run: SIGTERM`, or an error of the
/// resource at which it was, with the same end. The words before the signal may be translated. At SIGINT it prints
/// `Exiting` alone. `puppet agent` prints `Caught TERM; exiting`, which is never translated, and exits with 1 instead of
/// 0 where its `postrun_command` fails.
fn signal_in(output: &str) -> Option<&str> {
    output.lines().rev().find_map(|line| {
        if line == "Exiting" {
            return Some("SIGINT");
        }
        match line.strip_prefix("Notice: Caught ").and_then(|caught| caught.strip_suffix("; exiting")) {
            Some("TERM") => Some("SIGTERM"),
            Some("INT") => Some("SIGINT"),
            Some(_) => None,
            None => signal_at_end(line.strip_prefix("Error: ")?),
        }
    })
}

fn signal_at_end(error: &str) -> Option<&str> {
    let (_, name) = error.trim_end().rsplit_once(": ")?;
    let letters = name.strip_prefix("SIG")?;
    (!letters.is_empty() && letters.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()))
        .then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_REPORT: &str = "no report of this run was found";
    const REPORT: &str = "status: changed\ntransaction_completed: true\nnoop: false\n";
    const STOPPED: &str = "status: failed\ntransaction_completed: false\nnoop: false\n";

    fn judged(kind: CommandKind, exit: Exit, report: Option<&str>, output: &str) -> Verdict {
        let report = report.map(ReportSummary::parse);
        judge(kind, exit, report.as_ref().ok_or(NO_REPORT), output)
    }

    fn check(exit: Exit, report: Option<&str>, expected: RunOutcome) {
        let verdict = judged(CommandKind::PuppetAgent, exit, report, "");
        assert_eq!(verdict.outcome, expected, "{exit:?} {report:?}: {verdict:?}");
    }

    #[test]
    fn the_report_decides_and_an_exit_code_alone_never_says_done_of_puppet() {
        check(Exit::Code(2), Some(REPORT), RunOutcome::Changed);
        check(Exit::Code(0), Some("status: unchanged\ntransaction_completed: true\n"), RunOutcome::Unchanged);
        check(Exit::Code(4), Some("status: failed\ntransaction_completed: true\n"), RunOutcome::Failed);
        check(Exit::Code(2), None, RunOutcome::Unknown);
        check(Exit::Code(6), Some("garbage"), RunOutcome::Unknown);
        for code in 0..=6 {
            let verdict = judged(CommandKind::PuppetApply, Exit::Code(code), None, "");
            assert!(!matches!(verdict.outcome, RunOutcome::Changed | RunOutcome::Unchanged), "{verdict:?}");
        }
    }

    #[test]
    fn a_catalog_that_was_applied_counts_whatever_came_after_it() {
        check(Exit::Signal(15), Some(REPORT), RunOutcome::Changed);
        let verdict =
            judged(CommandKind::PuppetAgent, Exit::Code(1), Some(REPORT), "Error: Could not run postrun\n");
        assert_eq!(verdict.outcome, RunOutcome::Changed);
        assert!(verdict.reason.unwrap().contains("Could not run postrun"));
    }

    #[test]
    fn a_run_that_was_stopped_is_interrupted_though_puppet_says_0() {
        check(Exit::Code(0), Some(STOPPED), RunOutcome::Interrupted);
        check(Exit::Code(0), None, RunOutcome::Interrupted);
        check(Exit::Signal(9), None, RunOutcome::Interrupted);
        check(Exit::Signal(15), Some(STOPPED), RunOutcome::Interrupted);
        check(Exit::Code(128 + 9), None, RunOutcome::Interrupted);
    }

    #[test]
    fn an_apply_that_makes_an_error_of_its_signal_was_interrupted() {
        let output = "Error: /Stage[main]/Main/Exec[x]/returns: change failed: SIGTERM\nError: Could not run: SIGTERM\n";
        for report in [Some(STOPPED), None] {
            let verdict = judged(CommandKind::PuppetApply, Exit::Code(1), report, output);
            assert_eq!(verdict.outcome, RunOutcome::Interrupted);
            assert_eq!(verdict.reason.as_deref(), Some("ended by SIGTERM"));
        }
        let other = "Error: Could not run: SIGNALS are not what this is about\n";
        assert_eq!(judged(CommandKind::PuppetApply, Exit::Code(1), None, other).outcome, RunOutcome::NotRun);
    }

    #[test]
    fn a_signal_is_found_where_later_commands_fail_too() {
        const POSTRUN: &str = "Error: Could not run command from postrun_command: returned 1: \n";
        let begun = format!("{STOPPED}catalog_uuid: 69dcf859\n");
        for (kind, output, signal) in [
            (CommandKind::PuppetApply, "Error: /Exec[x]/returns: change failed: SIGTERM\n", "SIGTERM"),
            (CommandKind::PuppetApply, "Exiting\nError: /Exec[x]/returns: change failed: exit\n", "SIGINT"),
            (CommandKind::PuppetAgent, "Notice: Caught TERM; exiting\n", "SIGTERM"),
            (CommandKind::PuppetAgent, "Notice: Caught INT; exiting\n", "SIGINT"),
        ] {
            let verdict = judged(kind, Exit::Code(1), Some(&begun), &format!("{output}{POSTRUN}"));
            assert_eq!(verdict.outcome, RunOutcome::Interrupted, "{output}");
            assert_eq!(verdict.reason, Some(format!("ended by {signal}")));
        }
        let hung_up =
            judged(CommandKind::PuppetAgent, Exit::Code(1), Some(STOPPED), "Notice: Caught HUP; x\n");
        assert_eq!(hung_up.outcome, RunOutcome::NotRun);
    }

    #[test]
    fn a_catalog_that_was_applied_in_part_is_a_failure_and_not_applied_again_and_again() {
        let output = "Notice: a\nError: /Kaput[x]/ensure: change failed: cannot load such file -- x\nError: Could not run: cannot load such file -- x\n";
        let begun = format!("{STOPPED}catalog_uuid: 69dcf859-ff6b-4f0f-9621-12f19611fe98\n");
        for kind in [CommandKind::PuppetAgent, CommandKind::PuppetApply] {
            let verdict = judged(kind, Exit::Code(1), Some(&begun), output);
            assert_eq!(verdict.outcome, RunOutcome::Failed);
            assert_eq!(
                verdict.reason.as_deref(),
                Some(
                    "the catalog was not applied to its end: /Kaput[x]/ensure: change failed: cannot load such file -- x (see the run's output)"
                )
            );
            assert_eq!(judged(kind, Exit::Code(1), Some(STOPPED), output).outcome, RunOutcome::NotRun);
        }
        check(Exit::Code(3), Some(&begun), RunOutcome::Failed);
        check(Exit::Code(0), Some(&begun), RunOutcome::Interrupted);
        check(Exit::Signal(9), Some(&begun), RunOutcome::Interrupted);
    }

    #[test]
    fn a_run_that_could_not_happen_is_explained_in_puppets_words() {
        let not_run = |report: Option<&str>, output: &str| {
            let verdict = judged(CommandKind::PuppetAgent, Exit::Code(1), report, output);
            assert_eq!(verdict.outcome, RunOutcome::NotRun, "{verdict:?}");
            verdict.reason.unwrap()
        };
        assert_eq!(
            not_run(
                Some(STOPPED),
                "Info: x\nError: Facter: Permission denied\nError: Could not retrieve catalog: Error 500\nError: Could not retrieve catalog; skipping run\n"
            ),
            "no catalog was applied: Could not retrieve catalog: Error 500 (see the run's output)"
        );
        assert_eq!(
            not_run(
                None,
                "Info: x\nNotice: Exiting now because the maxwaitforlock timeout has been exceeded.\n"
            ),
            "Puppet did not run: Exiting now because the maxwaitforlock timeout has been exceeded (see the run's output)"
        );
        assert_eq!(not_run(None, ""), "Puppet did not run: see the run's output");
        let long = not_run(None, &format!("Error: {}\n", "ä".repeat(5000)));
        assert!(long.chars().count() < 400 && long.contains('…'), "{long}");
    }

    #[test]
    fn a_noop_run_and_pending_changes_are_explained() {
        let reason = |report: &str, asked_noop: bool| {
            let report = format!("transaction_completed: true\n{report}");
            let verdict = judged(CommandKind::PuppetAgent, Exit::Code(0), Some(&report), "");
            verdict.explaining_noop(asked_noop).reason.unwrap_or_default()
        };
        let noop = "status: unchanged\nnoop: true\nnoop_pending: true\n";
        assert_eq!(reason(noop, true), "");
        assert!(reason(noop, false).contains("this node's own settings made it a noop run: nothing"));
        let changed = "status: changed\nnoop: true\nnoop_pending: false\n";
        assert_eq!(reason(changed, true), "resources with noop => false were changed in this noop run");
        assert!(reason(changed, false).contains("only resources with noop => false were changed"));
        let pending = "status: unchanged\nnoop: false\nnoop_pending: true\n";
        assert!(reason(pending, false).contains("their changes are pending"));
        assert_eq!(reason("status: changed\nnoop: false\nnoop_pending: false\n", false), "");
        assert_eq!(reason("status: changed\nnoop: false\n", false), "", "an old Puppet does not say");
    }

    #[test]
    fn a_limit_is_mentioned_where_a_catalog_was_applied() {
        let judged = |report: Option<&str>, code: i32| {
            let verdict = judged(CommandKind::PuppetAgent, Exit::Code(code), report, "");
            verdict.of_a_limited_run(Some("the run was limited by x".to_owned())).reason.unwrap()
        };
        assert_eq!(judged(Some(REPORT), 2), "the run was limited by x");
        let postrun = judged(Some(REPORT), 1);
        assert!(
            postrun.contains("exit code 1") && postrun.ends_with("; the run was limited by x"),
            "{postrun}"
        );
        assert!(!judged(None, 1).contains("limited"), "nothing was applied");
    }

    #[test]
    fn the_exit_code_of_another_command_decides_and_the_reason_says_so() {
        for (exit, expected, reason) in [
            (Exit::Code(0), RunOutcome::Changed, "judged by its exit code 0 alone"),
            (Exit::Code(1), RunOutcome::Failed, "judged by its exit code 1 alone"),
            (Exit::Signal(9), RunOutcome::Interrupted, "signal 9"),
        ] {
            let verdict = judged(CommandKind::Other, exit, None, "");
            assert_eq!(verdict.outcome, expected);
            assert!(verdict.reason.as_deref().unwrap().contains(reason), "{verdict:?}");
        }
    }
}
