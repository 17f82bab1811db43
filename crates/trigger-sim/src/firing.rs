//! `trigger fire` and the publishing that the agent does for it, in the order of the `trigger` crate's
//! `cli/fire.rs`, `cli/chain.rs` and `firing.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::{Either, join, select};
use tokio::sync::oneshot;
use trigger_core::event::{Event, RunOptions, Targets};
use trigger_core::identity::{Certname, EventId, GroupName, KeyPrefix, RunId, TriggerName};
use trigger_core::lineage::{Lineage, Loops};
use trigger_core::loop_guard::{self, is_suppressed};
use trigger_core::publication::Publication;
use trigger_core::wire::Stored;
use trigger_fleet::publishing::{PublishError, Published};
use trigger_store::store::StoreError;

use crate::process::Proc;
use crate::runs;

const PUBLISH_TIMEOUT: Duration = Duration::from_secs(3);
const AGENT_TIMEOUT: Duration = Duration::from_secs(8);
const BREAKER_OPEN_FOR: Duration = Duration::from_secs(30);
const BREAKER: &str = "backend-unreachable";

/// What somebody asks `trigger fire` for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) trigger: TriggerName,
    pub(crate) hosts: BTreeSet<Certname>,
    pub(crate) groups: BTreeSet<GroupName>,
    pub(crate) options: RunOptions,
    pub(crate) ttl: u32,
    pub(crate) loops: Loops,
    pub(crate) expires_in: Duration,
    /// What the environment names.
    pub(crate) run: Option<RunId>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Committed,
    Spooled,
    Failed(String),
}

/// `trigger fire`, from its start to its end.
pub(crate) async fn fire(own: Proc, wanted: Wanted) {
    own.with(|world| world.may_kill_fire(own.id));
    let (publication, noted) = make(&own, &wanted);
    own.step("fire: made").await;
    let (answer, by_agent) = submit(&own, &publication).await;
    own.with(|world| world.check_fire_answered(own.machine, publication.event.id, &answer));
    own.step("fire: answered").await;
    if let Answer::Failed(_) = answer {
        own.disk(|disk| runs::note_fire(disk, &publication.event, &noted, true));
        return own.with(|world| world.end_process(own.id));
    }
    if !by_agent && answer == Answer::Committed {
        drain(&own, true).await;
    }
    own.with(|world| world.end_process(own.id));
}

/// Makes the event, asks the loop guard, and counts the fire in the same step: the file is locked meanwhile.
fn make(own: &Proc, wanted: &Wanted) -> (Publication, BTreeSet<EventId>) {
    own.with(|world| {
        let parent = wanted.run.and_then(|run| runs::live_record(world, own.machine, run));
        let id = world.new_event_id(own.machine);
        let mut publication = Publication {
            backend: "sim:".to_owned(),
            prefix: KeyPrefix::default(),
            event: event(id, world.machines[own.machine].certname.clone(), wanted, world.wall(own.machine)),
            suppressed: BTreeMap::new(),
            suppressed_groups: BTreeMap::new(),
        };
        if let Some(parent) = &parent {
            let fired = runs::noted_fires(&world.machines[own.machine].disk);
            let fires =
                |root: EventId| fired.get(&(wanted.trigger.clone(), root)).copied().unwrap_or_default();
            let causes = parent.causes.iter().map(|cause| &cause.event);
            let chains = loop_guard::chains_through(&parent.certname, causes);
            publication.event.fired_in = Some(parent.run_id);
            loop_guard::suppress(&mut publication, wanted.ttl, chains, fires);
        }
        let mut noted = BTreeSet::new();
        if parent.is_some() && !is_suppressed(&publication) {
            noted.extend(publication.event.lineage.chains.iter().map(|chain| chain.root));
            let disk = world.machines[own.machine].disk.at(world.now);
            runs::note_fire(disk, &publication.event, &noted, false);
        }
        world.check_fired(own.machine, &publication, wanted);
        (publication, noted)
    })
}

fn event(id: EventId, origin: Certname, wanted: &Wanted, fired_at: trigger_core::time::Timestamp) -> Event {
    Event {
        id,
        trigger: wanted.trigger.clone(),
        origin,
        targets: Targets { hosts: wanted.hosts.clone(), groups: wanted.groups.clone() },
        options: wanted.options.clone(),
        lineage: Lineage::root(id),
        fired_in: None,
        loops: wanted.loops,
        fired_at,
        expires_in: wanted.expires_in,
    }
}

/// To the agent where one is alive, else straight on.
async fn submit(own: &Proc, publication: &Publication) -> (Answer, bool) {
    let asked = own.with(|world| {
        let (sender, receiver) = oneshot::channel();
        let socket = world.machines[own.machine].socket.as_ref()?;
        socket.fires.send((publication.clone(), sender)).ok()?;
        Some(receiver)
    });
    if let Some(receiver) = asked {
        let patience = own.sim.sleep(AGENT_TIMEOUT);
        if let Either::Left((Ok(answer), _)) = select(receiver, patience).await {
            return (answer, true);
        }
    }
    (publish_or_spool(own, publication).await, false)
}

fn outbox_file(event: EventId) -> String {
    format!("outbox/{event}.json")
}

/// Fires an event: when this says `Committed` or `Spooled`, the event is durable.
pub(crate) async fn publish_or_spool(own: &Proc, publication: &Publication) -> Answer {
    if is_breaker_open(own) {
        store(own, publication).await;
        own.with(|world| world.unlock(own.machine, &outbox_file(publication.event.id), own.id));
        return Answer::Spooled;
    }
    let ((), published) = join(store(own, publication), try_publish(own, publication)).await;
    settle(own, publication, published).await
}

/// Stores an event in the outbox, durably, and keeps it locked.
async fn store(own: &Proc, publication: &Publication) {
    let path = outbox_file(publication.event.id);
    let temporary = format!("outbox/.{}.{}.tmp", publication.event.id, own.id.0);
    own.disk(|disk| disk.write_synced(&temporary, publication.to_wire()));
    own.step("outbox: written").await;
    own.with(|world| world.lock(own.machine, &path, own.id));
    own.disk(|disk| disk.rename(&temporary, &path));
    own.step("outbox: renamed").await;
    own.disk(|disk| disk.sync(&path));
    own.step("outbox: synced").await;
}

async fn try_publish(own: &Proc, publication: &Publication) -> Result<Published, PublishError> {
    let fleet = own.connect();
    let targets = u32::try_from(publication.event.targets.hosts.len()).unwrap_or(u32::MAX);
    let limit = own.sim.sleep(PUBLISH_TIMEOUT + Duration::from_millis(1) * targets);
    let publishing = Box::pin(fleet.publish(publication, false));
    match select(publishing, limit).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(PublishError::Store(StoreError::Unreachable {
            backend: "sim:".to_owned(),
            detail: "it did not take the event in time".to_owned(),
        })),
    }
}

async fn settle(own: &Proc, publication: &Publication, published: Result<Published, PublishError>) -> Answer {
    let path = outbox_file(publication.event.id);
    own.step("publish: told").await;
    let answer = match published {
        Ok(_) => {
            own.disk(|disk| {
                disk.remove(BREAKER);
                disk.remove(&path);
            });
            Answer::Committed
        }
        Err(error) if error.is_transient() => {
            let now = own.sim.now();
            own.disk(|disk| disk.write(BREAKER, now.as_millis().to_string()));
            Answer::Spooled
        }
        Err(error) => {
            quarantine(own, &path);
            Answer::Failed(error.to_string())
        }
    };
    own.with(|world| world.unlock(own.machine, &path, own.id));
    answer
}

fn quarantine(own: &Proc, path: &str) {
    own.disk(|disk| {
        let aside = path.replacen("outbox/", "outbox/quarantined/", 1);
        disk.rename(path, &aside);
        disk.sync(&aside);
    });
}

fn is_breaker_open(own: &Proc) -> bool {
    let now = own.sim.now();
    let tripped = own.disk(|disk| disk.read(BREAKER)?.parse().ok()).map(Duration::from_millis);
    tripped.is_some_and(|at| now.saturating_sub(at) < BREAKER_OPEN_FOR)
}

/// Publishes what waits in the outbox, oldest first. Returns how many had to stay.
pub(crate) async fn drain(own: &Proc, in_a_hurry: bool) -> usize {
    let mut left = 0;
    let mut is_silent = false;
    let waiting: Vec<String> = own.disk(|disk| {
        let files = disk.list("outbox/", ".json").filter(|path| !path.contains("/quarantined/"));
        files.map(str::to_owned).collect()
    });
    for path in waiting {
        own.step("drain: next").await;
        let taken = own.with(|world| {
            if world.is_locked(own.machine, &path) {
                return None;
            }
            let text = world.machines[own.machine].disk.read(&path)?.to_owned();
            world.lock(own.machine, &path, own.id);
            Some(text)
        });
        let Some(text) = taken else { continue };
        match Publication::from_wire(&text) {
            Ok(publication) if publication.event.is_expired(own.wall()) => {
                own.with(|world| world.count("spooled event expired"));
                quarantine(own, &path);
                own.with(|world| world.unlock(own.machine, &path, own.id));
            }
            Ok(_) if is_silent || (in_a_hurry && is_breaker_open(own)) => {
                left += 1;
                own.with(|world| world.unlock(own.machine, &path, own.id));
            }
            Ok(publication) => {
                let published = try_publish(own, &publication).await;
                if settle(own, &publication, published).await == Answer::Spooled {
                    left += 1;
                    is_silent = true;
                } else {
                    own.with(|world| world.count("spooled event published"));
                }
            }
            Err(error) => own.with(|world| world.violate("outbox files are whole", error.to_string())),
        }
    }
    left
}
