//! Runs the agent on the operating system: signals, the socket for commands, the file of metrics, Puppet's lock.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use super::callers::Callers;
use super::catalogs::PuppetDb;
use super::disable_watcher::{DisableWatcher, Puppet};
use super::policy_file::PolicyFile;
use super::socket::Access;
use super::{AgentError, AgentSettings, Part, Service, Signal, Stopped, Surroundings};
use super::{certificates, log_server, metrics_file, output_limiter, reaper, socket, start};
use crate::os::Os;
use crate::process_table;

/// Runs the agent until a signal, a reload or the loss of its claim stops it. Calls `check_configuration` before a
/// reload; if that fails, the agent goes on with its old configuration. Its policy follows the `policy_file` without a
/// reload.
///
/// # Errors
/// [`AgentError`], from the start of the agent or from a task that ended.
pub async fn run<C: Future<Output = Result<(), E>>, E: fmt::Display>(
    settings: AgentSettings,
    policy_file: PolicyFile,
    puppetdb: impl PuppetDb,
    check_configuration: impl Fn() -> C,
) -> Result<Stopped, AgentError> {
    if !process_table::is_readable() {
        return Err(AgentError::NoProcessTable);
    }
    if !process_table::is_own() {
        tracing::warn!(
            "/proc shows the processes of another namespace: mount this one's, because a run that takes too long is ended by it; without it, only the run's process group is ended"
        );
    }
    let (signals_in, signals) = mpsc::channel(1);
    let (policy_in, policy) = watch::channel(settings.policy.clone());
    let forwarders = forward_signals(&signals_in)?;
    let disabled = DisableWatcher::new(Puppet {
        command: settings.command.clone(),
        environment: settings.run_environment.clone(),
        state_dir: settings.state.path().to_owned(),
        certname: settings.certname.clone(),
        source: settings.certname_source.clone(),
    });
    let metrics_file = settings.metrics_file.clone();
    let (host, certificates) = (*settings.state.host(), settings.credentials.tls.clone());
    let uses_tls = settings.backend.uses_tls() || settings.codec.uses_certificates();
    let find_lock = disabled.find();
    let (catalogs, watch_catalogs) = super::catalogs::watch(host, puppetdb);
    // This list is taken before this program starts children of its own.
    let inherited = reaper::children();
    let followed = policy.clone();
    let serve = |mut service: Service<Os>| {
        let log_requests = service.log_requests.take();
        let (node, claim) = (Arc::clone(&service.node), service.claim.clone());
        let mut parts = parts(service, Box::pin(find_lock), metrics_file)?;
        parts.extend(forwarders);
        parts.push(Box::pin(reaper::reap(inherited)));
        parts.push(Box::pin(policy_file.follow(policy_in)));
        if let Some(requests) = log_requests {
            parts.push(Box::pin(log_server::run(node, claim, followed, requests)));
        }
        parts.push(Box::pin(watch_catalogs));
        if let Some(certificates) = certificates.filter(|_| uses_tls) {
            parts.push(Box::pin(certificates::follow(host, certificates)));
        }
        Ok(parts)
    };
    let on_ready = Box::new(notify_ready);
    let surroundings = Surroundings { signals, policy, catalogs, disabled, serve, on_ready };
    let span = tracing::info_span!("agent", certname = %settings.certname);
    start::run(settings, surroundings, check_configuration).instrument(span).await
}

/// Returns the tasks that need the operating system. `find_lock` keeps Puppet's settings up to date: without it, an
/// agent would hold every delivery and look alive.
fn parts(
    service: Service<Os>,
    find_lock: Part,
    metrics_file: Option<PathBuf>,
) -> Result<Vec<Part>, AgentError> {
    let service = Arc::new(service);
    let settings = &service.node.settings;
    let own = socket::listen(Access::Own, settings.state.path())?;
    let callers = Callers::new(settings.socket_groups.clone());
    let runs = service.node.settings.state.path().join("runs");
    let mut parts: Vec<Part> = vec![
        find_lock,
        Box::pin(socket::serve(Access::Own, own, Arc::clone(&service), callers.clone())),
        Box::pin(output_limiter::run(runs)),
    ];
    if callers.groups().is_empty() {
        socket::close_shared(settings.state.path());
    } else {
        let shared = socket::listen(Access::Shared, settings.state.path())?;
        parts.push(Box::pin(socket::serve(Access::Shared, shared, Arc::clone(&service), callers)));
    }
    if let Some(path) = metrics_file {
        parts.push(Box::pin(metrics_file::run(service, path)));
    }
    Ok(parts)
}

/// Returns a task for each Unix signal, which forwards it each time it arrives. What arrives before the task starts is
/// forwarded, too.
fn forward_signals(signals: &mpsc::Sender<Signal>) -> Result<Vec<Part>, AgentError> {
    let meanings = [
        (SignalKind::terminate(), Signal::Terminate),
        (SignalKind::interrupt(), Signal::Terminate),
        (SignalKind::hangup(), Signal::Reload),
    ];
    let forwarder = |(kind, meaning)| {
        let mut received = signal(kind).map_err(AgentError::Signals)?;
        let signals = signals.clone();
        let forward =
            async move { while received.recv().await.is_some() && signals.send(meaning).await.is_ok() {} };
        Ok(Box::pin(forward) as Part)
    };
    meanings.into_iter().map(forwarder).collect()
}

/// Asks the service manager for more time before this process counts as one that does not start.
pub fn extend_start(time: Duration) {
    let microseconds = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// Reports to the service manager that the agent has started, and what it waits for.
pub fn notify_waiting(reason: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(reason)]);
}

fn notify_ready() {
    notify(&[NotifyState::Ready, NotifyState::Status("")]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "no service manager to notify");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::catalogs::CatalogChannels;
    use crate::agent::testing::{Check, settings};

    #[tokio::test]
    async fn an_agent_without_the_task_that_asks_puppet_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (_signals_in, signals) = mpsc::channel(1);
        let surroundings = Surroundings {
            signals,
            policy: watch::channel(Default::default()).1,
            catalogs: CatalogChannels::unconnected(),
            disabled: Check::default(),
            serve: |service| parts(service, Box::pin(async { panic!("a defect") }), None),
            on_ready: Box::new(|| ()),
        };
        let agent = start::run(settings(dir.path()), surroundings, || async { Ok::<(), AgentError>(()) });
        let ended = tokio::time::timeout(Duration::from_secs(20), agent).await.expect("it ends");
        assert!(matches!(ended, Err(AgentError::PartEnded)), "{ended:?}");
    }
}
