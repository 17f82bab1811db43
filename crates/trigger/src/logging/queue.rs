//! A bounded queue between the program and standard error. A thread of its own writes, so that nothing else waits for
//! the reader of a pipe, a slow terminal or a stuck disk. Entries that find no room are dropped and counted, and an
//! entry in their place says how many they were.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use trigger_core::count::count;

/// The most entries that wait.
const MAX_ENTRIES: usize = 4096;
/// The most bytes that wait.
const MAX_BYTES: usize = 1024 * 1024;
/// How long the writer waits before it writes again to a non-blocking descriptor that takes nothing.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// A handle to the queue; as a writer, it takes each text that is written to it as one entry.
#[derive(Debug, Clone)]
pub(super) struct LogQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// The text that stands for so many entries that were dropped.
    note: Note,
}

/// Makes the text that stands for entries that were dropped.
pub(super) type Note = fn(u64) -> Vec<u8>;

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Vec<u8>>,
    bytes: usize,
    /// How many entries found no room since the last one that did.
    dropped: u64,
    /// Whether an entry has been taken and is being written.
    is_writing: bool,
}

impl Waiting {
    /// Returns whether there is room. Once entries are dropped, there is room again when half of the queue is free, so
    /// that a slow reader gets long pieces of the log and not single entries.
    fn has_room(&self, bytes: usize) -> bool {
        let part = if self.dropped > 0 { 2 } else { 1 };
        self.entries.len() < MAX_ENTRIES / part && self.bytes + bytes <= MAX_BYTES / part
    }

    fn add(&mut self, entry: Vec<u8>) {
        self.bytes += entry.len();
        self.entries.push_back(entry);
    }

    /// Takes the next text to write: an entry, or after the last one the note of those that were dropped since.
    fn take(&mut self, note: Note) -> Option<Vec<u8>> {
        let entry = match self.entries.pop_front() {
            Some(entry) => {
                self.bytes -= entry.len();
                Some(entry)
            }
            None => (self.dropped > 0).then(|| note(std::mem::take(&mut self.dropped))),
        };
        self.is_writing = entry.is_some();
        entry
    }
}

impl LogQueue {
    /// Starts the thread that writes to `output`.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub(super) fn start(output: impl Write + Send + 'static, note: Note) -> io::Result<Self> {
        let shared = Arc::new(Shared { waiting: Mutex::default(), changed: Condvar::new(), note });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&theirs, output))?;
        Ok(Self { shared })
    }

    /// Adds an entry, or counts it as dropped. Never waits for the writer.
    pub(super) fn push(&self, entry: &[u8]) {
        let mut waiting = lock(&self.shared.waiting);
        if !waiting.has_room(entry.len()) {
            waiting.dropped += 1;
            return;
        }
        if waiting.dropped > 0 {
            let note = (self.shared.note)(std::mem::take(&mut waiting.dropped));
            waiting.add(note);
        }
        waiting.add(entry.to_owned());
        self.shared.changed.notify_all();
    }

    /// Waits until everything has been written, but at most for `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut waiting = lock(&self.shared.waiting);
        while !waiting.entries.is_empty() || waiting.is_writing || waiting.dropped > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.shared.changed.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Write for LogQueue {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        self.push(entry);
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The line of the log that stands for entries that were dropped.
pub(super) fn note_of(dropped: u64) -> Vec<u8> {
    let now = jiff::Timestamp::now();
    let entries = count(usize::try_from(dropped).unwrap_or(usize::MAX), "entry");
    format!("{now:.6}  WARN {entries} of the log dropped here: nothing took the log in time\n").into_bytes()
}

fn write_all(shared: &Shared, mut output: impl Write) {
    // How many entries could not be written since the last one that could, because a disk was full, for example.
    let mut lost = 0;
    loop {
        let mut waiting = lock(&shared.waiting);
        let entry = loop {
            match waiting.take(shared.note) {
                Some(entry) => break entry,
                None => waiting = shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(waiting);
        let written = if lost > 0 { write(&mut output, &(shared.note)(lost)) } else { Ok(()) };
        if written.is_ok() {
            lost = 0;
        }
        if written.and_then(|()| write(&mut output, &entry)).is_err() {
            lost += 1;
        }
        lock(&shared.waiting).is_writing = false;
        shared.changed.notify_all();
    }
}

/// Writes a whole entry. Waits where the descriptor is non-blocking, because another process that shares it has made it
/// so.
fn write(output: &mut impl Write, mut entry: &[u8]) -> io::Result<()> {
    while !entry.is_empty() {
        match output.write(entry) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => entry = &entry[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_INTERVAL),
            Err(error) => return Err(error),
        }
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// An output that takes a text for each permission.
    struct Gate {
        permissions: mpsc::Receiver<io::Result<()>>,
        written: mpsc::Sender<String>,
    }

    impl Write for Gate {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.permissions.recv().unwrap_or(Ok(()))?;
            let _ = self.written.send(String::from_utf8(text.to_vec()).unwrap());
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (LogQueue, mpsc::Sender<io::Result<()>>, mpsc::Receiver<String>) {
        let (permit, permissions) = mpsc::channel();
        let (written, texts) = mpsc::channel();
        (LogQueue::start(Gate { permissions, written }, note_of).unwrap(), permit, texts)
    }

    #[test]
    fn a_reader_that_does_not_read_costs_entries_and_no_time_and_they_are_counted() {
        let (mut reader, writer) = io::pipe().unwrap();
        let queue = LogQueue::start(writer, note_of).unwrap();
        let count = 3 * MAX_ENTRIES;
        let since = Instant::now();
        for number in 0..count {
            queue.push(format!("{number} {}\n", "x".repeat(100)).as_bytes());
        }
        queue.flush(Duration::from_millis(50));
        assert!(since.elapsed() < LIMIT, "nothing waits for the reader");
        let reading = thread::spawn(move || {
            let mut text = String::new();
            while !text.ends_with("after\n") {
                let mut bytes = [0; 64 * 1024];
                let read = reader.read(&mut bytes).unwrap();
                text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
            }
            text
        });
        queue.flush(LIMIT);
        queue.push(b"after\n");
        let text = reading.join().unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let notes: Vec<&&str> =
            lines.iter().filter(|line| line.contains("of the log dropped here")).collect();
        assert_eq!(notes.len(), 1, "{notes:?}");
        let words: Vec<&str> = notes[0].split_whitespace().collect();
        assert_eq!(words[1], "WARN");
        let dropped: usize = words[2].parse().unwrap();
        assert_eq!(lines.len() - 2 + dropped, count, "each entry is written or counted");
        assert!(lines[0].starts_with("0 ") && lines[lines.len() - 1] == "after");
    }

    #[test]
    fn the_note_stands_where_the_entries_are_missing() {
        let (queue, permit, texts) = gate();
        let huge = vec![b'x'; MAX_BYTES / 2];
        queue.push(b"first");
        while !lock(&queue.shared.waiting).is_writing {
            thread::yield_now();
        }
        queue.push(&huge);
        queue.push(&huge);
        queue.push(b"dropped");
        (0..3).for_each(|_| permit.send(Ok(())).unwrap());
        assert_eq!(texts.recv_timeout(LIMIT).unwrap(), "first");
        (0..2).for_each(|_| drop(texts.recv_timeout(LIMIT).unwrap()));
        permit.send(Ok(())).unwrap();
        assert!(texts.recv_timeout(LIMIT).unwrap().contains(" 1 entry of"), "without a further entry");
    }

    #[test]
    fn entries_that_cannot_be_written_are_counted_when_writing_goes_on() {
        let (queue, permit, texts) = gate();
        for _ in 0..2 {
            permit.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
            queue.push(b"lost");
            queue.flush(LIMIT);
        }
        drop(permit);
        queue.push(b"written");
        queue.flush(LIMIT);
        assert!(texts.try_recv().unwrap().contains(" 2 entries of the log dropped here"));
        assert_eq!(texts.try_recv().unwrap(), "written");
    }
}
