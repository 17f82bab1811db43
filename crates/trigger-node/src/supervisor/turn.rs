//! Makes a `puppet apply` wait for a run of the node's `puppet agent`, as another run of the agent would. `puppet
//! apply` has no lock of its own, and without this wait both would change the same files at once.
//!
//! A lock that cannot be read may be held, so it is waited for, too.
//!
//! The opposite case is not covered: an agent's run that begins while the apply is in progress does not wait.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::puppet_locks::{holder_of, run_in_progress};

/// How often the lock is read.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Waits until no `puppet agent` run is in progress, and notes that in the run's output. After `patience` it returns
/// what it still waits for as the error.
pub(super) async fn wait(lock: &Path, patience: Duration, output: &mut File) -> Result<(), String> {
    let since = Instant::now();
    let mut logged = None;
    loop {
        let other = match run_in_progress(lock) {
            Ok(None) => return Ok(()),
            Ok(Some(other)) => format!(
                "a run of puppet agent (process {other}) is in progress: it has the lock {}",
                holder_of(lock, other).describe()
            ),
            Err(error) => format!("the lock of puppet agent, {}, cannot be read ({error})", lock.display()),
        };
        if logged.as_ref() != Some(&other) {
            let _ = output.write_all(format!("trigger: {other} and waited for\n").as_bytes());
            logged = Some(other.clone());
        }
        if since.elapsed() >= patience {
            return Err(other);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::puppet_locks::samples::Lookalike;
    use std::fs;

    #[tokio::test(start_paused = true)]
    async fn an_apply_waits_for_an_agents_run_within_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("lock");
        let mut output = File::create(dir.path().join("output")).unwrap();
        let patience = Duration::from_secs(30);
        let start = Instant::now();
        assert_eq!(wait(&lock, patience, &mut output).await, Ok(()));
        assert_eq!(start.elapsed(), Duration::ZERO, "there is none");

        let puppet = Lookalike::start(dir.path());
        fs::write(&lock, puppet.process().to_string()).unwrap();
        let waits = wait(&lock, patience, &mut output).await.unwrap_err();
        let expected =
            format!("a run of puppet agent (process {}) is in progress: it has the lock ", puppet.process());
        assert!(waits.starts_with(&expected), "{waits}");
        assert_eq!(start.elapsed(), patience);
        let said = fs::read_to_string(dir.path().join("output")).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");

        let ended = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            fs::remove_file(&lock).unwrap();
        };
        let (waited, ()) = tokio::join!(wait(&lock, patience, &mut output), ended);
        assert_eq!(waited, Ok(()));

        let unreadable = wait(dir.path(), patience, &mut output).await.unwrap_err();
        assert!(unreadable.contains("cannot be read"), "{unreadable}");
    }
}
