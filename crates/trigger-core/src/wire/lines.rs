//! The lines of the node's append-only files: the deduplication log and the log of fires.

use crate::dedup::HonouredEvent;
use crate::fire_note::FireNote;
use crate::time::Timestamp;

impl HonouredEvent {
    /// The entry as a line, without the line break.
    pub fn to_line(self) -> String {
        format!("{} {}", self.event, self.ended_at.as_unix_ms())
    }

    /// The entry of a line; absent for a line that a crash cut short.
    pub fn from_line(line: &str) -> Option<Self> {
        let (event, ended_at) = line.split_once(' ')?;
        Some(Self { event: event.parse().ok()?, ended_at: Timestamp::from_unix_ms(ended_at.parse().ok()?) })
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
