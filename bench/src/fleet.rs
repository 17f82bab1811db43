//! A thousand agents on one backend: what they cost it, and how soon all are served after it was killed.
//!
//! The agents are clients in this one process, on the library that the real agent uses: each watches its
//! deliveries, reads again after a lost watch with the agent's own waits, stores outcomes and renews its
//! registration. What they leave out is the run.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use trigger_backend::backend::Backend;
use trigger_backend::claim::RENEW_EVERY;
use trigger_backend::deliveries::{self, Arrival};
use trigger_backend::outcomes;
use trigger_backend::store::{Change, Entry, Store, StoreError, WatchEvent};
use trigger_core::backoff;
use trigger_core::identity::{Certname, EventId, RunId};
use trigger_core::layout::Layout;
use trigger_core::outcome::{End, EndedRun, Outcome, RunResult};
use trigger_core::queue::{Ending, Source};
use trigger_core::status::{Activity, NodeRecord};
use trigger_core::time::Timestamp;
use trigger_core::wire::Stored;

use crate::figures::{Figure, Figures, Goal};
use crate::memory::Held;
use crate::original::{self, Etcd};
use crate::process::{Background, cpu_seconds, run, wait_for};
use crate::scratch::Scratch;
use crate::trigger::{Agent, Hub, Program};

const PATIENCE: Duration = Duration::from_secs(120);
/// How long the backend's processor time is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(30);
/// All are served so soon after the backend started again.
const GOAL_SECONDS: f64 = 10.0;
/// Files this process may have open: two connections for each agent, and as many again while they change.
const FILES: u64 = 8192;

/// The backend's process, which can be killed and started again at the same place.
enum Server {
    Hub(Hub),
    Etcd(Etcd),
}

/// Starts a killed server again, at its address and with its data.
type StartAgain = Box<dyn FnOnce(&Scratch, &Program) -> Result<Server>>;

impl Server {
    fn start(kind: &str, scratch: &Scratch, program: &Program) -> Result<Self> {
        Ok(match kind {
            "hub" => Self::Hub(Hub::start(scratch, program, "fleet-hub")?),
            _ => Self::Etcd(original::start_etcd(scratch, "fleet-etcd")?),
        })
    }

    fn process(&self) -> &Background {
        match self {
            Self::Hub(hub) => &hub.process,
            Self::Etcd(etcd) => &etcd.process,
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Hub(hub) => format!("hub+http://{}", hub.address),
            Self::Etcd(etcd) => format!("etcd://{}", etcd.address),
        }
    }

    /// Kills it, as `kill -9` does.
    fn kill(self) -> StartAgain {
        match self {
            Self::Hub(hub) => {
                let again = hub.kill();
                Box::new(|scratch, program| Ok(Self::Hub(again(scratch, program, "fleet-hub")?)))
            }
            Self::Etcd(etcd) => {
                let again = etcd.kill();
                Box::new(|scratch, _| Ok(Self::Etcd(again(scratch, "fleet-etcd")?)))
            }
        }
    }
}

pub(crate) fn measure(
    scratch: &Scratch,
    program: &Program,
    agents: usize,
    figures: &mut Figures,
) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    let files = FILES.min(limit.maximum.unwrap_or(FILES));
    limit.current = limit.current.map(|current| current.max(files));
    setrlimit(Resource::Nofile, limit).context("cannot open as many files as a fleet needs")?;
    for kind in ["etcd", "hub"] {
        measure_on(kind, scratch, program, agents, figures)?;
    }
    Ok(())
}

fn measure_on(
    kind: &'static str,
    scratch: &Scratch,
    program: &Program,
    count: usize,
    figures: &mut Figures,
) -> Result<()> {
    let server = Server::start(kind, scratch, program)?;
    let empty = Held::by(server.process().pid())?;
    let url = server.url();
    let firing = Agent::start(scratch, program, &url, &format!("{kind}-fleet-firing"), "true")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let fleet = Fleet::start(&runtime, &url, count)?;
    let hosts: String = (0..count).map(|number| format!("{}\n", certname(number))).collect();
    let hosts = scratch.write(&format!("{kind}-fleet"), &hosts)?;
    let fire = || -> Result<(EventId, bool)> {
        let mut command = program.command();
        command.args(["fire", "fleet", "--output", "json", "--certname", "origin.example.com"]);
        command.args(["--backend", &url, "--hosts-from"]).arg(&hosts);
        command.arg("--state-dir").arg(&firing.state).stdin(Stdio::null());
        fired(&mut command)
    };

    wait_for("the watches of the fleet", PATIENCE, || fleet.watching() == count)?;
    std::thread::sleep(Duration::from_secs(5));
    let mut add = |measure, unit, samples: Vec<f64>, goal: Option<Goal>| {
        figures.add(Figure {
            measure,
            setup: format!("{kind}, {count} agents"),
            unit,
            samples,
            original: None,
            goal,
        });
    };
    let cpu = cpu_seconds(server.process().pid())?;
    std::thread::sleep(IDLE);
    let idle_cpu = (cpu_seconds(server.process().pid())? - cpu) / IDLE.as_secs_f64() * 100.0;
    let held = Held::by(server.process().pid())?;
    add("memory of the server, idle", "MB", vec![held.resident], None);
    add("processor of the server, idle", "%", vec![idle_cpu], None);

    let cpu = cpu_seconds(server.process().pid())?;
    let fired_at = Instant::now();
    let (event, _) = fire()?;
    fleet.wait_for_all(event)?;
    add("one event, the fire to each agent", "s", fleet.seconds(event, fired_at), None);
    wait_for("the outcomes of the fleet", PATIENCE, || fleet.finished(event) == count)?;
    add("the same, processor of the server", "s", vec![cpu_seconds(server.process().pid())? - cpu], None);

    // Fired while nothing answers: it waits in the node's outbox, and its agent carries it afterwards.
    let start_again = server.kill();
    let (event, is_spooled) = fire()?;
    if !is_spooled {
        bail!("an event was committed by a backend that was killed");
    }
    let restarted_at = Instant::now();
    let server = start_again(scratch, program)?;
    fleet.wait_for_all(event)?;
    let seconds = fleet.seconds(event, restarted_at);
    let last = seconds.iter().copied().fold(0.0, f64::max);
    add("restarted after kill -9, to each agent", "s", seconds, None);
    add("the same, the last agent", "s", vec![last], Some(Goal::AtMost(GOAL_SECONDS)));
    wait_for("the outcomes of the fleet", PATIENCE, || fleet.finished(event) == count)?;
    let held = Held::by(server.process().pid())?;
    add("memory of the server after all that", "MB", vec![held.resident], None);
    figures.note(format!(
        "fleet: without agents the {kind} server held {:.1} MB; every agent was given both events",
        empty.resident
    ));
    Ok(())
}

/// What `trigger fire` made, and whether it waits in the outbox.
fn fired(command: &mut Command) -> Result<(EventId, bool)> {
    let reply: serde_json::Value =
        serde_json::from_slice(&run(command)?.stdout).context("`trigger fire` printed no JSON")?;
    let id = reply["event_id"].as_str().and_then(|id| id.parse().ok());
    Ok((id.context("an event without its id")?, reply["state"] == "spooled"))
}

fn certname(number: usize) -> String {
    format!("node{number:04}.example.com")
}

/// What the agents saw.
#[derive(Default)]
struct Seen {
    watching: usize,
    arrived: BTreeMap<EventId, BTreeMap<Certname, Instant>>,
    finished: BTreeMap<EventId, BTreeSet<Certname>>,
}

struct Fleet {
    seen: Arc<Mutex<Seen>>,
}

impl Fleet {
    fn start(runtime: &Runtime, url: &str, count: usize) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        for number in 0..count {
            // A connection of its own for each, as the agents of a fleet have.
            let Backend::Store(store) = Backend::open(&url.parse()?)? else { bail!("{url} keeps nothing") };
            let agent = Client {
                store,
                layout: Layout::default(),
                certname: certname(number).parse()?,
                spread: number as f64 / count as f64,
                seen: Arc::clone(&seen),
            };
            runtime.spawn(agent.run());
        }
        Ok(Self { seen })
    }

    fn with<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn watching(&self) -> usize {
        self.with(|seen| seen.watching)
    }

    fn finished(&self, event: EventId) -> usize {
        self.with(|seen| seen.finished.get(&event).map_or(0, BTreeSet::len))
    }

    fn wait_for_all(&self, event: EventId) -> Result<()> {
        wait_for("the event's arrival at every agent", PATIENCE, || {
            self.with(|seen| {
                seen.arrived.get(&event).is_some_and(|arrived| arrived.len() == seen.watching.max(1))
            })
        })
    }

    fn seconds(&self, event: EventId, since: Instant) -> Vec<f64> {
        self.with(|seen| {
            let arrived = seen.arrived.get(&event).into_iter().flat_map(BTreeMap::values);
            arrived.map(|at| at.saturating_duration_since(since).as_secs_f64()).collect()
        })
    }
}

/// One agent without its runs.
struct Client {
    store: Arc<dyn Store>,
    layout: Layout,
    certname: Certname,
    /// From 0.0 up to 1.0, different for each: in place of chance.
    spread: f64,
    seen: Arc<Mutex<Seen>>,
}

impl Client {
    async fn run(self) {
        // A fleet does not start at one moment.
        tokio::time::sleep(Duration::from_secs(5).mul_f64(self.spread)).await;
        tokio::join!(self.watch(), self.renew());
    }

    fn see<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(&mut self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    async fn watch(&self) {
        let (mut attempt, mut lost_at, mut is_first) = (0_u32, Instant::now(), true);
        loop {
            if let Ok(mut watch) =
                self.store.watch(deliveries::ranges(&self.layout, &self.certname, [])).await
            {
                if std::mem::take(&mut is_first) {
                    self.see(|seen| seen.watching += 1);
                }
                attempt = 0;
                while let Some(Ok(event)) = watch.next().await {
                    if self.take(entries(event)).await.is_err() {
                        break;
                    }
                }
                lost_at = Instant::now();
            }
            let jitter = (self.spread * 7919.0 + f64::from(attempt) * 0.618).fract();
            tokio::time::sleep(backoff::reconnect(attempt, lost_at.elapsed(), jitter)).await;
            attempt += 1;
        }
    }

    /// Reads what is behind the deliveries, and ends each as a run that found nothing to do.
    async fn take(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let (store, layout) = (self.store.as_ref(), &self.layout);
        let arrivals = deliveries::read(store, layout, &self.certname, &BTreeMap::new(), &entries).await?;
        for arrival in arrivals {
            let Arrival::Pending(cause) = arrival else { continue };
            let event = cause.event.id;
            self.see(|seen| {
                seen.arrived
                    .entry(event)
                    .or_default()
                    .entry(self.certname.clone())
                    .or_insert_with(Instant::now);
            });
            let ending = Ending { event, sources: [Source::Host].into(), end: unchanged() };
            outcomes::finish(store, layout, &self.certname, &[ending]).await?;
            self.see(|seen| seen.finished.entry(event).or_default().insert(self.certname.clone()));
        }
        Ok(())
    }

    async fn renew(&self) {
        for renewals in 0_u64.. {
            let record = NodeRecord {
                instance: "fleet".to_owned(),
                location: "the bench".to_owned(),
                renewals,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                seen_at: wall(),
                lock: None,
                released: false,
                groups: BTreeMap::new(),
                activity: Activity::default(),
            };
            let _ = self.store.put_many(vec![(self.layout.node(&self.certname), record.to_wire())]).await;
            tokio::time::sleep(RENEW_EVERY.mul_f64(0.75 + self.spread / 4.0)).await;
        }
    }
}

fn entries(event: WatchEvent) -> Vec<Entry> {
    let put = |change| match change {
        Change::Put(entry) => Some(entry),
        Change::Deleted(_) => None,
    };
    match event {
        WatchEvent::Snapshot(entries) => entries,
        WatchEvent::Changes(changes) => changes.into_iter().filter_map(put).collect(),
    }
}

fn unchanged() -> End {
    let now = wall();
    End::Done(EndedRun {
        run_id: RunId::from_uuid(uuid::Uuid::now_v7()),
        noop: false,
        result: RunResult {
            outcome: Outcome::Unchanged,
            reason: None,
            reported_noop: false,
            started_at: now,
            finished_at: now,
        },
    })
}

fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or_default())
}
