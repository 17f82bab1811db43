//! Log lines of the daemons, on standard error; `TRIGGER_LOG` chooses what is logged.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging at `level` unless `TRIGGER_LOG` says otherwise. Under systemd the journal adds the time.
pub(crate) fn start(level: &str) {
    let filter = EnvFilter::try_from_env("TRIGGER_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if std::env::var_os("JOURNAL_STREAM").is_some() { lines.without_time().init() } else { lines.init() }
}
