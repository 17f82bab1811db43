//! The output of `trigger fire`.

use snapbox::str;

use crate::{state, trigger};

/// A query of the fact `fqdn` returns capitals where the operating system has some; certnames have none.
#[test]
fn certnames_are_typed_in_any_case() {
    let state = state();
    let list = state.path().join("hosts");
    std::fs::write(&list, "LB03\nlb01\n").unwrap();
    let fire = || trigger(state.path());
    fire()
        .args(["fire", "x", "--host", "LB01", "--host", "Lb02", "--output", "json", "--hosts-from"])
        .arg(&list)
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
{"event_id":"[..]","trigger":"x","state":"committed","revision":0,"retry_of":null,"targets":[{"certname":"lb01","state":"committed"},{"certname":"lb02","state":"committed"},{"certname":"lb03","state":"committed"}],"groups":[],"suppressed_groups":[],"warnings":[]}

"#]]);
    fire().args(["fire", "x", "--host", "a", "--certname", "WEB01.Example.com"]).assert().code(0);
    fire().args(["fire", "x", "--host", "a"]).env("TRIGGER_CERTNAME", "WEB01").assert().code(0);
}

#[test]
fn firing_says_how_to_follow() {
    let state = state();
    trigger(state.path())
        .args(["fire", "refresh load balancers", "--host", "lb01", "--host", "lb02", "--group", "lb"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
Fired [..] at 2 nodes and 1 group. Follow it: trigger status [..]

"#]])
        .stderr_eq(str![""]);
}

#[test]
fn firing_for_programs_is_one_document() {
    let state = state();
    trigger(state.path())
        .args(["fire", "it's \"quoted\" $(x) größe", "--hosts-from", "-", "--output", "json"])
        .stdin("lb02\n\nlb01\nlb02\n")
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
{"event_id":"[..]","trigger":"it's /"quoted/" $(x) größe","state":"committed","revision":0,"retry_of":null,"targets":[{"certname":"lb01","state":"committed"},{"certname":"lb02","state":"committed"}],"groups":[],"suppressed_groups":[],"warnings":[]}

"#]]);
}

#[test]
fn errors_for_programs_are_fields_too() {
    let state = state();
    let bad_line = str![[r#"
{"error":"standard input, line 2: 'b c' is not a certname: it may hold lower-case letters, digits, '.', '_' and '-', starts with none of '.' and '-', and has at most 255 characters","warnings":[]}

"#]];
    trigger(state.path())
        .args(["fire", "x", "--hosts-from", "-", "--output", "json"])
        .stdin("a\nb c\n")
        .assert()
        .code(2)
        .stdout_eq(bad_line)
        .stderr_eq(str![""]);
    trigger(state.path())
        .args(["fire", "x", "--ttl", "0", "--output", "json"])
        .assert()
        .code(2)
        .stdout_eq(str![[r#"
{"error":"invalid value '0' for '--ttl <HOPS>': 0 is not in 1..=64","warnings":[]}

"#]])
        .stderr_eq(str![""]);
}
