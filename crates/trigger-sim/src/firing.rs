//! `trigger fire` as a process: it makes an event and submits it to the shipped code.

use std::collections::BTreeMap;
use std::path::Path;

use trigger_core::event::Targets;
use trigger_core::identity::{EventId, KeyPrefix};
use trigger_core::publication::Publication;
use trigger_core::run::record::RunRecord;
use trigger_node::fire_chain::{self, FireRequest, Guarded};
use trigger_node::firing::{Publisher, Spool};
use trigger_node::host::Host;
use trigger_node::node_backends::NodeBackends;
use trigger_node::state::{Breaker, Outbox, StateDir};
use trigger_node::submit::{Caller, Submission};
use trigger_store::credentials::Credentials;

use crate::agent::codec;
use crate::manifest::name;
use crate::process::Proc;
use crate::server::BACKEND;
use crate::state_files::STATE_DIR;
use crate::wanted::{Answer, Wanted};

/// Runs `trigger fire` from its start to its end.
pub(crate) async fn fire(own: Proc, wanted: Wanted) {
    own.sim.with(|world| world.may_kill_fire(own.id));
    let mut warnings = Vec::new();
    let state = StateDir::open_on(own.clone(), Path::new(STATE_DIR)).ok();
    let parent = fire_chain::parent_run(wanted.run, state.as_ref(), &mut warnings);
    let mut publication = publication(&own, &wanted, parent.as_ref());
    let mut guarded = Guarded::default();
    if let (Some(parent), Some(state)) = (&parent, &state) {
        guarded = fire_chain::guard_against_loops(&mut publication, wanted.ttl, parent, state, &mut warnings);
    }
    own.act(|world| world.check_fired(own.machine, &publication, &wanted));
    own.step("fire: made").await;
    let spool = state
        .as_ref()
        .and_then(|state| Some(Spool { outbox: Outbox::open(state).ok()?, breaker: Breaker::new(state) }));
    let publisher =
        Publisher::new(own.clone(), spool, KeyPrefix::default(), Credentials::default(), node_backends())
            .signing_with(codec())
            .without_agent();
    // Outside a run it is an operator's, or that of a Puppet run which Trigger did not start.
    let is_operators = parent.is_none() && own.jitter() < 0.5;
    let caller = if is_operators { Caller::Operator } else { Caller::Puppet };
    let submission = Submission {
        state: state.as_ref(),
        publisher: &publisher,
        parent: parent.as_ref(),
        caller,
        unsigned: None,
    };
    let answer = Answer::from(submission.submit(&publication, &guarded, &mut warnings).await);
    own.act(|world| world.check_fire_answered(own.machine, &publication, &answer));
    own.step("fire: answered").await;
    own.exit();
}

/// The one backend of the simulated fleet.
fn node_backends() -> NodeBackends {
    NodeBackends::new(name(BACKEND), Vec::new())
}

fn publication(own: &Proc, wanted: &Wanted, parent: Option<&RunRecord>) -> Publication {
    let uuid = own.new_ordered_uuid();
    let request = FireRequest {
        trigger: wanted.trigger.clone(),
        origin: own.sim.with(|world| world.machines[own.machine].certname.clone()),
        targets: Targets { hosts: wanted.hosts.clone(), groups: wanted.groups.clone() },
        options: wanted.options.clone(),
        fired_by: None,
        catalog: None,
        loops: wanted.loops,
        expires_in: wanted.expires_in,
    };
    let id = EventId::of_origin(&request.origin, uuid);
    let event = request.into_event(id, parent, own.wall());
    Publication {
        backend: BACKEND.to_owned(),
        prefix: KeyPrefix::default(),
        event,
        suppressed: BTreeMap::new(),
        suppressed_groups: BTreeMap::new(),
    }
}
