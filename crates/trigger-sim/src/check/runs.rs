//! A node runs one thing at a time, never without a cause (C5), never twice for an event (C4, C10), and only as the
//! holder of the claim (C11).

use trigger_core::identity::{EventId, RunId};
use trigger_core::run::RunOutcome;
use trigger_core::run::record::RunRecord;

use crate::checker::{Checker, Run};
use crate::tasks::ProcessId;
use crate::world::World;

impl World {
    /// Checks a run whose record an agent has written and whose supervisor it is about to start.
    pub(crate) fn check_run_begun(&mut self, machine: usize, agent: ProcessId, record: &RunRecord) {
        let causes: Vec<EventId> = record.causes.iter().map(|cause| cause.event.id).collect();
        if let Some(run) = self.check.runs.get_mut(&record.run_id) {
            run.starter = Some(agent);
        }
        let certname = &self.machines[machine].certname;
        let believes = self.believers().any(|(on, _)| on == machine);
        let rival = self.believers().find(|(on, name)| *on != machine && *name == certname);
        // A backend restored from a backup may name a former holder of the claim; until each agent has renewed, two
        // of them may believe that they hold it.
        let rival = rival.filter(|_| !self.is_fresh_rewind() && !self.is_duel(machine)).map(|(on, _)| on);
        if !believes {
            let detail = format!("m{machine} starts {}", record.run_id);
            self.violate("only the holder of the claim starts runs", detail);
        } else if let Some(other) = rival {
            let detail = format!("m{machine} and m{other} both hold {certname}");
            self.violate("one holder of a claim at a time", detail);
        }
        self.check_not_held(machine, record.run_id);
        if causes.is_empty() {
            self.violate("no run without a cause", format!("{} covers nothing", record.run_id));
        }
        for event in &causes {
            self.check_cause(machine, record, *event);
        }
    }

    /// Checks a run's record that an agent is about to write.
    pub(crate) fn check_recorded(&mut self, machine: usize, record: &RunRecord) {
        let causes = record.causes.iter().map(|cause| cause.event.id).collect();
        self.check.runs.insert(
            record.run_id,
            Run {
                certname: record.certname.clone(),
                machine,
                starter: None,
                causes,
                options: record.options.clone(),
                started: None,
                outcome: None,
                is_result_synced: false,
                was_interrupted: false,
                is_taken_for_interrupted: false,
            },
        );
    }

    fn check_cause(&mut self, machine: usize, record: &RunRecord, event: EventId) {
        if self.committed(event, &record.certname).is_none() {
            let detail = format!("{} covers {event}, which was never delivered here", record.run_id);
            self.violate("no run without a cause", detail);
        }
        let before =
            self.check.runs.iter().filter(|(_, run)| run.machine == machine && run.causes.contains(&event));
        let ended_well = before.clone().find(|(_, run)| run.is_result_synced && run.is_terminal());
        if let Some((earlier, _)) = ended_well {
            let detail = format!("{event} ran in {earlier} and again in {}", record.run_id);
            return self.violate("what has run is not run again", detail);
        }
        let interrupted = before.filter(|(_, run)| run.was_interrupted).count();
        if interrupted > 1 {
            let detail = format!("{event} was interrupted {interrupted} times before {}", record.run_id);
            self.violate("what was interrupted is repeated once", detail);
        }
    }

    /// Checks a Puppet process that starts.
    pub(crate) fn check_run_started(&mut self, machine: usize, record: &RunRecord) {
        self.note(format_args!("m{machine} puppet starts {} {:?}", record.run_id, record.options));
        self.count("run");
        if record.causes.len() > 1 {
            self.count("run with several causes");
        }
        let others = self.check.in_progress.iter().filter(|(_, other)| **other == machine);
        if let Some((other, _)) = others.min() {
            let detail = format!("{} starts beside {other} on m{machine}", record.run_id);
            self.violate("one run at a time", detail);
        }
        self.check_holder(machine, record);
        self.check.in_progress.insert(record.run_id, machine);
        let steps = self.steps;
        match self.check.runs.get_mut(&record.run_id) {
            Some(run) if run.started.is_none() => run.started = Some(steps),
            _ => {
                self.violate("no run without a record", format!("{} starts twice or unknown", record.run_id))
            }
        }
    }

    /// Checks that the agent that starts a run holds the claim, unless the backend has lost the registration. A
    /// machine that lost the claim while it was cut off may still finish a run that it had begun.
    fn check_holder(&mut self, machine: usize, record: &RunRecord) {
        let certname = &self.machines[machine].certname;
        if self.is_held_elsewhere(machine) && !self.is_fresh_rewind() && !self.is_duel(machine) {
            let detail = format!("m{machine} starts {}, another holds {certname}", record.run_id);
            return self.violate("only the holder of the claim starts runs", detail);
        }
        let same_name = |other: &usize| self.machines[*other].certname == *certname;
        if self.check.in_progress.values().any(same_name) {
            self.count("run beside that of a machine which had lost the claim");
        }
    }

    /// Records that a Puppet process has finished its work, or has reached its timeout.
    pub(crate) fn check_run_ended(&mut self, machine: usize, run: RunId, outcome: RunOutcome) {
        self.note(format_args!("m{machine} puppet ends {run} {outcome}"));
        if let Some(run) = self.check.runs.get_mut(&run) {
            run.outcome = Some(outcome);
        }
    }
}

impl Run {
    pub(crate) fn is_terminal(&self) -> bool {
        !matches!(self.outcome, None | Some(RunOutcome::NotRun | RunOutcome::Interrupted))
    }
}

impl Checker {
    pub(crate) fn puppet_gone(&mut self, run: RunId) {
        self.in_progress.remove(&run);
    }

    pub(super) fn is_started_by_another(&self, run: RunId, agent: ProcessId) -> bool {
        self.runs.get(&run).is_some_and(|run| run.starter != Some(agent))
    }

    pub(crate) fn result_synced(&mut self, run: RunId) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.is_result_synced = true;
        }
    }

    /// Records that an agent takes a run for interrupted. The agent of a clone may say so of a run that still goes on
    /// at the original.
    pub(crate) fn interrupted(&mut self, run: RunId, machine: usize, is_kept: bool) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.is_taken_for_interrupted = true;
            // A note that did not fit on the disk is not remembered.
            run.was_interrupted |= is_kept && run.machine == machine;
        }
    }
}
