//! The stored forms of the domain types. Each value is the JSON body of an [`Envelope`].
//!
//! Readers ignore fields that they do not know. A change that an old reader must not ignore gets a new `v` (C15).
//! Golden files in `wire/golden/` hold each form. `docs/internals/wire-format.md` describes them.

mod cancellations;
mod certificates;
mod envelope;
mod error;
mod events;
mod history;
mod holds;
mod json;
mod lines;
mod nodes;
mod outcomes;
mod run_logs;
mod runs;
mod signed_bytes;

use serde::Deserialize;
use serde::de::Deserializer;

pub use envelope::{Envelope, Signature};
pub use error::{VERSION, WireError};
use json::{read, write};

/// A value that has a stored form.
///
/// In a backend it is written and read through the codec of `trigger-fleet`. Files of the state directory use
/// [`Self::to_wire`] and [`Self::from_wire`]: they have the same envelope, so that there is one rule for versions, and
/// are never signed, because only this node reads them.
pub trait Stored: Sized {
    /// The name of the form in errors.
    const WHAT: &'static str;

    /// The body as JSON.
    fn to_body(&self) -> String;

    /// The value of a body.
    ///
    /// # Errors
    /// [`WireError::Unreadable`] when it is not the JSON of this form, or holds a name that is not valid.
    fn from_body(body: &str) -> Result<Self, WireError>;

    /// The body in an envelope without a signature.
    fn to_wire(&self) -> String {
        envelope::around(&self.to_body())
    }

    /// The value of the body of an envelope. Does not look at its signature.
    ///
    /// # Errors
    /// [`WireError::TooNew`] for the text of a newer version, [`WireError::Unreadable`] for any other text.
    fn from_wire(text: &str) -> Result<Self, WireError> {
        Self::from_body(envelope::body(Self::WHAT, text)?)
    }
}

impl Envelope {
    /// Reads an envelope that should hold a value of the form `T`, and leaves its body as it is.
    ///
    /// # Errors
    /// [`WireError::TooNew`] for an envelope of a newer version, [`WireError::Unreadable`] for any other text.
    pub fn parse<T: Stored>(text: &str) -> Result<Self, WireError> {
        Self::read(T::WHAT, text)
    }

    /// The envelope of a value, without a signature.
    pub fn of<T: Stored>(value: &T) -> Self {
        Self::without_signature(value.to_body())
    }

    /// The value of the body. Does not look at the signature.
    ///
    /// # Errors
    /// [`WireError::Unreadable`] when the body is not of this form.
    pub fn open<T: Stored>(&self) -> Result<T, WireError> {
        T::from_body(self.body())
    }
}

/// Reads a sentence that another node wrote, without the control characters that could command a terminal.
fn sentence<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(harmless)
}

/// Like [`sentence`], for one that may be absent.
fn optional_sentence<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(harmless))
}

fn harmless(mut text: String) -> String {
    let is_command = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_command) {
        text = text.replace(is_command, "\u{fffd}");
    }
    text
}

#[cfg(test)]
mod tests;
