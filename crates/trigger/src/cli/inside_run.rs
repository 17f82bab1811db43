//! A daemon that a run has started, without systemd between them (in a container, by an `exec`): the variables
//! that its run was given for its own `trigger fire` would beat the configuration file, and go on doing so
//! when the file has changed.

use std::os::unix::process::CommandExt;
use std::process::Command;

use trigger_node::failure::Failure;

/// Says that all this is inside a run, and which.
const RUN_ID: &str = "TRIGGER_RUN_ID";
/// What each run is given: see `run_environment` of the agent's settings.
const OF_THE_RUN: [&str; 6] =
    [RUN_ID, "TRIGGER_BACKEND", "TRIGGER_CERTNAME", "TRIGGER_CONFIG", "TRIGGER_PREFIX", "TRIGGER_STATE_DIR"];

/// Starts this program again without the run's variables, if there are any; the process stays the same.
pub(super) fn reexec_without_run_env() -> Result<(), Failure> {
    if std::env::var_os(RUN_ID).is_none() {
        return Ok(());
    }
    tracing::info!("started inside a run: its TRIGGER_* variables are not for a daemon, and are dropped");
    // This very program, also when its file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1));
    OF_THE_RUN.iter().for_each(|name| {
        command.env_remove(name);
    });
    Err(Failure::failed(format!("cannot start without the run's variables: {}", command.exec())))
}
