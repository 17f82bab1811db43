//! What runs and fires write down as they happen, one JSON document a line, for the checker to read at the end.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A moment: nanoseconds on the clock that only goes forward, which all processes of a machine share.
pub(crate) type Moment = u64;

/// Now.
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

/// What a run knows when it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunStart {
    /// As the environment says.
    pub(crate) run: String,
    /// The node.
    pub(crate) certname: String,
    /// The run command's process.
    pub(crate) pid: u32,
    /// Its parent.
    pub(crate) supervisor: u32,
    /// When.
    pub(crate) at: Moment,
    /// No other run held the node's lock, which each run holds for as long as its process lives.
    pub(crate) alone: bool,
    /// What its record on disk listed at this moment.
    pub(crate) causes: Vec<Cause>,
}

/// An event that a run's record lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cause {
    /// Its id.
    pub(crate) event: String,
    /// Its trigger.
    pub(crate) trigger: String,
    /// What led to it.
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

/// A run's last words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunEnd {
    /// Which run.
    pub(crate) run: String,
    /// When.
    pub(crate) at: Moment,
    /// The exit code that follows.
    pub(crate) code: u8,
}

/// A `trigger fire` and what it answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fire {
    /// The node it was fired on.
    pub(crate) origin: String,
    /// The run it was fired in, if any.
    pub(crate) parent: Option<String>,
    /// The trigger's name.
    pub(crate) trigger: String,
    /// Named targets.
    pub(crate) hosts: Vec<String>,
    /// Named groups.
    pub(crate) groups: Vec<String>,
    /// Whether noop was asked for.
    pub(crate) noop: bool,
    /// Whether the backend was away all the time, so that the event could only be spooled.
    #[serde(default)]
    pub(crate) away: bool,
    /// Before the command was started.
    pub(crate) before: Moment,
    /// After it had ended.
    pub(crate) after: Moment,
    /// What it came to.
    pub(crate) answer: Answer,
}

/// What a `trigger fire` came to.
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
    /// It was killed by us before it could answer, or the run was that it was part of.
    Killed,
    /// Anything else: what it said.
    Failure(String),
}

/// A kill of ours that hit a run for certain: the process stood still when it was killed, so it did not end by
/// itself; and where it was the supervisor, there was no result yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hit {
    /// Which run.
    pub(crate) run: String,
    /// Just before the signal was sent.
    pub(crate) at: Moment,
    /// Whether it was the run's own process, else it was its supervisor.
    pub(crate) process: bool,
}

/// Appends a line: one write, synced before this returns.
pub(crate) fn append(path: &Path, line: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut file = File::options().create(true).append(true).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot append to {}", path.display()))?;
    file.sync_data()?;
    Ok(())
}

/// All lines of a file; none where there is no file. A last line that a kill cut short is none.
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
