//! A simulated machine as the shipped code sees it. Its process may die at each change of a file. From then on its
//! operations on files, other processes and the backend have no effect, and it is removed at its next await.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;
use trigger_core::identity::RunId;
use trigger_core::publication::Publication;
use trigger_core::time::Timestamp;
use trigger_node::agent_socket::NoReply;
use trigger_node::fire_error::{BackendError, FireError};
use trigger_node::firing::FireReport;
use trigger_node::host::{Host, HostFile, Open};
use trigger_node::state::{FileError, at};
use trigger_store::backend::Backend;
use trigger_store::credentials::Credentials;
use trigger_store::url::BackendUrl;
use uuid::Uuid;

use crate::file::{SimFile, text};
use crate::process::Proc;
use crate::run;
use crate::tasks::ProcessId;
use crate::world::{Ask, Kind, World};

impl Host for Proc {
    type File = SimFile;
    type Task = ();

    // This is so little that the records of many events do not fit.
    const PREALLOCATED_BYTES: usize = 2 * 1024;

    fn wall(&self) -> Timestamp {
        self.sim.with(|world| world.wall(self.machine))
    }

    fn elapsed(&self) -> Duration {
        self.sim.with(|world| world.now.saturating_sub(self.started))
    }

    fn sleep(&self, wait: Duration) -> impl Future<Output = ()> + Send + use<> {
        let is_alive = self.sim.with(|world| world.is_alive(self.id));
        self.sim.sleep(if is_alive { wait } else { Duration::MAX })
    }

    fn jitter(&self) -> f64 {
        self.sim.with(|world| world.rng.f64())
    }

    fn new_ordered_uuid(&self) -> Uuid {
        self.sim.with(|world| world.new_uuid(self.machine))
    }

    fn new_instance(&self) -> String {
        self.sim.with(|world| {
            let new = format!("i{}-{:x}", self.id.0, world.rng.u32(..));
            let instance = world.machines[self.machine].remembered_instance.take().unwrap_or(new);
            world.instance_started(self.machine, &instance);
            instance
        })
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.act(|world| world.spawn(self.id, task));
    }

    async fn spawn_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.step("file work begins").await;
        let done = work();
        self.step("file work is done").await;
        done
    }

    fn create_private_dir(&self, _: &Path) -> io::Result<()> {
        self.look(|_| Ok(()))
    }

    fn restrict_dir(&self, _: &Path) -> io::Result<bool> {
        self.look(|_| Ok(false))
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<SimFile> {
        let path = text(path);
        let known = self.look(|world| Ok(world.disk(self.machine).inode(path)))?;
        let inode = match (known, how) {
            (Some(inode), Open::New) => self.change("empties", path, |world| {
                world.disk(self.machine).truncate(inode);
                Ok(inode)
            })?,
            (Some(inode), _) => inode,
            (None, Open::Read) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => self.change("creates", path, |world| Ok(world.disk(self.machine).create(path)))?,
        };
        let handle = self.sim.with(|world| world.new_handle());
        Ok(SimFile { own: self.clone(), inode, handle, path: path.to_owned(), position: 0 })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.look(|world| {
            let content = world.disk(self.machine).read(text(path));
            content.map(<[u8]>::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = self.open(path, Open::New)?;
        file.write_all(content)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (text(from), text(to));
        self.change("renames to", to, |world| {
            world.check_renamed(self.machine, from, to);
            world.check_hold_noted(self.machine, from, to);
            let is_done = world.disk(self.machine).rename(from, to);
            if is_done { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = text(path);
        if self.look(|world| Ok(world.disk(self.machine).inode(path)))?.is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change("removes", path, |world| {
            world.check_removed(path);
            world.disk(self.machine).remove(path);
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = text(path);
        self.change("syncs", path, |world| {
            world.disk(self.machine).sync_dir(path);
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.look(|world| Ok(world.disk(self.machine).list(text(path)).map(PathBuf::from).collect()))
    }

    fn is_file(&self, path: &Path) -> bool {
        self.sim.with(|world| world.disk(self.machine).inode(text(path)).is_some())
    }

    fn age(&self, path: &Path) -> Option<Duration> {
        let look = |world: &mut World| {
            let at = world.disk(self.machine).changed_at(text(path))?;
            Some(world.now.saturating_sub(at))
        };
        self.act(look).flatten()
    }

    fn lock_name(&self, _: &SimFile) -> Option<String> {
        Some(self.sim.with(|world| {
            let machine = &world.machines[self.machine];
            format!("{}-{}", machine.boot, machine.identity)
        }))
    }

    fn wait_until_unlocked(&self, path: &Path) -> impl Future<Output = Result<(), FileError>> + Send + use<> {
        let (own, path) = (self.clone(), path.to_owned());
        self.act(|world| world.check_awaited(self.id, text(&path)));
        async move {
            loop {
                let holder = own.look(|world| {
                    let inode = world.disk(own.machine).inode(text(&path));
                    let inode = inode.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
                    Ok(world.holder_of_lock(own.machine, inode))
                });
                match holder.map_err(at("open", &path))? {
                    Some(holder) => own.sim.exited(holder).await,
                    None => return Ok(()),
                }
            }
        }
    }

    fn pid(&self) -> u32 {
        self.id.0
    }

    fn name(&self) -> String {
        self.sim.with(|world| world.machines[self.machine].certname.to_string())
    }

    fn start_supervisor(&self, record: &Path, lock: SimFile) -> io::Result<()> {
        run::start_supervisor(self, record, lock)
    }

    async fn end_orphan(&self, note: Option<&str>, output: &Path) {
        self.step("run without a supervisor: ended").await;
        let noted = note.and_then(|note| note.split_once(' ')).and_then(|(pid, _)| pid.parse().ok());
        let run = output.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        self.act(|world| {
            if let Some(process) = noted.or_else(|| world.puppet_of(self.machine, run?)) {
                world.end_orphan(self.machine, process);
            }
        });
    }

    fn open_backend(&self, _: &BackendUrl, _: &Credentials) -> Result<Backend, BackendError> {
        Ok(Backend::Store(self.connect()))
    }

    async fn fire_by_agent(
        &self,
        _: &Path,
        publication: &Publication,
        ignores_pause: bool,
        timeout: Duration,
    ) -> Result<Result<FireReport, FireError>, NoReply> {
        let asked = self.act(|world| {
            let (sender, receiver) = oneshot::channel();
            let socket = world.machines[self.machine].socket.as_ref()?;
            let ask = Ask { publication: publication.clone(), ignores_pause, answer: sender };
            socket.fires.send(ask).ok()?;
            Some(receiver)
        });
        match select(asked.flatten().ok_or(NoReply::NoAgent)?, self.sim.sleep(timeout)).await {
            Either::Left((Ok(report), _)) => Ok(report),
            Either::Left((Err(_), _)) => Err(NoReply::NoAgent),
            Either::Right(_) => Err(NoReply::NotInTime),
        }
    }
}

impl World {
    /// The process that writes to a run's output.
    fn puppet_of(&self, machine: usize, run: RunId) -> Option<u32> {
        let is_its = |kind: Kind| matches!(kind, Kind::Puppet(puppet) if puppet == run);
        self.processes_of(machine, is_its).first().map(|process| process.0)
    }

    fn end_orphan(&mut self, machine: usize, process: u32) {
        let process = ProcessId(process);
        let is_run = |kind: Kind| matches!(kind, Kind::Puppet(_));
        if self.processes_of(machine, is_run).contains(&process) {
            self.count("run without a supervisor ended");
            self.end_process(process);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::draw_machine;
    use crate::executor::Sim;

    fn sim() -> Sim {
        let sim = Sim::new(World::new(0, false));
        sim.with(|world| {
            let machine = draw_machine(world, 0);
            world.machines.push(machine);
            // Here a process dies only when the test says so.
            world.faults_happen = false;
        });
        sim
    }

    #[test]
    fn a_process_that_is_no_more_changes_nothing() {
        let sim = sim();
        let own = Proc::start(&sim, 0, Kind::Fire);
        let path = Path::new("/state/a");
        own.write(path, b"before").unwrap();
        let mut file = own.open(path, Open::Append).unwrap();
        own.exit();
        file.write_all(b" and after").unwrap_err();
        own.rename(path, Path::new("/state/b")).unwrap_err();
        own.remove_file(path).unwrap_err();
        assert!(own.open(Path::new("/state/c"), Open::New).is_err());
        let other = Proc::start(&sim, 0, Kind::Fire);
        assert_eq!(other.read(path).unwrap(), b"before");
        assert_eq!(other.list(Path::new("/state")).unwrap(), [path]);
    }

    #[test]
    fn a_lock_lives_as_long_as_its_file_or_the_process_that_it_was_handed_to() {
        let sim = sim();
        let (own, other) = (Proc::start(&sim, 0, Kind::Agent), Proc::start(&sim, 0, Kind::Fire));
        let path = Path::new("/state/a");
        let open = |of: &Proc| of.open(path, Open::Append).unwrap();
        let file = open(&own);
        assert!(file.try_lock().unwrap());
        assert!(!open(&own).try_lock_shared().unwrap(), "another open file, though of the same process");
        drop(file);
        let file = open(&own);
        assert!(file.try_lock().unwrap());
        file.hand_over(&other);
        own.exit();
        let third = Proc::start(&sim, 0, Kind::Fire);
        assert!(!open(&third).try_lock().unwrap());
        other.exit();
        assert!(open(&third).try_lock().unwrap());
    }

    #[test]
    fn a_full_disk_takes_less_than_all_and_says_so() {
        let sim = sim();
        sim.with(|world| world.machines[0].is_full = true);
        let own = Proc::start(&sim, 0, Kind::Fire);
        let error = own.write(Path::new("/state/a"), b"content").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(own.read(Path::new("/state/a")).unwrap().len() < 7);
    }
}
