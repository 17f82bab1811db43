//! Reads the output of a run from this node's own file, for a reader here or elsewhere.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use trigger_core::identity::{Certname, RunId};
use trigger_core::run_log::{MAX_OUTPUT_BYTES, RunChoice};

use crate::state::{FileError, Runs, at};

/// A part of the output of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOutput {
    /// The run.
    pub run: RunId,
    /// Where the part begins, in bytes from the start of the file.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// Whether the run has ended and this is the end of its output.
    pub is_over: bool,
    /// The part: at most [`MAX_OUTPUT_BYTES`].
    pub bytes: Vec<u8>,
}

/// Reads what follows after `from` of the output of a run of `certname`, or its end where that is too long or nothing was
/// read before. Of a run in progress, whole lines. `None` if there is no such run.
///
/// # Errors
/// A [`FileError`] if a file cannot be read.
pub fn read(
    runs: &Runs,
    choice: RunChoice,
    from: Option<u64>,
    certname: &Certname,
) -> Result<Option<RunOutput>, FileError> {
    let Some(run) = runs.choose(choice, certname)? else { return Ok(None) };
    let paths = runs.paths(run);
    // In this order: what was written before the end is read after it.
    let is_over = paths.has_ended()?;
    let path = paths.output();
    let (from, mut bytes) = read_end(&path, from).map_err(at("read", &path))?;
    if !is_over && let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
        bytes.truncate(end + 1);
    } else if !is_over && bytes.len() < MAX_OUTPUT_BYTES {
        bytes.clear();
    }
    Ok(Some(RunOutput { run, from, to: from + bytes.len() as u64, is_over, bytes }))
}

/// The last bytes of a file, after `from` if that is not more, and where they begin: at a line, if any were skipped.
fn read_end(path: &Path, from: Option<u64>) -> io::Result<(u64, Vec<u8>)> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, Vec::new())),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    let earliest = length.saturating_sub(MAX_OUTPUT_BYTES as u64);
    // The file is shorter than what was read before: its oldest lines were dropped meanwhile.
    let wanted = from.filter(|from| *from <= length).unwrap_or_default();
    let start = wanted.max(earliest);
    let mut bytes = vec![0; usize::try_from(length - start).unwrap_or(MAX_OUTPUT_BYTES)];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], start + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    let partial = if start > wanted { bytes.iter().position(|byte| *byte == b'\n') } else { None };
    let skipped = partial.map_or(0, |end| end + 1);
    Ok((start + skipped as u64, bytes.split_off(skipped)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_end_of_a_file_begins_at_a_line_and_what_was_read_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(read_end(&path, None).unwrap(), (0, Vec::new()), "a run that has written nothing");
        fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(read_end(&path, None).unwrap(), (0, b"one\ntwo\n".to_vec()));
        assert_eq!(read_end(&path, Some(4)).unwrap(), (4, b"two\n".to_vec()));
        assert_eq!(read_end(&path, Some(8)).unwrap(), (8, Vec::new()));
        assert_eq!(read_end(&path, Some(9)).unwrap(), (0, b"one\ntwo\n".to_vec()), "it was bounded");

        let line = format!("{}\n", "x".repeat(99));
        fs::write(&path, line.repeat(1000)).unwrap();
        let (from, bytes) = read_end(&path, None).unwrap();
        assert_eq!((from % 100, from + bytes.len() as u64), (0, 100_000));
        assert!(bytes.len() <= MAX_OUTPUT_BYTES && bytes.len() > MAX_OUTPUT_BYTES - 100);
        assert_eq!(read_end(&path, Some(8)).unwrap().0, from, "too much was written since");
    }
}
