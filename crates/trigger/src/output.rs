//! Printing for people and for programs. Results go to standard output, everything else to standard error; with
//! `--output json`, warnings and errors are fields of the one document on standard output.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;
use trigger_core::delivery::DeliveryState;
use trigger_core::time::Timestamp;

/// Blanks between two columns of a table.
const COLUMN_GAP: usize = 2;
/// The indent of the lines below a row of a table.
const INDENT: &str = "    ";

/// Prints to standard output. A closed pipe (`| head`) is not an error.
pub(crate) fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
}

/// Prints a document of [`crate::documents`] on one line.
pub(crate) fn document(document: &impl Serialize) {
    match serde_json::to_string(document) {
        Ok(text) => print(&text),
        // Documents hold strings, numbers and lists of them.
        Err(error) => unreachable!("a document cannot be serialised: {error}"),
    }
}

/// Prints to standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

pub(crate) fn warnings(warnings: &[String]) {
    for warning in warnings {
        note(&format!("warning: {warning}"));
    }
}

/// A table without lines; without colours unless standard output is a terminal.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = empty_table();
    if !io::stdout().is_terminal() {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    table
}

fn empty_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Prints a table; on a terminal, the columns that it has no room for are printed below their row.
pub(crate) fn print_table(table: &Table) {
    print(&table_lines(table, width()).join("\n"));
}

/// The width of standard output. Lines that another program reads are not wrapped.
pub(crate) fn width() -> usize {
    if io::stdout().is_terminal() { textwrap::termwidth() } else { usize::MAX }
}

/// Prints the columns that fit on one line of a row, unwrapped, because people copy ids and names into the next
/// command. The other columns follow below the row, each with its column's name.
fn table_lines(table: &Table, width: usize) -> Vec<String> {
    let fitting = fitting_columns(table, width);
    let rows: Vec<Vec<&Cell>> = table.row_iter().map(|row| row.cell_iter().collect()).collect();
    let header: Vec<&Cell> = table.header().map(|row| row.cell_iter().collect()).unwrap_or_default();
    if fitting == header.len() {
        return trimmed(table);
    }
    let mut upper = empty_table();
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
                .initial_indent(INDENT)
                .subsequent_indent(INDENT)
                .word_splitter(textwrap::WordSplitter::NoHyphenation)
                .break_words(false);
            lines.extend(textwrap::wrap(&below.join("  "), options).into_iter().map(Into::into));
        }
    }
    lines
}

/// How many of the first columns fit side by side; at least one.
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

/// A table's lines without padding at their ends.
fn trimmed(table: &Table) -> Vec<String> {
    let mut table = table.clone();
    for column in table.column_iter_mut() {
        column.set_padding((0, u16::try_from(COLUMN_GAP).unwrap_or_default()));
    }
    table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect()
}

/// A reason on one line; it may hold several lines from Puppet.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A state in its colour, which only terminals show.
pub(crate) fn state_cell(state: DeliveryState) -> Cell {
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

/// A time in UTC, to the second.
pub(crate) fn short_time(at: Timestamp) -> String {
    let ms = i64::try_from(at.as_unix_ms()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| "?".to_owned(), |time| format!("{time:.0}"))
}

pub(crate) use trigger_core::count::count;

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
    fn columns_that_do_not_fit_follow_below_their_row() {
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
    fn names_are_not_broken_on_the_narrowest_terminal() {
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
