//! The log of the daemons: to the journal under systemd, else to standard error. `TRIGGER_LOG` selects what is logged.
//!
//! Nothing waits for the log: entries that it does not take in time are dropped and counted. Text from outside is made
//! safe to show here, once for all entries.
//!
//! Commands have no log. What the code below them logs as a warning is printed with their result.

mod audit;
mod audit_file;
mod fields;
mod journal;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::clean;
use crate::warnings::Warnings;
use audit::{Audit, Elsewhere};
use fields::Fields;
use journal::Journal;
use queue::LogQueue;

/// How long the end of a daemon waits for its log to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The queue to standard error of a daemon, once something goes there.
static QUEUE: OnceLock<LogQueue> = OnceLock::new();
/// Whether the log is the journal's.
static IS_JOURNAL: AtomicBool = AtomicBool::new(false);
/// Whether this process has a log.
static HAS_LOG: AtomicBool = AtomicBool::new(false);

/// Starts the log at level `info` unless `TRIGGER_LOG` says otherwise (`debug`, `trigger=debug,hyper=warn`). A second
/// call changes nothing.
pub(crate) fn start() {
    // Not `EnvFilter`: its regular expressions made this program half a megabyte larger.
    let wanted = std::env::var("TRIGGER_LOG").ok().and_then(|text| text.parse().ok());
    let filter: Targets = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let filter = filter.with_target(audit::TARGET, LevelFilter::OFF);
    let audit = Audit(match Journal::of_standard_error(audit::STREAM) {
        Some(journal) => Elsewhere::Journal(journal),
        None => Elsewhere::StandardError(|line| {
            write(line);
        }),
    });
    let audit = audit.with_filter(filter_fn(Audit::takes));
    let output = match Journal::of_standard_error(journal::LOG) {
        Some(journal) => {
            IS_JOURNAL.store(true, Ordering::Relaxed);
            journal.boxed()
        }
        None => {
            let layer = fmt::layer()
                .with_target(false)
                .with_ansi(io::stderr().is_terminal())
                .fmt_fields(format::debug_fn(write_field).delimited(" "))
                // If a line cannot be written, the layer would report that on standard error, and panic there.
                .log_internal_errors(false);
            match queue() {
                Some(queue) => layer.with_writer(|| queue.clone()).boxed(),
                // A system that starts no thread for the log starts none for anything else either.
                None => layer.with_writer(io::stderr).boxed(),
            }
        }
    };
    HAS_LOG.store(true, Ordering::Relaxed);
    if registry().with(output.with_filter(filter)).with(audit).try_init().is_ok() {
        panic::set_hook(Box::new(log_panic));
    }
}

/// Writes a field of an event or a span, as one word or phrase of its line.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn std::fmt::Debug) -> std::fmt::Result {
    let text = format!("{value:?}");
    let text = clean::line(&text);
    match field.name() {
        "message" => write!(writer, "{text}"),
        name => write!(writer, "{name}={text}"),
    }
}

/// Logs a panic. The standard library would write to standard error itself, and wait there for a reader.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => tracing::error!(%panic, %backtrace, "a defect of this program"),
        _ => tracing::error!(%panic, "a defect of this program"),
    }
    flush();
}

/// Logs why a daemon ends, where its log is the journal: there a line of standard error has no priority of its own, and
/// `journalctl -p err` would not show it. Returns whether that was so.
pub(crate) fn failure(message: &str) -> bool {
    let is_journal = IS_JOURNAL.load(Ordering::Relaxed);
    if is_journal {
        tracing::error!("{message}");
    }
    is_journal
}

/// Returns the queue to standard error, which is started if there is none. `None` if the system starts no thread.
fn queue() -> Option<&'static LogQueue> {
    if QUEUE.get().is_none() {
        let queue = LogQueue::start(io::stderr(), queue::note_of).ok()?;
        let _ = QUEUE.set(queue);
    }
    QUEUE.get()
}

/// Sends the audit of this daemon to a file.
///
/// # Errors
/// If the system starts no thread for it.
pub(crate) fn audit_to(path: &Path) -> io::Result<()> {
    audit::send_to(path)
}

/// Whether this process has a log: a daemon has one, a command has not.
pub(crate) fn is_started() -> bool {
    HAS_LOG.load(Ordering::Relaxed)
}

/// Writes a text to the standard error of a daemon as it is, without waiting for its reader. Returns `false` if this
/// process has no log.
pub(crate) fn write(text: &str) -> bool {
    let queue = is_started().then(queue).flatten();
    queue.inspect(|queue| queue.push(text.as_bytes())).is_some()
}

/// Waits until the log has been written, but not for long: a reader that does not read must not keep a daemon from
/// ending. To be called before the process ends or becomes another program.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_TIMEOUT);
    }
    audit::flush(FLUSH_TIMEOUT);
}

/// Adds what the crates of this program log as a warning or an error to the warnings of a command. What a command audits
/// goes to the configured file, else to the journal of this machine, and never to the terminal.
pub(crate) fn collect_warnings(warnings: &Warnings) {
    // The names of these crates begin with `trigger`.
    let ours = Targets::new().with_target("trigger", LevelFilter::WARN);
    let audit = Audit(Journal::of_this_machine(audit::STREAM).map_or(Elsewhere::Nowhere, Elsewhere::Journal));
    let audit = audit.with_filter(filter_fn(Audit::takes));
    let _ = registry().with(CollectWarnings(warnings.clone()).with_filter(ours)).with(audit).try_init();
}

struct CollectWarnings(Warnings);

impl<S: tracing::Subscriber> Layer<S> for CollectWarnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        self.0.push(Fields::of_event(event).sentence());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_in_the_log_are_warnings_of_the_command() {
        let warnings = Warnings::default();
        collect_warnings(&warnings);
        tracing::warn!("the disk is {}", "full");
        tracing::warn!(run = 7, path = %"/a", error = %"no space", "cannot write");
        tracing::info!("of no interest");
        tracing::error!(target: "hyper", "not ours");
        assert_eq!(warnings.take(), ["the disk is full", "cannot write: no space (run=7, path=/a)"]);
        assert!(warnings.take().is_empty(), "each warning is printed once");
    }
}
