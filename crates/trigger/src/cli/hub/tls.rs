//! The TLS settings of a hub.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use trigger_core::duration;
use trigger_hub::{CrlFetch, ListenAddress};
use trigger_node::agent::on_os::extend_start;
use trigger_node::puppet_settings::Attempt;
use trigger_pki::Pki;

use super::super::globals::Globals;
use crate::config::{ConfigFile, setting};
use crate::failure::Failure;

/// How often revocation lists are fetched by default.
const DEFAULT_CRL_REFRESH: Duration = Duration::from_secs(60 * 60);
/// The shortest interval of fetching: the lists of a large CA are megabytes.
const MIN_CRL_REFRESH: Duration = Duration::from_secs(10);
/// The file of the data directory for the revocation lists that were fetched.
const FETCHED_LISTS: &str = "crl.pem";

#[derive(Debug, Args)]
pub(super) struct TlsArgs {
    /// Speak TLS with this node's Puppet certificate, to nodes of the same CA only; false is for loopback only [default:
    /// true, except on loopback]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls: Option<bool>,
    /// Loopback address that also answers /healthz and /metrics, without TLS [default: none]
    #[arg(long, value_name = "ADDR")]
    health_listen: Option<String>,
    /// URL of the CA's revocation lists on the Puppet server, to be fetched regularly [default: none]
    #[arg(long, value_name = "URL")]
    crl_url: Option<String>,
    /// How often the revocation lists are fetched [default: 1h]
    #[arg(long, value_name = "DURATION")]
    crl_refresh: Option<String>,
}

impl TlsArgs {
    /// Where health checks are answered without TLS.
    pub(super) fn health_listen(&self, config: &ConfigFile) -> Option<String> {
        self.health_listen.clone().or_else(|| config.hub.health_listen.clone())
    }

    /// Whether the hub speaks TLS: wherever other machines reach it, unless that is forbidden, which the hub refuses.
    pub(super) fn is_on(&self, config: &ConfigFile, listen: &str) -> Result<bool, Failure> {
        let listen: ListenAddress = setting("hub.listen")(listen)?;
        Ok(self.tls.or(config.hub.tls).unwrap_or_else(|| listen.needs_tls()))
    }

    /// From where revocation lists are fetched.
    pub(super) fn crl_fetch(
        &self,
        config: &ConfigFile,
        data_dir: &Path,
    ) -> Result<Option<CrlFetch>, Failure> {
        let Some(url) = self.crl_url.as_ref().or(config.hub.crl_url.as_ref()) else { return Ok(None) };
        let refresh = self.crl_refresh.as_ref().or(config.hub.crl_refresh.as_ref());
        let interval = refresh.map_or(Ok(DEFAULT_CRL_REFRESH), |text| crl_refresh(text))?;
        Ok(Some(CrlFetch { url: setting("hub.crl_url")(url)?, interval, file: fetched_lists(data_dir) }))
    }
}

fn crl_refresh(text: &str) -> Result<Duration, Failure> {
    let interval = duration::parse(text).map_err(|error| {
        Failure::config(format!("setting hub.crl_refresh: '{text}' is not a duration: {error}"))
    })?;
    if interval < MIN_CRL_REFRESH {
        let least = MIN_CRL_REFRESH.as_secs();
        return Err(Failure::config(format!("setting hub.crl_refresh: '{text}' is less than {least} s")));
    }
    Ok(interval)
}

fn fetched_lists(data_dir: &Path) -> PathBuf {
    data_dir.join(FETCHED_LISTS)
}

/// How many questions Puppet may be asked for its settings, one after the other.
const PUPPET_QUESTIONS: u32 = 2;
/// What the start of a hub may take after that.
const REST_OF_START: Duration = Duration::from_secs(60);

/// The certificates with which a hub speaks TLS, and the revocation lists that were fetched. Puppet is asked for its files
/// where the configuration does not name them, and the service manager for the time that Puppet may take.
pub(super) async fn pki(globals: &Globals, config: &ConfigFile, data_dir: &Path) -> Result<Pki, Failure> {
    extend_start(PUPPET_QUESTIONS * Attempt::ONLY.timeout + REST_OF_START);
    let files = globals.certificates(config).await?.files().clone();
    Pki::open_with_more_lists(files, vec![fetched_lists(data_dir)])
        .map_err(|error| Failure::config(format!("the hub cannot speak TLS: {error}")))
}
