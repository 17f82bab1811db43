//! What an attacker with full write access to the backend can do to signed values: hide and delay, never forge (C13).

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects")]

mod signing;

use std::str::FromStr;
use std::time::Duration;

use futures_util::StreamExt;
use signing::{NOW, Site, World, id, key, node, publication};
use tokio::sync::{mpsc, watch};
use trigger_core::cancellation::Cancellation;
use trigger_core::delivery::{Completion, Delivery, DeliveryOutcome, DeliveryState};
use trigger_core::event::Target;
use trigger_core::holds::{Demand, HoldOrder};
use trigger_core::identity::{EventId, GroupName, Revision, RunId};
use trigger_core::keyspace::{Key, Keyspace, Range};
use trigger_core::lineage::Lineage;
use trigger_core::run::history::RunHistory;
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::run_log::{LogAnswer, LogContent, LogRequest, RunChoice};
use trigger_core::signer::Signer;
use trigger_core::time::Timestamp;
use trigger_core::why::{Question, Which};
use trigger_core::wire::Stored;
use trigger_fleet::cancelling::{Asked, Scope};
use trigger_fleet::claim::ClaimState;
use trigger_fleet::deliveries::Arrival;
use trigger_fleet::delivery_watcher::{DeliveryWatcher, Outlets};
use trigger_fleet::verifying::Unverified;
use trigger_store::store::{KeyRange, Store};
use uuid::Uuid;

fn part(n: u128) -> String {
    key(&Key::Part { event: id(n), index: 0 })
}

fn delivery(certname: &str, n: u128) -> String {
    key(&Key::Delivery { certname: node(certname), event: id(n) })
}

fn outcome(certname: &str, n: u128) -> String {
    key(&Key::Outcome { event: id(n), certname: node(certname) })
}

fn done() -> DeliveryOutcome {
    let result = RunResult {
        outcome: RunOutcome::Changed,
        reason: None,
        reported_noop: false,
        drift: Default::default(),
        started_at: Timestamp::from_unix_ms(1),
        finished_at: Timestamp::from_unix_ms(2),
    };
    DeliveryOutcome::Done(CompletedRun::new(RunId::from_uuid(Uuid::from_u128(5)), false, result))
}

fn ended(n: u128, certname: &str, outcome: DeliveryOutcome) -> Completion {
    Completion { event: id(n), addressed_as: [Target::Node(node(certname))].into(), outcome }
}

/// The reason for which a node refuses its only delivery.
async fn refusal(world: &World, certname: &str) -> String {
    match &world.arrivals(certname).await[..] {
        [Arrival::Refused { reason, .. }] => reason.clone(),
        other => panic!("{other:?}"),
    }
}

async fn is_pending(world: &World, certname: &str) -> bool {
    matches!(&world.arrivals(certname).await[..], [Arrival::Pending(_)])
}

/// Proves C13.
#[tokio::test]
async fn what_its_origin_signed_is_accepted_with_certificates_and_with_a_shared_key() {
    for site in [Site::certificates(), Site::shared_key()] {
        let world = World::new(site);
        world.fleet("web01").publish(&publication(1, "web01", &["lb01"]), false).await.unwrap();
        match &world.arrivals("lb01").await[..] {
            [Arrival::Pending(cause)] => match (&cause.signer, world.has_certificates()) {
                (Signer::Certificate { algorithm, .. }, true) => {
                    assert_eq!(algorithm, "ecdsa_secp256r1_sha256")
                }
                (Signer::SharedKey, false) => {}
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
        let stored = world.read(&part(1)).await;
        assert!(stored.contains("\"sig\":"), "{stored}");
        assert_eq!(stored.contains("\"cert\":\"web01/"), world.has_certificates(), "{stored}");
    }
}

/// Proves C13.
#[tokio::test]
async fn an_event_that_is_altered_moved_or_copied_is_refused() {
    for site in [Site::certificates(), Site::shared_key()] {
        let world = World::new(site);
        world.fleet("web01").publish(&publication(1, "web01", &["lb01"]), false).await.unwrap();
        let (original, pointer) = (world.read(&part(1)).await, world.read(&delivery("lb01", 1)).await);

        // Altered: another trigger, another lifetime, other targets.
        for (from, to) in [("refresh", "destroy"), ("86400", "604800"), ("\"lb01\"", "\"lb01\",\"lb02\"")] {
            let altered = original.replace(from, to);
            assert_ne!(altered, original, "{from}");
            world.put(&part(1), &altered).await;
            assert!(refusal(&world, "lb01").await.contains("does not fit"), "{from}");
        }
        world.put(&part(1), &original).await;
        assert!(is_pending(&world, "lb01").await);

        // Moved to another target, which the signed list does not have.
        world.put(&delivery("lb02", 1), &pointer).await;
        assert!(refusal(&world, "lb02").await.contains("does not name this target"));

        // Copied under another id, and put into another fleet.
        world.put(&part(2), &original).await;
        world.put(&delivery("lb03", 2), &pointer).await;
        assert!(refusal(&world, "lb03").await.contains("does not fit"));
        let elsewhere: Keyspace = Keyspace::new("/other".parse().unwrap());
        world.put(&elsewhere.key(&Key::Part { event: id(1), index: 0 }), &original).await;
        let moved = elsewhere.key(&Key::Delivery { certname: node("lb01"), event: id(1) });
        world.put(&moved, &pointer).await;
        let fleet = world.fleet("lb01").below("/other".parse().unwrap());
        // The certificate is copied with it.
        world.copy_certificates(&elsewhere).await;
        let entries = world.store.read(&[KeyRange::Key(moved)]).await.unwrap();
        let arrivals = fleet.read_deliveries(&Default::default(), &entries).await.unwrap();
        assert!(
            matches!(&arrivals[..], [Arrival::Refused { reason, .. }] if reason.contains("does not fit")),
            "{arrivals:?}"
        );
    }
}

/// What a node that has joined the group `lb` at a revision reads of the group's deliveries.
async fn members_arrivals(world: &World, certname: &str, joined: Revision) -> Vec<Arrival> {
    let (fleet, group) = (world.fleet(certname), GroupName::from_str("lb").unwrap());
    let entries = world.store.read(&fleet.delivery_ranges([group.clone()])).await.unwrap();
    fleet.read_deliveries(&[(group, joined)].into(), &entries).await.unwrap()
}

fn group_delivery(n: u128) -> String {
    key(&Key::GroupDelivery { group: "lb".parse().unwrap(), event: id(n) })
}

/// Proves C13.
#[tokio::test]
async fn an_event_that_does_not_name_a_group_is_refused_by_its_members() {
    for site in [Site::certificates(), Site::shared_key()] {
        let world = World::new(site);
        for (n, groups) in [(1, vec![]), (2, vec!["db"])] {
            let mut publication = publication(n, "web01", &["lb01"]);
            publication.event.targets.groups = groups.iter().map(|group| group.parse().unwrap()).collect();
            world.fleet("web01").publish(&publication, false).await.unwrap();
            let pointer = world.read(&delivery("lb01", n)).await;
            world.put(&group_delivery(n), &pointer).await;
        }
        // Nor does it count that the event names the member itself.
        for member in ["lb02", "lb01"] {
            let arrivals = members_arrivals(&world, member, Revision(0)).await;
            let refused = |n: u128| {
                arrivals.iter().any(|arrival| match arrival {
                    Arrival::Refused { event, target: Target::Group(_), reason } => {
                        *event == id(n) && reason.contains("does not name this target")
                    }
                    _ => false,
                })
            };
            assert!(refused(1) && refused(2), "{arrivals:?}");
            let pending = arrivals.iter().filter(|arrival| matches!(arrival, Arrival::Pending(_))).count();
            assert_eq!(pending, if member == "lb01" { 2 } else { 0 }, "{arrivals:?}");
        }
    }
}

/// The exception of `docs/security.md`.
#[tokio::test]
async fn a_groups_event_that_is_put_back_makes_a_node_that_has_joined_since_run_once() {
    for site in [Site::certificates(), Site::shared_key()] {
        let world = World::new(site);
        let mut publication = publication(1, "web01", &[]);
        publication.event.targets.groups = ["lb".parse().unwrap()].into();
        let joined = world.fleet("web01").publish(&publication, false).await.unwrap().revision;
        let pointer = world.read(&group_delivery(1)).await;
        assert_eq!(members_arrivals(&world, "lb09", joined).await, [], "it was fired before");

        world.put(&group_delivery(1), &pointer).await;
        let arrivals = members_arrivals(&world, "lb09", joined).await;
        assert!(matches!(&arrivals[..], [Arrival::Pending(_)]), "{arrivals:?}");
        let addressed_as = [Target::Group("lb".parse().unwrap())].into();
        let completion = Completion { event: id(1), addressed_as, outcome: done() };
        world.fleet("lb09").finish(&[completion]).await.unwrap();

        world.put(&group_delivery(1), &pointer).await;
        let arrivals = members_arrivals(&world, "lb09", joined).await;
        assert!(matches!(&arrivals[..], [Arrival::HasOutcome { .. }]), "{arrivals:?}");
    }
}

/// Proves C1 and C13: an id may be known before its event is published, for its origin prints it.
#[tokio::test]
async fn what_others_store_under_the_id_of_an_event_before_it_is_published_loses_it_nowhere() {
    for site in [Site::certificates(), Site::shared_key()] {
        let world = World::new(site);
        let event =
            EventId::of_origin(&node("web01"), Uuid::from_u128(0x019356b0_7c4a_7fff_bfff_ffff12345678));
        let with_that_id = |origin: &str| {
            let mut publication = publication(1, origin, &["lb01"]);
            (publication.event.id, publication.event.lineage) = (event, Lineage::root(event));
            publication
        };
        // Another node signs it as its own: it is left alone, and ends nothing.
        world.fleet("db01").publish(&with_that_id("db01"), false).await.unwrap();
        match &world.arrivals("lb01").await[..] {
            [Arrival::Unreadable { detail, .. }] => {
                assert!(detail.contains("is not one of db01"), "{detail}")
            }
            other => panic!("{other:?}"),
        }
        // Another value in its place is refused, and the target says so.
        let at = key(&Key::Part { event, index: 0 });
        let own = world.signed_as("db01", &key(&Key::Part { event: id(2), index: 0 }), &Delivery { part: 0 });
        world.put(&at, &own).await;
        let reason = refusal(&world, "lb01").await;
        let end = |outcome| Completion { event, addressed_as: [Target::Node(node("lb01"))].into(), outcome };
        world.fleet("lb01").finish(&[end(DeliveryOutcome::Refused(reason))]).await.unwrap();

        world.fleet("web01").publish(&with_that_id("web01"), false).await.unwrap();
        match &world.arrivals("lb01").await[..] {
            [Arrival::WasRefused { genuine: Some(cause), .. }] => {
                assert_eq!(cause.event.origin, node("web01"))
            }
            other => panic!("{other:?}"),
        }
        world.fleet("lb01").finish(&[end(done())]).await.unwrap();
        let status = world.fleet("web01").event_status(event).await.unwrap().unwrap();
        assert_eq!(status.targets[&node("lb01")].state, DeliveryState::Done);
        assert!(world.arrivals("lb01").await.is_empty());
    }
}

/// Proves C13.
#[tokio::test]
async fn an_unsigned_event_is_refused_unless_signatures_are_not_required() {
    let world = World::new(Site::certificates());
    world.unsigned().publish(&publication(1, "web01", &["lb01"]), false).await.unwrap();
    assert!(refusal(&world, "lb01").await.contains("require_signature"));
    let tolerant = world.fleet_not_requiring("lb01");
    let arrivals = world.arrivals_of(&tolerant).await;
    assert!(
        matches!(&arrivals[..], [Arrival::Pending(cause)] if cause.signer == Signer::Unsigned),
        "{arrivals:?}"
    );
    // A signature that is there and wrong is refused all the same.
    world.fleet("web01").publish(&publication(1, "web01", &["lb01"]), false).await.unwrap();
    world.put(&part(1), &world.read(&part(1)).await.replace("refresh", "destroy")).await;
    assert!(matches!(&world.arrivals_of(&tolerant).await[..], [Arrival::Refused { .. }]));
}

/// Proves C13.
#[tokio::test]
async fn no_node_signs_for_another_one() {
    let world = World::new(Site::certificates());
    // Its own program does not let it.
    let error = world.fleet("db01").publish(&publication(1, "web01", &["lb01"]), false).await.unwrap_err();
    assert!(error.to_string().contains("this node's certificate is for db01"), "{error}");
    assert!(!error.is_transient());
    // One that does is refused: db01 signs an event that web01 is said to have fired.
    world.publish_as("db01", &publication(1, "web01", &["lb01"])).await;
    assert!(refusal(&world, "lb01").await.contains("db01 has signed it"));
}

/// Proves C13.
#[tokio::test]
async fn a_signer_that_is_not_trusted_is_refused_and_one_that_is_not_known_yet_waits() {
    let mut world = World::new(Site::certificates());
    world.fleet("web01").publish(&publication(1, "web01", &["lb01"]), false).await.unwrap();
    let certificates = world.take_certificates().await;
    let arrivals = world.arrivals("lb01").await;
    assert!(
        matches!(&arrivals[..], [Arrival::Unverified(held)] if held.reason.contains("is not stored")),
        "{arrivals:?}"
    );
    // Another certificate in its place is none.
    let (at, _) = certificates.first().unwrap().clone();
    world.fleet("db01").announce_certificate().await.unwrap();
    let (_, other) = world.take_certificates().await.first().unwrap().clone();
    world.put(&at, &other).await;
    assert!(matches!(&world.arrivals("lb01").await[..], [Arrival::Unverified(_)]));
    for (key, text) in &certificates {
        world.put(key, text).await;
    }
    assert!(is_pending(&world, "lb01").await);

    world.set_clock(Timestamp::from_unix_ms(0));
    let arrivals = world.arrivals("lb01").await;
    assert!(
        matches!(&arrivals[..], [Arrival::Unverified(held)] if held.reason.contains("is valid from")),
        "{arrivals:?}"
    );
    world.set_clock(Timestamp::from_unix_ms(32_503_680_000_000));
    assert!(refusal(&world, "lb01").await.contains("expired"));
    world.set_clock(signing::NOW);
    assert!(is_pending(&world, "lb01").await);

    world.revoke("web01");
    assert!(refusal(&world, "lb01").await.contains("is revoked"));

    let stranger = World::new(Site::certificates());
    stranger.fleet("web02").publish(&publication(3, "web02", &["lb03"]), false).await.unwrap();
    world.copy_all_from(&stranger).await;
    assert!(refusal(&world, "lb03").await.contains("both ends need certificates of one CA"));
}

/// Proves C13.
#[tokio::test]
async fn a_forged_outcome_ends_nothing_and_is_not_shown() {
    let world = World::new(Site::certificates());
    world.fleet("web01").publish(&publication(1, "web01", &["lb01"]), false).await.unwrap();
    // Nobody has signed it; then a node that is not the target.
    let unsigned = done().to_wire();
    let of_db01 = world.signed_as("db01", &outcome("lb01", 1), &done());
    for forged in [unsigned, of_db01] {
        world.put(&outcome("lb01", 1), &forged).await;
        assert!(is_pending(&world, "lb01").await, "its delivery has not ended");
        let status = world.fleet("web01").event_status(id(1)).await.unwrap().unwrap();
        assert_eq!(status.targets[&node("lb01")].state, DeliveryState::Pending);
        let why = status.unverified.sentences();
        assert!(why.len() == 1 && why[0].contains(&outcome("lb01", 1)), "{why:?}");
    }
    // The target's own replaces it, of whatever kind.
    let refused = DeliveryOutcome::Refused("the policy".to_owned());
    world.fleet("lb01").finish(&[ended(1, "lb01", refused)]).await.unwrap();
    let status = world.fleet("web01").event_status(id(1)).await.unwrap().unwrap();
    assert_eq!(status.targets[&node("lb01")].state, DeliveryState::Refused);
    assert!(status.unverified.is_empty());
}

/// Proves C13.
#[tokio::test]
async fn an_outcome_that_is_moved_to_another_event_or_node_is_not_shown() {
    let world = World::new(Site::shared_key());
    for n in [1, 2] {
        world.fleet("web01").publish(&publication(n, "web01", &["lb01", "lb02"]), false).await.unwrap();
    }
    world.fleet("lb01").finish(&[ended(1, "lb01", done())]).await.unwrap();
    let genuine = world.read(&outcome("lb01", 1)).await;
    world.put(&outcome("lb01", 2), &genuine).await;
    world.put(&outcome("lb02", 1), &genuine).await;
    let states = async |n: u128| {
        let status = world.fleet("web01").event_status(id(n)).await.unwrap().unwrap();
        (status.targets[&node("lb01")].state, status.targets[&node("lb02")].state)
    };
    assert_eq!(states(1).await, (DeliveryState::Done, DeliveryState::Pending));
    assert_eq!(states(2).await, (DeliveryState::Pending, DeliveryState::Pending));
    assert_eq!(world.arrivals("lb02").await.len(), 2, "neither of them has ended");
}

/// Proves C13.
#[tokio::test]
async fn an_expiry_says_which_node_has_written_it() {
    let world = World::new(Site::certificates());
    world.fleet("web01").publish(&publication(1, "web01", &["lb01"]), false).await.unwrap();
    let late = signing::NOW.plus(std::time::Duration::from_secs(3 * 24 * 60 * 60));
    let swept = world.fleet("db01").sweep(late, None).await.unwrap();
    assert_eq!(swept.expired, 1);
    let status = world.fleet("web01").event_status(id(1)).await.unwrap().unwrap();
    let target = &status.targets[&node("lb01")];
    assert_eq!(target.state, DeliveryState::Expired);
    assert!(target.reason.as_deref().unwrap().contains("db01 has noted that"), "{:?}", target.reason);
}

fn days(n: u64) -> Timestamp {
    signing::NOW.plus(std::time::Duration::from_secs(n * 24 * 60 * 60))
}

/// Proves C13: nothing says when an outcome was written, so that it is shown, and shown not to be certain.
#[tokio::test]
async fn an_outcome_is_shown_with_a_warning_once_its_certificate_is_not_trusted_any_more() {
    for ends in ["expired", "is revoked"] {
        let mut world = World::new(Site::certificates());
        world.fleet("web01").publish(&publication(1, "web01", &["lb01", "lb02"]), false).await.unwrap();
        world.fleet("lb01").finish(&[ended(1, "lb01", done())]).await.unwrap();
        let status = async |world: &World| {
            // Read by a node that was never revoked.
            let fleet = world.fleet("db01");
            let status = fleet.event_status(id(1)).await.unwrap().unwrap();
            let states = status.targets.values().map(|target| target.state).collect::<Vec<_>>();
            (states, status.unverified.sentences())
        };
        assert_eq!(status(&world).await, (vec![DeliveryState::Done, DeliveryState::Pending], vec![]));
        if ends == "expired" {
            world.set_clock(Timestamp::from_unix_ms(32_503_680_000_000));
        } else {
            world.revoke("lb01");
            world.revoke("web01");
        }
        let (states, why) = status(&world).await;
        assert_eq!(states, [DeliveryState::Done, DeliveryState::Pending]);
        // Of the event and of the outcome.
        let is_warned = |key: &str| why.iter().any(|why| why.contains(key) && why.contains(ends));
        assert!(why.len() == 2 && is_warned(&part(1)) && is_warned(&outcome("lb01", 1)), "{why:?}");
        assert!(why[0].contains("former key"), "{why:?}");
        // It ends no delivery, and its node's own replaces it, of whatever kind.
        assert!(!matches!(&world.arrivals("lb01").await[..], [Arrival::HasOutcome { .. }]));

        // Neither keeps the event from ending and being removed. The certificate of the sweeper is good.
        if ends == "is revoked" {
            let swept = world.fleet("db01").sweep(days(3), None).await.unwrap();
            assert_eq!(swept.expired, 1, "of the target that was silent");
            assert_eq!(status(&world).await.0, [DeliveryState::Done, DeliveryState::Expired]);
            assert_eq!(world.fleet("db01").sweep(days(30), None).await.unwrap().removed, 1);
        }
    }
}

/// Proves C13: what it signed would be refused for good, everywhere.
#[tokio::test]
async fn a_node_signs_nothing_with_a_certificate_that_is_not_trusted_any_more() {
    let mut world = World::new(Site::certificates());
    let fire = async |world: &World, n: u128| {
        world.fleet("web01").publish(&publication(n, "web01", &["lb01"]), false).await
    };
    let finish = async |world: &World| world.fleet("web01").finish(&[ended(1, "web01", done())]).await;
    fire(&world, 1).await.unwrap();
    finish(&world).await.unwrap();
    world.set_clock(Timestamp::from_unix_ms(32_503_680_000_000));
    let error = fire(&world, 2).await.unwrap_err();
    // So the event waits in the outbox, and the outcome in the agent.
    assert!(error.is_transient() && error.to_string().contains("web01 expired at"), "{error}");
    let error = finish(&world).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("cannot sign"), "{error}");
    assert!(world.arrivals("lb01").await.len() == 1, "nothing was stored");
    world.set_clock(signing::NOW);
    fire(&world, 2).await.unwrap();
    world.revoke("web01");
    let error = fire(&world, 3).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("is revoked"), "{error}");
}

/// Proves C13: a node may sign what it likes as its own.
#[tokio::test]
async fn a_part_of_another_nodes_event_is_no_part_of_this_one() {
    let world = World::new(Site::certificates());
    world.fleet("web01").publish(&publication(1, "web01", &["lb01"]), false).await.unwrap();
    world.fleet("db01").announce_certificate().await.unwrap();
    let forged = publication(1, "db01", &["lb09"]).event.into_parts().remove(0);
    let at = key(&Key::Part { event: id(1), index: 1 });
    world.put(&at, &world.signed_as("db01", &at, &trigger_core::event::Part { index: 1, ..forged })).await;
    let status = world.fleet("web01").event_status(id(1)).await.unwrap().unwrap();
    assert_eq!(status.event.origin, node("web01"));
    assert_eq!(status.targets.keys().collect::<Vec<_>>(), [&node("lb01")]);
    let why = status.unverified.sentences();
    assert!(why.len() == 1 && why[0].contains("another event of the same id, fired by db01"), "{why:?}");
}

/// Proves C13: the origin of an event that is for another node suppresses nothing here.
#[tokio::test]
async fn only_the_origin_of_an_event_for_this_node_suppresses_it_here() {
    let world = World::new(Site::certificates());
    let suppressed = DeliveryOutcome::Suppressed("a loop".to_owned());
    for (n, hosts, ends) in [(1, &["lb01"], true), (2, &["lb02"], false)] {
        world.fleet("web01").publish(&publication(n, "web01", hosts), false).await.unwrap();
        world.put(&delivery("lb01", n), &world.read(&delivery(hosts[0], n)).await).await;
        let at = outcome("lb01", n);
        world.put(&at, &world.signed_as("web01", &at, &suppressed)).await;
        let arrivals = world.arrivals("lb01").await;
        let found = arrivals
            .iter()
            .any(|arrival| matches!(arrival, Arrival::HasOutcome { event, .. } if *event == id(n)));
        assert_eq!(found, ends, "{arrivals:?}");
    }
}

/// Proves C13.
#[tokio::test]
async fn a_forged_event_is_swept_and_said_to_have_expired_nowhere() {
    let world = World::new(Site::certificates());
    world.unsigned().publish(&publication(1, "web01", &["lb01"]), false).await.unwrap();
    assert_eq!(world.fleet("db01").sweep(days(3), None).await.unwrap().expired, 0);
    assert_eq!(world.fleet("db01").sweep(days(30), None).await.unwrap().removed, 1);
    let left =
        world.store.list(&[KeyRange::Prefix(Keyspace::default().range(&Range::Events))]).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert!(world.arrivals("lb01").await.is_empty());
}

/// The place of the request to end the delivery of event 1 to `lb01`.
fn cancellation_key() -> String {
    key(&Key::Cancellation { certname: node("lb01"), event: id(1) })
}

fn cancellation(by: &str) -> Cancellation {
    Cancellation::new(0, node(by), NOW, Some("wrong node"))
}

/// The node that asks for the end of the delivery to `lb01`, if one does whose signature counts.
async fn canceller(world: &World) -> Option<String> {
    match &world.arrivals("lb01").await[..] {
        [Arrival::Cancelled { cancellation, .. }] => Some(cancellation.cancellation.by.to_string()),
        [Arrival::Unreadable { detail, .. }, Arrival::Pending(_)]
            if detail.starts_with("it cancels nothing") =>
        {
            None
        }
        other => panic!("{other:?}"),
    }
}

/// Proves C13.
#[tokio::test]
async fn a_cancellation_counts_only_as_its_canceller_has_signed_it_for_this_delivery() {
    for site in [Site::certificates(), Site::shared_key()] {
        let world = World::new(site);
        let publication = publication(1, "web01", &["lb01", "lb02"]);
        world.fleet("web01").publish(&publication, false).await.unwrap();
        let asked = Asked { at: NOW, reason: Some("wrong node") };
        world
            .fleet("web01")
            .cancel(&publication.event, Scope::AllBut(&Default::default()), asked)
            .await
            .unwrap();
        assert_eq!(canceller(&world).await.as_deref(), Some("web01"));
        let genuine = world.read(&cancellation_key()).await;

        // Altered, unsigned, and moved here from another target and from another event.
        let of_lb02 = world.read(&cancellation_key().replace("lb01", "lb02")).await;
        let elsewhere = cancellation_key().replace(&id(1).to_string(), &id(2).to_string());
        let of_another = world.signed_as("web01", &elsewhere, &cancellation("web01"));
        for forged in
            [genuine.replace("wrong", "right"), cancellation("web01").to_wire(), of_lb02, of_another]
        {
            world.put(&cancellation_key(), &forged).await;
            assert_eq!(canceller(&world).await, None, "{forged}");
        }
        if world.has_certificates() {
            // In the name of another node, or by one that the target does not know yet.
            let forged = world.signed_as("db01", &cancellation_key(), &cancellation("web01"));
            world.put(&cancellation_key(), &forged).await;
            assert_eq!(canceller(&world).await, None);
        }
        world.put(&cancellation_key(), &genuine).await;
        assert_eq!(canceller(&world).await.as_deref(), Some("web01"));
    }
}

/// Proves C13: nothing says that it was signed before the revocation.
#[tokio::test]
async fn a_cancellation_by_a_node_that_was_revoked_ends_nothing() {
    let mut world = World::new(Site::certificates());
    let publication = publication(1, "web01", &["lb01"]);
    world.fleet("web01").publish(&publication, false).await.unwrap();
    let asked = Asked { at: NOW, reason: None };
    world.fleet("ops01").cancel(&publication.event, Scope::AllBut(&Default::default()), asked).await.unwrap();
    assert_eq!(canceller(&world).await.as_deref(), Some("ops01"));
    world.arrivals("lb01").await;
    world.revoke("ops01");
    assert_eq!(canceller(&world).await, None);
}

/// Proves C6 and C13.
#[tokio::test]
async fn a_forged_outcome_keeps_no_delivery_from_expiring() {
    let world = World::new(Site::certificates());
    world.fleet("web01").publish(&publication(1, "web01", &["lb01", "lb02"]), false).await.unwrap();
    world.fleet("db01").announce_certificate().await.unwrap();
    let forged = world.signed_as("db01", &outcome("lb01", 1), &done());
    world.put(&outcome("lb01", 1), &forged).await;
    // Its target has signed this one, with a certificate that is not stored now: it may count later.
    let late = world.signed_as("lb02", &outcome("lb02", 1), &done());
    world.put(&outcome("lb02", 1), &late).await;
    assert_eq!(world.fleet("db01").sweep(days(3), None).await.unwrap().expired, 1);
    let status = world.fleet("web01").event_status(id(1)).await.unwrap().unwrap();
    assert_eq!(status.targets[&node("lb01")].state, DeliveryState::Expired);
    assert_eq!(world.read(&outcome("lb02", 1)).await, late);
    assert_eq!(world.fleet("db01").sweep(days(30), None).await.unwrap().removed, 1);
    let left = [Range::Events, Range::Outcomes(id(1))].map(|range| Keyspace::default().range(&range));
    let left = world.store.list(&left.map(KeyRange::Prefix)).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// Proves C13.
#[tokio::test]
async fn a_forged_run_history_explains_nothing() {
    let world = World::new(Site::certificates());
    let history = key(&Key::RunHistory { certname: node("lb01") });
    world.fleet("lb01").finish_runs(&[], Some(&RunHistory::default())).await.unwrap();
    world.put(&history, &world.read(&history).await.replace("\"runs\":[]", "\"runs\":[ ]")).await;
    let question = Question::Run(node("lb01"), Which::Back(0));
    let mut unverified = Unverified::default();
    drop(world.fleet("web01").explain(&question, &mut unverified).await.unwrap());
    let why = unverified.sentences();
    assert!(why.len() == 1 && why[0].contains("run-history/lb01"), "{why:?}");
}

/// Proves C13: a restored backend lacks the certificate, until its node has connected to it again.
#[tokio::test]
async fn a_node_stores_its_certificate_again_in_a_backend_that_has_lost_it() {
    let world = World::new(Site::certificates());
    let web = world.fleet("web01");
    web.announce_certificate().await.unwrap();
    assert_eq!(world.take_certificates().await.len(), 1);
    web.announce_certificate().await.unwrap();
    web.announce_certificate().await.unwrap();
    let key = KeyRange::Prefix(key(&Key::Sweep).replace("sweep", "certificates/web01/"));
    let stored = world.store.read(&[key]).await.unwrap();
    assert_eq!(stored.len(), 1);
}

/// Proves C13: what is signed counts for others, also where the certificate was lost between two connections.
#[tokio::test]
async fn a_node_looks_for_its_certificate_with_its_deliveries_and_stores_it_before_what_it_signs() {
    let world = World::new(Site::certificates());
    world.fleet("web01").publish(&publication(1, "web01", &["lb01"]), false).await.unwrap();
    for is_stored in [false, true] {
        let lb = world.fleet("lb01");
        let own = |stored: &[(String, String)]| stored.iter().filter(|(at, _)| at.contains("/lb01/")).count();
        if is_stored {
            lb.announce_certificate().await.unwrap();
        }
        // Another handle, as a new connection is: nothing is known of what is stored.
        let lb = world.fleet("lb01");
        assert_eq!(world.arrivals_of(&lb).await.len(), 1);
        let taken = world.take_certificates().await;
        assert_eq!(own(&taken), usize::from(is_stored));
        lb.finish_runs(&[], Some(&RunHistory::default())).await.unwrap();
        let stored = world.take_certificates().await;
        assert_eq!(own(&stored), usize::from(!is_stored), "one that was seen is not looked up again");
        for (at, text) in taken {
            world.put(&at, &text).await;
        }
    }
}

/// Proves C13.
#[tokio::test]
async fn a_node_replaces_what_another_has_put_in_the_place_of_its_certificate() {
    let world = World::new(Site::certificates());
    world.fleet("web01").publish(&publication(1, "web01", &["lb01"]), false).await.unwrap();
    let (at, genuine) = world.take_certificates().await.remove(0);
    world.put(&at, "{}").await;
    assert!(matches!(&world.arrivals("lb01").await[..], [Arrival::Unverified(_)]));
    world.fleet("web01").announce_certificate().await.unwrap();
    assert_eq!(world.read(&at).await, genuine);
    assert!(is_pending(&world, "lb01").await);
}

/// Proves C13: more signers than certificates are kept of.
#[tokio::test]
async fn outcomes_with_more_certificates_than_are_kept_all_count() {
    let world = World::new(Site::certificates());
    let hosts: Vec<String> = (0..600).map(|n| format!("lb{n:03}")).collect();
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    world.fleet("web01").publish(&publication(1, "web01", &names), false).await.unwrap();
    for host in &names {
        world.fleet(host).finish(&[ended(1, host, done())]).await.unwrap();
    }
    let status = world.fleet("web01").event_status(id(1)).await.unwrap().unwrap();
    assert!(status.unverified.is_empty(), "{:?}", status.unverified.sentences());
    assert!(status.targets.values().all(|target| target.state == DeliveryState::Done));
}

fn log_request(n: u8) -> LogRequest {
    LogRequest { key: [n; 32], run: RunChoice::Latest { back: 0 }, from: None, as_operator: true }
}

fn log_answer(n: u8) -> LogAnswer {
    LogAnswer { request: [n; 32], content: LogContent::Refused("no".to_owned()) }
}

/// The readers whose requests to lb01 count, and why the others do not.
async fn asked(world: &World) -> (Vec<String>, String) {
    let range = KeyRange::Prefix(Keyspace::default().range(&Range::LogRequestsTo(node("lb01"))));
    let entries = world.store.read(&[range]).await.unwrap();
    let (asked, others) = world.fleet("lb01").open_log_requests(entries).await.unwrap();
    (asked.iter().map(|asked| asked.reader.to_string()).collect(), format!("{others:?}"))
}

/// Who has given the order that a node reads with its deliveries, and the number; else what is wrong with it.
async fn ordered(world: &World) -> Result<(String, u64), String> {
    let (arrivals, mut read) = mpsc::channel(16);
    let (own_record, _) = watch::channel(Revision::default());
    let (log_requests, _none) = mpsc::channel(1);
    let outlets = Outlets { arrivals, own_record, log_requests };
    let joined = ClaimState::Held { joined: Default::default(), renewed_at: Default::default() };
    let (_claim, claim) = watch::channel(joined);
    let mut watcher = DeliveryWatcher::new(world.fleet("lb01"), claim, outlets);
    let watch = watcher.connect().await.unwrap();
    let following = watcher.follow(watch, |_| std::future::pending());
    let found = async {
        while let Some(batch) = read.recv().await {
            match &batch.arrivals[..] {
                [Arrival::Ordered(signed), ..] => {
                    return Ok((signed.order.by.to_string(), signed.order.number));
                }
                [Arrival::Unreadable { detail, .. }, ..] => return Err(detail.clone()),
                _ => {}
            }
        }
        Err("nothing".to_owned())
    };
    tokio::select! {
        error = following => panic!("{error}"),
        found = found => found,
    }
}

/// Proves C13.
#[tokio::test]
async fn an_order_counts_only_as_its_issuer_has_signed_it_for_this_node() {
    for site in [Site::certificates(), Site::shared_key()] {
        let world = World::new(site);
        let demand = Demand::hold(Duration::from_secs(60), Some("disks"));
        let nodes = [(node("lb01"), None), (node("lb02"), None)].into();
        let first = world.fleet("ops01").order_hold(&nodes, &demand, NOW).await.unwrap().numbers;
        let number = NOW.as_unix_ms();
        assert_eq!(first[&node("lb01")], number);
        assert_eq!(ordered(&world).await, Ok(("ops01".to_owned(), number)));
        let place = |certname: &str| key(&Key::Hold { certname: node(certname) });
        let genuine = world.read(&place("lb01")).await;

        // Altered, unsigned, and moved here from another node.
        let order = |by: &str| HoldOrder { number: 9, by: node(by), at: NOW, demand: Demand::Release };
        let of_lb02 = world.read(&place("lb02")).await;
        for forged in [genuine.replace("disks", "disk"), order("ops01").to_wire(), of_lb02] {
            world.put(&place("lb01"), &forged).await;
            let why = ordered(&world).await.unwrap_err();
            assert!(why.starts_with("it neither holds nor releases this node: "), "{why}");
        }
        if world.has_certificates() {
            world.fleet("web01").announce_certificate().await.unwrap();
            let forged = world.signed_as("web01", &place("lb01"), &order("ops01"));
            world.put(&place("lb01"), &forged).await;
            let why = ordered(&world).await.unwrap_err();
            assert!(why.contains("web01 has signed it"), "{why}");
        }
        // The next order has a greater number than the stored one, if that counts.
        world.put(&place("lb01"), &genuine).await;
        let earlier = Timestamp::from_unix_ms(number - 1);
        let next = world.fleet("ops01").order_hold(&nodes, &Demand::Release, earlier).await.unwrap().numbers;
        assert_eq!(next[&node("lb01")], number + 1);
        assert_eq!(ordered(&world).await, Ok(("ops01".to_owned(), number + 1)));
    }
}

/// Proves C13.
#[tokio::test]
async fn a_request_for_a_log_counts_only_from_its_reader() {
    for site in [Site::certificates(), Site::shared_key()] {
        let world = World::new(site);
        world.fleet("ops01").ask_for_log(&node("lb01"), &log_request(1)).await.unwrap();
        let place = |reader: &str| key(&Key::LogRequest { certname: node("lb01"), reader: node(reader) });
        let genuine = world.read(&place("ops01")).await;
        // Moved to another reader, altered, unsigned, and by a node in the name of another.
        world.put(&place("web01"), &genuine).await;
        world.put(&place("web02"), &genuine.replace("AQEB", "AgIC")).await;
        world.put(&place("web03"), &log_request(1).to_wire()).await;
        assert_eq!(asked(&world).await.0, ["ops01"]);
        if world.has_certificates() {
            world.fleet("web01").announce_certificate().await.unwrap();
            let forged = world.signed_as("web01", &place("ops01"), &log_request(2));
            world.put(&place("ops01"), &forged).await;
            let (readers, why) = asked(&world).await;
            assert!(readers.is_empty() && why.contains("web01 has signed it"), "{why}");
        }
    }
}

/// Proves C13.
#[tokio::test]
async fn an_answer_with_a_log_counts_only_from_its_node_and_for_its_request() {
    let world = World::new(Site::certificates());
    let place = key(&Key::LogAnswer { reader: node("ops01"), certname: node("lb01") });
    // Also where signatures are not required.
    for reader in [world.fleet("ops01"), world.fleet_not_requiring("ops01")] {
        let found = async |request: u8| {
            let mut unverified = Unverified::default();
            let mut watch = reader.watch_log_answers(&node("lb01")).await.unwrap();
            let event = watch.next().await.unwrap().unwrap();
            let found =
                reader.log_answer(&node("lb01"), &[request; 32], event, &mut unverified).await.unwrap();
            (found.is_some(), unverified.sentences().join("; "))
        };
        reader.ask_for_log(&node("lb01"), &log_request(1)).await.unwrap();
        world.fleet("lb01").answer_log_request(&node("ops01"), &log_answer(1)).await.unwrap();
        assert_eq!(found(1).await, (true, String::new()));
        assert_eq!(asked(&world).await.0, Vec::<String>::new(), "an answered request is removed");
        assert_eq!(found(2).await, (false, String::new()), "an answer to another request");
        world.put(&place, &log_answer(1).to_wire()).await;
        let (is_found, why) = found(1).await;
        assert!(!is_found && why.contains("it is not signed"), "{why}");
        world.fleet("web01").announce_certificate().await.unwrap();
        world.put(&place, &world.signed_as("web01", &place, &log_answer(1))).await;
        let (is_found, why) = found(1).await;
        assert!(!is_found && why.contains("web01 has signed it"), "{why}");
        reader.withdraw_log_request(&node("lb01")).await.unwrap();
        assert_eq!(found(1).await, (false, String::new()));
    }
}
