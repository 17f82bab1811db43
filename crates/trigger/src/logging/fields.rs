//! The fields of an event or a span.

use std::fmt::{self, Write};

use tracing::Event;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Record};

use crate::clean;

/// Names with values, in the order in which they were recorded.
#[derive(Debug, Default)]
pub(super) struct Fields {
    message: String,
    named: Vec<(&'static str, String)>,
}

impl Fields {
    pub(super) fn of_event(event: &Event<'_>) -> Self {
        let mut fields = Self::default();
        event.record(&mut fields);
        fields
    }

    pub(super) fn of_span(attributes: &Attributes<'_>) -> Self {
        let mut fields = Self::default();
        attributes.record(&mut fields);
        fields
    }

    /// Adds fields that a span got later.
    pub(super) fn record(&mut self, record: &Record<'_>) {
        record.record(self);
    }

    /// Adds the fields of an enclosing span, except those that are there already.
    pub(super) fn inherit(&mut self, span: &Self) {
        for (name, value) in &span.named {
            if !self.named.iter().any(|(known, _)| known == name) {
                self.named.push((name, value.clone()));
            }
        }
    }

    pub(super) fn named(&self) -> &[(&'static str, String)] {
        &self.named
    }

    /// One line for people: `delivery completed event=… run=…`.
    pub(super) fn line(&self) -> String {
        let mut line = self.message.clone();
        for (name, value) in &self.named {
            let gap = if line.is_empty() { "" } else { " " };
            let is_one_word =
                !value.is_empty() && !value.contains(|char: char| char.is_whitespace() || char == '"');
            let _ = if is_one_word {
                write!(line, "{gap}{name}={value}")
            } else {
                write!(line, "{gap}{name}={value:?}")
            };
        }
        clean::line(&line).into_owned()
    }

    /// A sentence as the commands print it: `cannot write: no space (path=…)`.
    pub(super) fn sentence(&self) -> String {
        let (error, others): (Vec<_>, Vec<_>) = self.named.iter().partition(|(name, _)| *name == "error");
        let mut sentence = self.message.clone();
        for (_, error) in error {
            let _ = write!(sentence, ": {error}");
        }
        if !others.is_empty() {
            let others: Vec<String> = others.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let _ = write!(sentence, " ({})", others.join(", "));
        }
        sentence
    }

    fn set(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => {
                self.named.retain(|(known, _)| *known != name);
                self.named.push((name, value));
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.to_owned());
    }
}
