//! Runs the shipped agent on a simulated machine, with the signals, the socket and Puppet's lock that surround it
//! there.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use trigger_core::identity::KeyPrefix;
use trigger_core::policy::{Policy, Rule, RuleSettings};
use trigger_core::queue::PuppetBlocker;
use trigger_core::rate_limiter::RunsPerMinute;
use trigger_core::run::command::RunCommand;
use trigger_fleet::codec::{Codec, Means};
use trigger_node::agent::catalogs::CatalogChannels;
use trigger_node::agent::{
    self, AgentError, AgentSettings, CertnameSource, DisableCheck, Part, Service, Stopped, Surroundings,
};
use trigger_node::state::StateDir;
use trigger_pki::SharedKey;
use trigger_store::credentials::Credentials;

use crate::executor::Sim;
use crate::manifest::name;
use crate::process::Proc;
use crate::server::BACKEND;
use crate::state_files::STATE_DIR;
use crate::tasks::ProcessId;
use crate::world::Ask;
use crate::world::{Kind, Socket};

const RUN_TIMEOUT: Duration = Duration::from_secs(600);

/// Starts an agent on a machine. The caller makes sure that no other agent runs there.
pub(crate) fn start(sim: &Sim, machine: usize, may_inherit_claim: bool) -> ProcessId {
    let own = Proc::start(sim, machine, Kind::Agent);
    own.note(format_args!("agent starts"));
    sim.spawn(own.id, live(own.clone(), may_inherit_claim));
    own.id
}

/// Runs the agent from its start to its end, which a crash may bring about.
async fn live(own: Proc, may_inherit_claim: bool) {
    let ended = serve(&own, may_inherit_claim).await;
    own.note(format_args!("agent ends: {ended:?}"));
    own.act(|world| {
        match ended {
            Ok(Stopped::Terminated) => world.agent_ended_in_order(own.machine),
            Ok(stopped) => world.machines[own.machine].restarts = Some(stopped),
            Err(_) if world.machines[own.machine].is_full => world.count("agent ended by a full disk"),
            Err(error) => world.violate("an agent ends when it is asked to", error.to_string()),
        }
        world.end_process(own.id);
    });
}

async fn serve(own: &Proc, may_inherit_claim: bool) -> Result<Stopped, AgentError> {
    let settings = settings(own, may_inherit_claim)?;
    let (signals_in, signals) = mpsc::channel(4);
    let surroundings = Surroundings {
        signals,
        policy: watch::channel(Policy::default()).1,
        catalogs: CatalogChannels::unconnected(),
        disabled: Switch(own.clone()),
        serve: |service: Service<Proc>| {
            let (fires_in, fires) = mpsc::unbounded_channel();
            let socket = Socket {
                agent: own.id,
                fires: fires_in,
                signals: signals_in,
                claim: service.claim().clone(),
            };
            own.act(|world| world.machines[own.machine].socket = Some(socket));
            let part: Part = Box::pin(take_fires(own.clone(), service, fires));
            Ok(vec![part])
        },
        on_ready: Box::new(|| ()),
    };
    agent::run(settings, surroundings, || async { Ok::<(), AgentError>(()) }).await
}

fn settings(own: &Proc, may_inherit_claim: bool) -> Result<AgentSettings<Proc>, AgentError> {
    let (certname, groups, runs_puppet) = own.sim.with(|world| {
        let machine = &world.machines[own.machine];
        (machine.certname.clone(), machine.groups.clone(), machine.runs_puppet)
    });
    let words = if runs_puppet { &["puppet", "agent"][..] } else { &["converge"] };
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let command = RunCommand::from_words(words.clone()).unwrap_or_default();
    Ok(AgentSettings {
        certname_source: CertnameSource::Configured(certname.clone()),
        certname,
        state: StateDir::open_on(own.clone(), Path::new(STATE_DIR))?,
        backend: name(BACKEND),
        named_backends: Vec::new(),
        credentials: Credentials::default(),
        codec: codec(),
        prefix: KeyPrefix::default(),
        groups,
        command,
        command_words: words,
        run_timeout: RUN_TIMEOUT,
        runs_per_minute: RunsPerMinute::default(),
        policy: policy(),
        settle: Duration::ZERO,
        socket_groups: Vec::new(),
        metrics_file: None,
        run_environment: BTreeMap::new(),
        may_inherit_claim,
    })
}

/// Events may choose any environment, and do all else that they may without rules.
fn policy() -> Policy {
    let settings = RuleSettings { environments: Some(vec!["*".to_owned()]), ..RuleSettings::default() };
    Policy::new("trigger.toml", Rule::new(settings).into_iter().collect())
}

/// The machines share a key, so that everything is signed and verified, and one seed stays one course of events.
pub(crate) fn codec() -> Codec {
    Codec::signing(Means::SharedKey(SharedKey::from_bytes(b"the key of the simulated fleet")), true)
}

/// Fires the events that other processes submit to this agent, each in a conversation of its own.
async fn take_fires(own: Proc, service: Service<Proc>, mut fires: mpsc::UnboundedReceiver<Ask>) {
    let service = std::sync::Arc::new(service);
    while let Some(Ask { publication, ignores_pause, answer }) = fires.recv().await {
        let (conversation, service) = (own.clone(), std::sync::Arc::clone(&service));
        own.sim.spawn(own.id, async move {
            let report = service.fire(&publication, ignores_pause).await;
            conversation.step("socket: about to answer").await;
            let _ = answer.send(report);
        });
    }
}

/// Puppet's disabled lock on a simulated machine.
struct Switch(Proc);

impl DisableCheck for Switch {
    async fn has_moved(&mut self) {
        std::future::pending().await
    }

    fn reason(&mut self, _: bool) -> Option<PuppetBlocker> {
        let is_disabled = self.0.sim.with(|world| world.machines[self.0.machine].is_disabled);
        is_disabled.then(|| PuppetBlocker::Disabled("Puppet is disabled on this node".to_owned()))
    }

    fn confirms_certname(&self) -> bool {
        true
    }

    fn take_over_cache(&mut self) {}
}
