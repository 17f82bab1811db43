//! The event of `trigger fire --retry`.

use trigger_core::event::{Event, FiredBy, Targets};
use trigger_core::identity::{Certname, EventId};
use trigger_core::retry;
use trigger_core::run::record::RunRecord;
use trigger_node::fire_chain::FireRequest;

use super::args::FireArgs;
use super::event;
use crate::cli::globals::Globals;
use crate::cli::target_counts;
use crate::config::ConfigFile;
use crate::failure::Failure;
use crate::warnings::Warnings;

/// Reads an earlier event, and makes one like it for the targets at which it came to nothing.
pub(super) async fn make(
    globals: &Globals,
    config: &ConfigFile,
    (args, earlier): (&FireArgs, EventId),
    origin: Certname,
    parent: Option<&RunRecord>,
    warnings: &Warnings,
) -> Result<Event, Failure> {
    let prefix = args.prefix.as_deref().map(event::valid).transpose()?;
    let fleet = globals.fleet(config, prefix.as_ref(), warnings).await?;
    let Some(status) = fleet.event_status(earlier).await? else {
        return Err(Failure::failed(format!(
            "no event {earlier} is known under {}: it may have been swept, or is still in the outbox of its origin",
            fleet.prefix()
        )));
    };
    if let Some(limited) = &status.limited_to {
        return Err(Failure::failed(format!(
            "event {earlier} was fired by {}, and the hub shows {limited} its own delivery only: retry it there, or as an \
             operator",
            status.event.origin
        )));
    }
    let deliveries = status.targets.iter().map(|(certname, target)| (certname, target.state));
    let hosts = retry::targets(deliveries);
    if hosts.is_empty() {
        return Err(Failure::failed(format!(
            "event {earlier} failed nowhere, expired nowhere and was cancelled nowhere, so that there is nothing to retry ({})",
            target_counts::sentence(&status)
        )));
    }
    let request = FireRequest {
        trigger: status.event.trigger,
        origin,
        targets: Targets { hosts, groups: Default::default() },
        options: status.event.options,
        fired_by: Some(FiredBy::RetryOf(earlier)),
        catalog: None,
        loops: status.event.loops,
        expires_in: args.expires_in.unwrap_or(status.event.expires_in),
    };
    event::fired_now(request, parent)
}
