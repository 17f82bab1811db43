//! The command line: a file for each subcommand.

mod agent;
mod fire;
mod hub;
mod inside_run;
mod output;
mod queue;
mod spooled_event;
mod status;
mod wait;
mod why;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use trigger_core::identity::Certname;

use crate::config::{ConfigFile, DEFAULT_CONFIG, DEFAULT_STATE_DIR, setting};
use trigger_node::failure::Failure;
use trigger_node::state::StateDir;
use trigger_store::backend::Backend;
use trigger_store::kinds;
use trigger_store::store::Store;
use trigger_store::url::BackendUrl;

use trigger_node::Warnings;

/// Cross-node notify for Puppet: a trigger names nodes, and when it is notified Puppet runs there.
#[derive(Debug, Parser)]
#[command(name = "trigger", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Settings come from flags, then from the environment (TRIGGER_CONFIG, TRIGGER_BACKEND, \
TRIGGER_CERTNAME, TRIGGER_STATE_DIR, TRIGGER_PREFIX, TRIGGER_RUN_CMD, TRIGGER_RUN_TIMEOUT, \
TRIGGER_RUNS_PER_MINUTE, TRIGGER_METRICS_FILE, TRIGGER_LISTEN, TRIGGER_DATA_DIR), then from the configuration file. TRIGGER_LOG chooses what the daemons log (info, debug).\n\n\
Exit codes: 0 done (a spooled or suppressed event too, with a warning), 1 the operation failed, \
2 usage, 3 configuration, 4 the backend is unreachable and nothing could be spooled."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make Puppet run on other nodes
    Fire(fire::FireArgs),
    /// Show one event's deliveries, or the latest events
    Status(status::StatusArgs),
    /// Show what runs, waits, is held, spooled or quarantined on this node
    Queue,
    /// Tell why a node ran: the chain that led to its latest run, or to an event
    Why(why::WhyArgs),
    /// Run the node's daemon
    Agent(agent::AgentArgs),
    /// Run the hub, the backend that needs nothing else
    Hub(hub::HubArgs),
}

/// Settings that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(crate) struct Globals {
    /// Configuration file [default: /etc/trigger/trigger.toml]
    #[arg(long, global = true, env = "TRIGGER_CONFIG", value_name = "FILE", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
    /// The backend; the help comes from the registry of kinds
    #[arg(long, global = true, env = "TRIGGER_BACKEND", value_name = "URL", hide_env = true, help = backend_help())]
    pub(crate) backend: Option<String>,
    /// This node's certname [default: Puppet's own, asked once]
    #[arg(long, global = true, env = "TRIGGER_CERTNAME", value_name = "NAME", hide_env = true)]
    pub(crate) certname: Option<String>,
    /// State directory [default: /var/lib/trigger]
    #[arg(long, global = true, env = "TRIGGER_STATE_DIR", value_name = "DIR", hide_env = true)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Output for people or for programs
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Tables and sentences
    Text,
    /// One JSON document on standard output, warnings and errors among its fields
    Json,
    /// A graph for Graphviz: of `trigger why` alone
    #[value(hide = true)]
    Dot,
}

fn backend_help() -> String {
    format!(
        "Backend URL ({}), or the name of a kind of backend ({}) whose URL the configuration has",
        kinds::url_forms(),
        kinds::names("or")
    )
}

impl Globals {
    pub(crate) fn read_config(&self) -> Result<ConfigFile, Failure> {
        ConfigFile::read(self.config.as_deref())
    }

    pub(crate) fn state_dir(&self, config: &ConfigFile) -> PathBuf {
        let configured = self.state_dir.clone().or_else(|| config.state_dir.clone());
        configured.unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR))
    }

    pub(crate) fn backend(&self, config: &ConfigFile) -> Result<BackendUrl, Failure> {
        config.backend(self.backend.as_deref())
    }

    /// The store of the backend.
    ///
    /// # Errors
    /// When the backend only takes events, so that there is nothing to read.
    pub(crate) fn open_store(&self, config: &ConfigFile) -> Result<Arc<dyn Store>, Failure> {
        let url = self.backend(config)?;
        let backend = Backend::open(&url, &config.credentials());
        let backend = backend.map_err(|error| Failure::config(error.to_string()))?;
        backend
            .store()
            .cloned()
            .ok_or_else(|| Failure::usage(format!("backend '{url}' tells nothing of what it was given")))
    }

    /// The certname that somebody told us; nothing means that Puppet has to be asked.
    pub(crate) fn certname(&self, config: &ConfigFile) -> Result<Option<Certname>, Failure> {
        match &self.certname {
            Some(name) => setting("certname")(name).map(Some),
            None => config.certname(),
        }
    }

    /// The configuration file's path when one was named, absolute, for what runs elsewhere.
    pub(crate) fn config_path(&self) -> Option<PathBuf> {
        let path = self.config.clone()?;
        (path != Path::new(DEFAULT_CONFIG)).then(|| path.canonicalize().unwrap_or(path))
    }
}

/// This node's certname: as told, as cached, or as Puppet says.
pub(crate) async fn resolve_certname(
    globals: &Globals,
    config: &ConfigFile,
    state: Option<&StateDir>,
    command: &trigger_core::run::command::RunCommand,
) -> Result<Certname, Failure> {
    if let Some(certname) = globals.certname(config)? {
        return Ok(certname);
    }
    // An ordinary user can neither read nor write the node's state directory, and fires all the same.
    if let Some(certname) = state.and_then(|state| state.certname().ok().flatten()) {
        return Ok(certname);
    }
    let certname = trigger_node::puppet_settings::certname(command).await.map_err(|error| {
        Failure::config(format!(
            "no certname is configured and Puppet does not tell one: {error:#}; give --certname"
        ))
    })?;
    if let Some(Err(error)) = state.map(|state| state.set_certname(&certname)) {
        tracing::debug!("Puppet will be asked for the certname again: {error}");
    }
    Ok(certname)
}

/// Parses the command line and does as it says.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    let globals = &cli.globals;
    if globals.output == OutputFormat::Dot && !matches!(cli.command, Command::Why(_)) {
        return usage_error(&no_graph());
    }
    let warnings = Warnings::default();
    if !matches!(cli.command, Command::Agent(_) | Command::Hub(_)) {
        crate::logging::gather(&warnings);
    }
    let result = match &cli.command {
        Command::Fire(args) => block_on(fire::run(globals, args, &warnings)),
        Command::Status(args) => block_on(status::run(globals, args, &warnings)),
        Command::Queue => block_on(queue::run(globals, &warnings)),
        Command::Why(args) => block_on(why::run(globals, args, &warnings)),
        Command::Agent(args) => agent::run(globals, args),
        Command::Hub(args) => hub::run(globals, args, &warnings),
    };
    match result {
        Ok(code) => {
            // What was said after the answer; with JSON that was the last word.
            if globals.output != OutputFormat::Json {
                output::warnings(&warnings.take());
            }
            ExitCode::from(code)
        }
        Err(failure) => {
            output::failure(globals.output, &failure, &warnings.take());
            ExitCode::from(failure.code)
        }
    }
}

/// Only a chain can be drawn.
fn no_graph() -> clap::Error {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(&Cli::command());
    error.insert(ContextKind::InvalidArg, ContextValue::String("--output <FORMAT>".to_owned()));
    error.insert(ContextKind::InvalidValue, ContextValue::String("dot".to_owned()));
    let formats = ["text", "json"].map(str::to_owned).to_vec();
    error.insert(ContextKind::ValidValue, ContextValue::Strings(formats));
    error
}

/// Help and version are no errors; a bad command line is told in the format that it asks for.
fn usage_error(error: &clap::Error) -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let wants_json = arguments.iter().any(|argument| argument == "--output=json")
        || arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    if error.use_stderr() && wants_json {
        let text = error.to_string();
        // All but the usage and the hints that follow it, which are for people.
        let told = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        let sentence: Vec<&str> = told.lines().map(str::trim).collect();
        output::failure(OutputFormat::Json, &Failure::usage(sentence.join(" ")), &[]);
    } else {
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() { trigger_node::failure::USAGE } else { 0 })
}

/// Threads for what blocks: the wait for a run's end, syncs of the outbox, names to resolve. An agent that
/// takes a burst of events must not keep the memory of hundreds.
const BLOCKING_THREADS: usize = 4;

/// Runs a command that needs one thread.
fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let result = runtime.block_on(command);
    // A thread may wait for a run's end: the run goes on without us, and so do we without it.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
