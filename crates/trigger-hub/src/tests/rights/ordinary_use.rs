//! All that a node does in ordinary use is allowed.

use trigger_core::why::{Question, Which};
use trigger_fleet::cancelling::{Asked, Scope};

use super::*;

/// Reads the deliveries of a node as its agent does, from a watch.
async fn pending(hub: &Hub, name: &str, joined: &BTreeMap<GroupName, Revision>) -> Vec<EventId> {
    let fleet = hub.fleet(name);
    let mut ranges = fleet.delivery_ranges(joined.keys().cloned());
    ranges.push(KeyRange::Key(key(&node(name))));
    let mut watch = hub.client(name).watch(ranges.clone()).await.unwrap();
    let Some(Ok(WatchEvent::Snapshot(entries))) = next(&mut watch).await else { panic!("a snapshot") };
    let entries: Vec<_> = entries.into_iter().filter(|entry| entry.key != key(&node(name))).collect();
    assert!(hub.client(name).read(&ranges).await.is_ok(), "everything is read again every ten minutes");
    let arrivals = fleet.read_deliveries(joined, &entries).await.unwrap();
    let pending = |arrival: &Arrival| match arrival {
        Arrival::Pending(cause) => Some(cause.event.id),
        _ => None,
    };
    arrivals.iter().filter_map(pending).collect()
}

/// Proves C13.
#[tokio::test]
async fn agents_fire_receive_and_finish_and_each_sees_its_share() {
    let hub = Hub::start().await;
    let joined = hub.register("lb01", &[]).await;
    let of_group = hub.register("lb02", &["lb"]).await;
    hub.register("web01", &[]).await;
    hub.fire(1, "web01", "lb01 @lb").await;
    assert_eq!(pending(&hub, "lb01", &joined).await, [event_id(1)]);
    assert_eq!(pending(&hub, "lb02", &of_group).await, [event_id(1)]);
    assert_eq!(pending(&hub, "web01", &BTreeMap::new()).await, [] as [EventId; 0]);

    let mut watch = hub.fleet("web01").watch_outcomes(event_id(1)).await.unwrap();
    assert!(matches!(next(&mut watch).await, Some(Ok(WatchEvent::Snapshot(_)))));
    hub.fleet("lb01").finish(&[done(1, "lb01")]).await.unwrap();
    assert!(matches!(next(&mut watch).await, Some(Ok(WatchEvent::Changes(_)))));
    let failed = DeliveryOutcome::Refused("not today".to_owned());
    let refused = Completion {
        addressed_as: BTreeSet::from([Target::Group("lb".parse().unwrap())]),
        outcome: failed,
        ..done(1, "lb02")
    };
    hub.fleet("lb02").finish(&[refused]).await.unwrap();

    hub.fire(2, "db01", "lb01").await;
    for (name, first, second) in [
        ("web01", "lb01=done lb02=refused", None),
        ("lb01", "lb01=done for lb01 only", Some("lb01=pending for lb01 only")),
        ("lb02", "lb02=refused for lb02 only", None),
        // Whoever joins the group may read what is fired at it, but not how it ended elsewhere.
        ("db01", " for db01 only", Some("lb01=pending")),
        ("ops01", "lb01=done lb02=refused", Some("lb01=pending")),
    ] {
        assert_eq!(states(&hub.fleet(name), 1).await, first, "{name}");
        let found = states(&hub.fleet(name), 2).await;
        match second {
            Some(second) => assert_eq!(found, second, "{name}"),
            None => assert!(found.contains(&format!("{name} may not see event {}", event_id(2))), "{found}"),
        }
        assert_eq!(states(&hub.fleet(name), 9).await, "unknown", "{name}");
        let latest = hub.fleet(name).latest_events(20).await.unwrap();
        let latest: Vec<EventId> = latest.iter().map(|status| status.event.id).collect();
        let expected = if second.is_some() { vec![event_id(2), event_id(1)] } else { vec![event_id(1)] };
        assert_eq!(latest, expected, "{name}");
    }
    assert_eq!(hub.fleet("lb01").latest_events(1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_large_event_with_suppressed_targets_is_fired_and_fired_again() {
    let hub = Hub::start().await;
    for name in NAMES {
        hub.register(name, &["all"]).await;
    }
    let hosts: Vec<String> = (0..300).map(|n| format!("n{n}")).collect();
    let mut publication = publication(1, "web01", &format!("{} @all", hosts.join(" ")));
    publication.suppressed = BTreeMap::from([(certname("n7"), "a loop".to_owned())]);
    for _ in 0..2 {
        hub.fleet("web01").publish(&publication, true).await.unwrap();
    }
    let status = hub.fleet("web01").event_status(event_id(1)).await.unwrap().unwrap();
    assert_eq!(status.targets.len(), 304);
    assert_eq!(status.targets[&certname("n7")].state, DeliveryState::Suppressed);
    let targets = publication.event.targets.hosts.iter().take(3).collect();
    assert_eq!(hub.fleet("web01").registered_targets(&targets).await.unwrap().unregistered.len(), 3);
}

/// Proves C13: what was led to a run is shown to its node, and nothing besides.
#[tokio::test]
async fn why_shows_a_node_the_chain_that_led_to_its_run() {
    let hub = Hub::start().await;
    hub.fire(1, "db01", "web01").await;
    hub.end(1, "web01", "db01").await;
    let mut second = publication(2, "web01", "lb01");
    second.event.fired_in = Some(run_id(1));
    hub.fleet("web01").publish(&second, false).await.unwrap();
    hub.end(2, "lb01", "web01").await;

    let run_of = |name: &str| Question::Run(certname(name), Which::Back(0));
    let explained = async |asker: &str, question: &Question| match hub
        .fleet(asker)
        .explain(question, &mut Default::default())
        .await
    {
        Ok(Ok(explanation)) => {
            let runs = explanation.runs.iter().map(|run| run.certname.to_string());
            runs.collect::<Vec<_>>().join(" ")
        }
        Ok(Err(error)) => format!("{error:?}"),
        Err(error) => error.to_string(),
    };
    assert_eq!(explained("lb01", &run_of("lb01")).await, "lb01 web01");
    assert_eq!(explained("ops01", &run_of("lb01")).await, "lb01 web01");
    assert_eq!(explained("web01", &run_of("web01")).await, "web01");
    assert_eq!(explained("web01", &Question::Event(event_id(2))).await, "web01");
    assert_eq!(explained("lb02", &run_of("lb02")).await, "NoNode");
    for (asker, question, sentence) in [
        ("web01", run_of("lb01"), "web01 may not ask why lb01 ran: a node asks about its own runs"),
        ("lb02", Question::Event(event_id(2)), "lb02 may not ask about event 0192a000"),
    ] {
        let found = explained(asker, &question).await;
        assert!(found.contains(sentence), "{found}");
    }
    // Of its own event, the origin sees how it ended; of how events of others ended elsewhere, nobody but operators.
    let outcomes = async |asker: &str, question: &Question| {
        let entries = hub.client(asker).explain(&KeyPrefix::default(), question).await.unwrap().unwrap();
        let outcomes = entries.into_iter().filter_map(|entry| match Keyspace::default().parse(&entry.key) {
            Some(Key::Outcome { certname, .. }) => Some(certname.to_string()),
            _ => None,
        });
        outcomes.collect::<Vec<_>>().join(" ")
    };
    let question = Question::Event(event_id(2));
    assert_eq!(outcomes("web01", &question).await, outcomes("ops01", &question).await);
    assert!(!outcomes("lb01", &run_of("lb01")).await.contains("web01"));
}

/// Proves C13: every node may read what is fired at groups; what led to it is for those who were members then.
#[tokio::test]
async fn why_shows_the_members_of_a_group_what_led_to_its_event() {
    let hub = Hub::start().await;
    hub.register("lb01", &["lb"]).await;
    hub.fire(1, "db01", "web01").await;
    hub.end(1, "web01", "db01").await;
    let mut second = publication(2, "web01", "@lb");
    second.event.fired_in = Some(run_id(1));
    hub.fleet("web01").publish(&second, false).await.unwrap();
    // The second joins when the event has been fired, and says of itself that it has run for it.
    hub.register("lb02", &["lb"]).await;
    for name in ["lb01", "lb02"] {
        hub.end(2, name, "web01").await;
    }
    for (asker, of_run, of_event) in [("lb01", "lb01 web01", "web01"), ("lb02", "lb02", "")] {
        for (question, expected) in [
            (Question::Run(certname(asker), Which::Back(0)), of_run),
            (Question::Event(event_id(2)), of_event),
        ] {
            let entries = hub.client(asker).explain(&KeyPrefix::default(), &question).await.unwrap().unwrap();
            let histories = entries.iter().filter_map(|entry| match Keyspace::default().parse(&entry.key) {
                Some(Key::RunHistory { certname }) => Some(certname.to_string()),
                _ => None,
            });
            assert_eq!(histories.collect::<Vec<_>>().join(" "), expected, "{asker}: {question:?}");
        }
    }
}

#[tokio::test]
async fn nodes_shows_a_node_its_own_run_and_asks_for_nothing_that_is_denied() {
    let hub = Hub::start().await;
    for name in NAMES {
        hub.register(name, &[]).await;
    }
    hub.fire(1, "db01", "web01").await;
    hub.end(1, "web01", "db01").await;
    hub.fire(2, "db01", "lb01").await;
    hub.end(2, "lb01", "db01").await;
    for (asker, expected, denied) in [
        ("web01", "web01", Some("web01 is no operator of the hub")),
        ("db01", "", Some("db01 is no operator of the hub")),
        ("ops01", "lb01 web01", None),
    ] {
        let overview = hub.fleet(asker).overview(|_, _| true).await.unwrap();
        let with_run = overview.nodes.iter().filter(|(_, node)| node.last_run.is_some());
        let with_run: Vec<&str> = with_run.map(|(certname, _)| certname.as_str()).collect();
        assert_eq!(with_run.join(" "), expected, "{asker}");
        assert_eq!(overview.runs_denied.as_deref(), denied, "{asker}");
        assert_eq!(overview.nodes.len(), NAMES.len(), "{asker}");
    }
    let own = hub.fleet("web01").overview(|certname, _| *certname == super::certname("web01")).await.unwrap();
    assert_eq!(own.runs_denied, None, "nothing of other nodes was asked for");
    assert_eq!(hub.denied().await, "");
}

/// Proves C13: who asked for the end of a delivery that waits is shown to its origin, to its target and to operators.
#[tokio::test]
async fn a_cancellation_that_waits_shows_in_the_status_of_its_event() {
    let hub = Hub::start().await;
    hub.register("lb02", &["lb"]).await;
    hub.fire(1, "web01", "lb01 db01 @lb").await;
    let event = publication(1, "web01", "lb01 db01 @lb").event;
    let nodes = BTreeSet::from([certname("lb01"), certname("lb02")]);
    let asked = Asked { at: NOW, reason: None };
    hub.fleet("web01").cancel(&event, Scope::Nodes(&nodes), asked).await.unwrap();
    for (asker, expected) in [
        ("web01", "lb01 by web01, lb02 by web01"),
        ("ops01", "lb01 by web01, lb02 by web01"),
        ("lb01", "lb01 by web01"),
        ("lb02", "lb02 by web01"),
        ("db01", ""),
    ] {
        let mut status = hub.fleet(asker).event_status(event_id(1)).await.unwrap().unwrap();
        assert!(status.cancellations.is_empty(), "only those who look need it");
        hub.fleet(asker).note_cancellations(&mut status).await.unwrap();
        let shown = status.cancellations.iter().map(|(target, by)| format!("{target} by {by}"));
        assert_eq!(shown.collect::<Vec<_>>().join(", "), expected, "{asker}");
    }
    assert_eq!(hub.denied().await, "");
}
