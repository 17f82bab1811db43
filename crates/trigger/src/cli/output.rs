//! Writing for people and for programs. Data goes to standard output, everything else to standard error;
//! with `--output json`, warnings and errors are fields of the one document.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};
use serde_json::{Value, json};
use trigger_core::status::State;
use trigger_core::time::Timestamp;

use super::OutputFormat;
use crate::exit::Failure;

/// Prints to standard output. A reader that went away (`| head`) is no failure of ours.
pub(super) fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
}

pub(super) fn print_json(value: &Value) {
    print(&value.to_string());
}

/// Prints to standard error.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

pub(super) fn warnings(warnings: &[String]) {
    for warning in warnings {
        note(&format!("warning: {warning}"));
    }
}

/// Tells of a failure, with the warnings that came before it.
pub(super) fn failure(format: OutputFormat, failure: &Failure, warnings: &[String]) {
    match format {
        OutputFormat::Json => print_json(&json!({ "error": failure.message, "warnings": warnings })),
        OutputFormat::Text => {
            self::warnings(warnings);
            note(&format!("error: {}", failure.message));
        }
    }
}

/// A table without lines, as wide as the terminal; plain where there is none.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !io::stdout().is_terminal() {
        table.force_no_tty().set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if let Some(first) = table.column_mut(0) {
        // What is copied into the next command stays in one piece.
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

/// Prints a table without the blanks that pad its lines and its left edge.
pub(super) fn print_table(table: &Table) {
    let lines: Vec<String> =
        table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect();
    print(&lines.join("\n"));
}

/// A state in its colour; colours show on terminals only.
pub(super) fn state_cell(state: State) -> Cell {
    let cell = Cell::new(state.as_str());
    match state {
        State::Done => cell.fg(Color::Green),
        State::Failed | State::Refused | State::Expired => cell.fg(Color::Red),
        State::Held | State::Retrying | State::Suppressed | State::Spooled => cell.fg(Color::Yellow),
        State::Running => cell.fg(Color::Cyan),
        State::Pending | State::Superseded => cell,
    }
}

/// RFC 3339 in UTC.
pub(super) fn time(at: Timestamp) -> String {
    let ms = i64::try_from(at.as_unix_ms()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| "?".to_owned(), |time| format!("{time:.3}"))
}

/// The same without milliseconds, for tables.
pub(super) fn short_time(at: Timestamp) -> String {
    let ms = i64::try_from(at.as_unix_ms()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| "?".to_owned(), |time| format!("{time:.0}"))
}

/// `1 node`, `2 nodes`.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
