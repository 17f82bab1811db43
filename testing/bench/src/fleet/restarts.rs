//! Kills the server with events in flight, and starts it again with its data.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use trigger_core::identity::EventId;

use super::{QUIESCE_TIME, Row, Scene, json, slowest};
use crate::figures::Figures;
use crate::memory::Held;
use crate::pki::Key;
use crate::process::cpu_seconds;

/// The seconds after the restart within which all agents should be served.
const GOAL_SECONDS: f64 = 10.0;
/// The number of events that are fired while the server is down: the firing node's outbox holds them until its agent
/// can publish them.
const SPOOLED: usize = 2;

/// The result of one restart.
struct Restart {
    events: Vec<EventId>,
    /// For each agent, the seconds from the start of the server until the agent had all events.
    seconds: Vec<f64>,
    /// At the time of the kill: the number of agents without the event that was committed just before it, and of
    /// those that had not stored its outcome.
    in_flight: (usize, usize),
    /// The processor time of the server, and that of the agents, until each agent had stored each outcome.
    busy: (f64, f64),
    held: f64,
}

impl Scene<'_> {
    pub(super) fn restarts(&mut self, times: usize, figures: &mut Figures) -> Result<Vec<Row>> {
        let restarts = (0..times).map(|_| self.restart()).collect::<Result<Vec<Restart>>>()?;
        let lost = restarts.iter().map(|restart| self.lost(&restart.events)).collect::<Result<_>>()?;
        let in_flight = restarts.iter().map(|restart| restart.in_flight);
        let in_flight: Vec<String> =
            in_flight.map(|(without, open)| format!("{without} and {open}")).collect();
        figures.note(format!(
            "fleet: of {} agents on {}, so many had not been given the event of just before the kill when it came, \
             and so many had not stored its outcome: {}",
            self.agents.count,
            self.kind.title(),
            in_flight.join(", ")
        ));
        let each = restarts.iter().flat_map(|restart| restart.seconds.iter().copied()).collect();
        let last = restarts.iter().map(|restart| slowest(&restart.seconds)).collect();
        let of_server = restarts.iter().map(|restart| restart.busy.0).collect();
        let of_agents = restarts.iter().map(|restart| restart.busy.1).collect();
        let held = restarts.iter().map(|restart| restart.held).collect();
        let last = Row::new("the same, the last agent", "s", last);
        let is_rsa = self.kind.key == Some(Key::Rsa);
        Ok(vec![
            Row::new("restarted after kill -9, to each agent", "s", each),
            if is_rsa { last } else { last.at_most(GOAL_SECONDS) },
            Row::new("the same, deliveries without a run", "", lost).at_most(0.0),
            Row::new("the same, processor of the server", "s", of_server),
            Row::new("the same, processor of the agents", "s", of_agents),
            Row::new("the same, memory of the server", "MB", held),
        ])
    }

    fn restart(&mut self) -> Result<Restart> {
        let server = self.server.take().context("the server was not started again")?;
        let committed = self.fire()?;
        let start_again = server.kill();
        let event = committed.event;
        let in_flight = (self.agents.without(event), self.agents.unfinished(event));
        ensure!(!committed.is_spooled, "an event was not committed by a backend that answers");
        let mut events = vec![event];
        for _ in 0..SPOOLED {
            let spooled = self.fire()?;
            ensure!(spooled.is_spooled, "an event was committed by a backend that was killed");
            events.push(spooled.event);
        }

        let (restarted_at, before) = (Instant::now(), cpu_seconds(std::process::id())?);
        self.server = Some(start_again(self.scratch, self.program)?);
        self.agents.wait_for_outcomes(&events);
        let busy = (cpu_seconds(self.pid()?)?, cpu_seconds(std::process::id())? - before);
        let seconds = self.agents.seconds(&events, restarted_at);
        self.agents.wait_for_watches()?;
        std::thread::sleep(QUIESCE_TIME);
        let held = Held::by(self.pid()?)?.resident;
        Ok(Restart { events, seconds, in_flight, busy, held })
    }

    /// Returns the number of deliveries without a run, according to the server after all restarts.
    fn lost(&self, events: &[EventId]) -> Result<f64> {
        let mut lost = 0;
        for event in events {
            let status = json(&mut self.command(&["status", &event.to_string()]))?;
            let targets = status["targets"].as_array().context("a status without targets")?;
            let done = targets.iter().filter(|target| target["state"] == "done").count();
            lost += self.agents.count - done;
        }
        Ok(lost as f64)
    }
}
