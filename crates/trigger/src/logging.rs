//! Log lines of the daemons, on standard error; `TRIGGER_LOG` chooses what is logged.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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
