//! The protocol between a hub and its clients: the JSON bodies of `POST /v1/…` and the text messages of
//! the WebSocket at `GET /v1/watch`. Both sides use these types, so they cannot drift apart.
//!
//! ```text
//! POST /v1/put               {"entries":[{"key":K,"value":V},…],
//!                             "delete":[K,…]}                            {"revisions":[R,…]}
//! POST /v1/delete            {"keys":[K,…]}                              {"deleted":N} | {}
//! POST /v1/compare-and-swap  {"key":K,"value":V,"expected":R|null}       {"written":R} | {"changed":ENTRY|null}
//! POST /v1/read              {"ranges":[RANGE,…],"from":POSITION|null,
//!                             "keys_only":BOOL}                          {"entries":[ENTRY,…],"next":POSITION|null}
//! POST /v1/why               {"prefix":P,"about":ABOUT}                  {"entries":[ENTRY,…]}
//! POST /v1/status            {"prefix":P,"wanted":WANTED}                {"events":[{"event":E,"whole":BOOL},…],
//!                                                                         "entries":[ENTRY,…],"asker":C|null,
//!                                                                         "sees_all":BOOL}
//! GET  /v1/watch             {"watch":[RANGE,…],"puts_only":BOOL}, once  {"snapshot":{"entries":[ENTRY,…],"complete":BOOL}},
//!                                                                        {"changes":[{"put":ENTRY}|{"deleted":K},…]},
//!                                                                        {"error":SENTENCE}
//!   the same, at any later time
//!                            {"id":N,"path":PATH,"body":BODY}            {"answer":{"id":N,"status":S,"time":MS,"body":BODY}}
//! any refusal                                                            {"error":SENTENCE,"denied":BOOL}
//!
//! ENTRY     {"key":K,"value":V,"revision":R}
//! RANGE     {"key":K} | {"prefix":"a/b/"}
//! POSITION  {"range":INDEX,"after":K}
//! ABOUT     {"event":E} | {"run":{"certname":C,"back":N}} | {"run_id":{"certname":C,"id":R}}
//! WANTED    {"events":[E,…]} | {"latest":N}
//! ```
//!
//! All entries of one `put` with the keys that it deletes, and all keys of one `delete`, are one transaction where the hub's
//! store has them (SQLite does). Elsewhere a `put` of which only a part was stored is answered with [`AMBIGUOUS`], unless it deletes
//! too: its keys are gone only where its entries are stored, and it may be repeated after any answer. `delete` may be absent, and so is `deleted` where the store does not count.
//!
//! A read is answered in pages: the next begins `from` the position that the last one gave. With `keys_only` the
//! values are empty. A snapshot may come in several messages, of which the last is `complete`; it shows one moment
//! all the same. A later snapshot replaces all that was known.
//!
//! A hub that says so ([`TAKES_REQUESTS`]) takes small requests over the WebSocket of a watch, from the end of its first
//! snapshot on: those that read and write the store, as they would be posted, at most [`MAX_SOCKET_REQUESTS`] at once. Each is
//! answered with the status and the body that HTTP would have, and the hub's time in milliseconds since 1970. An answer with
//! [`NOT_OVER_A_SOCKET`] means that nothing was done, and that the request has to be posted: its path is not served here, or
//! its answer is too large.
//!
//! The answers to `why` and `status` hold what concerns the asking node, where the hub knows its clients. `why` gives the
//! values that a client reads elsewhere to explain a run or an event. Of `status`, an event that the asker may read is
//! only named; of one that was delivered to it, the entries are what concerns it.
//!
//! A request with an unknown field is refused: an old hub must not half understand a new client. A client
//! ignores what it does not know in an answer.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use trigger_core::identity::{Certname, EventId, KeyPrefix, Revision, RunId};
use trigger_core::why::{Question, Which};

use crate::inquiry::{VisibleEvent, VisibleEvents, WantedEvents};
use crate::store::{CasOutcome, Change, Entry, KeyRange, WatchEvent};

/// Writes entries.
pub const PUT: &str = "/v1/put";
/// Deletes keys.
pub const DELETE: &str = "/v1/delete";
/// Writes a key that is as expected.
pub const COMPARE_AND_SWAP: &str = "/v1/compare-and-swap";
/// Reads ranges.
pub const READ: &str = "/v1/read";
/// Explains a run or an event.
pub const WHY: &str = "/v1/why";
/// Finds the events that concern the asker.
pub const STATUS: &str = "/v1/status";
/// Reports the health and the version of the hub.
pub const HEALTH: &str = "/healthz";
/// Watches ranges, over a WebSocket.
pub const WATCH: &str = "/v1/watch";

/// The status of a hub whose store may or may not have done what was asked. Every other refusal means that
/// nothing was stored.
pub const AMBIGUOUS: u16 = 504;
/// The status of a hub that has no room for what was to be stored.
pub const FULL: u16 = 507;

/// The status of an answer over a WebSocket to a request that the hub did not carry out, and that has to be posted.
pub const NOT_OVER_A_SOCKET: u16 = 421;

/// The header of the answer to [`WATCH`] by which a hub says that it takes requests over the WebSocket.
pub const TAKES_REQUESTS: &str = "trigger-takes-requests";
/// The largest body of a request or an answer over a WebSocket, in bytes: more than the outcomes of a usual run with the history of
/// runs. An answer to a write is shorter than its request, so that none that was carried out has to be posted again.
pub const MAX_SOCKET_BODY_BYTES: usize = 32 * 1024;
/// The largest frame of a client, in bytes. A hub's buffer for a WebSocket keeps the size of the largest frame that it received.
pub const MAX_SOCKET_FRAME_BYTES: usize = 1024;
/// The most requests of one WebSocket that may wait for their answers.
pub const MAX_SOCKET_REQUESTS: usize = 4;

/// The largest request body, and so the largest value, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// The most ranges in one read or watch.
pub const MAX_RANGES: usize = 1024;

/// The body of [`PUT`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutRequest {
    /// The entries to write: all, or none if it fails.
    pub entries: Vec<NewEntry>,
    /// The keys to delete with that, none of which is one of the entries'; absent keys are no error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<String>,
}

/// An entry that has no revision yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields say it")]
pub struct NewEntry {
    pub key: String,
    pub value: String,
}

/// The answer to [`PutRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutReply {
    /// Each entry's revision, in the order of the request.
    pub revisions: Vec<u64>,
}

/// The body of [`DELETE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteRequest {
    /// The keys to delete; absent keys are no error.
    pub keys: Vec<String>,
}

/// The answer to [`DeleteRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteReply {
    /// How many of the keys existed, where the hub's store counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<u64>,
}

/// The body of [`COMPARE_AND_SWAP`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields say it")]
pub struct CasRequest {
    pub key: String,
    pub value: String,
    /// The revision that the key must have, or null if it must be absent. The field is required, because a forgotten
    /// field would otherwise mean "absent".
    #[serde(deserialize_with = "Option::deserialize")]
    pub expected: Option<u64>,
}

/// The answer to [`CasRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CasReply {
    /// Written, at this revision.
    Written(u64),
    /// Not written, because this is there.
    Changed(Option<EntryForm>),
}

/// The body of [`READ`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadRequest {
    /// The ranges to read.
    pub ranges: Vec<RangeForm>,
    /// The position where the last page ended; null for the first.
    #[serde(default)]
    pub from: Option<Position>,
    /// Whether to leave the values empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keys_only: bool,
}

/// The position where a page of a read ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Index of the range.
    pub range: usize,
    /// Its last key so far.
    pub after: String,
}

/// The answer to [`ReadRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadReply {
    /// One page.
    pub entries: Vec<EntryForm>,
    /// The position where the next page begins; null when this is the last.
    pub next: Option<Position>,
}

/// The body of [`WHY`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhyRequest {
    /// Below which prefix.
    pub prefix: KeyPrefix,
    /// What is to be explained.
    pub about: WhyForm,
}

/// [`Question`] as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "the variants are those of Question and Which")]
pub enum WhyForm {
    Event(EventId),
    Run { certname: Certname, back: usize },
    RunId { certname: Certname, id: RunId },
}

impl From<&Question> for WhyForm {
    fn from(question: &Question) -> Self {
        match question {
            Question::Event(event) => Self::Event(*event),
            Question::Run(certname, Which::Back(back)) => {
                Self::Run { certname: certname.clone(), back: *back }
            }
            Question::Run(certname, Which::Id(id)) => Self::RunId { certname: certname.clone(), id: *id },
        }
    }
}

impl From<WhyForm> for Question {
    fn from(form: WhyForm) -> Self {
        match form {
            WhyForm::Event(event) => Self::Event(event),
            WhyForm::Run { certname, back } => Self::Run(certname, Which::Back(back)),
            WhyForm::RunId { certname, id } => Self::Run(certname, Which::Id(id)),
        }
    }
}

/// The answer to [`WhyRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyReply {
    /// The values that the explanation is made of, as far as they concern the asker.
    pub entries: Vec<EntryForm>,
}

/// The body of [`STATUS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusRequest {
    /// Below which prefix.
    pub prefix: KeyPrefix,
    /// Which events.
    pub wanted: WantedForm,
}

/// [`WantedEvents`] as they are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the variants are those of WantedEvents")]
pub enum WantedForm {
    Events(Vec<EventId>),
    Latest(usize),
}

impl From<&WantedEvents> for WantedForm {
    fn from(wanted: &WantedEvents) -> Self {
        match wanted {
            WantedEvents::These(events) => Self::Events(events.clone()),
            WantedEvents::Latest(count) => Self::Latest(*count),
        }
    }
}

impl From<WantedForm> for WantedEvents {
    fn from(form: WantedForm) -> Self {
        match form {
            WantedForm::Events(events) => Self::These(events),
            WantedForm::Latest(count) => Self::Latest(count),
        }
    }
}

/// The answer to [`StatusRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReply {
    /// The events that are stored and concern the asker.
    pub events: Vec<VisibleEventForm>,
    /// What concerns the asker of those that are not `whole`.
    pub entries: Vec<EntryForm>,
    /// The asker, where the hub knows it.
    #[serde(default)]
    pub asker: Option<Certname>,
    /// Whether the asker may read what concerns other nodes alone. A hub that does not say so is asked, and may deny it.
    #[serde(default = "is_to_be_asked")]
    pub sees_all: bool,
}

fn is_to_be_asked() -> bool {
    true
}

/// [`VisibleEvent`] as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of VisibleEvent")]
pub struct VisibleEventForm {
    pub event: EventId,
    pub whole: bool,
}

impl From<VisibleEvents> for StatusReply {
    fn from(visible: VisibleEvents) -> Self {
        let form = |visible: VisibleEvent| VisibleEventForm { event: visible.event, whole: visible.is_whole };
        Self {
            events: visible.events.into_iter().map(form).collect(),
            entries: visible.entries.into_iter().map(EntryForm::from).collect(),
            asker: visible.asker,
            sees_all: visible.sees_all,
        }
    }
}

impl From<StatusReply> for VisibleEvents {
    fn from(reply: StatusReply) -> Self {
        let event = |form: VisibleEventForm| VisibleEvent { event: form.event, is_whole: form.whole };
        Self {
            events: reply.events.into_iter().map(event).collect(),
            entries: reply.entries.into_iter().map(Entry::from).collect(),
            asker: reply.asker,
            sees_all: reply.sees_all,
        }
    }
}

/// The first message of a client on [`WATCH`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchRequest {
    /// The ranges to watch.
    pub watch: Vec<RangeForm>,
    /// Whether to leave deletions out of the changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub puts_only: bool,
}

/// Any later message of a client on [`WATCH`]: a request, as it would be posted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketRequest {
    /// What its answer is known by.
    pub id: u32,
    /// The path that it would be posted to.
    pub path: String,
    /// The body that it would have.
    pub body: Box<RawValue>,
}

/// The answer to [`SocketRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SocketAnswer {
    /// The `id` of the request.
    pub id: u32,
    /// The status that HTTP would have.
    pub status: u16,
    /// The hub's time, in milliseconds since 1970.
    pub time: u64,
    /// The body that HTTP would have.
    pub body: Box<RawValue>,
}

/// A message of the hub on [`WATCH`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchMessage {
    /// A portion of the snapshot.
    Snapshot {
        /// The entries of this portion.
        entries: Vec<EntryForm>,
        /// Whether this is the last portion.
        complete: bool,
    },
    /// Changes since, in order.
    Changes(Vec<ChangeForm>),
    /// The reason why the watch ends here.
    Error(String),
    /// The answer to a request.
    Answer(SocketAnswer),
}

/// The body of every refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// A sentence for people.
    pub error: String,
    /// Whether the hub knows its clients and this one has no right to what it asks for, so that it must not repeat the
    /// request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub denied: bool,
}

/// [`Entry`] as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of Entry")]
pub struct EntryForm {
    pub key: String,
    pub value: String,
    pub revision: u64,
}

impl From<Entry> for EntryForm {
    fn from(entry: Entry) -> Self {
        Self { key: entry.key, value: entry.value, revision: entry.revision.0 }
    }
}

impl From<EntryForm> for Entry {
    fn from(form: EntryForm) -> Self {
        Self { key: form.key, value: form.value, revision: Revision(form.revision) }
    }
}

/// [`KeyRange`] as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the variants are those of KeyRange")]
pub enum RangeForm {
    Key(String),
    Prefix(String),
}

impl From<KeyRange> for RangeForm {
    fn from(range: KeyRange) -> Self {
        match range {
            KeyRange::Key(key) => Self::Key(key),
            KeyRange::Prefix(prefix) => Self::Prefix(prefix),
        }
    }
}

impl From<RangeForm> for KeyRange {
    fn from(form: RangeForm) -> Self {
        match form {
            RangeForm::Key(key) => Self::Key(key),
            RangeForm::Prefix(prefix) => Self::Prefix(prefix),
        }
    }
}

/// [`Change`] as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the variants are those of Change")]
pub enum ChangeForm {
    Put(EntryForm),
    Deleted(String),
}

impl From<Change> for ChangeForm {
    fn from(change: Change) -> Self {
        match change {
            Change::Put(entry) => Self::Put(entry.into()),
            Change::Deleted(key) => Self::Deleted(key),
        }
    }
}

impl From<ChangeForm> for Change {
    fn from(form: ChangeForm) -> Self {
        match form {
            ChangeForm::Put(entry) => Self::Put(entry.into()),
            ChangeForm::Deleted(key) => Self::Deleted(key),
        }
    }
}

impl From<Vec<ChangeForm>> for WatchEvent {
    fn from(changes: Vec<ChangeForm>) -> Self {
        Self::Changes(changes.into_iter().map(Change::from).collect())
    }
}

impl From<CasOutcome> for CasReply {
    fn from(swap: CasOutcome) -> Self {
        match swap {
            CasOutcome::Written(revision) => Self::Written(revision.0),
            CasOutcome::Changed(entry) => Self::Changed(entry.map(EntryForm::from)),
        }
    }
}

impl From<CasReply> for CasOutcome {
    fn from(reply: CasReply) -> Self {
        match reply {
            CasReply::Written(revision) => Self::Written(Revision(revision)),
            CasReply::Changed(entry) => Self::Changed(entry.map(Entry::from)),
        }
    }
}

/// The answer of a healthy hub, as far as its clients use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReply {
    /// The version of the hub's program.
    pub version: String,
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;

    use super::*;

    /// The released form of `value` is `json`, both ways.
    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, json: &str) {
        check_written(value, json);
        assert_eq!(serde_json::from_str::<T>(json).ok().as_ref(), Some(value), "{json}");
    }

    /// The same of a value that has no equality: what is read is shown as the value is.
    fn check_written<T: Serialize + DeserializeOwned + Debug>(value: &T, json: &str) {
        assert_eq!(serde_json::to_string(value).ok().as_deref(), Some(json));
        let read = serde_json::from_str::<T>(json).ok();
        assert_eq!(format!("{read:?}"), format!("{:?}", Some(value)), "{json}");
    }

    fn entry() -> EntryForm {
        EntryForm { key: "/a/b".to_owned(), value: "größe \"1\"\n".to_owned(), revision: 7 }
    }

    const ENTRY: &str = r#"{"key":"/a/b","value":"größe \"1\"\n","revision":7}"#;

    /// Proves C15.
    #[test]
    fn the_released_requests_stay() {
        let new = NewEntry { key: "/a".to_owned(), value: "1".to_owned() };
        let put = |delete| PutRequest { entries: vec![new.clone()], delete };
        check(&put(Vec::new()), r#"{"entries":[{"key":"/a","value":"1"}]}"#);
        check(&put(vec!["/b".to_owned()]), r#"{"entries":[{"key":"/a","value":"1"}],"delete":["/b"]}"#);
        check(&DeleteRequest { keys: vec!["/a".to_owned()] }, r#"{"keys":["/a"]}"#);
        let swap = |expected| CasRequest { key: "/a".to_owned(), value: "1".to_owned(), expected };
        check(&swap(Some(3)), r#"{"key":"/a","value":"1","expected":3}"#);
        check(&swap(None), r#"{"key":"/a","value":"1","expected":null}"#);
        let ranges = vec![RangeForm::Key("/k".to_owned()), RangeForm::Prefix("/f/".to_owned())];
        let from = Some(Position { range: 1, after: "/f/x".to_owned() });
        check(
            &ReadRequest { ranges: ranges.clone(), from, keys_only: false },
            r#"{"ranges":[{"key":"/k"},{"prefix":"/f/"}],"from":{"range":1,"after":"/f/x"}}"#,
        );
        check(
            &ReadRequest { ranges: ranges[..1].to_vec(), from: None, keys_only: true },
            r#"{"ranges":[{"key":"/k"}],"from":null,"keys_only":true}"#,
        );
        let watch = |puts_only| WatchRequest { watch: ranges.clone(), puts_only };
        check(&watch(false), r#"{"watch":[{"key":"/k"},{"prefix":"/f/"}]}"#);
        check(&watch(true), r#"{"watch":[{"key":"/k"},{"prefix":"/f/"}],"puts_only":true}"#);
    }

    /// Proves C15.
    #[test]
    fn the_released_answers_stay() {
        check(&PutReply { revisions: vec![1, 2] }, r#"{"revisions":[1,2]}"#);
        check(&DeleteReply { deleted: Some(1) }, r#"{"deleted":1}"#);
        check(&DeleteReply { deleted: None }, "{}");
        check(&CasReply::Written(9), r#"{"written":9}"#);
        check(&CasReply::Changed(None), r#"{"changed":null}"#);
        check(&CasReply::Changed(Some(entry())), &format!(r#"{{"changed":{ENTRY}}}"#));
        let page = ReadReply { entries: vec![entry()], next: None };
        check(&page, &format!(r#"{{"entries":[{ENTRY}],"next":null}}"#));
        check(&ErrorReply { error: "no".to_owned(), denied: false }, r#"{"error":"no"}"#);
        check(&ErrorReply { error: "no".to_owned(), denied: true }, r#"{"error":"no","denied":true}"#);
    }

    #[test]
    fn the_questions_about_events_stay() {
        const EVENT: &str = "00000000-0000-0000-0000-000000000007";
        let event: EventId = EVENT.parse().unwrap();
        let certname: Certname = "a".parse().unwrap();
        let prefix: KeyPrefix = "/p".parse().unwrap();
        let why = |about| WhyRequest { prefix: prefix.clone(), about };
        check(&why(WhyForm::Event(event)), &format!(r#"{{"prefix":"/p","about":{{"event":"{EVENT}"}}}}"#));
        check(
            &why(WhyForm::Run { certname: certname.clone(), back: 1 }),
            r#"{"prefix":"/p","about":{"run":{"certname":"a","back":1}}}"#,
        );
        check(
            &why(WhyForm::RunId { certname: certname.clone(), id: EVENT.parse().unwrap() }),
            &format!(r#"{{"prefix":"/p","about":{{"run_id":{{"certname":"a","id":"{EVENT}"}}}}}}"#),
        );
        check(&WhyReply { entries: vec![entry()] }, &format!(r#"{{"entries":[{ENTRY}]}}"#));
        let status = |wanted| StatusRequest { prefix: prefix.clone(), wanted };
        check(
            &status(WantedForm::Events(vec![event])),
            &format!(r#"{{"prefix":"/p","wanted":{{"events":["{EVENT}"]}}}}"#),
        );
        check(&status(WantedForm::Latest(20)), r#"{"prefix":"/p","wanted":{"latest":20}}"#);
        let events = vec![VisibleEventForm { event, whole: false }];
        check(
            &StatusReply { events, entries: Vec::new(), asker: Some(certname), sees_all: false },
            &format!(
                r#"{{"events":[{{"event":"{EVENT}","whole":false}}],"entries":[],"asker":"a","sees_all":false}}"#
            ),
        );
        let older: StatusReply = serde_json::from_str(r#"{"events":[],"entries":[],"asker":"a"}"#).unwrap();
        assert!(older.sees_all, "it may be tried");
    }

    #[test]
    fn the_released_watch_messages_stay() {
        check_written(
            &WatchMessage::Snapshot { entries: vec![entry()], complete: true },
            &format!(r#"{{"snapshot":{{"entries":[{ENTRY}],"complete":true}}}}"#),
        );
        check_written(
            &WatchMessage::Changes(vec![ChangeForm::Put(entry()), ChangeForm::Deleted("/x".to_owned())]),
            &format!(r#"{{"changes":[{{"put":{ENTRY}}},{{"deleted":"/x"}}]}}"#),
        );
        check_written(&WatchMessage::Error("no".to_owned()), r#"{"error":"no"}"#);
        let body = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        check_written(
            &SocketRequest { id: 7, path: DELETE.to_owned(), body: body(r#"{"keys":[]}"#) },
            r#"{"id":7,"path":"/v1/delete","body":{"keys":[]}}"#,
        );
        check_written(
            &WatchMessage::Answer(SocketAnswer {
                id: 7,
                status: 200,
                time: 9,
                body: body(r#"{"deleted":0}"#),
            }),
            r#"{"answer":{"id":7,"status":200,"time":9,"body":{"deleted":0}}}"#,
        );
    }

    #[test]
    fn a_request_is_understood_whole_or_not_at_all() {
        assert!(serde_json::from_str::<DeleteRequest>(r#"{"keys":[],"lease":1}"#).is_err());
        assert!(serde_json::from_str::<CasRequest>(r#"{"key":"a","value":""}"#).is_err(), "no 'expected'");
    }
}
