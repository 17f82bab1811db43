//! Performs a schedule of faults, with the lanes side by side, and records what really happened and when.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::artifacts::Window;
use crate::fault::Fault;
use crate::fleet::certname;
use crate::inject::{Injected, Injector};
use crate::journal::now;
use crate::plan::{Lane, Planned};
use crate::testbed::Testbed;

/// The time after the budget during which a mandatory fault is still retried.
const TRIED_AFTER: Duration = Duration::from_secs(60);
/// The interval between two tries of the same fault.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Injects faults into a testbed.
pub(crate) struct Chaos<'a> {
    testbed: &'a Testbed,
    budget: Duration,
    began: Instant,
    windows: Mutex<Vec<Window>>,
}

impl<'a> Chaos<'a> {
    /// Starts the clock of the schedule.
    pub(crate) fn new(testbed: &'a Testbed, budget: Duration) -> Self {
        Self { testbed, budget, began: Instant::now(), windows: Mutex::default() }
    }

    /// Performs one lane to its end. A fault that found nothing to act on is tried again after the next one; an
    /// optional fault is skipped when the lane is too late for it.
    #[expect(clippy::print_stdout, reason = "progress of a command for people")]
    pub(crate) fn perform(&self, lane: &Lane) {
        let mut ahead: VecDeque<Planned> = lane.iter().cloned().collect();
        let mut number = 0;
        while let Some(planned) = ahead.pop_front() {
            sleep(planned.from.saturating_sub(self.began.elapsed()));
            if !planned.must && self.began.elapsed() + planned.lasting() > self.budget {
                continue;
            }
            number += 1;
            let from = now();
            let injected =
                Injector { testbed: self.testbed, number, lasting: planned.lasting() }.perform(planned.fault);
            let at = self.began.elapsed();
            match injected {
                Ok(injected) => {
                    println!("  {:6.1} s  healed: {}{injected}", at.as_secs_f64(), planned.fault.kind());
                    self.note(planned.fault, &injected, from);
                }
                Err(why) => {
                    println!("  {:6.1} s  nothing to do: {}: {why}", at.as_secs_f64(), planned.fault.kind());
                    let give_up = if planned.must { self.budget + TRIED_AFTER } else { self.budget };
                    if at < give_up {
                        sleep(RETRY_INTERVAL);
                        ahead.insert(ahead.len().min(1), planned);
                    }
                }
            }
        }
    }

    /// Returns the faults that happened.
    pub(crate) fn windows(&self) -> Vec<Window> {
        self.windows.lock().map(|windows| windows.clone()).unwrap_or_default()
    }

    fn note(&self, fault: Fault, injected: &Injected, from: u64) {
        let node = injected.node.map(certname);
        let window = Window { kind: fault.kind(), node, from, to: now() };
        if let Ok(mut windows) = self.windows.lock() {
            windows.push(window);
        }
    }
}
