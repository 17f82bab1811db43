//! The audit: what this program logs with the target `audit`, a line of JSON each. It goes to the file that the
//! configuration names, else to the journal under the name `trigger-audit`, else to the standard error of a daemon. A command
//! never writes it to its terminal.
//!
//! As with the log, nothing waits for it: lines that are not taken in time are dropped, and a line says how many.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::audit_file::AuditFile;
use super::journal::{Journal, Stream};
use super::queue::LogQueue;
use crate::clean;

/// The target of what is audited.
pub(super) const TARGET: &str = "audit";
/// The audit in the journal.
pub(super) const STREAM: Stream = Stream { identifier: "trigger-audit", note: note_of_dropped };

/// The queue to the configured file, if there is one.
static FILE: Mutex<Option<LogQueue>> = Mutex::new(None);

/// Sends the audit to a file from now on.
pub(super) fn send_to(path: &Path) -> std::io::Result<()> {
    *file() = Some(LogQueue::start(AuditFile::new(path), |lines| {
        format!("{}\n", note_of_dropped(lines)).into_bytes()
    })?);
    Ok(())
}

/// Waits until the file has been written, but at most for `limit`.
pub(super) fn flush(limit: Duration) {
    let queue = file().clone();
    if let Some(queue) = queue {
        queue.flush(limit);
    }
}

fn file() -> MutexGuard<'static, Option<LogQueue>> {
    FILE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the audit goes without a file.
pub(super) enum Elsewhere {
    Journal(Journal),
    StandardError(fn(&str)),
    Nowhere,
}

/// The layer that writes the audit.
pub(super) struct Audit(pub(super) Elsewhere);

impl Audit {
    /// Whether the layer has to see this: all spans, whose fields belong to the lines within them.
    pub(super) fn takes(metadata: &Metadata<'_>) -> bool {
        metadata.is_span() || metadata.target() == TARGET
    }

    fn write(&self, values: Map<String, Value>) {
        let line = line(values);
        if let Some(queue) = &*file() {
            return queue.push(format!("{line}\n").as_bytes());
        }
        match &self.0 {
            Elsewhere::Journal(journal) => journal.log(Level::INFO, TARGET, &line, &[]),
            Elsewhere::StandardError(write) => write(&format!("{line}\n")),
            Elsewhere::Nowhere => {}
        }
    }
}

/// The time, then the values in the order of their names, as one line of JSON.
fn line(values: Map<String, Value>) -> String {
    let values = Value::Object(values).to_string();
    let line = format!("{{\"time\":\"{:.3}\",{}", jiff::Timestamp::now(), &values[1..]);
    clean::json(&line).into_owned()
}

/// The line that stands for lines that were dropped.
fn note_of_dropped(lines: u64) -> String {
    let values = [
        ("action".to_owned(), "drop".into()),
        ("lines".to_owned(), lines.into()),
        ("reason".to_owned(), "the audit was not written in time, or could not be written".into()),
    ];
    line(values.into_iter().collect())
}

/// The fields of a span or an event.
#[derive(Debug, Default)]
struct Values(Map<String, Value>);

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl<S> Layer<S> for Audit
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut values = Values::default();
            attributes.record(&mut values);
            span.extensions_mut().insert(values);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut values = Values::default();
        event.record(&mut values);
        // The innermost span first, so that its values count.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(Values(of_span)) = span.extensions().get::<Values>() {
                for (name, value) in of_span {
                    values.0.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        self.write(values.0);
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::filter_fn;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

    #[test]
    fn a_line_has_the_fields_of_the_event_and_of_its_spans_and_their_types() {
        let elsewhere = Elsewhere::StandardError(|line| LINES.lock().unwrap().push(line.to_owned()));
        let layer = Audit(elsewhere).with_filter(filter_fn(Audit::takes));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("agent", certname = %"lb01", run = "r1");
            span.in_scope(|| {
                tracing::info!(target: "audit", action = "fire", uid = 7u32, noop = false, run = "r2", reason = "a\n\u{202e}b", rule = None::<u64>);
                tracing::info!("of no interest");
            });
        });
        let lines = LINES.lock().unwrap();
        let [line] = &lines[..] else { panic!("{lines:?}") };
        let (time, rest) = line.split_once(',').unwrap();
        assert!(time.starts_with("{\"time\":\"20") && time.ends_with("Z\""), "{time}");
        let expected =
            r#""action":"fire","uid":7,"noop":false,"run":"r2","reason":"a\n\u202eb","certname":"lb01"}"#;
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(&format!("{{{rest}")), value(&format!("{{{expected}")));
        assert!(rest.contains(r"a\n\u202eb"), "{rest}");
    }

    #[test]
    fn a_line_in_the_journal_has_a_name_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let journal = Journal::connect(&path, STREAM).unwrap();
        let layer = Audit(Elsewhere::Journal(journal)).with_filter(filter_fn(Audit::takes));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(target: "audit", action = "forget", node = "old");
        });
        let mut bytes = vec![0; 4096];
        let received = socket.recv(&mut bytes).unwrap();
        let entry = String::from_utf8_lossy(&bytes[..received]).into_owned();
        for text in ["trigger-audit", r#""action":"forget","node":"old""#] {
            assert!(entry.contains(text), "{entry}");
        }
    }

    #[test]
    fn dropped_lines_are_a_line_of_the_audit_itself() {
        let note: Value = serde_json::from_str(&(STREAM.note)(3)).unwrap();
        assert_eq!(note["action"], "drop");
        assert_eq!(note["lines"], 3);
        assert_eq!(STREAM.identifier, "trigger-audit");
    }
}
