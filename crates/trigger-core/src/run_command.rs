//! What runs on a node, and what the way it ended means (contracts 8 and 9).
//!
//! The words come from the node's own configuration; an event contributes typed options only. Nothing
//! here or later passes through a shell.

use crate::event::RunOptions;
use crate::identity::RunId;
use crate::outcome::Outcome;
use crate::report::ReportSummary;

/// Every `trigger` resource carries this tag, and every tagged run asks for it too, so that a run limited
/// to some tags does not drop the notifies of what it changes.
pub const PRIVATE_TAG: &str = "trigger_internal";

/// Ours for every `puppet agent` run. `--no-usecacheonfailure`: a catalog from before the event proves
/// nothing. `--waitforlock`: a run already active never counts, so ours waits for it and fetches its
/// catalog inside the lock. `--verbose` rather than `--test`, whose `--show_diff` leaks file contents.
const AGENT_FLAGS: [&str; 12] = [
    "--onetime",
    "--no-daemonize",
    "--detailed-exitcodes",
    "--no-usecacheonfailure",
    "--no-use_cached_catalog",
    "--no-splay",
    "--verbose",
    "--color=false",
    "--waitforlock",
    "1",
    "--maxwaitforlock",
    "600",
];

/// A node's run command, recognised by its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunCommand {
    kind: CommandKind,
    /// Up to and including the subcommand.
    program: Vec<String>,
    /// What the operator wrote after it.
    arguments: Vec<String>,
}

/// What a run command is, as far as its words tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandKind {
    /// `puppet agent`: has a lock, obeys `puppet agent --disable`, knows a job id.
    PuppetAgent,
    /// `puppet apply`: has none of the three.
    PuppetApply,
    /// Anything else: judged by its exit code.
    Other,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Default for RunCommand {
    fn default() -> Self {
        Self {
            kind: CommandKind::PuppetAgent,
            program: vec!["puppet".to_owned(), "agent".to_owned()],
            arguments: Vec::new(),
        }
    }
}

impl RunCommand {
    /// Recognises a command by its words; nothing for no words at all.
    pub fn from_words(words: Vec<String>) -> Option<Self> {
        let program_name = words.first()?.rsplit('/').next()?;
        let kind = match (program_name, words.get(1).map(String::as_str)) {
            ("puppet", Some("agent")) => CommandKind::PuppetAgent,
            ("puppet", Some("apply")) => CommandKind::PuppetApply,
            _ => CommandKind::Other,
        };
        let subcommand_at = if kind == CommandKind::Other { 1 } else { 2 };
        let mut program = words;
        let arguments = program.split_off(subcommand_at);
        Some(Self { kind, program, arguments })
    }

    /// What it is.
    pub fn kind(&self) -> CommandKind {
        self.kind
    }

    /// The first word: what must exist for a run to start.
    pub fn executable(&self) -> &str {
        self.program.first().map_or("", String::as_str)
    }

    /// The operator's own words.
    pub fn words(&self) -> Vec<String> {
        [self.program.as_slice(), self.arguments.as_slice()].concat()
    }

    /// What asks this Puppet for `settings`, with the flags of the run command that move them.
    pub fn config_print(&self, settings: &[&str]) -> Vec<String> {
        let mut words = vec![
            if self.kind == CommandKind::Other { "puppet" } else { self.executable() }.to_owned(),
            "config".to_owned(),
            "print".to_owned(),
        ];
        words.extend(settings.iter().map(|&setting| setting.to_owned()));
        words.extend(["--section".to_owned(), "agent".to_owned(), "--color=false".to_owned()]);
        const MOVE_SETTINGS: [&str; 7] =
            ["--confdir", "--config", "--vardir", "--statedir", "--ssldir", "--certname", "--publicdir"];
        let mut arguments = self.arguments.iter().peekable();
        while let Some(argument) = arguments.next() {
            let (flag, value) =
                argument.split_once('=').map_or((argument.as_str(), None), |(f, v)| (f, Some(v)));
            if !MOVE_SETTINGS.contains(&flag) {
                continue;
            }
            if let Some(value) = value.or_else(|| arguments.peek().map(|word| word.as_str())) {
                words.extend([flag.to_owned(), value.to_owned()]);
            }
        }
        words
    }

    /// Whether a noop event can be honoured; if not it is refused, never run for real.
    pub fn honours_noop(&self) -> bool {
        self.kind != CommandKind::Other
    }

    /// The argument vector of one run. `report` is where `puppet apply` shall leave its report.
    pub fn argv(&self, run: RunId, options: &RunOptions, report: &str) -> Vec<String> {
        let mut argv = self.program.clone();
        let own = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        match self.kind {
            CommandKind::PuppetAgent => {
                argv.extend(own(&AGENT_FLAGS));
                argv.extend(["--job-id".to_owned(), run.to_string()]);
            }
            CommandKind::PuppetApply => {
                argv.extend(own(&[
                    "--detailed-exitcodes",
                    "--verbose",
                    "--color=false",
                    "--lastrunreport",
                    report,
                ]));
            }
            CommandKind::Other => {}
        }
        if self.kind != CommandKind::Other {
            if options.noop {
                argv.push("--noop".to_owned());
            }
            if options.is_tagged() {
                let tags: Vec<&str> =
                    options.tags.iter().map(|tag| tag.as_str()).chain([PRIVATE_TAG]).collect();
                argv.extend(["--tags".to_owned(), tags.join(",")]);
            }
        }
        argv.extend(self.arguments.iter().cloned());
        argv
    }

    /// What a run that ended by itself came to. `report` is the one that is certainly this run's: it
    /// carries our job id (agent), or lay where only this run would put it (apply).
    pub fn judge(&self, exit: Exit, report: Option<&ReportSummary>) -> (Outcome, Option<String>) {
        let signalled = |signal| (Outcome::Interrupted, Some(format!("ended by signal {signal}")));
        match (self.kind, exit, report) {
            (CommandKind::Other, Exit::Code(0), _) => {
                (Outcome::Changed, Some("not Puppet: judged by its exit code 0 alone".to_owned()))
            }
            (CommandKind::Other, Exit::Code(code), _) => {
                (Outcome::Failed, Some(format!("not Puppet: judged by its exit code {code} alone")))
            }
            (_, Exit::Signal(signal), _) => signalled(signal),
            (_, Exit::Code(code), Some(report)) => {
                let outcome = report.outcome();
                let reason = match outcome {
                    Outcome::NotRun => Some("no catalog was applied: see the run's output".to_owned()),
                    Outcome::Failed => Some("resources failed: see the run's output".to_owned()),
                    Outcome::Unknown => Some(format!("its report names no known status; exit code {code}")),
                    _ => None,
                };
                (outcome, reason)
            }
            // Puppet ends with 1 when its lock is held, the wait for it is over, the agent is disabled or
            // no catalog could be compiled, and writes no report in the first three.
            (_, Exit::Code(1), None) => (
                Outcome::NotRun,
                Some("Puppet did not run (exit code 1, no report): see the run's output".to_owned()),
            ),
            // A stopped `puppet agent` ends with 0 and a half-applied catalog: no report, no proof.
            (_, Exit::Code(code), None) => {
                (Outcome::Unknown, Some(format!("exit code {code}, but no report of this run was found")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn command(text: &str) -> RunCommand {
        RunCommand::from_words(words(text)).unwrap()
    }

    const RUN: &str = "019356b0-7c4a-7000-8000-000000000001";

    fn argv(text: &str, options: &RunOptions) -> String {
        command(text).argv(RUN.parse().unwrap(), options, "/r.yaml").join(" ")
    }

    fn tagged(noop: bool) -> RunOptions {
        RunOptions { tags: ["web".parse().unwrap()].into(), noop }
    }

    #[test]
    fn the_default_run_is_one_puppet_agent_with_our_job_id() {
        assert_eq!(
            RunCommand::default().argv(RUN.parse().unwrap(), &RunOptions::default(), "").join(" "),
            format!(
                "puppet agent --onetime --no-daemonize --detailed-exitcodes --no-usecacheonfailure --no-use_cached_catalog --no-splay --verbose --color=false --waitforlock 1 --maxwaitforlock 600 --job-id {RUN}"
            )
        );
    }

    #[test]
    fn a_tagged_run_keeps_the_notifies_of_what_it_changes() {
        assert_eq!(
            argv("/opt/puppetlabs/bin/puppet apply /etc/site.pp", &tagged(true)),
            "/opt/puppetlabs/bin/puppet apply --detailed-exitcodes --verbose --color=false --lastrunreport /r.yaml --noop --tags web,trigger_internal /etc/site.pp"
        );
    }

    #[test]
    fn another_command_runs_as_written_and_cannot_honour_noop() {
        assert_eq!(argv("/usr/bin/converge now", &tagged(false)), "/usr/bin/converge now");
        assert!(!command("/usr/bin/converge now").honours_noop());
        assert!(command("puppet apply x.pp").honours_noop());
        assert_eq!(RunCommand::from_words(Vec::new()), None);
    }

    #[test]
    fn settings_are_asked_with_the_flags_that_move_them() {
        assert_eq!(
            command("puppet agent --confdir /c --vardir=/v --server x")
                .config_print(&["lastrunreport"])
                .join(" "),
            "puppet config print lastrunreport --section agent --color=false --confdir /c --vardir /v"
        );
    }

    fn check(text: &str, exit: Exit, status: Option<&str>, expected: Outcome) {
        let report = status.map(|s| ReportSummary {
            status: Some(s.to_owned()),
            transaction_completed: Some(true),
            job_id: None,
        });
        assert_eq!(command(text).judge(exit, report.as_ref()).0, expected, "{text} {exit:?} {status:?}");
    }

    #[test]
    fn the_report_decides_and_an_exit_code_alone_never_says_done_of_puppet() {
        check("puppet agent", Exit::Code(2), Some("changed"), Outcome::Changed);
        check("puppet agent", Exit::Code(0), Some("unchanged"), Outcome::Unchanged);
        check("puppet agent", Exit::Code(4), Some("failed"), Outcome::Failed);
        check("puppet agent", Exit::Code(0), None, Outcome::Unknown);
        check("puppet agent", Exit::Code(1), None, Outcome::NotRun);
        check("puppet apply", Exit::Signal(9), None, Outcome::Interrupted);
    }

    #[test]
    fn another_command_is_judged_by_its_exit_code_and_said_to_be() {
        check("true", Exit::Code(0), None, Outcome::Changed);
        check("false", Exit::Code(1), None, Outcome::Failed);
        let (_, reason) = command("true").judge(Exit::Code(0), None);
        assert!(reason.unwrap().contains("exit code"));
    }
}
