//! The fires of a trial: a few hundred real `trigger fire` commands a minute, from any node.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::{NODES, Targets, certname};
use crate::journal::{Answer, Fire, Moment, append, now};
use crate::testbed::Testbed;

/// The most fires at the same time: while a backend is away, each of them takes seconds.
const AT_ONCE: usize = 24;
/// The average time between two fires, which makes three hundred a minute.
pub(crate) const EVERY: Duration = Duration::from_millis(200);
/// The number of fires while the backend is away.
const FIRES_WHILE_AWAY: usize = 8;
/// The time after its start, in nanoseconds, within which a fire may make its event if its end was not seen.
const FIRE_TIMEOUT: Moment = 10_000_000_000;

/// One fire that is about to happen.
pub(crate) struct Shot {
    /// The trigger's name.
    pub(crate) trigger: String,
    /// The targets that it names.
    pub(crate) targets: Targets,
    /// Whether it asks for noop, which the trial's runs cannot honour.
    pub(crate) noop: bool,
    /// The run in which it is fired.
    pub(crate) parent: Option<String>,
    /// Whether the backend is away all the time.
    pub(crate) away: bool,
}

/// Draws one of a few names, so that backlogs and loops share triggers.
pub(crate) fn trigger_name(random: &mut fastrand::Rng) -> String {
    ["deploy", "renew certificate", "reload"][random.usize(..3)].to_owned()
}

impl Shot {
    fn draw(random: &mut fastrand::Rng) -> Self {
        let noop = random.u8(..100) < 4;
        Self {
            trigger: trigger_name(random),
            targets: Targets::draw(random),
            noop,
            parent: None,
            away: false,
        }
    }

    /// Returns the arguments of `trigger`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["fire", "--output", "json", &self.trigger].iter().map(|&word| word.to_owned()).collect();
        arguments.extend(self.noop.then(|| "--noop".to_owned()));
        arguments.extend(self.targets.arguments());
        arguments
    }

    /// Returns the fire with its result.
    pub(crate) fn fire(&self, origin: &str, before: Moment, output: &Output) -> Fire {
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let answer = match (output.status.code(), json["event_id"].as_str(), json["state"].as_str()) {
            (Some(0), Some(event), Some(state)) => {
                Answer::Success { event: event.to_owned(), state: state.to_owned() }
            }
            (None, ..) if output.status.signal() == Some(9) => Answer::Killed,
            _ => Answer::Failure(format!("{output:?}")),
        };
        Fire { after: now(), answer, ..self.unanswered(origin, before) }
    }

    /// Returns what is known of the fire before it answers, which is enough to find its event if it never does.
    pub(crate) fn unanswered(&self, origin: &str, before: Moment) -> Fire {
        Fire {
            origin: origin.to_owned(),
            parent: self.parent.clone(),
            trigger: self.trigger.clone(),
            hosts: self.targets.hosts.clone(),
            groups: self.targets.groups.clone(),
            noop: self.noop,
            away: self.away,
            before,
            after: before + FIRE_TIMEOUT,
            answer: Answer::Killed,
        }
    }
}

/// Fires some events on one node, all at once, and returns their number when all are answered. The backend must be
/// away until then.
pub(crate) fn fire_while_away(testbed: &Testbed, node: usize) -> usize {
    let mut random = fastrand::Rng::with_seed(node as u64);
    std::thread::scope(|scope| {
        for _ in 0..FIRES_WHILE_AWAY {
            let shot = Shot { noop: false, away: true, ..Shot::draw(&mut random) };
            scope.spawn(move || fire(testbed, node, &shot, None));
        }
    });
    FIRES_WHILE_AWAY
}

/// Fires until `over`. Each fire has a thread of its own in `scope`.
pub(crate) fn keep_firing<'scope>(
    testbed: &'scope Testbed,
    scope: &'scope Scope<'scope, '_>,
    seed: u64,
    over: &AtomicBool,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pending = Vec::new();
    let began = Instant::now();
    let mut due = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        due += EVERY.mul_f64(2.0 * random.f64());
        sleep(due.saturating_sub(began.elapsed()));
        pending.retain(|fire: &std::thread::ScopedJoinHandle<'_, ()>| !fire.is_finished());
        let (node, shot) = (random.usize(..NODES), Shot::draw(&mut random));
        // One fire in fifty is killed at a random moment: it never answers, so its event need not be delivered.
        let kill_after = (random.u8(..50) == 0).then(|| Duration::from_millis(random.u64(..40)));
        if pending.len() < AT_ONCE {
            pending.push(scope.spawn(move || fire(testbed, node, &shot, kill_after)));
        }
    }
}

fn fire(testbed: &Testbed, node: usize, shot: &Shot, kill_after: Option<Duration>) {
    let mut command = testbed.command(node, &shot.arguments());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let before = now();
    let output = finish(command, kill_after);
    let fire = shot.fire(&certname(node), before, &output);
    note(&testbed.directory_of(node), &fire);
}

fn finish(mut command: Command, kill_after: Option<Duration>) -> Output {
    let mut child: Child = command.spawn().expect("trigger fire to start");
    if let Some(moment) = kill_after {
        sleep(moment);
        child.kill().expect("a fire to kill");
    }
    child.wait_with_output().expect("trigger fire to end")
}

fn note(directory: &Path, fire: &Fire) {
    append(&directory.join("fires.log"), fire).expect("a fire to be noted");
}
