//! Writes the agent's metrics to a file for node_exporter's textfile collector. An agent listens on no port, so that no
//! port has to be opened, protected or scraped on each node.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use trigger_fleet::claim::ClaimState;

use super::Service;
use super::connection::Connection;
use crate::os::Os;
use crate::state::Outbox;

/// How often the metrics are compared with the file, which is written when they have changed.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The file is written at least this often, so that its age shows whether the agent is alive.
const MAX_WRITE_INTERVAL: Duration = Duration::from_secs(60);

pub(super) async fn run(service: Arc<Service<Os>>, path: PathBuf) {
    let Service { node, outbox, link, claim, .. } = service.as_ref();
    let mut written: Option<(String, Instant)> = None;
    let mut is_failing = false;
    loop {
        let is_connected = *link.borrow() == Connection::Up;
        node.metrics.backend(is_connected, matches!(*claim.borrow(), ClaimState::Held { .. }));
        if let Some((spooled, quarantined)) = count(outbox) {
            node.metrics.outbox(spooled, quarantined);
        }
        let text = node.metrics.text();
        let is_due =
            written.as_ref().is_none_or(|(last, at)| *last != text || at.elapsed() >= MAX_WRITE_INTERVAL);
        if is_due {
            // On a thread of its own: the collector's directory may be on a file system that does not answer.
            let (file, content) = (path.clone(), text.clone());
            let replaced = tokio::task::spawn_blocking(move || replace(&file, &content)).await;
            match replaced.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(()) => {
                    is_failing = false;
                    written = Some((text, Instant::now()));
                }
                Err(error) if !is_failing => {
                    is_failing = true;
                    tracing::error!(path = %path.display(), %error, "cannot write the metrics");
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn count(outbox: &Outbox) -> Option<(usize, usize)> {
    Some((outbox.waiting().ok()?.len(), outbox.quarantined_files().ok()?.len()))
}

/// Replaces the file atomically, so that a concurrent reader sees a whole file. The collector ignores the temporary
/// file, whose name does not end in `.prom`. The file is not synced, because after a crash the next agent writes a new
/// one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    // Another user who may write to the collector's directory could have created a link or a pipe there.
    let _ = fs::remove_file(&temporary);
    let written = File::create_new(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        // The collector runs as another user, so the file is readable whatever this process's umask is.
        file.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_is_written_through_a_link_of_another_user() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let path = dir.path().join("trigger.prom");
        symlink(&victim, dir.path().join(format!(".trigger.prom.{}.tmp", std::process::id()))).unwrap();
        symlink(&victim, &path).unwrap();
        replace(&path, "a 1\n").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a 1\n");
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
    }

    #[test]
    fn the_file_is_replaced_whole_and_everybody_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trigger.prom");
        fs::write(&path, "a much longer text than the next").unwrap();
        replace(&path, "a 1\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a 1\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        let names = || fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names(), 1);
        assert!(replace(&dir.path().join("missing/trigger.prom"), "a 1\n").is_err());
        fs::create_dir(dir.path().join("directory.prom")).unwrap();
        assert!(replace(&dir.path().join("directory.prom"), "a 1\n").is_err());
        assert_eq!(names(), 2, "nothing is left behind");
    }
}
