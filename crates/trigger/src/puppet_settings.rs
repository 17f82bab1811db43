//! What only Puppet itself knows: its certname and where it keeps things. Asking costs about a second of
//! Ruby, so the answers are cached in the state folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;
use trigger_core::identity::Certname;
use trigger_core::run_command::RunCommand;

use crate::state::{read_if_present, write_durably};

/// Puppet that takes longer to tell a setting is not going to.
const PATIENCE: Duration = Duration::from_secs(30);

/// Puppet's own certname for this node.
pub(crate) async fn certname(command: &RunCommand) -> anyhow::Result<Certname> {
    let answer = ask(&command.config_print(&["certname"]), []).await?;
    answer.trim().parse().with_context(|| format!("Puppet's certname '{}' cannot be used", answer.trim()))
}

/// Where Puppet keeps what we look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PuppetPaths {
    /// The report of the last run.
    pub(crate) last_run_report: PathBuf,
    /// Present while an operator has disabled Puppet on this node.
    pub(crate) disabled_lock: PathBuf,
    /// Names the process id of the `puppet agent` whose run is in progress.
    pub(crate) run_lock: PathBuf,
}

/// The settings that are those paths, in the order in which Puppet prints them.
const PATH_SETTINGS: [&str; 3] = ["agent_catalog_run_lockfile", "agent_disabled_lockfile", "lastrunreport"];

impl PuppetPaths {
    /// Reads `setting = value` lines, as Puppet prints more than one setting.
    fn parse(answer: &str) -> Option<Self> {
        let value = |setting: &str| {
            let mut pairs = answer.lines().filter_map(|line| line.split_once(" = "));
            pairs.find(|(name, _)| *name == setting).map(|(_, value)| PathBuf::from(value.trim()))
        };
        let [run_lock, disabled_lock, last_run_report] = PATH_SETTINGS.map(value);
        Some(Self { last_run_report: last_run_report?, disabled_lock: disabled_lock?, run_lock: run_lock? })
    }
}

/// The question, as the cache remembers it: another run command may be another Puppet.
fn question(command: &RunCommand) -> (Vec<String>, String) {
    let argv = command.config_print(&PATH_SETTINGS);
    let asked = format!("{}\n", argv.join("\u{1f}"));
    (argv, asked)
}

fn cache(state_dir: &Path) -> PathBuf {
    state_dir.join("puppet-settings")
}

/// Where the Puppet of this run command kept things when it was last asked.
pub(crate) fn cached_paths(command: &RunCommand, state_dir: &Path) -> Option<PuppetPaths> {
    let text = read_if_present(&cache(state_dir)).ok().flatten()?;
    PuppetPaths::parse(text.strip_prefix(&question(command).1)?)
}

/// Asks Puppet where it keeps things, and remembers the answer: it moves when somebody edits `puppet.conf`
/// or changes to another vendor's packages.
pub(crate) async fn ask_paths(
    command: &RunCommand,
    environment: &BTreeMap<String, String>,
    state_dir: &Path,
) -> anyhow::Result<PuppetPaths> {
    let (argv, asked) = question(command);
    let environment = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let answer = ask(&argv, environment).await?;
    let paths = PuppetPaths::parse(&answer)
        .with_context(|| format!("Puppet's answer is unclear: {}", answer.trim()))?;
    if let Err(error) = write_durably(&cache(state_dir), format!("{asked}{answer}").as_bytes()) {
        tracing::warn!("Puppet's answer cannot be remembered: {error}");
    }
    Ok(paths)
}

async fn ask<'a>(
    argv: &[String],
    environment: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> anyhow::Result<String> {
    let command = argv.join(" ");
    let output = Command::new(&argv[0])
        .args(&argv[1..])
        .envs(environment)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .with_context(|| format!("'{command}' did not answer within {PATIENCE:?}"))?
        .with_context(|| format!("cannot run '{command}'"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("'{command}' failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
