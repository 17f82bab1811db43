//! A machine's disk: synced data survives a power loss, unsynced data may or may not. A file has content and names,
//! which become durable separately: the content with the file, the names with their directory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A file's identity, independent of its names.
pub(crate) type Inode = u64;

/// Files and their names.
#[derive(Debug, Clone, Default)]
struct Tree {
    names: BTreeMap<String, Inode>,
    files: BTreeMap<Inode, File>,
}

#[derive(Debug, Clone, Default)]
struct File {
    content: Vec<u8>,
    changed_at: Duration,
}

/// A machine's files by their path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    /// The state that the processes see.
    seen: Tree,
    /// The state that is certain to survive a power loss.
    durable: Tree,
    /// The changes since then, in order, with their times.
    unsynced: Vec<(Duration, Change)>,
    latest: Inode,
    now: Duration,
}

/// The time after which the system writes back unsynced changes.
const WRITTEN_BACK_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
enum Change {
    Create { path: String, inode: Inode },
    Rename { from: String, to: String },
    Remove { path: String },
    Append { inode: Inode, content: Vec<u8> },
    Overwrite { inode: Inode, content: Vec<u8> },
    Truncate { inode: Inode },
}

impl Change {
    /// Returns whether a sync of the file makes this change durable: its content, and its first name.
    fn is_of(&self, file: Inode) -> bool {
        match self {
            Self::Create { inode, .. }
            | Self::Append { inode, .. }
            | Self::Overwrite { inode, .. }
            | Self::Truncate { inode } => *inode == file,
            Self::Rename { .. } | Self::Remove { .. } => false,
        }
    }

    fn is_in(&self, dir: &str) -> bool {
        match self {
            Self::Create { path, .. } | Self::Remove { path } => parent(path) == dir,
            Self::Rename { from, to } => parent(from) == dir || parent(to) == dir,
            Self::Append { .. } | Self::Overwrite { .. } | Self::Truncate { .. } => false,
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Tree {
    fn apply(&mut self, at: Duration, change: Change) {
        match change {
            Change::Create { path, inode } => {
                self.files.entry(inode).or_insert(File { content: Vec::new(), changed_at: at });
                self.link(path, inode);
            }
            Change::Rename { from, to } => {
                if let Some(inode) = self.names.remove(&from) {
                    self.link(to, inode);
                }
            }
            Change::Remove { path } => {
                if let Some(inode) = self.names.remove(&path) {
                    self.files.remove(&inode);
                }
            }
            Change::Append { inode, content } => {
                self.edit(at, inode, |file| file.extend_from_slice(&content));
            }
            Change::Overwrite { inode, content } => self.edit(at, inode, |file| {
                file.resize(file.len().max(content.len()), 0);
                file[..content.len()].copy_from_slice(&content);
            }),
            Change::Truncate { inode } => self.edit(at, inode, Vec::clear),
        }
    }

    /// Changes a file's content. A file that has lost its last name no longer exists.
    fn edit(&mut self, at: Duration, inode: Inode, edit: impl FnOnce(&mut Vec<u8>)) {
        if let Some(file) = self.files.get_mut(&inode) {
            edit(&mut file.content);
            file.changed_at = at;
        }
    }

    fn link(&mut self, path: String, inode: Inode) {
        if let Some(replaced) = self.names.insert(path, inode)
            && replaced != inode
        {
            self.files.remove(&replaced);
        }
    }

    fn read(&self, path: &str) -> Option<&[u8]> {
        self.files.get(self.names.get(path)?).map(|file| file.content.as_slice())
    }

    /// Removes the files without a name, as the machine's start does.
    fn drop_nameless(&mut self) {
        let named: BTreeSet<Inode> = self.names.values().copied().collect();
        self.files.retain(|inode, _| named.contains(inode));
    }
}

impl Disk {
    /// Advances the time and writes back old changes.
    pub(crate) fn at(&mut self, now: Duration) -> &mut Self {
        self.now = now;
        let is_old = |at: Duration| now.saturating_sub(at) > WRITTEN_BACK_AFTER;
        // Changes are written back in the order in which they were made.
        if self.unsynced.first().is_some_and(|(at, _)| is_old(*at)) {
            let young = self.unsynced.partition_point(|(at, _)| is_old(*at));
            for (at, change) in self.unsynced.drain(..young) {
                self.durable.apply(at, change);
            }
        }
        self
    }

    pub(crate) fn inode(&self, path: &str) -> Option<Inode> {
        self.seen.names.get(path).copied()
    }

    pub(crate) fn read(&self, path: &str) -> Option<&[u8]> {
        self.seen.read(path)
    }

    /// Returns a file's content as text; the product writes only text.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(self.read(path)?).ok()
    }

    /// Returns the content of a file that may have lost its name.
    pub(crate) fn content(&self, inode: Inode) -> &[u8] {
        self.seen.files.get(&inode).map(|file| file.content.as_slice()).unwrap_or_default()
    }

    /// Returns whether a file would survive a power loss.
    pub(crate) fn is_durable(&self, path: &str) -> bool {
        self.durable.read(path).is_some_and(|content| Some(content) == self.read(path))
    }

    /// Returns when a file's content was last changed.
    pub(crate) fn changed_at(&self, path: &str) -> Option<Duration> {
        self.seen.files.get(self.seen.names.get(path)?).map(|file| file.changed_at)
    }

    /// Returns the files in a directory, by path.
    pub(crate) fn list<'a>(&'a self, dir: &'a str) -> impl Iterator<Item = &'a str> {
        let paths = self.seen.names.range(format!("{dir}/")..).map(|(path, _)| path.as_str());
        let inside = move |path: &&str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
        paths.take_while(inside).filter(move |path| parent(path) == dir)
    }

    /// Creates an empty file.
    pub(crate) fn create(&mut self, path: &str) -> Inode {
        self.latest += 1;
        let inode = self.latest;
        self.change(Change::Create { path: path.to_owned(), inode });
        inode
    }

    /// Appends to a file, without a sync.
    pub(crate) fn append(&mut self, inode: Inode, content: &[u8]) {
        self.change(Change::Append { inode, content: content.to_owned() });
    }

    /// Overwrites the beginning of a file, without a sync.
    pub(crate) fn overwrite(&mut self, inode: Inode, content: &[u8]) {
        self.change(Change::Overwrite { inode, content: content.to_owned() });
    }

    /// Truncates a file, without a sync.
    pub(crate) fn truncate(&mut self, inode: Inode) {
        self.change(Change::Truncate { inode });
    }

    /// Moves a file, without a sync. Returns whether it existed.
    pub(crate) fn rename(&mut self, from: &str, to: &str) -> bool {
        let is_there = self.seen.names.contains_key(from);
        if is_there {
            self.change(Change::Rename { from: from.to_owned(), to: to.to_owned() });
        }
        is_there
    }

    /// Removes a file, without a sync. Returns whether it existed.
    pub(crate) fn remove(&mut self, path: &str) -> bool {
        let is_there = self.seen.names.contains_key(path);
        if is_there {
            self.change(Change::Remove { path: path.to_owned() });
        }
        is_there
    }

    /// Makes a file's content and its first name durable, and with the name every earlier change in the directory,
    /// since a journal keeps the order.
    pub(crate) fn sync(&mut self, inode: Inode) {
        let creates = |(_, change): &(Duration, Change)| match change {
            Change::Create { path, inode: new } if *new == inode => Some(parent(path).to_owned()),
            _ => None,
        };
        if let Some(at) = self.unsynced.iter().position(|change| creates(change).is_some())
            && let Some(dir) = creates(&self.unsynced[at])
        {
            for (at, change) in self.unsynced.extract_if(..=at, |(_, change)| change.is_in(&dir)) {
                self.durable.apply(at, change);
            }
        }
        for (at, change) in self.unsynced.extract_if(.., |(_, change)| change.is_of(inode)) {
            self.durable.apply(at, change);
        }
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&mut self, dir: &str) {
        for (at, change) in self.unsynced.extract_if(.., |(_, change)| change.is_in(dir)) {
            self.durable.apply(at, change);
        }
    }

    /// Simulates a power loss: each unsynced change may have reached the disk or not.
    pub(crate) fn lose_power(&mut self, rng: &mut fastrand::Rng) -> usize {
        let mut lost = 0;
        for (at, mut change) in self.unsynced.drain(..) {
            match &mut change {
                // Only half of the data was written.
                Change::Append { content, .. } | Change::Overwrite { content, .. } if rng.u8(..4) == 0 => {
                    lost += 1;
                    content.truncate(content.len() / 2);
                    self.durable.apply(at, change);
                }
                _ if rng.bool() => self.durable.apply(at, change),
                _ => lost += 1,
            }
        }
        self.durable.drop_nameless();
        self.seen = self.durable.clone();
        lost
    }

    /// Returns a copy of the files on another disk, where all of them are durable.
    pub(crate) fn copy(&self) -> Self {
        let mut seen = self.seen.clone();
        seen.drop_nameless();
        Self { durable: seen.clone(), seen, unsynced: Vec::new(), latest: self.latest, now: self.now }
    }

    fn change(&mut self, change: Change) {
        self.seen.apply(self.now, change.clone());
        self.unsynced.push((self.now, change));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survives(prepare: impl Fn(&mut Disk)) -> usize {
        let kept = |seed| {
            let mut disk = Disk::default();
            prepare(&mut disk);
            disk.lose_power(&mut fastrand::Rng::with_seed(seed));
            disk.text("d/a") == Some("new")
        };
        (0..100).filter(|&seed| kept(seed)).count()
    }

    fn write(disk: &mut Disk, path: &str) -> Inode {
        let inode = disk.create(path);
        disk.append(inode, b"new");
        inode
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_sometimes() {
        let synced = |disk: &mut Disk| {
            let inode = write(disk, "d/a");
            disk.sync(inode);
        };
        assert_eq!(survives(synced), 100);
        let unsynced = |disk: &mut Disk| {
            write(disk, "d/a");
        };
        let sometimes = survives(unsynced);
        assert!((10..80).contains(&sometimes), "{sometimes}");
    }

    #[test]
    fn a_synced_file_outlives_an_earlier_one_of_its_name() {
        let again = |disk: &mut Disk| {
            write(disk, "d/b");
            disk.remove("d/b");
            let inode = write(disk, "d/b");
            disk.sync(inode);
            disk.rename("d/b", "d/a");
            disk.sync_dir("d");
        };
        assert_eq!(survives(again), 100);
    }

    #[test]
    fn a_new_name_is_durable_with_its_directory_only() {
        let moved = |disk: &mut Disk| {
            let inode = write(disk, "d/b");
            disk.sync(inode);
            disk.rename("d/b", "d/a");
        };
        let sometimes = survives(moved);
        assert!((20..80).contains(&sometimes), "{sometimes}");
        let synced = |disk: &mut Disk| {
            moved(disk);
            disk.sync_dir("d");
        };
        assert_eq!(survives(synced), 100);
    }
}
