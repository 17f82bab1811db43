//! A lease alone, kept in a record that is nothing but its stamp.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use trigger_core::identity::Revision;
use trigger_core::keyspace::{Key, Keyspace};
use trigger_core::time::{Now, Timestamp};
use trigger_core::wire::{Stored, WireError};
use trigger_fleet::Fleet;
use trigger_fleet::lease::{Lease, LeaseRecord, LeaseState, Stamp, Tenant, Terms};
use trigger_store::meddled::{Meddled, Meddler};
use trigger_store::memory::MemoryStore;
use trigger_store::store::{CasOutcome, KeyRange, Store, StoreError};

const TERMS: Terms = Terms {
    duration: Duration::from_secs(30),
    trust_period: Duration::from_secs(20),
    renewal_interval: Duration::from_secs(10),
    poll_interval: Duration::from_secs(5),
};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    stamp: Stamp,
    is_released: bool,
}

impl Stored for Record {
    const WHAT: &'static str = "a record";

    fn to_body(&self) -> String {
        let Stamp { holder, renewals, written_at } = &self.stamp;
        format!("\"{holder} {renewals} {} {}\"", written_at.as_unix_ms(), self.is_released)
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        let words: Vec<&str> = body.trim_matches('"').split(' ').collect();
        let [holder, renewals, written_at, is_released] = words[..] else {
            return Err(WireError::Unreadable { what: Self::WHAT, detail: body.to_owned() });
        };
        let stamp = Stamp {
            holder: holder.to_owned(),
            renewals: renewals.parse().unwrap(),
            written_at: Timestamp::from_unix_ms(written_at.parse().unwrap()),
        };
        Ok(Self { stamp, is_released: is_released == "true" })
    }
}

impl LeaseRecord for Record {
    fn stamp(&self) -> Stamp {
        self.stamp.clone()
    }

    fn is_released(&self) -> bool {
        self.is_released
    }
}

/// A contender that knows the names of some dead ones, and counts the calls.
#[derive(Default)]
struct Contender {
    dead: &'static str,
    found: usize,
    written: Vec<Revision>,
}

impl Tenant for Contender {
    type Record = Record;

    fn record(&self, stamp: Stamp, is_released: bool) -> Record {
        Record { stamp, is_released }
    }

    fn is_dead(&self, record: &Record) -> bool {
        record.stamp.holder == self.dead
    }

    fn found(&mut self, _: &Record) {
        self.found += 1;
    }

    fn written(&mut self, _: &Record, revision: Revision) {
        self.written.push(revision);
    }
}

/// A store that can lose answers: it does what it is asked, and answers that it may not have.
#[derive(Default)]
struct Lossy {
    store: MemoryStore,
    loses_answers: AtomicBool,
}

#[async_trait::async_trait]
impl Meddler for Lossy {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        let swapped = self.store.compare_and_swap(key, value, expected).await;
        if self.loses_answers.load(Ordering::Relaxed) {
            return Err(StoreError::Ambiguous { backend: "here".to_owned(), detail: "a fault".into() });
        }
        swapped
    }
}

struct World {
    store: Arc<Meddled<Lossy>>,
    fleet: Fleet,
}

impl World {
    fn new() -> Self {
        let store = Arc::new(Meddled(Lossy::default()));
        Self { fleet: Fleet::new(store.clone(), Keyspace::default()), store }
    }

    async fn renew(&self, lease: &mut Lease<Record>, seconds: u64) -> Option<Revision> {
        lease.renew(&self.fleet, &mut Contender::default(), at(seconds)).await.unwrap();
        token(lease, seconds)
    }

    async fn record(&self) -> Record {
        let key = self.fleet.keyspace().key(&Key::Sweep);
        let entry = self.fleet.store().read(&[KeyRange::Key(key)]).await.unwrap().remove(0);
        self.fleet.codec().decode(&entry.value).unwrap()
    }
}

fn lease(holder: &str) -> Lease<Record> {
    Lease::new(Key::Sweep, holder.to_owned(), TERMS, Duration::ZERO)
}

fn at(seconds: u64) -> Now {
    let elapsed = Duration::from_secs(seconds);
    Now { wall: Timestamp::from_unix_ms(1_763_812_800_000).plus(elapsed), elapsed }
}

/// The fencing token, while the lease is held.
fn token(lease: &Lease<Record>, seconds: u64) -> Option<Revision> {
    match lease.state(at(seconds).elapsed) {
        LeaseState::Held { token, .. } => Some(token),
        _ => None,
    }
}

/// Proves C11.
#[tokio::test]
async fn a_renewal_keeps_the_token_and_a_change_of_hands_raises_it() {
    let world = World::new();
    let (mut first, mut second) = (lease("first"), lease("second"));
    let token = world.renew(&mut first, 0).await.unwrap();
    for seconds in [10, 20, 30] {
        assert_eq!(world.renew(&mut first, seconds).await, Some(token));
    }
    assert_eq!(world.record().await.stamp.renewals, 4);
    assert_eq!(world.renew(&mut second, 0).await, None);
    assert_eq!(world.renew(&mut second, 29).await, None);
    let later = world.renew(&mut second, 30).await.unwrap();
    assert!(later > token, "{later} {token}");
    assert_eq!(world.renew(&mut first, 40).await, None);
    // Taken back, it is another tenure.
    assert!(world.renew(&mut first, 70).await.unwrap() > later);
}

#[tokio::test]
async fn silence_counts_from_the_last_change_that_was_seen() {
    let world = World::new();
    let (mut holder, mut contender) = (lease("holder"), lease("contender"));
    world.renew(&mut holder, 0).await;
    assert_eq!(contender.pause(Duration::ZERO, 0.5), Duration::ZERO, "it has not looked yet");
    for seconds in (0..100).step_by(10) {
        assert_eq!(world.renew(&mut contender, seconds).await, None);
        let LeaseState::Contended(contention) = contender.state(at(seconds).elapsed) else { panic!("held") };
        assert_eq!(contention.is_alive, seconds > 0);
        assert_eq!(contender.lapses_in(contention, at(seconds).elapsed), TERMS.duration);
        world.renew(&mut holder, seconds).await;
    }
    assert_eq!(contender.pause(at(90).elapsed, 0.5), TERMS.poll_interval);
    assert!(holder.pause(at(90).elapsed, 0.0) < TERMS.renewal_interval);
}

#[tokio::test]
async fn a_holder_stops_relying_on_the_lease_before_another_can_take_it() {
    let world = World::new();
    let mut holder = lease("holder");
    world.renew(&mut holder, 0).await;
    world.store.loses_answers.store(true, Ordering::Relaxed);
    holder.renew(&world.fleet, &mut Contender::default(), at(20)).await.unwrap_err();
    assert!(token(&holder, 20).is_some() && !holder.is_held(), "it holds it, and has trouble");
    assert!(holder.has_tenure());
    assert!(holder.pause(at(20).elapsed, 0.9) < Duration::from_secs(2), "it tries again soon");
    assert!(
        matches!(holder.state(at(21).elapsed), LeaseState::Stale { trouble, .. } if trouble.contains("a fault"))
    );
}

#[tokio::test]
async fn a_write_in_doubt_is_no_change_of_hands() {
    let world = World::new();
    let mut holder = lease("holder");
    let token = world.renew(&mut holder, 0).await.unwrap();
    world.store.loses_answers.store(true, Ordering::Relaxed);
    for seconds in [10, 11, 12] {
        holder.renew(&world.fleet, &mut Contender::default(), at(seconds)).await.unwrap_err();
    }
    world.store.loses_answers.store(false, Ordering::Relaxed);
    assert_eq!(world.renew(&mut holder, 13).await, Some(token));
    assert!(holder.release(&world.fleet, &Contender::default(), at(14)).await.unwrap());
}

#[tokio::test]
async fn a_released_or_dead_holder_is_not_waited_for() {
    let world = World::new();
    let (mut first, mut second, mut third) = (lease("first"), lease("second"), lease("third"));
    world.renew(&mut first, 0).await;
    assert!(first.release(&world.fleet, &Contender::default(), at(1)).await.unwrap());
    assert!(
        !first.release(&world.fleet, &Contender::default(), at(1)).await.unwrap(),
        "it is given up already"
    );
    assert!(world.renew(&mut second, 1).await.is_some());
    let mut heir = Contender { dead: "second", ..Contender::default() };
    third.renew(&world.fleet, &mut heir, at(1)).await.unwrap();
    assert!(token(&third, 1).is_some());
    assert_eq!((heir.found, heir.written.len()), (1, 1));
    assert_eq!(world.record().await.stamp.holder, "third");
}

#[tokio::test]
async fn of_two_that_take_a_silent_lease_at_once_one_gets_it() {
    let world = World::new();
    let (mut first, mut second, mut third) = (lease("first"), lease("second"), lease("third"));
    world.renew(&mut first, 0).await;
    world.renew(&mut second, 0).await;
    world.renew(&mut third, 0).await;
    let (second, third) = tokio::join!(world.renew(&mut second, 30), world.renew(&mut third, 30));
    assert!(second.is_some() != third.is_some(), "{second:?} {third:?}");
}

#[tokio::test]
async fn a_backend_that_counts_from_the_start_again_takes_the_token_along() {
    let world = World::new();
    let mut holder = lease("holder");
    for seconds in 0..5 {
        world.renew(&mut holder, seconds).await;
    }
    let empty = World::new();
    let token = empty.renew(&mut holder, 5).await.unwrap();
    assert!(token <= Revision(1), "a guarded write of now must not look newer than the backend: {token}");
}
