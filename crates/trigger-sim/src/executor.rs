//! One thread, one queue of timers, one source of randomness: the seed decides which task continues next, how long
//! each operation takes and what fails, so that a run replays exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::tasks::{BoxFuture, NewTask, ProcessId};
use crate::timers::Action;
use crate::world::World;

type TaskId = u64;
/// The world, shared by all tasks. A task holds its lock only between two of its awaits.
#[derive(Clone)]
pub(crate) struct Sim(Arc<Mutex<World>>);

impl Sim {
    pub(crate) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts a task of `process`.
    pub(crate) fn spawn(&self, process: ProcessId, future: impl Future<Output = ()> + Send + 'static) {
        self.with(|world| world.spawn(process, future));
    }

    pub(crate) fn now(&self) -> Duration {
        self.with(|world| world.now)
    }

    /// Waits for a time on the simulation's own clock.
    pub(crate) fn sleep(&self, wait: Duration) -> Sleep {
        let until = self.with(|world| world.now.saturating_add(wait));
        Sleep { sim: self.clone(), until, timer: None }
    }

    /// Waits until a process has ended.
    pub(crate) fn exited(&self, process: ProcessId) -> Exited {
        Exited { sim: self.clone(), process }
    }

    /// Runs all tasks until the world is over or no timer is left.
    pub(crate) fn run(&self) {
        let ready = Arc::new(Ready::default());
        let mut tasks: BTreeMap<TaskId, (ProcessId, BoxFuture)> = BTreeMap::new();
        let mut next = 0;
        loop {
            self.take_in(&mut tasks, &mut next, &ready);
            if self.with(|world| world.is_over()) {
                break;
            }
            match ready.pick(|count| self.with(|world| world.rng.usize(..count))) {
                Some(id) => {
                    let Some((_, future)) = tasks.get_mut(&id) else { continue };
                    let waker = Waker::from(Arc::new(TaskWaker { id, ready: Arc::clone(&ready) }));
                    if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                        tasks.remove(&id);
                    }
                }
                None => {
                    let Some((at, action)) = self.with(|world| world.timers.pop()) else { break };
                    self.with(|world| world.now = at.max(world.now));
                    match action {
                        Action::Wake(waker) => waker.wake(),
                        Action::Do(act) => self.with(act),
                    }
                }
            }
        }
        // The tasks are dropped without the lock on the world, because their destructors may take it.
        drop(tasks);
        drop(self.with(|world| std::mem::take(&mut world.spawned)));
        drop(self.with(|world| std::mem::take(&mut world.timers)));
    }

    /// Takes in new tasks and drops the tasks of processes that have ended.
    fn take_in(
        &self,
        tasks: &mut BTreeMap<TaskId, (ProcessId, BoxFuture)>,
        next: &mut TaskId,
        ready: &Ready,
    ) {
        let (spawned, dead) =
            self.with(|world| (std::mem::take(&mut world.spawned), std::mem::take(&mut world.newly_dead)));
        for NewTask { process, future } in spawned {
            *next += 1;
            tasks.insert(*next, (process, future));
            ready.add(*next);
        }
        if !dead.is_empty() {
            tasks.retain(|_, (process, _)| !dead.contains(process));
        }
    }
}

impl World {
    /// Starts a task of `process`.
    pub(crate) fn spawn(&mut self, process: ProcessId, future: impl Future<Output = ()> + Send + 'static) {
        self.spawned.push(NewTask { process, future: Box::pin(future) });
    }

    /// Performs an action later.
    pub(crate) fn after(&mut self, wait: Duration, act: impl FnOnce(&mut World) + Send + 'static) {
        self.timers.add(self.now + wait, Action::Do(Box::new(act)));
    }
}

/// The tasks that are ready to continue.
#[derive(Default)]
struct Ready(Mutex<BTreeSet<TaskId>>);

impl Ready {
    fn add(&self, id: TaskId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    fn pick(&self, choose: impl FnOnce(usize) -> usize) -> Option<TaskId> {
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = match ready.len() {
            0 => return None,
            1 => *ready.first()?,
            count => *ready.iter().nth(choose(count))?,
        };
        ready.remove(&id);
        Some(id)
    }
}

struct TaskWaker {
    id: TaskId,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.add(self.id);
    }
}

/// See [`Sim::sleep`].
pub(crate) struct Sleep {
    sim: Sim,
    until: Duration,
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (until, timer) = (self.until, self.timer);
        let waiting = self.sim.with(|world| {
            // A task keeps its waker, so one timer is enough.
            let add = || world.timers.add(until, Action::Wake(context.waker().clone()));
            (world.now < until).then(|| timer.unwrap_or_else(add))
        });
        self.timer = waiting;
        if waiting.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            drop(self.sim.with(|world| world.timers.cancel(timer)));
        }
    }
}

/// See [`Sim::exited`].
pub(crate) struct Exited {
    sim: Sim,
    process: ProcessId,
}

impl Future for Exited {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.sim.with(|world| world.poll_exit(self.process, context.waker()))
    }
}
