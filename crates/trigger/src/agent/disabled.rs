//! `puppet agent --disable`: an operator's word that Puppet shall not run on this node. `puppet agent` obeys
//! it by itself, `puppet apply` does not; Trigger obeys it for both, and holds deliveries with the
//! operator's own message.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use trigger_core::run_command::CommandKind;

use super::Node;
use crate::puppet_settings;

/// How often the lock is looked at while deliveries wait for it to go.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long after Puppet did not answer it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// What is known of the lock's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DisabledLock {
    /// Puppet has not told yet.
    Unknown,
    /// The run command is not Puppet, or Puppet did not tell: nothing to look at.
    None,
    /// Here.
    At(PathBuf),
}

#[derive(Deserialize)]
struct Content {
    disabled_message: String,
}

impl DisabledLock {
    /// Why no run may start, if so.
    pub(super) fn reason(&self) -> Option<String> {
        match self {
            Self::Unknown => Some("Puppet has not told yet where it keeps its locks".to_owned()),
            Self::None => None,
            Self::At(path) => match fs::read_to_string(path) {
                Ok(text) => Some(match serde_json::from_str::<Content>(&text) {
                    Ok(content) => format!("Puppet is disabled on this node: {}", content.disabled_message),
                    Err(_) => format!("Puppet is disabled on this node ({})", path.display()),
                }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => {
                    Some(format!("cannot tell whether Puppet is disabled: {}: {error}", path.display()))
                }
            },
        }
    }
}

/// Finds out where the lock is. What Puppet answered before holds until it has answered again; one that
/// does not answer is asked again later.
pub(super) async fn find(node: Arc<Node>, place: watch::Sender<DisabledLock>) {
    let settings = &node.settings;
    if settings.command.kind() == CommandKind::Other {
        place.send_replace(DisabledLock::None);
        return;
    }
    let state_dir = settings.state.path();
    if let Some(paths) = puppet_settings::cached_paths(&settings.command, state_dir) {
        place.send_replace(DisabledLock::At(paths.disabled_lock));
    }
    loop {
        match puppet_settings::ask_paths(&settings.command, &settings.run_environment, state_dir).await {
            Ok(paths) => {
                place.send_replace(DisabledLock::At(paths.disabled_lock));
                return;
            }
            Err(error) => {
                tracing::warn!("whether Puppet is disabled is not looked at before runs: {error:#}");
                // Not for ever: without Puppet's word, runs go on as if it were enabled.
                place.send_if_modified(|known| {
                    let is_unknown = *known == DisabledLock::Unknown;
                    if is_unknown {
                        *known = DisabledLock::None;
                    }
                    is_unknown
                });
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}
