//! The command line: a file for each subcommand.

mod agent;
mod cancel;
mod certificates;
mod doctor;
mod etcd_roles;
mod facts;
mod fire;
mod first_process;
mod globals;
mod hold;
mod hub;
mod keygen;
mod log;
mod node;
mod nodes;
mod outbox;
#[cfg(test)]
mod pages;
mod policy;
mod puppet_wait;
mod queue;
mod reexec;
mod rename;
mod runtime;
mod signing;
mod spooled_event;
mod status;
mod target_counts;
mod why;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use globals::{Globals, OutputFormat};
use runtime::block_on;

use crate::clean;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::warnings::Warnings;

/// Cross-node notify for Puppet: a trigger names nodes, and when it is notified Puppet runs there.
#[derive(Debug, Parser)]
#[command(name = "trigger", version, propagate_version = true, max_term_width = 100)]
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
    /// End an event at those of its targets that have not run for it yet
    Cancel(cancel::CancelArgs),
    /// Keep an agent from starting runs for a time; what is fired at it waits, and runs afterwards
    ///
    /// A run in progress goes on, and Puppet's own periodic runs are not touched: 'puppet agent --disable' stops those. An
    /// event that expires meanwhile does not run. Root on a node may hold that node, and so may the operators that its own
    /// configuration names under `[operators]`. A new order replaces an earlier one. With --group, each node that is registered as a
    /// member now is held, and the command prints which.
    Hold(hold::HoldArgs),
    /// Let an agent that is held start runs again
    ///
    /// What waited runs then. All who may hold a node may release it, also where another one of them holds it.
    Release(hold::ReleaseArgs),
    /// Show an event's deliveries, or the latest events
    Status(status::StatusArgs),
    /// Show the nodes of the fleet: who is alive, what ran there last, what waits
    Nodes(nodes::NodesArgs),
    /// Remove a node that is gone
    Node(node::NodeArgs),
    /// Show this node's running, waiting, held, spooled and quarantined events
    Queue,
    /// Look for what is wrong with this node, and say how to mend it
    Doctor,
    /// Show and mend this node's outbox: the events that the backend does not have
    Outbox(outbox::OutboxArgs),
    /// Show what this node's policy says of an event
    Policy(policy::PolicyArgs),
    /// Print what Puppet's fact 'trigger' shows of this node, as JSON
    Facts,
    /// Explain why a node ran: the chain that led to its latest run, or to an event
    Why(why::WhyArgs),
    /// Show the output of a run, here or on another node
    Log(log::LogArgs),
    /// Move this node's state directory over to the certname that is configured now, or that Puppet has now
    Rename,
    /// Run the node's daemon
    Agent(agent::AgentArgs),
    /// Make a key with which the nodes of a fleet without Puppet's certificates sign and verify events
    Keygen(keygen::KeygenArgs),
    /// Print the etcdctl commands that give each node its own user and roles at an etcd
    EtcdRoles(etcd_roles::EtcdRolesArgs),
    /// Run the hub, the backend that needs nothing else installed
    Hub(hub::HubArgs),
}

/// The command line with its help. The list of variables is that of the arguments, so that it cannot lack one.
fn command() -> clap::Command {
    let command = Cli::command();
    let help = format!(
        "Settings come from flags, then from the environment ({}), then from the configuration file. \
         TRIGGER_LOG selects what the daemons log (info, debug). Durations are numbers with units, such as 90s, 2h 30m \
         or 1d; a number without a unit is seconds.\n\n\
         Exit codes: 0 done (also for a spooled or suppressed event, with a warning), 1 the operation failed or \
         its result could not be written, 2 usage, 3 configuration, 4 the backend is unreachable and the event could not be spooled, \
         5 the hub's data are gone.",
        variables(&command).join(", ")
    );
    command.after_help(help)
}

/// The environment variables of a command's arguments and of its subcommands' arguments, each once.
fn variables(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_env());
    let own = own.map(|variable| variable.to_string_lossy().into_owned());
    let mut all: Vec<String> = Vec::new();
    for variable in own.chain(command.get_subcommands().flat_map(variables)) {
        if !all.contains(&variable) {
            all.push(variable);
        }
    }
    all
}

/// Parses the command line and runs the command that it names.
pub(crate) fn run() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let code = match parsed {
        Ok(cli) if cli.globals.output == OutputFormat::Dot && !matches!(cli.command, Command::Why(_)) => {
            print_usage_error(&only_why_has_a_graph())
        }
        Ok(cli) => run_command(&cli),
        Err(error) => print_usage_error(&cleaned(error)),
    };
    match output::write_error() {
        // What the command did stays done; only its result is lost.
        Some(error) => {
            output::note(&format!("error: cannot write the result to standard output: {error}"));
            if code == ExitCode::SUCCESS { Exit::Failed.into() } else { code }
        }
        None => code,
    }
}

fn run_command(cli: &Cli) -> ExitCode {
    let globals = &cli.globals;
    let warnings = Warnings::default();
    if !matches!(cli.command, Command::Agent(_) | Command::Hub(_)) {
        crate::logging::collect_warnings(&warnings);
    }
    let result = match &cli.command {
        Command::Fire(args) => block_on(fire::run(globals, args, &warnings)),
        Command::Cancel(args) => block_on(cancel::run(globals, args, &warnings)),
        Command::Hold(args) => block_on(hold::hold(globals, args, &warnings)),
        Command::Release(args) => block_on(hold::release(globals, args, &warnings)),
        Command::Status(args) => block_on(status::run(globals, args, &warnings)),
        Command::Nodes(args) => block_on(nodes::run(globals, args, &warnings)),
        Command::Node(args) => block_on(node::run(globals, args, &warnings)),
        Command::Queue => block_on(queue::run(globals, &warnings)),
        Command::Doctor => block_on(doctor::run(globals, &warnings)),
        Command::Outbox(args) => outbox::run(globals, args, &warnings),
        Command::Policy(args) => policy::run(globals, args, &warnings),
        Command::Facts => block_on(facts::run(globals, &warnings)),
        Command::Why(args) => block_on(why::run(globals, args, &warnings)),
        Command::Log(args) => block_on(log::run(globals, args, &warnings)),
        Command::Rename => block_on(rename::run(globals, &warnings)),
        Command::Keygen(args) => keygen::run(args),
        Command::EtcdRoles(args) => block_on(etcd_roles::run(globals, args, &warnings)),
        Command::Agent(args) => agent::run(globals, args),
        Command::Hub(args) => hub::run(globals, args, &warnings),
    };
    match result {
        Ok(code) => {
            // Warnings that arose after the result was printed. A JSON document has been printed already, and
            // nothing may follow it.
            if globals.output != OutputFormat::Json {
                output::warnings(&warnings.take());
            }
            code
        }
        Err(failure) => {
            print_failure(globals.output, &failure, &warnings.take());
            failure.exit.into()
        }
    }
}

fn print_failure(format: OutputFormat, failure: &Failure, warnings: &[String]) {
    match format {
        OutputFormat::Json => {
            output::document(&crate::documents::Error {
                error: failure.message.clone(),
                warnings: warnings.to_vec(),
            });
            if output::write_error().is_some() {
                print_failure(OutputFormat::Text, failure, warnings);
            }
        }
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(warnings);
            if !crate::logging::failure(&failure.message) {
                output::note(&format!("error: {}", failure.message));
            }
        }
    }
}

/// clap's error for `--output dot` of another command than `trigger why`.
fn only_why_has_a_graph() -> clap::Error {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(&command());
    error.insert(ContextKind::InvalidArg, ContextValue::String("--output <FORMAT>".to_owned()));
    error.insert(ContextKind::InvalidValue, ContextValue::String("dot".to_owned()));
    let formats = ["text", "json"].map(str::to_owned).to_vec();
    error.insert(ContextKind::ValidValue, ContextValue::Strings(formats));
    error
}

/// Puts each argument that an error of the command line repeats on one line.
fn cleaned(mut error: clap::Error) -> clap::Error {
    use clap::error::ContextValue;
    let line = |text: &String| clean::line(text).into_owned();
    let values: Vec<_> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => Some((kind, ContextValue::String(line(text)))),
            ContextValue::Strings(texts) => {
                Some((kind, ContextValue::Strings(texts.iter().map(line).collect())))
            }
            _ => None,
        })
        .collect();
    for (kind, value) in values {
        error.insert(kind, value);
    }
    error
}

/// Prints help, the version, or an error of the command line; the error in the format that the command line asks
/// for.
fn print_usage_error(error: &clap::Error) -> ExitCode {
    let text = error.render();
    if !error.use_stderr() {
        let is_coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        output::print_help(&if is_coloured { text.ansi().to_string() } else { text.to_string() });
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<_> = std::env::args_os().collect();
    let wants_json = arguments.iter().any(|argument| argument == "--output=json")
        || arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    if wants_json {
        let text = text.to_string();
        // Without the usage and the hints that follow the first paragraph, which are for people.
        let paragraph = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        let sentence: Vec<&str> = paragraph.lines().map(str::trim).collect();
        print_failure(OutputFormat::Json, &Failure::usage(sentence.join(" ")), &[]);
    } else {
        // Without colours: the text repeats arguments and variables, which are cleaned.
        output::note_page(text.to_string().trim_end());
    }
    Exit::Usage.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }
}
