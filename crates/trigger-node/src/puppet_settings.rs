//! Asks Puppet for settings that only Puppet itself knows: its certname and its paths. Each question costs about a
//! second of Ruby, so the answers are cached in the state directory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;
use trigger_core::identity::{Certname, InvalidName};
use trigger_core::run::command::{CommandKind, RunCommand};

use crate::os::Os;
use crate::start_error;
use crate::state::{read_if_present, write_durably};

/// How long Puppet may take to print its settings.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Puppet did not report its settings.
#[derive(Debug, thiserror::Error)]
pub enum PuppetSettingsError {
    /// Puppet cannot be started.
    #[error("cannot run '{command}': {reason}")]
    Run {
        /// The command with its arguments.
        command: String,
        /// What is missing, a sentence.
        reason: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Puppet takes too long.
    #[error("'{command}' did not answer within {TIMEOUT:?}")]
    NoAnswer {
        /// The command with its arguments.
        command: String,
    },
    /// Puppet failed.
    #[error("'{command}' failed ({status}): {stderr}")]
    Failed {
        /// The command with its arguments.
        command: String,
        /// How Puppet ended.
        status: ExitStatus,
        /// What Puppet wrote to standard error.
        stderr: String,
    },
    /// Puppet's answer lacks a setting.
    #[error("Puppet's answer is unclear: {answer}")]
    Unclear {
        /// What Puppet wrote to standard output.
        answer: String,
    },
    /// Puppet's certname is not one that Trigger can use.
    #[error("Puppet's certname '{certname}' cannot be used: {source}")]
    Certname {
        /// The name.
        certname: String,
        /// What is wrong with it.
        source: InvalidName,
    },
}

/// Asks Puppet for its own certname for this node. The answer is not cached.
///
/// # Errors
/// Those of starting Puppet and of its answer, or [`PuppetSettingsError::Certname`] if Trigger cannot use the name.
pub async fn certname(command: &RunCommand) -> Result<Certname, PuppetSettingsError> {
    let answer = ask(&command.config_print(&["certname"], "agent"), &BTreeMap::new()).await?;
    let certname = answer.trim();
    certname.parse().map_err(|source| PuppetSettingsError::Certname { certname: certname.to_owned(), source })
}

/// The paths of Puppet's files that Trigger reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PuppetPaths {
    /// The report of the last run.
    pub last_run_report: PathBuf,
    /// Present while an operator has disabled Puppet on this node.
    pub disabled_lock: PathBuf,
    /// Holds the process id of the `puppet agent` whose run is in progress.
    pub run_lock: PathBuf,
    /// Puppet's `puppet.conf`, which may change all of these.
    pub config: PathBuf,
    /// The log destinations that `puppet.conf` sets, if it sets any.
    pub logdest: Option<String>,
}

impl PuppetPaths {
    /// Parses `setting = value` lines, the format in which Puppet prints more than one setting.
    fn parse(answer: &str) -> Option<Self> {
        let value = |setting: &str| {
            let mut pairs = answer.lines().filter_map(|line| line.split_once(" ="));
            pairs.find(|(name, _)| *name == setting).map(|(_, value)| value.trim())
        };
        let path = |setting| value(setting).map(PathBuf::from);
        Some(Self {
            last_run_report: path("lastrunreport")?,
            disabled_lock: path("agent_disabled_lockfile")?,
            run_lock: path("agent_catalog_run_lockfile")?,
            config: path("config")?,
            logdest: value("logdest").filter(|value| !value.is_empty()).map(str::to_owned),
        })
    }
}

/// Returns the commands that print the settings. The locks and the report are those of `puppet agent`, whatever the run
/// command is, whereas the log destination of `puppet apply` is in another section. Each command asks for more than one
/// setting, because Puppet prints a single one without its name.
fn questions(command: &RunCommand) -> Vec<Vec<String>> {
    let agents = ["agent_catalog_run_lockfile", "agent_disabled_lockfile", "lastrunreport"];
    let own = ["config", "logdest"];
    match command.kind() {
        CommandKind::PuppetApply => {
            vec![command.config_print(&agents, "agent"), command.config_print(&own, "user")]
        }
        _ => vec![command.config_print(&[agents.as_slice(), &own].concat(), "agent")],
    }
}

/// Returns the first line of the cache, which identifies the commands: another run command may start another Puppet.
fn asked(questions: &[Vec<String>]) -> String {
    let questions: Vec<String> = questions.iter().map(|argv| argv.join("\u{1f}")).collect();
    format!("{}\n", questions.join("\u{1e}"))
}

fn cache(state_dir: &Path) -> PathBuf {
    state_dir.join("puppet-settings")
}

/// Returns the cached paths of this run command's Puppet, or `None` if that Puppet has not been asked yet.
pub fn cached_paths(command: &RunCommand, state_dir: &Path) -> Option<PuppetPaths> {
    let text = read_if_present(&Os::start(), &cache(state_dir)).ok().flatten()?;
    PuppetPaths::parse(text.strip_prefix(&asked(&questions(command)))?)
}

/// Asks Puppet for its paths and caches the answer. The paths change when an operator edits `puppet.conf` or installs
/// another vendor's packages. A cache that cannot be written is logged and is no error.
///
/// # Errors
/// Those of starting Puppet, or [`PuppetSettingsError::Unclear`] if the answer lacks a setting.
pub async fn ask_paths(
    command: &RunCommand,
    environment: &BTreeMap<String, String>,
    state_dir: &Path,
) -> Result<PuppetPaths, PuppetSettingsError> {
    let questions = questions(command);
    let mut answer = String::new();
    for argv in &questions {
        answer.push_str(&ask(argv, environment).await?);
    }
    let paths = PuppetPaths::parse(&answer)
        .ok_or_else(|| PuppetSettingsError::Unclear { answer: answer.trim().to_owned() })?;
    let text = format!("{}{answer}", asked(&questions));
    if let Err(error) = write_durably(&Os::start(), &cache(state_dir), text.as_bytes()) {
        tracing::warn!(%error, "cannot cache Puppet's settings");
    }
    Ok(paths)
}

async fn ask(argv: &[String], environment: &BTreeMap<String, String>) -> Result<String, PuppetSettingsError> {
    let command = argv.join(" ");
    let output = Command::new(&argv[0])
        .args(&argv[1..])
        .envs(environment)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(TIMEOUT, output).await {
        Ok(Ok(output)) => output,
        Ok(Err(source)) => {
            let reason = start_error::describe(&argv[0], &source, Path::new("."), environment);
            return Err(PuppetSettingsError::Run { command, reason, source });
        }
        Err(_) => return Err(PuppetSettingsError::NoAnswer { command }),
    };
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(PuppetSettingsError::Failed { command, status: output.status, stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_puppet_answers_is_read_and_an_empty_setting_is_none() {
        let answer = "agent_catalog_run_lockfile = /s/run.lock\nagent_disabled_lockfile = /s/disabled.lock\n\
                      lastrunreport = /s/report.yaml\nconfig = /etc/puppet/puppet.conf\nlogdest = ";
        let paths = PuppetPaths::parse(answer).unwrap();
        assert_eq!(paths.run_lock, Path::new("/s/run.lock"));
        assert_eq!(paths.config, Path::new("/etc/puppet/puppet.conf"));
        assert_eq!(paths.logdest, None);
        let paths = PuppetPaths::parse(&format!("{answer}/var/log/a = b.log,console\n")).unwrap();
        assert_eq!(paths.logdest.as_deref(), Some("/var/log/a = b.log,console"));
        assert_eq!(PuppetPaths::parse("logdest = x\n"), None);
    }

    #[test]
    fn an_apply_logs_where_another_section_says() {
        let questions = |words: &[&str]| {
            let command = RunCommand::from_words(words.iter().map(|&word| word.to_owned()).collect());
            questions(&command.unwrap()).iter().map(|argv| argv.join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(questions(&["puppet", "agent"]).len(), 1);
        let [locks, log] = &questions(&["puppet", "apply", "x.pp"])[..] else { panic!("two questions") };
        assert!(locks.contains("agent_disabled_lockfile lastrunreport --section agent"), "{locks}");
        assert!(log.contains("config logdest --section user"), "{log}");
    }
}
