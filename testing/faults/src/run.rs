//! The run command of the trial's nodes: `trigger-faults run DIRECTORY`. It logs its start with the causes that its
//! record on disk lists, takes a while, sometimes fires in turn, and logs its end.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::fleet::Targets;
use crate::journal::{Cause, Chain, Moment, RunEnd, RunLine, RunStart, append, now};
use crate::load::{self, Shot};

/// Performs one run for the node in `directory` and returns the exit code.
pub(crate) fn run(directory: &Path) -> anyhow::Result<u8> {
    let at = now();
    let run = std::env::var("TRIGGER_RUN_ID").context("a run without TRIGGER_RUN_ID")?;
    let certname = std::env::var("TRIGGER_CERTNAME").context("a run without TRIGGER_CERTNAME")?;
    let lock = File::options().create(true).append(true).open(directory.join("alone"))?;
    let alone = lock.try_lock().is_ok();
    let mut record: Value =
        serde_json::from_str(&fs::read_to_string(directory.join(format!("state/runs/{run}.json")))?)?;
    let record = record["body"].take();
    let log = directory.join("runs.log");
    let supervisor = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    let causes: Vec<Cause> =
        list(&record["causes"]).iter().map(|cause| read_cause(&cause["event"])).collect();
    append(
        &log,
        &RunLine::Start(RunStart {
            run: run.clone(),
            certname: certname.clone(),
            pid: std::process::id(),
            supervisor,
            at,
            alone,
            causes: causes.clone(),
        }),
    )?;
    // The seed is the run's own id: a repeated trial has other ids, but the same mixture.
    let mut hasher = DefaultHasher::new();
    run.hash(&mut hasher);
    let mut random = fastrand::Rng::with_seed(hasher.finish());
    sleep(duration(&mut random));
    if random.u8(..100) < 12 {
        fire(directory, &certname, &run, &causes, &record, &mut random)?;
    }
    let code = u8::from(random.u8(..100) < 4);
    append(&log, &RunLine::End(RunEnd { run, at: now(), code }))?;
    Ok(code)
}

/// Draws a duration: mostly short, sometimes seconds, which is long enough for a kill.
fn duration(random: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(match random.u8(..100) {
        0..60 => random.u64(20..200),
        60..90 => random.u64(200..1_000),
        _ => random.u64(1_000..3_000),
    })
}

/// Continues the chain. One time in three it fires straight back to the origin, so that loops are tried too.
fn fire(
    directory: &Path,
    certname: &str,
    run: &str,
    causes: &[Cause],
    record: &Value,
    random: &mut fastrand::Rng,
) -> anyhow::Result<()> {
    let (trigger, targets) = match causes.first() {
        Some(cause) if random.u8(..3) == 0 => {
            let origin = record["causes"][0]["event"]["origin"].as_str().unwrap_or(certname);
            (cause.trigger.clone(), Targets { hosts: vec![origin.to_owned()], groups: Vec::new() })
        }
        _ => (load::trigger_name(random), Targets::draw(random)),
    };
    let before: Moment = now();
    let shot = Shot { trigger, targets, noop: false, parent: Some(run.to_owned()), away: false };
    let log = directory.join("fires.log");
    // This run may be killed before it receives the answer.
    append(&log, &shot.unanswered(certname, before))?;
    let output = Command::new("trigger").args(shot.arguments()).output().context("trigger fire")?;
    append(&log, &shot.fire(certname, before, &output))
}

fn read_cause(event: &Value) -> Cause {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let chain = |chain: &Value| Chain {
        root: text(&chain["root"]),
        hops: list(&chain["hops"])
            .iter()
            .map(|hop| (text(&hop["trigger"]), text(&hop["certname"])))
            .collect(),
    };
    Cause {
        event: text(&event["id"]),
        trigger: text(&event["trigger"]),
        chains: list(&event["lineage"]).iter().map(chain).collect(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
