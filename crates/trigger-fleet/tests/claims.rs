//! The holder of the claim on a certname, case by case, on the store in memory and on a real etcd.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::EtcdServer;
use trigger_core::identity::{GroupName, Revision};
use trigger_core::keyspace::{Key, Keyspace};
use trigger_core::node::{Activity, NodeRecord};
use trigger_core::time::{Now, Timestamp};
use trigger_fleet::Fleet;
use trigger_fleet::claim::{
    Claim, ClaimState, Claimant, LEASE, POLL_INTERVAL, RENEWAL_INTERVAL, TRUST_PERIOD,
};
use trigger_fleet::lease::Stamp;
use trigger_store::etcd::EtcdStore;
use trigger_store::meddled::{Meddled, Meddler};
use trigger_store::memory::MemoryStore;
use trigger_store::store::{CasOutcome, KeyRange, Store, StoreError};

/// A store that can lose answers: it performs a request, and the caller does not get the answer.
struct Trouble {
    store: Arc<dyn Store>,
    loses_answers: AtomicBool,
    is_unreachable: AtomicBool,
    _server: Option<EtcdServer>,
}

/// A fleet of one certname, with a store that a test stands in front of.
struct World {
    store: Arc<Meddled<Trouble>>,
    fleet: Fleet,
}

impl World {
    fn in_memory() -> Self {
        Self::on(Arc::new(MemoryStore::default()), None)
    }

    async fn on_etcd() -> Self {
        let server = EtcdServer::start(&[]).await;
        let store = EtcdStore::connect(&[server.endpoint()]).expect("an endpoint");
        Self::on(Arc::new(store), Some(server))
    }

    fn on(store: Arc<dyn Store>, server: Option<EtcdServer>) -> Self {
        let (loses_answers, is_unreachable) = (AtomicBool::new(false), AtomicBool::new(false));
        let store = Arc::new(Meddled(Trouble { store, loses_answers, is_unreachable, _server: server }));
        let fleet = Fleet::new(store.clone(), Keyspace::default()).acting_as("lb01".parse().unwrap());
        Self { store, fleet }
    }

    /// An agent on a host of its own, holding the lock of the given name.
    fn agent(&self, instance: &str, lock: Option<&str>) -> Claim {
        self.claimant(instance, lock, &format!("host of {instance}"), &[], &[])
    }

    fn claimant(
        &self,
        instance: &str,
        lock: Option<&str>,
        host: &str,
        groups: &[&str],
        joined: &[(&str, Revision)],
    ) -> Claim {
        let joined = joined.iter().map(|(name, since)| (name.parse().unwrap(), *since)).collect();
        Claim::new(self.fleet.clone(), claimant(instance, lock, host, groups), joined, Duration::ZERO)
    }

    async fn record(&self) -> NodeRecord {
        let known = self.fleet.nodes().await.unwrap();
        known.into_values().next().unwrap()
    }

    async fn text(&self) -> String {
        self.store.read(&[KeyRange::Key(key())]).await.unwrap().remove(0).value
    }

    async fn put(&self, text: &str) -> Revision {
        self.store.put_many(vec![(key(), text.to_owned())]).await.remove(0).unwrap()
    }

    /// Renews, or reads the record, this many seconds after the start of the claimant's clock.
    async fn renew(&self, claim: &mut Claim, seconds: u64) -> ClaimState {
        claim.renew(&Activity::default(), at(seconds)).await.expect("an answer");
        claim.state(at(seconds).elapsed)
    }
}

#[async_trait::async_trait]
impl Meddler for Trouble {
    fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        let (backend, detail) = ("here".to_owned(), "a fault".into());
        if self.is_unreachable.load(Ordering::Relaxed) {
            return Err(StoreError::Unreachable { backend, detail });
        }
        let swap = self.store.compare_and_swap(key, value, expected).await;
        if self.loses_answers.load(Ordering::Relaxed) {
            return Err(StoreError::Ambiguous { backend, detail });
        }
        swap
    }
}

fn key() -> String {
    Keyspace::default().key(&Key::Node { certname: "lb01".parse().unwrap() })
}

fn at(seconds: u64) -> Now {
    let elapsed = Duration::from_secs(seconds);
    Now { wall: Timestamp::from_unix_ms(1_763_812_800_000).plus(elapsed), elapsed }
}

fn lease() -> u64 {
    LEASE.as_secs()
}

fn claimant(instance: &str, lock: Option<&str>, host: &str, groups: &[&str]) -> Claimant {
    Claimant {
        instance: instance.to_owned(),
        lock: lock.map(str::to_owned),
        may_inherit: true,
        ended: Vec::new(),
        host: host.to_owned(),
        pid: 7,
        directory: "/var/lib/trigger".to_owned(),
        version: "0".to_owned(),
        groups: groups.iter().map(|name| name.parse().unwrap()).collect(),
    }
}

fn is_held(standing: &ClaimState) -> bool {
    matches!(standing, ClaimState::Held { .. })
}

fn blocked_reason(standing: &ClaimState, seconds: u64) -> String {
    standing.blocker(at(seconds).elapsed).expect("a blocker").reason().to_owned()
}

macro_rules! on_each_store {
    ($($scenario:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(&super::World::in_memory()).await;
            })*
        }
        mod etcd {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(&super::World::on_etcd().await).await;
            })*
        }
    };
}

on_each_store!(
    a_live_claim_is_respected_and_its_holder_named,
    a_silent_claim_is_taken_over_after_the_lease_by_the_contenders_own_clock,
    a_contender_with_the_dead_holders_lock_continues_at_once,
    after_a_restart_of_the_machine_an_agent_waits_as_a_copy_of_it_must,
    where_no_lock_can_be_named_an_agent_waits,
    a_released_claim_is_anybodys_and_only_ones,
    what_another_has_taken_is_not_released,
    a_renewal_whose_answer_was_lost_is_our_own,
    a_holder_that_cannot_renew_trusts_its_claim_for_less_than_the_lease,
    garbage_is_nobodys_claim_and_a_newer_record_is_somebodys,
    a_restored_backend_costs_a_holder_nothing,
    of_a_process_copied_with_its_memory_one_remains,
    of_a_process_copied_before_it_first_wrote_one_remains,
    a_copy_that_took_over_after_silence_keeps_the_claim,
    an_agent_that_lost_its_claim_to_an_equal_waits_after_a_restart,
    a_claim_that_was_taken_and_given_up_meanwhile_is_lost_first,
    groups_are_recalled_and_published_at_once,
    who_took_a_claim_is_news_and_our_own_writes_are_not,
);

/// Proves C11.
async fn a_live_claim_is_respected_and_its_holder_named(world: &World) {
    let (mut first, mut second) = (world.agent("first", Some("a")), world.agent("second", Some("b")));
    assert!(is_held(&world.renew(&mut first, 0).await));
    for minute in 0..20 {
        // The holder renews every minute; the contender looks, and sees each time that it does.
        let standing = world.renew(&mut second, minute * 60).await;
        let blocked_reason = blocked_reason(&standing, minute * 60);
        assert!(blocked_reason.contains("host of first, pid 7, /var/lib/trigger"), "{blocked_reason}");
        let is_alive =
            blocked_reason.contains("another live agent") && blocked_reason.contains("stop one of the two");
        assert_eq!(is_alive, minute > 0, "{blocked_reason}");
        assert!(is_held(&world.renew(&mut first, minute * 60).await));
    }
    assert_eq!(second.pause(at(19 * 60).elapsed, 0.5), POLL_INTERVAL);
    assert!(first.pause(at(19 * 60).elapsed, 0.5) <= RENEWAL_INTERVAL);
}

/// Proves C11.
async fn a_silent_claim_is_taken_over_after_the_lease_by_the_contenders_own_clock(world: &World) {
    let (mut first, mut second) = (world.agent("first", Some("a")), world.agent("second", Some("b")));
    assert!(is_held(&world.renew(&mut first, 0).await));
    let standing = world.renew(&mut second, 1000).await;
    assert!(blocked_reason(&standing, 1010).contains("after 180 s of silence, in 170 s"), "{standing:?}");
    assert!(!is_held(&world.renew(&mut second, 1000 + lease() - 1).await));
    assert_eq!(second.pause(at(1000 + lease() - 1).elapsed, 0.5), Duration::from_secs(1), "to the second");
    assert!(is_held(&world.renew(&mut second, 1000 + lease()).await));
    // The first learns at its next renewal, and is a contender now.
    let standing = world.renew(&mut first, 5).await;
    assert!(blocked_reason(&standing, 5).contains("another live agent (host of second"), "{standing:?}");
    assert!(!is_held(&world.renew(&mut first, 6).await));
}

/// Proves C11.
async fn a_contender_with_the_dead_holders_lock_continues_at_once(world: &World) {
    assert!(is_held(&world.renew(&mut world.agent("before", Some("a")), 0).await));
    assert!(is_held(&world.renew(&mut world.agent("after", Some("a")), 0).await));
    assert_eq!(world.record().await.instance, "after");
}

async fn after_a_restart_of_the_machine_an_agent_waits_as_a_copy_of_it_must(world: &World) {
    let here = |instance: &str, lock: &str| world.claimant(instance, Some(lock), "lb01", &[], &[]);
    let mut before = here("before", "a on boot 1");
    assert!(is_held(&world.renew(&mut before, 0).await));
    let mut after = here("after", "a on boot 2");
    let standing = world.renew(&mut after, 0).await;
    let waits = blocked_reason(&standing, 0);
    assert!(waits.contains("this directory before a restart of the machine"), "{waits}");
    assert!(waits.contains("in 180 s"), "{waits}");
    // It was a copy: the first lives and renews.
    assert!(is_held(&world.renew(&mut before, 60).await));
    let standing = world.renew(&mut after, lease()).await;
    assert!(blocked_reason(&standing, lease()).contains("another live agent"), "{standing:?}");
    assert!(is_held(&world.renew(&mut after, 2 * lease()).await), "and then it does no more");
}

async fn where_no_lock_can_be_named_an_agent_waits(world: &World) {
    assert!(is_held(&world.renew(&mut world.agent("before", None), 0).await));
    let mut after = world.agent("after", None);
    assert!(!is_held(&world.renew(&mut after, 0).await));
    assert!(is_held(&world.renew(&mut after, lease()).await));
}

async fn a_released_claim_is_anybodys_and_only_ones(world: &World) {
    let mut first = world.claimant("first", Some("a"), "lb01", &["lb"], &[]);
    world.renew(&mut first, 0).await;
    assert!(first.release(&Activity::default(), at(1)).await.unwrap());
    let record = world.record().await;
    assert!(record.released && record.seen_at == at(1).wall && record.groups.len() == 1, "{record:?}");
    assert!(!first.release(&Activity::default(), at(2)).await.unwrap(), "it is given up already");
    // Two copies of the directory start at the same moment.
    let (mut copy, mut back) = (world.agent("copy", Some("b")), world.agent("back", Some("c")));
    let (copied, returned) = tokio::join!(world.renew(&mut copy, 0), world.renew(&mut back, 0));
    assert!(is_held(&copied) != is_held(&returned), "{copied:?} {returned:?}");
    assert!(!world.record().await.released);
    let loser = if is_held(&copied) { &mut back } else { &mut copy };
    assert!(!is_held(&world.renew(loser, 170).await));
}

async fn what_another_has_taken_is_not_released(world: &World) {
    let (mut first, mut second) = (world.agent("first", Some("a")), world.agent("second", Some("b")));
    world.renew(&mut first, 0).await;
    world.renew(&mut second, 0).await;
    assert!(!second.release(&Activity::default(), at(1)).await.unwrap(), "never held");
    assert!(is_held(&world.renew(&mut second, lease()).await));
    assert!(!first.release(&Activity::default(), at(lease())).await.unwrap(), "held once");
    let record = world.record().await;
    assert!(record.instance == "second" && !record.released, "{record:?}");
}

async fn a_renewal_whose_answer_was_lost_is_our_own(world: &World) {
    let mut claim = world.agent("first", Some("a"));
    let lose = |loses: bool| world.store.loses_answers.store(loses, Ordering::Relaxed);
    // The very first, then two in a row, then the last before the end.
    for seconds in [0, 60, 61, 120] {
        lose(true);
        claim.renew(&Activity::default(), at(seconds)).await.unwrap_err();
        lose(false);
        if seconds == 0 || seconds == 61 {
            assert!(is_held(&world.renew(&mut claim, seconds + 1).await), "{seconds}");
        }
    }
    assert!(claim.release(&Activity::default(), at(121)).await.unwrap());
    assert!(world.record().await.released);
}

async fn a_holder_that_cannot_renew_trusts_its_claim_for_less_than_the_lease(world: &World) {
    let (mut first, mut second) = (world.agent("first", Some("a")), world.agent("second", Some("b")));
    let standing = world.renew(&mut first, 0).await;
    // A paused agent looks at its clock before it looks at anything else.
    assert_eq!(standing.blocker(TRUST_PERIOD), None);
    let paused = blocked_reason(&standing, TRUST_PERIOD.as_secs() + 1);
    assert!(paused.contains("last renewed 121 s ago"), "{paused}");
    world.renew(&mut second, 0).await;
    world.store.is_unreachable.store(true, Ordering::Relaxed);
    let trusted = TRUST_PERIOD.as_secs();
    for seconds in [60, trusted, trusted + 1] {
        first.renew(&Activity::default(), at(seconds)).await.unwrap_err();
        assert!(first.pause(at(seconds).elapsed, 0.99) <= Duration::from_secs(2), "it is tried again soon");
        let standing = first.state(at(seconds).elapsed);
        assert_eq!(is_held(&standing), seconds <= trusted, "{standing:?}");
        assert!(first.is_held() && !first.publishes_activity(), "it is still this agent's to renew");
    }
    let stale = blocked_reason(&first.state(at(150).elapsed), 150);
    assert!(stale.contains("could not be renewed for 150 s") && stale.contains("a fault"), "{stale}");
    assert!(!is_held(&world.renew(&mut second, lease() - 1).await));
    // The backend is back before anybody took the claim.
    world.store.is_unreachable.store(false, Ordering::Relaxed);
    assert!(is_held(&world.renew(&mut first, lease() - 1).await));
    assert!(!is_held(&world.renew(&mut second, lease()).await));
    assert!(!second.is_held());
}

async fn garbage_is_nobodys_claim_and_a_newer_record_is_somebodys(world: &World) {
    world.put("garbage").await;
    assert!(is_held(&world.renew(&mut world.agent("first", Some("a")), 0).await));
    world.put(r#"{"v":2,"holder":{"name":"another"}}"#).await;
    let mut second = world.agent("second", Some("a"));
    let standing = world.renew(&mut second, 0).await;
    assert!(blocked_reason(&standing, 0).contains("a newer version of Trigger"), "{standing:?}");
    assert!(is_held(&world.renew(&mut second, lease()).await));
}

async fn a_restored_backend_costs_a_holder_nothing(world: &World) {
    let mut claim = world.agent("first", Some("a"));
    world.renew(&mut claim, 0).await;
    let backup = world.text().await;
    world.renew(&mut claim, 60).await;
    world.put(&backup).await;
    assert!(is_held(&world.renew(&mut claim, 120).await));
    world.store.delete_many(vec![key()]).await.unwrap();
    assert!(is_held(&world.renew(&mut claim, 180).await), "nor does an empty one");
}

/// Proves C11.
async fn of_a_process_copied_with_its_memory_one_remains(world: &World) {
    let mut first = world.agent("first", Some("a"));
    world.renew(&mut first, 0).await;
    let mut copy = first.clone();
    assert!(is_held(&world.renew(&mut copy, 61).await), "it writes first");
    for seconds in 1..5 {
        assert!(!is_held(&world.renew(&mut first, 60 * seconds + 2).await), "its write was not this one's");
        assert!(is_held(&world.renew(&mut copy, 60 * seconds + 3).await));
    }
}

/// Proves C11.
async fn of_a_process_copied_before_it_first_wrote_one_remains(world: &World) {
    let mut before = world.agent("before", Some("z"));
    world.renew(&mut before, 0).await;
    let mut first = world.agent("first", Some("a"));
    world.renew(&mut first, 1).await;
    let mut copy = first.clone();
    assert!(is_held(&world.renew(&mut first, 1 + lease()).await));
    let standing = world.renew(&mut copy, 2 + lease()).await;
    assert!(matches!(standing, ClaimState::Contended(_)), "{standing:?}");
    assert!(is_held(&world.renew(&mut first, 60 + lease()).await));
}

/// Proves C11.
async fn a_copy_that_took_over_after_silence_keeps_the_claim(world: &World) {
    let mut first = world.agent("first", Some("a"));
    world.renew(&mut first, 0).await;
    let mut copy = first.clone();
    // The copy has written least, but last.
    for seconds in [60, 120, 180] {
        world.renew(&mut first, seconds).await;
    }
    assert!(!is_held(&world.renew(&mut copy, 200).await));
    assert!(is_held(&world.renew(&mut copy, 200 + lease()).await), "the first is silent");
    assert!(!is_held(&world.renew(&mut first, 201 + lease()).await));
    assert!(is_held(&world.renew(&mut copy, 202 + lease()).await));
}

async fn an_agent_that_lost_its_claim_to_an_equal_waits_after_a_restart(world: &World) {
    let mut copy = world.agent("copy", Some("a"));
    world.renew(&mut copy, 0).await;
    let mut restarted = Claim::new(
        world.fleet.clone(),
        Claimant { may_inherit: false, ..claimant("restarted", Some("a"), "host", &[]) },
        BTreeMap::new(),
        Duration::ZERO,
    );
    assert!(!is_held(&world.renew(&mut restarted, 1).await), "the same lock proves nothing now");
    assert!(is_held(&world.renew(&mut restarted, 1 + lease()).await), "silence does");
    let mut reloaded = world.agent("reloaded", Some("a"));
    assert!(is_held(&world.renew(&mut reloaded, 2 + lease()).await), "and the lock does again");
}

async fn a_claim_that_was_taken_and_given_up_meanwhile_is_lost_first(world: &World) {
    let (mut first, mut second) = (world.agent("first", Some("a")), world.agent("second", Some("b")));
    world.renew(&mut first, 0).await;
    world.renew(&mut second, 0).await;
    assert!(is_held(&world.renew(&mut second, lease()).await));
    second.release(&Activity::default(), at(lease() + 1)).await.unwrap();
    let standing = world.renew(&mut first, lease() + 2).await;
    assert!(matches!(standing, ClaimState::Contended(_)), "{standing:?}");
    assert!(is_held(&world.renew(&mut first, lease() + 3).await), "no agent has it now");
}

async fn groups_are_recalled_and_published_at_once(world: &World) {
    let lb: GroupName = "lb".parse().unwrap();
    let mut first = world.claimant("first", Some("a"), "lb01", &["lb"], &[]);
    world.renew(&mut first, 0).await;
    assert_eq!(first.pause(Duration::ZERO, 0.5), Duration::ZERO, "the record cannot know its own revision");
    world.renew(&mut first, 0).await;
    assert!(first.pause(Duration::ZERO, 0.5) > Duration::from_secs(30));
    let since = first.joined()[&lb];
    assert_eq!(world.record().await.groups, BTreeMap::from([(lb.clone(), since)]));
    // The state directory is lost, and with it what it remembered.
    let mut second = world.claimant("second", Some("b"), "lb01", &["lb", "web"], &[]);
    world.renew(&mut second, 0).await;
    assert!(is_held(&world.renew(&mut second, lease()).await));
    assert_eq!(second.joined()[&lb], since);
    assert!(second.joined()[&"web".parse().unwrap()] > since);
    // The backend is replaced by an empty one, and counts from the start again.
    let mut third = world.claimant("third", Some("b"), "lb01", &["lb"], &[("lb", Revision(u64::MAX))]);
    assert!(is_held(&world.renew(&mut third, 0).await));
    assert_eq!(third.joined()[&lb], since);
}

async fn who_took_a_claim_is_news_and_our_own_writes_are_not(world: &World) {
    let (mut first, mut second) = (world.agent("first", Some("a")), world.agent("second", Some("b")));
    assert!(!first.is_news(Revision(1)), "there is nothing to be news about");
    let revision = async || world.store.read(&[KeyRange::Key(key())]).await.unwrap()[0].revision;
    world.renew(&mut first, 0).await;
    let early = revision().await;
    world.renew(&mut first, 60).await;
    assert!(!first.is_news(early) && !first.is_news(revision().await));
    world.renew(&mut second, 0).await;
    world.renew(&mut second, lease()).await;
    assert!(first.is_news(revision().await));
    assert!(!is_held(&world.renew(&mut first, 61).await));
    assert!(!first.is_news(revision().await), "it is known now");
    second.release(&Activity::default(), at(lease() + 1)).await.unwrap();
    assert!(first.is_news(revision().await));
    assert!(is_held(&world.renew(&mut first, 62).await));
}

/// The next agent of the directory of an agent that has noted its end, after a reboot.
fn successor(world: &World, instance: &str, ended: Vec<Stamp>) -> Claim {
    let claimant = Claimant { ended, ..claimant(instance, Some(instance), "host", &[]) };
    Claim::new(world.fleet.clone(), claimant, BTreeMap::new(), Duration::ZERO)
}

/// Proves C11.
#[tokio::test]
async fn an_agent_that_noted_its_end_is_succeeded_at_once_and_only_once() {
    let world = World::in_memory();
    let mut first = world.agent("first", Some("a"));
    world.renew(&mut first, 0).await;
    // A renewal whose answer is lost, and a release that does not arrive.
    world.store.loses_answers.store(true, Ordering::Relaxed);
    first.renew(&Activity::default(), at(50)).await.unwrap_err();
    world.store.loses_answers.store(false, Ordering::Relaxed);
    world.store.is_unreachable.store(true, Ordering::Relaxed);
    first.release(&Activity::default(), at(60)).await.unwrap_err();
    // The second agent is stopped before the backend answers.
    let mut second = successor(&world, "second", first.latest_stamps());
    second.renew(&Activity::default(), at(60)).await.unwrap_err();
    assert!(!second.release(&Activity::default(), at(61)).await.unwrap(), "it has none");
    world.store.is_unreachable.store(false, Ordering::Relaxed);
    // The directory was copied with the note.
    let mut third = successor(&world, "third", second.latest_stamps());
    let mut copy = successor(&world, "copy", second.latest_stamps());
    assert!(is_held(&world.renew(&mut third, 70).await));
    assert!(matches!(world.renew(&mut copy, 70).await, ClaimState::Contended(_)));
}

/// Proves C11.
#[tokio::test]
async fn a_noted_end_proves_nothing_about_a_copy_of_the_process_that_goes_on() {
    let world = World::in_memory();
    let mut first = world.agent("first", Some("a"));
    world.renew(&mut first, 0).await;
    let mut copied_with_its_memory = first.clone();
    world.renew(&mut copied_with_its_memory, 40).await;
    let mut next = successor(&world, "next", first.latest_stamps());
    assert!(matches!(world.renew(&mut next, 70).await, ClaimState::Contended(_)));
    assert!(is_held(&world.renew(&mut next, 70 + lease()).await), "silence does");
}
