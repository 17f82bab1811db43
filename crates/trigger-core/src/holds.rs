//! Holds: an operator keeps an agent from starting runs for a time (C13).
//!
//! An order is stored at the key of its node, signed by the node that gives it. The node's policy decides whether it counts. The
//! node remembers the latest order that did, and takes no order with a smaller number, so that an old one that is put back neither
//! holds nor releases it. What has been accepted lasts until its time is over or a newer order comes: the absence of the key says
//! nothing.

use std::time::Duration;

use crate::duration;
use crate::event::CLOCK_TOLERANCE;
use crate::identity::Certname;
use crate::node::{HeldNode, HoldReport, RefusedHold};
use crate::reason::{one_line, shortened};
use crate::signer::Signer;
use crate::time::{Now, Timestamp};

/// The longest hold.
pub const MAX_HOLD: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// By how much the clock of a node that gives an order may be ahead of another's.
const MAX_CLOCK_ERROR: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// The longest reason that an operator may give, in characters.
pub const MAX_REASON_CHARS: usize = 200;

/// An order to the node at whose key it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldOrder {
    /// Greater than that of every earlier order to this node.
    pub number: u64,
    /// The node that gives the order, and signs it.
    pub by: Certname,
    /// When it was given, by the clock of that node.
    pub at: Timestamp,
    /// What the node is to do.
    pub demand: Demand,
}

/// What an order asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// Start no run.
    Hold {
        /// For how long.
        lasts: Duration,
        /// Why, in the words of an operator: one line of at most [`MAX_REASON_CHARS`] characters.
        reason: Option<String>,
    },
    /// Start runs again.
    Release,
}

impl Demand {
    /// A hold whose reason is brought to one line of bounded length.
    pub fn hold(lasts: Duration, reason: Option<&str>) -> Self {
        Self::Hold { lasts, reason: one_line(reason, MAX_REASON_CHARS) }
    }

    /// What an audit names of it: the action, for how many seconds, and why.
    pub fn audited(&self) -> (&'static str, Option<u64>, Option<&str>) {
        match self {
            Self::Hold { lasts, reason } => ("hold", Some(lasts.as_secs()), reason.as_deref()),
            Self::Release => ("release", None, None),
        }
    }
}

/// An order whose signature has been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHoldOrder {
    /// The order.
    pub order: HoldOrder,
    /// What is verified of the node that gives it.
    pub signer: Signer,
}

/// The number of the next order to a node: about the time, in milliseconds since 1970. `stored` is the number of the stored
/// order, which any node of the fleet may have signed where the backend lets it; `reported` is the one that the node's
/// registration names. One that no clock explains is ignored, so that it cannot use the numbers up.
pub fn next_number(now: Timestamp, stored: Option<u64>, reported: Option<u64>) -> u64 {
    let plausible = now.plus(MAX_CLOCK_ERROR).as_unix_ms();
    let known = [stored, reported].into_iter().flatten().filter(|number| *number <= plausible).max();
    known.map_or(0, |number| number.saturating_add(1)).max(now.as_unix_ms())
}

/// The latest order that a node has accepted, as it survives a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldNote {
    /// The order.
    pub order: HoldOrder,
    /// How long it still held the node when this was noted; zero for a hold that is over and for a release.
    pub left: Duration,
    /// When this was noted, by the node's clock.
    pub noted_at: Timestamp,
}

/// Whether an order counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// It is the one that was accepted last.
    Known,
    /// It counts, and [`Holds::note`] has changed.
    Accepted,
    /// It was refused for the same reason before.
    KnownRefusal,
    /// It does not count, for this reason.
    Refused(String),
}

/// Whether a node is held, and what it knows of orders.
#[derive(Debug, Clone, Default)]
pub struct Holds {
    accepted: Option<HoldOrder>,
    current: Option<Current>,
    /// The order that was refused last, with the reason.
    refused: Option<(HoldOrder, String)>,
}

/// A hold that is in force.
#[derive(Debug, Clone)]
struct Current {
    /// When it ends, on the clock that only goes forward.
    ends: Duration,
    shown: HeldNode,
}

impl Holds {
    /// What a node knows after a start. A clock that was set back since the note makes the hold no longer than the note says.
    /// One whose time is over now is still to [expire](Self::expire).
    pub fn recall(now: Now, note: Option<HoldNote>) -> Self {
        let Some(HoldNote { order, left, noted_at }) = note else { return Self::default() };
        let remaining = left.min(MAX_HOLD).saturating_sub(now.wall.since(noted_at));
        let current = if left.is_zero() { None } else { current(now, &order, remaining) };
        Self { current, accepted: Some(order), refused: None }
    }

    /// Takes an order, of which the node's policy says whether its issuer may give it, or why not.
    pub fn take(&mut self, now: Now, order: &HoldOrder, permission: Result<(), String>) -> Judged {
        if self.accepted.as_ref() == Some(order) {
            return Judged::Known;
        }
        match self.admit(now, order, permission) {
            Ok(left) => {
                self.current = if left.is_zero() { None } else { current(now, order, left) };
                self.accepted = Some(order.clone());
                self.refused = None;
                Judged::Accepted
            }
            Err(why) => {
                let refused = (order.clone(), why.clone());
                if self.refused.as_ref() == Some(&refused) {
                    return Judged::KnownRefusal;
                }
                self.refused = Some(refused);
                Judged::Refused(why)
            }
        }
    }

    /// For how long an order holds the node from now on. One whose time is over counts too: it replaces an earlier one.
    fn admit(&self, now: Now, order: &HoldOrder, permission: Result<(), String>) -> Result<Duration, String> {
        permission?;
        let latest = self.accepted.as_ref().filter(|accepted| accepted.number >= order.number);
        if let Some(latest) = latest {
            return Err(format!(
                "its number {} is not greater than {}, that of the order by {} that this node has accepted: it is an old \
                 order that was put back, or one of two that were given at once; give it again if it is to count",
                order.number, latest.number, latest.by
            ));
        }
        let Demand::Hold { lasts, .. } = order.demand else { return Ok(Duration::ZERO) };
        if lasts > MAX_HOLD {
            let (asked, most) = (duration::format_short(lasts), duration::format_short(MAX_HOLD));
            return Err(format!("it asks for {asked}, and a node is held for {most} at most"));
        }
        // The clock of the node that gives an order may be behind: what is left is never more than what was asked for.
        let age = now.wall.since(order.at.plus(CLOCK_TOLERANCE));
        Ok(lasts.saturating_sub(age))
    }

    /// Ends a hold whose time is over, and returns its order.
    pub fn expire(&mut self, now: Now) -> Option<&HoldOrder> {
        self.current.take_if(|current| current.ends <= now.elapsed)?;
        self.accepted.as_ref()
    }

    /// When the hold ends, on the clock that only goes forward.
    pub fn ends(&self) -> Option<Duration> {
        self.current.as_ref().map(|current| current.ends)
    }

    /// The hold that is in force.
    pub fn held(&self) -> Option<&HeldNode> {
        self.current.as_ref().map(|current| &current.shown)
    }

    /// What is to survive a restart.
    pub fn note(&self, now: Now) -> Option<HoldNote> {
        let order = self.accepted.clone()?;
        let left = self.ends().map_or(Duration::ZERO, |ends| ends.saturating_sub(now.elapsed));
        Some(HoldNote { order, left, noted_at: now.wall })
    }

    /// What the node's record shows of it.
    pub fn report(&self) -> Option<HoldReport> {
        let refused = self.refused.as_ref().map(|(order, why)| RefusedHold {
            number: order.number,
            by: order.by.clone(),
            reason: shortened(why),
        });
        let accepted = self.accepted.as_ref().map(|order| order.number);
        (accepted.is_some() || refused.is_some()).then(|| HoldReport {
            accepted,
            held: self.held().cloned(),
            refused,
        })
    }
}

/// The hold that an order makes for so long, unless it is a release.
fn current(now: Now, order: &HoldOrder, left: Duration) -> Option<Current> {
    let Demand::Hold { reason, .. } = &order.demand else { return None };
    Some(Current {
        ends: now.elapsed + left,
        shown: HeldNode { until: now.wall.plus(left), by: order.by.clone(), reason: reason.clone() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);

    fn name(text: &str) -> Certname {
        text.parse().unwrap()
    }

    /// The policy of `lb01`, whose operator is `ops01`.
    fn judge(by: &Certname) -> Result<(), String> {
        match by.as_str() {
            "ops01" | "lb01" => Ok(()),
            _ => Err(format!("{by} has no right")),
        }
    }

    /// A moment at which both clocks are right, so long after noon.
    fn after(elapsed: Duration) -> Now {
        Now { wall: Timestamp::from_unix_ms(1_000_000_000).plus(elapsed), elapsed }
    }

    fn order(number: u64, by: &str, demand: Demand) -> SignedHoldOrder {
        let at = after(Duration::ZERO).wall;
        SignedHoldOrder { order: HoldOrder { number, by: name(by), at, demand }, signer: Signer::SharedKey }
    }

    fn hold(number: u64, lasts: Duration) -> SignedHoldOrder {
        order(number, "ops01", Demand::hold(lasts, Some("database migration")))
    }

    fn release(number: u64) -> SignedHoldOrder {
        order(number, "ops01", Demand::Release)
    }

    fn take(holds: &mut Holds, now: Now, order: &SignedHoldOrder) -> Judged {
        holds.take(now, &order.order, judge(&order.order.by))
    }

    /// What the node says of an order that it does not take.
    fn refusal(holds: &mut Holds, now: Now, order: &SignedHoldOrder) -> String {
        match take(holds, now, order) {
            Judged::Refused(why) => why,
            judged => panic!("{judged:?}"),
        }
    }

    fn held_for(order: &SignedHoldOrder) -> Holds {
        let mut holds = Holds::default();
        assert_eq!(take(&mut holds, after(Duration::ZERO), order), Judged::Accepted);
        holds
    }

    #[test]
    fn a_hold_ends_with_its_time_or_with_a_release() {
        let mut holds = held_for(&hold(7, HOUR));
        assert_eq!(take(&mut holds, after(MINUTE), &hold(7, HOUR)), Judged::Known);
        let shown = holds.held().unwrap().to_string();
        assert_eq!(shown, "held until 1970-01-12 14:46:40 UTC by ops01: database migration");
        assert_eq!(holds.ends(), Some(HOUR));
        assert_eq!(holds.expire(after(HOUR - MINUTE)), None);
        assert_eq!(holds.expire(after(HOUR)).unwrap().number, 7);
        assert_eq!(holds.expire(after(HOUR)), None);
        assert_eq!(holds.held(), None);

        let mut holds = held_for(&hold(7, HOUR));
        assert_eq!(take(&mut holds, after(MINUTE), &release(8)), Judged::Accepted);
        assert_eq!(holds.held(), None);
    }

    /// Proves C13.
    #[test]
    fn an_old_order_neither_holds_nor_releases() {
        let mut holds = held_for(&hold(7, HOUR));
        assert!(refusal(&mut holds, after(MINUTE), &release(6)).contains("not greater than 7"));
        assert!(holds.held().is_some());
        assert!(refusal(&mut holds, after(MINUTE), &release(7)).contains("given at once"));
        assert!(holds.held().is_some());
        take(&mut holds, after(MINUTE), &release(8));
        assert!(refusal(&mut holds, after(MINUTE), &hold(7, HOUR)).contains("put back"));
        assert_eq!(take(&mut holds, after(MINUTE), &hold(7, HOUR)), Judged::KnownRefusal);
        // Nor after a restart.
        let mut again = Holds::recall(after(MINUTE), holds.note(after(MINUTE)));
        assert!(refusal(&mut again, after(MINUTE), &hold(7, HOUR)).contains("put back"));
        assert_eq!(again.held(), None);
        assert_eq!(again.report().unwrap().refused.unwrap().number, 7);
    }

    /// Proves C13.
    #[test]
    fn an_order_without_the_right_changes_nothing() {
        let by = |by: &str| order(7, by, Demand::hold(HOUR, None));
        let mut holds = Holds::default();
        let why = refusal(&mut holds, after(MINUTE), &by("web01"));
        assert!(why.contains("web01 has no right"), "{why}");
        assert_eq!(holds.held(), None);
        let report = holds.report().unwrap();
        assert_eq!((report.accepted, report.held), (None, None));
        assert_eq!(report.refused.unwrap().by, name("web01"));
        assert_eq!(take(&mut holds, after(MINUTE), &by("lb01")), Judged::Accepted);
        assert_eq!(holds.report().unwrap().refused, None);
        assert!(refusal(&mut holds, after(MINUTE), &order(8, "web01", Demand::Release)).contains("no right"));
        assert!(holds.held().is_some());
    }

    /// Proves C13.
    #[test]
    fn no_order_holds_longer_than_it_asks_for_nor_than_a_week() {
        let mut holds = Holds::default();
        let long = hold(7, MAX_HOLD + Duration::from_secs(1));
        assert!(refusal(&mut holds, after(MINUTE), &long).contains("7d at most"));
        // Read late: the time runs from when it was given, with tolerance for the clocks.
        let tolerance = CLOCK_TOLERANCE;
        assert_eq!(take(&mut holds, after(HOUR + tolerance - MINUTE), &hold(7, HOUR)), Judged::Accepted);
        assert_eq!(holds.ends(), Some(HOUR + tolerance));
        let mut holds = Holds::default();
        assert_eq!(take(&mut holds, after(HOUR + tolerance), &hold(7, HOUR)), Judged::Accepted);
        assert_eq!(holds.held(), None, "its time was over");
        assert!(refusal(&mut holds, after(HOUR + tolerance), &hold(6, MAX_HOLD)).contains("put back"));
        // It replaces a longer one that it was given after.
        let mut holds = held_for(&hold(7, MAX_HOLD));
        assert_eq!(take(&mut holds, after(HOUR + tolerance), &hold(8, HOUR)), Judged::Accepted);
        assert_eq!(holds.held(), None);
        // A damaged note makes it no longer than a week.
        let note = HoldNote { left: Duration::MAX, ..held_for(&hold(7, HOUR)).note(after(MINUTE)).unwrap() };
        assert_eq!(Holds::recall(after(MINUTE), Some(note)).ends(), Some(MINUTE + MAX_HOLD));
        // Given by a clock that is ahead.
        let mut holds = Holds::default();
        let now = Now { wall: Timestamp::from_unix_ms(0), elapsed: MINUTE };
        assert_eq!(take(&mut holds, now, &hold(7, HOUR)), Judged::Accepted);
        assert_eq!(holds.ends(), Some(MINUTE + HOUR));
    }

    /// Proves C13.
    #[test]
    fn a_clock_that_was_set_makes_no_hold_longer() {
        let mut holds = held_for(&hold(7, HOUR));
        // While the agent runs, the wall clock says nothing.
        let set_back = Now { wall: Timestamp::from_unix_ms(0), elapsed: HOUR };
        assert!(holds.expire(set_back).is_some());

        let holds = held_for(&hold(7, HOUR));
        let note = holds.note(after(MINUTE * 20)).unwrap();
        assert_eq!(note.left, MINUTE * 40);
        let start =
            |wall: Timestamp| Holds::recall(Now { wall, elapsed: Duration::ZERO }, Some(note.clone()));
        assert_eq!(start(after(MINUTE * 30).wall).ends(), Some(MINUTE * 30));
        assert_eq!(start(Timestamp::from_unix_ms(0)).ends(), Some(MINUTE * 40));
        // It ended while the agent was down.
        let mut over = start(after(HOUR).wall);
        assert_eq!(over.expire(Now { wall: after(HOUR).wall, elapsed: Duration::ZERO }).unwrap().number, 7);
        assert_eq!(over.held(), None);
        let note = HoldNote { left: Duration::ZERO, ..note };
        let now = Now { wall: Timestamp::from_unix_ms(0), elapsed: Duration::ZERO };
        assert_eq!(Holds::recall(now, Some(note)).ends(), None);
    }

    #[test]
    fn numbers_grow_and_what_no_clock_explains_does_not_use_them_up() {
        let now = Timestamp::from_unix_ms(1000);
        assert_eq!(next_number(now, None, None), 1000);
        assert_eq!(next_number(now, Some(999), Some(4)), 1000);
        assert_eq!(next_number(now, Some(1000), None), 1001);
        assert_eq!(next_number(now, None, Some(2000)), 2001);
        let most = now.plus(MAX_CLOCK_ERROR).as_unix_ms();
        assert_eq!(next_number(now, Some(most), None), most + 1);
        for made_up in [most + 1, u64::MAX - 1, u64::MAX] {
            assert_eq!(next_number(now, Some(made_up), None), 1000);
            assert_eq!(next_number(now, Some(2000), Some(made_up)), 2001);
        }
    }

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        let Demand::Hold { reason, .. } = Demand::hold(HOUR, Some(" two\nlines\u{1b}[2J ")) else { panic!() };
        assert_eq!(reason.as_deref(), Some("two lines [2J"));
    }
}
