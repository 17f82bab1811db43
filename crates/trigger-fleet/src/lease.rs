//! A lease on one key: of several contenders one holds it, and the others see within a bounded time when it is dead.
//!
//! The holder renews a counter in its record by compare-and-swap. A contender takes the record over
//! - at once, where the holder is certain to be dead: it has released the lease, or the contender knows it otherwise
//!   ([`Tenant::is_dead`]);
//! - else after [`Terms::duration`] without a change of the record, measured on the contender's own monotonic clock. No
//!   clocks are compared, and the backend needs no leases of its own.
//!
//! A write whose answer was lost may have been done, or may yet be: the lease remembers it, so that its holder does not
//! take its own record for another's. The revision at which the lease was acquired is its fencing token: it grows with
//! every change of hands, so that a guarded write of an earlier holder is distinguished from one of the present holder.
//!
//! This module decides nothing about what is done under a lease, and never waits: the caller asks it to
//! [renew](Lease::renew) and [again after a pause](Lease::pause).

use std::time::Duration;

use trigger_core::backoff;
use trigger_core::identity::Revision;
use trigger_core::keyspace::Key;
use trigger_core::time::{Now, Timestamp};
use trigger_core::wire::{Stored, WireError};
use trigger_store::store::{CasOutcome, Entry, StoreError};

use crate::fleet::Fleet;

/// Compare-and-swaps tried in one go: what was read may be stale, and the answer to each says what is there.
const MAX_CAS_ATTEMPTS: usize = 3;
/// Writes in doubt that are remembered; a partition can leave one with each try.
const MAX_IN_DOUBT_WRITES: usize = 64;

/// The times of a lease. They are the same for all its contenders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long a contender waits without seeing a renewal before it takes the lease over.
    pub duration: Duration,
    /// How long a holder that cannot renew relies on the lease: well below [`Self::duration`], because a contender's
    /// wait may have begun just after the last renewal.
    pub trust_period: Duration,
    /// How often the holder renews, at most.
    pub renewal_interval: Duration,
    /// How often a contender looks.
    pub poll_interval: Duration,
}

/// Identifies one write of one holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Names the holder: random, new with every start of a process.
    pub holder: String,
    /// Grows with every write of the holder.
    pub renewals: u64,
    /// By the holder's wall clock. Only distinguishes the writes of two copies of one process.
    pub written_at: Timestamp,
}

/// A record that a lease can be kept in.
pub trait LeaseRecord: Stored + Clone {
    /// The stamp that it was written with.
    fn stamp(&self) -> Stamp;

    /// Whether its holder has given the lease up.
    fn is_released(&self) -> bool;
}

/// A contender's side of a lease: what it writes, and what it knows of the records of others.
pub trait Tenant {
    /// The stored record of the lease.
    type Record: LeaseRecord;

    /// The record to write.
    fn record(&self, stamp: Stamp, is_released: bool) -> Self::Record;

    /// Whether the holder that wrote `record` is certain to be dead, so that its silence need not be waited for.
    fn is_dead(&self, record: &Self::Record) -> bool;

    /// Called when a record was found under the key.
    fn found(&mut self, record: &Self::Record);

    /// Called when `record` was written at `revision`, so that the lease is held.
    fn written(&mut self, record: &Self::Record, revision: Revision);
}

/// The holder of a lease that is contended for.
#[derive(Debug, Clone)]
pub struct Contention<R> {
    /// Its record, as last seen to change.
    pub holder: HolderRecord<R>,
    /// The revision of the record.
    pub revision: Revision,
    /// When the record was first seen at this revision, on the contender's monotonic clock.
    pub since: Duration,
    /// Whether it was seen to change at all.
    pub is_alive: bool,
}

/// The record of a lease's holder.
#[derive(Debug, Clone)]
pub enum HolderRecord<R> {
    /// As it was written.
    Known(R),
    /// Written by a newer version of Trigger, of this version of the stored form.
    TooNew(u32),
}

/// A contender's view of a lease.
#[derive(Debug)]
pub enum LeaseState<'a, R> {
    /// The backend has not answered yet.
    Unknown {
        /// The error of the last attempt, if there was one.
        trouble: Option<&'a str>,
    },
    /// It is held by this contender.
    Held {
        /// The fencing token: the revision at which it was acquired.
        token: Revision,
        /// When it was renewed, on the monotonic clock.
        renewed_at: Duration,
    },
    /// It was held when it was last renewed, but that was more than the trust period ago.
    Stale {
        /// When it was renewed, on the monotonic clock.
        renewed_at: Duration,
        /// The error of the last attempt to renew it, if there was one.
        trouble: &'a str,
    },
    /// Another holds it, as far as is known.
    Contended(&'a Contention<R>),
}

/// One contender's lease, from its start to its end.
#[derive(Debug, Clone)]
pub struct Lease<R> {
    key: Key,
    holder: String,
    terms: Terms,
    renewals: u64,
    tenure: Option<Tenure>,
    /// The latest write that was answered: how often this holder had written, and when by its wall clock.
    confirmed: Option<(u64, Timestamp)>,
    contention: Option<Contention<R>>,
    /// Writes that may have been done or may yet be.
    in_doubt_writes: Vec<(u64, Timestamp)>,
    /// Records from before the latest write that were found after it.
    outdated_records: u32,
    failures: u32,
    /// When the backend answered last.
    answered_at: Duration,
    trouble: String,
}

/// The time from acquiring a lease to losing it.
#[derive(Debug, Clone, Copy)]
struct Tenure {
    token: Revision,
    revision: Revision,
    /// A reading from before the renewal was asked for.
    renewed_at: Duration,
}

/// The decision about the record under the key.
enum Decision {
    /// Write over it, if it is still the one of this revision.
    Take(Option<Revision>),
    Wait,
}

impl<R: LeaseRecord> Lease<R> {
    /// A lease on `key` that is not held yet. `holder` names this contender and no other, not even an earlier process
    /// of the same program; `elapsed` is the monotonic clock's reading.
    pub fn new(key: Key, holder: String, terms: Terms, elapsed: Duration) -> Self {
        Self {
            key,
            holder,
            terms,
            renewals: 0,
            tenure: None,
            confirmed: None,
            contention: None,
            in_doubt_writes: Vec::new(),
            outdated_records: 0,
            failures: 0,
            answered_at: elapsed,
            trouble: String::new(),
        }
    }

    /// The state of the lease at `elapsed`.
    pub fn state(&self, elapsed: Duration) -> LeaseState<'_, R> {
        match (&self.tenure, &self.contention) {
            (Some(Tenure { renewed_at, .. }), _)
                if elapsed.saturating_sub(*renewed_at) > self.terms.trust_period =>
            {
                LeaseState::Stale { renewed_at: *renewed_at, trouble: &self.trouble }
            }
            (Some(Tenure { token, renewed_at, .. }), _) => {
                LeaseState::Held { token: *token, renewed_at: *renewed_at }
            }
            (None, Some(contention)) => LeaseState::Contended(contention),
            (None, None) => LeaseState::Unknown {
                trouble: Some(self.trouble.as_str()).filter(|trouble| !trouble.is_empty()),
            },
        }
    }

    /// How long until the record of another holder may be taken over, unless it changes.
    pub fn lapses_in(&self, contention: &Contention<R>, elapsed: Duration) -> Duration {
        (contention.since + self.terms.duration).saturating_sub(elapsed)
    }

    /// How long to wait before the next renewal or look; `jitter` is from 0.0 up to 1.0.
    pub fn pause(&self, elapsed: Duration, jitter: f64) -> Duration {
        if self.failures > 0 {
            return backoff::reconnect(self.failures, elapsed.saturating_sub(self.answered_at), jitter);
        }
        match (&self.tenure, &self.contention) {
            (Some(_), _) => self.terms.renewal_interval.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 4.0),
            (None, Some(contention)) => self.lapses_in(contention, elapsed).min(self.terms.poll_interval),
            (None, None) => Duration::ZERO,
        }
    }

    /// Whether it was held at the last answer, however many renewals have failed since.
    pub fn has_tenure(&self) -> bool {
        self.tenure.is_some()
    }

    /// Whether it was held at the last answer, and the last renewal did not fail.
    pub fn is_held(&self) -> bool {
        self.tenure.is_some() && self.failures == 0
    }

    /// Whether a record seen at `revision` is a reason to renew or look at once. A hint only: the answer to the renewal
    /// decides.
    pub fn is_news(&self, revision: Revision) -> bool {
        let known = self.tenure.as_ref().map(|tenure| tenure.revision);
        known.or(self.contention.as_ref().map(|other| other.revision)).is_some_and(|known| revision > known)
    }

    /// Acquires or renews the lease, or sees that another holds it; [`Self::state`] has the result.
    ///
    /// # Errors
    /// When the backend does not answer, which [`Self::pause`] takes into account.
    pub async fn renew<T: Tenant<Record = R>>(
        &mut self,
        fleet: &Fleet,
        tenant: &mut T,
        now: Now,
    ) -> Result<(), StoreError> {
        let renewed = self.try_renew(fleet, tenant, now).await;
        match &renewed {
            Ok(()) => (self.failures, self.answered_at) = (0, now.elapsed),
            Err(error) => {
                self.failures += 1;
                self.trouble = error.to_string();
            }
        }
        renewed
    }

    async fn try_renew<T: Tenant<Record = R>>(
        &mut self,
        fleet: &Fleet,
        tenant: &mut T,
        now: Now,
    ) -> Result<(), StoreError> {
        let mut decision = match &self.tenure {
            Some(tenure) => Decision::Take(Some(tenure.revision)),
            None => {
                let present = fleet.store().read(&[fleet.one(&self.key)]).await?.into_iter().next();
                self.decide(fleet, tenant, present.as_ref(), now.elapsed)
            }
        };
        for _ in 0..MAX_CAS_ATTEMPTS {
            let Decision::Take(expected) = decision else { return Ok(()) };
            let record = self.next_record(tenant, now.wall, false);
            match self.swap(fleet, &record, expected).await? {
                CasOutcome::Written(revision) => {
                    self.written(&record.stamp(), revision, now.elapsed);
                    tenant.written(&record, revision);
                    return Ok(());
                }
                CasOutcome::Changed(present) => {
                    decision = self.decide(fleet, tenant, present.as_ref(), now.elapsed);
                }
            }
        }
        Err(fleet.ambiguous(format!("the record {} changes while it is renewed", self.key)))
    }

    /// Gives the lease up, so that the next holder need not wait. Returns whether it was this contender's to give up.
    ///
    /// # Errors
    /// When the backend does not answer; the lease then lapses by itself.
    pub async fn release<T: Tenant<Record = R>>(
        &mut self,
        fleet: &Fleet,
        tenant: &T,
        now: Now,
    ) -> Result<bool, StoreError> {
        let Some(Tenure { revision: mut expected, .. }) = self.tenure.take() else { return Ok(false) };
        for _ in 0..MAX_CAS_ATTEMPTS {
            let record = self.next_record(tenant, now.wall, true);
            match self.swap(fleet, &record, Some(expected)).await? {
                CasOutcome::Written(_) => return Ok(true),
                // A renewal that was cut off by the stop was done after all.
                CasOutcome::Changed(Some(Entry { value, revision, .. }))
                    if fleet.decode(&value).is_ok_and(|record: R| self.wrote(&record.stamp())) =>
                {
                    expected = revision;
                }
                CasOutcome::Changed(_) => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Every stamp that the record can carry if this contender wrote it last: of its latest write that was answered, and
    /// of those in doubt.
    pub fn latest_stamps(&self) -> Vec<Stamp> {
        let stamp = |&(renewals, written_at): &(u64, Timestamp)| Stamp {
            holder: self.holder.clone(),
            renewals,
            written_at,
        };
        self.confirmed.iter().chain(&self.in_doubt_writes).map(stamp).collect()
    }

    async fn swap(
        &self,
        fleet: &Fleet,
        record: &R,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        let (key, text) = fleet.entry(&self.key, record);
        fleet.store().compare_and_swap(&key, &text, expected).await
    }

    fn next_record<T: Tenant<Record = R>>(
        &mut self,
        tenant: &T,
        written_at: Timestamp,
        is_released: bool,
    ) -> R {
        self.renewals += 1;
        if self.in_doubt_writes.len() == MAX_IN_DOUBT_WRITES {
            self.in_doubt_writes.remove(0);
        }
        self.in_doubt_writes.push((self.renewals, written_at));
        let stamp = Stamp { holder: self.holder.clone(), renewals: self.renewals, written_at };
        tenant.record(stamp, is_released)
    }

    fn written(&mut self, stamp: &Stamp, revision: Revision, elapsed: Duration) {
        // A restored backend counts from an earlier revision: the token must not stay ahead of it.
        let token = self.tenure.map_or(revision, |tenure| tenure.token.min(revision));
        self.tenure = Some(Tenure { token, revision, renewed_at: elapsed });
        self.confirmed = Some((stamp.renewals, stamp.written_at));
        self.contention = None;
        self.in_doubt_writes.clear();
    }

    fn decide<T: Tenant<Record = R>>(
        &mut self,
        fleet: &Fleet,
        tenant: &mut T,
        present: Option<&Entry>,
        elapsed: Duration,
    ) -> Decision {
        let Some(entry) = present else { return Decision::Take(None) };
        let holder = match fleet.decode::<R>(&entry.value) {
            Ok(record) => {
                tenant.found(&record);
                // Taken and given up again while this contender believed to hold it: what was done meanwhile may have
                // been done twice. The loss must show before the lease is taken again.
                let was_lost = self.tenure.is_some() && record.stamp().holder != self.holder;
                if (record.is_released() && !was_lost) || self.may_take(tenant, &record) {
                    return Decision::Take(Some(entry.revision));
                }
                HolderRecord::Known(record)
            }
            Err(WireError::TooNew { version, .. }) => HolderRecord::TooNew(version),
            // A record that cannot be decoded has no holder.
            Err(WireError::Unreadable { .. }) => return Decision::Take(Some(entry.revision)),
        };
        self.contend(holder, entry.revision, elapsed)
    }

    fn contend(&mut self, holder: HolderRecord<R>, revision: Revision, elapsed: Duration) -> Decision {
        let was_held = self.tenure.take().is_some();
        let known = self.contention.take();
        let (since, is_alive) = match &known {
            Some(known) if known.revision == revision => (known.since, known.is_alive),
            known => (elapsed, was_held || known.is_some()),
        };
        let contention = Contention { holder, revision, since, is_alive };
        let is_silent = self.lapses_in(&contention, elapsed).is_zero();
        self.contention = Some(contention);
        if is_silent { Decision::Take(Some(revision)) } else { Decision::Wait }
    }

    /// Whether a record can be written over at once: this contender wrote it, or its holder is dead.
    fn may_take<T: Tenant<Record = R>>(&mut self, tenant: &T, record: &R) -> bool {
        let stamp = record.stamp();
        if self.wrote(&stamp) {
            return true;
        }
        let has_own_name = stamp.holder == self.holder;
        if !has_own_name && !tenant.is_dead(record) {
            return false;
        }
        let Some((renewals, written_at)) = self.confirmed else {
            // This contender has not written yet: a record in its name is that of its copy, made with all its memory.
            return !has_own_name;
        };
        // After it has written, it finds such a record for one of two reasons. The backend was restored from a backup:
        // then the record is older than the latest write. Or this process was copied with all its memory, and both
        // copies live: then the record is newer, or, if the clock of one of them was set, the second such record.
        if stamp.written_at > written_at || (has_own_name && stamp.renewals > renewals) {
            return false;
        }
        self.outdated_records += 1;
        self.outdated_records <= 1
    }

    /// Whether a record is a write of this contender whose answer never came.
    fn wrote(&self, stamp: &Stamp) -> bool {
        stamp.holder == self.holder && self.in_doubt_writes.contains(&(stamp.renewals, stamp.written_at))
    }
}
