//! Reads the content of a hub's file, without the hub.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::Connection;

/// The prefix of all keys of the trial.
pub(crate) const PREFIX: &str = "/puppet_trigger/events/";

/// Returns the keys in the file of a hub that is not running, without their common prefix. The file stays unchanged:
/// this opens a copy.
pub(crate) fn keys_in(file: &Path) -> Result<BTreeSet<String>, String> {
    let failed =
        |error: &dyn std::fmt::Display| format!("cannot read the keys in {}: {error}", file.display());
    let scratch = tempfile::tempdir().map_err(|error| failed(&error))?;
    let copy = scratch.path().join("copy");
    std::fs::copy(file, &copy).map_err(|error| failed(&error))?;
    // These hold the writes that a killed hub had not yet moved into the file.
    for ending in ["-wal", "-shm"] {
        let mut beside = file.as_os_str().to_owned();
        beside.push(ending);
        if Path::new(&beside).exists() {
            let to = scratch.path().join(format!("copy{ending}"));
            std::fs::copy(&beside, to).map_err(|error| failed(&error))?;
        }
    }
    read(&copy).map_err(|error| failed(&error))
}

fn read(file: &Path) -> rusqlite::Result<BTreeSet<String>> {
    let connection = Connection::open(file)?;
    let mut select = connection.prepare("SELECT key FROM entries")?;
    let keys = select.query_map([], |row| row.get::<_, String>(0))?;
    keys.map(|key| key.map(|key| key.strip_prefix(PREFIX).map_or(key.clone(), str::to_owned))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_also_while_they_are_in_the_log_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hub.sqlite");
        let hub = Connection::open(&file).unwrap();
        hub.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        hub.execute("CREATE TABLE entries (key TEXT, value TEXT, revision INTEGER)", []).unwrap();
        let insert = "INSERT INTO entries (key) VALUES ('/puppet_trigger/events/deliveries/n01/e1')";
        hub.execute(insert, []).unwrap();
        assert_eq!(keys_in(&file), Ok(BTreeSet::from(["deliveries/n01/e1".to_owned()])));
    }
}
