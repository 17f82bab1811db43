//! One node: a configuration, a state directory, possibly an agent, and the commands that an operator runs there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::answer::Answer;
use crate::binary::program;
use crate::pki::Ssl;
use crate::polling::{TIMEOUT, eventually, eventually_within};
use crate::process::Process;

/// A run as its script recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The run's id, from the environment.
    pub run_id: String,
    /// The start in nanoseconds since 1970.
    pub started_at_ns: u128,
    /// The process id of the script.
    pub pid: u32,
    /// The process id of its supervisor.
    pub supervisor: u32,
    /// Whether the script reached its end.
    pub has_ended: bool,
}

/// A node. Its agent ends when it is dropped; its runs end with the [`crate::Fleet`].
#[derive(Debug)]
pub struct Node {
    certname: String,
    directory: PathBuf,
    settings: Vec<(String, String)>,
    /// The variables that its processes have of Trigger.
    variables: Vec<(&'static str, PathBuf)>,
    boot: Option<PathBuf>,
    /// Files that its processes see in the place of the machine's own.
    replaced: Vec<(PathBuf, PathBuf)>,
    agent: Option<Process>,
}

/// Where the kernel shows the id of its boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The default run command: it records its start and its end, and waits between them while the file `hold` exists.
const RUN_SCRIPT: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
echo "start $TRIGGER_RUN_ID $(date +%s%N) $$ $PPID" >>runs
while [ -e hold ]; do sleep 0.02; done
if [ -e then ]; then . ./then; fi
echo "end $TRIGGER_RUN_ID" >>runs
"#;

impl Node {
    /// Makes a node in an existing directory, with no agent yet; `backend` is a URL.
    pub fn new(certname: &str, directory: &Path, backend: &str) -> Self {
        let mut node = Self {
            certname: certname.to_owned(),
            directory: directory.to_owned(),
            settings: Vec::new(),
            variables: Vec::new(),
            boot: None,
            replaced: Vec::new(),
            agent: None,
        };
        let script = node.script("run.sh", RUN_SCRIPT);
        let text = |text: &Path| format!("'{}'", text.display());
        node.settings = vec![
            ("backend".to_owned(), format!("'{backend}'")),
            ("certname".to_owned(), format!("'{certname}'")),
            ("state_dir".to_owned(), text(&directory.join("state"))),
            ("run_cmd".to_owned(), text(&script)),
            // Tests start many runs within a minute; the tests of the rate limit set their own value.
            ("runs_per_minute".to_owned(), "600".to_owned()),
            // It has nothing to sign with until it gets a certificate or a key.
            ("require_signature".to_owned(), "false".to_owned()),
            // A policy is in force everywhere; the tests of the policy set their own rules.
            ("accept".to_owned(), "[{ from = ['web*', '*'] }]".to_owned()),
        ];
        node.write_config();
        node
    }

    /// Returns its certname.
    pub fn certname(&self) -> &str {
        &self.certname
    }

    /// Returns the path of a file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes a file into its directory.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).expect("a file in the node's directory");
        self.path(name)
    }

    /// Writes an executable file into its directory.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable script");
        path
    }

    /// Gives it the files of a certificate, with which it signs and without which it believes nothing from then on.
    pub fn has_certificate(&mut self, ssl: &Ssl) -> &mut Self {
        self.set("tls", &ssl.table()).set("require_signature", "true")
    }

    /// Returns the files of the certificate that it has in a fleet with TLS.
    pub fn ssl(&self) -> Ssl {
        Ssl::at(&self.path("ssl"), &self.certname)
    }

    /// Adds or replaces one setting in its configuration file; the value is TOML.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
        self.write_config();
        self
    }

    /// Removes one setting from its configuration file.
    pub fn unset(&mut self, key: &str) -> &mut Self {
        self.settings.retain(|(known, _)| known != key);
        self.write_config();
        self
    }

    /// Leaves the URL of the backend in its configuration file, and nothing else. Its processes have their state
    /// directory from the environment, because the default one is the machine's own.
    pub fn has_only_a_backend(&mut self) -> &mut Self {
        self.settings.retain(|(known, _)| known == "backend");
        self.variables = vec![("TRIGGER_STATE_DIR", self.path("state"))];
        self.write_config();
        self
    }

    /// Returns the path of its configuration file.
    pub fn config(&self) -> PathBuf {
        self.path("trigger.toml")
    }

    fn write_config(&self) {
        let lines: Vec<String> =
            self.settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        self.write("trigger.toml", &lines.concat());
    }

    // --- its agent ----------------------------------------------------------------------------------

    /// Starts its agent and waits until the agent may run what is fired at it.
    pub fn start_agent(&mut self) {
        self.launch_agent();
        self.wait_until_connected();
    }

    /// Starts its agent without waiting for anything.
    pub fn launch_agent(&mut self) {
        let boot = self.boot.iter().map(|boot| (boot.clone(), PathBuf::from(BOOT_ID)));
        let replaced: Vec<_> = self.replaced.iter().cloned().chain(boot).collect();
        let mut command = with_files(&replaced, self.command(&["agent"]));
        self.agent = Some(Process::start(&mut command, &self.path("agent.log"), "trigger"));
    }

    /// Makes its next agents see a machine that has just booted, as after a power cut, or another machine.
    pub fn restart_machine(&mut self) {
        let boot = format!("00000000-0000-4000-8000-{:012}\n", std::process::id());
        self.boot = Some(self.write("boot_id", &boot));
    }

    /// Makes its processes see another file in the place of the machine's own, which needs root.
    pub fn replace_file(&mut self, path: &str, text: &str) {
        let name = format!("replaced-{}", self.replaced.len());
        self.replaced.push((self.write(&name, text), PathBuf::from(path)));
    }

    /// Makes this node's state directory a copy of another node's current one.
    pub fn copy_state_of(&self, other: &Self) {
        let mut command = Command::new("cp");
        command.arg("--archive").arg(other.path("state")).arg(&self.directory);
        assert!(command.status().expect("cp").success(), "{command:?}");
    }

    /// Waits until its agent is registered and watches the backend.
    pub fn wait_until_connected(&self) {
        eventually(&format!("an agent of {} that is connected", self.certname), || {
            let queue = self.queue();
            let ready = queue["agent_running"] == true
                && queue["disconnected"].is_null()
                && queue["blocked"].is_null();
            if ready { Ok(()) } else { Err(format!("{queue}\n{}", self.latest_log())) }
        });
    }

    /// Waits until its agent says that it has no connection for this reason.
    pub fn wait_until_disconnected(&self, reason: &str) {
        eventually(&format!("an agent of {} that is cut off: {reason}", self.certname), || {
            let queue = self.queue();
            let said = queue["disconnected"].to_string();
            if said.contains(reason) { Ok(()) } else { Err(format!("{queue}\n{}", self.latest_log())) }
        });
    }

    /// Returns its agent's process; panics if none was started.
    pub fn agent(&mut self) -> &mut Process {
        self.agent.as_mut().expect("an agent that was started")
    }

    /// Returns whether an agent was started and not killed since.
    pub fn has_agent(&self) -> bool {
        self.agent.is_some()
    }

    /// Returns the exit code and the latest log lines of an agent that has ended although it should be running.
    pub fn death_of_agent(&mut self) -> Option<String> {
        let agent = self.agent.as_mut()?;
        let code = agent.exit()?;
        Some(format!("the agent of {} ended with {code}; its log:\n{}", self.certname, agent.latest_log()))
    }

    /// Sends SIGKILL to its agent.
    pub fn kill_agent(&mut self) {
        self.agent().kill();
        self.agent = None;
    }

    /// Returns the latest lines that its agents have logged, for an error message.
    fn latest_log(&self) -> String {
        let log = self.agent_log();
        let lines: Vec<&str> = log.lines().rev().take(12).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Returns everything that its agents have logged.
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// Waits until its agents have logged this.
    pub fn wait_for_log(&self, line: &str) {
        eventually(&format!("'{line}' in the log of {}", self.certname), || {
            let log = self.agent_log();
            if log.contains(line) { Ok(()) } else { Err(log) }
        });
    }

    // --- its commands -------------------------------------------------------------------------------

    /// Returns the command `trigger ARGUMENTS` with this node's configuration and without the tester's environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        // The option comes first, because an argument may be `--`.
        command.arg("--config").arg(self.config()).args(arguments).env("PATH", path_with_trigger());
        for name in [
            "BACKEND",
            "CERTNAME",
            "STATE_DIR",
            "CONFIG",
            "RUN_ID",
            "RUN_CMD",
            "RUN_TIMEOUT",
            "RUNS_PER_MINUTE",
            "METRICS_FILE",
        ] {
            command.env_remove(format!("TRIGGER_{name}"));
        }
        command.envs(self.variables.iter().cloned());
        command
    }

    /// Runs `trigger ARGUMENTS` to its end.
    pub fn trigger(&self, arguments: &[&str]) -> Answer {
        self.trigger_reading(arguments, "")
    }

    /// Runs `trigger ARGUMENTS` with this input on its standard input.
    pub fn trigger_reading(&self, arguments: &[&str], input: &str) -> Answer {
        Self::run(with_files(&self.replaced, self.command(arguments)), input)
    }

    fn run(mut command: Command, input: &str) -> Answer {
        let began = Instant::now();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("trigger to start");
        if let Some(mut stdin) = child.stdin.take() {
            // A command that refuses its arguments early does not read all its input.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().expect("trigger to end");
        Answer::of(&output, began.elapsed())
    }

    /// Runs `trigger fire --output json ARGUMENTS`.
    pub fn fire(&self, arguments: &[&str]) -> Answer {
        self.trigger(&[&["fire", "--output", "json"], arguments].concat())
    }

    /// Fires in the same way as the provider of the Puppet type does in a Puppet run that Trigger did not start.
    pub fn fire_from_puppet(&self, arguments: &[&str]) -> Answer {
        let own = ["fire", "--output", "json", "--resource", "/Stage[main]/Main/Trigger[of a manifest]"];
        self.trigger(&[&own, arguments].concat())
    }

    /// Runs `trigger status EVENT --output json`; returns the error message if it fails.
    pub fn status(&self, event: &str) -> Result<Value, String> {
        let answer = self.trigger(&["status", event, "--output", "json"]);
        if answer.code == 0 { Ok(answer.json) } else { Err(format!("{answer:?}")) }
    }

    /// Runs `trigger queue --output json`.
    pub fn queue(&self) -> Value {
        let answer = self.trigger(&["queue", "--output", "json"]);
        assert_eq!(answer.code, 0, "{answer:?}");
        answer.json
    }

    /// Returns the state of an event at one target; null if the event has no such target.
    pub fn delivery(&self, event: &str, certname: &str) -> Value {
        let status = self.status(event).unwrap_or_default();
        let targets = status["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().find(|target| target["certname"] == certname).unwrap_or_default()
    }

    /// Waits until an event has the given state at one target, and returns its delivery.
    pub fn wait_for(&self, event: &str, certname: &str, state: &str) -> Value {
        self.wait_within(TIMEOUT, event, certname, state)
    }

    /// Waits in the same way with another timeout, for slow cases.
    pub fn wait_within(&self, patience: Duration, event: &str, certname: &str, state: &str) -> Value {
        eventually_within(patience, &format!("{event} {state} at {certname}"), || {
            let target = self.delivery(event, certname);
            if target["state"] == state {
                Ok(target)
            } else {
                Err(format!("{target}\n{}", self.latest_log()))
            }
        })
    }

    // --- its runs -----------------------------------------------------------------------------------

    /// Keeps runs from ending until [`Self::release`].
    pub fn hold(&self) {
        self.write("hold", "");
    }

    /// Lets held runs end.
    pub fn release(&self) {
        fs::remove_file(self.path("hold")).expect("a hold to release");
    }

    /// Returns the runs so far, in the order of their starts.
    pub fn runs(&self) -> Vec<Run> {
        let text = fs::read_to_string(self.path("runs")).unwrap_or_default();
        let mut runs: Vec<Run> = Vec::new();
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["start", run_id, at, pid, supervisor] => runs.push(Run {
                    run_id: run_id.to_owned(),
                    started_at_ns: at.parse().expect("nanoseconds"),
                    pid: pid.parse().expect("a pid"),
                    supervisor: supervisor.parse().expect("a pid"),
                    has_ended: false,
                }),
                ["end", run_id] => {
                    runs.iter_mut().filter(|run| run.run_id == run_id).for_each(|run| run.has_ended = true);
                }
                _ => panic!("a run's script wrote '{line}'"),
            }
        }
        runs
    }

    /// Waits until `count` runs have started, and returns them.
    pub fn wait_for_runs(&self, count: usize) -> Vec<Run> {
        eventually(&format!("{count} runs of {}", self.certname), || {
            let runs = self.runs();
            if runs.len() >= count { Ok(runs) } else { Err(format!("{runs:?}\n{}", self.latest_log())) }
        })
    }
}

/// Returns the command with other files in the place of the machine's own, which needs root.
fn with_files(replaced: &[(PathBuf, PathBuf)], command: Command) -> Command {
    if replaced.is_empty() {
        return command;
    }
    let mut isolated = Command::new("unshare");
    isolated.args(["--mount", "sh", "-c"]);
    isolated.arg(
        "while [ \"$1\" != -- ]; do mount --bind \"$1\" \"$2\" || exit; shift 2; done; shift; exec \"$@\"",
    );
    isolated.arg("sh");
    for (file, path) in replaced {
        isolated.arg(file).arg(path);
    }
    isolated.arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => isolated.env(name, value),
            None => isolated.env_remove(name),
        };
    }
    isolated
}

/// Returns the tester's PATH with the program under test first, for scripts and for Puppet.
pub(crate) fn path_with_trigger() -> std::ffi::OsString {
    let mut path = program().parent().expect("a program in a directory").as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    path
}
