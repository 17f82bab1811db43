//! Between values and the text that a backend stores. The only place that encodes or decodes what is stored.

use trigger_core::wire::{Stored, WireError};

/// Encodes and decodes stored values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Codec {}

impl Codec {
    /// The text to store.
    pub fn encode<T: Stored>(&self, value: &T) -> String {
        value.to_wire()
    }

    /// The value that a text was made from.
    ///
    /// # Errors
    /// [`WireError::TooNew`] for the text of a newer version of Trigger, [`WireError::Unreadable`] for any other
    /// text: a backend may hold anything.
    pub fn decode<T: Stored>(&self, text: &str) -> Result<T, WireError> {
        T::from_wire(text)
    }
}
