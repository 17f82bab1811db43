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
}

/// The settings that are those paths, in the order in which Puppet prints them.
const PATH_SETTINGS: [&str; 2] = ["agent_disabled_lockfile", "lastrunreport"];

impl PuppetPaths {
    /// Reads `setting = value` lines, as Puppet prints more than one setting.
    fn parse(answer: &str) -> Option<Self> {
        let value = |setting: &str| {
            let mut pairs = answer.lines().filter_map(|line| line.split_once(" = "));
            pairs.find(|(name, _)| *name == setting).map(|(_, value)| PathBuf::from(value.trim()))
        };
        let [disabled_lock, last_run_report] = PATH_SETTINGS.map(value);
        Some(Self { last_run_report: last_run_report?, disabled_lock: disabled_lock? })
    }
}

/// Where the Puppet of this run command keeps things, as it answered before or answers now.
pub(crate) async fn paths(
    command: &RunCommand,
    environment: &BTreeMap<String, String>,
    state_dir: &Path,
) -> anyhow::Result<PuppetPaths> {
    let question = command.config_print(&PATH_SETTINGS);
    let cache = state_dir.join("puppet-settings");
    // Another run command may be another Puppet: the answer is only good for the question.
    let asked = format!("{}\n", question.join("\u{1f}"));
    let cached = read_if_present(&cache).ok().flatten();
    if let Some(paths) = cached.as_deref().and_then(|text| PuppetPaths::parse(text.strip_prefix(&asked)?)) {
        return Ok(paths);
    }
    let environment = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let answer = ask(&question, environment).await?;
    let paths = PuppetPaths::parse(&answer)
        .with_context(|| format!("Puppet's answer is unclear: {}", answer.trim()))?;
    if let Err(error) = write_durably(&cache, format!("{asked}{answer}").as_bytes()) {
        tracing::warn!("Puppet will be asked again next time: {error}");
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
