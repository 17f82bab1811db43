//! Writing for people and for programs. Data goes to standard output, everything else to standard error;
//! with `--output json`, warnings and errors are fields of the one document.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde_json::{Value, json};
use trigger_core::delivery::DeliveryState;
use trigger_core::identity::GroupName;
use trigger_core::time::Timestamp;

use super::OutputFormat;
use trigger_node::failure::Failure;

/// Blanks between two columns of a table.
const COLUMN_GAP: usize = 2;
/// Before what stands below a row of a table.
const BELOW: &str = "    ";

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
        OutputFormat::Text | OutputFormat::Dot => {
            self::warnings(warnings);
            note(&format!("error: {}", failure.message));
        }
    }
}

/// The groups that the loop guard left out, with its reasons.
pub(super) fn suppressed_groups(groups: &BTreeMap<GroupName, String>) -> Value {
    let group = |(group, reason): (&GroupName, &String)| json!({ "group": group.as_str(), "reason": reason });
    groups.iter().map(group).collect()
}

/// A table without lines. It is plain where there is no terminal.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = unruled();
    if !io::stdout().is_terminal() {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    table
}

fn unruled() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Prints a table; on a terminal, what it has no room for stands below its row.
pub(super) fn print_table(table: &Table) {
    // Nobody wraps what a program reads.
    let width = if io::stdout().is_terminal() { textwrap::termwidth() } else { usize::MAX };
    print(&table_lines(table, width).join("\n"));
}

/// A row is one line of the columns that fit, in one piece, since they are copied into the next command; below it
/// the others, each with its column's name.
fn table_lines(table: &Table, width: usize) -> Vec<String> {
    let fitting = fitting_columns(table, width);
    let rows: Vec<Vec<&Cell>> = table.row_iter().map(|row| row.cell_iter().collect()).collect();
    let header: Vec<&Cell> = table.header().map(|row| row.cell_iter().collect()).unwrap_or_default();
    if fitting == header.len() {
        return trimmed(table);
    }
    let mut upper = unruled();
    if !table.is_tty() {
        upper.force_no_tty();
    }
    upper.set_header(header.iter().take(fitting).copied().cloned());
    upper.add_rows(rows.iter().map(|row| row.iter().take(fitting).copied().cloned().collect::<Vec<_>>()));
    let mut upper_lines = trimmed(&upper).into_iter();
    let mut lines: Vec<String> = upper_lines.next().into_iter().collect();
    for (line, row) in upper_lines.zip(&rows) {
        lines.push(line);
        let below: Vec<String> = header
            .iter()
            .zip(row)
            .skip(fitting)
            .map(|(name, cell)| (name.content().to_lowercase(), one_line(&cell.content())))
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| format!("{name}: {text}"))
            .collect();
        if !below.is_empty() {
            let options = textwrap::Options::new(width)
                .initial_indent(BELOW)
                .subsequent_indent(BELOW)
                .word_splitter(textwrap::WordSplitter::NoHyphenation)
                .break_words(false);
            lines.extend(textwrap::wrap(&below.join("  "), options).into_iter().map(Into::into));
        }
    }
    lines
}

/// How many of the first columns fit side by side; the very first always does.
fn fitting_columns(table: &Table, width: usize) -> usize {
    let mut used = 0;
    let widths = table.column_max_content_widths();
    let fits = |&(index, column): &(usize, &u16)| {
        used += usize::from(*column);
        let is_in_one_line = table
            .row_iter()
            .all(|row| row.cell_iter().nth(index).is_none_or(|cell| !cell.content().contains('\n')));
        let fits = used <= width && (is_in_one_line || width == usize::MAX);
        used += COLUMN_GAP;
        fits
    };
    widths.iter().enumerate().take_while(fits).count().max(1)
}

/// A table's lines without the blanks that pad them and their left edge.
fn trimmed(table: &Table) -> Vec<String> {
    let mut table = table.clone();
    for column in table.column_iter_mut() {
        column.set_padding((0, u16::try_from(COLUMN_GAP).unwrap_or_default()));
    }
    table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect()
}

/// A reason may hold several lines of Puppet's.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A state in its colour; colours show on terminals only.
pub(super) fn state_cell(state: DeliveryState) -> Cell {
    let cell = Cell::new(state.as_str());
    match state {
        DeliveryState::Done => cell.fg(Color::Green),
        DeliveryState::Failed | DeliveryState::Refused | DeliveryState::Expired => cell.fg(Color::Red),
        DeliveryState::Held
        | DeliveryState::Retrying
        | DeliveryState::Suppressed
        | DeliveryState::Spooled => cell.fg(Color::Yellow),
        DeliveryState::Running => cell.fg(Color::Cyan),
        DeliveryState::Pending | DeliveryState::Superseded => cell,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(width: usize, expected: &[&str]) {
        let mut table = table(&["CERTNAME", "STATE", "REASON"]);
        table.force_no_tty();
        table.add_row(["lb01.example.com", "held", "Puppet is disabled\nhere: for the afternoon"]);
        table.add_row(["web01.example.com", "done", ""]);
        assert_eq!(table_lines(&table, width), expected);
    }

    #[test]
    fn what_a_terminal_has_no_room_for_stands_below_its_row() {
        check(
            40,
            &[
                "CERTNAME           STATE",
                "lb01.example.com   held",
                "    reason: Puppet is disabled here: for",
                "    the afternoon",
                "web01.example.com  done",
            ],
        );
    }

    #[test]
    fn names_stay_in_one_piece_on_the_narrowest_terminal() {
        let lines = [
            "CERTNAME",
            "lb01.example.com",
            "    state:",
            "    held",
            "    reason:",
            "    Puppet",
            "    is",
            "    disabled",
            "    here:",
            "    for",
            "    the",
            "    afternoon",
            "web01.example.com",
            "    state:",
            "    done",
        ];
        check(10, &lines);
    }
}
