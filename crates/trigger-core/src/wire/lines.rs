//! The lines of the node's append-only files: the deduplication log and the log of fires.

use super::Stored;
use crate::dedup::HonouredEvent;
use crate::delivery::DeliveryOutcome;
use crate::fire_note::FireNote;
use crate::time::Timestamp;

impl HonouredEvent {
    /// The entry as a line, without the line break. An outcome stands before the time, so that a line that was cut short
    /// does not look like the entry of a run.
    pub fn to_line(&self) -> String {
        let Self { event, ended_at, without_run } = self;
        let ended_at = ended_at.as_unix_ms();
        match without_run {
            Some(outcome) => format!("{event} {} {ended_at}", outcome.to_body()),
            None => format!("{event} {ended_at}"),
        }
    }

    /// The entry of a line; absent for a line that a crash cut short.
    pub fn from_line(line: &str) -> Option<Self> {
        let (event, rest) = line.split_once(' ')?;
        let (without_run, ended_at) = match rest.rsplit_once(' ') {
            Some((outcome, ended_at)) => (Some(DeliveryOutcome::from_body(outcome).ok()?), ended_at),
            None => (None, rest),
        };
        let ended_at = Timestamp::from_unix_ms(ended_at.parse().ok()?);
        Some(Self { event: event.parse().ok()?, ended_at, without_run })
    }
}

impl FireNote {
    /// The entry as a line, without the line break.
    pub fn to_line(&self) -> String {
        let sign = if self.is_taken_back { '-' } else { '+' };
        format!("{sign} {} {} {}", self.root, self.noted_at.as_unix_ms(), self.trigger)
    }

    /// The entry of a line; absent for any other text.
    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        let is_taken_back = match words.next()? {
            "+" => false,
            "-" => true,
            _ => return None,
        };
        let (root, noted_at) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let trigger = words.next()?.parse().ok()?;
        Some(Self { root, noted_at: Timestamp::from_unix_ms(noted_at), trigger, is_taken_back })
    }
}
