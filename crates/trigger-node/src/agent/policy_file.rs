//! Follows the file that has the node's policy.
//!
//! A change applies within seconds, also to what waits, and without a reload. A file that is missing or broken changes
//! nothing: an agent must not accept every event because its rules are being written.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use trigger_core::policy::Policy;

/// How often the agent looks whether the file has changed.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The file that has the node's policy, with the function that reads it.
pub struct PolicyFile {
    path: PathBuf,
    read: Box<dyn Fn() -> Result<Policy, String> + Send>,
}

/// What sets one content of a file apart from another, as far as that shows without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl PolicyFile {
    /// The file at `path`, of which `read` reads and checks the rules; its error is a sentence.
    pub fn new(path: PathBuf, read: impl Fn() -> Result<Policy, String> + Send + 'static) -> Self {
        Self { path, read: Box::new(read) }
    }

    /// Replaces the policy whenever the file has another one. A file is read once it has stayed the same between two
    /// looks, because it may be in the middle of being written.
    pub(super) async fn follow(self, policy: watch::Sender<Policy>) {
        // The settings were read a moment before the first look, so that the file is read once more.
        let mut judged = None;
        let mut seen = self.version();
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let version = self.version();
            let is_settled = version == seen;
            seen = version;
            if is_settled && judged != Some(version) {
                let is_first = judged.is_none();
                judged = Some(version);
                self.judge(version, is_first, &policy);
            }
        }
    }

    fn judge(&self, version: Option<Version>, is_first: bool, policy: &watch::Sender<Policy>) {
        let file = self.path.display();
        let read = match version {
            None if is_first => return,
            None => Err(format!("{file} is gone")),
            Some(_) => (self.read)(),
        };
        match read {
            Ok(read) => {
                let rules = read.rules().len();
                let is_other = policy.send_if_modified(|known| {
                    let is_other = *known != read;
                    *known = read;
                    is_other
                });
                if is_other {
                    tracing::info!(%file, rules, "another policy is in force");
                }
            }
            Err(error) => {
                tracing::warn!(error, "the policy that was read before stays in force");
            }
        }
    }

    fn version(&self) -> Option<Version> {
        version(&self.path).ok()
    }
}

fn version(path: &Path) -> io::Result<Version> {
    let metadata = fs::metadata(path)?;
    Ok(Version {
        file: (metadata.dev(), metadata.ino()),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use trigger_core::policy::{Rule, RuleSettings};

    /// A policy that has as many rules as the file has lines, unless one is `broken`.
    fn file(path: &Path) -> PolicyFile {
        let from = path.to_owned();
        PolicyFile::new(path.to_owned(), move || {
            let text = fs::read_to_string(&from).map_err(|error| error.to_string())?;
            if text.contains("broken") {
                return Err("line 1: broken".to_owned());
            }
            let rules = text.lines().map(|_| Rule::new(RuleSettings::default()).unwrap());
            Ok(Policy::new("file", rules.collect()))
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_another_policy_and_a_broken_or_missing_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trigger.toml");
        fs::write(&path, "one\n").unwrap();
        let (policy_in, mut policy) = watch::channel(Policy::default());
        let following = tokio::spawn(file(&path).follow(policy_in));
        policy.changed().await.unwrap();
        assert_eq!(policy.borrow_and_update().rules().len(), 1, "the first look reads");

        for keeps in ["broken", "gone"] {
            match keeps {
                "gone" => fs::remove_file(&path).unwrap(),
                text => fs::write(&path, text).unwrap(),
            }
            tokio::time::sleep(10 * CHECK_INTERVAL).await;
            assert!(!policy.has_changed().unwrap(), "{keeps}");
        }
        fs::write(&path, "one\ntwo\n").unwrap();
        policy.changed().await.unwrap();
        assert_eq!(policy.borrow_and_update().rules().len(), 2);
        following.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_not_read_while_it_is_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trigger.toml");
        let (policy_in, policy) = watch::channel(Policy::default());
        let following = tokio::spawn(file(&path).follow(policy_in));
        for lines in 1..10 {
            fs::write(&path, "x\n".repeat(lines)).unwrap();
            tokio::time::sleep(CHECK_INTERVAL).await;
            assert!(!policy.has_changed().unwrap(), "{lines}");
        }
        following.abort();
    }
}
