//! An agent's side of its registration, which is also its claim on its certname (C11): who may run
//! what is fired at the certname.
//!
//! A claim is a record whose holder renews a counter. Another agent takes it over
//! - at once, where the holder is certain to be dead: it said that it stopped, or it held the very file lock
//!   that the contender holds now;
//! - else after [`LEASE`] without a renewal on the contender's own clock. No clocks are compared, and no lease
//!   of the backend is needed.
//!
//! So a machine that restarted after a power cut waits like any stranger: it cannot tell itself from a copy.

use std::collections::BTreeMap;
use std::time::Duration;

use trigger_core::backoff;
use trigger_core::identity::{Certname, GroupName, Revision};
use trigger_core::keyspace::Key;
use trigger_core::node::{Activity, NodeRecord};
use trigger_core::queue::ClaimBlocker;
use trigger_core::time::{Now, Timestamp};
use trigger_core::wire::WireError;

use trigger_store::store::{CasOutcome, Entry, KeyRange, StoreError};

use crate::fleet::Fleet;

/// How often a holder renews.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// How long a contender waits without seeing a renewal.
pub const LEASE: Duration = Duration::from_secs(180);
/// How long a holder that cannot renew still trusts its claim: well before a contender may take it.
pub const TRUST_PERIOD: Duration = Duration::from_secs(120);
/// How often somebody else's claim is looked at.
pub const POLL_INTERVAL: Duration = Duration::from_secs(15);

/// Swaps tried in one go: what was read may be stale, and the answer to a swap says what is there.
const MAX_CAS_ATTEMPTS: usize = 3;
/// Writes whose fate is unknown that are remembered; a partition can leave one with each try.
const MAX_IN_DOUBT_WRITES: usize = 64;

/// Who claims.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// Random, new with every start of an agent.
    pub instance: String,
    /// Names the file lock that the agent holds for as long as it lives, if that can be named: the same for
    /// one file on one boot of one kernel, and for nothing else.
    pub lock: Option<String>,
    /// Whether that lock proves that whoever held it before is dead. Not after an agent which named the same one
    /// has taken the claim: this process was copied with its memory then, and both live.
    pub may_inherit: bool,
    /// The machine, for people.
    pub host: String,
    /// The process, for people.
    pub pid: u32,
    /// The state directory, for people.
    pub directory: String,
    /// The agent's version of Trigger.
    pub version: String,
    /// The groups the node belongs to.
    pub groups: Vec<GroupName>,
}

impl Claimant {
    fn location(&self) -> String {
        format!("{}, pid {}, {}", self.host, self.pid, self.directory)
    }

    /// Whether somebody says to be in the same place: this very agent before a restart of its machine, or
    /// one that this machine is a copy of.
    fn is_namesake(&self, location: &str) -> bool {
        location.starts_with(&format!("{}, pid ", self.host))
            && location.ends_with(&format!(", {}", self.directory))
    }
}

/// Where the claim stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimState {
    /// The backend has not answered yet.
    Unregistered,
    /// Ours.
    Held {
        /// The groups joined, and since when.
        joined: BTreeMap<GroupName, Revision>,
        /// When it was renewed. It is not trusted for long, so that an agent which was paused starts nothing
        /// before it has learnt what happened meanwhile.
        renewed_at: Duration,
    },
    /// Another's, as far as is known alive.
    Contended(Holder),
    /// Ours when it was last renewed, which is too long ago.
    Stale {
        /// The certname claimed.
        certname: Certname,
        /// When it was renewed.
        renewed_at: Duration,
        /// Why it cannot be.
        trouble: String,
    },
}

impl ClaimState {
    /// What keeps the agent from starting runs, if anything. `elapsed` is a reading of the clock that only goes
    /// forward.
    pub fn blocker(&self, elapsed: Duration) -> Option<ClaimBlocker> {
        match self {
            Self::Unregistered => Some(ClaimBlocker::NotRegistered),
            Self::Held { renewed_at, .. } => {
                let since = elapsed.saturating_sub(*renewed_at);
                (since > TRUST_PERIOD).then(|| {
                    ClaimBlocker::Stale(format!(
                        "this agent's registration was last renewed {} s ago: it was paused",
                        since.as_secs()
                    ))
                })
            }
            Self::Contended(holder) => Some(ClaimBlocker::Contended(holder.sentence(elapsed))),
            Self::Stale { certname, renewed_at, trouble } => Some(ClaimBlocker::Stale(format!(
                "the claim on {certname} could not be renewed for {} s ({trouble})",
                elapsed.saturating_sub(*renewed_at).as_secs()
            ))),
        }
    }
}

/// The holder of a claim that we contend for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    certname: Certname,
    location: String,
    is_namesake: bool,
    /// Its record, as last seen to change.
    revision: Revision,
    /// When that was first seen.
    since: Duration,
    /// Whether it was seen to change at all.
    is_alive: bool,
}

impl Holder {
    /// Whether its claim was renewed under our eyes.
    pub fn is_alive(&self) -> bool {
        self.is_alive
    }

    fn lapses_in(&self, elapsed: Duration) -> Duration {
        (self.since + LEASE).saturating_sub(elapsed)
    }

    fn sentence(&self, elapsed: Duration) -> String {
        let Self { certname, location, .. } = self;
        let who = match (self.is_alive, self.is_namesake) {
            (true, _) => format!("another live agent ({location}): stop one of the two"),
            (false, true) => format!(
                "an agent of this directory before a restart of the machine, or that of a machine which this one \
                 is a copy of ({location})"
            ),
            (false, false) => format!("another agent ({location}), which may be alive"),
        };
        format!(
            "{certname} is claimed by {who}; it is taken over after {} s of silence, in {} s, unless it is renewed",
            LEASE.as_secs(),
            self.lapses_in(elapsed).as_secs()
        )
    }
}

/// Our latest renewal.
#[derive(Debug, Clone)]
struct HeldClaim {
    revision: Revision,
    /// Taken before it was asked for.
    renewed_at: Duration,
    /// Whether the record tells since when we belong to our groups: the first one cannot.
    is_complete: bool,
}

/// What to do about what lies under our key.
enum ClaimDecision {
    /// Write over it, if it is still so.
    Take(Option<Revision>),
    Wait,
}

/// The claim of one agent, from its start to its end. Whoever drives it asks it to [renew](Self::renew), and
/// [again after a pause](Self::pause).
#[derive(Debug, Clone)]
pub struct Claim {
    fleet: Fleet,
    key: String,
    claimant: Claimant,
    joined: BTreeMap<GroupName, Revision>,
    renewals: u64,
    held: Option<HeldClaim>,
    has_held: bool,
    holder: Option<Holder>,
    /// Writes that may have been done or may yet be, by what tells them apart.
    in_doubt_writes: Vec<(u64, Timestamp)>,
    /// Records in our name that we did not write, found after we held the claim.
    unexplained_records: u32,
    failures: u32,
    /// When the backend answered last.
    answered_at: Duration,
    trouble: String,
}

impl Claim {
    /// A claim not yet made, on the certname that `fleet` acts for. `joined` has the revisions at which the claimant
    /// joined its groups, as it remembers.
    ///
    /// # Panics
    /// When `fleet` acts for no node.
    pub fn new(
        fleet: Fleet,
        claimant: Claimant,
        joined: BTreeMap<GroupName, Revision>,
        elapsed: Duration,
    ) -> Self {
        let key = fleet.key(&Key::Node { certname: fleet.own().clone() });
        Self {
            fleet,
            key,
            claimant,
            joined,
            renewals: 0,
            held: None,
            has_held: false,
            holder: None,
            in_doubt_writes: Vec::new(),
            unexplained_records: 0,
            failures: 0,
            answered_at: elapsed,
            trouble: String::new(),
        }
    }

    /// Since when the claimant belongs to groups.
    pub fn joined(&self) -> &BTreeMap<GroupName, Revision> {
        &self.joined
    }

    /// Where the claim stands.
    pub fn standing(&self, elapsed: Duration) -> ClaimState {
        match (&self.held, &self.holder) {
            (Some(held), _) if elapsed.saturating_sub(held.renewed_at) > TRUST_PERIOD => ClaimState::Stale {
                certname: self.fleet.own().clone(),
                renewed_at: held.renewed_at,
                trouble: self.trouble.clone(),
            },
            (Some(held), _) => ClaimState::Held { joined: self.joined.clone(), renewed_at: held.renewed_at },
            (None, Some(holder)) => ClaimState::Contended(holder.clone()),
            (None, None) => ClaimState::Unregistered,
        }
    }

    /// How long to wait before the next renewal or look; `jitter` is from 0.0 up to 1.0.
    pub fn pause(&self, elapsed: Duration, jitter: f64) -> Duration {
        if self.failures > 0 {
            return backoff::reconnect(self.failures, elapsed.saturating_sub(self.answered_at), jitter);
        }
        match (&self.held, &self.holder) {
            (Some(held), _) if !held.is_complete => Duration::ZERO,
            (Some(_), _) => RENEWAL_INTERVAL.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 4.0),
            (None, Some(holder)) => holder.lapses_in(elapsed).min(POLL_INTERVAL),
            (None, None) => Duration::ZERO,
        }
    }

    /// Whether a change of activity is worth a renewal before its time.
    pub fn publishes_activity(&self) -> bool {
        self.held.is_some() && self.failures == 0
    }

    /// Whether a record seen under our key, written at `revision`, is a reason to renew or look at once. A
    /// hint only: the answer to the renewal decides.
    pub fn is_news(&self, revision: Revision) -> bool {
        let known = self.held.as_ref().map(|held| held.revision);
        known.or(self.holder.as_ref().map(|holder| holder.revision)).is_some_and(|known| revision > known)
    }

    /// Takes or renews the claim, or sees that it is another's; [`Self::standing`] tells.
    ///
    /// # Errors
    /// When the backend does not answer, which [`Self::pause`] takes into account.
    pub async fn renew(&mut self, activity: &Activity, now: Now) -> Result<(), StoreError> {
        let renewed = self.try_renew(activity, now).await;
        match &renewed {
            Ok(()) => (self.failures, self.answered_at) = (0, now.elapsed),
            Err(error) => {
                self.failures += 1;
                self.trouble = error.to_string();
            }
        }
        renewed
    }

    async fn try_renew(&mut self, activity: &Activity, now: Now) -> Result<(), StoreError> {
        let mut verdict = match &self.held {
            Some(held) => ClaimDecision::Take(Some(held.revision)),
            None => {
                let present =
                    self.fleet.store().read(&[KeyRange::Key(self.key.clone())]).await?.into_iter().next();
                self.decide(present.as_ref(), now.elapsed)
            }
        };
        for _ in 0..MAX_CAS_ATTEMPTS {
            let ClaimDecision::Take(expected) = verdict else { return Ok(()) };
            let record = self.next_record(activity, now.wall, false);
            match self.swap(&record, expected).await? {
                CasOutcome::Written(revision) => {
                    self.acquired(revision, &record, now.elapsed);
                    return Ok(());
                }
                CasOutcome::Changed(present) => verdict = self.decide(present.as_ref(), now.elapsed),
            }
        }
        let certname = self.fleet.own();
        Err(self.fleet.ambiguous(format!("the registration of {certname} changes while it is renewed")))
    }

    async fn swap(&self, record: &NodeRecord, expected: Option<Revision>) -> Result<CasOutcome, StoreError> {
        self.fleet.store().compare_and_swap(&self.key, &self.fleet.codec().encode(record), expected).await
    }

    /// Gives the claim up because the agent stops: the next one need not wait. Nothing that it ran may be in
    /// progress or untold. False where the claim was not ours to give up.
    ///
    /// # Errors
    /// When the backend does not answer; the claim then lapses by itself.
    pub async fn release(&mut self, activity: &Activity, now: Now) -> Result<bool, StoreError> {
        let Some(held) = self.held.take() else { return Ok(false) };
        let mut expected = held.revision;
        for _ in 0..MAX_CAS_ATTEMPTS {
            let record = self.next_record(activity, now.wall, true);
            match self.swap(&record, Some(expected)).await? {
                CasOutcome::Written(_) => return Ok(true),
                // A renewal that was cut off by the stop was done after all.
                CasOutcome::Changed(Some(Entry { value, revision, .. }))
                    if self.fleet.decode(&value).is_ok_and(|record| self.wrote(&record)) =>
                {
                    expected = revision;
                }
                CasOutcome::Changed(_) => return Ok(false),
            }
        }
        Ok(false)
    }

    fn next_record(&mut self, activity: &Activity, wall: Timestamp, released: bool) -> NodeRecord {
        self.renewals += 1;
        if self.in_doubt_writes.len() == MAX_IN_DOUBT_WRITES {
            self.in_doubt_writes.remove(0);
        }
        self.in_doubt_writes.push((self.renewals, wall));
        let joined = |group: &GroupName| self.joined.get(group).copied().unwrap_or_default();
        NodeRecord {
            instance: self.claimant.instance.clone(),
            lock: self.claimant.lock.clone(),
            released,
            location: self.claimant.location(),
            renewals: self.renewals,
            version: self.claimant.version.clone(),
            seen_at: wall,
            groups: self.claimant.groups.iter().map(|group| (group.clone(), joined(group))).collect(),
            activity: activity.clone(),
        }
    }

    fn acquired(&mut self, revision: Revision, record: &NodeRecord, elapsed: Duration) {
        for group in &self.claimant.groups {
            let since = self.joined.entry(group.clone()).or_insert(revision);
            // From the future: the backend was made anew, and counts from the start again.
            *since = revision.min(*since);
        }
        let is_complete = record.groups.iter().all(|(group, since)| self.joined.get(group) == Some(since));
        self.held = Some(HeldClaim { revision, renewed_at: elapsed, is_complete });
        self.has_held = true;
        self.claimant.may_inherit = true;
        self.holder = None;
        self.in_doubt_writes.clear();
    }

    fn decide(&mut self, present: Option<&Entry>, elapsed: Duration) -> ClaimDecision {
        let Some(entry) = present else { return ClaimDecision::Take(None) };
        let location = match self.fleet.decode::<NodeRecord>(&entry.value) {
            Ok(record) => {
                self.recall_groups(&record);
                // Taken and given up again while we believed that it was ours: what we have read may have been
                // run for. That it was lost must show, before it is taken again.
                let was_lost = self.held.is_some() && record.instance != self.claimant.instance;
                if (record.released && !was_lost) || self.is_ours(&record) {
                    return ClaimDecision::Take(Some(entry.revision));
                }
                record.location
            }
            Err(WireError::TooNew { version, .. }) => {
                format!("a newer version of Trigger, whose records are of version {version}")
            }
            // Garbage is nobody's claim.
            Err(WireError::Unreadable { .. }) => return ClaimDecision::Take(Some(entry.revision)),
        };
        self.contend(entry.revision, location, elapsed)
    }

    fn contend(&mut self, revision: Revision, location: String, elapsed: Duration) -> ClaimDecision {
        let was_ours = self.held.take().is_some();
        let known = self.holder.take();
        let (since, is_alive) = match &known {
            Some(holder) if holder.revision == revision => (holder.since, holder.is_alive),
            known => (elapsed, was_ours || known.is_some()),
        };
        let is_namesake = self.claimant.is_namesake(&location);
        let certname = self.fleet.own().clone();
        let holder = Holder { certname, location, is_namesake, revision, since, is_alive };
        let is_silent = holder.lapses_in(elapsed).is_zero();
        self.holder = Some(holder);
        if is_silent { ClaimDecision::Take(Some(revision)) } else { ClaimDecision::Wait }
    }

    /// Whether a record is ours to write over: our own, or that of an agent which held the lock that is ours
    /// now.
    fn is_ours(&mut self, record: &NodeRecord) -> bool {
        if self.wrote(record) {
            return true;
        }
        let is_our_lock = record.lock.is_some() && record.lock == self.claimant.lock;
        let is_in_our_name =
            record.instance == self.claimant.instance || (is_our_lock && self.claimant.may_inherit);
        if is_in_our_name && self.has_held {
            // Nobody but us could write it. Once, that means the backend was restored from a backup. Again,
            // it means that this process was copied with all its memory, and that both live.
            self.unexplained_records += 1;
        }
        is_in_our_name && self.unexplained_records <= 1
    }

    /// Whether a record is a write of ours whose answer never came.
    fn wrote(&self, record: &NodeRecord) -> bool {
        record.instance == self.claimant.instance
            && self.in_doubt_writes.contains(&(record.renewals, record.seen_at))
    }

    /// Since when we belong to our groups as the backend remembers it: events fired at a group before its
    /// state directory was lost are still this node's.
    fn recall_groups(&mut self, record: &NodeRecord) {
        // Zero was written by a registration that did not live to learn its own revision.
        for (group, since) in record.groups.iter().filter(|(_, since)| **since > Revision::default()) {
            if self.claimant.groups.contains(group) {
                let earliest = self.joined.entry(group.clone()).or_insert(*since);
                *earliest = *since.min(earliest);
            }
        }
    }
}
