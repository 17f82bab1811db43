//! The lines of the append-only files in the state directory, which a crash may cut anywhere.

use trigger_core::dedup::HonouredEvent;
use trigger_core::fire_note::FireNote;

/// A line that is read is written as one that is read as the same.
pub(crate) fn state(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for line in text.lines() {
        if let Some(event) = HonouredEvent::from_line(line) {
            let again = HonouredEvent::from_line(&event.to_line()).expect("a line that was written");
            assert_eq!(again.to_line(), event.to_line());
        }
        if let Some(note) = FireNote::from_line(line) {
            let again = FireNote::from_line(&note.to_line()).expect("a line that was written");
            assert_eq!(again.to_line(), note.to_line());
        }
    }
}
