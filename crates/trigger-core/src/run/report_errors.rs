//! What Puppet's report of a run says about errors (C9): the first resource that failed, and the messages that matter for
//! the verdict. Unlike [`ReportSummary`](super::report::ReportSummary), this reads the whole file, so only the report of a
//! run that did not end well is read in this way.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, StrInput};

/// The most characters of one message that are kept.
const MAX_MESSAGE_CHARS: usize = 1000;
/// The most anchored texts that are kept for the aliases that refer to them, and the most quoted lines.
const MAX_KEPT: usize = 10_000;

/// The errors in a report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReportErrors {
    /// The resource that failed first, in the order in which Puppet evaluated the resources.
    pub first_failed: Option<FailedResource>,
    /// How many resources failed.
    pub failed: usize,
    /// The resource whose evaluation was begun and not ended, as where Puppet ended in the middle of a catalog. Puppet
    /// records neither a failure nor an event of it.
    pub unfinished: Option<String>,
    /// The first message of the level `err`, with its source.
    pub first_error: Option<String>,
    /// The last message of the report.
    pub last_message: Option<LogMessage>,
    /// The lines after the first of messages with several lines, where such a line looks like one of Puppet's own. On the
    /// console nothing distinguishes them from Puppet's own.
    pub quoted_lines: Vec<String>,
}

/// A resource that failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FailedResource {
    /// Its reference, such as `File[/etc/motd]`.
    pub resource: String,
    /// The error of its first failed event; empty where the report has none.
    pub message: String,
}

/// One message of the report's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogMessage {
    /// Its level, such as `notice`.
    pub level: String,
    /// Where it comes from: `Puppet`, or a resource.
    pub source: String,
    /// Its text.
    pub message: String,
}

impl ReportErrors {
    /// Reads a report. Whatever follows a mistake in its YAML is ignored.
    pub fn parse(yaml: &str) -> Self {
        let mut errors = Self::default();
        let mut reader = Reader { parser: Parser::new_from_str(yaml), anchored: HashMap::new() };
        // The first mapping is the report itself.
        while let Some(event) = reader.next() {
            if let Event::MappingStart(..) = event {
                let _ = reader.fields(|reader, field, value| match field {
                    "logs" => reader.items(value, |reader, entry| errors.read_message(reader, entry)),
                    "resource_statuses" => errors.read_resources(reader, value),
                    _ => reader.skip(&value),
                });
                break;
            }
        }
        errors
    }

    fn read_message<'a>(&mut self, reader: &mut Reader<'a>, entry: Event<'a>) -> Option<()> {
        let mut log = LogMessage::default();
        reader.fields_of(entry, |reader, field, value| match field {
            "level" => reader.text_into(&value, &mut log.level),
            "source" => reader.text_into(&value, &mut log.source),
            "message" => reader.text_into(&value, &mut log.message),
            _ => reader.skip(&value),
        })?;
        let room = MAX_KEPT.saturating_sub(self.quoted_lines.len());
        let quoted = log.message.lines().skip(1).filter(|line| looks_like_puppets(line));
        self.quoted_lines.extend(quoted.take(room).map(str::to_owned));
        log.message = bounded(&log.message);
        if log.level == "err" && self.first_error.is_none() {
            self.first_error = Some(match log.source.as_str() {
                "Puppet" => log.message.clone(),
                source => format!("{source}: {}", log.message),
            });
        }
        self.last_message = Some(log);
        Some(())
    }

    fn read_resources<'a>(&mut self, reader: &mut Reader<'a>, value: Event<'a>) -> Option<()> {
        reader.fields_of(value, |reader, resource, status| {
            let (mut has_failed, mut was_skipped, mut has_time) = (false, false, false);
            let mut message = String::new();
            reader.fields_of(status, |reader, field, value| match field {
                "failed" | "failed_to_restart" => {
                    has_failed |= reader.text(&value).as_deref() == Some("true");
                    reader.skip(&value)
                }
                "skipped" => {
                    was_skipped = reader.text(&value).as_deref() == Some("true");
                    reader.skip(&value)
                }
                "evaluation_time" => {
                    has_time = reader.text(&value).is_some_and(|time| time.parse::<f64>().is_ok());
                    reader.skip(&value)
                }
                "events" => reader.items(value, |reader, event| {
                    let error = read_event(reader, event)?;
                    if let (true, Some(error)) = (message.is_empty(), error) {
                        message = bounded(&error);
                    }
                    Some(())
                }),
                _ => reader.skip(&value),
            })?;
            if has_failed {
                self.failed += 1;
                let failed = FailedResource { resource: resource.to_owned(), message };
                self.first_failed.get_or_insert(failed);
            } else if !has_time && !was_skipped {
                // Puppet writes the resources in the order in which it comes to them.
                self.unfinished = Some(resource.to_owned());
            }
            Some(())
        })
    }
}

/// Reads an event of a resource. The inner value is its message if it is a failure.
fn read_event<'a>(reader: &mut Reader<'a>, event: Event<'a>) -> Option<Option<String>> {
    let (mut status, mut message) = (String::new(), String::new());
    reader.fields_of(event, |reader, field, value| match field {
        "status" => reader.text_into(&value, &mut status),
        "message" => reader.text_into(&value, &mut message),
        _ => reader.skip(&value),
    })?;
    Some((status == "failure").then_some(message))
}

/// Whether a line has the form of a line that Puppet itself prints on the console.
fn looks_like_puppets(line: &str) -> bool {
    line == "Exiting" || line.starts_with("Error: ") || line.starts_with("Notice: ")
}

fn bounded(message: &str) -> String {
    message.chars().take(MAX_MESSAGE_CHARS).collect()
}

/// Reads YAML event by event. Every method returns `None` where the text ends or is not YAML.
struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// The texts that aliases may refer to. Ruby writes one for a text that occurs again as the same object.
    anchored: HashMap<usize, String>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<Event<'a>> {
        let (event, _) = self.parser.next()?.ok()?;
        if let Event::Scalar(text, _, anchor, _) = &event
            && *anchor != 0
            && self.anchored.len() < MAX_KEPT
        {
            self.anchored.insert(*anchor, text.to_string());
        }
        Some(event)
    }

    /// The text of a scalar value.
    fn text(&self, value: &Event<'a>) -> Option<String> {
        match value {
            Event::Scalar(text, ..) => Some(text.to_string()),
            Event::Alias(anchor) => self.anchored.get(anchor).cloned(),
            _ => None,
        }
    }

    fn text_into(&mut self, value: &Event<'a>, into: &mut String) -> Option<()> {
        *into = self.text(value).unwrap_or_default();
        self.skip(value)
    }

    /// Reads the rest of a value that begins with `first`.
    fn skip(&mut self, first: &Event<'a>) -> Option<()> {
        let mut depth = depth_change(first);
        while depth > 0 {
            depth += depth_change(&self.next()?);
        }
        Some(())
    }

    /// Calls `each` for the fields of the mapping whose start was just read. It has to read the whole value.
    fn fields(&mut self, mut each: impl FnMut(&mut Self, &str, Event<'a>) -> Option<()>) -> Option<()> {
        loop {
            let key = match self.next()? {
                Event::MappingEnd => return Some(()),
                key => key,
            };
            let name = self.text(&key);
            self.skip(&key)?;
            let value = self.next()?;
            match name {
                Some(name) => each(self, &name, value)?,
                None => self.skip(&value)?,
            }
        }
    }

    /// Like [`Self::fields`], for a value that begins with `first`. It may be something else than a mapping.
    fn fields_of(
        &mut self,
        first: Event<'a>,
        each: impl FnMut(&mut Self, &str, Event<'a>) -> Option<()>,
    ) -> Option<()> {
        match first {
            Event::MappingStart(..) => self.fields(each),
            other => self.skip(&other),
        }
    }

    /// Calls `each` for the items of a sequence that begins with `first`. It has to read the whole item.
    fn items(
        &mut self,
        first: Event<'a>,
        mut each: impl FnMut(&mut Self, Event<'a>) -> Option<()>,
    ) -> Option<()> {
        if !matches!(first, Event::SequenceStart(..)) {
            return self.skip(&first);
        }
        loop {
            match self.next()? {
                Event::SequenceEnd => return Some(()),
                item => each(self, item)?,
            }
        }
    }
}

fn depth_change(event: &Event<'_>) -> i64 {
    match event {
        Event::MappingStart(..) | Event::SequenceStart(..) => 1,
        Event::MappingEnd | Event::SequenceEnd => -1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of a real report of Puppet 7.
    const REPORT: &str = r#"--- !ruby/object:Puppet::Transaction::Report
host: vm
status: failed
logs:
- level: info
  message: Using environment 'production'
  source: Puppet
  tags:
  - info
- level: err
  message: |-
    Could not run command from prerun_command: returned 1: set
    Exiting
    Error: Could not run: SIGTERM
    more
  source: Puppet
- level: notice
  message: Caught TERM; exiting
  source: Puppet
metrics:
  resources:
    values:
    - - total
      - Total
      - 3
resource_statuses:
  File[/a]:
    resource: File[/a]
    evaluation_time: 0.1
    failed: false
    failed_to_restart: false
    events:
    - message: defined content
      status: success
  Exec[b]:
    tags: &1
    - exec
    failed: true
    failed_to_restart: false
    events:
    - message: 'change from ''notrun'' to [''0''] failed: ''printf "x\n"; exit 1''
        returned 1 instead of one of [0]'
      status: failure
  Schedule[daily]:
    evaluation_time:
    skipped: true
  Kaput[x]:
    evaluation_time:
    failed: false
    skipped: false
    events: []
  ? Service[c]
  : failed: false
    failed_to_restart: true
    events: []
catalog_uuid: x
"#;

    #[test]
    fn the_first_failed_resource_is_found_with_its_error() {
        let errors = ReportErrors::parse(REPORT);
        assert_eq!(
            errors.first_failed,
            Some(FailedResource {
                resource: "Exec[b]".to_owned(),
                message: r#"change from 'notrun' to ['0'] failed: 'printf "x\n"; exit 1' returned 1 instead of one of [0]"#
                    .to_owned(),
            })
        );
        assert_eq!(errors.failed, 2);
        assert_eq!(errors.unfinished.as_deref(), Some("Kaput[x]"), "its evaluation took no time yet");
    }

    #[test]
    fn messages_keep_their_bounds_and_lines_that_imitate_puppet_are_known() {
        let errors = ReportErrors::parse(REPORT);
        assert_eq!(errors.quoted_lines, ["Exiting", "Error: Could not run: SIGTERM"]);
        let last = errors.last_message.unwrap();
        assert_eq!((last.level.as_str(), last.source.as_str()), ("notice", "Puppet"));
        assert_eq!(last.message, "Caught TERM; exiting");
        assert!(errors.first_error.unwrap().starts_with("Could not run command from prerun_command"));
    }

    #[test]
    fn an_alias_stands_for_its_text_and_nonsense_for_nothing() {
        let text = "logs:\n- level: err\n  source: &1 /Exec[x]\n  message: &2 broken\n- level: notice\n  source: *1\n  message: *2\n";
        let errors = ReportErrors::parse(text);
        assert_eq!(errors.first_error.as_deref(), Some("/Exec[x]: broken"));
        assert_eq!(errors.last_message.unwrap().message, "broken");
        for nonsense in ["", "\u{0}garbage", "- a\n- b", "logs: {", "resource_statuses:\n  x: [1"] {
            assert_eq!(ReportErrors::parse(nonsense), ReportErrors::default(), "{nonsense}");
        }
    }
}
