//! All agents of the fleet, and the events that they have seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use trigger_core::identity::{Certname, EventId};
use trigger_core::keyspace::Keyspace;
use trigger_fleet::Fleet;
use trigger_fleet::codec::{Codec, Means};
use trigger_pki::{LazyPki, TlsFiles};
use trigger_store::backend::Backend;
use trigger_store::credentials::Credentials;

use super::client::Client;
use super::clock::wall;
use super::seen::Seen;
use crate::process::{happens_within, wait_for};

/// A hub with an RSA key makes some hundred handshakes a second.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The number of files that this process may open: two connections for each agent, and as many again while they
/// reconnect.
const FILES: u64 = 40_000;

pub(super) struct Agents {
    seen: Arc<Mutex<Seen>>,
    pub(super) count: usize,
    /// The runtime of the agents, which ends them when it is dropped.
    _runtime: Runtime,
}

impl Agents {
    /// Starts so many agents, with these certificates if there are any: each has its own.
    pub(super) fn start(url: &str, count: usize, certificates: &[TlsFiles]) -> Result<Self> {
        allow_files()?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let seen = Arc::<Mutex<Seen>>::default();
        for number in 0..count {
            // Each agent has a connection of its own, like the agents of a real fleet.
            let tls = certificates.get(number).cloned().map(LazyPki::new);
            let codec = tls.clone().map_or_else(Codec::default, |certificates| {
                Codec::signing(Means::Certificates { certificates, clock: Arc::new(wall) }, true)
            });
            let Backend::Store(store) = Backend::open(&url.parse()?, &Credentials { tls })? else {
                bail!("{url} keeps nothing")
            };
            let fleet = Fleet::new(store, Keyspace::default()).with_codec(codec);
            let spread = number as f64 / count as f64;
            let agent = Client::new(fleet, certname(number).parse()?, spread, Arc::clone(&seen));
            runtime.spawn(agent.run());
        }
        Ok(Self { seen, count, _runtime: runtime })
    }

    fn with<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the certnames, one on each line.
    pub(super) fn certnames(&self) -> String {
        (0..self.count).map(|number| format!("{}\n", certname(number))).collect()
    }

    pub(super) fn wait_for_watches(&self) -> Result<()> {
        wait_for("the watches of the fleet", TIMEOUT, || self.with(|seen| seen.watching.len() == self.count))
    }

    /// Waits, with a timeout, until each agent has stored the outcome of each of these events: an event may be lost.
    pub(super) fn wait_for_outcomes(&self, events: &[EventId]) {
        happens_within(TIMEOUT, || events.iter().all(|event| self.unfinished(*event) == 0));
    }

    /// Returns the number of agents that have not received the event yet.
    pub(super) fn without(&self, event: EventId) -> usize {
        self.count - self.with(|seen| seen.arrived.get(&event).map_or(0, BTreeMap::len))
    }

    /// Returns the number of agents that have not stored its outcome yet.
    pub(super) fn unfinished(&self, event: EventId) -> usize {
        self.count - self.with(|seen| seen.finished.get(&event).map_or(0, BTreeSet::len))
    }

    /// Returns, for each agent that received all of these events, the seconds until the last of them arrived.
    pub(super) fn seconds(&self, events: &[EventId], since: Instant) -> Vec<f64> {
        let all_given = |seen: &Seen, certname: &Certname| {
            let times = events.iter().map(|event| seen.arrived.get(event)?.get(certname).copied());
            times.collect::<Option<Vec<Instant>>>()?.into_iter().max()
        };
        self.with(|seen| {
            let first = events.first().and_then(|event| seen.arrived.get(event));
            let certnames = first.into_iter().flat_map(BTreeMap::keys);
            let times = certnames.filter_map(|certname| all_given(seen, certname));
            times.map(|at| at.saturating_duration_since(since).as_secs_f64()).collect()
        })
    }
}

pub(super) fn certname(number: usize) -> String {
    format!("node{number:04}.example.com")
}

fn allow_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    let files = FILES.min(limit.maximum.unwrap_or(FILES));
    limit.current = limit.current.map(|current| current.max(files));
    setrlimit(Resource::Nofile, limit).context("cannot open as many files as a fleet needs")
}
