//! Printing for people and for programs. Results go to standard output, everything else to standard error; with
//! `--output json`, warnings and errors are fields of the one document on standard output.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, presets};
use serde::Serialize;
use trigger_core::delivery::DeliveryState;
use trigger_core::time::Timestamp;

use crate::clean;
use crate::logging;

/// Blanks between two columns of a table.
const COLUMN_GAP: usize = 2;
/// The indent of the lines below a row of a table.
const INDENT: &str = "    ";

/// Why standard output could not be written, since the first write that failed. Nothing is written after that, because
/// a result with a gap is worse than none.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Prints one line to standard output.
pub(crate) fn print(line: &str) {
    write(&clean::line(line));
}

/// Prints the heading of a part of the output, after an empty line.
pub(crate) fn print_heading(line: &str) {
    print_lines(["", line]);
}

/// Prints lines to standard output.
pub(crate) fn print_lines<T: AsRef<str>>(lines: impl IntoIterator<Item = T>) {
    let lines: Vec<String> = lines.into_iter().map(|line| clean::line(line.as_ref()).into_owned()).collect();
    write(&lines.join("\n"));
}

/// Prints a text that this program has laid out in lines.
pub(crate) fn print_page(page: &str) {
    write(&clean::lines(page));
}

/// Prints the help of the command line, which may have colours and holds nothing from outside.
pub(crate) fn print_help(help: &str) {
    write(help.trim_end_matches('\n'));
}

/// Prints a document of [`crate::documents`] on one line.
pub(crate) fn document(document: &impl Serialize) {
    match serde_json::to_string(document) {
        Ok(text) => write(&clean::json(&text)),
        // Documents hold strings, numbers and lists of them.
        Err(error) => unreachable!("a document cannot be serialised: {error}"),
    }
}

/// Writes a text and the end of its last line, in the only place that writes to standard output.
fn write(text: &str) {
    if FAILED.get().is_some() {
        return;
    }
    if let Err(error) = try_write(text) {
        let _ = FAILED.set(error);
    }
}

/// Writes past the buffer of [`io::stdout`], which keeps the end of a text until the program has ended, and takes a
/// standard output that is not open for writing for one that takes everything.
fn try_write(text: &str) -> io::Result<()> {
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    stdout.write_all(format!("{text}\n").as_bytes())
}

/// Returns why a part of the output could not be written, if that is so. A closed pipe (`| head`) is no error: its
/// reader has seen enough.
pub(crate) fn write_error() -> Option<&'static io::Error> {
    FAILED.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

/// Prints one line to standard error.
pub(crate) fn note(line: &str) {
    note_page(&clean::line(line));
}

/// Prints a text that this program has laid out in lines to standard error. In a daemon it goes the way of the log,
/// which waits for no reader.
pub(crate) fn note_page(page: &str) {
    let text = format!("{}\n", clean::lines(page));
    if !logging::write(&text) {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

pub(crate) fn warnings(warnings: &[String]) {
    for warning in warnings {
        note(&format!("warning: {warning}"));
    }
}

/// A table without lines; without colours unless standard output is a terminal. Each cell is one line.
pub(crate) struct Table(comfy_table::Table);

impl Table {
    pub(crate) fn add_row<T: Into<TableCell>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.0.add_row(cells.into_iter().map(|cell| cell.into().0));
    }
}

/// A cell of a [`Table`], made of a text or of a state.
pub(crate) struct TableCell(Cell);

impl From<&str> for TableCell {
    fn from(text: &str) -> Self {
        Self(Cell::new(clean::line(&one_line(text))))
    }
}

impl From<String> for TableCell {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&String> for TableCell {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

/// A state in its colour, which only terminals show.
impl From<DeliveryState> for TableCell {
    fn from(state: DeliveryState) -> Self {
        let cell = Cell::new(state.as_str());
        Self(match state {
            DeliveryState::Done => cell.fg(Color::Green),
            DeliveryState::Failed | DeliveryState::Refused | DeliveryState::Expired => cell.fg(Color::Red),
            DeliveryState::Held
            | DeliveryState::Retrying
            | DeliveryState::Suppressed
            | DeliveryState::Spooled => cell.fg(Color::Yellow),
            DeliveryState::Running => cell.fg(Color::Cyan),
            DeliveryState::Pending | DeliveryState::Superseded | DeliveryState::Cancelled => cell,
        })
    }
}

pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = empty_table();
    if !io::stdout().is_terminal() {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    Table(table)
}

fn empty_table() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Prints a table; on a terminal, the columns that it has no room for are printed below their row.
pub(crate) fn print_table(table: &Table) {
    write(&table_lines(&table.0, width()).join("\n"));
}

/// The width of standard output. Lines that another program reads are not wrapped.
pub(crate) fn width() -> usize {
    if io::stdout().is_terminal() { textwrap::termwidth() } else { usize::MAX }
}

/// Prints the columns that fit on one line of a row, unwrapped, because people copy ids and names into the next
/// command. The other columns follow below the row, each with its column's name.
fn table_lines(table: &comfy_table::Table, width: usize) -> Vec<String> {
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
            .map(|(name, cell)| (name.content().to_lowercase(), cell.content()))
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
fn fitting_columns(table: &comfy_table::Table, width: usize) -> usize {
    let mut used = 0;
    let widths = table.column_max_content_widths();
    let fits = |column: &&u16| {
        used += usize::from(**column);
        let fits = used <= width;
        used += COLUMN_GAP;
        fits
    };
    widths.iter().take_while(fits).count().max(1)
}

/// A table's lines without padding at their ends.
fn trimmed(table: &comfy_table::Table) -> Vec<String> {
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
        table.0.force_no_tty();
        table.add_row(["lb01.example.com", "held", "Puppet is disabled\nhere: for the afternoon"]);
        table.add_row(["web01.example.com", "done", ""]);
        assert_eq!(table_lines(&table.0, width), expected);
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
