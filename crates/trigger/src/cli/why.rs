//! `trigger why`: the chain that led to a node's run, or to an event. It reads only the backend, so it works on every
//! node.

mod answer;
mod dot;
mod text;
mod tree;

use std::process::ExitCode;

use clap::Args;
use trigger_core::escaped::escaped;
use trigger_core::identity::{Certname, EventId, KeyPrefix};
use trigger_core::run::history::MAX_RUNS;
use trigger_core::why::{ExplainError, Question, Which};
use trigger_fleet::Fleet;
use trigger_fleet::verifying::Unverified;
use trigger_node::state::StateDir;

use answer::Answer;

use super::globals::{Globals, OutputFormat};
use super::status::limited_sight;
use crate::config::{ConfigFile, run_command};
use crate::documents::Why;
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

#[derive(Debug, Args)]
#[command(
    after_help = "With --output dot, it prints a graph for Graphviz: trigger why --output dot | dot -Tsvg >why.svg"
)]
pub(crate) struct WhyArgs {
    /// A node's certname, or an event's id [default: this node]
    #[arg(value_name = "CERTNAME|EVENT")]
    subject: Option<String>,
    /// The run of the node to explain: how many runs back, or a run's id
    #[arg(long, value_name = "NUMBER|RUN", default_value = "0")]
    run: String,
    /// The key prefix that the agents are registered under [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    prefix: Option<KeyPrefix>,
}

pub(crate) async fn run(globals: &Globals, args: &WhyArgs, warnings: &Warnings) -> Result<ExitCode, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let questions = questions(globals, &config, args).await?;
    let fleet = globals.fleet(&config, args.prefix.as_ref(), warnings).await?;
    let answer = ask(&fleet, questions, warnings).await?;
    warnings.extend(answer.event.as_ref().and_then(limited_sight));
    match globals.output {
        OutputFormat::Json => {
            let Answer { question, explanation, event } = &answer;
            output::document(&Why::of(question, explanation, event.as_ref(), warnings.take()));
        }
        OutputFormat::Text => {
            output::warnings(&warnings.take());
            output::print_page(&text::page(&answer, output::width()));
        }
        OutputFormat::Dot => {
            output::warnings(&warnings.take());
            output::print_page(&dot::graph(&answer));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The questions that the arguments may mean, the likeliest first. An argument that looks like an event id is tried as
/// an event, then as a certname.
async fn questions(globals: &Globals, config: &ConfigFile, args: &WhyArgs) -> Result<Vec<Question>, Failure> {
    let which = which(&args.run)?;
    let certname = match args.subject.as_deref() {
        Some(subject) => Certname::fold_case(subject)
            .map_err(|error| Failure::usage(format!("{error}; an event is named by its whole id")))?,
        None => {
            // An ordinary user may have no state directory, but may ask.
            let state = StateDir::open_existing(&globals.state_dir(config)?).ok().flatten();
            let command = run_command(config.run_cmd.as_deref())?;
            globals.resolve_certname(config, state.as_ref(), &command).await?
        }
    };
    // With `--run` the argument is a certname, since an event has no runs to choose from.
    let event = args.subject.as_deref().and_then(event_id).filter(|_| which == Which::Back(0));
    Ok(event.map(Question::Event).into_iter().chain([Question::Run(certname, which)]).collect())
}

/// The event with this id, if the text is an id with a time: a certname may be any other UUID.
fn event_id(subject: &str) -> Option<EventId> {
    let id: EventId = subject.to_ascii_lowercase().parse().ok()?;
    id.made_at().is_some().then_some(id)
}

/// The run that `--run` names.
pub(super) fn which(text: &str) -> Result<Which, Failure> {
    if let Ok(back) = text.parse() {
        return Ok(Which::Back(back));
    }
    text.parse().map(Which::Id).map_err(|_| {
        Failure::usage(format!(
            "'{}' is neither a number of runs to go back (0 is the latest) nor a run's whole id",
            escaped(text)
        ))
    })
}

/// Answers the first of the questions that has an answer. If none has, the failure of the first is returned.
async fn ask(fleet: &Fleet, questions: Vec<Question>, warnings: &Warnings) -> Result<Answer, Failure> {
    let mut first_failure = None;
    for question in questions {
        let mut unverified = Unverified::default();
        let explained = fleet.explain(&question, &mut unverified).await?;
        warnings.extend(unverified.sentences());
        let explanation = match explained {
            Ok(explanation) => explanation,
            Err(error) => {
                let failure = Failure::failed(describe_error(&question, &error, fleet.prefix()));
                // If the node exists, its error says more than that no event has this id.
                match (error, first_failure.take()) {
                    (ExplainError::NoEvent | ExplainError::NoNode, known) => {
                        first_failure = known.or(Some(failure))
                    }
                    _ => return Err(failure),
                }
                continue;
            }
        };
        let event = match question {
            Question::Event(event) => fleet.event_status(event).await?,
            Question::Run(..) => None,
        };
        return Ok(Answer { question, explanation, event });
    }
    Err(first_failure.unwrap_or_else(|| Failure::usage("nothing was asked")))
}

fn describe_error(question: &Question, error: &ExplainError, prefix: &KeyPrefix) -> String {
    match question {
        Question::Run(certname, which) => {
            let looks_like_event = *which != Which::Back(0) && event_id(certname.as_str()).is_some();
            let hint = if looks_like_event {
                "; it has the form of an event's id, and --run goes with a certname"
            } else {
                ""
            };
            format!("{}{hint}", describe_run_error(certname, error, prefix))
        }
        Question::Event(event) => format!(
            "no event {event} is known under {}: it may have been swept, be spooled still on the node that \
             fired it, or fired under another prefix",
            prefix
        ),
    }
}

fn describe_run_error(certname: &Certname, error: &ExplainError, prefix: &KeyPrefix) -> String {
    match error {
        ExplainError::NoNode | ExplainError::NoEvent => format!(
            "no run of {certname} is known under {}, and no agent has registered under this certname: is it \
             spelt as Puppet does, and does its agent use this backend and prefix?",
            prefix
        ),
        ExplainError::NoRun => format!(
            "{certname} is registered, but reports no run: nothing has triggered it since its agent was set up; \
             'trigger queue' there shows what waits"
        ),
        ExplainError::TooFewRuns(1) => format!("{certname} reports one run only: omit --run"),
        ExplainError::TooFewRuns(reported) => {
            format!(
                "{certname} reports its latest {reported} runs only: --run goes from 0 to {}",
                reported - 1
            )
        }
        ExplainError::NoSuchRun(run) => format!(
            "{certname} does not report run {run}: it reports its latest {MAX_RUNS} runs at most, and the run may \
             be another node's"
        ),
    }
}

#[cfg(test)]
mod tests;
