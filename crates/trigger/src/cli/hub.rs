//! `trigger hub`: the embedded backend, and its backup.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Globals, OutputFormat, Warnings, inside_run, output};
use crate::config::{ConfigFile, DEFAULT_HUB_DATA_DIR, DEFAULT_LISTEN};
use trigger_hub::{self, HubError, HubSettings};
use trigger_node::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct HubArgs {
    /// Address to listen on: loopback only until the hub speaks TLS [default: 127.0.0.1:8145]
    #[arg(long, env = "TRIGGER_LISTEN", value_name = "ADDR", hide_env = true)]
    listen: Option<String>,
    /// Where the hub keeps its data [default: /var/lib/trigger/hub]
    #[arg(long, env = "TRIGGER_DATA_DIR", value_name = "DIR", hide_env = true, global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Copy the hub's data into FILE, whole and consistent, while it runs
    Backup {
        /// Must not exist yet
        file: PathBuf,
    },
}

impl HubArgs {
    fn data_dir(&self, config: &ConfigFile) -> PathBuf {
        let configured = self.data_dir.clone().or_else(|| config.hub.data_dir.clone());
        configured.unwrap_or_else(|| PathBuf::from(DEFAULT_HUB_DATA_DIR))
    }
}

pub(crate) fn run(globals: &Globals, args: &HubArgs, warnings: &Warnings) -> Result<u8, Failure> {
    if args.action.is_none() {
        crate::logging::start();
        inside_run::reexec_without_run_env()?;
    }
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let data_dir = args.data_dir(&config);
    match &args.action {
        Some(Action::Backup { file }) => {
            trigger_hub::backup(&data_dir, file).map_err(|error| Failure::failed(error.to_string()))?;
            match globals.output {
                OutputFormat::Json => output::print_json(&json!({
                    "data_dir": data_dir.to_string_lossy(),
                    "file": file.to_string_lossy(),
                    "warnings": warnings.take(),
                })),
                OutputFormat::Text | OutputFormat::Dot => {
                    output::warnings(&warnings.take());
                    output::print(&format!("Backed up {} to {}.", data_dir.display(), file.display()));
                }
            }
        }
        None => {
            let configured = args.listen.clone().or_else(|| config.hub.listen.clone());
            let listen = configured.unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
            warnings.take().iter().for_each(|warning| tracing::warn!("{warning}"));
            serve(HubSettings { listen, data_dir })?;
        }
    }
    Ok(0)
}

fn serve(settings: HubSettings) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))
        };
        let (mut terminate, mut interrupt) =
            (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let stopped = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let data_dir = settings.data_dir.clone();
        let ready = move |address| {
            tracing::info!("hub is ready on {address}, its data in {}", data_dir.display());
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
                tracing::debug!("no service manager to tell: {error}");
            }
        };
        trigger_hub::run(settings, ready, stopped).await.map_err(|error| failure(&error))
    })
}

fn failure(error: &HubError) -> Failure {
    match error {
        HubError::InvalidListen(_) => Failure::config(error.to_string()),
        _ => Failure::failed(error.to_string()),
    }
}
