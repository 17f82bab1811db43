//! Keeps this node held or not: takes orders, remembers the latest one that counts across restarts, and ends a hold whose time
//! is over. [`trigger_core::holds`] decides.

use std::sync::Arc;
use std::time::Duration;

use trigger_core::holds::{Demand, HoldNote, Holds, Judged, SignedHoldOrder};
use trigger_core::node::{HeldNode, HoldReport};
use trigger_core::policy::Policy;
use trigger_core::wire::Stored;

use super::{Node, audit};
use crate::host::Host;
use crate::state::{read_if_present, write_durably};

/// The file of the latest order.
const FILE: &str = "hold";
/// How often what is left of a hold is noted. A machine that starts with a wrong clock makes a hold longer by no more.
const NOTE_INTERVAL: Duration = Duration::from_secs(10 * 60);

pub(super) struct HoldKeeper<H: Host> {
    node: Arc<Node<H>>,
    holds: Holds,
    /// When what is left was noted last, on the clock that only goes forward.
    noted_at: Duration,
}

impl<H: Host> HoldKeeper<H> {
    /// Recalls what an earlier agent of this directory has accepted.
    pub(super) fn new(node: Arc<Node<H>>) -> Self {
        let holds = Holds::recall(node.host.now(), read_note(&node));
        let noted_at = node.host.now().elapsed;
        let mut keeper = Self { node, holds, noted_at };
        if let Some(held) = keeper.held() {
            tracing::warn!(reason = %held, "this node is still held: no run starts");
            // Each start notes what is left, so that no number of restarts makes a hold longer.
            keeper.write_note();
        }
        keeper
    }

    /// Takes an order that was read.
    pub(super) fn take(&mut self, policy: &Policy, order: &SignedHoldOrder) {
        let SignedHoldOrder { order: given, signer } = order;
        let permission = policy.judge_hold(&given.by, signer, &self.node.settings.certname);
        let judged = self.holds.take(self.node.host.now(), given, permission);
        match &judged {
            Judged::Known | Judged::KnownRefusal => return,
            Judged::Accepted => {
                // A crash before this costs nothing: the order is read again.
                self.write_note();
                match (self.holds.held(), &given.demand) {
                    (Some(held), _) => tracing::warn!(reason = %held, "this node is held: no run starts"),
                    (None, Demand::Release) => tracing::info!(by = %given.by, "this node is released"),
                    (None, Demand::Hold { .. }) => {
                        tracing::info!(by = %given.by, "the time of an order to hold this node was over when it was read");
                    }
                }
            }
            Judged::Refused(why) => {
                tracing::warn!(by = %given.by, number = given.number, why, "an order to hold or release this node does not count");
            }
        }
        audit::hold(order, &judged);
    }

    /// The hold that is in force now.
    pub(super) fn held(&mut self) -> Option<&HeldNode> {
        if let Some(order) = self.holds.expire(self.node.host.now()) {
            tracing::info!(by = %order.by, "the time of the hold is over: runs start again");
            audit::hold_ended(order);
            self.write_note();
        }
        if self.holds.held().is_some() && self.node.host.now().elapsed >= self.noted_at + NOTE_INTERVAL {
            self.write_note();
        }
        self.holds.held()
    }

    /// Notes what is left of a hold, before the agent ends.
    pub(super) fn note_what_is_left(&self) {
        if self.holds.held().is_some() {
            self.save_note();
        }
    }

    /// When the hold ends, on the clock that only goes forward.
    pub(super) fn ends(&self) -> Option<Duration> {
        self.holds.ends()
    }

    /// What the registration shows of it.
    pub(super) fn report(&self) -> Option<HoldReport> {
        self.holds.report()
    }

    fn write_note(&mut self) {
        self.noted_at = self.node.host.now().elapsed;
        self.save_note();
    }

    fn save_note(&self) {
        let Some(note) = self.holds.note(self.node.host.now()) else { return };
        let state = &self.node.settings.state;
        if let Err(error) = write_durably(state.host(), &state.file(FILE), note.to_wire().as_bytes()) {
            tracing::error!(%error, "cannot note the order to hold or release this node: after a restart, an older one may count");
        }
    }
}

/// The note of an earlier agent. One that cannot be read holds nothing: an order that still counts is read again.
fn read_note<H: Host>(node: &Node<H>) -> Option<HoldNote> {
    let state = &node.settings.state;
    let path = state.file(FILE);
    let text = match read_if_present(state.host(), &path) {
        Ok(text) => text?,
        Err(error) => {
            tracing::error!(%error, "cannot read which order to hold this node counts");
            return None;
        }
    };
    match HoldNote::from_wire(&text) {
        Ok(note) => Some(note),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read which order to hold this node counts");
            None
        }
    }
}
