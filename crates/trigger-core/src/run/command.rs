//! The run command of a node, and the argument vector of a run (C8, C9).
//!
//! The words come from the node's own configuration, and an event contributes typed options only. Nothing passes
//! through a shell, neither here nor later.

mod doubts;
mod kind;
mod limits;
mod options;
mod out_of_sight;
mod refusal;
mod wrapper_exit;
mod wrappers;

use std::time::Duration;

pub use self::doubts::WORKING_DIRECTORY;
pub use self::kind::CommandKind;
pub use self::limits::TagSettings;
pub use self::wrapper_exit::WrapperExit;
use crate::event::RunOptions;
use crate::identity::RunId;

/// The tag of every `trigger` resource. Every tagged run asks for it too, so that a run limited to some tags does not
/// drop the notifications of the resources that it changes.
pub const PRIVATE_TAG: &str = "trigger_internal";

/// Flags of a `puppet agent` run which the operator's own words may override.
///
/// - `--waitforlock`, because a run that is already active never counts: the run waits for it and fetches its catalog
///   while it holds the lock;
/// - `--verbose` rather than `--test`, which includes `--show_diff` and so leaks file contents.
const AGENT_DEFAULTS: [&str; 4] = ["--no-splay", "--verbose", "--waitforlock", "1"];

/// Flags of a `puppet agent` run which nothing may override, so they come last: Puppet takes the last of several.
///
/// - `--onetime` and `--no-daemonize`, because the supervisor waits for the run's end;
/// - `--no-usecacheonfailure`, because a catalog from before the event proves nothing (C2);
/// - `--report`, because the outcome is read from the report (C9);
/// - `--color=false`, because the reason quotes the output.
const AGENT_FLAGS: [&str; 7] = [
    "--onetime",
    "--no-daemonize",
    "--detailed-exitcodes",
    "--no-usecacheonfailure",
    "--no-use_cached_catalog",
    "--report",
    "--color=false",
];

/// With an event's environment, it fails the run of `puppet agent` in which the server does not have that one, or the node's
/// classifier insists on another: Puppet would apply the catalog of that one instead. `puppet apply` has nothing like it.
const STRICT_ENVIRONMENT: &str = "--strict_environment_mode";

/// The same for a `puppet apply` run.
const APPLY_FLAGS: [&str; 3] = ["--detailed-exitcodes", "--report", "--color=false"];

/// The first of the flags that come last. It is harmless: if the operator's last word is an option whose value is
/// missing, Puppet takes this for the value.
const GUARD: &str = "--verbose";

/// Ends the options among the words of a command. All that follows is a file or another operand.
const END_OF_OPTIONS: &str = "--";

/// How much later than its supervisor Puppet ends a run by itself (`runtimeout`). The setting is for a run whose
/// supervisor was killed: a run that Puppet ends looks as if it could not happen, so the supervisor should be first.
/// Puppet counts from the moment when it has its lock (`Puppet::Agent#run`). The supervisor counts from the start of the
/// run without the wait for the lock, which it knows to about a second.
const RUNTIMEOUT_LATER: Duration = Duration::from_secs(60);

/// The longest wait for the lock of a run that Trigger did not start.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How long a run waits for Puppet's lock before it gives up and is repeated later. Even where the wait counts towards
/// the run timeout, half of the timeout is left for the run.
pub fn lock_timeout(timeout: Duration) -> Duration {
    LOCK_TIMEOUT.min(timeout / 2).max(Duration::from_secs(1))
}

/// A node's run command, recognised by its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunCommand {
    kind: CommandKind,
    /// The words of `nice`, `sudo` and the like in front of the program.
    wrappers: Vec<String>,
    /// Those of these words that can change Puppet's settings.
    settings_wrappers: Vec<String>,
    /// The words up to and including the subcommand.
    program: Vec<String>,
    /// The operator's words after it.
    arguments: Vec<String>,
}

impl Default for RunCommand {
    fn default() -> Self {
        Self {
            kind: CommandKind::PuppetAgent,
            wrappers: Vec::new(),
            settings_wrappers: Vec::new(),
            program: vec!["puppet".to_owned(), "agent".to_owned()],
            arguments: Vec::new(),
        }
    }
}

impl RunCommand {
    /// Recognises a command by its words, also behind wrappers such as `nice` and `sudo`; absent where there are no words.
    /// A Puppet whose settings, locks and report are out of sight behind its wrappers is another command.
    /// Assignments in front, as a shell takes them, are given to `env`.
    pub fn from_words(mut words: Vec<String>) -> Option<Self> {
        if wrappers::is_assignment(words.first()?) {
            words.insert(0, "env".to_owned());
        }
        let wrapped = wrappers::wrapped(&words);
        let kind = puppet_kind(&words[wrapped.words..]);
        let kind = kind.filter(|kind| out_of_sight::out_of_sight(&wrapped, &words, *kind).is_none());
        let Some(kind) = kind else {
            let arguments = words.split_off(1);
            let (wrappers, settings_wrappers) = (Vec::new(), Vec::new());
            let kind = CommandKind::Other;
            return Some(Self { kind, wrappers, settings_wrappers, program: words, arguments });
        };
        let settings_wrappers =
            wrapped.settings.iter().flat_map(|range| words[range.clone()].iter().cloned()).collect();
        let mut program = words.split_off(wrapped.words);
        let arguments = program.split_off(2);
        Some(Self { kind, wrappers: words, settings_wrappers, program, arguments })
    }

    /// The kind of the command.
    pub fn kind(&self) -> CommandKind {
        self.kind
    }

    /// The first word: the program that must exist for a run to start.
    pub fn executable(&self) -> &str {
        self.wrappers.iter().chain(&self.program).next().map_or("", String::as_str)
    }

    /// The command as the operator configured it.
    pub fn words(&self) -> Vec<String> {
        [self.wrappers.as_slice(), self.program.as_slice(), self.arguments.as_slice()].concat()
    }

    /// The command that prints `settings` as this Puppet has them in a section of its `puppet.conf`, with those flags of
    /// the run command that override them, and behind those wrappers that can change them.
    pub fn config_print(&self, settings: &[&str], section: &str) -> Vec<String> {
        let puppet = self.program.first().filter(|_| self.kind != CommandKind::Other);
        let puppet = puppet.map_or("puppet", String::as_str);
        let mut words = self.settings_wrappers.clone();
        words.extend([puppet, "config", "print"].map(str::to_owned));
        words.extend(settings.iter().map(|&setting| setting.to_owned()));
        words.extend(["--section".to_owned(), section.to_owned(), "--color=false".to_owned()]);
        let mut arguments = self.arguments.iter().peekable();
        while let Some(argument) = arguments.next() {
            let (flag, value) =
                argument.split_once('=').map_or((argument.as_str(), None), |(f, v)| (f, Some(v)));
            if !options::OVERRIDES.iter().any(|name| options::is_whole(flag, name)) {
                continue;
            }
            if let Some(value) = value.or_else(|| arguments.peek().map(|word| word.as_str())) {
                words.extend([flag.to_owned(), value.to_owned()]);
            }
        }
        words
    }

    /// The argument vector of a run. `timeout` is the longest time that the run may take, `report` the file to which
    /// `puppet apply` is to write its report, and `logdest` the log destination in Puppet's own settings.
    ///
    /// The operator's words may override the flags before them and none of those after them. A noop event stays one
    /// whatever these words are.
    pub fn argv(
        &self,
        run: RunId,
        options: &RunOptions,
        timeout: Duration,
        report: &str,
        logdest: Option<&str>,
    ) -> Vec<String> {
        let mut argv = Vec::new();
        for word in &self.wrappers {
            argv.push(word.clone());
            // A run leads its process group, and then setsid forks and returns before its command ends.
            if word.rsplit('/').next() == Some("setsid") {
                argv.push("--wait".to_owned());
            }
        }
        argv.extend(self.program.iter().cloned());
        if self.kind == CommandKind::Other {
            argv.extend(self.arguments.iter().cloned());
            return argv;
        }
        let mut add = |words: &[&str]| argv.extend(words.iter().map(|&word| word.to_owned()));
        if self.kind == CommandKind::PuppetAgent {
            let seconds = |time: Duration| time.as_secs().to_string();
            add(&AGENT_DEFAULTS);
            add(&["--runtimeout", &seconds(timeout + RUNTIMEOUT_LATER)]);
            add(&["--maxwaitforlock", &seconds(lock_timeout(timeout))]);
        }
        if options.is_tagged() {
            let tags: Vec<&str> = options.tags.iter().map(|tag| tag.as_str()).chain([PRIVATE_TAG]).collect();
            add(&["--tags", &tags.join(",")]);
        }
        for destination in self.log_destinations(logdest) {
            add(&["--logdest", destination]);
        }
        let (own, operands) = self.options_and_operands();
        add(&own.iter().map(String::as_str).collect::<Vec<_>>());
        add(&[GUARD]);
        match self.kind {
            CommandKind::PuppetAgent => {
                add(&AGENT_FLAGS);
                add(&["--job-id", &run.to_string()]);
            }
            _ => {
                add(&APPLY_FLAGS);
                add(&["--lastrunreport", report]);
            }
        }
        if options.noop {
            add(&["--noop"]);
        }
        if let Some(environment) = &options.environment {
            add(&["--environment", environment.as_str(), STRICT_ENVIRONMENT]);
        }
        add(&operands.iter().map(String::as_str).collect::<Vec<_>>());
        argv
    }

    /// The operator's words before the mark that ends the options, and the rest from this mark on. Operands may be among
    /// the former too.
    fn options_and_operands(&self) -> (&[String], &[String]) {
        let end = self.arguments.iter().position(|word| word == END_OF_OPTIONS);
        self.arguments.split_at(end.unwrap_or(self.arguments.len()))
    }

    /// The log destinations to add to those in the operator's words, so that Puppet's output reaches the run's log. A
    /// `--logdest` replaces the setting; several of them add up.
    fn log_destinations<'a>(&self, setting: Option<&'a str>) -> Vec<&'a str> {
        let words = self.arguments.windows(2).filter(|pair| pair[0] == "--logdest" || pair[0] == "-l");
        let joined = self.arguments.iter().filter_map(|word| {
            let short = word.strip_prefix("-l").filter(|rest| !rest.is_empty());
            short.or_else(|| word.strip_prefix("--logdest="))
        });
        let configured: Vec<&str> = words.map(|pair| pair[1].as_str()).chain(joined).collect();
        let includes_console =
            |destination: &str| destination.split(',').any(|part| part.trim() == "console");
        match (configured.is_empty(), setting) {
            (true, None) => Vec::new(),
            (true, Some(setting)) if includes_console(setting) => Vec::new(),
            (true, Some(setting)) => vec![setting, "console"],
            (false, _) if configured.into_iter().any(includes_console) => Vec::new(),
            (false, _) => vec!["console"],
        }
    }
}

/// The kind of Puppet's run that a command without its wrappers is, if it is one.
fn puppet_kind(words: &[String]) -> Option<CommandKind> {
    let program = words.first().and_then(|word| word.rsplit('/').next());
    match (program, words.get(1).map(String::as_str)) {
        (Some("puppet"), Some("agent")) => Some(CommandKind::PuppetAgent),
        (Some("puppet"), Some("apply")) => Some(CommandKind::PuppetApply),
        _ => None,
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
        RunOptions { tags: ["web".parse().unwrap()].into(), noop, ..RunOptions::default() }
    }

    #[test]
    fn the_default_run_is_one_puppet_agent_with_our_job_id() {
        assert_eq!(
            RunCommand::default()
                .argv(RUN.parse().unwrap(), &RunOptions::default(), HOUR, "", None)
                .join(" "),
            format!(
                "puppet agent --no-splay --verbose --waitforlock 1 --runtimeout 3660 --maxwaitforlock 600 --verbose --onetime --no-daemonize --detailed-exitcodes --no-usecacheonfailure --no-use_cached_catalog --report --color=false --job-id {RUN}"
            )
        );
    }

    #[test]
    fn a_puppet_behind_wrappers_gets_its_options_where_it_stands() {
        for wrappers in ["nice", "env LC_ALL=C.UTF-8", "sudo -u root -- timeout -k 5 1h ionice -c3"] {
            let text = format!("{wrappers} /opt/puppetlabs/bin/puppet apply /etc/site.pp");
            assert_eq!(
                argv(&text, &tagged(true)),
                format!(
                    "{wrappers} /opt/puppetlabs/bin/puppet apply --tags web,trigger_internal /etc/site.pp --verbose --detailed-exitcodes --report --color=false --lastrunreport /r.yaml --noop"
                )
            );
            assert_eq!(command(&text).words(), words(&text));
            assert_eq!(command(&text).executable(), words(wrappers)[0]);
        }
        let agent = argv("nice puppet agent -t", &RunOptions::default());
        assert!(
            agent.starts_with("nice puppet agent --no-splay ")
                && agent.contains(" -t --verbose --onetime ")
                && agent.ends_with(&format!("--job-id {RUN}"))
        );
        let session = argv("/usr/bin/setsid puppet agent", &RunOptions::default());
        assert!(session.starts_with("/usr/bin/setsid --wait puppet agent --no-splay"), "{session}");
    }

    #[test]
    fn assignments_in_front_are_given_to_env() {
        let agent = command("LC_ALL=C.UTF-8 puppet agent");
        assert_eq!((agent.kind(), agent.executable()), (CommandKind::PuppetAgent, "env"));
        // The record of a run has these words, and the supervisor reads them again.
        assert_eq!(agent.words().join(" "), "env LC_ALL=C.UTF-8 puppet agent");
        assert_eq!(RunCommand::from_words(agent.words()), Some(agent));
    }

    #[test]
    fn a_wrapper_without_puppet_is_another_command() {
        for text in
            ["nice /usr/bin/converge now", "env A=b", "sudo", "nice puppet", "timeout 5 puppet resource x"]
        {
            assert_eq!(command(text).kind(), CommandKind::Other, "{text}");
            assert_eq!(argv(text, &tagged(false)), text);
            assert_eq!(command(text).words(), words(text));
        }
    }

    #[test]
    fn a_tagged_run_keeps_the_notifies_of_what_it_changes() {
        assert_eq!(
            argv("/opt/puppetlabs/bin/puppet apply /etc/site.pp", &tagged(true)),
            "/opt/puppetlabs/bin/puppet apply --tags web,trigger_internal /etc/site.pp --verbose --detailed-exitcodes --report --color=false --lastrunreport /r.yaml --noop"
        );
    }

    #[test]
    fn output_that_puppet_logs_elsewhere_reaches_the_run_log_too() {
        let logs = |text: &str, setting: Option<&str>| {
            let argv =
                command(text).argv(RUN.parse().unwrap(), &RunOptions::default(), HOUR, "/r.yaml", setting);
            let argv = argv.join(" ");
            let (words, _) = argv.split_once(" --verbose").unwrap();
            words.strip_prefix("puppet apply ").unwrap().to_owned()
        };
        let file = Some("/var/log/puppet.log");
        assert_eq!(logs("puppet apply x.pp", None), "x.pp");
        assert_eq!(logs("puppet apply x.pp", file), "--logdest /var/log/puppet.log --logdest console x.pp");
        assert_eq!(logs("puppet apply x.pp", Some("syslog, console")), "x.pp");
        assert_eq!(logs("puppet apply -l /l x.pp", file), "--logdest console -l /l x.pp");
        assert_eq!(logs("puppet apply --logdest=/l,console x.pp", file), "--logdest=/l,console x.pp");
        assert_eq!(logs("puppet apply -l/l x.pp", file), "--logdest console -l/l x.pp");
    }

    #[test]
    fn another_command_runs_as_written() {
        assert_eq!(argv("/usr/bin/converge now", &tagged(false)), "/usr/bin/converge now");
        assert_eq!(RunCommand::from_words(Vec::new()), None);
    }

    #[test]
    fn the_operators_words_override_no_flag_that_the_outcome_needs() {
        let after = |text: &str, noop: bool| {
            let options = RunOptions { noop, ..RunOptions::default() };
            let argv = argv(text, &options);
            let (_, ours) = argv.rsplit_once(" --verbose ").unwrap();
            ours.to_owned()
        };
        let report = "--detailed-exitcodes --report --color=false --lastrunreport /r.yaml";
        for text in [
            "puppet apply --lastrunreport /x --no-report x.pp",
            "puppet apply x.pp --lastrunreport=/x --report=false",
        ] {
            assert_eq!(after(text, false), report);
        }
        assert_eq!(after("puppet apply --no-noop x.pp", true), format!("{report} --noop"));
        let agent = after("puppet agent --job-id=7 --daemonize --no-onetime --usecacheonfailure", true);
        for flag in
            [&format!("--job-id {RUN}"), "--no-daemonize", "--onetime", "--no-usecacheonfailure", "--noop"]
        {
            assert!(agent.contains(flag), "{flag}: {agent}");
        }
        assert_eq!(after("puppet apply -- -x.pp --noop", false), format!("{report} -- -x.pp --noop"));
        // These are the operator's to choose.
        let agent = argv("puppet agent --waitforlock 0 --runtimeout 9", &RunOptions::default());
        assert!(agent.find("--waitforlock 1") < agent.find("--waitforlock 0"), "{agent}");
        assert!(agent.ends_with(RUN) && agent.contains("--runtimeout 9 --verbose"), "{agent}");
    }

    #[test]
    fn the_environment_of_an_event_replaces_the_operators() {
        let options =
            RunOptions { environment: Some("feature_42".parse().unwrap()), ..RunOptions::default() };
        let agent = argv("puppet agent --environment test --no-strict_environment_mode", &options);
        assert!(
            agent.contains(" --environment test --no-strict_environment_mode --verbose ")
                && agent
                    .ends_with(&format!("--job-id {RUN} --environment feature_42 --strict_environment_mode")),
            "{agent}"
        );
        assert_eq!(argv("/usr/bin/converge now", &options), "/usr/bin/converge now");
        assert!(!argv("puppet agent", &RunOptions::default()).contains("environment"));
    }

    #[test]
    fn an_option_with_which_puppet_does_not_run_is_found() {
        for (text, option) in [
            ("puppet agent -t --disable=why", Some("--disable=why")),
            ("puppet apply --configprint all x.pp", Some("--configprint")),
            ("puppet agent -V", Some("-V")),
            ("puppet agent -t --no-daemonize", None),
            ("puppet apply -- -h", None),
            ("other --help", None),
        ] {
            assert_eq!(command(text).option_without_a_run(), option, "{text}");
        }
    }

    #[test]
    fn settings_are_printed_with_the_flags_that_override_them() {
        assert_eq!(
            command("puppet agent --confdir /c --vardir=/v --server x")
                .config_print(&["lastrunreport"], "agent")
                .join(" "),
            "puppet config print lastrunreport --section agent --color=false --confdir /c --vardir /v"
        );
        // A lock would be waited for, and a limit is for the run; another user has other settings.
        assert_eq!(
            command("flock /l sudo -u x timeout 5 env HOME=/h /p/puppet agent --vardir=/v")
                .config_print(&["lastrunreport"], "agent")
                .join(" "),
            "sudo -u x env HOME=/h /p/puppet config print lastrunreport --section agent --color=false --vardir /v"
        );
    }

    #[test]
    fn the_wait_for_a_lock_leaves_half_the_run_timeout_for_the_run() {
        let seconds = |timeout| lock_timeout(Duration::from_secs(timeout)).as_secs();
        assert_eq!([1, 60, 20 * 60, 60 * 60].map(seconds), [1, 30, 10 * 60, 10 * 60]);
    }
}
