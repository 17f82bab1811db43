use super::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::Duration;
use trigger_core::event::RunOptions;

fn runs() -> (tempfile::TempDir, Runs) {
    let dir = tempfile::tempdir().unwrap();
    let runs = Runs::open(&StateDir::open(dir.path()).unwrap()).unwrap();
    (dir, runs)
}

fn record(run_id: RunId, argument: &str) -> RunRecord {
    RunRecord {
        run_id,
        certname: "a".parse().unwrap(),
        command: vec!["true".to_owned(), argument.to_owned()],
        options: RunOptions::default(),
        timeout: Duration::from_secs(60),
        started_at: Timestamp::from_unix_ms(1_763_812_800_000),
        causes: Vec::new(),
        environment: BTreeMap::new(),
    }
}

fn new_id() -> RunId {
    RunId::from_uuid(uuid::Uuid::now_v7())
}

/// Whether the one open run is this one, alive.
fn check_only_open_run(runs: &Runs, expected: &RunRecord) {
    let open = runs.open_runs().unwrap();
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!(open[0].record, *expected);
    assert!(open[0].is_alive, "its lock is held");
}

#[test]
fn a_record_is_written_into_the_file_made_ahead_for_it() {
    let (_dir, runs) = runs();
    let blank = runs.prepare(new_id()).unwrap();
    let record = record(blank.run, "");
    let run = runs.create(&record, Some(blank)).unwrap();
    check_only_open_run(&runs, &record);
    drop(run);
    assert!(!runs.open_runs().unwrap()[0].is_alive);
}

fn changed(record: &RunRecord) -> RunResult {
    RunResult {
        outcome: RunOutcome::Changed,
        reason: None,
        reported_noop: false,
        drift: Default::default(),
        started_at: record.started_at,
        finished_at: record.started_at,
    }
}

#[test]
fn the_history_of_a_run_is_made_from_its_files() {
    let (_dir, runs) = runs();
    let record = record(new_id(), "");
    drop(runs.create(&record, None).unwrap());
    assert_eq!(runs.past_run(record.run_id, &record.certname).unwrap(), None, "its end is not known yet");
    let result = changed(&record);
    runs.paths(record.run_id).write_result(&result).unwrap();
    let event = EventId::from_uuid(uuid::Uuid::now_v7());
    let fired = FiredEvent {
        event,
        trigger: "next one".parse().unwrap(),
        to_groups: false,
        suppressed: Default::default(),
        by_rule: Default::default(),
    };
    runs.note_fired(record.run_id, &fired).unwrap();
    runs.note_superseded(record.run_id, 7).unwrap();
    let past = PastRun::of(&record, result, 7, [fired]);
    assert_eq!(runs.past_run(record.run_id, &record.certname).unwrap().as_ref(), Some(&past));
    assert_eq!(runs.history(&record.certname).unwrap().runs, [], "its outcome is not stored yet");
    runs.close(record.run_id).unwrap();
    assert_eq!(runs.history(&record.certname).unwrap().runs, [past]);
    let other = "b".parse().unwrap();
    assert_eq!(
        runs.history(&other).unwrap().runs,
        [],
        "the runs of the node's earlier name are not this one's"
    );
}

#[test]
fn a_record_too_long_for_the_file_made_ahead_replaces_it() {
    let (_dir, runs) = runs();
    let blank = runs.prepare(new_id()).unwrap();
    let record = record(blank.run, &"x".repeat(Os::PREALLOCATED_BYTES));
    let _run = runs.create(&record, Some(blank)).unwrap();
    check_only_open_run(&runs, &record);
}

fn result(run: &RunRecord) -> RunResult {
    RunResult {
        outcome: RunOutcome::Changed,
        reason: None,
        reported_noop: false,
        drift: Default::default(),
        started_at: run.started_at,
        finished_at: run.started_at,
    }
}

/// The id of a run that started so many milliseconds after 1970, by the clock of that moment.
fn id_at(ms: u64) -> RunId {
    let at = uuid::Timestamp::from_unix(uuid::NoContext, ms / 1000, (ms % 1000) as u32 * 1_000_000);
    RunId::from_uuid(uuid::Uuid::new_v7(at))
}

#[test]
fn the_latest_runs_are_kept_also_when_a_clock_that_was_ahead_is_set_back() {
    let (_dir, runs) = runs();
    let close = |id: RunId| {
        let record = record(id, "");
        drop(runs.create(&record, None).unwrap());
        let paths = runs.paths(id);
        paths.write_result(&result(&record)).unwrap();
        for file in [paths.output(), paths.report(), paths.leader()] {
            fs::write(file, "x").unwrap();
        }
        runs.close(id).unwrap();
        id
    };
    // The first was closed by a version that kept no list.
    let first = close(id_at(9_000_000_000_000));
    fs::remove_file(runs.dir.join(CLOSED)).unwrap();
    let mut closed: Vec<RunId> = (0..99).map(|n| close(id_at(5_000_000_000_000 + n))).collect();
    closed.insert(0, first);
    let back: Vec<RunId> = (0..3).map(|n| close(id_at(1_700_000_000_000 - n))).collect();
    runs.close(back[2]).unwrap();
    closed.extend(&back);
    assert_eq!(runs.closed().unwrap(), closed[3..], "a hundred, in the order of their closing");
    assert_eq!(runs.past_run(back[2], &"a".parse().unwrap()).unwrap().unwrap().run.run_id, back[2]);
    assert!(runs.paths(back[0]).output().exists());
    assert_eq!(runs.past_run(first, &"a".parse().unwrap()).unwrap(), None);
    let left: Vec<_> = fs::read_dir(&runs.dir).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left.len(), 100 * 3 + 1, "record, result and output of each, and the list: {left:?}");
}

#[test]
fn a_record_that_cannot_be_written_leaves_nothing_behind() {
    let (_dir, runs) = runs();
    let record = record(new_id(), "");
    // Nothing can be moved to where a directory is that is not empty.
    fs::create_dir_all(runs.paths(record.run_id).record().join("x")).unwrap();
    runs.create(&record, None).unwrap_err();
    assert!(!runs.paths(record.run_id).with(".json.tmp").exists());
}

#[tokio::test]
async fn what_an_impatient_agent_finds_of_a_run_without_a_supervisor_is_ended() {
    let (_dir, runs) = runs();
    let record = record(new_id(), "");
    drop(runs.create(&record, None).unwrap());
    let paths = runs.paths(record.run_id);
    let mut run = tokio::process::Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
    paths.note_leader(&crate::process_tree::note_of(run.id().unwrap()).unwrap()).unwrap();
    let output = File::create(paths.output()).unwrap();
    let ended = async || paths.clone().wait_for_end(Duration::from_millis(300)).await.unwrap();
    assert_eq!(ended().await, None);
    assert!(run.try_wait().unwrap().is_none(), "it is silent");
    output.lock().unwrap();
    assert_eq!(ended().await, None);
    assert!(run.wait().await.unwrap().code().is_none(), "it was ended");
}

#[test]
fn a_file_made_ahead_is_no_run_and_goes_at_the_next_start() {
    let (_dir, runs) = runs();
    let blank = runs.prepare(new_id()).unwrap();
    assert_eq!(runs.live_record(blank.run).unwrap(), None, "it is locked, but covers nothing");
    let path = runs.paths(blank.run).record();
    drop(blank);
    assert!(runs.open_runs().unwrap().is_empty());
    assert!(!path.exists());
}

#[test]
fn the_record_of_a_live_run_that_cannot_be_read_is_an_error_and_no_absence() {
    let (_dir, runs) = runs();
    let record = record(new_id(), "");
    let run = runs.create(&record, None).unwrap();
    assert_eq!(runs.live_record(record.run_id).unwrap(), Some(record.clone()));
    fs::write(run.paths.record(), r#"{"v":2}"#).unwrap();
    let error = runs.live_record(record.run_id).unwrap_err().to_string();
    assert!(error.contains("version 2"), "{error}");
    drop(run);
    assert_eq!(runs.live_record(record.run_id).unwrap(), None, "what has ended is no part of anything");
}

#[test]
fn a_run_that_was_interrupted_and_repeated_ended_nothing() {
    let (_dir, runs) = runs();
    let id = EventId::from_uuid(uuid::Uuid::now_v7());
    let event = trigger_core::event::Event {
        id,
        trigger: "t".parse().unwrap(),
        origin: "a".parse().unwrap(),
        targets: Default::default(),
        options: RunOptions::default(),
        lineage: trigger_core::lineage::Lineage::root(id),
        fired_in: None,
        fired_by: None,
        catalog: None,
        loops: Default::default(),
        fired_at: Timestamp::from_unix_ms(1_763_812_800_000),
        expires_in: Duration::from_secs(60),
    };
    let ended = |interruptions: u32| {
        let addressed_as = [trigger_core::event::Target::Node("lb01".parse().unwrap())].into();
        let cause = trigger_core::run::record::Cause {
            event: event.clone(),
            addressed_as,
            interruptions,
            without_catalog: false,
            signer: Default::default(),
        };
        let record = RunRecord { causes: vec![cause], ..record(new_id(), "") };
        let result = RunResult {
            outcome: RunOutcome::Interrupted,
            reason: None,
            reported_noop: false,
            drift: Default::default(),
            started_at: record.started_at,
            finished_at: record.started_at,
        };
        drop(runs.create(&record, None).unwrap());
        runs.paths(record.run_id).write_result(&result).unwrap();
        runs.close(record.run_id).unwrap();
        record.run_id
    };
    let end_of = || trigger_core::delivery::recorded::recorded_outcome(id, runs.completed_runs().unwrap());
    ended(0);
    assert_eq!(end_of(), None, "its repetition decides");
    let repetition = ended(1);
    let end = end_of();
    assert!(
        matches!(&end, Some(trigger_core::delivery::DeliveryOutcome::Failed(run)) if run.run_id == repetition),
        "{end:?}"
    );
}

#[test]
fn a_directory_that_was_removed_comes_back_with_what_is_written() {
    let (_dir, runs) = runs();
    let blank = runs.prepare(new_id()).unwrap();
    let record = record(blank.run, "");
    let result = changed(&record);
    fs::remove_dir_all(&runs.dir).unwrap();
    // The file that was made ahead for it is gone too: what is written there would be found by no later agent.
    let run = runs.create(&record, Some(blank)).unwrap();
    check_only_open_run(&runs, &record);
    fs::remove_dir_all(&runs.dir).unwrap();
    run.paths.note_leader("1 2").unwrap();
    fs::remove_dir_all(&runs.dir).unwrap();
    run.paths.write_result(&result).unwrap();
    runs.close(record.run_id).unwrap();
    fs::remove_dir_all(&runs.dir).unwrap();
    assert!(runs.open_runs().unwrap().is_empty());
    assert!(runs.dir.exists());
}

#[test]
fn a_run_is_chosen_by_its_id_or_by_how_many_runs_back_it_is() {
    let (_dir, runs) = runs();
    let own = "a".parse().unwrap();
    let choose = |choice| runs.choose(choice, &own).unwrap();
    let latest = |back| choose(RunChoice::Latest { back });
    assert_eq!(latest(0), None);
    let ids: Vec<RunId> = (0..3).map(|_| new_id()).collect();
    for id in &ids {
        drop(runs.create(&record(*id, ""), None).unwrap());
    }
    // In the order of their closing; the last one is open, and the next one's record is blank.
    runs.close(ids[1]).unwrap();
    runs.close(ids[0]).unwrap();
    drop(runs.prepare(new_id()).unwrap());
    assert_eq!(
        [latest(0), latest(1), latest(2), latest(3)],
        [Some(ids[2]), Some(ids[0]), Some(ids[1]), None]
    );
    assert_eq!(choose(RunChoice::Id(ids[1])), Some(ids[1]));
    assert_eq!(choose(RunChoice::Id(new_id())), None);
    assert_eq!(runs.choose(RunChoice::Id(ids[1]), &"b".parse().unwrap()).unwrap(), None, "another node's");
    assert_eq!(runs.open_runs().unwrap().len(), 1, "and nothing has changed");
}
