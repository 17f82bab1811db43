//! A machine's disk: what was synced survives a power loss, what was not may or may not.

use std::collections::BTreeMap;
use std::time::Duration;

/// A state directory's files by their path in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    /// As the processes see it.
    files: BTreeMap<String, String>,
    /// As a power loss leaves it at the least.
    synced: BTreeMap<String, String>,
    /// What was done since, in its order, and when.
    unsynced: Vec<(Duration, Change)>,
    now: Duration,
}

/// After so long the system has written back what nobody synced.
const WRITTEN_BACK_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
enum Change {
    Write { path: String, content: String },
    Overwrite { path: String, content: String },
    Append { path: String, text: String },
    Rename { from: String, to: String },
    Remove { path: String },
}

impl Change {
    fn concerns(&self, path: &str) -> bool {
        match self {
            Self::Write { path: own, .. }
            | Self::Overwrite { path: own, .. }
            | Self::Append { path: own, .. }
            | Self::Remove { path: own } => own == path,
            Self::Rename { from, to } => from == path || to == path,
        }
    }

    fn apply(self, files: &mut BTreeMap<String, String>) {
        match self {
            Self::Write { path, content } | Self::Overwrite { path, content } => {
                drop(files.insert(path, content));
            }
            Self::Append { path, text } => files.entry(path).or_default().push_str(&text),
            Self::Rename { from, to } => {
                if let Some(content) = files.remove(&from) {
                    files.insert(to, content);
                }
            }
            Self::Remove { path } => drop(files.remove(&path)),
        }
    }
}

impl Disk {
    /// Time goes on, and the system writes back what is old.
    pub(crate) fn at(&mut self, now: Duration) -> &mut Self {
        self.now = now;
        let is_old = |(at, _): &mut (Duration, Change)| now.saturating_sub(*at) > WRITTEN_BACK_AFTER;
        for (_, change) in self.unsynced.extract_if(.., is_old) {
            change.apply(&mut self.synced);
        }
        self
    }

    pub(crate) fn read(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether a power loss would leave this file.
    pub(crate) fn is_synced(&self, path: &str) -> bool {
        self.synced.contains_key(path)
    }

    /// Files whose path begins and ends so, by path.
    pub(crate) fn list<'a>(&'a self, begin: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
        let paths = self.files.range(begin.to_owned()..).map(|(path, _)| path.as_str());
        paths.take_while(move |path| path.starts_with(begin)).filter(move |path| path.ends_with(end))
    }

    /// Replaces a file; unsynced.
    pub(crate) fn write(&mut self, path: &str, content: String) {
        self.change(Change::Write { path: path.to_owned(), content });
    }

    /// Fills a blank file in its place; unsynced.
    pub(crate) fn overwrite(&mut self, path: &str, content: String) {
        self.change(Change::Overwrite { path: path.to_owned(), content });
    }

    /// Adds to a file, made if need be; unsynced.
    pub(crate) fn append(&mut self, path: &str, text: String) {
        self.change(Change::Append { path: path.to_owned(), text });
    }

    /// Moves a file; unsynced. Returns whether there was one.
    pub(crate) fn rename(&mut self, from: &str, to: &str) -> bool {
        let is_there = self.files.contains_key(from);
        if is_there {
            self.change(Change::Rename { from: from.to_owned(), to: to.to_owned() });
        }
        is_there
    }

    /// Removes a file; unsynced.
    pub(crate) fn remove(&mut self, path: &str) {
        if self.files.contains_key(path) {
            self.change(Change::Remove { path: path.to_owned() });
        }
    }

    /// Makes all that was done to a file durable.
    pub(crate) fn sync(&mut self, path: &str) {
        // A file that was moved takes with it what was done under its old name.
        let mut paths = vec![path.to_owned()];
        for (_, change) in self.unsynced.iter().rev() {
            if let Change::Rename { from, to } = change
                && paths.contains(to)
            {
                paths.push(from.clone());
            }
        }
        let is_ours = |(_, change): &mut (Duration, Change)| paths.iter().any(|path| change.concerns(path));
        for (_, change) in self.unsynced.extract_if(.., is_ours) {
            change.apply(&mut self.synced);
        }
    }

    /// Replaces a file: whole or not at all, whatever happens meanwhile.
    pub(crate) fn write_synced(&mut self, path: &str, content: String) {
        self.write(path, content);
        self.sync(path);
    }

    /// The power goes: of what was not synced, each change may have reached the disk.
    pub(crate) fn lose_power(&mut self, rng: &mut fastrand::Rng) -> usize {
        let mut lost = 0;
        for (_, change) in self.unsynced.drain(..) {
            match change {
                // Half of what was written over blanks.
                Change::Overwrite { path, content } if rng.u8(..4) == 0 => {
                    lost += 1;
                    let half = content.get(..content.len() / 2).unwrap_or_default().to_owned() + "  ";
                    Change::Overwrite { path, content: half }.apply(&mut self.synced);
                }
                // Half of what was appended.
                Change::Append { path, text } if rng.u8(..4) == 0 => {
                    lost += 1;
                    let half = text.get(..text.len() / 2).unwrap_or_default().to_owned();
                    Change::Append { path, text: half }.apply(&mut self.synced);
                }
                change if rng.bool() => change.apply(&mut self.synced),
                _ => lost += 1,
            }
        }
        self.files = self.synced.clone();
        lost
    }

    /// The same files on another disk, all of them durable there.
    pub(crate) fn copy(&self) -> Self {
        Self { files: self.files.clone(), synced: self.files.clone(), unsynced: Vec::new(), now: self.now }
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.files);
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
            disk.read("a") == Some("new")
        };
        (0..100).filter(|&seed| kept(seed)).count()
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_sometimes() {
        assert_eq!(survives(|disk| disk.write_synced("a", "new".to_owned())), 100);
        let sometimes = survives(|disk| disk.write("a", "new".to_owned()));
        assert!((20..80).contains(&sometimes), "{sometimes}");
        let moved = |disk: &mut Disk| {
            disk.write("b", "new".to_owned());
            disk.rename("b", "a");
            disk.sync("a");
        };
        assert_eq!(survives(moved), 100);
    }
}
