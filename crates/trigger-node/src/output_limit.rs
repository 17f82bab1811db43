//! The bound of a run's output file. The supervisor keeps it while the run goes on, and afterwards for as long as a process
//! that the run left behind writes to the file. The agent keeps it too, for runs whose supervisor was killed.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

/// Bytes of output before the oldest are dropped.
const MAX_OUTPUT_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of output that stay when the oldest are dropped.
const OUTPUT_KEEP: u64 = 1024 * 1024;
/// How often the output is checked after the end of its run.
const GUARD_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps the newest output when there is too much of it.
pub(crate) fn bound_output(path: &Path) {
    let is_too_long = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > MAX_OUTPUT_BYTES);
    if is_too_long && let Err(error) = open(path).and_then(|file| bound(&file)) {
        tracing::warn!(path = %path.display(), %error, "cannot bound the run's output");
    }
}

/// Returns the output file if another process has it open for writing: all of a run's processes share the lock of the
/// file that they inherit.
pub(crate) fn written_by_others(path: &Path) -> Option<File> {
    let file = open(path).ok()?;
    is_written(&file).then_some(file)
}

/// Bounds the file until no other process writes to it, also if it has been removed meanwhile: then it takes up space
/// all the same.
pub(crate) async fn guard(file: &File) {
    while is_written(file) {
        if let Err(error) = bound(file) {
            tracing::warn!(%error, "cannot bound the run's output");
        }
        tokio::time::sleep(GUARD_INTERVAL).await;
    }
    if let Err(error) = bound(file) {
        tracing::warn!(%error, "cannot bound the run's output");
    }
}

fn is_written(file: &File) -> bool {
    match file.try_lock_shared() {
        Ok(()) => {
            let _ = file.unlock();
            false
        }
        Err(error) => matches!(error, TryLockError::WouldBlock),
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).append(true).open(path)
}

/// The run appends meanwhile: output that it writes between the reading and the truncation here is lost too, which the
/// note in the file says.
fn bound(mut file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length <= MAX_OUTPUT_BYTES {
        return Ok(());
    }
    file.seek(SeekFrom::Start(length - OUTPUT_KEEP))?;
    let mut tail = Vec::new();
    file.take(OUTPUT_KEEP).read_to_end(&mut tail)?;
    file.set_len(0)?;
    let note = format!(
        "[about {} bytes of output were dropped here: only the newest are kept]\n",
        length - OUTPUT_KEEP
    );
    file.write_all(note.as_bytes())?;
    file.write_all(&tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test(start_paused = true)]
    async fn a_file_is_bounded_until_its_last_writer_has_gone_and_also_when_it_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(written_by_others(&path).is_none(), "there is no file");
        let mut writer = open_new(&path);
        writer.lock().unwrap();
        let ours = written_by_others(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let chunk = vec![b'x'; 3 * 1024 * 1024];
        let writes = async {
            for _ in 0..10 {
                writer.write_all(&chunk).unwrap();
                tokio::time::sleep(GUARD_INTERVAL).await;
                let length = writer.metadata().unwrap().len();
                assert!(length <= MAX_OUTPUT_BYTES + chunk.len() as u64, "{length}");
            }
            writer.write_all(&chunk).unwrap();
            writer.write_all(b"the end").unwrap();
            drop(writer);
        };
        tokio::join!(guard(&ours), writes);
        let mut text = String::new();
        (&ours).seek(SeekFrom::Start(0)).unwrap();
        (&ours).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("[about ") && text.ends_with("the end"));
        assert!(text.len() as u64 <= MAX_OUTPUT_BYTES);
    }

    #[test]
    fn a_file_that_is_not_too_long_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "short").unwrap();
        bound_output(&path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        fs::write(&path, vec![b'x'; 5 * 1024 * 1024]).unwrap();
        bound_output(&path);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("[about 4194304 bytes of output were dropped here"), "{}", text.len());
    }

    fn open_new(path: &Path) -> File {
        File::options().create(true).append(true).open(path).unwrap()
    }
}
