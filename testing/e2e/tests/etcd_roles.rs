//! An etcd with authentication, whose users are the nodes by their certificates: `trigger etcd-roles` (C13).

#![allow(clippy::expect_used, reason = "a test fails where its scenery cannot be built")]

use std::process::Command;

use trigger_e2e::{Authority, BackendKind, Fleet, Request, SERVER, Ssl, eventually};

const PREFIX: &str = "/puppet_trigger/events";

/// Makes the users and roles that `trigger etcd-roles ARGUMENTS` prints, as etcd's administrator, by a shell.
fn grant(fleet: &Fleet, administrator: &Ssl, arguments: &[&str]) {
    let node = fleet.node_in("grant", "web01.example.com");
    let printed = node.trigger(&[&["etcd-roles"], arguments].concat());
    assert_eq!(printed.code, 0, "{printed:?}");
    let script = node.script("roles.sh", &printed.stdout);
    let mut command = Command::new(script);
    command.envs(fleet.backend.etcdctl_settings(administrator));
    let output = command.output().expect("a shell");
    assert!(output.status.success(), "{output:?}");
}

/// Switches authentication on. The harness itself acts as an administrator besides `root`.
fn protect(fleet: &Fleet) -> Ssl {
    let administrator = Authority::puppet().node("root", &fleet.directory("root"));
    for user in ["root", SERVER] {
        as_administrator(fleet, &administrator, &["user", "add", "--no-password", user]);
        as_administrator(fleet, &administrator, &["user", "grant-role", user, "root"]);
    }
    as_administrator(fleet, &administrator, &["auth", "enable"]);
    administrator
}

fn as_administrator(fleet: &Fleet, administrator: &Ssl, arguments: &[&str]) -> String {
    let said = fleet.backend.etcdctl_as(administrator, arguments);
    said.unwrap_or_else(|error| panic!("etcdctl {arguments:?}: {error}"))
}

/// Proves C1 and C13: with its roles a fleet does all that it does without them, and a node that writes what is another's is
/// refused by etcd.
#[test]
fn a_fleet_has_the_rights_that_it_needs_and_a_node_no_others() {
    let fleet = Fleet::on(BackendKind::Etcd);
    let administrator = protect(&fleet);
    grant(
        &fleet,
        &administrator,
        &["web01.example.com", "lb01.example.com", "--operator", "ops01.example.com"],
    );

    // Claims, certificates, watches, events for nodes and groups, outcomes, run histories.
    let mut lb01 = fleet.node("lb01.example.com");
    lb01.set("groups", "['lb']").set("require_signature", "true");
    lb01.set("operators", "{ certnames = ['ops01.example.com'] }").start_agent();
    let mut web01 = fleet.node("web01.example.com");
    web01.set("require_signature", "true").start_agent();
    let event = web01.fire(&["refresh", "--host", "lb01.example.com", "--group", "lb"]).committed();
    web01.wait_for(&event, "lb01.example.com", "done");
    let to_group = web01.fire(&["again", "--group", "lb"]).committed();
    web01.wait_for(&to_group, "lb01.example.com", "done");
    // An operator holds a node, and each reads the orders to itself.
    let operator = fleet.node("ops01.example.com");
    let held = operator.trigger(&["hold", "lb01.example.com", "--for", "1h", "--reason", "disks"]);
    assert_eq!(held.code, 0, "{held:?}");
    let waiting = web01.fire(&["refresh", "--host", "lb01.example.com"]).committed();
    web01.wait_for(&waiting, "lb01.example.com", "held");
    let released = lb01.trigger(&["release", "lb01.example.com"]);
    assert_eq!(released.code, 0, "{released:?}");
    web01.wait_for(&waiting, "lb01.example.com", "done");

    let why = lb01.trigger(&["why", &event]);
    assert_eq!(why.code, 0, "{why:?}");
    assert!(why.stdout.contains("web01.example.com"), "{why:?}");
    let history = eventually("a run history", || {
        fleet.backend.get(&format!("{PREFIX}/run-history/lb01.example.com")).ok_or_else(String::new)
    });

    // A node with all of etcd's own tools at hand.
    let may = |ssl: &Ssl, arguments: &[&str]| fleet.backend.etcdctl_as(ssl, arguments);
    let refused = |ssl: &Ssl, arguments: &[&str]| {
        let error = may(ssl, arguments).expect_err("a refusal");
        assert!(error.contains("permission denied"), "{arguments:?}: {error}");
    };
    let key = |path: &str| format!("{PREFIX}/{path}");
    let web = web01.ssl();
    for foreign in [
        key("nodes/lb01.example.com"),
        key("run-history/lb01.example.com"),
        key("holds/lb01.example.com"),
        key("certificates/lb01.example.com/x"),
        key("nodes/web01.example.com.evil"),
        "/puppet_trigger/other".to_owned(),
        "/registry/of/another/program".to_owned(),
    ] {
        refused(&web, &["put", &foreign, "x"]);
        refused(&web, &["del", &foreign]);
    }
    refused(&web, &["get", "--prefix", &key("deliveries/lb01.example.com/")]);
    refused(&web, &["get", &key("holds/lb01.example.com")]);
    refused(&web, &["get", "--prefix", &key("")]);
    refused(&web, &["get", "--prefix", "/"]);
    refused(&web, &["user", "add", "--no-password", "evil"]);
    refused(&web, &["role", "grant-permission", "trigger:fleet:/puppet_trigger/events", "write", "/x"]);
    refused(&web, &["auth", "disable"]);
    assert_eq!(fleet.backend.get(&key("run-history/lb01.example.com")).as_ref(), Some(&history));

    // An operator reads all, and removes what a node that is gone has left.
    let operator = Authority::puppet().node("ops01.example.com", &fleet.directory("ops01"));
    assert!(may(&operator, &["get", "--prefix", &key("deliveries/lb01.example.com/")]).is_ok());
    fleet.backend.put(&key("nodes/gone.example.com"), "x");
    assert_eq!(
        may(&operator, &["del", &key("nodes/gone.example.com")]).map(|said| said.trim().to_owned()),
        Ok("1".into())
    );
    refused(&operator, &["put", "/registry/of/another/program", "x"]);

    // A node that has no user yet says what is missing.
    let db01 = fleet.node("db01.example.com");
    let answer = db01.trigger(&["status"]);
    assert_eq!(answer.code, 4, "{answer:?}");
    assert!(answer.stderr.contains("'trigger etcd-roles' prints the users and roles"), "{answer:?}");
    let early = db01.fire(&["early", "--host", "lb01.example.com"]);
    assert!(early.warnings().contains("'trigger etcd-roles' prints the users and roles"), "{early:?}");
    let early = early.spooled();
    grant(&fleet, &administrator, &["db01.example.com"]);
    let event = db01.fire(&["refresh", "--host", "lb01.example.com"]).committed();
    db01.wait_for(&event, "lb01.example.com", "done");
    db01.wait_for(&early, "lb01.example.com", "done");
}

/// Proves C13: etcd takes its user from the common name of a certificate, and from no other name in it.
#[test]
fn a_certificate_with_another_nodes_name_beside_its_own_has_none_of_its_rights() {
    let fleet = Fleet::on(BackendKind::Etcd);
    let administrator = protect(&fleet);
    grant(&fleet, &administrator, &["web01.example.com", "evil.example.com"]);
    let request = Request::of("evil.example.com").with_alt_names(&["web01.example.com"]);
    let evil = Authority::puppet().issue(&request, &fleet.directory("evil"));
    let web = Authority::puppet().node("web01.example.com", &fleet.directory("web01"));
    let put =
        |ssl: &Ssl, certname: &str| fleet.backend.put_as(ssl, &format!("{PREFIX}/nodes/{certname}"), "x");
    assert_eq!(put(&evil, "evil.example.com"), Ok(()));
    let refused = put(&evil, "web01.example.com").expect_err("a refusal");
    assert!(refused.contains("permission denied"), "{refused}");
    assert_eq!(put(&web, "web01.example.com"), Ok(()));
}

/// Proves C1 and C13: an operator who makes users and roles for new nodes disturbs none that work.
#[test]
fn roles_are_granted_while_events_are_fired() {
    let fleet = Fleet::on(BackendKind::Etcd);
    let administrator = protect(&fleet);
    grant(&fleet, &administrator, &["web01.example.com"]);
    let web01 = fleet.running("web01.example.com");
    let mut events = Vec::new();
    std::thread::scope(|scope| {
        let granting = scope.spawn(|| grant(&fleet, &administrator, &["a1", "a2", "a3", "a4", "a5", "a6"]));
        while !granting.is_finished() || events.len() < 10 {
            events.push(web01.fire(&["refresh", "--host", "web01.example.com"]).committed());
        }
    });
    for event in events {
        web01.wait_for(&event, "web01.example.com", "done");
    }
}

/// etcd's JSON gateway speaks to etcd with the server's own certificate. That must not make each client the user that
/// the server's certificate names.
#[test]
fn the_json_gateway_lends_no_node_the_name_of_the_server() {
    let fleet = Fleet::on(BackendKind::Etcd);
    let administrator = protect(&fleet);
    grant(&fleet, &administrator, &["web01.example.com"]);
    let web = Authority::puppet().node("web01.example.com", &fleet.directory("web01"));
    // The key and the value in base64: /x and y.
    let (status, reply) =
        fleet.backend.post_as(&web, "/v3/kv/put", &serde_json::json!({ "key": "L3g=", "value": "eQ==" }));
    // It has no user, which is an invalid argument to etcd.
    assert_eq!(status, 400, "{reply}");
    assert_eq!(fleet.backend.get("/x"), None);
}

#[test]
fn the_roles_of_all_registered_nodes_are_printed() {
    let fleet = Fleet::on(BackendKind::Etcd);
    let web01 = fleet.running("web01.example.com");
    let roles = web01.trigger(&["etcd-roles", "--registered", "--operator", "OPS01", "--output", "json"]);
    assert_eq!(roles.code, 0, "{roles:?}");
    let users: Vec<_> =
        roles.json["users"].as_array().expect("users").iter().map(|user| &user["name"]).collect();
    assert_eq!(users, ["ops01", "web01.example.com"]);
    let refused = web01.trigger(&["etcd-roles", "root", "--output", "json"]).error(2);
    assert!(refused.contains("etcd's administrator"), "{refused}");
    assert_eq!(web01.trigger(&["etcd-roles"]).code, 2);
}
