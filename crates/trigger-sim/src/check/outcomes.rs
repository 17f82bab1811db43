//! Every delivery ends visibly and truly (C6): by a run that started after the commit (C2), or with a reason. No
//! delivery expires before its time (C12).

use std::time::Duration;

use trigger_core::delivery::DeliveryOutcome;
use trigger_core::event::RunKind;
use trigger_core::identity::{Certname, EventId};
use trigger_core::keyspace::Key;
use trigger_core::lineage::Lineage;
use trigger_core::run::{CompletedRun, RunOutcome};
use trigger_core::sweep::{EVENT_RETENTION, SWEEP_GRACE_PERIOD};
use trigger_core::wire::Stored;

use crate::checker::Run;
use crate::mail::Client;
use crate::world::World;

/// The time that a sweeper may take from reading a node's record to storing an outcome for the node.
const SWEEPERS_HASTE: Duration = Duration::from_secs(300);

impl World {
    pub(super) fn check_outcome(&mut self, client: Client, event: EventId, certname: &Certname, value: &str) {
        let Ok(end) = DeliveryOutcome::from_wire(value) else {
            return self.violate("stored forms are whole", format!("the outcome of {event}: {value}"));
        };
        let before =
            self.server.entry(&self.keyspace.key(&Key::Outcome { event, certname: certname.clone() }));
        let was_done = matches!(
            before.map(|entry| DeliveryOutcome::from_wire(&entry.value)),
            Some(Ok(DeliveryOutcome::Done(_)))
        );
        if was_done && !matches!(end, DeliveryOutcome::Done(_)) {
            self.violate("done stays done", format!("{event} at {certname} becomes {end:?}"));
        }
        // The origin writes what it suppressed, the same at each try; a `done` may replace any outcome.
        if !self.swapping && !matches!(end, DeliveryOutcome::Done(_) | DeliveryOutcome::Suppressed(_)) {
            self.violate("only fenced writes", format!("{event} at {certname} blindly becomes {end:?}"));
        }
        match &end {
            DeliveryOutcome::Done(run) | DeliveryOutcome::Failed(run) => {
                self.check_end_by_run(event, certname, run, &end);
                self.check_against_truth(client, event, certname, run);
            }
            DeliveryOutcome::Expired(_) => self.check_expired(client, event, certname),
            DeliveryOutcome::Superseded(by) => self.check_superseded(event, certname, *by),
            DeliveryOutcome::Refused(_) => {
                let machine = &self.machines[client.machine];
                let fired = self.check.events.get(&event);
                let is_special = fired.is_some_and(|fired| fired.event.options.kind() != RunKind::default());
                let is_attacked = self.check.attacked.contains(&(event, certname.clone()));
                if !is_attacked && (machine.runs_puppet || !is_special) {
                    self.violate("refusals have their reason", format!("{event} at {certname}"));
                }
            }
            DeliveryOutcome::Suppressed(_) => self.check_suppressed(event, certname),
            DeliveryOutcome::Cancelled { by, .. } => self.check_cancelled(event, certname, by),
        }
        self.count(match end {
            DeliveryOutcome::Done(_) => "ended done",
            DeliveryOutcome::Failed(_) => "ended failed",
            DeliveryOutcome::Expired(_) => "ended expired",
            DeliveryOutcome::Superseded(_) => "ended superseded",
            DeliveryOutcome::Refused(_) => "ended refused",
            DeliveryOutcome::Suppressed(_) => "ended suppressed",
            DeliveryOutcome::Cancelled { .. } => "ended cancelled",
        });
        if let Some(delivery) = self.check.deliveries.get_mut(&(event, certname.clone())) {
            (delivery.has_ended, delivery.had_ended) = (true, true);
        }
    }

    fn check_end_by_run(
        &mut self,
        event: EventId,
        certname: &Certname,
        ended: &CompletedRun,
        end: &DeliveryOutcome,
    ) {
        let (Some(fired), Some(run), Some(committed)) = (
            self.check.events.get(&event),
            self.check.runs.get(&ended.run_id),
            self.committed(event, certname),
        ) else {
            let detail = format!("{event} at {certname} was ended by {}", ended.run_id);
            return self.violate("outcomes speak of what was", detail);
        };
        let wanted = &fired.event.options;
        let covers_tags =
            !run.options.is_tagged() || (wanted.is_tagged() && wanted.tags.is_subset(&run.options.tags));
        let starts_later = run.started.is_none_or(|started| started > committed);
        let is_done = matches!(end, DeliveryOutcome::Done(_));
        let went_well = matches!(run.outcome, Some(RunOutcome::Changed | RunOutcome::Unchanged));
        let problem = if run.certname != *certname {
            "the run was another node's"
        } else if !run.causes.contains(&event) {
            "the run's record does not list it"
        } else if wanted.noop != run.options.noop {
            "noop and real are no substitute for each other"
        } else if wanted.environment != run.options.environment {
            "one environment is no substitute for another"
        } else if !covers_tags {
            "the run lacked some of its tags"
        } else if !starts_later {
            "the run started before the commit"
        } else if is_done && !(went_well && run.started.is_some()) {
            "the run did not end well"
        } else {
            return;
        };
        let detail = format!("{event} at {certname}, run {}: {problem}", ended.run_id);
        self.violate("a run that started after the commit covers it", detail);
    }

    /// Checks that an outcome reports of its run what really happened.
    fn check_against_truth(
        &mut self,
        client: Client,
        event: EventId,
        certname: &Certname,
        ended: &CompletedRun,
    ) {
        let Some(run) = self.check.runs.get(&ended.run_id) else { return };
        let stored = ended.result.outcome;
        let covers = |run: &&Run| run.certname == *certname && run.causes.contains(&event);
        let interrupted = || {
            let runs = self.check.runs.values().filter(covers);
            runs.filter(|run| run.is_taken_for_interrupted).count()
        };
        let problem = match (stored, run.outcome) {
            // An agent can read a result that was synced to its own disk; a copy of the machine has only the record.
            (RunOutcome::Interrupted, Some(truth))
                if run.is_result_synced && run.machine == client.machine =>
            {
                format!("it ended {truth}")
            }
            (RunOutcome::Interrupted, _) if interrupted() < 2 => "it was not repeated".to_owned(),
            (RunOutcome::Interrupted, _) => return,
            (stored, truth) if truth == Some(stored) => return,
            (_, truth) => format!("it ended {truth:?}"),
        };
        let detail = format!("{event} at {certname} ended {stored} by {}: {problem}", ended.run_id);
        self.violate("outcomes speak of what was", detail);
    }

    fn check_expired(&mut self, client: Client, event: EventId, certname: &Certname) {
        let machine = &self.machines[client.machine];
        let by_target = machine.certname == *certname;
        if !by_target {
            self.count("delivery expired by a sweeper");
        }
        let machine = &self.machines[client.machine];
        let patience = if by_target { Duration::ZERO } else { SWEEP_GRACE_PERIOD };
        // The target decides by its own clock, right or wrong.
        let is_deluded = by_target && machine.was_wild;
        if !is_deluded && !self.has_expired_since(client, event, patience) {
            let detail = format!("{event} at {certname} by m{}", client.machine);
            return self.violate("nothing expires early", detail);
        }
        let listed = self.check.registrations.get(certname).and_then(|node| node.listed.get(&event));
        let is_at_work = listed.is_some_and(|since| self.now - *since > SWEEPERS_HASTE);
        // A node has seven days for that, also one that was off in the meantime.
        if !by_target && is_at_work && !self.has_expired_since(client, event, EVENT_RETENTION) {
            let detail = format!("m{} expires {event} at {certname}, which is at work on it", client.machine);
            self.violate("nothing is removed that is still needed", detail);
        }
    }

    fn check_cancelled(&mut self, event: EventId, certname: &Certname, by: &Certname) {
        let wanted = self.check.cancelled.get(&event);
        let is_wanted = wanted.is_some_and(|wanted| {
            wanted
                .iter()
                .any(|(who, target)| who == by && target.as_ref().is_none_or(|target| target == certname))
        });
        if !is_wanted {
            let detail = format!("{event} at {certname}: {by} did not ask for it, or may not");
            self.violate("what is cancelled has its canceller", detail);
        }
    }

    fn check_superseded(&mut self, event: EventId, certname: &Certname, by: EventId) {
        let delivered = self.committed(by, certname).is_some();
        let (Some(earlier), Some(later)) = (self.check.events.get(&event), self.check.events.get(&by)) else {
            return self.violate("a successor stands for its predecessor", format!("{by} is unknown"));
        };
        let (earlier, later) = (&earlier.event, &later.event);
        let past = |lineage: &Lineage| {
            if lineage.is_root() { Vec::new() } else { lineage.chains.clone() }
        };
        let same = earlier.trigger == later.trigger
            && earlier.origin == later.origin
            && earlier.options == later.options
            && past(&earlier.lineage) == past(&later.lineage)
            && later.expires_at() >= earlier.expires_at();
        if !same || !delivered {
            self.violate("a successor stands for its predecessor", format!("{by} for {event} at {certname}"));
        }
    }
}
