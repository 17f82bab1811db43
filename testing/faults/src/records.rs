//! Collects the records that the nodes keep of their runs: a node keeps only the latest hundred, and a trial may have
//! more.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::artifacts::Record;
use crate::journal::{Moment, now};

/// The interval between two collections: a hundred runs take longer, because they start at least a second apart.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
const RESULT: &str = ".result.json";

/// The records collected so far.
pub(crate) struct Records {
    homes: Vec<PathBuf>,
    known: Mutex<BTreeMap<String, Record>>,
    epoch: u64,
}

impl Records {
    /// Prepares to collect the records of the nodes in these directories.
    pub(crate) fn of(homes: Vec<PathBuf>) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = u64::try_from(since_1970.as_nanos()).unwrap_or_default().saturating_sub(now());
        Self { homes, known: Mutex::default(), epoch }
    }

    /// Returns the origin of the [`Moment`]s, in nanoseconds since 1970.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Collects repeatedly until `over`.
    pub(crate) fn keep_collecting(&self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            self.collect();
            sleep(POLL_INTERVAL);
        }
    }

    /// Collects once and returns all records known by now.
    pub(crate) fn collect(&self) -> BTreeMap<String, Record> {
        let Ok(mut known) = self.known.lock() else { return BTreeMap::new() };
        for home in &self.homes {
            let directory = home.join("state/runs");
            let names = fs::read_dir(&directory).into_iter().flatten().filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                Some(name.strip_suffix(RESULT)?.to_owned())
            });
            for run in names {
                if !known.contains_key(&run)
                    && let Some(record) = self.read(&directory, &run)
                {
                    known.insert(run, record);
                }
            }
        }
        known.clone()
    }

    /// Reads a record; `None` where the node is about to rename it or has just deleted it.
    fn read(&self, directory: &Path, run: &str) -> Option<Record> {
        let result = json(&directory.join(format!("{run}{RESULT}")))?;
        let record = [".json", ".ended.json"].map(|ending| json(&directory.join(format!("{run}{ending}"))));
        let record = record.into_iter().flatten().next()?;
        let causes = record["causes"].as_array()?.iter();
        Some(Record {
            certname: record["certname"].as_str()?.to_owned(),
            causes: causes.filter_map(|cause| cause["event"]["id"].as_str().map(str::to_owned)).collect(),
            outcome: result["outcome"].as_str()?.to_owned(),
            started: self.moment(record["started_at_unix_ms"].as_u64()?),
        })
    }

    fn moment(&self, unix_ms: u64) -> Moment {
        (unix_ms * 1_000_000).saturating_sub(self.epoch)
    }
}

/// Returns the body of a stored form.
fn json(file: &Path) -> Option<Value> {
    let mut form: Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
    Some(form["body"].take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_known_by_its_record_and_its_result_for_good() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("state/runs");
        fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
        let records = Records::of(vec![home.path().to_owned()]);
        write(
            "r1.json",
            r#"{"body":{"certname":"b","started_at_unix_ms":0,"causes":[{"event":{"id":"e1"}},{"event":{"id":"e2"}}]}}"#,
        );
        assert!(records.collect().is_empty(), "it goes on");
        write("r1.result.json", r#"{"body":{"outcome":"changed"}}"#);
        let expected = Record {
            certname: "b".to_owned(),
            causes: vec!["e1".to_owned(), "e2".to_owned()],
            outcome: "changed".to_owned(),
            started: 0,
        };
        assert_eq!(records.collect(), [("r1".to_owned(), expected.clone())].into());
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(records.collect(), [("r1".to_owned(), expected)].into());
    }
}
