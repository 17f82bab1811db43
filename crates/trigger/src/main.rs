//! Trigger: cross-node notify for Puppet. One binary: command line, agent, supervisor and hub.

mod clean;
mod cli;
mod config;
mod documents;
mod failure;
#[cfg(test)]
mod fixtures;
mod logging;
mod output;
mod silence;
mod warnings;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A supervisor, and a daemon that was reloaded, are started by the path of the program that runs, and would be called
    // `exe` by ps and in the journal.
    let _ = std::fs::write("/proc/self/comm", env!("CARGO_PKG_NAME"));
    // Before the command line is parsed: every run starts here, and every event waits for its run.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "supervise")
        && let Some(record) = arguments.next()
    {
        let code = match trigger_node::supervisor::run(Path::new(&record), logging::start) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                logging::start();
                tracing::error!(record = %record.display(), %error, "the supervisor failed");
                ExitCode::FAILURE
            }
        };
        logging::flush();
        return code;
    }
    let code = cli::run();
    logging::flush();
    code
}
