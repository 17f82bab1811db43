//! What only Puppet itself knows: its certname and where it keeps things. Asking costs about a second of
//! Ruby, so the answers are cached in the state folder.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;
use trigger_core::identity::Certname;
use trigger_core::run_command::RunCommand;
use trigger_core::wire::RunRecord;

use crate::state::{read_if_present, write_durably};

/// Puppet that takes longer to tell a setting is not going to.
const PATIENCE: Duration = Duration::from_secs(30);

/// Puppet's own certname for this node.
pub(crate) async fn certname(command: &RunCommand) -> anyhow::Result<Certname> {
    let answer = ask(&command.config_print(&["certname"]), []).await?;
    answer.trim().parse().with_context(|| format!("Puppet's certname '{}' cannot be used", answer.trim()))
}

/// Where this run's Puppet leaves its report; nothing if it cannot be found out.
pub(crate) async fn last_run_report(
    command: &RunCommand,
    record: &RunRecord,
    state_dir: &Path,
) -> Option<PathBuf> {
    let question = command.config_print(&["lastrunreport"]);
    let cache = state_dir.join("puppet-settings");
    let asked = question.join("\u{1f}");
    let cached = read_if_present(&cache).ok().flatten();
    if let Some((known, path)) = cached.as_deref().and_then(|text| text.trim_end().split_once('\n'))
        && known == asked
    {
        return Some(PathBuf::from(path));
    }
    let environment = record.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let answer = match ask(&question, environment).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!("cannot find Puppet's report: {error:#}");
            return None;
        }
    };
    let path = answer.trim();
    if let Err(error) = write_durably(&cache, format!("{asked}\n{path}\n").as_bytes()) {
        tracing::warn!("Puppet will be asked again next time: {error}");
    }
    Some(PathBuf::from(path))
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
