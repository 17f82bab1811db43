//! The machine that this program runs on.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};
use trigger_core::identity::Revision;
use trigger_core::publication::Publication;
use trigger_core::time::Timestamp;
use trigger_core::wire::Stored;
use trigger_store::backend::Backend;
use trigger_store::credentials::Credentials;
use trigger_store::url::BackendUrl;
use uuid::Uuid;

use crate::agent_socket::{self, NoReply, Reply, Request};
use crate::clock;
use crate::file_error::{FileError, at};
use crate::fire_error::{BackendError, FireError};
use crate::fire_report::{FireReport, Fired};
use crate::host::{Host, HostFile, Open};
use crate::process_tree;

/// This process on this machine.
#[derive(Debug, Clone, Copy)]
pub struct Os {
    start: Duration,
}

impl Os {
    /// Starts the clock of [`Host::elapsed`].
    pub fn start() -> Self {
        Self { start: clock::since_boot() }
    }
}

/// A tokio task that is aborted when this is dropped; see [`Host::Task`].
#[derive(Debug)]
pub struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Refuses what is no regular file: where only Trigger's own files are expected, nothing else is read or written.
fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

impl Host for Os {
    type File = File;
    type Task = Task;

    fn wall(&self) -> Timestamp {
        clock::wall()
    }

    fn elapsed(&self) -> Duration {
        clock::since_boot().saturating_sub(self.start)
    }

    fn sleep(&self, wait: Duration) -> impl Future<Output = ()> + Send + use<> {
        tokio::time::sleep(wait)
    }

    fn jitter(&self) -> f64 {
        // The random bits of a fresh UUIDv4; a crate for one number would be too much.
        let bits = Uuid::new_v4().as_u128() as u32;
        f64::from(bits) / f64::from(u32::MAX)
    }

    fn new_ordered_uuid(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn new_instance(&self) -> String {
        Uuid::new_v4().to_string()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Self::Task {
        Task(tokio::spawn(task.in_current_span()))
    }

    async fn spawn_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let span = Span::current();
        match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn create_private_dir(&self, path: &Path) -> io::Result<()> {
        trigger_files::create_dir(path)
    }

    fn restrict_dir(&self, path: &Path) -> io::Result<bool> {
        trigger_files::restrict_dir(path)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        path.canonicalize()
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Self::File> {
        let mut options = File::options();
        // To open a named pipe would wait for its other end.
        options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        match how {
            Open::Read => return options.read(true).open(path).and_then(regular),
            Open::New => options.read(true).write(true).create(true).truncate(true),
            Open::Append | Open::Lock => options.append(true).create(true),
            Open::ReadAppend => options.read(true).append(true).create(true),
        };
        trigger_files::open(&mut options, path).and_then(regular)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        HostFile::write_all(&mut self.open(path, Open::New)?, content)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path).and_then(|dir| dir.sync_all())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn is_file(&self, path: &Path) -> bool {
        path.is_file()
    }

    fn age(&self, path: &Path) -> Option<Duration> {
        fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?.elapsed().ok()
    }

    fn lock_name(&self, lock: &File) -> Option<String> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(name_on(boot.trim().parse().ok()?, &lock.metadata().ok()?).to_string())
    }

    fn wait_until_unlocked(&self, path: &Path) -> impl Future<Output = Result<(), FileError>> + Send + use<> {
        let path = path.to_owned();
        // A blocking thread waits for the lock. It starts now, because the caller may poll the future late.
        let waiting = tokio::task::spawn_blocking(move || {
            let file = File::open(&path).map_err(at("open", &path))?;
            file.lock_shared().map_err(at("wait for the lock on", &path))
        });
        async move {
            match waiting.await {
                Ok(unlocked) => unlocked,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn name(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    fn start_supervisor(&self, record: &Path, lock: File) -> io::Result<()> {
        // The program that runs now, even if a newer one has replaced its file.
        let spawned = Command::new("/proc/self/exe")
            .arg("supervise")
            .arg(record)
            .stdin(Stdio::from(lock))
            .stdout(Stdio::null())
            .spawn();
        // Its end is not awaited: it releases the lock, and tokio reaps the process.
        spawned.map(drop)
    }

    async fn end_orphan(&self, note: Option<&str>, output: &Path) {
        process_tree::end_orphan(note, output).await
    }

    #[cfg(feature = "clients")]
    fn open_backend(&self, url: &BackendUrl, credentials: &Credentials) -> Result<Backend, BackendError> {
        Ok(Backend::open(url, credentials)?)
    }

    #[cfg(not(feature = "clients"))]
    fn open_backend(&self, url: &BackendUrl, _: &Credentials) -> Result<Backend, BackendError> {
        Err(BackendError::NotBuiltIn { url: url.to_string() })
    }

    async fn fire_by_agent(
        &self,
        state_dir: &Path,
        publication: &Publication,
        ignores_pause: bool,
        timeout: Duration,
    ) -> Result<Result<FireReport, FireError>, NoReply> {
        let request = Request::Fire { publication: publication.to_wire(), ignores_pause };
        match agent_socket::ask(state_dir, &request, timeout).await? {
            Reply::Committed { revision, warnings } => {
                Ok(Ok(FireReport { fired: Fired::Committed(Revision(revision)), warnings }))
            }
            Reply::Spooled { reason, warnings } => {
                Ok(Ok(FireReport { fired: Fired::Spooled(reason), warnings }))
            }
            Reply::Failed { kind, message } => Ok(Err(FireError::ByAgent { kind, message })),
            // An agent of an older version.
            Reply::Queue(_) | Reply::Identity { .. } | Reply::Renamed | Reply::NotUnderstood { .. } => {
                Err(NoReply::NotUnderstood)
            }
        }
    }
}

fn name_on(boot: Uuid, lock: &Metadata) -> Uuid {
    Uuid::new_v5(&boot, format!("{} {}", lock.dev(), lock.ino()).as_bytes())
}

impl HostFile for File {
    fn lock(&self) -> io::Result<()> {
        Self::lock(self)
    }

    fn try_lock(&self) -> io::Result<bool> {
        taken(Self::try_lock(self))
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        taken(Self::try_lock_shared(self))
    }

    fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Read::read_to_end(self, &mut bytes)?;
        Ok(bytes)
    }

    fn write_all(&mut self, content: &[u8]) -> io::Result<()> {
        Write::write_all(self, content)
    }

    fn write_all_at(&self, content: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, content, offset)
    }

    fn truncate(&mut self) -> io::Result<()> {
        self.set_len(0)?;
        self.rewind()
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        Self::sync_all(self)
    }

    fn is_at(&self, path: &Path) -> bool {
        let same = |ours: Metadata| fs::metadata(path).is_ok_and(|there| there.ino() == ours.ino());
        self.metadata().is_ok_and(same)
    }
}

fn taken(locked: Result<(), TryLockError>) -> io::Result<bool> {
    match locked {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateDir;

    #[test]
    fn a_lock_has_one_name_on_one_boot_and_a_copy_has_another() {
        let scratch = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            StateDir::open(&scratch.path().join(name)).unwrap().lock_for_agent().unwrap().unwrap()
        };
        let os = Os::start();
        let lock = file("a");
        let copy = file("copy");
        assert_ne!(os.lock_name(&lock), os.lock_name(&copy));
        drop(lock);
        let again = file("a");
        let name = os.lock_name(&again);
        drop(again);
        assert!(name.is_some());
        assert_eq!(os.lock_name(&file("a")), name);
        let (boot, next_boot) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let metadata = copy.metadata().unwrap();
        assert_eq!(name_on(boot, &metadata), name_on(boot, &metadata));
        assert_ne!(name_on(boot, &metadata), name_on(next_boot, &metadata));
    }

    #[test]
    fn a_named_pipe_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("agent.lock");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for how in [Open::Read, Open::Append, Open::Lock, Open::ReadAppend, Open::New] {
            assert!(Os::start().open(&pipe, how).is_err());
        }
    }
}
