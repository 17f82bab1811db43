use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::{Signal, getpid, kill_process};
use trigger_core::event::RunOptions;
use trigger_core::time::Timestamp;

use super::*;

/// Ends a run with 2 and then says that it is asked for its settings, without an answer.
const SILENT: &str =
    "#!/bin/sh\n[ \"$1\" = agent ] && exit 2\necho > \"$(dirname \"$0\")/asked\"\nexec sleep 600\n";

/// Proves C9. A shutdown ends the questions to Puppet after a run, and such a run is repeated.
#[tokio::test]
async fn a_supervisor_that_is_asked_to_stop_after_its_run_asks_puppet_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let puppet = dir.path().join("puppet");
    fs::write(&puppet, SILENT).unwrap();
    fs::set_permissions(&puppet, fs::Permissions::from_mode(0o755)).unwrap();
    let record = RunRecord {
        run_id: "019356b0-7c4a-7000-8000-000000000001".parse().unwrap(),
        certname: "web01".parse().unwrap(),
        command: vec![puppet.to_str().unwrap().to_owned(), "agent".to_owned()],
        options: RunOptions::default(),
        timeout: Duration::from_secs(600),
        started_at: Timestamp::from_unix_ms(0),
        causes: Vec::new(),
        environment: BTreeMap::new(),
    };
    let paths = RunPaths::beside(Os::start(), &dir.path().join("run.json"));
    let mut process = PuppetProcess::of(&record, &paths, dir.path(), || ());
    process.start().unwrap();
    let asked = dir.path().join("asked");
    let stop = async {
        while !asked.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        kill_process(getpid(), Signal::TERM).unwrap();
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(process.wait(), stop).0 });
    assert_eq!(ended.await.expect("the supervisor goes on asking"), Verdict::stopped());
}
