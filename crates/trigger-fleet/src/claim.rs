//! An agent's side of its registration, which is also its claim on its certname (C11): the exclusive right to run for
//! the events that name it.
//!
//! The claim is a [lease](crate::lease) kept in the registration. Another agent takes it over at once where the holder is
//! certain to be dead, because it released the claim or held the very file lock that the contender holds now; else after
//! [`LEASE`] without a renewal. So a machine that restarted after a power cut waits like any other contender, because
//! it cannot be distinguished from its copy.

use std::collections::BTreeMap;
use std::time::Duration;

use trigger_core::identity::{Certname, GroupName, Revision};
use trigger_core::keyspace::Key;
use trigger_core::node::{Activity, NodeRecord};
use trigger_core::queue::ClaimBlocker;
use trigger_core::time::Now;
use trigger_store::store::StoreError;

use crate::fleet::Fleet;
use crate::lease::{Contention, HolderRecord, Lease, LeaseRecord, LeaseState, Stamp, Tenant, Terms};

/// How often a holder renews.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// How long a contender waits without seeing a renewal.
pub const LEASE: Duration = Duration::from_secs(180);
/// How long a holder that cannot renew still trusts its claim: well before a contender may take it.
pub const TRUST_PERIOD: Duration = Duration::from_secs(120);
/// How often a contender looks at the claim.
pub const POLL_INTERVAL: Duration = Duration::from_secs(15);

const TERMS: Terms = Terms {
    duration: LEASE,
    trust_period: TRUST_PERIOD,
    renewal_interval: RENEWAL_INTERVAL,
    poll_interval: POLL_INTERVAL,
};

/// An agent that claims a certname.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// Random, new with every start of an agent.
    pub instance: String,
    /// Names the file lock that the agent holds for as long as it lives, if that can be named: the same for
    /// one file on one boot of one kernel, and for nothing else.
    pub lock: Option<String>,
    /// Whether that lock proves that its previous holder is dead. It does not after an agent which named the same lock
    /// has taken the claim: then this process was copied with its memory, and both copies live.
    pub may_inherit: bool,
    /// The stamps of the latest writes of earlier agents of this state directory which ended in good order: a record that
    /// carries one of them has no holder.
    pub ended: Vec<Stamp>,
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

    /// Whether an agent at `location` has the same host and directory: this very agent before a restart of its machine,
    /// or that of a machine which this one is a copy of.
    fn is_namesake(&self, location: &str) -> bool {
        location.starts_with(&format!("{}, pid ", self.host))
            && location.ends_with(&format!(", {}", self.directory))
    }
}

/// An agent's view of its claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimState {
    /// The backend has not answered yet.
    Unregistered {
        /// The error of the last attempt, if there was one.
        trouble: Option<String>,
    },
    /// This agent holds it.
    Held {
        /// The groups that the node has joined, and at which revisions.
        joined: BTreeMap<GroupName, Revision>,
        /// When the claim was renewed. It is not trusted for long, so that an agent which was paused starts nothing
        /// before it has learnt what happened meanwhile.
        renewed_at: Duration,
    },
    /// Another agent holds it, and may be alive.
    Contended(Holder),
    /// This agent held it when it was last renewed, which is too long ago.
    Stale {
        /// The certname claimed.
        certname: Certname,
        /// When it was renewed.
        renewed_at: Duration,
        /// The error of the last attempt to renew it, if there was one.
        trouble: String,
    },
}

impl ClaimState {
    /// Returns the reason why the agent may not start runs, if there is one. `elapsed` is a reading of the clock that
    /// only goes forward.
    pub fn blocker(&self, elapsed: Duration) -> Option<ClaimBlocker> {
        match self {
            Self::Unregistered { .. } => Some(ClaimBlocker::NotRegistered),
            Self::Held { renewed_at, .. } => {
                let since = elapsed.saturating_sub(*renewed_at);
                (since > TRUST_PERIOD).then(|| {
                    ClaimBlocker::Stale(format!(
                        "this agent's registration was last renewed {} s ago: it was paused",
                        since.as_secs()
                    ))
                })
            }
            Self::Contended(holder) => {
                let blocker = if holder.is_alive { ClaimBlocker::Contended } else { ClaimBlocker::Lapsing };
                Some(blocker(holder.sentence(elapsed)))
            }
            Self::Stale { certname, renewed_at, trouble } => Some(ClaimBlocker::Stale(format!(
                "the claim on {certname} could not be renewed for {} s ({trouble})",
                elapsed.saturating_sub(*renewed_at).as_secs()
            ))),
        }
    }
}

/// The holder of a claim that this agent contends for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    certname: Certname,
    location: String,
    is_namesake: bool,
    /// The revision of its record.
    revision: Revision,
    /// When it is taken over, unless the record changes.
    lapses_at: Duration,
    /// Whether its record was seen to change.
    is_alive: bool,
}

impl Holder {
    /// Whether it renewed its claim since this agent looks.
    pub fn is_alive(&self) -> bool {
        self.is_alive
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
            self.lapses_at.saturating_sub(elapsed).as_secs()
        )
    }
}

impl LeaseRecord for NodeRecord {
    fn stamp(&self) -> Stamp {
        Stamp { holder: self.instance.clone(), renewals: self.renewals, written_at: self.seen_at }
    }

    fn is_released(&self) -> bool {
        self.released
    }
}

/// The claim of one agent, from its start to its end. Its driver asks it to [renew](Self::renew), and
/// [again after a pause](Self::pause).
#[derive(Debug, Clone)]
pub struct Claim {
    fleet: Fleet,
    lease: Lease<NodeRecord>,
    registration: Registration,
}

/// The agent's side of the lease: the record that it writes, and its conclusions from the records that it finds.
#[derive(Debug, Clone)]
struct Registration {
    claimant: Claimant,
    joined: BTreeMap<GroupName, Revision>,
    activity: Activity,
    /// Whether the stored record has the revisions at which the node joined its groups: the first one cannot have them.
    is_complete: bool,
}

impl Tenant for Registration {
    type Record = NodeRecord;

    fn record(&self, stamp: Stamp, is_released: bool) -> NodeRecord {
        let joined = |group: &GroupName| self.joined.get(group).copied().unwrap_or_default();
        NodeRecord {
            instance: stamp.holder,
            lock: self.claimant.lock.clone(),
            released: is_released,
            location: self.claimant.location(),
            renewals: stamp.renewals,
            version: self.claimant.version.clone(),
            seen_at: stamp.written_at,
            groups: self.claimant.groups.iter().map(|group| (group.clone(), joined(group))).collect(),
            activity: self.activity.clone(),
        }
    }

    /// Only one process can hold a file lock: the one that held it before is dead. And a process that has noted its
    /// end writes nothing more: a record that it cannot have written is that of its copy.
    fn is_dead(&self, record: &NodeRecord) -> bool {
        let holds_its_lock =
            self.claimant.may_inherit && record.lock.is_some() && record.lock == self.claimant.lock;
        holds_its_lock || self.claimant.ended.contains(&record.stamp())
    }

    /// Recalls the revisions at which the node joined its groups as the backend remembers them: events fired at a group
    /// before the state directory was lost are still for this node.
    fn found(&mut self, record: &NodeRecord) {
        // Zero was written by a registration that did not live to learn its own revision.
        for (group, since) in record.groups.iter().filter(|(_, since)| **since > Revision::default()) {
            if self.claimant.groups.contains(group) {
                let earliest = self.joined.entry(group.clone()).or_insert(*since);
                *earliest = *since.min(earliest);
            }
        }
    }

    fn written(&mut self, record: &NodeRecord, revision: Revision) {
        for group in &self.claimant.groups {
            let since = self.joined.entry(group.clone()).or_insert(revision);
            // One from the future: the backend was replaced by an empty one, and counts from the start again.
            *since = revision.min(*since);
        }
        self.is_complete = record.groups.iter().all(|(group, since)| self.joined.get(group) == Some(since));
        self.claimant.may_inherit = true;
        self.claimant.ended.clear();
    }
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
        let key = Key::Node { certname: fleet.own().clone() };
        let lease = Lease::new(key, claimant.instance.clone(), TERMS, elapsed);
        let activity = Activity::default();
        Self { fleet, lease, registration: Registration { claimant, joined, activity, is_complete: false } }
    }

    /// The revisions at which the claimant joined its groups.
    pub fn joined(&self) -> &BTreeMap<GroupName, Revision> {
        &self.registration.joined
    }

    /// The state of the claim at `elapsed`, a reading of the clock that only goes forward.
    pub fn state(&self, elapsed: Duration) -> ClaimState {
        match self.lease.state(elapsed) {
            LeaseState::Unknown { trouble } => {
                ClaimState::Unregistered { trouble: trouble.map(str::to_owned) }
            }
            LeaseState::Held { renewed_at, .. } => {
                ClaimState::Held { joined: self.registration.joined.clone(), renewed_at }
            }
            LeaseState::Stale { renewed_at, trouble } => ClaimState::Stale {
                certname: self.fleet.own().clone(),
                renewed_at,
                trouble: trouble.to_owned(),
            },
            LeaseState::Contended(contention) => ClaimState::Contended(self.holder(contention)),
        }
    }

    fn holder(&self, contention: &Contention<NodeRecord>) -> Holder {
        let location = match &contention.holder {
            HolderRecord::Known(record) => record.location.clone(),
            HolderRecord::TooNew(version) => {
                format!("a newer version of Trigger, whose records are of version {version}")
            }
        };
        Holder {
            certname: self.fleet.own().clone(),
            is_namesake: self.registration.claimant.is_namesake(&location),
            location,
            revision: contention.revision,
            lapses_at: contention.since + LEASE,
            is_alive: contention.is_alive,
        }
    }

    /// How long to wait before the next renewal or look; `jitter` is from 0.0 up to 1.0.
    pub fn pause(&self, elapsed: Duration, jitter: f64) -> Duration {
        if self.lease.is_held() && !self.registration.is_complete {
            return Duration::ZERO;
        }
        self.lease.pause(elapsed, jitter)
    }

    /// Whether this agent holds the claim, as far as it knows. A renewal that failed does not end the claim.
    pub fn is_held(&self) -> bool {
        self.lease.has_tenure()
    }

    /// Whether a change of activity is worth a renewal before its time.
    pub fn publishes_activity(&self) -> bool {
        self.lease.is_held()
    }

    /// Whether a registration seen under this certname, written at `revision`, is a reason to renew or look at once. A
    /// hint only: the answer to the renewal decides.
    pub fn is_news(&self, revision: Revision) -> bool {
        self.lease.is_news(revision)
    }

    /// Takes or renews the claim, or sees that it is another's; [`Self::state`] has the result.
    ///
    /// # Errors
    /// When the backend does not answer, which [`Self::pause`] takes into account.
    pub async fn renew(&mut self, activity: &Activity, now: Now) -> Result<(), StoreError> {
        self.registration.activity = activity.clone();
        self.lease.renew(&self.fleet, &mut self.registration, now).await
    }

    /// What the record can carry if this agent, or one that has ended before it, wrote it last: the proof for the next
    /// agent of this state directory that it need not wait, if this one can no longer release its claim.
    pub fn latest_stamps(&self) -> Vec<Stamp> {
        // Without a write of this agent, the record is still that of an earlier one.
        self.registration.claimant.ended.iter().cloned().chain(self.lease.latest_stamps()).collect()
    }

    /// Gives the claim up because the agent stops: the next one need not wait. No run of this agent may be in progress,
    /// and no outcome be left to store. Returns whether the claim was this agent's to give up.
    ///
    /// # Errors
    /// When the backend does not answer; the claim then lapses by itself.
    pub async fn release(&mut self, activity: &Activity, now: Now) -> Result<bool, StoreError> {
        self.registration.activity = activity.clone();
        self.lease.release(&self.fleet, &self.registration, now).await
    }
}
