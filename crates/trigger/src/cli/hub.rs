//! `trigger hub`: the embedded backend, and its backup.

mod tls;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use trigger_core::authorization::Operators;
use trigger_core::identity::Certname;
use trigger_core::keyspace::Keyspace;
use trigger_hub::{HubSettings, Rights};
use trigger_pki::Pki;
use trigger_store::address::{Address, InvalidAddress};

use super::first_process::run_daemon_as_child;
use super::globals::{Globals, OutputFormat, start_audit};
use super::reexec::reexec_without_run_env;
use crate::config::{ConfigFile, DEFAULT_HUB_DATA_DIR, DEFAULT_LISTEN, absolute};
use crate::documents::Backup;
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;
use tls::TlsArgs;

#[derive(Debug, Args)]
pub(crate) struct HubArgs {
    /// Address to listen on; one that other machines reach means TLS [default: 127.0.0.1:8145]
    #[arg(long, env = "TRIGGER_LISTEN", value_name = "ADDR", hide_env = true)]
    listen: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Without TLS, another name by which clients may address the hub, such as that of a forwarded port; repeat for more
    #[arg(long = "allowed-host", value_name = "HOST:PORT")]
    allowed_hosts: Vec<String>,
    /// Where the hub keeps its data [default: /var/lib/trigger/hub]
    #[arg(long, env = "TRIGGER_DATA_DIR", value_name = "DIR", hide_env = true, global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Copy the hub's data into FILE, complete and consistent, while the hub runs
    Backup {
        /// The file to create; it must not exist yet
        file: PathBuf,
    },
}

impl HubArgs {
    fn allowed_hosts(&self, config: &ConfigFile) -> Result<Vec<Address>, Failure> {
        let hosts =
            if self.allowed_hosts.is_empty() { &config.hub.allowed_hosts } else { &self.allowed_hosts };
        let parse = |host: &String| {
            host.parse().map_err(|error: InvalidAddress| {
                Failure::config(format!(
                    "setting hub.allowed_hosts: '{host}' is no address of a hub: {error}"
                ))
            })
        };
        hosts.iter().map(parse).collect()
    }

    fn data_dir(&self, config: &ConfigFile) -> Result<PathBuf, Failure> {
        let configured = self.data_dir.clone().or_else(|| config.hub.data_dir.clone());
        absolute("data_dir", configured.unwrap_or_else(|| PathBuf::from(DEFAULT_HUB_DATA_DIR)))
    }
}

pub(crate) fn run(globals: &Globals, args: &HubArgs, warnings: &Warnings) -> Result<ExitCode, Failure> {
    if args.action.is_none() {
        if let Some(code) = run_daemon_as_child()? {
            return Ok(code);
        }
        crate::logging::start();
        reexec_without_run_env()?;
    }
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let data_dir = args.data_dir(&config)?;
    match &args.action {
        Some(Action::Backup { file }) => {
            trigger_hub::backup(&data_dir, file)?;
            match globals.output {
                OutputFormat::Json => output::document(&Backup {
                    data_dir: data_dir.to_string_lossy().into_owned(),
                    file: file.to_string_lossy().into_owned(),
                    warnings: warnings.take(),
                }),
                OutputFormat::Text | OutputFormat::Dot => {
                    output::warnings(&warnings.take());
                    output::print(&format!("Backed up {} to {}.", data_dir.display(), file.display()));
                }
            }
        }
        None => {
            start_audit(&config)?;
            let configured = args.listen.clone().or_else(|| config.hub.listen.clone());
            let listen = configured.unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
            warnings.take().iter().for_each(|warning| tracing::warn!("{warning}"));
            let allowed_hosts = args.allowed_hosts(&config)?;
            let crl_fetch = args.tls.crl_fetch(&config, &data_dir)?;
            let health_listen = args.tls.health_listen(&config);
            let is_tls = args.tls.is_on(&config, &listen)?;
            let rights = rights(&config)?;
            let settings =
                HubSettings { listen, tls: None, crl_fetch, health_listen, allowed_hosts, rights, data_dir };
            serve(settings, async |settings: &HubSettings| match is_tls {
                true => Ok(Some(tls::pki(globals, &config, &settings.data_dir).await?)),
                false => Ok(None),
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a hub with TLS serves, and who may read all of it.
fn rights(config: &ConfigFile) -> Result<Rights, Failure> {
    let certname = |text: &String| {
        Certname::fold_case(text).map_err(|error| Failure::config(format!("setting hub.operators: {error}")))
    };
    let operators = Operators {
        certnames: config.hub.operators.iter().map(certname).collect::<Result<_, _>>()?,
        auth_roles: config.hub.operator_auth_roles.iter().cloned().collect(),
        cli_auth: config.hub.operator_cli_auth,
    };
    Ok(Rights { keyspace: Keyspace::new(config.prefix()?), operators })
}

/// Serves with the certificates that `pki` finds, if the hub is to speak TLS.
fn serve(
    mut settings: HubSettings,
    pki: impl AsyncFnOnce(&HubSettings) -> Result<Option<Pki>, Failure>,
) -> Result<(), Failure> {
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
        let mut stopped = Box::pin(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        settings.tls = tokio::select! {
            biased;
            () = &mut stopped => return Ok(()),
            pki = pki(&settings) => pki?,
        };
        let data_dir = settings.data_dir.clone();
        let ready = move |address| {
            tracing::info!(%address, data_dir = %data_dir.display(), "hub is ready");
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
                tracing::debug!(%error, "no service manager to notify");
            }
        };
        Ok(trigger_hub::run(settings, ready, stopped).await?)
    })
}
