//! The answer of `trigger why`.

use trigger_core::why::{Explanation, Question};
use trigger_fleet::status::EventStatus;

/// The answer to a question.
pub(super) struct Answer {
    pub(super) question: Question,
    pub(super) explanation: Explanation,
    /// The deliveries of the event that was asked about.
    pub(super) event: Option<EventStatus>,
}
