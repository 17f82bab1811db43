//! What PuppetDB is asked, and what its answers mean. They come from another machine: they are bounded by the caller, and
//! each value is validated here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::escaped::escaped;
use crate::event::{Event, MAX_TARGETS};
use crate::identity::{CatalogUuid, Certname};
use crate::time::Timestamp;

/// How many nodes one question is about at most.
pub const MAX_ASKED: usize = 500;

/// What is known of the catalogs in PuppetDB.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Catalogs {
    /// PuppetDB is not asked: there is none, or it answers this node nothing. No run waits.
    #[default]
    NotAsked,
    /// PuppetDB has not answered the latest question.
    Unknown,
    /// The catalogs that it has of the nodes that it was asked about.
    Stored(BTreeMap<Certname, StoredCatalog>),
}

/// The catalog of a node that PuppetDB has stored last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCatalog {
    /// Its uuid; absent where PuppetDB knows none.
    pub uuid: Option<CatalogUuid>,
    /// When the Puppet server compiled it, by the server's clock.
    pub produced_at: Timestamp,
}

impl Catalogs {
    /// Whether a run for this event may lack what its origin exports: PuppetDB has not stored the catalog that the event was
    /// fired with, or is not known to have.
    pub fn may_lack(&self, event: &Event) -> bool {
        event.catalog.is_some() && !matches!(self, Self::NotAsked) && !self.hold(event)
    }

    /// Whether PuppetDB has stored the catalog that the event was fired with, or one that was compiled after the event was
    /// fired: PuppetDB keeps the latest of each node.
    pub fn hold(&self, event: &Event) -> bool {
        let Self::Stored(stored) = self else { return false };
        stored
            .get(&event.origin)
            .is_some_and(|stored| stored.uuid == event.catalog || stored.produced_at > event.fired_at)
    }
}

/// How long after a question PuppetDB is asked again about catalogs that were `waited` for so long: an eighth more, and
/// about that because of `jitter`, from 0.0 up to 1.0, since many nodes wait for the same catalog.
pub fn poll_interval(waited: Duration, jitter: f64) -> Duration {
    const SHORTEST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(60);
    (waited / 8).clamp(SHORTEST, LONGEST).mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// PuppetDB's answer is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum InvalidAnswer {
    #[error("it is not a list of JSON objects with the fields that were asked for: {0}")]
    Form(String),
    #[error(
        "its result {number} has no certname: the query has to ask for it, as in nodes[certname] {{ … }}"
    )]
    NoCertname { number: usize },
    #[error("its result {number} is not a certname: {error}")]
    BadCertname { number: usize, error: String },
    #[error("it has more than {MAX_TARGETS} certnames, the most that one event may name")]
    TooMany,
}

/// The question for the latest catalogs of some nodes, as the body of a request.
pub fn catalogs_question(certnames: &[Certname]) -> String {
    let query = json!(["extract", ["certname", "catalog_uuid", "producer_timestamp"], within(certnames)]);
    body(&query.to_string())
}

/// The question which of some nodes are active: neither deactivated nor expired.
pub fn active_question(certnames: &[Certname]) -> String {
    let query = json!(["extract", ["certname"], ["and", within(certnames), ["=", "node_state", "active"]]]);
    body(&query.to_string())
}

/// The question of an operator or a manifest, in PuppetDB's own language.
pub fn pql_question(query: &str) -> String {
    body(query)
}

fn within(certnames: &[Certname]) -> serde_json::Value {
    let certnames: Vec<&str> = certnames.iter().map(Certname::as_str).collect();
    json!(["in", "certname", ["array", certnames]])
}

fn body(query: &str) -> String {
    json!({ "query": query }).to_string()
}

/// Reads the answer to [`catalogs_question`]. Catalogs of other nodes than were asked for do not count.
///
/// # Errors
/// [`InvalidAnswer::Form`].
pub fn read_catalogs(
    asked: &[Certname],
    answer: &[u8],
) -> Result<BTreeMap<Certname, StoredCatalog>, InvalidAnswer> {
    #[derive(Deserialize)]
    struct Form {
        certname: String,
        catalog_uuid: Option<String>,
        producer_timestamp: Option<String>,
    }
    let asked: BTreeSet<&str> = asked.iter().map(Certname::as_str).collect();
    let forms: Vec<Form> = serde_json::from_slice(answer).map_err(|error| form(&error))?;
    let known = forms.into_iter().filter(|form| asked.contains(form.certname.as_str()));
    let stored = known.filter_map(|form| {
        let produced_at: jiff::Timestamp = form.producer_timestamp?.parse().ok()?;
        let catalog = StoredCatalog {
            uuid: form.catalog_uuid.and_then(|uuid| uuid.parse().ok()),
            produced_at: Timestamp::from_unix_ms(u64::try_from(produced_at.as_millisecond()).ok()?),
        };
        Some((form.certname.parse().ok()?, catalog))
    });
    Ok(stored.collect())
}

/// Reads the certnames of an answer, each once.
///
/// # Errors
/// The first result that is none.
pub fn read_certnames(answer: &[u8]) -> Result<BTreeSet<Certname>, InvalidAnswer> {
    #[derive(Deserialize)]
    struct Form {
        certname: Option<String>,
    }
    let forms: Vec<Form> = serde_json::from_slice(answer).map_err(|error| form(&error))?;
    let mut certnames = BTreeSet::new();
    for (index, form) in forms.into_iter().enumerate() {
        let number = index + 1;
        let certname = form.certname.ok_or(InvalidAnswer::NoCertname { number })?;
        let certname = Certname::fold_case(&certname);
        certnames.insert(
            certname.map_err(|error| InvalidAnswer::BadCertname { number, error: error.to_string() })?,
        );
        if certnames.len() > MAX_TARGETS {
            return Err(InvalidAnswer::TooMany);
        }
    }
    Ok(certnames)
}

fn form(error: &serde_json::Error) -> InvalidAnswer {
    InvalidAnswer::Form(escaped(&error.to_string()))
}

/// The first of the addresses of PuppetDB in `puppetdb.conf`, which is where Puppet's own terminus finds it.
pub fn server_url(conf: &str) -> Option<&str> {
    let mut is_main = false;
    for line in conf.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_main = section.trim() == "main";
        } else if let Some((name, value)) = line.split_once('=')
            && is_main
            && name.trim() == "server_urls"
        {
            return value.split(',').map(str::trim).find(|url| !url.is_empty());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(certnames: &[&str]) -> Vec<Certname> {
        certnames.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn questions_are_those_of_puppetdbs_documentation() {
        assert_eq!(
            catalogs_question(&names(&["web01", "web02"])),
            r#"{"query":"[\"extract\",[\"certname\",\"catalog_uuid\",\"producer_timestamp\"],[\"in\",\"certname\",[\"array\",[\"web01\",\"web02\"]]]]"}"#
        );
        assert_eq!(
            active_question(&names(&["lb01"])),
            r#"{"query":"[\"extract\",[\"certname\"],[\"and\",[\"in\",\"certname\",[\"array\",[\"lb01\"]]],[\"=\",\"node_state\",\"active\"]]]"}"#
        );
        assert_eq!(pql_question("nodes[certname] { }"), r#"{"query":"nodes[certname] { }"}"#);
    }

    #[test]
    fn an_answer_about_catalogs_counts_for_the_nodes_that_were_asked_for() {
        let uuid = "0c23df3f-7ac7-4a51-bd58-e4a91e7a3f96";
        let answer = format!(
            r#"[{{"certname":"web01","catalog_uuid":"{uuid}","producer_timestamp":"2025-11-22T12:00:00.123Z"}},
                {{"certname":"web02","catalog_uuid":null,"producer_timestamp":"2025-11-22T12:00:00Z"}},
                {{"certname":"web03","catalog_uuid":"{uuid}","producer_timestamp":null}},
                {{"certname":"web04","catalog_uuid":"{uuid}","producer_timestamp":"yesterday"}},
                {{"certname":"db01","catalog_uuid":"{uuid}","producer_timestamp":"2025-11-22T12:00:00Z"}},
                {{"certname":"\u001b[31m","catalog_uuid":"x","producer_timestamp":"2025-11-22T12:00:00Z"}}]"#
        );
        let stored = read_catalogs(&names(&["web01", "web02", "web03", "web04"]), answer.as_bytes()).unwrap();
        let at = |ms: u64| Timestamp::from_unix_ms(1_763_812_800_000 + ms);
        let catalog = |uuid, ms| StoredCatalog { uuid, produced_at: at(ms) };
        let expected = [("web01", catalog(Some(uuid.parse().unwrap()), 123)), ("web02", catalog(None, 0))];
        let expected = expected.map(|(name, catalog)| (name.parse().unwrap(), catalog));
        assert_eq!(stored, expected.into());
        for bad in ["", "{}", "[1]", r#"{"error":"x"}"#, "[{\"certname\":7}]"] {
            assert!(read_catalogs(&[], bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longer_a_catalog_is_waited_for_the_less_often_it_is_asked_for() {
        let check = |seconds, jitter, ms| {
            assert_eq!(poll_interval(Duration::from_secs(seconds), jitter).as_millis(), ms, "{seconds}");
        };
        check(0, 0.5, 250);
        check(8, 0.5, 1000);
        check(8, 0.0, 750);
        check(8, 1.0, 1250);
        check(3600, 0.5, 60_000);
    }

    #[test]
    fn an_event_without_a_catalog_lacks_none() {
        let event = crate::event::samples::event(1, "t");
        assert!(!Catalogs::Unknown.may_lack(&event));
        let fired = Event { catalog: Some("0c23df3f-7ac7-4a51-bd58-e4a91e7a3f96".parse().unwrap()), ..event };
        assert!(Catalogs::Unknown.may_lack(&fired));
        assert!(Catalogs::Stored(BTreeMap::new()).may_lack(&fired));
        assert!(!Catalogs::NotAsked.may_lack(&fired));
    }

    #[test]
    fn certnames_are_validated_and_counted() {
        let read = |answer: &str| read_certnames(answer.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(read("[]").unwrap().len(), 0);
        let certnames = read(r#"[{"certname":"b","x":1},{"certname":"A"},{"certname":"a"}]"#).unwrap();
        assert_eq!(Vec::from_iter(certnames), names(&["a", "b"]));
        assert!(
            read(r#"[{"certname":"a"},{"count":3}]"#)
                .unwrap_err()
                .starts_with("its result 2 has no certname")
        );
        let bad = read(r#"[{"certname":"a/\u001b[31m"}]"#).unwrap_err();
        assert!(bad.starts_with(r"its result 1 is not a certname: 'a/\u{1b}[31m'"), "{bad}");
        let many: Vec<String> = (0..=MAX_TARGETS).map(|n| format!(r#"{{"certname":"n{n}"}}"#)).collect();
        assert!(read(&format!("[{}]", many[1..].join(","))).is_ok());
        assert!(read(&format!("[{}]", many.join(","))).unwrap_err().contains("more than 100000"));
    }

    #[test]
    fn the_address_is_the_first_in_the_main_section() {
        let conf = "[other]\nserver_urls = https://x:1\n[main]\n# server_urls = https://y:1\n \
                    server_urls = https://puppetdb.example.com:8081, https://second:8081\n";
        assert_eq!(server_url(conf), Some("https://puppetdb.example.com:8081"));
        assert_eq!(server_url("[main]\nserver_urls =\n"), None);
        assert_eq!(server_url("server_urls = https://x:1\n"), None);
    }
}
