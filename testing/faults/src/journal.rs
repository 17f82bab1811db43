//! The logs that runs and fires write as they happen, one JSON document on each line, which the checker reads at the
//! end.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A moment, in nanoseconds of the monotonic clock, which all processes of a machine share.
pub(crate) type Moment = u64;

/// Returns the current moment.
pub(crate) fn now() -> Moment {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// A line of the runs' own log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunLine {
    /// The run command began.
    Start(RunStart),
    /// It is about to end.
    End(RunEnd),
}

/// The facts that a run knows when it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunStart {
    /// The run's id, from the environment.
    pub(crate) run: String,
    /// The node.
    pub(crate) certname: String,
    /// The run command's process.
    pub(crate) pid: u32,
    /// The run command's parent process.
    pub(crate) supervisor: u32,
    /// The time of the start.
    pub(crate) at: Moment,
    /// Whether no other run held the node's lock, which each run holds for as long as its process lives.
    pub(crate) alone: bool,
    /// The causes that its record on disk listed at this moment.
    pub(crate) causes: Vec<Cause>,
}

/// An event that a run's record lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cause {
    /// Its id.
    pub(crate) event: String,
    /// Its trigger.
    pub(crate) trigger: String,
    /// The chains that led to it.
    pub(crate) chains: Vec<Chain>,
}

/// A chain of an event's lineage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chain {
    /// The event at its start.
    pub(crate) root: String,
    /// Pairs of trigger and certname, oldest first.
    pub(crate) hops: Vec<(String, String)>,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunEnd {
    /// The run's id.
    pub(crate) run: String,
    /// The time just before the end.
    pub(crate) at: Moment,
    /// The exit code that follows.
    pub(crate) code: u8,
}

/// A `trigger fire` and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fire {
    /// The node on which it was fired.
    pub(crate) origin: String,
    /// The run in which it was fired, if any.
    pub(crate) parent: Option<String>,
    /// The trigger's name.
    pub(crate) trigger: String,
    /// Named targets.
    pub(crate) hosts: Vec<String>,
    /// Named groups.
    pub(crate) groups: Vec<String>,
    /// Whether it asked for noop.
    pub(crate) noop: bool,
    /// Whether the backend was away all the time, so that the event could only be spooled.
    #[serde(default)]
    pub(crate) away: bool,
    /// The time before the command was started.
    pub(crate) before: Moment,
    /// The time after it had ended.
    pub(crate) after: Moment,
    /// Its result.
    pub(crate) answer: Answer,
}

/// The result of a `trigger fire`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// It exited with 0.
    Success {
        /// The event.
        event: String,
        /// `committed`, `spooled` or `suppressed`.
        state: String,
    },
    /// The trial killed it before it could answer, or killed the run that it was part of.
    Killed,
    /// Any other result, with the output.
    Failure(String),
}

/// A kill by the trial that is certain to have hit a run: the process was stopped before it was killed, so it did not
/// end by itself. A supervisor had not written a result yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hit {
    /// The run's id.
    pub(crate) run: String,
    /// The time just before the signal was sent.
    pub(crate) at: Moment,
    /// Whether the run's own process was killed; otherwise its supervisor was.
    pub(crate) process: bool,
}

/// Appends a line in one write, which is synced before this returns.
pub(crate) fn append(path: &Path, line: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut file = File::options().create(true).append(true).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot append to {}", path.display()))?;
    file.sync_data()?;
    Ok(())
}

/// Returns all lines of a file; none if the file does not exist. A last line that a kill truncated is skipped.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |line: &str| {
        serde_json::from_str(line).with_context(|| format!("{} holds the line '{line}'", path.display()))
    };
    whole.lines().map(line).collect()
}
