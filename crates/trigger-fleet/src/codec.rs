//! Between values and the text that a backend stores. This is the only place that encodes or decodes stored values.

use trigger_core::wire::{Stored, WireError};

/// Encodes and decodes stored values. Signing and verifying belong here: every value of a backend passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Codec {}

impl Codec {
    /// The text to store: the value as the body of an envelope.
    pub fn encode<T: Stored>(&self, value: &T) -> String {
        value.to_wire()
    }

    /// The value that a text was made from.
    ///
    /// # Errors
    /// [`WireError::TooNew`] for the text of a newer version of Trigger, [`WireError::Unreadable`] for any other text:
    /// a backend may hold anything.
    pub fn decode<T: Stored>(&self, text: &str) -> Result<T, WireError> {
        T::from_wire(text)
    }
}
