//! Log lines of the daemons, on standard error; `TRIGGER_LOG` chooses what is logged. The other commands have no
//! log: what the code below them would write there is told with their answer.

use std::fmt;
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::warnings::Warnings;

/// Starts logging at `info` unless `TRIGGER_LOG` says otherwise (`debug`, `trigger=debug,hyper=warn`).
/// Under systemd the journal adds the time.
pub(crate) fn start() {
    // Not `EnvFilter`: its regular expressions made this program half a megabyte larger.
    let wanted = std::env::var("TRIGGER_LOG").ok().and_then(|text| text.parse().ok());
    let filter: Targets = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        // A line that cannot be written, since the reader of a pipe is gone or a disk is full, would be complained
        // of on standard error, which then panics.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let lines = if std::env::var_os("JOURNAL_STREAM").is_some() {
        lines.without_time().with_filter(filter).boxed()
    } else {
        lines.with_filter(filter).boxed()
    };
    // A second call changes nothing.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

/// Adds what this program's own code logs as a warning or an error to the warnings of a command.
pub(crate) fn collect_warnings(warnings: &Warnings) {
    // By the first part of a target's path, which is a crate of ours.
    let ours = Targets::new().with_target("trigger", LevelFilter::WARN);
    let _ =
        tracing_subscriber::registry().with(CollectWarnings(warnings.clone()).with_filter(ours)).try_init();
}

struct CollectWarnings(Warnings);

impl<S: tracing::Subscriber> Layer<S> for CollectWarnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut sentence = Sentence(String::new());
        event.record(&mut sentence);
        self.0.push(sentence.0);
    }
}

/// The message of a log line.
struct Sentence(String);

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_would_log_is_among_its_warnings() {
        let warnings = Warnings::default();
        collect_warnings(&warnings);
        tracing::warn!(run = 7, "the disk is {}", "full");
        tracing::info!("of no interest");
        tracing::error!(target: "hyper", "not ours");
        assert_eq!(warnings.take(), ["the disk is full"]);
        assert!(warnings.take().is_empty(), "told once");
    }
}
