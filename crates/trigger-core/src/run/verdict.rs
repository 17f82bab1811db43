//! The outcome of a run, from its report, its exit and its output (C9).
//!
//! For Puppet, the report decides and never an exit code alone. Exit code 1 may mean that the lock was held, that the
//! wait for it was over, that Puppet is disabled, that there was no catalog, or that an error in a provider ended Puppet
//! on the way; and a run that was stopped half-way exits with 0. Puppet's output explains the outcome and does not decide
//! it, because anything may be printed there. The one exception is in [`signal`].

use std::collections::BTreeSet;

use crate::count::count;
use crate::identity::{Certname, RunId};
use crate::run::command::{CommandKind, WrapperExit};
use crate::run::explanation::{Traces, quoted, see_log};
use crate::run::record::Cause;
use crate::run::report::ReportSummary;
use crate::run::signal;
use crate::run::{Drift, RunOutcome};

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

/// The reason of a run that its supervisor was asked to end.
const STOPPED: &str = "its supervisor was asked to stop";
/// The reason of a run that `timeout` in the run command ended. As after the run timeout, the run is over: it would
/// probably take as long again.
const TIMED_OUT: &str = "ended by 'timeout' in the run command";

impl Verdict {
    /// The verdict on a run whose supervisor was asked to stop before the run had ended.
    pub fn stopped() -> Self {
        Self::new(RunOutcome::Interrupted, STOPPED)
    }

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

    /// Adds where all that the run printed is to be seen, if it failed or took too long and the reason does not say so.
    #[must_use]
    pub fn naming_log(self, run: RunId) -> Self {
        let see = see_log(run);
        let is_wanted = matches!(self.outcome, RunOutcome::Failed | RunOutcome::TimedOut)
            && !self.reason.as_ref().is_some_and(|reason| reason.contains(&see));
        self.with_sentence(is_wanted.then_some(see))
    }

    /// Adds that a run which applied a catalog may lack what the origins of some of its events export.
    #[must_use]
    pub fn without_catalogs(self, causes: &[Cause]) -> Self {
        let exporters: BTreeSet<&Certname> =
            causes.iter().filter(|cause| cause.without_catalog).map(|cause| &cause.event.origin).collect();
        let others = exporters.len().saturating_sub(1);
        let has_applied = !matches!(self.outcome, RunOutcome::NotRun);
        let sentence = exporters.first().filter(|_| has_applied).map(|exporter| {
            let others = if others == 0 { String::new() } else { format!(" and of {}", count(others, "other node")) };
            format!("it did not wait any longer for PuppetDB, which had not stored the catalog of {exporter}{others}")
        });
        self.with_sentence(sentence)
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
/// job id, or was where only this run writes one), or the reason why there is none. `traces` explain the outcome.
pub fn judge(
    kind: CommandKind,
    exit: Exit,
    report: Result<&ReportSummary, &str>,
    traces: &Traces<'_>,
) -> Verdict {
    match (kind, exit, report) {
        (CommandKind::Other, Exit::Signal(signal), _) => interrupted(signal),
        (CommandKind::Other, Exit::Code(code), _) => {
            let reason = format!("not Puppet: judged by its exit code {code} alone");
            match code {
                0 => Verdict::new(RunOutcome::Changed, reason),
                _ => Verdict::new(RunOutcome::Failed, traces.with_last_line(reason)),
            }
        }
        (_, _, Ok(report)) => by_report(kind, report, exit, traces),
        (_, Exit::Signal(signal), Err(_)) => interrupted(signal),
        (_, Exit::Code(code), Err(why)) => without_report(kind, code, why, traces),
    }
}

fn interrupted(signal: i32) -> Verdict {
    Verdict::new(RunOutcome::Interrupted, format!("ended by signal {signal}"))
}

fn by_report(kind: CommandKind, report: &ReportSummary, exit: Exit, traces: &Traces<'_>) -> Verdict {
    let (outcome, reason) = match (report.outcome(), exit) {
        (None, _) => cut_short(kind, report, exit, traces),
        (Some(RunOutcome::Failed), _) => (RunOutcome::Failed, Some(traces.failed_resources())),
        (Some(RunOutcome::Unknown), _) => {
            (RunOutcome::Unknown, Some(format!("its report has an unknown status: {}", traces.see())))
        }
        // Something after the catalog failed, such as the `postrun_command`.
        (Some(outcome), Exit::Code(1)) => (
            outcome,
            Some(traces.explain(kind, "the catalog was applied, but Puppet ended with exit code 1")),
        ),
        (Some(outcome), _) => (outcome, None),
    };
    Verdict { outcome, reason, reported_noop: report.noop, drift: report.drift() }
}

/// The outcome where no catalog was applied to its end: Puppet was stopped, failed on the way, or had no catalog.
fn cut_short(
    kind: CommandKind,
    report: &ReportSummary,
    exit: Exit,
    traces: &Traces<'_>,
) -> (RunOutcome, Option<String>) {
    let has_begun = report.catalog_uuid.is_some();
    let (outcome, reason) = match exit {
        _ if traces.was_stopped => return (RunOutcome::Interrupted, Some(STOPPED.to_owned())),
        Exit::Code(_) if traces.wrapper == Some(WrapperExit::TimedOut) => {
            (RunOutcome::TimedOut, TIMED_OUT.to_owned())
        }
        Exit::Signal(signal) => (RunOutcome::Interrupted, format!("ended by signal {signal}")),
        Exit::Code(code) if by_shell(code).is_some() => {
            (RunOutcome::Interrupted, format!("ended by signal {}", code - 128))
        }
        // When `puppet agent` is stopped by a signal, it exits with 0.
        Exit::Code(0) => {
            (RunOutcome::Interrupted, "Puppet was stopped before its catalog was applied".to_owned())
        }
        Exit::Code(_) if !has_begun => (RunOutcome::NotRun, traces.explain(kind, "no catalog was applied")),
        Exit::Code(_) => match signal::certain(kind, traces) {
            Some(signal) => (RunOutcome::Interrupted, format!("ended by {signal}")),
            // Something may have been changed. Another run would probably fail at the same place, again and again.
            None => (RunOutcome::Failed, traces.explain(kind, &not_to_its_end(traces))),
        },
    };
    (outcome, Some(reason))
}

/// What happened to a catalog that was applied in part, with the resource at which it ended where Puppet's error lacks it.
fn not_to_its_end(traces: &Traces<'_>) -> String {
    const WHAT: &str = "the catalog was not applied to its end";
    match traces.errors.and_then(|errors| errors.unfinished.as_deref()) {
        Some(resource) if !traces.output.contains(&format!("/{resource}")) => {
            format!("{WHAT}, it ended at {}", quoted(resource))
        }
        _ => WHAT.to_owned(),
    }
}

fn without_report(kind: CommandKind, code: i32, why: &str, traces: &Traces<'_>) -> Verdict {
    match (kind, code) {
        _ if traces.was_stopped => Verdict::stopped(),
        _ if traces.wrapper.is_some() => by_wrapper(kind, code, traces),
        (_, 1) => Verdict::new(RunOutcome::NotRun, traces.explain(kind, "Puppet did not run")),
        // Probably it was stopped before it had a report to write. One repetition costs less than a lost event.
        (CommandKind::PuppetAgent, 0) => Verdict::new(
            RunOutcome::Interrupted,
            format!("Puppet left no report, as when it is stopped before its run ({why})"),
        ),
        _ => match by_shell(code) {
            Some(signal) => interrupted(signal),
            None => {
                let reason = traces.with_first_error(kind, format!("exit code {code}, but {why}"));
                Verdict::new(RunOutcome::Unknown, reason)
            }
        },
    }
}

/// The verdict where there is no report and the exit code is one that a wrapper has itself.
fn by_wrapper(kind: CommandKind, code: i32, traces: &Traces<'_>) -> Verdict {
    let what = match traces.wrapper {
        // A run that waited for Puppet's lock did not begin: that time does not count towards the run timeout either.
        Some(WrapperExit::TimedOut) if traces.lock.is_none() => {
            return Verdict::new(RunOutcome::TimedOut, TIMED_OUT);
        }
        // Puppet, too, exits with 1 where it does not run, but it prints why.
        Some(WrapperExit::NoLock) if traces.output.trim().is_empty() => {
            return Verdict::new(
                RunOutcome::NotRun,
                format!("Puppet did not run: flock did not get its lock in time (exit code {code})"),
            );
        }
        Some(WrapperExit::NotStarted) => format!("Puppet could not be started (exit code {code})"),
        _ => "Puppet did not run".to_owned(),
    };
    Verdict::new(RunOutcome::NotRun, traces.explain(kind, &what))
}

/// The signal that a shell around Puppet reports by its exit code.
fn by_shell(code: i32) -> Option<i32> {
    (129..=192).contains(&code).then_some(code - 128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::report_errors::ReportErrors;

    const NO_REPORT: &str = "no report of this run was found";
    const REPORT: &str = "status: changed\ntransaction_completed: true\nnoop: false\n";
    const CUT_SHORT: &str = "status: failed\ntransaction_completed: false\nnoop: false\n";

    fn judged(kind: CommandKind, exit: Exit, report: Option<&str>, output: &str) -> Verdict {
        let errors = report.map(ReportErrors::parse);
        let report = report.map(ReportSummary::parse);
        let traces = Traces { output, errors: errors.as_ref(), certname: "web01", ..Traces::default() };
        judge(kind, exit, report.as_ref().ok_or(NO_REPORT), &traces)
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
        check(Exit::Code(0), Some(CUT_SHORT), RunOutcome::Interrupted);
        check(Exit::Code(0), None, RunOutcome::Interrupted);
        check(Exit::Signal(9), None, RunOutcome::Interrupted);
        check(Exit::Signal(15), Some(CUT_SHORT), RunOutcome::Interrupted);
        check(Exit::Code(128 + 9), None, RunOutcome::Interrupted);
    }

    #[test]
    fn an_apply_that_makes_an_error_of_its_signal_in_its_catalog_was_interrupted() {
        let output = "Error: /Stage[main]/Main/Exec[x]/returns: change failed: SIGTERM\nError: Could not run: SIGTERM\n";
        let begun = format!("{CUT_SHORT}catalog_uuid: 69dcf859\n");
        let verdict = judged(CommandKind::PuppetApply, Exit::Code(1), Some(&begun), output);
        assert_eq!(verdict.outcome, RunOutcome::Interrupted);
        assert_eq!(verdict.reason.as_deref(), Some("ended by SIGTERM"));
    }

    /// Proves C9. The report and the output of `puppet apply` where a provider of a module raised `LoadError`.
    #[test]
    fn an_apply_whose_provider_raises_the_name_of_a_signal_has_failed_at_that_resource() {
        let begun = |resource: &str| {
            format!(
                "{CUT_SHORT}catalog_uuid: 69dcf859\nresource_statuses:\n  Notify[a]:\n    evaluation_time: 0.1\n    failed: false\n    skipped: false\n  {resource}:\n    evaluation_time:\n    failed: false\n    skipped: false\n    events: []\n"
            )
        };
        let judged = |resource: &str, output: &str| {
            let verdict = judged(CommandKind::PuppetApply, Exit::Code(1), Some(&begun(resource)), output);
            (verdict.outcome, verdict.reason.unwrap_or_default())
        };
        let set = "Error: /Stage[main]/Main/Kaput[x]/done: change from 'no' to 'yes' failed: ";
        for (output, reason) in [
            (
                format!("{set}SIGTERM\nError: Could not run: SIGTERM\n"),
                "to its end: /Stage[main]/Main/Kaput[x]/done",
            ),
            (
                format!("{set}SIGUSR9\nError: Could not run: SIGUSR9\n"),
                "to its end: /Stage[main]/Main/Kaput[x]/done",
            ),
            (format!("Exiting\n{set}exit\n"), "to its end: /Stage[main]/Main/Kaput[x]/done"),
            ("Error: Could not run: SIGTERM\n".to_owned(), "it ended at Kaput[x]: Could not run: SIGTERM"),
        ] {
            let (outcome, why) = judged("Kaput[x]", &output);
            assert_eq!(outcome, RunOutcome::Failed, "{output}");
            assert!(why.contains(reason), "{why}");
        }
        let (outcome, _) =
            judged("Exec[x]", "Exiting\nError: /Stage[main]/Main/Exec[x]/returns: change failed: exit\n");
        assert_eq!(outcome, RunOutcome::Interrupted);
    }

    #[test]
    fn an_agent_whose_postrun_command_fails_too_logs_its_signal() {
        const POSTRUN: &str = "Error: Could not run command from postrun_command: returned 1: \n";
        let begun = format!(
            "{CUT_SHORT}catalog_uuid: 69dcf859\nlogs:\n- level: notice\n  source: Puppet\n  message: Caught TERM; exiting\n"
        );
        let verdict = judged(CommandKind::PuppetAgent, Exit::Code(1), Some(&begun), POSTRUN);
        assert_eq!(verdict.outcome, RunOutcome::Interrupted);
        assert_eq!(verdict.reason.as_deref(), Some("ended by SIGTERM"));
    }

    /// Proves C9. What a `prerun_command`, the compiler, an ENC or `fail()` prints.
    #[test]
    fn words_that_look_like_a_signal_do_not_end_a_run_that_did_not_begin() {
        const WORDS: [&str; 5] = [
            "Error: Could not run command from prerun_command: returned 1: maintenance flag is set\nExiting\n",
            "Exiting\nError: Could not retrieve catalog: maintenance: SIGTERM\n",
            "Error: Could not run: SIGTERM\n",
            "Notice: Caught TERM; exiting\nError: x\n",
            "Error: Evaluation Error: maintenance\nError: Could not run: SIGINT\nExiting\n",
        ];
        for words in WORDS {
            for kind in [CommandKind::PuppetAgent, CommandKind::PuppetApply] {
                for report in [Some(CUT_SHORT), None] {
                    let verdict = judged(kind, Exit::Code(1), report, words);
                    assert_eq!(verdict.outcome, RunOutcome::NotRun, "{words} {report:?}");
                }
            }
        }
        let reason = judged(CommandKind::PuppetAgent, Exit::Code(1), Some(CUT_SHORT), WORDS[0]).reason;
        assert_eq!(
            reason.as_deref(),
            Some(
                "no catalog was applied: Could not run command from prerun_command: returned 1: maintenance flag is set (see the run's output)"
            )
        );
    }

    /// Proves C9.
    #[test]
    fn an_exit_code_of_a_wrapper_says_that_the_run_took_too_long_or_did_not_begin() {
        use WrapperExit::{NoLock, NotStarted, TimedOut};
        let begun = format!("{CUT_SHORT}catalog_uuid: 69dcf859\n");
        let lock =
            crate::run::explanation::LockHolder { file: "/l".to_owned(), process: 7, command: String::new() };
        for (wrapper, code, report, expected, reason) in [
            (TimedOut, 124, None, RunOutcome::TimedOut, "ended by 'timeout' in the run command"),
            (TimedOut, 124, Some(CUT_SHORT), RunOutcome::TimedOut, "ended by 'timeout'"),
            (TimedOut, 124, Some(begun.as_str()), RunOutcome::TimedOut, "ended by 'timeout'"),
            (TimedOut, 124, Some(REPORT), RunOutcome::Changed, ""),
            (NoLock, 75, None, RunOutcome::NotRun, "flock did not get its lock in time (exit code 75)"),
            (NoLock, 0, None, RunOutcome::NotRun, "(exit code 0)"),
            (NoLock, 1, Some(begun.as_str()), RunOutcome::Failed, "was not applied to its end"),
            (NoLock, 2, Some(REPORT), RunOutcome::Changed, ""),
            (NotStarted, 127, None, RunOutcome::NotRun, "could not be started (exit code 127)"),
        ] {
            let report = report.map(ReportSummary::parse);
            let judged = |traces: Traces<'_>| {
                judge(CommandKind::PuppetAgent, Exit::Code(code), report.as_ref().ok_or(NO_REPORT), &traces)
            };
            let traces = Traces { wrapper: Some(wrapper), ..Traces::default() };
            let verdict = judged(traces);
            assert_eq!(verdict.outcome, expected, "{wrapper:?} {code} {report:?}: {verdict:?}");
            assert!(verdict.reason.unwrap_or_default().contains(reason), "{wrapper:?} {code} {report:?}");
            if report.is_none() {
                let stopped = judged(Traces { was_stopped: true, ..traces });
                assert_eq!(stopped.outcome, RunOutcome::Interrupted);
                let waited = judged(Traces { lock: Some(&lock), output: "Info: x\n", ..traces });
                assert_eq!(waited.outcome, RunOutcome::NotRun, "it waited for Puppet's lock: {waited:?}");
            }
        }
        let traces = Traces { wrapper: Some(NoLock), output: "Error: no facts\n", ..Traces::default() };
        let verdict = judge(CommandKind::PuppetAgent, Exit::Code(1), Err(NO_REPORT), &traces);
        assert_eq!(verdict.reason.as_deref(), Some("Puppet did not run: no facts (see the run's output)"));
    }

    #[test]
    fn a_shell_around_puppet_reports_the_signal_of_a_run_that_left_a_report_too() {
        let begun = format!("{CUT_SHORT}catalog_uuid: 69dcf859\n");
        for report in [None, Some(CUT_SHORT), Some(begun.as_str())] {
            check(Exit::Code(128 + 15), report, RunOutcome::Interrupted);
        }
        check(Exit::Code(128 + 15), Some(REPORT), RunOutcome::Changed);
    }

    #[test]
    fn a_run_whose_supervisor_was_asked_to_stop_was_stopped_unless_its_report_is_complete() {
        let begun = format!("{CUT_SHORT}catalog_uuid: 69dcf859\n");
        let traces = Traces { was_stopped: true, output: "Error: x\n", ..Traces::default() };
        let outcome = |report: Option<&str>| {
            let report = report.map(ReportSummary::parse);
            judge(CommandKind::PuppetApply, Exit::Code(1), report.as_ref().ok_or(NO_REPORT), &traces).outcome
        };
        for report in [None, Some(CUT_SHORT), Some(begun.as_str())] {
            assert_eq!(outcome(report), RunOutcome::Interrupted, "{report:?}");
        }
        assert_eq!(outcome(Some(REPORT)), RunOutcome::Changed);
    }

    #[test]
    fn a_failed_run_names_its_first_failed_resource() {
        let report = "status: failed\ntransaction_completed: true\nresource_statuses:\n  Exec[/bin/false]:\n    failed: true\n    events:\n    - status: failure\n      message: returned 1\n";
        let verdict = judged(CommandKind::PuppetAgent, Exit::Code(4), Some(report), "");
        assert_eq!(
            verdict.reason.as_deref(),
            Some("resources failed: Exec[/bin/false]: returned 1 (see the run's output)")
        );
    }

    #[test]
    fn a_catalog_that_was_applied_in_part_is_a_failure_and_not_applied_again_and_again() {
        let output = "Notice: a\nError: /Kaput[x]/ensure: change failed: cannot load such file -- x\nError: Could not run: cannot load such file -- x\n";
        let begun = format!("{CUT_SHORT}catalog_uuid: 69dcf859-ff6b-4f0f-9621-12f19611fe98\n");
        for kind in [CommandKind::PuppetAgent, CommandKind::PuppetApply] {
            let verdict = judged(kind, Exit::Code(1), Some(&begun), output);
            assert_eq!(verdict.outcome, RunOutcome::Failed);
            assert_eq!(
                verdict.reason.as_deref(),
                Some(
                    "the catalog was not applied to its end: /Kaput[x]/ensure: change failed: cannot load such file -- x (see the run's output)"
                )
            );
            assert_eq!(judged(kind, Exit::Code(1), Some(CUT_SHORT), output).outcome, RunOutcome::NotRun);
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
                Some(CUT_SHORT),
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
        let failed = judged(CommandKind::Other, Exit::Code(3), None, "begun\nno such host: db01\n\n");
        assert_eq!(
            failed.reason.as_deref(),
            Some("not Puppet: judged by its exit code 3 alone; its output ends with: no such host: db01")
        );
    }

    #[test]
    fn a_failure_names_the_log_of_its_run_once() {
        let run = crate::run::history::samples::run_id(7);
        let check = |outcome: RunOutcome, reason: &str, expected: &str| {
            let named = Verdict::new(outcome, reason.to_owned()).naming_log(run);
            assert_eq!(named.reason.as_deref(), Some(expected));
        };
        let see = see_log(run);
        check(RunOutcome::TimedOut, "ended after 1h", &format!("ended after 1h; {see}"));
        check(RunOutcome::Failed, &format!("no ({see})"), &format!("no ({see})"));
        check(RunOutcome::NotRun, "disabled", "disabled");
    }

    #[test]
    fn a_run_that_did_not_wait_for_a_catalog_says_so() {
        let cause = |origin: &str, without_catalog| Cause {
            event: crate::event::Event {
                origin: origin.parse().unwrap(),
                ..crate::event::samples::event(1, "t")
            },
            addressed_as: Default::default(),
            interruptions: 0,
            without_catalog,
            signer: Default::default(),
        };
        let reason = |outcome, causes: &[Cause]| {
            let verdict = Verdict { outcome, reason: None, reported_noop: false, drift: Drift::default() };
            verdict.without_catalogs(causes).reason.unwrap_or_default()
        };
        let changed = RunOutcome::Changed;
        let said = "it did not wait any longer for PuppetDB, which had not stored the catalog of";
        assert_eq!(reason(changed, &[cause("web01", false)]), "");
        assert_eq!(reason(RunOutcome::NotRun, &[cause("web01", true)]), "");
        assert_eq!(reason(changed, &[cause("web01", true), cause("web02", false)]), format!("{said} web01"));
        let three = [cause("web01", true), cause("web02", true), cause("web03", true), cause("web03", true)];
        assert_eq!(reason(changed, &three), format!("{said} web01 and of 2 other nodes"));
    }
}
