//! Says that Puppet is waited for. On a slow machine, Puppet takes minutes to start, and a command that shows nothing for
//! so long looks dead.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::logging;
use crate::output;

/// After how long the wait is worth a line.
const FIRST_NOTE: Duration = Duration::from_secs(5);
/// How often it is said again.
const NOTE_INTERVAL: Duration = Duration::from_secs(30);

/// Waits for an answer of Puppet, and says so where it takes long: in the log of a daemon, or on standard error.
pub(super) async fn wait_for_puppet<T>(asked: impl Future<Output = T>) -> T {
    wait(asked, |line| {
        if logging::is_started() {
            tracing::info!("{line}");
        } else {
            output::note(line);
        }
    })
    .await
}

async fn wait<T>(asked: impl Future<Output = T>, mut note: impl FnMut(&str)) -> T {
    let mut asked = pin!(asked);
    let since = Instant::now();
    let mut pause = FIRST_NOTE;
    loop {
        if let Ok(answer) = timeout(pause, asked.as_mut()).await {
            return answer;
        }
        note(&format!("waiting for Puppet's settings, for {} s so far", since.elapsed().as_secs()));
        pause = NOTE_INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_puppet_is_waited_for_and_the_wait_is_said() {
        let mut notes = Vec::new();
        let slow = async {
            tokio::time::sleep(Duration::from_secs(70)).await;
            "answer"
        };
        assert_eq!(wait(slow, |line| notes.push(line.to_owned())).await, "answer");
        let seconds = [5, 35, 65].map(|s| format!("waiting for Puppet's settings, for {s} s so far"));
        assert_eq!(notes, seconds);
        assert_eq!(wait(async { 1 }, |line| panic!("{line}")).await, 1);
    }
}
