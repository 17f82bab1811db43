//! What runs on a node (C8, C9).
//!
//! The words come from the node's own configuration; an event contributes typed options only. Nothing
//! here or later passes through a shell.

use std::time::Duration;

use crate::event::RunOptions;
use crate::identity::RunId;

/// Every `trigger` resource carries this tag, and every tagged run asks for it too, so that a run limited
/// to some tags does not drop the notifies of what it changes.
pub const PRIVATE_TAG: &str = "trigger_internal";

/// Ours for every `puppet agent` run. `--no-usecacheonfailure`: a catalog from before the event proves
/// nothing. `--waitforlock`: a run already active never counts, so ours waits for it and fetches its
/// catalog inside the lock. `--report`: it is what tells the outcome. `--verbose` rather than `--test`, whose
/// `--show_diff` leaks file contents.
const AGENT_FLAGS: [&str; 11] = [
    "--onetime",
    "--no-daemonize",
    "--detailed-exitcodes",
    "--no-usecacheonfailure",
    "--no-use_cached_catalog",
    "--no-splay",
    "--report",
    "--verbose",
    "--color=false",
    "--waitforlock",
    "1",
];

/// How much later than its supervisor Puppet ends a run by itself (`runtimeout`): what it ends looks as if it
/// had not happened. It is for the run whose supervisor was killed. Puppet counts from when it has its lock
/// (`Puppet::Agent#run`), its supervisor from the start, less the wait for the lock, to about a second.
const RUNTIMEOUT_LATER: Duration = Duration::from_secs(60);

/// The longest wait for the lock of a run that somebody else started.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How long a run waits for Puppet's lock before it gives up, to be tried again: short enough that even a
/// wait that counts towards the run timeout leaves half of it for the run.
pub fn lock_timeout(timeout: Duration) -> Duration {
    LOCK_TIMEOUT.min(timeout / 2).max(Duration::from_secs(1))
}

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

    /// What asks this Puppet for `settings` as a section of its `puppet.conf` has them, with the flags of the run command that move them.
    pub fn config_print(&self, settings: &[&str], section: &str) -> Vec<String> {
        let mut words = vec![
            if self.kind == CommandKind::Other { "puppet" } else { self.executable() }.to_owned(),
            "config".to_owned(),
            "print".to_owned(),
        ];
        words.extend(settings.iter().map(|&setting| setting.to_owned()));
        words.extend(["--section".to_owned(), section.to_owned(), "--color=false".to_owned()]);
        const MOVE_SETTINGS: [&str; 10] = [
            "--confdir",
            "--config",
            "--vardir",
            "--statedir",
            "--ssldir",
            "--certname",
            "--publicdir",
            "--lastrunreport",
            "--agent_disabled_lockfile",
            "--agent_catalog_run_lockfile",
        ];
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

    /// The argument vector of one run that may take as long as `timeout`. `report` is where `puppet apply`
    /// shall leave its report; `logdest` is where Puppet's own settings send what it logs.
    pub fn argv(
        &self,
        run: RunId,
        options: &RunOptions,
        timeout: Duration,
        report: &str,
        logdest: Option<&str>,
    ) -> Vec<String> {
        let mut argv = self.program.clone();
        let own = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        match self.kind {
            CommandKind::PuppetAgent => {
                argv.extend(own(&AGENT_FLAGS));
                let seconds = |time: Duration| time.as_secs().to_string();
                argv.extend(["--runtimeout".to_owned(), seconds(timeout + RUNTIMEOUT_LATER)]);
                argv.extend(["--maxwaitforlock".to_owned(), seconds(lock_timeout(timeout))]);
                argv.extend(["--job-id".to_owned(), run.to_string()]);
            }
            CommandKind::PuppetApply => {
                argv.extend(own(&[
                    "--detailed-exitcodes",
                    "--report",
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
            for destination in self.log_destinations(logdest) {
                argv.extend(["--logdest".to_owned(), destination.to_owned()]);
            }
        }
        argv.extend(self.arguments.iter().cloned());
        argv
    }

    /// Where Puppet shall log to besides what the operator's own words say, so that its words reach our log
    /// too. `--logdest` takes the place of the setting; more than one of them add up.
    fn log_destinations<'a>(&self, setting: Option<&'a str>) -> Vec<&'a str> {
        let words = self.arguments.windows(2).filter(|pair| pair[0] == "--logdest" || pair[0] == "-l");
        let joined = self.arguments.iter().filter_map(|word| word.strip_prefix("--logdest="));
        let told: Vec<&str> = words.map(|pair| pair[1].as_str()).chain(joined).collect();
        let reaches_us = |destination: &str| destination.split(',').any(|part| part.trim() == "console");
        match (told.is_empty(), setting) {
            (true, None) => Vec::new(),
            (true, Some(setting)) if reaches_us(setting) => Vec::new(),
            (true, Some(setting)) => vec![setting, "console"],
            (false, _) if told.into_iter().any(reaches_us) => Vec::new(),
            (false, _) => vec!["console"],
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

    const HOUR: Duration = Duration::from_secs(60 * 60);
    const RUN: &str = "019356b0-7c4a-7000-8000-000000000001";

    fn argv(text: &str, options: &RunOptions) -> String {
        command(text).argv(RUN.parse().unwrap(), options, HOUR, "/r.yaml", None).join(" ")
    }

    fn tagged(noop: bool) -> RunOptions {
        RunOptions { tags: ["web".parse().unwrap()].into(), noop }
    }

    #[test]
    fn the_default_run_is_one_puppet_agent_with_our_job_id() {
        assert_eq!(
            RunCommand::default()
                .argv(RUN.parse().unwrap(), &RunOptions::default(), HOUR, "", None)
                .join(" "),
            format!(
                "puppet agent --onetime --no-daemonize --detailed-exitcodes --no-usecacheonfailure --no-use_cached_catalog --no-splay --report --verbose --color=false --waitforlock 1 --runtimeout 3660 --maxwaitforlock 600 --job-id {RUN}"
            )
        );
    }

    #[test]
    fn a_tagged_run_keeps_the_notifies_of_what_it_changes() {
        assert_eq!(
            argv("/opt/puppetlabs/bin/puppet apply /etc/site.pp", &tagged(true)),
            "/opt/puppetlabs/bin/puppet apply --detailed-exitcodes --report --verbose --color=false --lastrunreport /r.yaml --noop --tags web,trigger_internal /etc/site.pp"
        );
    }

    #[test]
    fn what_puppet_logs_elsewhere_reaches_our_log_too() {
        let logs = |text: &str, setting: Option<&str>| {
            let argv =
                command(text).argv(RUN.parse().unwrap(), &RunOptions::default(), HOUR, "/r.yaml", setting);
            argv.join(" ").split_once("/r.yaml ").map(|(_, rest)| rest.to_owned()).unwrap()
        };
        let file = Some("/var/log/puppet.log");
        assert_eq!(logs("puppet apply x.pp", None), "x.pp");
        assert_eq!(logs("puppet apply x.pp", file), "--logdest /var/log/puppet.log --logdest console x.pp");
        assert_eq!(logs("puppet apply x.pp", Some("syslog, console")), "x.pp");
        assert_eq!(logs("puppet apply -l /l x.pp", file), "--logdest console -l /l x.pp");
        assert_eq!(logs("puppet apply --logdest=/l,console x.pp", file), "--logdest=/l,console x.pp");
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
                .config_print(&["lastrunreport"], "agent")
                .join(" "),
            "puppet config print lastrunreport --section agent --color=false --confdir /c --vardir /v"
        );
    }

    #[test]
    fn the_wait_for_a_lock_leaves_half_the_run_timeout_for_the_run() {
        let seconds = |timeout| lock_timeout(Duration::from_secs(timeout)).as_secs();
        assert_eq!([1, 60, 20 * 60, 60 * 60].map(seconds), [1, 30, 10 * 60, 10 * 60]);
    }
}
