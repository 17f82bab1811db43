//! Why events of the outbox wait, for those who look: the reason of each one's last try. Best effort, and not synced: what is
//! missing here is an event that waits for its turn.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use trigger_core::identity::EventId;

use super::Outbox;
use crate::host::Host;
use crate::state::durable::write;

/// The file beside the outbox, with a line for each event: its id, a blank, the reason.
const FILE: &str = "outbox-tries";

impl<H: Host> Outbox<H> {
    /// The reasons of the last tries of events that wait, as far as they are known.
    pub fn last_tries(&self) -> BTreeMap<EventId, String> {
        let Ok(bytes) = self.host.read(&self.tries()) else { return BTreeMap::new() };
        let text = String::from_utf8_lossy(&bytes);
        let entry = |line: &str| {
            let (event, reason) = line.split_once(' ')?;
            Some((event.parse().ok()?, reason.to_owned()))
        };
        text.lines().filter_map(entry).collect()
    }

    /// Notes why the last tries came to nothing: of the events that `waits` selects, and of these.
    pub fn note_tries(&self, waits: impl Fn(EventId) -> bool, failed: BTreeMap<EventId, String>) {
        let known = self.last_tries();
        let mut tries: BTreeMap<EventId, String> =
            known.clone().into_iter().filter(|(event, _)| waits(*event)).collect();
        let on_one_line = |reason: String| reason.split_whitespace().collect::<Vec<_>>().join(" ");
        tries.extend(failed.into_iter().map(|(event, reason)| (event, on_one_line(reason))));
        if tries == known {
            return;
        }
        let written = if tries.is_empty() {
            self.host.remove_file(&self.tries())
        } else {
            let mut text = String::new();
            for (event, reason) in &tries {
                let _ = writeln!(text, "{event} {reason}");
            }
            write(&self.host, &self.tries(), text.as_bytes())
        };
        if let Err(error) = written {
            tracing::debug!(%error, "cannot note why events of the outbox wait");
        }
    }

    /// Forgets the last try of an event that is for another backend now, or gone.
    pub(super) fn forget_try(&self, event: EventId) {
        self.note_tries(|other| other != event, BTreeMap::new());
    }

    fn tries(&self) -> PathBuf {
        self.dir.with_file_name(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::outbox;
    use super::*;

    fn event(n: u128) -> EventId {
        EventId::from_uuid(uuid::Uuid::from_u128(n))
    }

    fn reasons(reasons: &[(u128, &str)]) -> BTreeMap<EventId, String> {
        reasons.iter().map(|(n, reason)| (event(*n), (*reason).to_owned())).collect()
    }

    #[test]
    fn the_last_reason_of_each_event_that_waits_is_kept() {
        let (dir, outbox) = outbox();
        assert!(outbox.last_tries().is_empty());
        outbox.note_tries(|_| true, reasons(&[(1, "no answer"), (2, "denied:\n  no right")]));
        assert_eq!(outbox.last_tries(), reasons(&[(1, "no answer"), (2, "denied: no right")]));
        outbox.note_tries(|id| id == event(2), reasons(&[(3, "refused")]));
        assert_eq!(outbox.last_tries(), reasons(&[(2, "denied: no right"), (3, "refused")]));
        outbox.forget_try(event(2));
        assert_eq!(outbox.last_tries(), reasons(&[(3, "refused")]));
        outbox.note_tries(|_| false, BTreeMap::new());
        assert!(outbox.last_tries().is_empty() && !dir.path().join(FILE).exists());
    }
}
