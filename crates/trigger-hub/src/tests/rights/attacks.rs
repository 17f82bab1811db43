//! What a node tries with the client of its own certname, and cannot do.

use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::{Metadata, span};
use trigger_core::certificate::{CertificateRef, Fingerprint, StoredCertificate};
use trigger_core::delivery::Delivery;
use trigger_core::holds::{Demand, HoldOrder};
use trigger_core::lineage::Hop;
use trigger_core::run_log::{LogRequest, RunChoice};
use trigger_core::why::{Question, Which};
use trigger_core::wire::Stored;

use super::super::over_watches::open_watch;
use super::*;

/// A hub with an event of `db01` for `lb01`, which `lb01` has not ended, and one for `lb02`, which has ended.
async fn hub() -> Hub {
    let hub = Hub::start().await;
    for name in NAMES {
        hub.register(name, &[]).await;
    }
    hub.fire(1, "db01", "lb01").await;
    hub.fire(2, "db01", "lb02").await;
    hub.fleet("lb02").finish(&[done(2, "lb02")]).await.unwrap();
    hub
}

fn part(n: u32, origin: &str, targets: &str) -> (String, String) {
    let part = publication(n, origin, targets).event.into_parts().remove(0);
    (key(&Key::Part { event: event_id(n), index: 0 }), part.to_wire())
}

fn log_request(asked: &str, reader: &str, as_operator: bool) -> (String, String) {
    let request = LogRequest { key: [7; 32], run: RunChoice::Latest { back: 0 }, from: None, as_operator };
    let reader = certname(reader);
    (key(&Key::LogRequest { certname: certname(asked), reader }), request.to_wire())
}

fn hold(node: &str, by: &str) -> (String, String) {
    let (by, demand) = (certname(by), Demand::hold(Duration::from_secs(60), None));
    let order = HoldOrder { number: 1, by, at: Timestamp::from_unix_ms(1), demand };
    (key(&Key::Hold { certname: certname(node) }), order.to_wire())
}

fn log_answer(reader: &str, of: &str) -> Key {
    Key::LogAnswer { reader: certname(reader), certname: certname(of) }
}

/// Proves C13: a node with the whole protocol at hand changes nothing that belongs to another, and reads no more than
/// concerns it.
#[tokio::test]
async fn a_compromised_node_writes_for_no_other() {
    for is_over_a_watch in [false, true] {
        let hub = hub().await;
        let web01 = hub.client("web01");
        if is_over_a_watch {
            let own = hub.fleet("web01").delivery_ranges([]).remove(0);
            open_watch(&web01, own).await;
        }
        check_writes_for_others(&hub, &web01).await;
    }
}

async fn check_writes_for_others(hub: &Hub, web01: &HubStore) {
    let before = hub.store.read(&[all()]).await.unwrap();
    let done = DeliveryOutcome::Done(match done(1, "lb01").outcome {
        DeliveryOutcome::Done(run) => run,
        other => panic!("{other:?}"),
    });
    let suppressed = DeliveryOutcome::Suppressed("no".to_owned()).to_wire();
    let to_part_0 = Delivery { part: 0 }.to_wire();
    // An event that `db01` has fired and not published yet, such as one in its outbox.
    let unpublished = EventId::of_origin(&certname("db01"), event_id(3).to_string().parse().unwrap());
    let (_, squatted) = part(3, "web01", "lb01");
    let squatted = squatted.replace(&event_id(3).to_string(), &unpublished.to_string());
    let squatted = (key(&Key::Part { event: unpublished, index: 0 }), squatted);
    for (entry, sentence) in [
        (squatted, "whose id is one of its origin's"),
        (part(3, "db01", "lb01"), "a node fires as itself only, and the origin of this event is db01"),
        (part(1, "web01", "lb01"), "an event with this id is stored, which another node has fired"),
        ((key(&delivery("web01", 1)), to_part_0.clone()), "only the events that it has fired"),
        ((key(&delivery("lb01", 2)), to_part_0), "only the events that it has fired"),
        ((key(&outcome(1, "lb01")), done.to_wire()), "a node stores its own outcomes"),
        ((key(&outcome(1, "lb01")), suppressed.clone()), "a node stores its own outcomes"),
        ((key(&outcome(2, "lb02")), suppressed), "a node stores its own outcomes"),
        ((key(&outcome(1, "web01")), done.to_wire()), "the outcomes of the events that were delivered to it"),
        ((key(&node("lb01")), String::new()), "a node writes its own registration"),
        ((key(&node("web01")), String::new()), "by compare-and-swap alone"),
        ((key(&Key::RunHistory { certname: certname("lb01") }), String::new()), "a node writes its own"),
        (log_request("lb01", "db01", false), "a node asks for the output of runs in its own name only"),
        (hold("lb01", "web01"), "a node holds and releases itself"),
        (hold("web01", "db01"), "in its own name"),
        (log_request("lb01", "web01", true), "only an operator of the hub asks as one"),
        ((log_request("lb01", "web01", false).0, "x".to_owned()), "the value is not one that belongs there"),
        ((key(&log_answer("web01", "lb01")), String::new()), "a node answers for its own runs only"),
        ((key(&Key::Settled { event: event_id(1) }), String::new()), "the hub sweeps by itself"),
        ((key(&Key::Sweep), "web01".to_owned()), "the hub sweeps by itself"),
        (("/other/nodes/web01".to_owned(), String::new()), "below /puppet_trigger/events only"),
        (("/puppet_trigger/events/x".to_owned(), String::new()), "below /puppet_trigger/events only"),
    ] {
        let error = web01.put_many(vec![entry.clone()]).await.remove(0).unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{entry:?}: {error}");
        assert!(error.to_string().contains(sentence), "{entry:?}: {error}");
        assert!(error.to_string().contains("web01 may not write "), "{entry:?}: {error}");
        // Beside a right one, it is refused too, and with it the right one.
        let both = web01.put_many(vec![part(4, "web01", "lb01"), entry]).await;
        assert!(both.iter().all(Result::is_err));
    }
    for forbidden in [node("lb01"), outcome(1, "lb01"), outcome(2, "lb02"), delivery("lb01", 1), Key::Sweep] {
        let error = web01.compare_and_swap(&key(&forbidden), "x", None).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{forbidden}: {error}");
        let error = web01.delete_many(vec![key(&forbidden)]).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{forbidden}: {error}");
        // In the place of it, what it may write is not written either.
        let error = web01.replace(vec![key(&forbidden)], vec![part(4, "web01", "lb01")]).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{forbidden}: {error}");
        assert!(error.to_string().contains("web01 may not delete "), "{forbidden}: {error}");
    }
    let ops01 = hub.client("ops01");
    for kept in [outcome(2, "lb02"), Key::Part { event: event_id(1), index: 0 }] {
        assert!(ops01.delete_many(vec![key(&kept)]).await.is_err(), "nor does an operator delete {kept}");
    }
    assert_eq!(hub.store.read(&[all()]).await.unwrap(), before);
    // What waits for a node that is gone, an operator ends.
    let expired = (key(&outcome(1, "lb01")), DeliveryOutcome::Expired(None).to_wire());
    ops01.put_many(vec![expired]).await.remove(0).unwrap();
    ops01.delete_many(vec![key(&delivery("lb01", 1))]).await.unwrap();
}

/// Proves C13: a delivery whose event a node may not read keeps it from none of its others.
#[tokio::test]
async fn a_delivery_that_may_not_be_read_hides_no_other() {
    let hub = Hub::start().await;
    let joined = hub.register("lb02", &["lb"]).await;
    hub.fire(1, "db01", "lb01").await;
    hub.fire(2, "db01", "@lb").await;
    let to_group = |n| Key::GroupDelivery { group: "lb".parse().unwrap(), event: event_id(n) };
    let planted = (key(&to_group(1)), Delivery { part: 0 }.to_wire());
    hub.store.put_many(vec![planted]).await.remove(0).unwrap();
    let fleet = hub.fleet("lb02");
    let entries = hub.client("lb02").read(&fleet.delivery_ranges(joined.keys().cloned())).await.unwrap();
    let mut found = Vec::new();
    for arrival in fleet.read_deliveries(&joined, &entries).await.unwrap() {
        found.push(match arrival {
            Arrival::Pending(cause) => format!("{} waits", cause.event.id),
            Arrival::Unreadable { key, detail } => format!("{key}: {detail}"),
            other => panic!("{other:?}"),
        });
    }
    found.sort();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with(&key(&to_group(1))), "{found:?}");
    assert!(found[0].contains("lb02 may not read events/"), "{found:?}");
    assert_eq!(found[1], format!("{} waits", event_id(2)));
}

/// Proves C13.
#[tokio::test]
async fn a_compromised_node_reads_what_concerns_it_alone() {
    let hub = hub().await;
    let (web01, keyspace) = (hub.client("web01"), Keyspace::default());
    let range = |range: Range| KeyRange::Prefix(keyspace.range(&range));
    for forbidden in [
        range(Range::Events),
        range(Range::Event(event_id(1))),
        range(Range::Outcomes(event_id(2))),
        range(Range::Deliveries(certname("lb01"))),
        KeyRange::Key(key(&outcome(2, "lb02"))),
        KeyRange::Key(key(&Key::RunHistory { certname: certname("lb01") })),
        KeyRange::Key(key(&log_answer("ops01", "lb01"))),
        KeyRange::Key(key(&Key::Hold { certname: certname("lb01") })),
        range(Range::LogRequestsTo(certname("lb01"))),
        range(Range::LogRequests),
        range(Range::LogAnswers),
        KeyRange::Key("healthz".to_owned()),
        KeyRange::Prefix("/".to_owned()),
        KeyRange::Prefix("/puppet_trigger/events/".to_owned()),
        KeyRange::Prefix("/puppet_trigger/events/outcomes/".to_owned()),
    ] {
        let ranges = std::slice::from_ref(&forbidden);
        for error in [web01.read(ranges).await.unwrap_err(), web01.list(ranges).await.unwrap_err()] {
            assert!(matches!(error, StoreError::Refused { .. }), "{forbidden:?}: {error}");
            assert!(error.to_string().contains("web01 may not read "), "{forbidden:?}: {error}");
        }
        let mut watch = web01.watch(vec![forbidden.clone()]).await.unwrap();
        let error = next(&mut watch).await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{forbidden:?}: {error}");
    }
    // Events are read, not watched: neither its own, nor one of which nothing is stored yet.
    hub.fire(3, "web01", "lb01").await;
    for forbidden in [
        range(Range::Nodes),
        KeyRange::Key(key(&node("lb01"))),
        range(Range::Event(event_id(3))),
        range(Range::Event(event_id(9))),
        KeyRange::Key(key(&Key::Part { event: event_id(9), index: 0 })),
    ] {
        assert!(web01.read(std::slice::from_ref(&forbidden)).await.is_ok());
        let mut watch = web01.watch(vec![forbidden]).await.unwrap();
        assert!(next(&mut watch).await.unwrap().is_err());
    }
    for all_of_it in [range(Range::Events), KeyRange::Prefix("/puppet_trigger/events/".to_owned())] {
        assert!(!hub.client("ops01").read(std::slice::from_ref(&all_of_it)).await.unwrap().is_empty());
    }
    let error = hub.client("nobody").read(&[range(Range::Nodes)]).await.unwrap_err();
    assert!(error.to_string().contains("those only who prove a certname"), "{error}");
}

#[tokio::test]
async fn a_suppressed_target_keeps_the_outcome_that_it_has_stored() {
    let hub = Hub::start().await;
    let mut fired = publication(1, "web01", "lb01");
    hub.fleet("web01").publish(&fired, false).await.unwrap();
    hub.fleet("lb01").finish(&[done(1, "lb01")]).await.unwrap();
    let before = hub.store.read(&[KeyRange::Key(key(&outcome(1, "lb01")))]).await.unwrap();
    fired.suppressed = BTreeMap::from([(certname("lb01"), "no".to_owned())]);
    let published = hub.fleet("web01").publish(&fired, false).await.unwrap();
    assert!(published.revision > before[0].revision);
    assert_eq!(hub.store.read(&[KeyRange::Key(key(&outcome(1, "lb01")))]).await.unwrap(), before);
    assert_eq!(states(&hub.fleet("web01"), 1).await, "lb01=done");
}

#[tokio::test]
async fn deliveries_wait_for_their_part() {
    let hub = Hub::start().await;
    let entry = (key(&delivery("lb01", 1)), Delivery { part: 0 }.to_wire());
    let error = hub.client("web01").put_many(vec![entry]).await.remove(0).unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "it is published again: {error}");
    assert!(error.to_string().contains("part 0 of the event is not stored"), "{error}");
}

/// Proves C13: what one node stores is bounded, and what it may not store now it may store later; others store on.
#[tokio::test]
async fn one_node_cannot_fill_the_store() {
    let hub = Hub::start().await;
    let web01 = hub.client("web01");
    let large = (key(&delivery("lb01", 1)), "x".repeat(2000));
    let error = web01.put_many(vec![large]).await.remove(0).unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("a value there has at most 1 KiB"), "{error}");

    let entries = (0..3000).map(|n| part(n, "web01", "lb01")).collect::<Vec<_>>();
    let mut refused = None;
    for some in entries.chunks(100) {
        let results = web01.put_many(some.to_vec()).await;
        refused = results.into_iter().find_map(Result::err);
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("3000 events at once are more than a node may store");
    assert!(matches!(refused, StoreError::Unreachable { .. }), "it is spooled: {refused}");
    let sentence = refused.to_string();
    assert!(sentence.contains("web01 has stored as much as one node may in a time: more in "), "{sentence}");
    let stored = hub.keys().await.iter().filter(|key| key.starts_with("events/")).count();
    assert!((1000..1200).contains(&stored), "{stored}");
    hub.fire(5000, "db01", "lb01").await;
    let page = hub.metrics().await;
    for line in [
        "trigger_hub_denied_requests_total{kind=\"put\",reason=\"too_large\"} 1",
        "trigger_hub_denied_requests_total{kind=\"put\",reason=\"too_much\"} 1",
    ] {
        assert!(page.contains(line), "{line} in:\n{page}");
    }
}

/// Proves C13: nothing that a node writes of itself shows it what other nodes have written.
#[tokio::test]
async fn a_node_that_lies_about_its_runs_sees_no_more_for_it() {
    let hub = hub().await;
    hub.end(1, "lb01", "db01").await;
    let mut ours = publication(4, "web01", "web01");
    // Its own event, of a chain that it has made up, fired in a run of another node.
    ours.event.lineage.chains.first_mut().unwrap().hops =
        vec![Hop { trigger: "t".parse().unwrap(), certname: certname("lb01") }];
    ours.event.fired_in = Some(run_id(1));
    hub.fleet("web01").publish(&ours, false).await.unwrap();
    // Its own history, in which it ran for another node's events, stored or not.
    for (claimed, origin) in [(1, "db01"), (2, "lb01"), (4, "web01"), (9, "lb01")] {
        let mut event = publication(claimed, origin, "web01").event;
        event.fired_in = Some(run_id(1));
        let history = history(&done(claimed, "web01"), event);
        hub.fleet("web01").finish_runs(&[], Some(&history)).await.unwrap();
        for question in [
            Question::Run(certname("web01"), Which::Back(0)),
            Question::Run(certname("web01"), Which::Id(run_id(claimed))),
            Question::Event(event_id(4)),
        ] {
            let entries =
                hub.client("web01").explain(&KeyPrefix::default(), &question).await.unwrap().unwrap();
            for entry in entries {
                let is_its_own = match Keyspace::default().parse(&entry.key) {
                    Some(Key::Node { certname } | Key::RunHistory { certname }) => {
                        certname.as_str() == "web01"
                    }
                    Some(Key::Part { event, .. }) => event == event_id(4),
                    _ => false,
                };
                assert!(is_its_own, "{question:?}, event {claimed}: {}", entry.key);
            }
        }
    }
}

/// Proves C13: outcomes and certificates are stored where they are of use only, so that no node fills the store with them.
#[tokio::test]
async fn a_node_stores_nothing_that_no_sweep_would_find() {
    let hub = hub().await;
    let before = hub.keys().await;
    let web01 = hub.client("web01");
    let DeliveryOutcome::Done(run) = done(9, "web01").outcome else { panic!("it is done") };
    let certificate = Key::from(CertificateRef {
        certname: certname("web01"),
        fingerprint: Fingerprint::from_digest([7; 32]),
    });
    for (key_of, value, sentence) in [
        (outcome(9, "web01"), DeliveryOutcome::Done(run).to_wire(), "nothing is stored of the event"),
        (certificate.clone(), "anything".to_owned(), "under its own fingerprint"),
        (
            certificate,
            StoredCertificate { certificate: vec![1, 2, 3], intermediates: Vec::new() }.to_wire(),
            "under its own fingerprint",
        ),
    ] {
        let put = web01.put_many(vec![(key(&key_of), value.clone())]).await.remove(0).unwrap_err();
        assert!(put.to_string().contains(sentence), "{key_of}: {put}");
        let swapped = web01.compare_and_swap(&key(&key_of), &value, None).await.unwrap_err();
        for error in [put, swapped] {
            assert!(matches!(error, StoreError::Refused { .. }), "it is dropped, not repeated: {error}");
        }
    }
    assert_eq!(hub.keys().await, before);
    // An outcome that was stored too early would make the event one that concerns its writer.
    hub.fire(9, "db01", "lb01").await;
    assert!(states(&hub.fleet("web01"), 9).await.contains("may not see event"));
}

/// Counts the audit lines of its thread.
#[derive(Default)]
struct AuditLines(Arc<AtomicUsize>);

impl tracing::Subscriber for AuditLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "audit"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Proves C13: what is denied fills no log.
#[tokio::test]
async fn a_node_whose_parts_are_denied_writes_few_audit_lines() {
    let lines = AuditLines::default();
    let count = Arc::clone(&lines.0);
    let _guard = tracing::subscriber::set_default(lines);
    let hub = Hub::start().await;
    let began = std::time::Instant::now();
    for n in (0..2000).step_by(500) {
        let forged: Vec<_> = (n..n + 500).map(|n| part(n, "db01", "lb01")).collect();
        assert!(hub.client("web01").put_many(forged).await.iter().all(Result::is_err));
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    let lines = count.load(Ordering::Relaxed);
    assert!((1..=20 + seconds).contains(&lines), "{lines} lines in {seconds} s");
}
