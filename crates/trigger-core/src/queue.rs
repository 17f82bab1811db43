//! The queue of one node: which run starts next, which deliveries share it, which ones wait, and which ones end
//! without a run (C2, C4, C5, C6).
//!
//! [`Queue::step`] takes an input and returns the effects of it. The agent performs the effects strictly in order
//! and feeds their results back as inputs; it decides nothing itself (C14).

mod acceptance;
mod backlog;
mod blockers;
mod cancelling;
mod catalogs;
mod clocks;
mod completed;
mod completion;
mod ended;
mod held;
mod messages;
mod report;
mod settling;
mod unsettled;
mod waiting;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use self::backlog::Backlog;
use self::clocks::Clocks;
use self::completed::Completed;
use self::completion::{CompletedCauses, cancelled_and_repeated, completed_and_repeated};
pub use self::held::MAX_LISTED;
use self::held::Unusable;
use self::settling::Settling;
pub use self::settling::{DEFAULT_SETTLE, MAX_SETTLE};
use self::waiting::{Retry, Waiting};
use crate::dedup::HonouredEvent;
use crate::delivery::{Completion, DeliveryOutcome};
use crate::event::{RunKind, RunOptions, Target};
use crate::identity::{Certname, EventId};
use crate::node::{HeldDelivery, Running};
use crate::policy::Policy;
use crate::rate_limiter::{RateLimiter, RunsPerMinute};
use crate::run::command::CommandKind;
use crate::run::record::Cause;
use crate::run::{CompletedRun, RunOutcome};
use crate::time::{Now, Timestamp};

pub use self::blockers::{Blocker, Blockers, ClaimBlocker, PuppetBlocker};
pub use self::messages::{Effect, Input};

/// How long a run waits for the rest of a reading at most. Ten thousand deliveries are read in less; a backend that does
/// not answer must not hold up what it has delivered.
pub const READING_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the agent looks at the blockers while one of them keeps deliveries waiting.
pub const BLOCKER_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The part of a node's configuration that the queue needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    /// The node, for the loop guard's check at the members of a group.
    pub certname: Certname,
    /// What the run command is: not every one can do all that events ask for.
    pub command: CommandKind,
    /// How many runs may start in any minute.
    pub runs_per_minute: RunsPerMinute,
    /// Which events may run Puppet here.
    pub policy: Policy,
    /// How long a run waits until PuppetDB has stored the catalogs that its events were fired with; zero for not at all.
    pub settle: Duration,
}

/// The queue of one node.
#[derive(Debug, Clone)]
pub struct Queue {
    settings: QueueSettings,
    completed: Completed,
    /// The events that run and those that wait, to find out quickly that an event is not among them.
    queued: HashSet<EventId>,
    active: Option<ActiveRun>,
    /// The kind of the latest run: the kinds take turns.
    last_kind: Option<RunKind>,
    waiting: Backlog,
    unusable: Unusable,
    is_recovering: bool,
    /// The blockers outside the queue, as the agent reported them last.
    reported: Blockers,
    /// The blocker that counts.
    blocker: Option<Blocker>,
    /// When the agent is to look at the blockers again, on the clock that only goes forward.
    next_look: Option<Duration>,
    rate_limiter: RateLimiter,
    /// While deliveries are being read: until when runs wait for them, on the clock that only goes forward.
    reads_until: Option<Duration>,
    /// Which events can only have expired because clocks differ.
    clocks: Clocks,
    /// Which catalogs are awaited.
    settling: Settling,
    /// Set while nothing but the limit on runs keeps the next one from starting.
    delay: Option<Delay>,
}

#[derive(Debug, Clone)]
struct ActiveRun {
    /// Set once the agent has given the run an id.
    running: Option<Running>,
    causes: Vec<Cause>,
    kind: RunKind,
    /// Runs before this one that covered the same causes and could not happen.
    attempts: u32,
    /// The causes that do not run again after this run, with their outcome if it does not complete them.
    cancelled: HashMap<EventId, DeliveryOutcome>,
}

/// When the limit on runs lets the next one start.
#[derive(Debug, Clone, Copy)]
struct Delay {
    /// On the clock that only goes forward.
    until: Duration,
    /// The same moment on the wall clock, for display.
    at: Timestamp,
}

impl Queue {
    /// An empty queue in recovery: see [`Input::Recovered`]. `honoured` are the entries of the deduplication log.
    pub fn new(settings: QueueSettings, honoured: impl IntoIterator<Item = HonouredEvent>) -> Self {
        Self {
            rate_limiter: RateLimiter::new(settings.runs_per_minute),
            settings,
            completed: Completed::new(honoured),
            queued: HashSet::new(),
            active: None,
            last_kind: None,
            waiting: Backlog::default(),
            unusable: Unusable::default(),
            is_recovering: true,
            reported: Blockers::default(),
            blocker: Some(Blocker::Recovering),
            next_look: None,
            reads_until: None,
            clocks: Clocks::default(),
            settling: Settling::default(),
            delay: None,
        }
    }

    /// Counts the starts of an earlier agent's runs, so that a restart makes no room for more runs than the limit.
    pub fn recall_starts(&mut self, now: Now, starts: impl IntoIterator<Item = Timestamp>) {
        for started_at in starts {
            self.rate_limiter.recall(now, started_at);
        }
    }

    /// Takes an input and returns what the agent has to do about it.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        if matches!(&input, Input::Blockers(reported) if *reported == self.reported) {
            // The agent reports the blockers before every other input, of which thousands may come at once.
            return Vec::new();
        }
        if matches!(&input, Input::Catalogs(catalogs) if !self.settling.is_news(catalogs)) {
            return Vec::new();
        }
        // An arrival settles nothing, and thousands may come at once.
        let is_arrival = matches!(
            &input,
            Input::Delivered(_) | Input::TooNew(_) | Input::Unverified(_) | Input::Refused { .. }
        );
        let mut effects = match input {
            Input::ReadingStarted { is_whole } => self.reading_started(now, is_whole),
            Input::ReadingEnded { is_whole } => self.reading_ended(is_whole),
            Input::Delivered(cause) => self.deliver(now, *cause),
            Input::Cancelled { cause, cancellation } => self.cancel(now, *cause, &cancellation),
            Input::TooNew(held) | Input::Unverified(held) => self.hold(held),
            Input::Refused { event, target, reason } => self.refuse(event, target, reason),
            Input::Adopted { running, options, causes } => self.adopt(now, running, &options, causes),
            Input::CompletedWhileDown { run, causes } => self.completed_while_down(now, run, causes),
            Input::Started(running) => self.started(running),
            Input::RunEnded { run, jitter } => self.run_ended(now, run, jitter),
            Input::Blockers(reported) => self.report_blockers(reported),
            Input::Recovered => self.recovered(),
            Input::PolicyChanged(policy) => self.policy_changed(now, policy),
            Input::Catalogs(catalogs) => self.catalogs_reported(now, catalogs),
            Input::Tick => Vec::new(),
        };
        if !is_arrival {
            effects.extend(self.repeat_settled(now));
        }
        self.choose_blocker(now);
        effects.extend(self.start_next(now));
        self.delay = self.find_delay(now);
        let is_held_up = self.blocker.is_some() && self.waiting_causes().next().is_some();
        self.next_look = is_held_up.then(|| match &self.blocker {
            Some(Blocker::Settling { until, .. }) => *until,
            _ => now.elapsed + BLOCKER_POLL_INTERVAL,
        });
        effects
    }

    /// When the next [`Input::Tick`] is due on the forward clock; absent when only another input changes anything.
    ///
    /// While a blocker keeps deliveries waiting, that is when to look at the blockers again: not all of them
    /// announce that they are gone.
    pub fn next_wake(&self) -> Option<Duration> {
        let next = self.next_look.or_else(|| self.next_start());
        [next, self.settling.next_give_up()].into_iter().flatten().min()
    }

    /// Whether a run starts with this input unless a blocker keeps it from starting. Before that, the agent has to
    /// look at the blockers that announce nothing.
    pub fn may_start(&self, now: Now, input: &Input) -> bool {
        let is_due =
            |waiting: &Waiting| waiting.retry.as_ref().is_none_or(|retry| retry.not_before <= now.elapsed);
        let arrival_is_due = || match input {
            Input::Delivered(cause) | Input::Cancelled { cause, .. } => {
                self.waiting.of_kind(&cause.event.options.kind()).is_none_or(is_due)
            }
            _ => false,
        };
        let some_are_due =
            || self.waiting.kinds().any(|waiting| !waiting.causes.is_empty() && is_due(waiting));
        let has_read = matches!(input, Input::ReadingEnded { .. }) || !self.is_reading(now);
        let is_free =
            has_read && self.rate_limiter.spaced().max(self.rate_limiter.permitted()) <= now.elapsed;
        match input {
            // The causes of the run may be all that there is to run.
            Input::RunEnded { .. } | Input::Recovered => true,
            // A delivery that has run already runs again.
            _ if self.active.is_none() && is_free && self.settling.has_repetitions() => true,
            _ if self.is_recovering => false,
            _ => self.active.is_none() && is_free && (arrival_is_due() || some_are_due()),
        }
    }

    fn reading_started(&mut self, now: Now, is_whole: bool) -> Vec<Effect> {
        self.clocks.reading_started(now, is_whole);
        if is_whole {
            self.unusable.reading_all();
        }
        self.reads_until.get_or_insert(now.elapsed + READING_TIMEOUT);
        Vec::new()
    }

    fn reading_ended(&mut self, is_whole: bool) -> Vec<Effect> {
        self.reads_until = None;
        self.unusable.reading_ended(is_whole);
        Vec::new()
    }

    fn is_reading(&self, now: Now) -> bool {
        self.reads_until.is_some_and(|until| until > now.elapsed)
    }

    fn deliver(&mut self, now: Now, cause: Cause) -> Vec<Effect> {
        let event = cause.event.id;
        self.unusable.remove(event);
        if let Some(effect) = self.finish_again(event, &cause.addressed_as) {
            return vec![effect];
        }
        if let Some(known) = self.find_mut(event) {
            known.addressed_as.extend(cause.addressed_as);
            return Vec::new();
        }
        if let Some(refusal) = self.refusal(&cause) {
            return vec![self.finish(now, None, vec![(cause, refusal)])];
        }
        self.clocks.delivered(now, &cause.event);
        // It may have been superseded by an event that this node does not know any more.
        self.completed.remove(event);
        self.queued.insert(event);
        let awaited = self.settling.awaits(self.settings.settle, &cause.event);
        let waiting = self.waiting.of_kind_mut(cause.event.options.kind());
        if awaited {
            waiting.unsettled.add(now, self.settings.settle, &cause.event);
        }
        waiting.causes.push(cause);
        // A new request is a reason to try again soon.
        waiting.shorten_backoff(now);
        let superseded = waiting.supersede_duplicates();
        self.finish_any(now, superseded)
    }

    /// Ends a delivery whose event does not count. Where an event of the same id was accepted before, that one goes on.
    /// Nothing is remembered: an event that is what its origin signed may have the same id.
    fn refuse(&mut self, event: EventId, target: Target, reason: String) -> Vec<Effect> {
        self.unusable.remove(event);
        let addressed_as = BTreeSet::from([target]);
        if let Some(effect) = self.finish_again(event, &addressed_as) {
            return vec![effect];
        }
        if self.is_queued(event) {
            return Vec::new();
        }
        let outcome = DeliveryOutcome::Refused(reason);
        vec![Effect::Finish { run: None, completions: vec![Completion { event, addressed_as, outcome }] }]
    }

    fn find_mut(&mut self, event: EventId) -> Option<&mut Cause> {
        if !self.queued.contains(&event) {
            return None;
        }
        let active = self.active.iter_mut().flat_map(|active| &mut active.causes);
        active
            .chain(self.waiting.causes_mut())
            .chain(self.settling.repeated_causes_mut())
            .find(|cause| cause.event.id == event)
    }

    fn hold(&mut self, held: HeldDelivery) -> Vec<Effect> {
        if !self.is_known(held.event) {
            self.unusable.hold(held);
        }
        Vec::new()
    }

    fn adopt(&mut self, now: Now, running: Running, options: &RunOptions, causes: Vec<Cause>) -> Vec<Effect> {
        assert!(self.active.is_none(), "one run at a time: a second one was adopted");
        self.rate_limiter.adopted(now, running.started_at);
        self.last_kind = Some(options.kind());
        self.queued.extend(causes.iter().map(|cause| cause.event.id));
        self.active = Some(ActiveRun {
            running: Some(running),
            causes,
            kind: options.kind(),
            attempts: 0,
            cancelled: HashMap::new(),
        });
        Vec::new()
    }

    fn started(&mut self, running: Running) -> Vec<Effect> {
        if let Some(active) = &mut self.active {
            active.running = Some(running);
        }
        Vec::new()
    }

    fn report_blockers(&mut self, reported: Blockers) -> Vec<Effect> {
        self.reported = reported;
        Vec::new()
    }

    fn recovered(&mut self) -> Vec<Effect> {
        self.is_recovering = false;
        Vec::new()
    }

    fn choose_blocker(&mut self, now: Now) {
        let was_blocked = self.is_blocked();
        self.blocker = Blocker::first(self.is_recovering, &self.reported);
        if was_blocked && self.blocker.is_none() {
            // An operator has probably just attended to this node: a run that could not happen before may happen now.
            self.waiting.shorten_backoff(now);
        }
        if self.blocker.is_none() {
            self.blocker = settling::blocker(now, self.waiting.kinds());
        }
    }

    /// Whether something outside the queue keeps runs from starting.
    fn is_blocked(&self) -> bool {
        self.blocker.as_ref().is_some_and(|blocker| !matches!(blocker, Blocker::Settling { .. }))
    }

    fn run_ended(&mut self, now: Now, run: CompletedRun, jitter: f64) -> Vec<Effect> {
        let Some(active) = self.active.take() else { return Vec::new() };
        // A run that could not happen because of a blocker, such as an operator who has just disabled Puppet, waits
        // for that blocker and for nothing else.
        let is_retried = run.result.outcome == RunOutcome::NotRun && !self.is_blocked();
        let retry = is_retried.then(|| Retry::after(&run, now, active.attempts, jitter));
        let run_id = run.run_id;
        let CompletedCauses { completed, again, unsettled } =
            completed_and_repeated(run, active.causes, &active.cancelled);
        let (cancelled, again) = cancelled_and_repeated(again, active.cancelled);
        self.settling.repeat_later(now, unsettled);
        if !again.is_empty() {
            // A cause may have been completed by a later run: after a crash, several runs are reported one after
            // the other.
            let again = again.into_iter().filter(|cause| !self.completed.contains(cause.event.id));
            self.waiting.of_kind_mut(active.kind).requeue(again, retry);
            self.look_at_catalogs(now);
        }
        let mut effects = vec![self.finish(now, Some(run_id), completed)];
        effects.extend(self.finish_any(now, cancelled));
        // The policy may have changed while the run was in progress.
        effects.extend(self.refuse_waiting(now));
        effects
    }

    fn completed_while_down(&mut self, now: Now, run: CompletedRun, causes: Vec<Cause>) -> Vec<Effect> {
        self.rate_limiter.adopted(now, run.result.started_at);
        let run_id = run.run_id;
        let CompletedCauses { completed, .. } = completed_and_repeated(run, causes, &HashMap::new());
        vec![self.finish(now, Some(run_id), completed)]
    }

    fn start_next(&mut self, now: Now) -> Vec<Effect> {
        if self.active.is_some() || self.blocker.is_some() {
            return Vec::new();
        }
        let mut effects = self.expire(now);
        let may_follow = self.may_follow();
        let is_ready = |waiting: &Waiting| ready_at(waiting, may_follow).is_some_and(|at| at <= now.elapsed);
        let Some((kind, mut waiting)) = self.waiting.take_next(self.last_kind.as_ref(), is_ready) else {
            return effects;
        };
        for cause in &mut waiting.causes {
            cause.without_catalog = waiting.unsettled.contains(cause.event.id);
        }
        let Some(options) = waiting.causes.iter().map(|c| c.event.options.clone()).reduce(|a, b| a.union(&b))
        else {
            return effects;
        };
        self.rate_limiter.started(now.elapsed);
        self.last_kind = Some(kind.clone());
        self.active = Some(ActiveRun {
            running: None,
            causes: waiting.causes.clone(),
            kind,
            attempts: waiting.retry.map_or(0, |retry| retry.attempts),
            cancelled: HashMap::new(),
        });
        effects.push(Effect::StartRun { options, causes: waiting.causes });
        effects
    }

    /// When the next run may start, on the forward clock.
    fn next_start(&self) -> Option<Duration> {
        if self.active.is_some() || self.blocker.is_some() {
            return None;
        }
        let may_follow = self.may_follow();
        self.waiting.kinds().filter_map(|waiting| ready_at(waiting, may_follow)).min()
    }

    /// When another run may follow, whatever its causes are.
    fn may_follow(&self) -> Duration {
        let permitted = self.rate_limiter.spaced().max(self.rate_limiter.permitted());
        permitted.max(self.reads_until.unwrap_or_default())
    }

    /// The delay, if the limit on runs is all that keeps the next run from starting.
    fn find_delay(&self, now: Now) -> Option<Delay> {
        let until = self.rate_limiter.permitted();
        let is_for_the_limit = until > now.elapsed && self.next_start() == Some(until);
        // A delay keeps the wall-clock time that was published first: small steps of the clock are no news.
        let known = self.delay.filter(|delay| delay.until == until);
        is_for_the_limit
            .then(|| known.unwrap_or_else(|| Delay { until, at: now.wall.plus(until - now.elapsed) }))
    }

    /// Ends the deliveries whose events have expired. The target decides that, at the moment when a run could start
    /// (C12).
    fn expire(&mut self, now: Now) -> Vec<Effect> {
        let clocks = &mut self.clocks;
        let ended = self.waiting.extract(|cause| {
            let is_expired = cause.event.is_expired(now.wall);
            is_expired.then(|| DeliveryOutcome::Expired(Some(clocks.explain_expiry(now.wall, &cause.event))))
        });
        self.finish_any(now, ended)
    }
}

/// When a run of these causes may start, where another run `may_follow` at the earliest; absent when there are none.
fn ready_at(waiting: &Waiting, may_follow: Duration) -> Option<Duration> {
    let retried = waiting.retry.as_ref().map(|retry| retry.not_before);
    let times = [Some(may_follow), waiting.unsettled.until(), retried];
    times.into_iter().flatten().max().filter(|_| !waiting.causes.is_empty())
}

#[cfg(test)]
mod tests;
