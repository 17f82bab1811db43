//! Every form survives the trip, and every released form stays readable: the golden files are the proof.

use std::fmt::Debug;
use std::time::Duration;

use super::*;
use crate::event::{Event, Part, Targets, samples};
use crate::identity::{KeyPrefix, Revision, RunId};
use crate::lineage::{Chain, Hop, Lineage};
use crate::outcome::{End, EndedRun, Outcome, RunResult};
use crate::queue::{Cause, Source};
use crate::status::{Activity, Held, NodeRecord, Retrying, Running};
use crate::time::Timestamp;

fn sample_event() -> Event {
    let mut event = samples::event(1, "refresh \"load\" balancers / $(x)");
    event.targets.groups = ["lb".parse().unwrap()].into();
    event.options.tags = ["profile::web".parse().unwrap()].into();
    event.lineage = Lineage {
        chains: vec![Chain {
            root: samples::event_id(9),
            hops: vec![Hop { trigger: "first".parse().unwrap(), certname: "db01".parse().unwrap() }],
        }],
    };
    event
}

fn sample_run() -> EndedRun {
    EndedRun {
        run_id: RunId::from_uuid(uuid::Uuid::from_u128(5)),
        noop: false,
        result: RunResult {
            outcome: Outcome::Changed,
            reason: Some("because".to_owned()),
            started_at: Timestamp::from_unix_ms(1),
            finished_at: Timestamp::from_unix_ms(2),
        },
    }
}

fn sample_node() -> NodeRecord {
    NodeRecord {
        instance: "i".to_owned(),
        location: "host, pid 1".to_owned(),
        renewals: 7,
        version: "0.1.0".to_owned(),
        seen_at: Timestamp::from_unix_ms(3),
        groups: [("lb".parse().unwrap(), Revision(41))].into(),
        activity: Activity {
            running: Some(Running {
                run_id: sample_run().run_id,
                started_at: Timestamp::from_unix_ms(4),
                causes: vec![samples::event_id(1)],
            }),
            retrying: vec![Retrying {
                at: Timestamp::from_unix_ms(5),
                reason: "no server".to_owned(),
                causes: vec![samples::event_id(2)],
            }],
            held: vec![Held { event: samples::event_id(3), reason: "disabled".to_owned() }],
        },
    }
}

fn sample_record() -> RunRecord {
    let event = Event { targets: Targets::default(), ..sample_event() };
    RunRecord {
        run_id: sample_run().run_id,
        certname: "lb01".parse().unwrap(),
        command: vec!["puppet".to_owned(), "agent".to_owned()],
        options: event.options.clone(),
        timeout: Duration::from_secs(3600),
        started_at: Timestamp::from_unix_ms(6),
        causes: vec![Cause {
            event,
            sources: [Source::Host, Source::Group("lb".parse().unwrap())].into(),
            interruptions: 1,
        }],
        environment: [("A".to_owned(), "b".to_owned())].into(),
    }
}

fn check<T: Stored + PartialEq + Debug>(value: &T, golden: &str) {
    assert_eq!(value.to_wire(), golden.trim_end(), "what is written changed: a released form may only grow");
    assert_eq!(T::from_wire(golden).as_ref(), Ok(value), "a released form must stay readable");
}

#[test]
fn released_forms_stay() {
    let part = Part { index: 2, count: 3, event: sample_event() };
    check(&part, include_str!("golden/part.v1.json"));
    check(&Delivery { part: 2 }, include_str!("golden/delivery.v1.json"));
    check(
        &Members(["a".parse().unwrap(), "b".parse().unwrap()].into()),
        include_str!("golden/members.v1.json"),
    );
    check(&End::Done(sample_run()), include_str!("golden/end-done.v1.json"));
    check(&End::Superseded(samples::event_id(4)), include_str!("golden/end-superseded.v1.json"));
    check(&End::Refused("no".to_owned()), include_str!("golden/end-refused.v1.json"));
    check(&sample_node(), include_str!("golden/node.v1.json"));
    check(&sample_record(), include_str!("golden/run-record.v1.json"));
    check(&sample_run().result, include_str!("golden/run-result.v1.json"));
    let publication = Publication {
        backend: "hub+http://127.0.0.1:8145".to_owned(),
        prefix: KeyPrefix::default(),
        event: sample_event(),
        suppressed: [("lb01.example.com".parse().unwrap(), "loop".to_owned())].into(),
        suppressed_groups: [("web".parse().unwrap(), "loop".to_owned())].into(),
    };
    check(&publication, include_str!("golden/publication.v1.json"));
}

#[test]
fn every_end_survives_the_trip() {
    let ends = [
        End::Done(sample_run()),
        End::Failed(sample_run()),
        End::Expired,
        End::Refused("r".to_owned()),
        End::Suppressed("s".to_owned()),
        End::Superseded(samples::event_id(4)),
    ];
    for end in ends {
        assert_eq!(End::from_wire(&end.to_wire()), Ok(end));
    }
}

#[test]
fn a_newer_version_and_garbage_are_told_apart() {
    let newer = r#"{"v":2,"part":0,"what":"ever"}"#;
    assert_eq!(Delivery::from_wire(newer), Err(WireError::TooNew { what: "a delivery", version: 2 }));
    for garbage in ["", "{}", "null", "[1]", "{\"v\":1}", "{\"v\":\"1\"}", "\u{0}\u{1}"] {
        assert!(matches!(Delivery::from_wire(garbage), Err(WireError::Unreadable { .. })), "{garbage}");
    }
}

#[test]
fn names_are_validated_on_the_way_in() {
    let forged =
        Part { index: 0, count: 1, event: sample_event() }.to_wire().replace("lb01.example.com", "../../etc");
    assert!(matches!(Part::from_wire(&forged), Err(WireError::Unreadable { .. })));
}

#[test]
fn a_field_from_the_future_is_ignored() {
    assert_eq!(Delivery::from_wire(r#"{"v":1,"part":3,"colour":"red"}"#), Ok(Delivery { part: 3 }));
}

#[test]
fn a_line_cut_short_by_a_crash_is_no_ended_event() {
    let ended = EndedEvent { event: samples::event_id(1), ended_at: Timestamp::from_unix_ms(77) };
    assert_eq!(EndedEvent::from_line(&ended.to_line()), Some(ended));
    assert_eq!(EndedEvent::from_line(&ended.to_line()[..30]), None);
}
