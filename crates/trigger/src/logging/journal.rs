//! systemd's journal, by its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! Fields of an event and of its spans become fields of the journal, in capitals after `TRIGGER_`:
//! `journalctl TRIGGER_EVENT=…` shows what happened to an event. They are part of the message too, because `journalctl`
//! shows only the message unless it is asked for more. That is why this is not the crate `tracing-journald`, whose
//! messages lack the fields.

use std::fmt::Write;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use trigger_core::count::count;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::fields::Fields;

/// The socket that the journal listens on.
const SOCKET: &str = "/run/systemd/journal/socket";
/// The most bytes of a field. A larger entry than the socket takes would have to be passed as a file.
const MAX_FIELD_BYTES: usize = 16 * 1024;

/// A layer that writes to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
    stream: Stream,
    /// How many entries the journal has not taken since the last one that it took.
    dropped: AtomicU64,
}

/// What a journal gets from here.
#[derive(Clone, Copy)]
pub(super) struct Stream {
    /// The name of the entries.
    pub(super) identifier: &'static str,
    /// Makes the text that stands for entries that were dropped.
    pub(super) note: fn(u64) -> String,
}

/// The log.
pub(super) const LOG: Stream = Stream {
    identifier: env!("CARGO_PKG_NAME"),
    note: |dropped| {
        let entries = count(usize::try_from(dropped).unwrap_or(usize::MAX), "entry");
        format!("{entries} of the log dropped here: the journal did not take them in time")
    },
};

impl Journal {
    /// The journal, if it is what standard error is connected to: then systemd has started this process, and has not
    /// been asked to send its output elsewhere.
    pub(super) fn of_standard_error(stream: Stream) -> Option<Self> {
        let device = std::env::var("JOURNAL_STREAM").ok()?;
        let stat = rustix::fs::fstat(io::stderr().as_fd()).ok()?;
        let is_journal = device == format!("{}:{}", stat.st_dev, stat.st_ino);
        is_journal.then(|| Self::connect(Path::new(SOCKET), stream).ok()).flatten()
    }

    /// The journal of this machine, if it has one, whatever standard error is connected to.
    pub(super) fn of_this_machine(stream: Stream) -> Option<Self> {
        Self::connect(Path::new(SOCKET), stream).ok()
    }

    pub(super) fn connect(path: &Path, stream: Stream) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        // A log must not hold up the program: if the journal is too slow, entries are lost.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, stream, dropped: AtomicU64::new(0) })
    }

    /// Sends an entry, after one that says how many were dropped before it. Where even that one finds no room, this one
    /// is dropped too.
    pub(super) fn log(&self, level: Level, target: &str, message: &str, named: &[(&'static str, String)]) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let sent = if dropped == 0 {
            Ok(())
        } else {
            self.send(Level::WARN, target, &(self.stream.note)(dropped), &[]).inspect_err(|_| {
                self.dropped.fetch_add(dropped, Ordering::Relaxed);
            })
        };
        if sent.and_then(|()| self.send(level, target, message, named)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send(
        &self,
        level: Level,
        target: &str,
        message: &str,
        named: &[(&'static str, String)],
    ) -> io::Result<()> {
        let mut entry = Vec::new();
        put(&mut entry, "PRIORITY", priority(level));
        put(&mut entry, "SYSLOG_IDENTIFIER", self.stream.identifier);
        put(&mut entry, "MESSAGE", message);
        put(&mut entry, "TRIGGER_TARGET", target);
        for (name, value) in named {
            put(&mut entry, &journal_name(name), value);
        }
        self.socket.send(&entry).map(drop)
    }
}

impl<S> Layer<S> for Journal
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Fields::of_span(attributes));
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            fields.record(record);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::of_event(event);
        // The innermost span first, so that its values count.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.inherit(of_span);
            }
        }
        let metadata = event.metadata();
        self.log(*metadata.level(), metadata.target(), &fields.line(), fields.named());
    }
}

/// syslog's number of a level.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// The name of a field in the journal, which allows capitals, digits and underscores.
fn journal_name(name: &str) -> String {
    let mut journal_name = String::from("TRIGGER_");
    for char in name.chars() {
        let _ = write!(
            journal_name,
            "{}",
            if char.is_ascii_alphanumeric() { char.to_ascii_uppercase() } else { '_' }
        );
    }
    journal_name
}

/// Appends a field in the form that allows any value: the name on a line, the length as 64 bits, the value.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value.as_bytes()[..value.len().min(MAX_FIELD_BYTES)];
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// The entry that `log` sends, as lines of `NAME=value`.
    fn entry(log: impl FnOnce()) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(Journal::connect(&path, LOG).unwrap());
        tracing::subscriber::with_default(subscriber, log);
        let mut bytes = vec![0; 64 * 1024];
        let received = journal.recv(&mut bytes).unwrap();
        let mut rest = &bytes[..received];
        let mut lines = Vec::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
            let (name, after) = rest.split_at(end);
            let (length, after) = after[1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            lines.push(format!("{}={}", text(name), text(&after[..length])));
            rest = &after[length + 1..];
        }
        lines
    }

    #[test]
    fn fields_of_the_event_and_of_its_spans_become_fields_of_the_entry() {
        let lines = entry(|| {
            let span = tracing::info_span!("run", run = "r1", certname = "web01");
            span.in_scope(|| tracing::warn!(event = "e1", run = "r2", reason = "a b", "delivery\ncompleted"));
        });
        let expected = [
            "PRIORITY=4",
            "SYSLOG_IDENTIFIER=trigger",
            "MESSAGE=delivery completed event=e1 run=r2 reason=\"a b\" certname=web01",
            "TRIGGER_TARGET=trigger::logging::journal::tests",
            "TRIGGER_EVENT=e1",
            "TRIGGER_RUN=r2",
            "TRIGGER_REASON=a b",
            "TRIGGER_CERTNAME=web01",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_journal_that_does_not_keep_up_costs_entries_and_they_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::connect(&path, LOG).unwrap();
        let log = |message: &str| journal.log(Level::INFO, "t", message, &[]);
        let mut sent = 0;
        while journal.dropped.load(Ordering::Relaxed) < 3 {
            log("an entry");
            sent += 1;
        }
        let mut bytes = [0; 1024];
        for _ in 0..sent - 3 {
            socket.recv(&mut bytes).unwrap();
        }
        log("after");
        let expected = ["3 entries of the log dropped here", "after"];
        for text in expected {
            let received = socket.recv(&mut bytes).unwrap();
            assert!(String::from_utf8_lossy(&bytes[..received]).contains(text));
        }
    }

    #[test]
    fn a_message_from_outside_is_one_line() {
        let lines = entry(|| tracing::warn!(reason = %"a\u{1b}[2J\nb", "held: {}", "x\r\nforged\u{202e}"));
        assert_eq!(lines[2], r#"MESSAGE=held: x forged\u{202e} reason="a\u{1b}[2J\nb""#);
        assert_eq!(lines[4], "TRIGGER_REASON=a\u{1b}[2J\nb", "a field of its own stays exact");
    }

    #[test]
    fn values_that_a_span_gets_later_count() {
        let lines = entry(|| {
            let span = tracing::info_span!("run", outcome = tracing::field::Empty);
            span.record("outcome", "changed");
            span.in_scope(|| tracing::info!("run ended"));
        });
        assert!(lines.contains(&"MESSAGE=run ended outcome=changed".to_owned()), "{lines:?}");
    }

    #[test]
    fn a_huge_value_does_not_lose_the_entry() {
        let lines = entry(|| tracing::info!(output = "x".repeat(1_000_000), "run ended"));
        assert_eq!(lines[4].len(), "TRIGGER_OUTPUT=".len() + MAX_FIELD_BYTES);
    }
}
