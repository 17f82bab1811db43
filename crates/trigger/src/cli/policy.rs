//! `trigger policy`: what this node's policy says.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use trigger_core::escaped::escaped;
use trigger_core::event::RunOptions;
use trigger_core::identity::{Certname, Tag, TriggerName};
use trigger_core::policy::{Decision, Request};
use trigger_core::signer::Signer;
use trigger_core::trusted_extension::canonical;

use super::fire::valid;
use super::globals::{Globals, OutputFormat};
use crate::documents::PolicyDecision;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::warnings::Warnings;

#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show which rule (`accept` in the configuration) decides about an event on this node; exit code 1 if it is refused
    Test(TestArgs),
}

#[derive(Debug, Args)]
struct TestArgs {
    /// The node that fires
    #[arg(long, value_name = "CERTNAME")]
    from: String,
    /// The trigger's name
    #[arg(long, value_name = "NAME")]
    trigger: String,
    /// A tag of the event; repeat for more [default: none, for the whole catalog]
    #[arg(long = "tag", alias = "tags", value_name = "TAG", value_delimiter = ',')]
    tags: Vec<String>,
    /// Whether the event asks for a noop run
    #[arg(long)]
    noop: bool,
    /// The environment of Puppet's that the event asks for [default: the node's own]
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// A trusted extension of the node's certificate, such as pp_role=web; repeat for more
    #[arg(long = "extension", value_name = "NAME=VALUE")]
    extensions: Vec<String>,
    /// Whether the event is not signed, or with the shared key, so that no certificate says who fired it
    #[arg(long, conflicts_with = "extensions")]
    unsigned: bool,
}

pub(crate) fn run(globals: &Globals, args: &PolicyArgs, warnings: &Warnings) -> Result<ExitCode, Failure> {
    let Action::Test(args) = &args.action;
    let config = globals.read_config()?;
    if !config.warnings.is_empty() {
        return Err(Failure::config(config.warnings.join("; ")));
    }
    let policy = config.policy()?;
    let trigger: TriggerName = valid(&args.trigger)?;
    let origin = Certname::fold_case(&args.from).map_err(|error| Failure::usage(error.to_string()))?;
    let tags = args.tags.iter().map(|tag| valid::<Tag>(tag));
    let options = RunOptions {
        tags: tags.collect::<Result<_, _>>()?,
        noop: args.noop,
        environment: args.environment.as_deref().map(valid).transpose()?,
    };
    let signer = signer(args)?;
    let request = Request { trigger: &trigger, origin: &origin, options: &options, signer: &signer };
    let decision = policy.judge(&request);
    let document = PolicyDecision::of(&policy, &request, &decision, warnings.take());
    match globals.output {
        OutputFormat::Json => output::document(&document),
        OutputFormat::Text | OutputFormat::Dot => output::print_page(document.text().trim_end()),
    }
    Ok(match decision {
        Decision::Accepted { .. } => ExitCode::SUCCESS,
        Decision::Refused { .. } => Exit::Failed.into(),
    })
}

/// The signer that the arguments describe.
fn signer(args: &TestArgs) -> Result<Signer, Failure> {
    if args.unsigned {
        return Ok(Signer::Unsigned);
    }
    let mut extensions = BTreeMap::new();
    for text in &args.extensions {
        let known = text.split_once('=').and_then(|(name, value)| Some((canonical(name)?, value)));
        let (name, value) = known.ok_or_else(|| {
            Failure::usage(format!(
                "'{}' is no trusted extension with its value, such as pp_role=web",
                escaped(text)
            ))
        })?;
        if extensions.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(Failure::usage(format!(
                "the extension {name} is given twice: a certificate has one value of it"
            )));
        }
    }
    Ok(Signer::Certificate { algorithm: String::new(), fingerprint: String::new(), extensions })
}
