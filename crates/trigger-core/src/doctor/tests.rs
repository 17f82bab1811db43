//! What each state of a node is called, and how serious it is.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::identity::Certname;
use crate::node::{Activity, NodeRecord};
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);

fn node(name: &str) -> Certname {
    name.parse().unwrap()
}

/// A node of which everything is right.
fn sound() -> Facts {
    Facts {
        now: NOW,
        version: "0.1.0".to_owned(),
        configuration: Configuration {
            path: "/etc/trigger/trigger.toml".to_owned(),
            is_there: true,
            names_backend: true,
            ..Configuration::default()
        },
        names: Some(Names {
            owner: Some(node("web01")),
            puppets: Some(Ok(node("web01"))),
            certificate: Some(node("web01")),
            ..Names::default()
        }),
        directory: Some(Directory {
            path: "/var/lib/trigger".to_owned(),
            problem: None,
            free_bytes: Some(1 << 30),
        }),
        certificate: Some(Certificate {
            not_after: Some(NOW.plus(Duration::from_secs(86400 * 365))),
            checks_revocation: true,
            ..Certificate::default()
        }),
        backend: Some(Backend {
            url: "hub+https://hub:8145".to_owned(),
            is_hub: true,
            answer: Ok(Answered { version: Some("0.1.0".to_owned()), ..Answered::default() }),
        }),
        puppet: Some(Puppet { is_needed: true, ..Puppet::default() }),
        puppetdb: None,
        modules: Some(vec![Module { path: "/modules/trigger".to_owned(), version: "0.1.0".to_owned() }]),
        service: Some(Service {
            unit: "trigger-agent".to_owned(),
            active: "active".to_owned(),
            enabled: "enabled".to_owned(),
        }),
        agent: Some(Agent::Answers { disconnected: None, blocked: None, hold: None, held: 0, unreadable: 0 }),
        outbox: Some(Outbox::default()),
        claim: Some(Claim { certname: node("web01"), record: Some(record()) }),
    }
}

fn record() -> NodeRecord {
    NodeRecord {
        instance: "i".to_owned(),
        lock: None,
        released: false,
        location: "web01, pid 7, /var/lib/trigger".to_owned(),
        renewals: 1,
        version: "0.1.0".to_owned(),
        seen_at: NOW,
        groups: BTreeMap::new(),
        activity: Activity::default(),
    }
}

/// Changes one thing of a sound node, and checks what is found that is not in order: each with its area, severity and a
/// part of its summary.
fn check(change: impl FnOnce(&mut Facts), expected: &[(&str, Severity, &str)]) {
    let mut facts = sound();
    change(&mut facts);
    let findings = examine(&facts);
    let bad: Vec<&Finding> = findings.iter().filter(|finding| finding.severity != Severity::Ok).collect();
    assert_eq!(bad.len(), expected.len(), "{bad:?}");
    for (finding, (area, severity, summary)) in bad.iter().zip(expected) {
        assert_eq!((finding.area, finding.severity), (*area, *severity), "{finding:?}");
        assert!(finding.summary.contains(summary), "'{summary}' in {finding:?}");
        assert!(finding.remedy.is_some(), "{finding:?}");
    }
}

const W: Severity = Severity::Warning;
const E: Severity = Severity::Error;

#[test]
fn a_sound_node_has_a_word_for_each_area() {
    check(|_| {}, &[]);
    let areas: Vec<&str> = examine(&sound()).iter().map(|finding| finding.area).collect();
    let expected = [
        "configuration",
        "certname",
        "state directory",
        "certificate",
        "backend",
        "backend version",
        "puppet",
        "module",
        "service",
        "agent",
        "outbox",
        "claim",
    ];
    assert_eq!(areas, expected);
}

#[test]
fn a_configuration_is_judged_by_its_mistakes() {
    let mistake = "line 3: unknown key 'x'".to_owned();
    check(|facts| facts.configuration.problems.push(mistake), &[("configuration", E, "unknown key")]);
    check(|facts| facts.configuration.is_there = false, &[("configuration", W, "there is no /etc")]);
    check(|facts| facts.configuration.names_backend = false, &[("configuration", W, "no backend")]);
    let doubt = "run_cmd: --no-usecacheonfailure".to_owned();
    check(|facts| facts.configuration.doubts.push(doubt), &[("configuration", W, "run_cmd")]);
}

#[test]
fn a_node_has_one_name() {
    let names = |change: fn(&mut Names)| move |facts: &mut Facts| change(facts.names.as_mut().unwrap());
    check(names(|names| names.owner = Some(node("old"))), &[("certname", E, "belongs to old")]);
    check(names(|names| names.configured = Some(node("web01"))), &[]);
    check(
        names(|names| names.puppets = Some(Ok(node("web02")))),
        &[("certname", E, "belongs to web01"), ("certname", E, "certificate is for web01")],
    );
    check(
        names(|names| (names.configured, names.puppets) = (Some(node("web01")), Some(Ok(node("web01.lan"))))),
        &[("certname", W, "Puppet's own certname is web01.lan")],
    );
    check(
        names(|names| {
            *names = Names { puppets: Some(Err("no such file".to_owned())), ..Names::default() };
        }),
        &[("certname", E, "no such file")],
    );
    check(names(|names| names.puppets = Some(Err("slow".to_owned()))), &[]);
}

#[test]
fn a_full_disk_is_seen_before_it_loses_an_event() {
    let free =
        |mib: u64| move |facts: &mut Facts| facts.directory.as_mut().unwrap().free_bytes = Some(mib << 20);
    check(free(64), &[]);
    check(free(63), &[("state directory", W, "63 MiB")]);
    check(free(3), &[("state directory", E, "3 MiB")]);
    let problem =
        |facts: &mut Facts| facts.directory.as_mut().unwrap().problem = Some("read-only".to_owned());
    check(problem, &[("state directory", E, "read-only")]);
}

#[test]
fn a_certificate_is_renewed_in_time() {
    let certificate =
        |change: fn(&mut Certificate)| move |facts: &mut Facts| change(facts.certificate.as_mut().unwrap());
    let day = 86400;
    check(
        |facts| {
            let certificate = facts.certificate.as_mut().unwrap();
            certificate.not_after = Some(NOW.plus(Duration::from_secs(29 * day)));
        },
        &[("certificate", W, "it expires at")],
    );
    check(certificate(|it| it.problem = Some("it is revoked".to_owned())), &[("certificate", E, "revoked")]);
    check(certificate(|it| it.checks_revocation = false), &[("certificate", W, "not checked")]);
    check(certificate(|it| it.stale_lists = vec!["of CA".to_owned()]), &[("revocation lists", W, "of CA")]);
}

#[test]
fn a_backend_answers_soon_with_rights_and_the_right_time() {
    let answered = |change: fn(&mut Answered)| {
        move |facts: &mut Facts| change(facts.backend.as_mut().unwrap().answer.as_mut().unwrap())
    };
    check(answered(|it| it.took = Duration::from_millis(1200)), &[("backend", W, "took 1.2 s")]);
    check(answered(|it| it.version = Some("0.2.0".to_owned())), &[("backend version", W, "0.2.0")]);
    check(answered(|it| it.version = None), &[]);
    check(answered(|it| it.denied = Some("no".to_owned())), &[("rights", E, "may not write")]);
    check(answered(|it| it.ahead = Duration::from_secs(301)), &[("clock", E, "ahead of")]);
    check(answered(|it| it.behind = Duration::from_secs(301)), &[("clock", E, "behind")]);
    check(answered(|it| it.behind = Duration::from_secs(300)), &[]);
    check(
        |facts| facts.backend.as_mut().unwrap().answer = Err("is unreachable".to_owned()),
        &[("backend", E, "unreachable")],
    );
}

#[test]
fn an_etcd_that_lets_readers_write_is_named() {
    for (version, is_old) in [
        ("3.3.27", true),
        ("3.4.23", true),
        ("3.4.42", false),
        ("3.5.16", true),
        ("3.5.33", false),
        ("3.6.0", false),
        ("3.5.0-rc.1", false),
    ] {
        let change = |facts: &mut Facts| {
            let backend = facts.backend.as_mut().unwrap();
            backend.is_hub = false;
            backend.answer.as_mut().unwrap().version = Some(version.to_owned());
        };
        let expected = [("backend version", W, version)];
        check(change, if is_old { &expected } else { &[] });
    }
}

#[test]
fn a_puppet_that_is_off_is_named_with_its_reason() {
    let puppet = |change: fn(&mut Puppet)| move |facts: &mut Facts| change(facts.puppet.as_mut().unwrap());
    check(puppet(|it| it.problem = Some("no puppet".to_owned())), &[("puppet", E, "no puppet")]);
    check(puppet(|it| *it = Puppet { problem: Some("x".to_owned()), ..Puppet::default() }), &[]);
    check(puppet(|it| it.disabled = Some("disabled: disks".to_owned())), &[("puppet", W, "disks")]);
    check(puppet(|it| it.running = Some(Ok(7))), &[]);
    check(puppet(|it| it.running = Some(Err("denied".to_owned()))), &[("puppet", W, "denied")]);
}

#[test]
fn a_module_has_the_version_of_the_program() {
    check(|facts| facts.modules.as_mut().unwrap()[0].version = "0.9.0".to_owned(), &[("module", W, "0.9.0")]);
    check(|facts| facts.modules = Some(Vec::new()), &[]);
}

#[test]
fn a_service_runs_and_starts_at_boot() {
    let service = |active: &'static str, enabled: &'static str| {
        move |facts: &mut Facts| {
            let service = facts.service.as_mut().unwrap();
            (service.active, service.enabled) = (active.to_owned(), enabled.to_owned());
        }
    };
    check(service("inactive", "enabled"), &[("service", E, "is inactive")]);
    check(service("failed", "disabled"), &[("service", E, "is failed")]);
    check(service("active", "disabled"), &[("service", W, "does not start when the machine does")]);
    check(service("inactive", ""), &[("service", W, "no unit")]);
}

#[test]
fn an_agent_is_judged_by_its_own_words() {
    let agent = |agent: Agent| move |facts: &mut Facts| facts.agent = Some(agent);
    let answers = |disconnected: Option<&str>, blocked: Option<&str>, held, unreadable| Agent::Answers {
        disconnected: disconnected.map(str::to_owned),
        blocked: blocked.map(str::to_owned),
        hold: None,
        held,
        unreadable,
    };
    check(agent(answers(Some("refused"), None, 0, 0)), &[("agent", E, "refused")]);
    check(agent(answers(None, Some("another agent"), 0, 0)), &[("agent", E, "no run may start")]);
    let held = Agent::Answers {
        disconnected: None,
        blocked: None,
        hold: Some("held until noon by ops01: disks".to_owned()),
        held: 0,
        unreadable: 0,
    };
    check(agent(held), &[("agent", W, "it is held until noon by ops01: disks")]);
    check(
        agent(answers(None, None, 1, 2)),
        &[("agent", W, "1 delivery is held"), ("agent", W, "2 values are not readable")],
    );
    let alive = ("claim", E, "another agent acts for web01");
    check(agent(Agent::Absent), &[("agent", E, "no agent runs"), alive]);
    check(agent(Agent::Silent), &[("agent", E, "does not answer"), alive]);
    check(agent(Agent::OtherVersion), &[("agent", E, "another version"), alive]);
}

#[test]
fn an_outbox_says_what_waits_and_why() {
    let outbox = |spooled, elsewhere, quarantined| {
        move |facts: &mut Facts| facts.outbox = Some(Outbox { spooled, elsewhere, quarantined })
    };
    check(outbox(1, 0, 0), &[("outbox", W, "1 event is not in the backend yet")]);
    check(
        outbox(3, 2, 1),
        &[
            ("outbox", W, "2 events are for a backend"),
            ("outbox", W, "1 event is not"),
            ("outbox", W, "1 file is quarantined"),
        ],
    );
}

#[test]
fn a_claim_is_this_nodes_or_free() {
    let claim = |change: fn(&mut Option<NodeRecord>)| {
        move |facts: &mut Facts| change(&mut facts.claim.as_mut().unwrap().record)
    };
    check(claim(|record| *record = None), &[("claim", W, "no agent has registered")]);
    check(claim(|record| record.as_mut().unwrap().version = "0.0.9".to_owned()), &[("claim", W, "0.0.9")]);
    let without_agent = |released, seconds| {
        move |facts: &mut Facts| {
            facts.agent = None;
            let record = facts.claim.as_mut().unwrap().record.as_mut().unwrap();
            record.released = released;
            facts.now = NOW.plus(Duration::from_secs(seconds));
        }
    };
    check(without_agent(false, 10), &[("claim", E, "another agent acts for web01")]);
    check(without_agent(false, 3600), &[]);
    check(without_agent(true, 10), &[]);
}

#[test]
fn a_puppetdb_that_does_not_answer_is_a_warning_where_runs_would_wait_for_it() {
    let found = |problem: Option<&str>, is_waited_for| {
        let (url, problem) = ("https://puppetdb:8081".to_owned(), problem.map(str::to_owned));
        let facts = Facts { puppetdb: Some(PuppetDb { url, problem, is_waited_for }), ..sound() };
        let found = examine(&facts).into_iter().find(|finding| finding.area == "puppetdb").unwrap();
        (found.severity, found.summary)
    };
    assert_eq!(found(None, true), (Severity::Ok, "https://puppetdb:8081 answers".to_owned()));
    assert_eq!(found(Some("x"), false).0, Severity::Ok);
    let (severity, summary) = found(Some("it answered 403"), true);
    assert_eq!(severity, Severity::Warning);
    assert_eq!(summary, "it answered 403: runs do not wait until it has stored what other nodes export");
}
