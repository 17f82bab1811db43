//! Gathers what `trigger doctor` judges. Nothing here ends early: what cannot be looked at is a fact too, or absent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Access, access, statvfs};
use trigger_core::doctor::{
    Agent, Answered, Backend, Certificate, Claim, Configuration, Directory, Facts, Module, Names, Outbox,
    Puppet, PuppetDb, Service,
};
use trigger_core::event::Target;
use trigger_core::identity::{Certname, EventId};
use trigger_core::keyspace::Keyspace;
use trigger_core::queue::PuppetBlocker;
use trigger_core::run::command::{CommandKind, RunCommand};
use trigger_fleet::Fleet;
use trigger_node::agent::AgentError;
use trigger_node::agent::catalogs::PuppetDb as _;
use trigger_node::agent_socket::{self, NoReply, Reply, Request};
use trigger_node::puppet_settings::{self, Attempt, PuppetSettings};
use trigger_node::puppetdb;
use trigger_node::state::{self, StateDir};
use trigger_node::{clock, puppet_locks};
use trigger_store::credentials::Credentials;
use trigger_store::kinds::Access as BackendAccess;
use trigger_store::store::{Store, StoreError};
use trigger_store::url::BackendUrl;

use crate::cli::agent::check_command;
use crate::cli::globals::Globals;
use crate::cli::outbox;
use crate::cli::puppet_wait::wait_for_puppet;
use crate::config::{
    BackendSource, ConfigFile, DEFAULT_CONFIG, metrics_file, run_command, run_timeout, runs_per_minute,
    settle,
};
use crate::failure::Failure;

/// How long to wait for the agent, which answers at once if it is alive.
const AGENT_TIMEOUT: Duration = Duration::from_secs(3);
/// The agent's unit, in the packages and in the Puppet module.
const UNIT: &str = "trigger-agent.service";
/// What exists where systemd is the first process.
const SYSTEMD: &str = "/run/systemd/system";
/// The name of the module's directory.
const MODULE: &str = "trigger";

pub(super) async fn facts(globals: &Globals) -> Facts {
    let mut facts = Facts::new(clock::wall(), env!("CARGO_PKG_VERSION"));
    facts.service = service();
    let path = globals.config.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
    facts.configuration.path = path.display().to_string();
    facts.configuration.is_there = path.exists();
    match globals.read_config() {
        Ok(config) => with_config(globals, &config, &mut facts).await,
        Err(failure) => facts.configuration.problems.push(failure.message),
    }
    facts
}

/// What can be looked at once the configuration has been read, whatever its values are.
async fn with_config(globals: &Globals, config: &ConfigFile, facts: &mut Facts) {
    configuration(globals, config, &mut facts.configuration);
    let state = state_dir(globals, config, facts);
    if let Some(state) = &state {
        facts.agent = Some(agent(state).await);
        facts.outbox = outbox_of(globals, config, state);
    }
    let Ok(command) = run_command(config.run_cmd.as_deref()) else { return };
    let settings = puppet(globals, config, &command, state.as_ref(), facts).await;
    names(globals, config, state.as_ref(), settings, facts);
    let Ok(chosen) = globals.chosen_backend(config) else { return };
    if chosen.url.kind().access == BackendAccess::WriteOnly {
        facts.configuration.problems.push(AgentError::WriteOnlyBackend { url: chosen.url }.to_string());
        return;
    }
    let credentials = credentials(globals, config, &chosen.url, facts).await;
    let own = own_certname(facts);
    facts.puppetdb = puppetdb(globals, config, &command, &credentials, own.as_ref()).await;
    let opened = trigger_store::backend::Backend::open(&chosen.url, &credentials);
    match opened.map(|backend| backend.store().cloned()) {
        Ok(Some(store)) => ask_backend(config, &chosen.url, store, own, facts).await,
        Ok(None) => {}
        Err(error) => facts.configuration.problems.push(error.to_string()),
    }
}

/// Asks PuppetDB what an agent would ask it, about this node itself.
async fn puppetdb(
    globals: &Globals,
    config: &ConfigFile,
    command: &RunCommand,
    credentials: &Credentials,
    own: Option<&Certname>,
) -> Option<PuppetDb> {
    let (url, state_dir) = (config.puppetdb_url().ok()?, globals.state_dir(config).ok()?);
    let is_waited_for = settle(config.settle.as_deref()).is_ok_and(|settle| !settle.is_zero());
    let client = puppetdb::Client::new(url, command.clone(), &state_dir, credentials.tls.clone());
    let found = |url: String, problem| Some(PuppetDb { url, problem, is_waited_for });
    match client.url() {
        Ok(None) => None,
        Ok(Some(url)) => {
            let answer = client.catalogs(own.map(std::slice::from_ref).unwrap_or_default()).await;
            found(url.to_string(), answer.err().map(|error| error.to_string()))
        }
        Err(error) => found(String::new(), Some(error.to_string())),
    }
}

fn configuration(globals: &Globals, config: &ConfigFile, found: &mut Configuration) {
    let command = run_command(config.run_cmd.as_deref());
    let chosen = globals.chosen_backend(config);
    found.names_backend = match &chosen {
        Ok(chosen) => chosen.source != BackendSource::Default || chosen.named_kind.is_some(),
        Err(_) => true,
    };
    let checks = [
        chosen.map(drop),
        command.as_ref().map_err(|failure| Failure::config(failure.message.clone())).and_then(check_command),
        config.certname().map(drop),
        config.prefix().map(drop),
        config.groups().map(drop),
        config.policy().map(drop),
        config.audit_file().map(drop),
        config.tls.files().map(drop),
        run_timeout(config.run_timeout.as_deref()).map(drop),
        runs_per_minute(None, config.runs_per_minute).map(drop),
        settle(config.settle.as_deref()).map(drop),
        config.puppetdb_url().map(drop),
        metrics_file(config.metrics_file.as_deref()).map(drop),
        globals.signing(config).map(drop),
    ];
    found.problems.extend(checks.into_iter().filter_map(Result::err).map(|failure| failure.message));
    found.doubts.extend(config.warnings.iter().cloned());
    found.doubts.extend(command.iter().flat_map(RunCommand::doubts));
}

/// Opens the state directory. One that is not there is not created.
fn state_dir(globals: &Globals, config: &ConfigFile, facts: &mut Facts) -> Option<StateDir> {
    let path = match globals.state_dir(config) {
        Ok(path) => path,
        Err(failure) => {
            facts.configuration.problems.push(failure.message);
            return None;
        }
    };
    let mut directory = Directory { path: path.display().to_string(), ..Directory::default() };
    let state = if path.exists() {
        match StateDir::open(&path) {
            Ok(state) => Some(state),
            Err(error) => {
                directory.problem = Some(error.to_string());
                None
            }
        }
    } else {
        directory.problem =
            Some(format!("there is no state directory {}: no agent has started here", path.display()));
        None
    };
    if let Some(state) = &state {
        if let Err(error) = access(state.path(), Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
            directory.problem = Some(format!("{} cannot be used by this user: {error}", path.display()));
        }
        let space = statvfs(state.path()).ok();
        directory.free_bytes = space.map(|space| space.f_bavail.saturating_mul(space.f_frsize));
    }
    facts.directory = Some(directory);
    state
}

async fn agent(state: &StateDir) -> Agent {
    match agent_socket::ask(state.path(), &Request::Queue, AGENT_TIMEOUT).await {
        Ok(Reply::Queue(view)) => Agent::Answers {
            disconnected: view.disconnected,
            blocked: view.blocked.filter(|_| view.blocked_by.as_deref() != Some("hold")),
            hold: view.hold.map(|hold| hold.sentence()),
            held: view.held.len(),
            unreadable: view.unreadable.len(),
        },
        Ok(Reply::Failed { message, .. }) => Agent::Refuses(message),
        Ok(_) | Err(NoReply::NotUnderstood) => Agent::OtherVersion,
        Err(NoReply::NotInTime) => Agent::Silent,
        Err(NoReply::NoAgent) => Agent::Absent,
    }
}

fn outbox_of(globals: &Globals, config: &ConfigFile, state: &StateDir) -> Option<Outbox> {
    let files = state::Outbox::open(state).ok()?;
    let node = globals.node_backends(config).ok();
    let spooled = outbox::spooled(state, &files, node.as_ref()).ok()?;
    Some(Outbox {
        spooled: spooled.len(),
        elsewhere: spooled.iter().filter(|event| event.is_elsewhere).count(),
        quarantined: outbox::quarantined(&files).ok()?.len(),
    })
}

/// Asks Puppet for its settings, where anything depends on them.
async fn puppet(
    globals: &Globals,
    config: &ConfigFile,
    command: &RunCommand,
    state: Option<&StateDir>,
    facts: &mut Facts,
) -> Option<PuppetSettings> {
    let runs_puppet = command.kind() != CommandKind::Other;
    let is_needed = runs_puppet || !matches!(globals.certname(config), Ok(Some(_)));
    let mut found = Puppet { is_needed, ..Puppet::default() };
    let mut settings = None;
    if let Some(state) = state.filter(|_| is_needed) {
        let environment = BTreeMap::new();
        let asked = puppet_settings::ask(command, &environment, state.path(), Attempt::ONLY);
        match wait_for_puppet(asked).await {
            Ok(asked) => settings = Some(asked),
            Err(error) => found.problem = Some(error.to_string()),
        }
    }
    if let Some(settings) = settings.as_ref().filter(|_| runs_puppet) {
        found.disabled = puppet_locks::disabled(&settings.disabled_lock).map(|blocker| match blocker {
            PuppetBlocker::Disabled(why)
            | PuppetBlocker::Broken(why)
            | PuppetBlocker::Unknown(why)
            | PuppetBlocker::OtherCertname(why) => why,
        });
        found.running = match puppet_locks::run_in_progress(&settings.run_lock) {
            Ok(pid) => pid.map(Ok),
            Err(error) => Some(Err(format!("{}: {error}", settings.run_lock.display()))),
        };
        facts.modules = modules(command).await;
    }
    if state.is_some() || !is_needed {
        facts.puppet = Some(found);
    }
    settings
}

/// The copies of the module where Puppet looks for it.
async fn modules(command: &RunCommand) -> Option<Vec<Module>> {
    let asked = puppet_settings::module_path(command, Attempt::ONLY);
    let directories = wait_for_puppet(asked).await.ok()?;
    Some(directories.iter().filter_map(|directory| module(&directory.join(MODULE))).collect())
}

fn module(path: &Path) -> Option<Module> {
    let metadata: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path.join("metadata.json")).ok()?).ok()?;
    let version = metadata.get("version")?.as_str()?.to_owned();
    Some(Module { path: path.display().to_string(), version })
}

fn names(
    globals: &Globals,
    config: &ConfigFile,
    state: Option<&StateDir>,
    settings: Option<PuppetSettings>,
    facts: &mut Facts,
) {
    let puppets = match (settings, facts.puppet.as_ref().and_then(|puppet| puppet.problem.clone())) {
        (Some(settings), _) => {
            let unusable =
                |error| format!("Puppet's certname '{}' cannot be used: {error}", settings.certname);
            Some(settings.certname.parse::<Certname>().map_err(unusable))
        }
        (None, problem) => problem.map(Err),
    };
    let owner = state.and_then(|state| match state.certname() {
        Ok(owner) => owner,
        Err(error) => {
            if let Some(directory) = &mut facts.directory {
                directory.problem.get_or_insert(error.to_string());
            }
            None
        }
    });
    let configured = globals.certname(config).ok().flatten();
    facts.names = Some(Names { configured, owner, puppets, certificate: None });
}

/// The certname that the node acts under: an agent keeps the one that its directory belongs to.
fn own_certname(facts: &Facts) -> Option<Certname> {
    let names = facts.names.as_ref()?;
    let puppets = names.puppets.as_ref().and_then(|puppets| puppets.as_ref().ok());
    names.owner.as_ref().or(names.configured.as_ref()).or(puppets).cloned()
}

/// The node's certificate, where the backend or the signatures need one.
async fn credentials(
    globals: &Globals,
    config: &ConfigFile,
    url: &BackendUrl,
    facts: &mut Facts,
) -> Credentials {
    let backends = std::slice::from_ref(url);
    let (credentials, mut problem) = match globals.credentials(config, backends).await {
        Ok(credentials) => (credentials, None),
        Err(failure) => (Credentials::default(), Some(failure.message)),
    };
    let signing = globals.signing(config).ok();
    let is_needed = url.uses_tls() || signing.is_some_and(|signing| signing.wants_certificates());
    if !is_needed {
        // A key that the nodes share is a setting, and no certificate.
        if let Err(failure) = globals.reading_codec(config, &credentials, url) {
            facts.configuration.problems.push(failure.message);
        }
        return credentials;
    }
    let mut found = Certificate::default();
    match credentials.tls.as_ref().map(|certificates| certificates.get()) {
        Some(Ok(pki)) => {
            let trust = pki.trust();
            problem = problem.or_else(|| pki.own_problem(facts.now).map(|why| why.to_string()));
            found.not_after = Some(pki.identity().not_after());
            found.checks_revocation = trust.has_revocation_lists();
            found.stale_lists = trust.stale_lists(facts.now).iter().map(ToString::to_string).collect();
            if let Some(names) = &mut facts.names {
                names.certificate = Some(pki.identity().certname().clone());
            }
        }
        Some(Err(error)) => problem = Some(error.to_string()),
        None => {
            problem.get_or_insert(
                "this node has no certificate, so that it can neither sign what it fires nor verify what it gets: sign \
                 it, name its files in [tls], or give all nodes a shared_key"
                    .to_owned(),
            );
        }
    }
    found.problem = problem;
    facts.certificate = Some(found);
    credentials
}

async fn ask_backend(
    config: &ConfigFile,
    url: &BackendUrl,
    store: Arc<dyn Store>,
    own: Option<Certname>,
    facts: &mut Facts,
) {
    let Ok(prefix) = config.prefix() else { return };
    let fleet = Fleet::new(Arc::clone(&store), Keyspace::new(prefix));
    let began = Instant::now();
    let answer = match &own {
        Some(own) => fleet.node(own).await,
        None => store.server_version().await.map(|_| None),
    };
    let took = began.elapsed();
    let answer = match answer {
        Err(error) => Err(error.to_string()),
        Ok(record) => {
            let difference = store.clock_difference();
            let denied = match &own {
                Some(own) => denied(&fleet.clone().acting_as(own.clone()), own).await,
                None => None,
            };
            if let Some(certname) = own {
                facts.claim = Some(Claim { certname, record });
            }
            Ok(Answered {
                took,
                version: store.server_version().await.ok().flatten(),
                ahead: difference.map_or(Duration::ZERO, |difference| difference.ahead()),
                behind: difference.map_or(Duration::ZERO, |difference| difference.behind()),
                denied,
            })
        }
    };
    let is_hub = url.kind().name == "hub";
    facts.backend = Some(Backend { url: url.to_string(), is_hub, answer });
}

/// Why this node may not do what is its own: read its deliveries, and delete one. None is deleted, because there is none of
/// an event that was made up here.
async fn denied(fleet: &Fleet, own: &Certname) -> Option<String> {
    let made_up = EventId::from_uuid(uuid::Uuid::now_v7());
    let addressed_as = BTreeSet::from([Target::Node(own.clone())]);
    let checks = async {
        fleet.open_deliveries(own).await?;
        fleet.delete_deliveries([(made_up, &addressed_as)]).await
    };
    match checks.await {
        Err(
            StoreError::Refused { detail, .. }
            | StoreError::Denied { detail, .. }
            | StoreError::Full { detail, .. },
        ) => Some(detail.to_string()),
        Err(error) => Some(error.to_string()),
        Ok(()) => None,
    }
}

/// What systemd says of the agent's unit; nothing where another service manager runs.
fn service() -> Option<Service> {
    if !Path::new(SYSTEMD).exists() {
        return None;
    }
    let output = Command::new("systemctl")
        .args(["show", "--property=ActiveState", "--property=UnitFileState", UNIT])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let property = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().to_owned()
    };
    Some(Service {
        unit: UNIT.to_owned(),
        active: property("ActiveState"),
        enabled: property("UnitFileState"),
    })
}
