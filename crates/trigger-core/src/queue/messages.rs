//! The inputs and effects by which the queue and the agent communicate.

use std::collections::BTreeSet;

use super::Blockers;
use crate::cancellation::SignedCancellation;
use crate::delivery::Completion;
use crate::event::{RunOptions, Target};
use crate::identity::{EventId, RunId};
use crate::node::{HeldDelivery, Running};
use crate::policy::Policy;
use crate::puppetdb::Catalogs;
use crate::run::CompletedRun;
use crate::run::record::Cause;

/// Something that happened, as the agent reports it to the queue.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A pending delivery was read, for the first time or again.
    Delivered(Box<Cause>),
    /// A pending delivery was read that its origin or an operator wants to end. One that the policy does not let end is
    /// delivered.
    Cancelled {
        /// The delivery.
        cause: Box<Cause>,
        /// The request.
        cancellation: Box<SignedCancellation>,
    },
    /// Deliveries that were read together follow, and perhaps more of the same reading later. No run starts meanwhile, so
    /// that all of them share one.
    ReadingStarted {
        /// Whether everything that is there is read. Otherwise the deliveries have been committed since that was done.
        is_whole: bool,
    },
    /// All deliveries of a reading have been reported, or the rest of them could not be read.
    ReadingEnded {
        /// Whether everything that is there has been read.
        is_whole: bool,
    },
    /// A delivery that only a newer version can read. It is held until this agent is updated.
    TooNew(HeldDelivery),
    /// A delivery whose event cannot be verified now, and may be later. It is held until it is read again.
    Unverified(HeldDelivery),
    /// A delivery whose event is not what its origin signed, or does not name this node.
    Refused {
        /// The event that was to be delivered.
        event: EventId,
        /// The delivery that brought it.
        target: Target,
        /// Why, as a sentence.
        reason: String,
    },
    /// A run of an earlier agent is still in progress.
    Adopted {
        /// The run, as its record has it.
        running: Running,
        /// The options in its record.
        options: RunOptions,
        /// The causes in its record.
        causes: Vec<Cause>,
    },
    /// A run of an earlier agent ended while no agent was there. A cause that it has not completed is pending in the
    /// backend and will be delivered from there. It is not requeued from the record: where this state directory is a
    /// copy of another node's, the event may have been completed elsewhere since.
    CompletedWhileDown {
        /// The run with its result.
        run: CompletedRun,
        /// The causes in its record.
        causes: Vec<Cause>,
    },
    /// The run that [`Effect::StartRun`] asked for has an id and is about to start.
    Started(Running),
    /// The run in progress ended, or the one that [`Effect::StartRun`] asked for could not be started.
    RunEnded {
        /// The run with its result.
        run: CompletedRun,
        /// From 0.0 up to 1.0; spreads the retries of a fleet.
        jitter: f64,
    },
    /// What the agent sees now of the blockers outside the queue.
    Blockers(Blockers),
    /// All runs of earlier agents have been taken up. Until then no run starts.
    Recovered,
    /// Another policy is in force. What waits is judged by it.
    PolicyChanged(Policy),
    /// What PuppetDB says now of the catalogs that the queue [awaits](super::Queue::awaited_catalogs).
    Catalogs(Catalogs),
    /// Time has passed.
    Tick,
}

/// Something that the agent has to do. Effects are performed strictly in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the run record, then start its supervisor; answer with [`Input::Started`].
    StartRun {
        /// The options of the run: the union of those of its causes.
        options: RunOptions,
        /// The deliveries that the run covers. All of them have arrived before the record is written.
        causes: Vec<Cause>,
    },
    /// Append the events to the deduplication log where they are [honoured](super::Queue::honoured) (fsync), store the
    /// outcomes, delete the deliveries, then close the record of the run, if there is one (C4). Without `completions`,
    /// only the record is closed. Without `run`, several of these effects may be performed as one.
    Finish {
        /// The run whose record can be closed afterwards.
        run: Option<RunId>,
        /// The deliveries that ended.
        completions: Vec<Completion>,
    },
    /// Delete the deliveries of an event that a run has honoured here before. The backend has no outcome of it: the
    /// outcome is not stored yet, or it is lost because the backend was restored from a backup. So the outcome is
    /// stored again before the deletion where it is still known.
    DeleteDeliveries {
        /// The event.
        event: EventId,
        /// The targets by which the event addressed this node.
        addressed_as: BTreeSet<Target>,
    },
}
