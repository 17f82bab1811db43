//! `trigger why`: the chain that led to a node's run, or to an event. Reads the backend only, so that it
//! works from any node.

mod dot;
mod json;
mod text;
mod tree;

use std::io::{IsTerminal, stdout};
use std::sync::Arc;

use clap::Args;
use trigger_core::identity::{Certname, EventId, InvalidName, KeyPrefix};
use trigger_core::keyspace::Keyspace;
use trigger_core::run::history::MAX_RUNS;
use trigger_core::why::{ExplainError, Explanation, Question, Which};
use trigger_fleet::Fleet;
use trigger_fleet::status::EventStatus;
use trigger_store::store::StoreError;
use uuid::Uuid;

use super::{Globals, OutputFormat, Warnings, output, resolve_certname};
use crate::config::{ConfigFile, run_command};
use trigger_node::failure::Failure;
use trigger_node::firing::Publisher;
use trigger_node::state::StateDir;

/// Longer words than any certname are not repeated in an error.
const MAX_RUN_ID: usize = 40;

#[derive(Debug, Args)]
#[command(
    after_help = "With --output dot it is a graph for Graphviz: trigger why --output dot | dot -Tsvg >why.svg"
)]
pub(crate) struct WhyArgs {
    /// The node, or an event's id; without either, this node
    #[arg(value_name = "CERTNAME|EVENT")]
    subject: Option<String>,
    /// Which run of the node: how many runs back, or a run's id
    #[arg(long, value_name = "NUMBER|RUN", default_value = "0")]
    run: String,
    /// Where in the backend the agents are registered [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    prefix: Option<KeyPrefix>,
}

/// All that is known of what was asked.
struct Answer {
    question: Question,
    explanation: Explanation,
    /// Where the deliveries of the event stand, if an event was asked for.
    event: Option<EventStatus>,
}

pub(crate) async fn run(globals: &Globals, args: &WhyArgs, warnings: &Warnings) -> Result<u8, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let questions = questions(globals, &config, args).await?;
    let prefix = args.prefix.clone().map_or_else(|| config.prefix(), Ok)?;
    let url = globals.backend(&config)?;
    let backend = Publisher::new(None, prefix.clone()).backend(&url)?;
    let Some(store) = backend.store() else {
        return Err(Failure::usage(format!("backend '{url}' tells nothing of what it was given")));
    };
    let fleet = Fleet::new(Arc::clone(store), Keyspace::new(prefix));
    let answer = ask(&fleet, questions).await?;
    match globals.output {
        OutputFormat::Json => output::print_json(&json::document(&answer, &warnings.take())),
        OutputFormat::Text => {
            output::warnings(&warnings.take());
            // Nobody wraps what a program reads.
            let width = if stdout().is_terminal() { textwrap::termwidth() } else { usize::MAX };
            output::print(&text::page(&answer, width));
        }
        OutputFormat::Dot => {
            output::warnings(&warnings.take());
            output::print(&dot::graph(&answer));
        }
    }
    Ok(0)
}

/// What may be asked, the likeliest first. An event is known by the form of its id, which a certname may have too.
async fn questions(globals: &Globals, config: &ConfigFile, args: &WhyArgs) -> Result<Vec<Question>, Failure> {
    let which = which(&args.run)?;
    let certname = match args.subject.as_deref() {
        Some(subject) => subject.parse().map_err(|error: InvalidName| {
            Failure::usage(format!("{error}; an event is named by its whole id, in lower case"))
        })?,
        None => {
            // An ordinary user may have no state directory, and asks all the same.
            let state = StateDir::open(&globals.state_dir(config)).ok();
            let command = run_command(config.run_cmd.as_deref())?;
            resolve_certname(globals, config, state.as_ref(), &command).await?
        }
    };
    // Only a node has runs to choose from.
    let event = args.subject.as_deref().and_then(event_id).filter(|_| which == Which::Back(0));
    Ok(event.map(Question::Event).into_iter().chain([Question::Run(certname, which)]).collect())
}

/// The event of this id: a UUID of the kind that events have.
fn event_id(subject: &str) -> Option<EventId> {
    let is_of_an_event = Uuid::parse_str(subject).is_ok_and(|id| id.get_version_num() == 7);
    subject.parse().ok().filter(|_| is_of_an_event)
}

fn which(text: &str) -> Result<Which, Failure> {
    if let Ok(back) = text.parse() {
        return Ok(Which::Back(back));
    }
    text.parse().map(Which::Id).map_err(|_| {
        let shown: String = text.chars().take(MAX_RUN_ID).flat_map(char::escape_debug).collect();
        Failure::usage(format!(
            "'{shown}' is neither a number of runs to go back (0 is the latest) nor a run's whole id"
        ))
    })
}

/// Answers the first of the questions that means anything; the first says what is missing where none does.
async fn ask(fleet: &Fleet, questions: Vec<Question>) -> Result<Answer, Failure> {
    let unreachable = |error: StoreError| Failure::unreachable(error.to_string());
    let mut first_failure = None;
    for question in questions {
        let explanation = match fleet.explain(&question).await.map_err(unreachable)? {
            Ok(explanation) => explanation,
            Err(not_told) => {
                let failure = Failure::failed(nothing_told(&question, &not_told, fleet.prefix()));
                // Of a node that is there, more is known than that no event has its name.
                match (not_told, first_failure.take()) {
                    (ExplainError::NoEvent | ExplainError::NoNode, known) => {
                        first_failure = known.or(Some(failure))
                    }
                    _ => return Err(failure),
                }
                continue;
            }
        };
        let event = match question {
            Question::Event(event) => fleet.event_status(event).await.map_err(unreachable)?,
            Question::Run(..) => None,
        };
        return Ok(Answer { question, explanation, event });
    }
    Err(first_failure.unwrap_or_else(|| Failure::usage("nothing was asked")))
}

fn nothing_told(question: &Question, not_told: &ExplainError, prefix: &KeyPrefix) -> String {
    match question {
        Question::Run(certname, which) => {
            let of_event = event_id(certname.as_str()).filter(|_| *which != Which::Back(0));
            let hint =
                of_event.map_or("", |_| "; it has the form of an event's id, and --run goes with a certname");
            format!("{}{hint}", not_told_of(certname, not_told, prefix))
        }
        Question::Event(event) => format!(
            "no event {event} is known under {}: it may have been swept, be spooled still on the node that \
             fired it, or fired under another prefix",
            prefix
        ),
    }
}

fn not_told_of(certname: &Certname, not_told: &ExplainError, prefix: &KeyPrefix) -> String {
    match not_told {
        ExplainError::NoNode | ExplainError::NoEvent => format!(
            "no run of {certname} is known under {}, and no agent has registered under this certname: is it \
             spelt as Puppet does, and does its agent use this backend and prefix?",
            prefix
        ),
        ExplainError::NoRun => format!(
            "{certname} is registered, but tells of no run: nothing has triggered it since its agent was set up; \
             'trigger queue' there shows what waits"
        ),
        ExplainError::OnlySoMany(1) => format!("{certname} tells of one run only: leave out --run"),
        ExplainError::OnlySoMany(told) => {
            format!("{certname} tells of its latest {told} runs only: --run goes from 0 to {}", told - 1)
        }
        ExplainError::NoSuchRun(run) => format!(
            "{certname} does not tell of run {run}: it tells of its latest {MAX_RUNS} at most, and a run may \
             be another node's"
        ),
    }
}

#[cfg(test)]
mod tests;
