//! The bound of a run's output file. The supervisor keeps it while the run goes on, and afterwards for as long as a process
//! that the run left behind writes to the file. The agent keeps it too, for runs whose supervisor was killed. Two processes
//! that bound one file at once would drop all of it, so each takes a lock for the moment; the file's other lock, which its
//! writers share, is of another kind (fcntl(2) and flock(2)).

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

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
    is_locked(&file).then_some(file)
}

/// Bounds the file until no other process writes to it, also if it has been removed meanwhile: then it takes up space
/// all the same.
pub(crate) async fn guard(file: &File) {
    while is_locked(file) {
        if let Err(error) = bound(file) {
            tracing::warn!(%error, "cannot bound the run's output");
        }
        tokio::time::sleep(GUARD_INTERVAL).await;
    }
    if let Err(error) = bound(file) {
        tracing::warn!(%error, "cannot bound the run's output");
    }
}

/// Whether another process holds the lock of the file.
pub(crate) fn is_locked(file: &File) -> bool {
    match file.try_lock_shared() {
        Ok(()) => {
            let _ = file.unlock();
            false
        }
        Err(error) => matches!(error, TryLockError::WouldBlock),
    }
}

/// Not for appending: then Linux would also append what is to be written to the file's start.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

fn bound(file: &File) -> io::Result<()> {
    match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        // Another process is bounding it.
        Err(Errno::AGAIN | Errno::ACCESS) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let bounded = drop_the_oldest(file);
    fcntl_lock(file, FlockOperation::Unlock)?;
    bounded
}

/// Replaces the file's start by a note and the newest output, and cuts off the rest. Its writers append meanwhile: what
/// they write between the reading and the cut is lost too, which the note says; what they write afterwards follows.
fn drop_the_oldest(file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length <= MAX_OUTPUT_BYTES {
        return Ok(());
    }
    let dropped = length - OUTPUT_KEEP;
    let note = format!("[about {dropped} bytes of output were dropped here: only the newest are kept]\n");
    let mut kept = note.into_bytes();
    let note_length = kept.len();
    kept.resize(note_length + OUTPUT_KEEP as usize, 0);
    file.read_exact_at(&mut kept[note_length..], dropped)?;
    file.write_all_at(&kept, 0)?;
    file.set_len(kept.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::process::{Command, Stdio};

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

    #[test]
    fn what_is_written_while_the_oldest_is_dropped_comes_after_the_note_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = open_new(&path);
        let file = open(&path).unwrap();
        let writes = std::thread::spawn(move || {
            let mut line = vec![b' '; 4096];
            for number in 0..20_000 {
                writeln!(&mut line[4087..], "{number:>8}").unwrap();
                writer.write_all(&line).unwrap();
            }
        });
        let mut starts_with_note = false;
        while !writes.is_finished() {
            bound(&file).unwrap();
            let mut start = [0; 7];
            let _ = file.read_at(&mut start, 0).unwrap();
            assert!(!starts_with_note || start == *b"[about ", "{:?}", String::from_utf8_lossy(&start));
            starts_with_note = start == *b"[about ";
            std::thread::sleep(Duration::from_millis(1));
        }
        writes.join().unwrap();
        assert!(starts_with_note);
        let text = fs::read_to_string(&path).unwrap();
        // Where something was dropped, a line may be cut.
        let whole = text.lines().filter(|line| line.len() == 4095);
        let numbers: Vec<u32> = whole.map(|line| line.trim().parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "output is out of order");
    }

    /// Proves that only one process bounds a file at once. Such a lock is a process's, so this test is its own child.
    #[test]
    fn a_file_that_another_process_bounds_stays_as_it_is() {
        const NAME: &str = "output_limit::tests::a_file_that_another_process_bounds_stays_as_it_is";
        const VARIABLE: &str = "TRIGGER_TEST_BOUNDS_THIS_FILE";
        if let Some(path) = std::env::var_os(VARIABLE) {
            let file = open(Path::new(&path)).unwrap();
            fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
            fs::write(Path::new(&path).with_extension("locked"), "").unwrap();
            let _ = io::stdin().read(&mut [0]);
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, vec![b'x'; 5 * 1024 * 1024]).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(VARIABLE, &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !path.with_extension("locked").exists() {
            assert!(child.try_wait().unwrap().is_none(), "the other process has ended");
            std::thread::sleep(Duration::from_millis(10));
        }
        let length = || fs::metadata(&path).unwrap().len();
        bound_output(&path);
        assert_eq!(length(), 5 * 1024 * 1024);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        bound_output(&path);
        assert!((OUTPUT_KEEP..OUTPUT_KEEP + 1000).contains(&length()), "{}", length());
    }

    fn open_new(path: &Path) -> File {
        File::options().create(true).append(true).open(path).unwrap()
    }
}
