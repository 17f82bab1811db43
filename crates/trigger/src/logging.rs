//! The log of the daemons: to the journal under systemd, else to standard error. `TRIGGER_LOG` selects what is logged.
//!
//! Commands have no log. What the code below them logs as a warning is printed with their result.

mod fields;
mod journal;

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::warnings::Warnings;
use fields::Fields;
use journal::Journal;

/// Starts the log at level `info` unless `TRIGGER_LOG` says otherwise (`debug`, `trigger=debug,hyper=warn`). A second
/// call changes nothing.
pub(crate) fn start() {
    // Not `EnvFilter`: its regular expressions made this program half a megabyte larger.
    let wanted = std::env::var("TRIGGER_LOG").ok().and_then(|text| text.parse().ok());
    let filter: Targets = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let output = match Journal::of_standard_error() {
        Some(journal) => journal.boxed(),
        None => fmt::layer()
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            // If a line cannot be written, because a pipe is closed or a disk is full, the layer would report that on
            // standard error, and panic there.
            .log_internal_errors(false)
            .with_writer(std::io::stderr)
            .boxed(),
    };
    let _ = registry().with(output.with_filter(filter)).try_init();
}

/// Adds what the crates of this program log as a warning or an error to the warnings of a command.
pub(crate) fn collect_warnings(warnings: &Warnings) {
    // The names of these crates begin with `trigger`.
    let ours = Targets::new().with_target("trigger", LevelFilter::WARN);
    let _ = registry().with(CollectWarnings(warnings.clone()).with_filter(ours)).try_init();
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
