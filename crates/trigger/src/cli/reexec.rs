//! Replaces this process by a fresh one of the same program.

use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::failure::Failure;
use crate::logging;

/// The variable that is set inside a run, and names it.
const RUN_ID: &str = "TRIGGER_RUN_ID";
/// The variables that every run gets: see `run_environment` of the agent's settings.
const RUN_VARIABLES: [&str; 6] =
    [RUN_ID, "TRIGGER_BACKEND", "TRIGGER_CERTNAME", "TRIGGER_CONFIG", "TRIGGER_PREFIX", "TRIGGER_STATE_DIR"];

/// Re-executes a daemon without the variables of the run that started it, if there is one; the pid stays.
///
/// A run starts a daemon itself where no systemd is between them: in a container, or by an `exec`. The variables
/// are meant for the run's own `trigger fire`. In the daemon they would override the configuration file, also
/// after it has changed.
pub(super) fn reexec_without_run_env() -> Result<(), Failure> {
    if std::env::var_os(RUN_ID).is_none() {
        return Ok(());
    }
    tracing::info!("started inside a run: dropping the run's TRIGGER_* variables");
    let mut command = this_program();
    command.args(std::env::args_os().skip(1));
    RUN_VARIABLES.iter().for_each(|name| {
        command.env_remove(name);
    });
    logging::flush();
    Err(Failure::failed(format!("cannot start without the run's variables: {}", command.exec())))
}

/// Re-executes this program with the same arguments, without `flag` or with it.
pub(super) fn reexec_with_flag(flag: &str, is_set: bool) -> Result<Infallible, io::Error> {
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != flag);
    logging::flush();
    Err(this_program().args(arguments).args(is_set.then_some(flag)).exec())
}

/// The running program, also if its file has been replaced.
pub(super) fn this_program() -> Command {
    Command::new("/proc/self/exe")
}
