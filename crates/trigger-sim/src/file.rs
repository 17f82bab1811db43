//! Open files of simulated processes. The process may die at each change of a file.

use std::io;
use std::path::Path;

use trigger_node::host::HostFile;

use crate::disk::Inode;
use crate::file_lock::Lock;
use crate::process::Proc;
use crate::tasks::ProcessId;
use crate::world::World;

fn gone() -> io::Error {
    io::Error::other("this process is no more")
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

impl Proc {
    /// Reads something, if the process is alive.
    pub(crate) fn look<T>(&self, act: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        self.act(act).unwrap_or_else(|| Err(gone()))
    }

    /// Changes something, unless the process dies first.
    pub(crate) fn change<T>(
        &self,
        what: &str,
        path: &str,
        act: impl FnOnce(&mut World) -> io::Result<T>,
    ) -> io::Result<T> {
        self.look(|world| {
            if world.may_crash(self, what) {
                return Err(gone());
            }
            world.note(format_args!("m{} p{} {what} {path}", self.machine, self.id.0));
            act(world)
        })
    }

    fn append(&self, file: Inode, path: &str, content: &[u8]) -> io::Result<()> {
        self.change("writes", path, |world| {
            world.check_written(self.machine, path, content);
            let room = world.room_for(self.machine, content.len());
            world.disk(self.machine).append(file, &content[..room]);
            if room < content.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }
}

/// An open file of a simulated process.
#[derive(Debug)]
pub(crate) struct SimFile {
    pub(crate) own: Proc,
    pub(crate) inode: Inode,
    /// Distinguishes it from other open files, including those of the same process.
    pub(crate) handle: u64,
    pub(crate) path: String,
    pub(crate) position: usize,
}

impl SimFile {
    /// Hands the file and its lock over to another process.
    pub(crate) fn hand_over(mut self, to: &Proc) {
        self.own.sim.with(|world| world.hand_over_lock(self.own.machine, self.inode, self.handle, to.id));
        // This handle has nothing to unlock any more.
        self.handle = 0;
    }

    fn take_lock(&self, is_shared: bool) -> io::Result<bool> {
        let own = &self.own;
        own.look(|world| Ok(world.take_lock(own.machine, self.inode, own.id, self.handle, is_shared)))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.own.sim.with(|world| world.unlock(self.own.machine, self.inode, self.handle));
    }
}

impl HostFile for SimFile {
    fn lock(&self) -> io::Result<()> {
        if !self.take_lock(false)? {
            // Another task holds the lock across an await, so this thread would wait without end.
            let detail = format!("{} is locked", self.path);
            self.own.act(|world| world.violate("no lock is waited for within a step", detail));
        }
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.take_lock(false)
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        self.take_lock(true)
    }

    fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let content = self.own.look(|world| {
            let content = world.disk(self.own.machine).content(self.inode);
            Ok(content.get(self.position..).unwrap_or_default().to_owned())
        })?;
        self.position += content.len();
        Ok(content)
    }

    fn write_all(&mut self, content: &[u8]) -> io::Result<()> {
        self.own.append(self.inode, &self.path, content)
    }

    fn write_all_at(&self, content: &[u8], _: u64) -> io::Result<()> {
        // The product overwrites only one of its files in place, and only at its beginning.
        self.own.change("writes over", &self.path, |world| {
            world.check_written(self.own.machine, &self.path, content);
            world.disk(self.own.machine).overwrite(self.inode, content);
            Ok(())
        })
    }

    fn truncate(&mut self) -> io::Result<()> {
        self.position = 0;
        self.own.change("empties", &self.path, |world| {
            world.disk(self.own.machine).truncate(self.inode);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.own.change("syncs", &self.path, |world| {
            world.disk(self.own.machine).sync(self.inode);
            Ok(())
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn is_at(&self, path: &Path) -> bool {
        self.own.sim.with(|world| world.disk(self.own.machine).inode(text(path)) == Some(self.inode))
    }
}

impl World {
    pub(crate) fn new_handle(&mut self) -> u64 {
        self.handles += 1;
        self.handles
    }

    fn take_lock(
        &mut self,
        machine: usize,
        inode: Inode,
        holder: ProcessId,
        handle: u64,
        is_shared: bool,
    ) -> bool {
        let locks = self.machines[machine].locks.entry(inode).or_default();
        let is_free = locks.iter().all(|lock| lock.handle == handle || (is_shared && lock.is_shared));
        if is_free {
            locks.retain(|lock| lock.handle != handle);
            locks.push(Lock { holder, handle, is_shared });
        }
        is_free
    }

    fn unlock(&mut self, machine: usize, inode: Inode, handle: u64) {
        if let Some(locks) = self.machines[machine].locks.get_mut(&inode) {
            locks.retain(|lock| lock.handle != handle);
            if locks.is_empty() {
                self.machines[machine].locks.remove(&inode);
            }
        }
    }

    fn hand_over_lock(&mut self, machine: usize, inode: Inode, handle: u64, to: ProcessId) {
        for lock in self.machines[machine].locks.get_mut(&inode).into_iter().flatten() {
            if lock.handle == handle {
                lock.holder = to;
            }
        }
    }

    pub(crate) fn holder_of_lock(&self, machine: usize, inode: Inode) -> Option<ProcessId> {
        let locks = self.machines[machine].locks.get(&inode)?;
        locks.iter().find(|lock| !lock.is_shared).map(|lock| lock.holder)
    }

    /// Returns how many of so many bytes the disk accepts.
    fn room_for(&mut self, machine: usize, bytes: usize) -> usize {
        if !self.machines[machine].is_full {
            return bytes;
        }
        self.count("write that the disk had no room for");
        if self.rng.bool() { 0 } else { self.rng.usize(..bytes.max(1)) }
    }
}
