//! `trigger log`: the output of a run, from this node's own file or from another node through the backend.

mod remote;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use trigger_core::duration;
use trigger_core::identity::{Certname, KeyPrefix, RunId};
use trigger_core::run_log::RunChoice;
use trigger_core::why::Which;
use trigger_fleet::Fleet;
use trigger_node::run_output::{self, RunOutput};
use trigger_node::state::{Runs, StateDir};

use remote::Remote;

use super::globals::{Globals, OutputFormat};
use super::why::which;
use crate::config::{ConfigFile, run_command};
use crate::documents::RunLog;
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

/// How often this node's own file is read while a run goes on.
const LOCAL_INTERVAL: Duration = Duration::from_millis(500);
/// How often another node is asked. Each time costs a write to the backend at both ends.
const REMOTE_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// A node's certname, for its latest run, or a run's id [default: this node]
    #[arg(value_name = "CERTNAME|RUN")]
    subject: Option<String>,
    /// The run of the node: how many runs back, or a run's id
    #[arg(long, value_name = "NUMBER|RUN", default_value = "0")]
    run: String,
    /// Go on with what the run writes, until it ends
    #[arg(long)]
    follow: bool,
    /// How long to wait for the answer of another node
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration::parse, allow_negative_numbers = true)]
    timeout: Duration,
    /// The key prefix that the agents are registered under [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    prefix: Option<KeyPrefix>,
}

/// Where the output is read.
enum Source {
    /// In this node's own file.
    Local(Runs),
    /// At another node.
    Remote(Box<Remote>),
}

/// What was read, as far as it was.
struct Shown {
    certname: Certname,
    run: RunId,
    is_over: bool,
    skipped_bytes: u64,
    text: Vec<u8>,
}

pub(crate) async fn run(globals: &Globals, args: &LogArgs, warnings: &Warnings) -> Result<ExitCode, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let own = own_certname(globals, &config).await?;
    let run = args.subject.as_deref().and_then(|subject| subject.to_ascii_lowercase().parse::<RunId>().ok());
    let (certname, choice) = match (run, args.subject.as_deref()) {
        (Some(run), _) => (None, RunChoice::Id(run)),
        (None, None) => (Some(own.clone()), choice(&args.run)?),
        (None, Some(subject)) => {
            let certname = Certname::fold_case(subject)
                .map_err(|error| Failure::usage(format!("{error}; a run is named by its whole id")))?;
            (Some(certname), choice(&args.run)?)
        }
    };
    let local = if certname.as_ref().is_none_or(|certname| *certname == own) {
        local(globals, &config, choice, &own)?
    } else {
        None
    };
    let (certname, source) = match (local, certname) {
        (Some(runs), _) => (own, Source::Local(runs)),
        (None, Some(certname)) if certname == own => {
            return Err(Failure::failed(format!(
                "no such run of {own} is kept here: a node keeps its last hundred runs"
            )));
        }
        (None, certname) => {
            let fleet = globals.fleet(&config, args.prefix.as_ref(), warnings).await?.acting_as(own);
            let certname = match certname {
                Some(certname) => certname,
                None => node_of(&fleet, choice, warnings).await?,
            };
            let remote = Remote::open(fleet, certname.clone(), args.timeout, warnings).await?;
            (certname, Source::Remote(Box::new(remote)))
        }
    };
    let withdrawal = match &source {
        Source::Local(_) => None,
        Source::Remote(remote) => Some(remote.withdrawal()),
    };
    let shown = tokio::select! {
        shown = show(source, &certname, choice, args.follow, globals.output) => Some(shown),
        Ok(()) = tokio::signal::ctrl_c() => None,
    };
    // A sweep removes what was asked where this fails.
    if let Some(withdrawal) = withdrawal {
        let _ = withdrawal.await;
    }
    let Some(shown) = shown.transpose()? else { return Ok(ExitCode::SUCCESS) };
    if globals.output == OutputFormat::Json {
        let Shown { certname, run, is_over, skipped_bytes, text } = shown;
        let text = String::from_utf8_lossy(&text).into_owned();
        output::document(&RunLog::of(certname, run, is_over, skipped_bytes, text, warnings.take()));
    }
    Ok(ExitCode::SUCCESS)
}

/// This node's certname, without a state directory where there is none.
async fn own_certname(globals: &Globals, config: &ConfigFile) -> Result<Certname, Failure> {
    let state = StateDir::open_existing(&globals.state_dir(config)?).ok().flatten();
    let command = run_command(config.run_cmd.as_deref())?;
    globals.resolve_certname(config, state.as_ref(), &command).await
}

fn choice(run: &str) -> Result<RunChoice, Failure> {
    Ok(match which(run)? {
        Which::Back(back) => RunChoice::Latest { back: u32::try_from(back).unwrap_or(u32::MAX) },
        Which::Id(run) => RunChoice::Id(run),
    })
}

/// This node's runs, if the chosen one is among them.
fn local(
    globals: &Globals,
    config: &ConfigFile,
    choice: RunChoice,
    own: &Certname,
) -> Result<Option<Runs>, Failure> {
    let path = globals.state_dir(config)?;
    if !path.join("runs").is_dir() {
        return Ok(None);
    }
    let runs = Runs::open(&StateDir::open(&path)?)?;
    Ok(runs.choose(choice, own)?.map(|_| runs))
}

/// The node of a run, as the fleet's run histories have it.
async fn node_of(fleet: &Fleet, choice: RunChoice, warnings: &Warnings) -> Result<Certname, Failure> {
    let RunChoice::Id(run) = choice else { unreachable!("a run without a node is named by its id") };
    let found = fleet.node_of_run(run).await?;
    warnings.extend(found.unverified.sentences());
    match (found.certname, found.denied) {
        (Some(certname), _) => Ok(certname),
        (None, Some(denied)) => Err(Failure::failed(format!(
            "the node of run {run} is not known here, because only operators see the runs of other nodes ({denied}): name it, as \
             in 'trigger log CERTNAME --run {run}'"
        ))),
        (None, None) => Err(Failure::failed(format!(
            "no node has run {run} among its latest runs: 'trigger why CERTNAME' shows those of a node"
        ))),
    }
}

/// Reads the output, and prints it as it comes unless a document is wanted.
async fn show(
    mut source: Source,
    certname: &Certname,
    choice: RunChoice,
    follows: bool,
    format: OutputFormat,
) -> Result<Shown, Failure> {
    let first = source.read(certname, choice, None).await?;
    let mut shown = Shown {
        certname: certname.clone(),
        run: first.run,
        is_over: first.is_over,
        skipped_bytes: first.from,
        text: Vec::new(),
    };
    if format != OutputFormat::Json {
        let state = if first.is_over { "ended" } else { "in progress" };
        output::note(&format!("run {} on {certname}, {state}", first.run));
    }
    let mut read_until = 0;
    let mut part = first;
    loop {
        let skipped = part.from.saturating_sub(read_until);
        read_until = part.to;
        match format {
            OutputFormat::Json => shown.text.extend(&part.bytes),
            OutputFormat::Text | OutputFormat::Dot => print(skipped, &part.bytes),
        }
        shown.is_over = part.is_over;
        if part.is_over || !follows {
            break;
        }
        tokio::time::sleep(source.interval()).await;
        part = source.read(certname, RunChoice::Id(shown.run), Some(read_until)).await?;
    }
    // A document has the end of the output, as a first answer has.
    let surplus = shown.text.len().saturating_sub(trigger_core::run_log::MAX_OUTPUT_BYTES);
    shown.text.drain(..surplus);
    shown.skipped_bytes += surplus as u64;
    Ok(shown)
}

fn print(skipped: u64, bytes: &[u8]) {
    if skipped > 0 {
        output::note(&format!("[{skipped} bytes before this are not shown]"));
    }
    let text = String::from_utf8_lossy(bytes);
    if !text.is_empty() {
        output::print_page(text.strip_suffix('\n').unwrap_or(&text));
    }
}

impl Source {
    async fn read(
        &mut self,
        certname: &Certname,
        choice: RunChoice,
        from: Option<u64>,
    ) -> Result<RunOutput, Failure> {
        match self {
            Self::Local(runs) => run_output::read(runs, choice, from, certname)?
                .ok_or_else(|| Failure::failed("the run is not kept any more".to_owned())),
            Self::Remote(remote) => remote.read(choice, from).await,
        }
    }

    fn interval(&self) -> Duration {
        match self {
            Self::Local(_) => LOCAL_INTERVAL,
            Self::Remote(_) => REMOTE_INTERVAL,
        }
    }
}
