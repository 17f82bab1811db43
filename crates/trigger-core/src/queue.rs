//! The queue of one node: what runs next, what shares a run, what waits and what ends without one
//! (C2, C4, C5, C6).
//!
//! [`Queue::step`] takes what happened and returns what to do. The caller performs the effects strictly in
//! order and feeds their results back as inputs; it decides nothing itself.

mod blockers;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::backoff;
use crate::dedup::HonouredEvent;
use crate::delivery::{Completion, DeliveryOutcome};
use crate::event::{RunOptions, Target};
use crate::identity::{Certname, EventId, RunId};
use crate::loop_guard::repeats_in_every_chain;
use crate::node::{Activity, Delayed, HeldDelivery, Retrying, Running};
use crate::rate_limiter::{RateLimiter, RunsPerMinute};
use crate::reason::shortened;
use crate::run::record::Cause;
use crate::run::{CompletedRun, RunOutcome};
use crate::time::{Now, Timestamp};

pub use blockers::{Blocker, Blockers, ClaimBlocker};

/// More waiting deliveries than this are collapsed where a later one says the same.
pub const MAX_BACKLOG: usize = 64;
/// Deliveries of each state that a node's record lists, so that a backend takes the record however many there
/// are. The others are told as pending.
pub const MAX_LISTED: usize = 1000;

/// How often the agent looks at the blockers while one of them keeps deliveries waiting.
pub const BLOCKER_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A pending delivery was read, for the first time or again.
    Delivered(Cause),
    /// A delivery this version cannot read; it waits for one that can.
    TooNew(HeldDelivery),
    /// A run of an earlier agent is still in progress.
    Adopted {
        /// As its record says.
        running: Running,
        /// As its record says.
        options: RunOptions,
        /// As its record says.
        causes: Vec<Cause>,
    },
    /// A run of an earlier agent ended when no agent was there. What it has not ended is pending in the backend,
    /// and comes from there: it may have ended elsewhere since, where this is a copy of another node's directory.
    CompletedWhileDown {
        /// How.
        run: CompletedRun,
        /// As its record says.
        causes: Vec<Cause>,
    },
    /// The run that was asked for has its id and is about to start.
    Started(Running),
    /// The run in progress ended.
    RunEnded {
        /// How.
        run: CompletedRun,
        /// From 0.0 up to 1.0; spreads the retries of a fleet.
        jitter: f64,
    },
    /// What the agent sees now of the blockers outside the queue.
    Blockers(Blockers),
    /// All runs of earlier agents have been taken up. Until then no run starts.
    Recovered,
    /// Time passed.
    Tick,
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the run record, then start its supervisor; answer with [`Input::Started`].
    StartRun {
        /// How Puppet runs.
        options: RunOptions,
        /// What the run covers; all of it arrived before the record is written.
        causes: Vec<Cause>,
    },
    /// Remember the ids if a run covered them (fsync), store the outcomes, delete the deliveries, then
    /// close the record of the run, if there is one. Empty `completions` only close the record.
    Finish {
        /// The run whose record can be closed afterwards.
        run: Option<RunId>,
        /// The deliveries that ended.
        completions: Vec<Completion>,
    },
    /// Delete deliveries of an event that a run ended here before and that has no outcome in the backend (yet,
    /// or since the backend was restored from a backup): store its outcome again where it is still known.
    DeleteDeliveries {
        /// Which event.
        event: EventId,
        /// Its deliveries.
        addressed_as: BTreeSet<Target>,
    },
}

/// Deliveries that will share one run.
#[derive(Debug, Clone, Default)]
struct Waiting {
    causes: Vec<Cause>,
    /// Set after a run that could not happen.
    retry: Option<Retry>,
    /// Whether none of the causes stands for an earlier one.
    is_deduplicated: bool,
}

#[derive(Debug, Clone)]
struct Retry {
    attempts: u32,
    /// On the clock that only goes forward.
    not_before: Duration,
    /// The same for people.
    at: Timestamp,
    reason: String,
}

#[derive(Debug, Clone)]
struct ActiveRun {
    /// Known once the shell has made it.
    running: Option<Running>,
    causes: Vec<Cause>,
    noop: bool,
    attempts: u32,
}

/// An event that ended here.
#[derive(Debug, Clone)]
struct HonouredHere {
    at: Timestamp,
    /// How, where no run ended it. Told again when its delivery is read again without an outcome: a backend
    /// that was restored from a backup has lost it.
    without_run: Option<DeliveryOutcome>,
}

/// What this node's configuration says about runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    /// Who we are, for the group members' share of the loop guard.
    pub certname: Certname,
    /// Whether the run command can honour noop.
    pub honours_noop: bool,
    /// How many runs may start in any minute.
    pub runs_per_minute: RunsPerMinute,
}

/// The queue of one node.
#[derive(Debug, Clone)]
pub struct Queue {
    settings: QueueSettings,
    /// Events that ended here: never run again.
    ended: HashMap<EventId, HonouredHere>,
    active: Option<ActiveRun>,
    /// Who goes next where both kinds wait: not the one that ran last.
    is_noops_turn: bool,
    real: Waiting,
    noop: Waiting,
    too_new: Vec<HeldDelivery>,
    is_recovering: bool,
    reported: Blockers,
    /// The blocker that counts.
    blocker: Option<Blocker>,
    /// When the agent is to look at the blockers again, on the clock that only goes forward.
    next_look: Option<Duration>,
    rate_limiter: RateLimiter,
    /// While nothing but the limit on runs keeps the next one from starting.
    delay: Option<Delay>,
}

#[derive(Debug, Clone, Copy)]
struct Delay {
    /// On the clock that only goes forward.
    until: Duration,
    /// The same for people.
    at: Timestamp,
}

impl Queue {
    /// An empty queue that knows which events ended before.
    pub fn new(settings: QueueSettings, ended: impl IntoIterator<Item = (EventId, Timestamp)>) -> Self {
        Self {
            rate_limiter: RateLimiter::new(settings.runs_per_minute),
            settings,
            ended: ended
                .into_iter()
                .map(|(event, at)| (event, HonouredHere { at, without_run: None }))
                .collect(),
            active: None,
            is_noops_turn: false,
            real: Waiting::default(),
            noop: Waiting::default(),
            too_new: Vec::new(),
            is_recovering: true,
            reported: Blockers::default(),
            blocker: Some(Blocker::Recovering),
            next_look: None,
            delay: None,
        }
    }

    /// Counts the starts of an earlier agent's runs, so that no restart makes room for more than the limit.
    pub fn recall_starts(&mut self, now: Now, starts: impl IntoIterator<Item = Timestamp>) {
        for started_at in starts {
            self.rate_limiter.recall(now, started_at);
        }
    }

    /// Takes in what happened and says what to do about it.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        if matches!(&input, Input::Blockers(reported) if *reported == self.reported) {
            // Reported before every other input, which may come in thousands.
            return Vec::new();
        }
        let mut effects = match input {
            Input::Delivered(cause) => self.deliver(now, cause),
            Input::TooNew(held) => self.hold(held),
            Input::Adopted { running, options, causes } => self.adopt(now, running, options, causes),
            Input::CompletedWhileDown { run, causes } => self.completed_while_down(now, run, causes),
            Input::Started(running) => self.started(running),
            Input::RunEnded { run, jitter } => self.run_ended(now, run, jitter),
            Input::Blockers(reported) => self.report_blockers(now, reported),
            Input::Recovered => self.recovered(now),
            Input::Tick => Vec::new(),
        };
        effects.extend(self.start_next(now));
        self.delay = self.find_delay(now);
        let is_held_up = self.blocker.is_some() && self.waiting_causes().next().is_some();
        self.next_look = is_held_up.then(|| now.elapsed + BLOCKER_POLL_INTERVAL);
        effects
    }

    /// When the next [`Input::Tick`] is due on the forward clock; nothing when only an input changes anything.
    ///
    /// While a blocker keeps deliveries waiting, that is when to look at the blockers again: not all of them
    /// announce that they are gone.
    pub fn next_wake(&self) -> Option<Duration> {
        self.next_look.or_else(|| self.next_start())
    }

    /// When the next run may start, on the forward clock.
    fn next_start(&self) -> Option<Duration> {
        if self.active.is_some() || self.blocker.is_some() {
            return None;
        }
        [&self.real, &self.noop].into_iter().filter_map(|waiting| self.ready_at(waiting)).min()
    }

    /// What the node does and what keeps it from doing more, for its record in the backend.
    pub fn activity(&self) -> Activity {
        let retrying = [&self.real, &self.noop]
            .into_iter()
            .filter_map(|waiting| {
                let retry = waiting.retry.as_ref()?;
                Some(Retrying {
                    at: self.delay.map_or(retry.at, |delay| retry.at.max(delay.at)),
                    reason: retry.reason.clone(),
                    causes: listed(&waiting.causes),
                })
            })
            .collect();
        let delayed = self.delay.map(|delay| Delayed {
            at: delay.at,
            reason: limit_reason(self.rate_limiter.limit(), delay.at),
            causes: listed(self.waiting_causes()),
        });
        let running = |active: &ActiveRun| {
            let Running { run_id, started_at, .. } = *active.running.as_ref()?;
            Some(Running { run_id, started_at, causes: listed(&active.causes) })
        };
        let held = self.held().take(MAX_LISTED);
        Activity {
            running: self.active.as_ref().and_then(running),
            retrying: if self.blocker.is_some() { Vec::new() } else { retrying },
            delayed,
            held: held.map(|(event, reason)| HeldDelivery { event, reason: shortened(reason) }).collect(),
        }
    }

    /// What waits for a person, and why.
    pub fn held(&self) -> impl Iterator<Item = (EventId, &str)> {
        let too_new = self.too_new.iter().map(|held| (held.event, held.reason.as_str()));
        let blocked = self
            .blocked_reason()
            .into_iter()
            .flat_map(|reason| self.waiting_causes().map(move |cause| (cause.event.id, reason)));
        too_new.chain(blocked)
    }

    /// What the run in progress covers, once it has its id.
    pub fn running_causes(&self) -> &[Cause] {
        let running = self.active.as_ref().filter(|active| active.running.is_some());
        running.map_or(&[], |active| &active.causes)
    }

    /// All that waits for a run, real requests first.
    pub fn waiting_causes(&self) -> impl Iterator<Item = &Cause> {
        self.real.causes.iter().chain(&self.noop.causes)
    }

    /// Whether a run starts with this input unless something blocks it: before that, what may block it has to
    /// be looked at.
    pub fn may_start(&self, now: Now, input: &Input) -> bool {
        let arrives_for = |noop| matches!(input, Input::Delivered(c) if c.event.options.noop == noop);
        let is_due = |waiting: &Waiting, noop| {
            let not_before = waiting.retry.as_ref().map_or(now.elapsed, |retry| retry.not_before);
            (arrives_for(noop) || !waiting.causes.is_empty()) && not_before <= now.elapsed
        };
        let is_free = self.rate_limiter.spaced().max(self.rate_limiter.permitted()) <= now.elapsed;
        match input {
            // What it covered may be all there is.
            Input::RunEnded { .. } => true,
            Input::Recovered => true,
            _ if self.is_recovering => false,
            _ => self.active.is_none() && is_free && (is_due(&self.real, false) || is_due(&self.noop, true)),
        }
    }

    /// The blocker that counts, if any keeps runs from starting.
    pub fn blocker(&self) -> Option<&Blocker> {
        self.blocker.as_ref()
    }

    /// Why no run may start, as a sentence.
    pub fn blocked_reason(&self) -> Option<&str> {
        self.blocker.as_ref().map(Blocker::reason)
    }

    /// Whether an event waits or runs here.
    pub fn is_queued(&self, event: EventId) -> bool {
        let active = self.active.iter().flat_map(|active| &active.causes);
        active.chain(self.waiting_causes()).any(|cause| cause.event.id == event)
    }

    fn deliver(&mut self, now: Now, cause: Cause) -> Vec<Effect> {
        let event = cause.event.id;
        self.too_new.retain(|held| held.event != event);
        if let Some(ended) = self.ended.get(&event) {
            let addressed_as = cause.addressed_as;
            return vec![match &ended.without_run {
                // No record of a run tells it again.
                Some(end) => Effect::Finish {
                    run: None,
                    completions: vec![Completion { event, addressed_as, outcome: end.clone() }],
                },
                None => Effect::DeleteDeliveries { event, addressed_as },
            }];
        }
        if let Some(known) = self.find_mut(event) {
            known.addressed_as.extend(cause.addressed_as);
            return Vec::new();
        }
        if let Some(reason) = self.refusal(&cause) {
            return vec![self.finish(now, None, vec![(cause, reason)])];
        }
        let waiting = if cause.event.options.noop { &mut self.noop } else { &mut self.real };
        waiting.causes.push(cause);
        // Somebody asks again.
        waiting.shorten_backoff(now);
        let superseded = waiting.supersede_duplicates();
        if superseded.is_empty() { Vec::new() } else { vec![self.finish(now, None, superseded)] }
    }

    fn refusal(&self, cause: &Cause) -> Option<DeliveryOutcome> {
        if cause.event.options.noop && !self.settings.honours_noop {
            return Some(DeliveryOutcome::Refused("this node's run command cannot honour noop".to_owned()));
        }
        let event = &cause.event;
        let repeats =
            repeats_in_every_chain(&event.trigger, &self.settings.certname, &event.lineage, event.loops);
        repeats.map(|suppression| DeliveryOutcome::Suppressed(suppression.to_string()))
    }

    fn find_mut(&mut self, event: EventId) -> Option<&mut Cause> {
        let active = self.active.iter_mut().flat_map(|active| &mut active.causes);
        active.chain(&mut self.real.causes).chain(&mut self.noop.causes).find(|cause| cause.event.id == event)
    }

    fn hold(&mut self, held: HeldDelivery) -> Vec<Effect> {
        let is_known = self.ended.contains_key(&held.event) || self.is_queued(held.event);
        if !is_known && !self.too_new.iter().any(|known| known.event == held.event) {
            self.too_new.push(held);
        }
        Vec::new()
    }

    fn adopt(&mut self, now: Now, running: Running, options: RunOptions, causes: Vec<Cause>) -> Vec<Effect> {
        assert!(self.active.is_none(), "one run at a time: a second one was adopted");
        self.rate_limiter.adopted(now, running.started_at);
        self.is_noops_turn = !options.noop;
        self.active = Some(ActiveRun { running: Some(running), causes, noop: options.noop, attempts: 0 });
        Vec::new()
    }

    fn started(&mut self, running: Running) -> Vec<Effect> {
        if let Some(active) = &mut self.active {
            active.running = Some(running);
        }
        Vec::new()
    }

    fn report_blockers(&mut self, now: Now, reported: Blockers) -> Vec<Effect> {
        self.reported = reported;
        self.choose_blocker(now)
    }

    fn recovered(&mut self, now: Now) -> Vec<Effect> {
        self.is_recovering = false;
        self.choose_blocker(now)
    }

    fn choose_blocker(&mut self, now: Now) -> Vec<Effect> {
        let was_blocked = self.blocker.is_some();
        self.blocker = Blocker::first(self.is_recovering, &self.reported);
        if was_blocked && self.blocker.is_none() {
            // An operator has just attended to this node: what could not happen before may well happen now.
            self.real.shorten_backoff(now);
            self.noop.shorten_backoff(now);
        }
        Vec::new()
    }

    fn run_ended(&mut self, now: Now, run: CompletedRun, jitter: f64) -> Vec<Effect> {
        let Some(active) = self.active.take() else { return Vec::new() };
        let retry = self.retry_after(now, &run, active.attempts, jitter);
        let run_id = run.run_id;
        let (ended, again) = divide(run, active.causes);
        if !again.is_empty() {
            self.requeue(active.noop, again, retry);
        }
        vec![self.finish(now, Some(run_id), ended)]
    }

    fn completed_while_down(&mut self, now: Now, run: CompletedRun, causes: Vec<Cause>) -> Vec<Effect> {
        self.rate_limiter.adopted(now, run.result.started_at);
        let run_id = run.run_id;
        let (ended, _) = divide(run, causes);
        vec![self.finish(now, Some(run_id), ended)]
    }

    /// When to try again what could not happen. What keeps runs from starting now, an operator who has just disabled
    /// Puppet say, is why this one did not happen: it waits for that, and for nothing else.
    fn retry_after(&self, now: Now, run: &CompletedRun, attempts: u32, jitter: f64) -> Option<Retry> {
        let is_due = run.result.outcome == RunOutcome::NotRun && self.blocker.is_none();
        let wait = backoff::retry_run(attempts, jitter);
        is_due.then(|| Retry {
            attempts: attempts + 1,
            not_before: now.elapsed + wait,
            at: now.wall.plus(wait),
            reason: run.result.reason.clone().unwrap_or_else(|| "Puppet did not run".to_owned()),
        })
    }

    /// Puts causes back in front of what arrived meanwhile. After a crash several runs are told of one
    /// after the other, so a cause may have ended in a later run, or wait already.
    fn requeue(&mut self, noop: bool, causes: Vec<Cause>, retry: Option<Retry>) {
        let waiting = if noop { &mut self.noop } else { &mut self.real };
        let arrived = std::mem::take(&mut waiting.causes);
        for cause in causes.into_iter().chain(arrived) {
            if self.ended.contains_key(&cause.event.id) {
                continue;
            }
            match waiting.causes.iter_mut().find(|known| known.event.id == cause.event.id) {
                Some(known) => {
                    known.addressed_as.extend(cause.addressed_as);
                    known.interruptions = known.interruptions.max(cause.interruptions);
                }
                None => waiting.causes.push(cause),
            }
        }
        waiting.is_deduplicated = false;
        waiting.retry = retry.filter(|_| !waiting.causes.is_empty());
    }

    fn start_next(&mut self, now: Now) -> Vec<Effect> {
        if self.active.is_some() || self.blocker.is_some() {
            return Vec::new();
        }
        let mut effects = self.expire(now);
        let ready = |waiting: &Waiting| self.ready_at(waiting).is_some_and(|at| at <= now.elapsed);
        let noop = match (ready(&self.real), ready(&self.noop)) {
            (false, false) => return effects,
            // In turn: neither kind can keep the other from running, whatever the clocks say that their events
            // were named after.
            (true, true) => self.is_noops_turn,
            (_, noop) => noop,
        };
        let waiting = std::mem::take(if noop { &mut self.noop } else { &mut self.real });
        let Some(options) = waiting.causes.iter().map(|c| c.event.options.clone()).reduce(|a, b| a.union(&b))
        else {
            return effects;
        };
        self.rate_limiter.started(now.elapsed);
        self.is_noops_turn = !noop;
        self.active = Some(ActiveRun {
            running: None,
            causes: waiting.causes.clone(),
            noop,
            attempts: waiting.retry.map_or(0, |retry| retry.attempts),
        });
        effects.push(Effect::StartRun { options, causes: waiting.causes });
        effects
    }

    /// When the causes may start; nothing when there are none.
    fn ready_at(&self, waiting: &Waiting) -> Option<Duration> {
        if waiting.causes.is_empty() {
            return None;
        }
        let may_follow = self.rate_limiter.spaced().max(self.rate_limiter.permitted());
        Some(waiting.retry.as_ref().map_or(may_follow, |retry| retry.not_before.max(may_follow)))
    }

    /// Whether the limit on runs is what the next one waits for.
    fn find_delay(&self, now: Now) -> Option<Delay> {
        let until = self.rate_limiter.permitted();
        let is_for_the_limit = until > now.elapsed && self.next_start() == Some(until);
        // Kept as it was told first: a wall clock that wavers is no news.
        let known = self.delay.filter(|delay| delay.until == until);
        is_for_the_limit
            .then(|| known.unwrap_or_else(|| Delay { until, at: now.wall.plus(until - now.elapsed) }))
    }

    /// Ends what outlived its event: judged here, by the target, when a run could start.
    fn expire(&mut self, now: Now) -> Vec<Effect> {
        let mut expired = Vec::new();
        for waiting in [&mut self.real, &mut self.noop] {
            expired.extend(waiting.causes.extract_if(.., |cause| cause.event.is_expired(now.wall)));
            if waiting.causes.is_empty() {
                waiting.retry = None;
            }
        }
        if expired.is_empty() {
            return Vec::new();
        }
        vec![self.finish(
            now,
            None,
            expired.into_iter().map(|cause| (cause, DeliveryOutcome::Expired)).collect(),
        )]
    }

    fn finish(&mut self, now: Now, run: Option<RunId>, ended: Vec<(Cause, DeliveryOutcome)>) -> Effect {
        self.ended.retain(|&event, ended| !HonouredEvent { event, ended_at: ended.at }.is_outlived(now.wall));
        let completions = ended
            .into_iter()
            .map(|(cause, end)| {
                let without_run = run.is_none().then(|| end.clone());
                self.ended.insert(cause.event.id, HonouredHere { at: now.wall, without_run });
                for waiting in [&mut self.real, &mut self.noop] {
                    waiting.causes.retain(|other| other.event.id != cause.event.id);
                }
                Completion { event: cause.event.id, addressed_as: cause.addressed_as, outcome: end }
            })
            .collect();
        Effect::Finish { run, completions }
    }
}

/// What a run has ended, and what it leaves to another one.
fn divide(run: CompletedRun, causes: Vec<Cause>) -> (Vec<(Cause, DeliveryOutcome)>, Vec<Cause>) {
    let (over, again): (Vec<Cause>, Vec<Cause>) = match run.result.outcome {
        RunOutcome::NotRun => (Vec::new(), causes),
        RunOutcome::Interrupted => causes.into_iter().partition(|cause| cause.interruptions > 0),
        _ => (causes, Vec::new()),
    };
    let is_interrupted = run.result.outcome == RunOutcome::Interrupted;
    let again = again
        .into_iter()
        .map(|cause| Cause { interruptions: cause.interruptions + u32::from(is_interrupted), ..cause })
        .collect();
    let end = match run.result.outcome {
        RunOutcome::Unchanged | RunOutcome::Changed => DeliveryOutcome::Done(run),
        _ => DeliveryOutcome::Failed(run),
    };
    (over.into_iter().map(|cause| (cause, end.clone())).collect(), again)
}

fn limit_reason(limit: RunsPerMinute, at: Timestamp) -> String {
    let runs = if limit.get() == 1 { "run" } else { "runs" };
    format!(
        "{limit} {runs} started within a minute (runs_per_minute); the next may start at {} UTC",
        at.time_of_day()
    )
}

fn listed<'a>(causes: impl IntoIterator<Item = &'a Cause>) -> Vec<EventId> {
    causes.into_iter().take(MAX_LISTED).map(|cause| cause.event.id).collect()
}

impl Waiting {
    /// No need to sit out a wait that has grown long, nor to hammer.
    fn shorten_backoff(&mut self, now: Now) {
        let Some(retry) = &mut self.retry else { return };
        let soon = now.elapsed + backoff::retry_run(0, 0.0);
        if soon < retry.not_before {
            retry.at = now.wall.plus(soon - now.elapsed);
            retry.not_before = soon;
        }
    }

    /// Collapses a backlog to which one more has just arrived: an earlier event is superseded where a later
    /// one has the same trigger, origin, options and past, and expires no sooner. What nothing later stands
    /// for stays, however many they are: of a backlog that was collapsed only the latest can stand for
    /// others, or ten thousand of them would take each new one a look at every pair.
    fn supersede_duplicates(&mut self) -> Vec<(Cause, DeliveryOutcome)> {
        let causes = &mut self.causes;
        let mut superseded = Vec::new();
        let mut at = 0;
        while at < causes.len() && causes.len() > MAX_BACKLOG {
            let latest = causes.len() - 1;
            let from = if self.is_deduplicated { latest.max(at + 1) } else { at + 1 };
            let earlier = &causes[at].event;
            let successor = causes[from..].iter().map(|cause| &cause.event).rfind(|later| {
                later.trigger == earlier.trigger
                    && later.origin == earlier.origin
                    && later.options == earlier.options
                    && later.lineage.is_same_past(&earlier.lineage)
                    && later.expires_at() >= earlier.expires_at()
            });
            match successor.map(|later| later.id) {
                Some(id) => superseded.push((causes.remove(at), DeliveryOutcome::Superseded(id))),
                None => at += 1,
            }
        }
        self.is_deduplicated = at == causes.len();
        superseded
    }
}

#[cfg(test)]
mod tests;
