//! Each test is a list of rules, and what they say of events. A rule is written as its keys; an event as its trigger, its
//! origin and its options.

use super::*;

fn rule(text: &str) -> RuleSettings {
    let mut settings = RuleSettings::default();
    for word in text.split_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let values = || value.split(',').map(str::to_owned).collect();
        match key {
            "trigger" => settings.trigger = Some(values()),
            "from" => settings.from = Some(values()),
            "tags" => settings.tags = Some(values()),
            "environment" => settings.environments = Some(values()),
            "noop" => settings.only_noop = true,
            "deny" => settings.deny = true,
            "any" => {}
            extension => drop(settings.extensions.insert(extension.to_owned(), values())),
        }
    }
    settings
}

fn policy(rules: &[&str]) -> Policy {
    let rules = rules.iter().map(|text| Rule::new(rule(text)).unwrap());
    Policy::new("/etc/trigger/trigger.toml", rules.collect())
}

/// What the rules say of an event `TRIGGER ORIGIN [noop] [tags=a,b] [environment=a] [unsigned|shared|pp_role=x]`: the number of
/// the rule that accepts, or the reason.
fn judged(policy: &Policy, event: &str) -> Result<Option<usize>, String> {
    let mut words = event.split_whitespace();
    let trigger = words.next().unwrap().parse().unwrap();
    let origin = words.next().unwrap().parse().unwrap();
    let mut options = RunOptions::default();
    let mut extensions = BTreeMap::new();
    let mut other = None;
    for word in words {
        match word.split_once('=') {
            Some(("tags", tags)) => options.tags = tags.split(',').map(|tag| tag.parse().unwrap()).collect(),
            Some(("environment", name)) => options.environment = Some(name.parse().unwrap()),
            Some((name, value)) => drop(extensions.insert(name.to_owned(), value.to_owned())),
            None if word == "noop" => options.noop = true,
            None if word == "unsigned" => other = Some(Signer::Unsigned),
            None if word == "shared" => other = Some(Signer::SharedKey),
            None => panic!("{word}"),
        }
    }
    let certified =
        Signer::Certificate { algorithm: "RS256".to_owned(), fingerprint: "ab".repeat(32), extensions };
    let signer = other.unwrap_or(certified);
    let request = Request { trigger: &trigger, origin: &origin, options: &options, signer: &signer };
    match policy.judge(&request) {
        Decision::Accepted { rule } => Ok(rule),
        Decision::Refused { reason, .. } => Err(reason),
    }
}

fn check(rules: &[&str], event: &str, expected: Result<Option<usize>, &str>) {
    let judged = judged(&policy(rules), event);
    match (&judged, expected) {
        (Err(reason), Err(part)) if reason.contains(part) => {}
        _ => assert_eq!(judged, expected.map_err(str::to_owned), "{rules:?} {event}"),
    }
}

#[test]
fn without_rules_every_event_is_accepted() {
    for event in ["refresh web01", "refresh web01 noop", "refresh web01 tags=a unsigned"] {
        check(&[], event, Ok(None));
    }
}

#[test]
fn with_rules_an_event_that_none_is_for_is_refused() {
    let rules = ["trigger=refresh* from=web*.example.com", "trigger=deploy"];
    check(&rules, "refresh-lb web01.example.com", Ok(Some(1)));
    check(&rules, "deploy db01.example.com", Ok(Some(2)));
    check(
        &rules,
        "refresh-lb db01.example.com",
        Err(
            "no [[accept]] rule in /etc/trigger/trigger.toml on this node is for the trigger 'refresh-lb' from db01.example.com",
        ),
    );
    check(&rules, "Refresh web01.example.com", Err("no [[accept]] rule"));
    check(&["from=web01,web02"], "x web02", Ok(Some(1)));
    check(&["from=web01,web02"], "x web03", Err("no [[accept]] rule"));
}

/// Proves C13.
#[test]
fn the_first_rule_that_is_for_an_event_decides() {
    let rules = ["from=web01 deny", "from=web* noop", "from=web*"];
    check(
        &rules,
        "x web01",
        Err(
            "the [[accept]] rule 1 in /etc/trigger/trigger.toml on this node denies the trigger 'x' from web01",
        ),
    );
    check(&rules, "x web01 noop", Err("rule 1"));
    check(&rules, "x web02 noop", Ok(Some(2)));
    check(&rules, "x web02", Err("noop runs only, and this event asks for a real run"));
    check(&["from=web01", "from=web* deny"], "x web01", Ok(Some(1)));
}

#[test]
fn a_rule_with_tags_allows_no_more_than_these() {
    let rules = ["tags=web,profile::*"];
    check(&rules, "x web01 tags=web", Ok(Some(1)));
    check(&rules, "x web01 tags=web,profile::lb noop", Ok(Some(1)));
    check(&rules, "x web01 tags=web,db", Err("the tags web, profile::* only, and this event asks for db"));
    check(&rules, "x web01", Err("and this event asks for the whole catalog"));
    check(&["tags=web noop"], "x web01 tags=web", Err("noop runs only"));
    check(&["tags=web noop"], "x web01 tags=web noop", Ok(Some(1)));
}

/// Proves C13.
#[test]
fn an_event_chooses_an_environment_only_where_a_rule_names_it() {
    check(
        &[],
        "x web01 environment=test",
        Err(
            "only an [[accept]] rule with the key environment in /etc/trigger/trigger.toml on this node can allow that",
        ),
    );
    check(
        &["any"],
        "x web01 environment=test",
        Err("allows the trigger 'x' from web01 the node's own environment only"),
    );
    let rules = ["from=web* environment=test,feature_*", "any"];
    check(&rules, "x web01 environment=feature_42", Ok(Some(1)));
    check(&rules, "x web01", Ok(Some(1)));
    check(
        &rules,
        "x web01 environment=Test",
        Err("the environment test, feature_* besides the node's own, and this event asks for Test"),
    );
    check(&rules, "x db01 environment=test", Err("rule 2"));
    check(&["noop environment=*"], "x web01 environment=test", Err("noop runs only"));
    check(&["tags=web environment=*"], "x web01 environment=test", Err("the whole catalog"));
    check(&["tags=web noop environment=*"], "x web01 environment=test noop tags=web", Ok(Some(1)));
}

/// Proves C13.
#[test]
fn a_rule_with_extensions_is_for_verified_signers_only() {
    let rules = ["pp_role=web,lb* pp_zone=*"];
    check(&rules, "x a pp_role=lb-internal pp_zone=1", Ok(Some(1)));
    check(&rules, "x a pp_role=db pp_zone=1", Err("no [[accept]] rule"));
    check(&rules, "x a pp_role=web", Err("no [[accept]] rule"));
    for unsigned in ["x a unsigned", "x a shared"] {
        check(
            &rules,
            unsigned,
            Err("; no certificate signs the event, so that no rule with extensions is for it"),
        );
    }
    let reason = judged(&policy(&["from=b"]), "x a unsigned").unwrap_err();
    assert!(reason.ends_with("from a"), "{reason}");
    check(&["1.3.6.1.4.1.34380.1.1.13=web"], "x a pp_role=web", Ok(Some(1)));
}

#[test]
fn a_rule_says_why_it_is_not_for_an_event() {
    let policy = policy(&["trigger=a", "trigger=b from=c,d", "trigger=b pp_role=x"]);
    let (trigger, origin) = ("b".parse().unwrap(), "e".parse().unwrap());
    let (options, signer) = (RunOptions::default(), Signer::Unsigned);
    let request = Request { trigger: &trigger, origin: &origin, options: &options, signer: &signer };
    let why: Vec<String> =
        policy.rules().iter().map(|rule| rule.mismatch(&request).unwrap().to_string()).collect();
    let expected = [
        "it is for the trigger a",
        "it is for events from c, d",
        "it is for nodes whose certificate has pp_role x, and no certificate signs this event",
    ];
    assert_eq!(why, expected);
}

#[test]
fn a_rule_that_can_be_for_no_event_is_refused() {
    let error = |text: &str| Rule::new(rule(text)).unwrap_err().to_string();
    assert_eq!(
        error("from=web_01/x"),
        "from: 'web_01/x' matches no certname: besides '*' and '?' it may hold lower-case letters, digits, '.', '_' and '-'"
    );
    assert!(error("tags=Web").starts_with("tags: 'Web' matches no tag"));
    // By its name and by its number: one of the two restrictions would be lost.
    assert_eq!(
        error("pp_role=x 1.3.6.1.4.1.34380.1.1.13=y"),
        "extensions: pp_role is named twice, by its name and by its object identifier: remove one of the two, and list all \
         values at the other"
    );
    assert!(error("pp_rol=x").starts_with("extensions: 'pp_rol' is no trusted extension"));
    assert_eq!(
        error("deny noop"),
        "deny = true allows nothing, so that noop means nothing: remove one of the two"
    );
    assert!(error("deny tags=a").contains("so that tags means nothing"));
    assert!(Rule::new(RuleSettings { from: Some(Vec::new()), ..Default::default() }).is_err());
    let folded = Rule::new(rule("from=Web*.Example.com")).unwrap();
    assert_eq!(folded.to_string(), "from web*.example.com");
}

#[test]
fn a_rule_is_shown_as_its_keys() {
    let shown = |text: &str| Rule::new(rule(text)).unwrap().to_string();
    assert_eq!(shown("any"), "any event");
    assert_eq!(shown("any deny"), "any event; deny");
    assert_eq!(
        shown("trigger=a,b from=c pp_role=d noop tags=e"),
        "trigger a, b; from c; pp_role d; noop only; tags e"
    );
}

/// Proves C13.
#[test]
fn an_event_is_cancelled_by_its_origin_or_by_an_operator_of_the_node() {
    let operators = Operators {
        certnames: [certname("ops01")].into(),
        auth_roles: ["trigger".to_owned()].into(),
        cli_auth: false,
    };
    let policy = Policy::new("trigger.toml", Vec::new()).with_operators(operators);
    let judge = |by: &str, signer: &Signer| {
        policy
            .judge_cancellation(&certname(by), signer, &certname("web01"))
            .map_err(|why| why.contains("trigger.toml"))
    };
    let with_role = |role: &str| Signer::Certificate {
        algorithm: String::new(),
        fingerprint: String::new(),
        extensions: [("pp_auth_role".to_owned(), role.to_owned())].into(),
    };
    assert_eq!(judge("web01", &Signer::Unsigned), Ok(()));
    assert_eq!(judge("ops01", &Signer::SharedKey), Ok(()));
    assert_eq!(judge("ops02", &with_role("reader, trigger")), Ok(()));
    assert_eq!(judge("ops02", &with_role("reader")), Err(true));
    assert_eq!(judge("web02", &Signer::SharedKey), Err(true));
    let without_operators =
        Policy::default().judge_cancellation(&certname("ops01"), &with_role("trigger"), &certname("web01"));
    assert!(without_operators.is_err());
}

/// Proves C13.
#[test]
fn a_node_is_held_by_itself_or_by_its_operators() {
    let operators = Operators { certnames: [certname("ops01")].into(), ..Operators::default() };
    let policy = Policy::new("trigger.toml", Vec::new()).with_operators(operators);
    let judge = |by: &str| policy.judge_hold(&certname(by), &Signer::SharedKey, &certname("lb01"));
    assert_eq!((judge("ops01"), judge("lb01")), (Ok(()), Ok(())));
    assert_eq!(
        judge("web01").unwrap_err(),
        "web01 is neither lb01 itself nor one of the [operators] in trigger.toml on this node"
    );
}

fn certname(name: &str) -> Certname {
    name.parse().unwrap()
}
