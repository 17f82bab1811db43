//! The parts of the Puppet module that follow from the registry of backend kinds: type aliases, providers, and the
//! URLs that the module's own specs try.
//!
//! `SNAPSHOTS=overwrite cargo test -p trigger --test puppet_module` writes them again.

#![allow(clippy::unwrap_used, reason = "a test says what it expects")]

use std::path::{Path, PathBuf};

use snapbox::{Data, assert_data_eq};
use trigger_store::kinds::{Access, AddressCount, BackendKind, KINDS};
use trigger_store::url::BackendUrl;

const NOTICE: &str = "# Written by `SNAPSHOTS=overwrite cargo test -p trigger --test puppet_module`.\n";

fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../puppet/trigger")
}

fn check(file: &str, expected: String) {
    assert_data_eq!(expected, Data::read_from(&module().join(file), None).raw());
}

fn read(file: &str) -> String {
    std::fs::read_to_string(module().join(file)).unwrap()
}

/// The kinds whose URLs name servers; each has an alias of its own.
fn served() -> impl Iterator<Item = &'static BackendKind> {
    KINDS.iter().copied().filter(|kind| kind.addresses != AddressCount::None)
}

fn alias(kind: &BackendKind) -> String {
    let (first, rest) = kind.name.split_at(1);
    format!("Trigger::Url::{}{rest}", first.to_uppercase())
}

/// `trigger_store::address` as a regular expression of Ruby: neither may accept what the other refuses.
fn address_pattern() -> String {
    let octet = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)";
    let label = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?";
    let ipv4 = format!(r"(?:{octet}\.){{3}}{octet}");
    // All eight groups, or at most seven around one '::'.
    let group = r"\h{1,4}";
    let groups = format!("(?:{group}(?::{group})*)?");
    let ipv6 =
        format!(r"\[(?:(?:{group}:){{7}}{group}|(?!:{{0,2}}(?:{group}::?){{7}}\h){groups}::{groups})\]");
    // The last label of a name is no number.
    let name = format!(r"(?=[^:]{{1,253}}:)(?:{label}\.)*(?!\d+\.?:){label}\.?");
    let port = r"(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])";
    format!("(?:{ipv4}|{ipv6}|{name}):{port}")
}

/// The addresses of this machine, for schemes whose connections are plain.
fn loopback_pattern() -> String {
    let octet = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)";
    // An IPv6 address of zeros and a final one.
    let ipv6 = r"(?=\[[0:]*:0{0,3}1\])";
    format!(r"(?=127(?:\.{octet}){{3}}:|[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]\.?:|{ipv6})")
}

fn url_pattern(kind: &BackendKind) -> String {
    let address = address_pattern();
    let schemes: Vec<String> = kind
        .schemes
        .iter()
        .map(|scheme| {
            let name = scheme.name.replace('+', r"\+");
            let where_it_may_be = if scheme.is_loopback_only { loopback_pattern() } else { String::new() };
            format!(r"{name}:\/\/{where_it_may_be}")
        })
        .collect();
    let addresses = match kind.addresses {
        AddressCount::Several => format!(r"(?<address>{address})(?:,\g<address>)*"),
        AddressCount::One => address,
        AddressCount::None => unreachable!("only of kinds with servers"),
    };
    format!(r"\A(?:{}){addresses}\/?\z", schemes.join("|"))
}

#[test]
fn each_kind_with_servers_has_an_alias_for_its_urls() {
    for kind in served() {
        let title = kind.title[..1].to_uppercase() + &kind.title[1..];
        let text = format!(
            "{NOTICE}# lint:ignore:140chars\n\n# @summary {title}, such as `{}`\ntype {} = Pattern[/{}/]\n# lint:endignore\n",
            kind.example,
            alias(kind),
            url_pattern(kind),
        );
        check(&format!("types/url/{}.pp", kind.name), text);
    }
}

/// What stands beside the kinds takes addresses by the same rule: names of a hub, and the URLs of the minimal etcd.
#[test]
fn addresses_have_one_rule_everywhere() {
    let alias = |file: &str, summary: &str, name: &str, start: &str| {
        let address = address_pattern();
        check(
            file,
            format!(
                "{NOTICE}# lint:ignore:140chars\n\n# @summary {summary}\ntype {name} = Pattern[/\\A{start}{address}\\z/]\n# lint:endignore\n"
            ),
        );
    };
    alias(
        "types/address.pp",
        "A host and a port, such as `hub.example.com:8145` or `[::1]:8145`",
        "Trigger::Address",
        "",
    );
    alias(
        "types/url/http.pp",
        "Where an etcd listens for clients, such as `http://127.0.0.1:2379`",
        "Trigger::Url::Http",
        r"https?:\/\/",
    );
}

#[test]
fn the_aliases_over_all_kinds_name_every_kind() {
    let of_kind = |kind: &&BackendKind| match kind.addresses {
        AddressCount::None => format!("Enum['{}']", kind.example),
        _ => alias(kind),
    };
    let kinds: Vec<String> = KINDS.iter().map(of_kind).collect();
    let write_only = KINDS.iter().filter(|kind| kind.access == Access::WriteOnly);
    let write_only: Vec<String> = write_only.map(of_kind).collect();
    check(
        "types/backend/writeonly.pp",
        format!(
            "{NOTICE}\n# @summary The URL of a backend that only takes events, so that no agent can run on it\ntype Trigger::Backend::Writeonly = Variant[{}]\n",
            write_only.join(", "),
        ),
    );
    let forms: Vec<String> =
        KINDS.iter().flat_map(|kind| kind.url_forms()).map(|form| format!("`{form}`")).collect();
    check(
        "types/backend.pp",
        format!(
            "{NOTICE}\n# @summary The URL of a backend, which carries events\n#\n# It has one of these forms: {}\ntype Trigger::Backend = Variant[{}]\n",
            forms.join(", "),
            kinds.join(", "),
        ),
    );
    let width = served().map(|kind| kind.name.len()).max().unwrap_or_default();
    let members: String = served()
        .map(|kind| {
            let key = format!("Optional[{}]", kind.name);
            format!("    {key:<0$} => Struct[{{ url => {1} }}],\n", width + "Optional[]".len(), alias(kind))
        })
        .collect();
    check(
        "types/backends.pp",
        format!(
            "{NOTICE}\n# @summary The URL for each provider that a manifest may name\ntype Trigger::Backends = Struct[{{\n{members}}}]\n"
        ),
    );
}

#[test]
fn each_kind_has_a_provider() {
    for kind in KINDS {
        // A kind without a URL to configure is its own URL.
        let backend = if kind.addresses == AddressCount::None { kind.example } else { kind.name };
        let text = format!(
            "# frozen_string_literal: true\n\n{NOTICE}\n# Relative, so that it is found in a server's environment and in an agent's lib directory alike.\n\
             require_relative '../trigger'\n\n\
             Puppet::Type.type(:trigger).provide(:{}, parent: Puppet::Provider::Trigger) do\n  desc '{}'\n\n  self.backend = '{backend}'\nend\n",
            kind.name, kind.summary,
        );
        check(&format!("lib/puppet/provider/trigger/{}.rb", kind.name), text);
    }
    let directory = std::fs::read_dir(module().join("lib/puppet/provider/trigger")).unwrap();
    let mut files: Vec<_> =
        directory.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let mut expected: Vec<_> = KINDS.iter().map(|kind| format!("{}.rb", kind.name)).collect();
    expected.push("configured.rb".to_owned());
    expected.sort();
    assert_eq!(files, expected);
}

#[test]
fn the_documentation_names_every_kind() {
    let (resource_type, agent) = (read("lib/puppet/type/trigger.rb"), read("manifests/agent.pp"));
    for kind in KINDS {
        assert!(resource_type.contains(&format!("`{}`", kind.name)), "the type: {}", kind.name);
        for form in kind.url_forms() {
            assert!(agent.contains(&format!("`{form}`")), "trigger::agent: {form}");
        }
    }
}

/// The module's specs try the same URLs on the aliases, so that neither accepts what the other refuses.
#[test]
fn the_specs_try_what_the_program_accepts_and_refuses() {
    const ACCEPTED: &[&str] = &[
        "hub+http://127.0.0.1:8145",
        "hub+http://localhost:8145/",
        "hub+http://[::1]:8145",
        "hub+http://[0:0:0:0:0:0:0:1]:8145",
        "hub+http://[00::0001]:8145",
        "hub+http://127.255.0.9:8145",
        "hub+http://LocalHost.:8145",
        "hub+https://127.0.0.1:8145",
        "hub+https://[::1]:8145",
        "hub+https://[2001:DB8:0:0:0:0:0:1]:1",
        "hub+https://[1:2:3:4:5:6:7::]:1",
        "hub+https://[::2:3:4:5:6:7:8]:1",
        "hub+https://[1::3:4:5:6:7:8]:1",
        "hub+https://[::]:65535",
        "hub+https://Puppet.Example.com:9999",
        "hub+https://a_b-c.example.com.:65529",
        "etcd://a:2379",
        "etcd://a:2379,b:2379,10.0.0.255:65499,[fe80::1]:59999/",
        "etcd://a:1,a:1",
        "etcd://1a:64999",
        "etcds://a:2379,b:2379",
        "dummy:",
    ];
    const REFUSED: &[&str] = &[
        "",
        "hub",
        "dummy",
        "dummy:x",
        "dummy://",
        "dummy:\n",
        "http://a:1",
        "HUB+HTTP://a:1",
        "hub+http:a:1",
        "hub+http://a:1",
        "hub+http://10.0.0.1:8145",
        "hub+http://[::]:8145",
        "hub+http://[::2]:8145",
        "hub+http://[::10:1]:8145",
        "hub+http://[::0:0:0:0:0:0:0:0:1]:8145",
        "hub+http://localhost.example.com:8145",
        "hub+http://xlocalhost:8145",
        "hub+http://localhost:0",
        "hub+https://",
        "hub+https://a",
        "hub+https://:1",
        "hub+https://a:1,b:1",
        "hub+https://a:1//",
        "hub+https://a:1/x",
        "hub+https://a:1?x",
        "hub+https://a:1\n",
        "hub+https://user@a:1",
        "hub+https://::1:8145",
        "hub+https://[::1:8145",
        "hub+https://[:::]:1",
        "hub+https://[1::2::3]:1",
        "hub+https://[1:2:3:4:5:6:7]:1",
        "hub+https://[1::2:3:4:5:6:7:8]:1",
        "hub+https://[1:2:3:4:5:6:7:8:9]:1",
        "hub+https://[12345::]:1",
        "hub+https://[::ffff:127.0.0.1]:1",
        "hub+https://[fe80::1%eth0]:1",
        "hub+https://127.0.0.256:1",
        "hub+https://127.0.0.01:1",
        "hub+https://127.0.0.1.:1",
        "hub+https://127.1:1",
        "hub+https://1:1",
        "hub+https://a..b:1",
        "hub+https://.:1",
        "hub+https://-a:1",
        "hub+https://a-:1",
        "hub+https://ä:1",
        "hub+https://a:0",
        "hub+https://a:080",
        "hub+https://a:+80",
        "hub+https://a:65536",
        "hub+https://a:100000",
        "hub+https://a:b",
        "xetcd://a:1",
        "etcds://a:2379,",
        "etcd://",
        "etcd:// a:1",
        "etcd://a",
        "etcd://a:1,",
        "etcd://a:1,b",
        "etcd://a:1, b:1",
        "etcd://a:1,etcd://b:1",
        "etcd://a:1/,b:1",
    ];
    let long =
        |label: usize, labels: usize| format!("etcd://{}:1", vec!["x".repeat(label); labels].join("."));
    let accepted: Vec<String> =
        ACCEPTED.iter().map(|url| (*url).to_owned()).chain([long(63, 3), long(1, 127)]).collect();
    let refused: Vec<String> =
        REFUSED.iter().map(|url| (*url).to_owned()).chain([long(64, 1), long(63, 4)]).collect();
    for url in &accepted {
        assert!(url.parse::<BackendUrl>().is_ok(), "{url} is refused");
    }
    for url in &refused {
        assert!(url.parse::<BackendUrl>().is_err(), "{url} is accepted");
    }
    let document = serde_json::json!({ "accepted": accepted, "refused": refused });
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    check("spec/fixtures/backend_urls.json", text);
}
