//! Every form survives encoding and decoding, and the golden files prove that every form stays readable.

use crate::cancellation::Cancellation;
use std::fmt::Debug;
use std::time::Duration;

use super::*;
use crate::certificate::{CertificateRef, Fingerprint, MAX_INTERMEDIATES, StoredCertificate};
use crate::dedup::HonouredEvent;
use crate::delivery::DeliveryOutcome;
use crate::delivery::{Delivery, Members};
use crate::event::{Event, FiredBy, FiringResource, Part, Target, Targets, samples};
use crate::fire_note::FireNote;
use crate::holds::{Demand, HoldNote, HoldOrder};
use crate::identity::{KeyPrefix, Revision, RunId};
use crate::lineage::{Chain, Hop, Lineage, Loops};
use crate::loop_guard::Rule;
use crate::node::{
    Activity, Delayed, HeldDelivery, HeldNode, HoldReport, NodeRecord, RefusedHold, Retrying, Running,
    Waiting,
};
use crate::publication::Publication;
use crate::run::history::samples::{record, result, run_id};
use crate::run::history::{
    FiredEvent, MAX_CAUSES, MAX_FIRES, MAX_RUNS, PastRun, RunHistory, SuppressedTarget, Truncated,
};
use crate::run::record::Cause;
use crate::run::record::RunRecord;
use crate::run::{CompletedRun, Drift, RunOutcome, RunResult};
use crate::run_log::{
    LogAnswer, LogContent, LogRequest, MAX_OUTPUT_BYTES, RunChoice, SEAL_BYTES, SealedOutput,
};
use crate::signer::Signer;
use crate::sweep::Settled;
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

fn sample_run() -> CompletedRun {
    CompletedRun {
        run_id: RunId::from_uuid(uuid::Uuid::from_u128(5)),
        noop: false,
        result: RunResult {
            outcome: RunOutcome::Changed,
            reason: Some("because".to_owned()),
            reported_noop: false,
            drift: Default::default(),
            started_at: Timestamp::from_unix_ms(1),
            finished_at: Timestamp::from_unix_ms(2),
        },
    }
}

fn sample_node() -> NodeRecord {
    NodeRecord {
        instance: "i".to_owned(),
        lock: None,
        released: false,
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
            delayed: None,
            waiting: None,
            held: vec![HeldDelivery { event: samples::event_id(3), reason: "disabled".to_owned() }],
            hold: None,
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
            addressed_as: [Target::Node("lb01".parse().unwrap()), Target::Group("lb".parse().unwrap())]
                .into(),
            interruptions: 1,
            without_catalog: false,
            signer: Signer::Unsigned,
        }],
        environment: [("A".to_owned(), "b".to_owned())].into(),
    }
}

fn sample_history() -> RunHistory {
    let suppressed = |target| SuppressedTarget { target, reason: "loop".to_owned() };
    let targets = vec![
        suppressed(Target::Node("db01".parse().unwrap())),
        suppressed(Target::Group("lb".parse().unwrap())),
    ];
    let fired = FiredEvent {
        event: samples::event_id(7),
        trigger: "next \"one\"".parse().unwrap(),
        to_groups: true,
        suppressed: Truncated { listed: targets, more: 3 },
        by_rule: Default::default(),
    };
    let mut full = PastRun::of(&sample_record(), sample_run().result, 4, [fired]);
    full.causes.listed[0].fired_in = Some(sample_run().run_id);
    full.causes.more = 1;
    full.fired.more = 2;
    let plain =
        PastRun { tags: Default::default(), superseded: 0, fired: Truncated::default(), ..full.clone() };
    RunHistory { runs: vec![full, plain] }
}

fn check<T: Stored + PartialEq + Debug>(value: &T, golden: &str) {
    assert_eq!(value.to_wire(), golden.trim_end(), "what is written changed: a form may only grow");
    assert_eq!(T::from_wire(golden).as_ref(), Ok(value), "a form must stay readable");
}

/// Proves C15.
#[test]
fn forms_stay() {
    let part = Part { index: 2, count: 3, event: sample_event() };
    check(&part, include_str!("golden/part.v1.json"));
    check(&Delivery { part: 2 }, include_str!("golden/delivery.v1.json"));
    check(
        &Members(["a".parse().unwrap(), "b".parse().unwrap()].into()),
        include_str!("golden/members.v1.json"),
    );
    let settled = Settled { removable_after: Timestamp::from_unix_ms(9) };
    check(&settled, include_str!("golden/settled.v1.json"));
    check(&DeliveryOutcome::Done(sample_run()), include_str!("golden/outcome-done.v1.json"));
    check(&DeliveryOutcome::Failed(sample_run()), include_str!("golden/outcome-failed.v1.json"));
    check(&DeliveryOutcome::Expired(None), include_str!("golden/outcome-expired.v1.json"));
    check(
        &DeliveryOutcome::Expired(Some("by the clock of web01".to_owned())),
        include_str!("golden/outcome-expired-clocks.v1.json"),
    );
    check(&DeliveryOutcome::Suppressed("no".to_owned()), include_str!("golden/outcome-suppressed.v1.json"));
    check(
        &DeliveryOutcome::Superseded(samples::event_id(4)),
        include_str!("golden/outcome-superseded.v1.json"),
    );
    check(&DeliveryOutcome::Refused("no".to_owned()), include_str!("golden/outcome-refused.v1.json"));
    let cancelled = |reason: Option<&str>| {
        Cancellation::new(2, "ops01".parse().unwrap(), Timestamp::from_unix_ms(9), reason)
    };
    check(&cancelled(Some("wrong node")), include_str!("golden/cancellation.v1.json"));
    check(&cancelled(Some("wrong node")).outcome(), include_str!("golden/outcome-cancelled.v1.json"));
    check(&sample_node(), include_str!("golden/node.v1.json"));
    let mut delayed = sample_node();
    delayed.activity = Activity {
        delayed: Some(Delayed {
            at: Timestamp::from_unix_ms(8),
            reason: "enough runs".to_owned(),
            causes: vec![samples::event_id(2)],
        }),
        ..Activity::default()
    };
    check(&delayed, include_str!("golden/node-delayed.v1.json"));
    let mut waiting = sample_node();
    waiting.activity = Activity {
        waiting: Some(Waiting { reason: "asking".to_owned(), causes: vec![samples::event_id(2)] }),
        ..Activity::default()
    };
    check(&waiting, include_str!("golden/node-waiting.v1.json"));
    let mut held = sample_node();
    held.activity = Activity {
        hold: Some(HoldReport {
            accepted: Some(12),
            held: Some(HeldNode {
                until: Timestamp::from_unix_ms(9),
                by: "ops01".parse().unwrap(),
                reason: Some("database migration".to_owned()),
            }),
            refused: Some(RefusedHold {
                number: 11,
                by: "web01".parse().unwrap(),
                reason: "no operator".to_owned(),
            }),
        }),
        ..Activity::default()
    };
    check(&held, include_str!("golden/node-held.v1.json"));
    let order = |demand| HoldOrder {
        number: 12,
        by: "ops01".parse().unwrap(),
        at: Timestamp::from_unix_ms(9),
        demand,
    };
    let hold = order(Demand::hold(Duration::from_secs(7200), Some("database migration")));
    check(&hold, include_str!("golden/hold.v1.json"));
    check(&order(Demand::Release), include_str!("golden/hold-release.v1.json"));
    let note = HoldNote { order: hold, left: Duration::from_secs(60), noted_at: Timestamp::from_unix_ms(10) };
    check(&note, include_str!("golden/hold-note.v1.json"));
    let stopped = NodeRecord { lock: Some("l".to_owned()), released: true, ..sample_node() };
    check(&stopped, include_str!("golden/node-released.v1.json"));
    check(&sample_record(), include_str!("golden/run-record.v1.json"));
    let mut without_catalog = sample_record();
    without_catalog.causes[0].without_catalog = true;
    check(&without_catalog, include_str!("golden/run-record-without-catalog.v1.json"));
    let signed_by = |signer| {
        let mut record = sample_record();
        record.causes[0].signer = signer;
        record
    };
    check(&signed_by(Signer::SharedKey), include_str!("golden/run-record-shared-key.v1.json"));
    let certificate = Signer::Certificate {
        algorithm: "RS256".to_owned(),
        fingerprint: "ab".repeat(32),
        extensions: [("pp_role".to_owned(), "web".to_owned())].into(),
    };
    check(&signed_by(certificate), include_str!("golden/run-record-certificate.v1.json"));
    check(&sample_run().result, include_str!("golden/run-result.v1.json"));
    let noop = RunResult { reported_noop: true, ..sample_run().result };
    check(&noop, include_str!("golden/run-result-noop.v1.json"));
    let drift = Drift { noop_pending: Some(true), really_changed: Some(false) };
    check(&RunResult { drift, ..noop.clone() }, include_str!("golden/run-result-drift.v1.json"));
    let run = CompletedRun { result: RunResult { drift, ..noop }, ..sample_run() };
    check(&DeliveryOutcome::Done(run), include_str!("golden/outcome-done-drift.v1.json"));
    let publication = Publication {
        backend: "hub+http://127.0.0.1:8145".to_owned(),
        prefix: KeyPrefix::default(),
        event: sample_event(),
        suppressed: [("lb01.example.com".parse().unwrap(), "loop".to_owned())].into(),
        suppressed_groups: [("web".parse().unwrap(), "loop".to_owned())].into(),
    };
    check(&publication, include_str!("golden/publication.v1.json"));
    check(&sample_history(), include_str!("golden/history.v1.json"));
    let mut fired = sample_history().runs[0].fired.listed[0].clone();
    check(&fired, include_str!("golden/fired.v1.json"));
    fired.by_rule = [(Rule::Pair, 2), (Rule::Hops, 3)].into();
    check(&fired, include_str!("golden/fired-by-rule.v1.json"));
    let mut chained = part;
    chained.event.fired_in = Some(sample_run().run_id);
    chained.event.loops = Loops::Allow;
    check(&chained, include_str!("golden/part-of-a-run.v1.json"));
    let resource =
        FiringResource::new("/Stage[main]/Web/Trigger[first]", Some(("/etc/puppet/code/web.pp", Some(12))));
    let mut of_a_resource = sample_history();
    of_a_resource.runs[0].causes.listed[0].fired_by = Some(FiredBy::Resource(resource.clone()));
    check(&of_a_resource, include_str!("golden/history-of-a-resource.v1.json"));
    chained.event.fired_by = Some(FiredBy::Resource(resource));
    check(&chained, include_str!("golden/part-of-a-resource.v1.json"));
    let mut retried = chained;
    retried.event.fired_by = Some(FiredBy::RetryOf(sample_event().id));
    check(&retried, include_str!("golden/part-retry.v1.json"));
    let mut with_catalog = retried;
    with_catalog.event.fired_by = None;
    with_catalog.event.catalog = Some("0c23df3f-7ac7-4a51-bd58-e4a91e7a3f96".parse().unwrap());
    check(&with_catalog, include_str!("golden/part-with-catalog.v1.json"));
    let environment = Some("feature_42".parse().unwrap());
    let mut elsewhere = Part { index: 0, count: 1, event: sample_event() };
    elsewhere.event.options.environment.clone_from(&environment);
    check(&elsewhere, include_str!("golden/part-environment.v1.json"));
    let mut record = sample_record();
    record.options.environment.clone_from(&environment);
    record.causes[0].event.options.environment.clone_from(&environment);
    check(&record, include_str!("golden/run-record-environment.v1.json"));
    let mut history = sample_history();
    history.runs[0].environment = environment;
    check(&history, include_str!("golden/history-environment.v1.json"));
    let mut of_a_retry = sample_history();
    of_a_retry.runs[0].causes.listed[0].fired_by = Some(FiredBy::RetryOf(sample_event().id));
    check(&of_a_retry, include_str!("golden/history-of-a-retry.v1.json"));
    let certificate = StoredCertificate { certificate: vec![0x30, 0x82], intermediates: vec![vec![0x30]] };
    check(&certificate, include_str!("golden/certificate.v1.json"));
    let run = RunChoice::Id(sample_run().run_id);
    let request = LogRequest { key: [7; 32], run, from: Some(9), as_operator: true };
    check(&request, include_str!("golden/log-request.v1.json"));
    let latest = LogRequest { run: RunChoice::Latest { back: 2 }, from: None, as_operator: false, ..request };
    check(&latest, include_str!("golden/log-request-latest.v1.json"));
    check(&sample_answer(vec![1, 2]), include_str!("golden/log-answer.v1.json"));
    let refused = LogAnswer { request: [7; 32], content: LogContent::Refused("no".to_owned()) };
    check(&refused, include_str!("golden/log-answer-refused.v1.json"));
}

fn sample_answer(sealed: Vec<u8>) -> LogAnswer {
    let run = sample_run().run_id;
    let output = SealedOutput { run, from: 9, to: 12, is_over: true, key: [8; 32], sealed };
    LogAnswer { request: [7; 32], content: LogContent::Output(output) }
}

#[test]
fn an_answer_with_output_is_bounded() {
    let largest = sample_answer(vec![0; MAX_OUTPUT_BYTES + SEAL_BYTES]);
    assert_eq!(LogAnswer::from_wire(&largest.to_wire()).as_ref(), Ok(&largest));
    let larger = sample_answer(vec![0; MAX_OUTPUT_BYTES + SEAL_BYTES + 1]);
    assert!(LogAnswer::from_wire(&larger.to_wire()).is_err());
    let text = include_str!("golden/log-request.v1.json");
    assert!(LogRequest::from_wire(&text.replace("Bwc=\"", "\"")).is_err(), "a key has 32 bytes");
}

/// Proves C15.
#[test]
fn the_form_of_a_signature_stays() {
    let golden = include_str!("golden/part-signed.v1.json").trim_end();
    let part = Part { index: 2, count: 3, event: sample_event() };
    let certname = "web01.example.com".parse().unwrap();
    let certificate = CertificateRef { certname, fingerprint: Fingerprint::from_digest([0xab; 32]) };
    let signature = Signature { text: "rsa-sha256:c2ln".to_owned(), certificate: Some(certificate.clone()) };
    let signed = Envelope::of(&part).signed(signature);
    assert_eq!(signed.to_string(), golden, "what is written changed: a form may only grow");
    let read = Envelope::parse::<Part>(golden).unwrap();
    assert_eq!((read.signature(), read.open()), (Some("rsa-sha256:c2ln"), Ok(part)));
    assert_eq!(read.certificate().unwrap().parse(), Ok(certificate));
    assert_eq!(read.signed_bytes("/k"), signed.signed_bytes("/k"));
}

#[test]
fn a_certificate_from_a_backend_is_bounded() {
    let of = |bytes: usize, intermediates: usize| StoredCertificate {
        certificate: vec![0; bytes],
        intermediates: vec![vec![0; 2]; intermediates],
    };
    let read = |certificate: &StoredCertificate| StoredCertificate::from_wire(&certificate.to_wire());
    let largest = of(crate::certificate::MAX_CERTIFICATE_BYTES, MAX_INTERMEDIATES);
    assert_eq!(read(&largest).as_ref(), Ok(&largest));
    assert!(read(&of(crate::certificate::MAX_CERTIFICATE_BYTES + 1, 0)).is_err());
    assert!(read(&of(1, MAX_INTERMEDIATES + 1)).is_err());
    assert!(StoredCertificate::from_wire(r#"{"v":1,"body":{"certificate":"%"}}"#).is_err());
}

#[test]
fn the_history_that_is_read_is_bounded_whatever_the_node_has_written() {
    let mut flood = sample_history();
    let cause = flood.runs[0].causes.listed[0].clone();
    let fired = flood.runs[0].fired.listed[0].clone();
    flood.runs[0].causes = Truncated { listed: vec![cause; 5_000], more: usize::MAX };
    flood.runs[0].fired = Truncated { listed: vec![fired; 5_000], more: usize::MAX };
    flood.runs[0].superseded = usize::MAX;
    flood.runs.resize(1_000, flood.runs[1].clone());
    let read = RunHistory::from_body(&history::body_of(&flood.runs)).unwrap();
    assert_eq!(read.runs.len(), MAX_RUNS);
    let PastRun { causes, fired, superseded, .. } = &read.runs[0];
    assert_eq!((causes.listed.len(), fired.listed.len()), (MAX_CAUSES, MAX_FIRES));
    // The counts can be added up.
    assert!([causes.count(), fired.count(), *superseded].iter().sum::<usize>() > 10_000);
}

/// Proves C8.
#[test]
fn text_from_other_nodes_cannot_command_a_terminal() {
    let hostile = "\u{1b}]0;owned\u{7}line\n\tline\u{9b}2J";
    let shown = "\u{fffd}]0;owned\u{fffd}line\n\tline\u{fffd}2J";
    let mut run = sample_run();
    run.result.reason = Some(hostile.to_owned());
    for end in [
        DeliveryOutcome::Failed(run),
        DeliveryOutcome::Refused(hostile.to_owned()),
        DeliveryOutcome::Suppressed(hostile.to_owned()),
        DeliveryOutcome::Cancelled { by: "ops01".parse().unwrap(), reason: Some(hostile.to_owned()) },
    ] {
        match DeliveryOutcome::from_wire(&end.to_wire()).unwrap() {
            DeliveryOutcome::Failed(run) => assert_eq!(run.result.reason.as_deref(), Some(shown)),
            DeliveryOutcome::Refused(reason) | DeliveryOutcome::Suppressed(reason) => {
                assert_eq!(reason, shown)
            }
            DeliveryOutcome::Cancelled { reason, .. } => assert_eq!(reason.as_deref(), Some(shown)),
            other => panic!("{other:?}"),
        }
    }
    let mut history = sample_history();
    history.runs[0].fired.listed[0].suppressed.listed[0].reason = hostile.to_owned();
    let read = RunHistory::from_wire(&history.to_wire()).unwrap();
    assert_eq!(read.runs[0].fired.listed[0].suppressed.listed[0].reason, shown);
    let activity = Activity {
        held: vec![HeldDelivery { event: samples::event_id(1), reason: hostile.to_owned() }],
        ..Activity::default()
    };
    let node = NodeRecord {
        instance: String::new(),
        lock: None,
        released: false,
        location: hostile.to_owned(),
        renewals: 1,
        version: hostile.to_owned(),
        seen_at: Timestamp::from_unix_ms(1),
        groups: Default::default(),
        activity,
    };
    let read = NodeRecord::from_wire(&node.to_wire()).unwrap();
    assert_eq!([&read.location, &read.version, &read.activity.held[0].reason], [shown; 3]);
}

#[test]
fn every_outcome_survives_encoding_and_decoding() {
    let ends = [
        DeliveryOutcome::Done(sample_run()),
        DeliveryOutcome::Failed(sample_run()),
        DeliveryOutcome::Expired(None),
        DeliveryOutcome::Expired(Some("by the clock of web01".to_owned())),
        DeliveryOutcome::Refused("r".to_owned()),
        DeliveryOutcome::Suppressed("s".to_owned()),
        DeliveryOutcome::Superseded(samples::event_id(4)),
        DeliveryOutcome::Cancelled { by: "ops01".parse().unwrap(), reason: None },
        DeliveryOutcome::Cancelled { by: "ops01".parse().unwrap(), reason: Some("w".to_owned()) },
    ];
    for end in ends {
        assert_eq!(DeliveryOutcome::from_wire(&end.to_wire()), Ok(end));
    }
}

/// Proves C8.
#[test]
fn names_are_validated_on_the_way_in() {
    let forged =
        Part { index: 0, count: 1, event: sample_event() }.to_wire().replace("lb01.example.com", "../../etc");
    assert!(matches!(Part::from_wire(&forged), Err(WireError::Unreadable { .. })));
}

#[test]
fn no_event_lives_longer_than_honoured_events_are_remembered() {
    let part = Part { index: 0, count: 1, event: sample_event() }.to_wire();
    let forged = part.replace("\"expires_in_seconds\":86400", "\"expires_in_seconds\":18446744073709551615");
    assert_ne!(forged, part);
    assert_eq!(Part::from_wire(&forged).unwrap().event.expires_in, crate::event::MAX_LIFETIME);
}

#[test]
fn a_rule_from_the_future_is_not_counted() {
    let text = include_str!("golden/fired-by-rule.v1.json").replace("\"pair\"", "\"moon\"");
    assert_eq!(FiredEvent::from_wire(&text).unwrap().by_rule, [(Rule::Hops, 3)].into());
}

/// Proves C15.
#[test]
fn a_field_from_the_future_is_ignored() {
    assert_eq!(
        Delivery::from_wire(r#"{"v":1,"body":{"part":3,"colour":"red"},"shape":"round"}"#),
        Ok(Delivery { part: 3 })
    );
}

#[test]
fn a_noted_fire_survives_encoding_whatever_the_name_of_its_trigger() {
    for (trigger, is_taken_back) in [("t", false), ("- + a  b", true), ("größer", false)] {
        let trigger = trigger.parse().unwrap();
        let note = FireNote {
            root: samples::event_id(1),
            noted_at: Timestamp::from_unix_ms(7),
            trigger,
            is_taken_back,
        };
        assert_eq!(FireNote::from_line(&note.to_line()), Some(note));
    }
    let released = "+ 00000000-0000-0000-0000-000000000001 7 a b";
    assert_eq!(FireNote::from_line(released).unwrap().to_line(), released);
    for garbage in ["", "+", "* 00000000-0000-0000-0000-000000000001 7 a", "+ 1 7 a", &released[..39]] {
        assert_eq!(FireNote::from_line(garbage), None, "{garbage}");
    }
}

#[test]
fn a_line_cut_short_by_a_crash_is_ignored() {
    let event = samples::event_id(1);
    let ended_at = Timestamp::from_unix_ms(1_763_812_800_000);
    let by_run = HonouredEvent { event, ended_at, without_run: None };
    let line = by_run.to_line();
    assert_eq!(line, "00000000-0000-0000-0000-000000000001 1763812800000");
    assert_eq!(HonouredEvent::from_line(&line[..30]), None);
    assert_eq!(HonouredEvent::from_line(&line), Some(by_run));

    let refused = Some(DeliveryOutcome::Refused("no rule\nallows it: 7".to_owned()));
    for without_run in [refused, Some(DeliveryOutcome::Superseded(samples::event_id(2)))] {
        let ended = HonouredEvent { event, ended_at, without_run };
        let line = ended.to_line();
        assert!(!line.contains('\n'), "{line}");
        // Cut anywhere before the time, it is no entry of a run.
        for length in 37..=line.rfind(' ').unwrap() + 1 {
            assert_eq!(HonouredEvent::from_line(&line[..length]), None, "{}", &line[..length]);
        }
        assert_eq!(HonouredEvent::from_line(&line), Some(ended));
    }
}

#[test]
fn an_honoured_event_is_not_forgotten_because_a_clock_was_years_behind() {
    let year = std::time::Duration::from_secs(365 * 86_400);
    let fired_at = Timestamp::from_unix_ms(1_763_812_800_000);
    let uuid = uuid::Builder::from_unix_timestamp_millis(fired_at.as_unix_ms(), &[7; 10]).into_uuid();
    let event = crate::identity::EventId::from_uuid(uuid);
    let years_behind = Timestamp::from_unix_ms(1_606_132_800_000);
    let ended = HonouredEvent { event, ended_at: years_behind, without_run: None };
    assert_eq!(event.made_at(), Some(fired_at));
    assert!(
        !ended.is_outlived(fired_at.plus(std::time::Duration::from_secs(60))),
        "the clock is right again"
    );
    assert!(ended.is_outlived(fired_at.plus(year)));
}

#[test]
fn the_stored_form_is_bounded_whatever_the_names() {
    let mut history = RunHistory::default();
    let long = "ü".repeat(127);
    let publication = |n: u128| {
        let nodes = (0..50).map(|m| (format!("{m:0255}").parse().unwrap(), "ä".repeat(9_000)));
        Publication {
            backend: String::new(),
            prefix: Default::default(),
            event: samples::event(n, &long),
            suppressed: nodes.collect(),
            suppressed_groups: Default::default(),
        }
    };
    for run in 1..=3 {
        let causes =
            (1..=500).map(|n| Event { origin: "o".repeat(255).parse().unwrap(), ..samples::event(n, &long) });
        let result = RunResult { reason: Some("ß".repeat(100_000)), ..result(RunOutcome::Failed) };
        let fired = (0..500)
            .map(|n| FiredEvent::of(&publication(n), Rule::ALL.map(|rule| (rule, usize::MAX)).into()));
        history.push(PastRun::of(&record(run, causes.collect()), result, 0, fired));
        assert!(history.to_wire().len() <= history::MAX_HISTORY_BYTES, "{}", history.to_wire().len());
    }
    let stored = RunHistory::from_wire(&history.to_wire()).unwrap();
    let newest = &stored.runs[0];
    assert_eq!(newest.run.run_id, run_id(3), "the newest is there");
    assert_eq!((newest.fired.count(), newest.fired.listed[0].suppressed.count()), (500, 50));
}
