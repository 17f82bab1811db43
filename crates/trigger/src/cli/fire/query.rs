//! The hosts of `trigger fire --query`: what PuppetDB answers at this moment.

use std::collections::BTreeSet;
use std::time::Duration;

use trigger_core::identity::Certname;
use trigger_core::run::command::RunCommand;
use trigger_node::puppetdb::{Client, PuppetDbError};
use trigger_store::https::HttpsError;

use crate::cli::globals::Globals;
use crate::config::ConfigFile;
use crate::failure::Failure;

/// How often PuppetDB is asked, since Puppet does not repeat a refresh that failed.
const ATTEMPTS: u32 = 3;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// Returns the active nodes that the query finds.
pub(super) async fn hosts(
    globals: &Globals,
    config: &ConfigFile,
    command: &RunCommand,
    query: &str,
) -> Result<BTreeSet<Certname>, Failure> {
    let certificates = globals.certificates(config).await?;
    let state_dir = globals.state_dir(config)?;
    let client = Client::new(config.puppetdb_url()?, command.clone(), &state_dir, Some(certificates));
    let mut attempt = 1;
    loop {
        match client.query(query).await {
            Ok(hosts) => return Ok(hosts),
            Err(error) if attempt < ATTEMPTS && may_pass(&error) => {
                tracing::debug!(%error, "PuppetDB is asked again");
                tokio::time::sleep(PAUSE).await;
                attempt += 1;
            }
            Err(error @ (PuppetDbError::NotKnown | PuppetDbError::Address { .. })) => {
                return Err(Failure::config(format!("--query: {error}; nothing was fired")));
            }
            Err(error) => return Err(Failure::failed(format!("--query: {error}; nothing was fired"))),
        }
    }
}

fn may_pass(error: &PuppetDbError) -> bool {
    match error {
        PuppetDbError::Request(HttpsError::Status { status, .. }) => status.is_server_error(),
        PuppetDbError::Request(error) => !matches!(error, HttpsError::TooLong { .. } | HttpsError::Files(_)),
        _ => false,
    }
}
