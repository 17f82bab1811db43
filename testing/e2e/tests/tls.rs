//! Links with TLS and the certificates of a real Puppet CA, and what an operator reads where one is wrong (C13).

#![allow(clippy::expect_used, reason = "a test fails where its scenery cannot be built")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use trigger_e2e::{
    Authority, BackendKind, Crl, Fleet, KeyType, Node, Request, SERVER, Validity, eventually, on_each_backend,
};

on_each_backend!(
    a_fleet_with_puppets_certificates_fires_and_runs,
    a_certificate_that_is_renewed_is_used_from_then_on,
    a_node_without_a_good_certificate_says_what_is_wrong,
    a_server_that_is_not_the_right_one_is_named_with_the_reason,
    a_revocation_list_that_is_out_of_date_still_counts_and_is_reported,
);

/// Has the sentences of this file, with names, paths and dates of other machines.
const PAGE: &str = include_str!("../../../docs/operating/tls.md");

fn a_fleet_with_puppets_certificates_fires_and_runs(kind: BackendKind) {
    // Keys of the kind that Puppet makes by default, at the server and at one of the nodes.
    let server = Request::of(SERVER).with_alt_names(&["localhost"]).with_key(KeyType::Rsa);
    let fleet = Fleet::with_server(kind, &server);
    let lb01 = fleet.running("lb01.example.com");
    let mut web = fleet.node("web01.example.com");
    let rsa = Request::of("web01.example.com").with_key(KeyType::Rsa);
    web.has_certificate(&Authority::puppet().issue(&rsa, &web.path("rsa")));
    let event = web.fire(&["refresh", "--host", "lb01.example.com"]).committed();
    web.wait_for(&event, "lb01.example.com", "done");
    assert_eq!(lb01.runs().len(), 1, "{:?}", lb01.runs());
}

fn a_certificate_that_is_renewed_is_used_from_then_on(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let ca = Authority::puppet();
    let mut lb01 = fleet.node("lb01.example.com");
    ca.issue(&Request::of("lb01.example.com").valid(Validity::Expired), lb01.ssl().directory());
    lb01.launch_agent();
    lb01.wait_for_log("refuses this node's certificate");
    ca.node("lb01.example.com", lb01.ssl().directory());
    lb01.wait_until_connected();
    let event = fleet.node("web01.example.com").fire(&["refresh", "--host", "lb01.example.com"]).committed();
    lb01.wait_for(&event, "lb01.example.com", "done");
}

/// Each sentence as an operator reads it.
fn a_node_without_a_good_certificate_says_what_is_wrong(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let ca = Authority::puppet();
    let name = "web01.example.com";

    let unsigned = fleet.node_in("unsigned", name);
    fs::remove_file(unsigned.ssl().certificate()).expect("a certificate");
    let words = ["no signed certificate yet", "puppet ssl bootstrap", "puppetserver ca sign"];
    says(&unsigned, &words, &[&path(&unsigned.ssl().certificate())]);

    let hidden = fleet.node_in("hidden", name);
    let words = ["cannot read the private key", "run this as root"];
    says_as_nobody(&hidden, &words, &[&path(&hidden.ssl().key())]);

    let foreign = fleet.node_in("foreign", name);
    Authority::stranger().node(name, foreign.ssl().directory());
    let words = ["which has the name of a CA in", "both ends need certificates of one CA"];
    says(&foreign, &words, &["localhost"]);

    let mixed = fleet.node_in("mixed", name);
    let other = ca.issue(&Request::of(name), &mixed.path("other"));
    fs::copy(other.key(), mixed.ssl().key()).expect("another key");
    says(&mixed, &["does not fit the certificate"], &[&path(&mixed.ssl().certificate())]);

    for (directory, validity) in [("expired", Validity::Expired), ("early", Validity::NotYet)] {
        let node = fleet.node_in(directory, name);
        ca.issue(&Request::of(name).valid(validity), node.ssl().directory());
        says(&node, &["refuses this node's certificate"], &[&path(&node.ssl().certificate())]);
    }
}

fn a_server_that_is_not_the_right_one_is_named_with_the_reason(kind: BackendKind) {
    let check = |request: &Request<'_>, words: &[&str], particulars: &[&str]| {
        let fleet = Fleet::with_server(kind, request);
        says(&fleet.node("web01.example.com"), words, particulars);
    };
    let server = Request::of(SERVER);
    let words = ["is not for the name", "dns_alt_names"];
    check(&server, &words, &["is not for the name localhost", SERVER]);
    let known = server.with_alt_names(&["localhost"]);
    // A node of the CA that poses as the server has no name but its own.
    check(&Request::of("evil.example.com"), &words, &["is not for the name localhost", "evil.example.com"]);
    check(
        &known.clone().valid(Validity::Expired),
        &["expired at", "renew the certificate, or set the clock"],
        &[SERVER, "expired at 2021-01-01"],
    );
    check(
        &known.clone().valid(Validity::NotYet),
        &["is valid from", "set the clock here"],
        &[SERVER, "is valid from 2048-01-01"],
    );

    let fleet = Fleet::with_server(kind, &known);
    let web = fleet.node("web01.example.com");
    let lists = Crl { revoked: vec![fleet.backend.ssl()], number: 2, ..Crl::default() };
    web.ssl().set_crl(&Authority::puppet().crl(&lists));
    says(&web, &["is revoked, as the lists in"], &[SERVER, &path(&web.ssl().crl())]);
}

/// Proves C13: at both ends of a link, it keeps out the nodes that it names, and no others. etcd does not look at the date
/// of its list either.
fn a_revocation_list_that_is_out_of_date_still_counts_and_is_reported(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let gone = fleet.node("gone.example.com");
    let revoked = gone.ssl();
    let lists = Crl { revoked: vec![&revoked], number: 2, validity: Validity::Expired };
    let lists = Authority::puppet().crl(&lists);
    fleet.backend.ssl().set_crl(&lists);
    let more = match kind.is_hub() {
        true => Vec::new(),
        false => vec!["--client-crl-file".to_owned(), path(&fleet.backend.ssl().crl())],
    };
    fleet.backend.restart_with(&more);
    let (mut lb01, web) = (fleet.node("lb01.example.com"), fleet.node("web01.example.com"));
    for node in [&lb01, &web] {
        node.ssl().set_crl(&lists);
    }
    lb01.start_agent();
    let event = web.fire(&["refresh", "--host", "lb01.example.com"]).committed();
    web.wait_for(&event, "lb01.example.com", "done");

    let words = ["revocation list", "is out of date"];
    let particulars = ["is out of date since 2021-01-01", "it still counts"];
    lb01.wait_for_log("is out of date");
    are_said(&lb01.agent_log(), &words, &particulars);
    if kind.is_hub() {
        are_said(&fleet.backend.log(), &words, &particulars);
        says(&gone, &["it is revoked"], &[]);
    } else {
        let answer = gone.trigger(&["status"]);
        assert_ne!(answer.code, 0, "{answer:?}");
    }
}

/// What `trigger status` prints on a node, which cannot answer.
fn says(node: &Node, words: &[&str], particulars: &[&str]) {
    let answer = node.trigger(&["status"]);
    assert_ne!(answer.code, 0, "{answer:?}");
    are_said(&answer.stderr, words, particulars);
}

/// The same as another user than root, who may read the configuration and not the key.
fn says_as_nobody(node: &Node, words: &[&str], particulars: &[&str]) {
    let public = |path: &std::path::Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a directory that all may read");
    };
    node.path("").ancestors().take(2).for_each(public);
    let command = node.command(&["status"]);
    let mut as_nobody = Command::new("setpriv");
    as_nobody
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(command.get_program())
        .args(command.get_args());
    let output = as_nobody.output().expect("setpriv");
    assert!(!output.status.success(), "{output:?}");
    are_said(&String::from_utf8_lossy(&output.stderr), words, particulars);
}

/// Looks for the words of a sentence in what was said and on the operators' page, and for the names, paths and dates of
/// this test in what was said.
fn are_said(said: &str, words: &[&str], particulars: &[&str]) {
    let section = PAGE.split("\n## ").find(|section| section.starts_with("When it fails\n"));
    let lines = section.expect("the section of the page");
    let page = lines.split_whitespace().collect::<Vec<_>>().join(" ");
    for sentence in words {
        assert!(page.contains(sentence), "'{sentence}' is missing in docs/operating/tls.md");
    }
    for sentence in [words, particulars].concat() {
        assert!(said.contains(sentence), "'{sentence}' is missing in: {said}");
    }
}

fn path(path: &std::path::Path) -> String {
    path.display().to_string()
}

#[test]
fn a_revoked_node_is_cut_off_at_once_and_says_so() {
    let fleet = Fleet::on(BackendKind::Hub);
    let lb01 = fleet.running("lb01.example.com");
    let web = fleet.running("web01.example.com");
    let revoked = lb01.ssl();
    let lists = Crl { revoked: vec![&revoked], number: 2, ..Crl::default() };
    fleet.backend.ssl().set_crl(&Authority::puppet().crl(&lists));
    lb01.wait_until_disconnected("it is revoked");
    let log = lb01.agent_log();
    let why = log.lines().find(|line| line.contains("the backend still cannot be watched"));
    assert!(why.is_some_and(|line| line.contains("it is revoked")), "logged as soon as it is shown: {log}");
    says(&lb01, &["it is revoked", "puppet ssl clean"], &[]);
    // The others stay, and what is for the revoked node waits.
    let event =
        web.fire(&["refresh", "--host", "web01.example.com", "--host", "lb01.example.com"]).committed();
    web.wait_for(&event, "web01.example.com", "done");
    assert_eq!(web.delivery(&event, "lb01.example.com")["state"], "pending");
    eventually("a hub that names the revoked node in its log", || {
        let log = fs::read_to_string(fleet.path().join("backend/log")).unwrap_or_default();
        if log.contains("lb01.example.com") && log.contains("revoked") { Ok(()) } else { Err(log) }
    });
}
