//! The stored forms: JSON with a version, and nothing that the program works with directly.
//!
//! Readers ignore fields they do not know; a change that an old reader must not ignore gets a new `v`.
//! Golden files in `wire/golden/` hold each released form. `docs/internals/wire-format.md` describes them.

mod events;
mod history;
mod lines;
mod nodes;
mod outcomes;
mod runs;

use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version this program writes, and the newest it reads.
pub const VERSION: u32 = 1;

/// Why stored text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum WireError {
    #[error("not the JSON of {what}: {detail}")]
    Unreadable { what: &'static str, detail: String },
    #[error(
        "{what} of version {version}; this program reads up to version {VERSION}: update trigger on this node"
    )]
    TooNew { what: &'static str, version: u32 },
}

/// A value that has a stored form.
pub trait Stored: Sized {
    /// The stored text.
    fn to_wire(&self) -> String;
    /// The value back; [`WireError::TooNew`] and garbage are told apart.
    fn from_wire(text: &str) -> Result<Self, WireError>;
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    #[serde(flatten)]
    body: T,
}

fn encode<T: Serialize>(body: T) -> String {
    serde_json::to_string(&Envelope { v: VERSION, body }).unwrap_or_else(|error| {
        // Every form below is plain data with string keys, which cannot fail to serialise.
        unreachable!("a stored form cannot be serialised: {error}")
    })
}

fn decode<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, WireError> {
    let unreadable = |error: serde_json::Error| WireError::Unreadable { what, detail: error.to_string() };
    let version = serde_json::from_str::<Versioned>(text).map_err(unreadable)?.v;
    if version > VERSION {
        return Err(WireError::TooNew { what, version });
    }
    if version < VERSION {
        return Err(WireError::Unreadable { what, detail: format!("there never was a version {version}") });
    }
    Ok(serde_json::from_str::<Envelope<T>>(text).map_err(unreadable)?.body)
}

fn valid<T: FromStr>(what: &'static str, text: &str) -> Result<T, WireError>
where
    T::Err: ToString,
{
    text.parse().map_err(|error: T::Err| WireError::Unreadable { what, detail: error.to_string() })
}

fn valid_all<T: FromStr, C: FromIterator<T>>(what: &'static str, texts: &[String]) -> Result<C, WireError>
where
    T::Err: ToString,
{
    texts.iter().map(|text| valid(what, text)).collect()
}

/// What somebody else wrote for people to read: nothing in it is a command to their terminals.
fn sentence(mut text: String) -> String {
    let is_command = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_command) {
        text = text.replace(is_command, "\u{fffd}");
    }
    text
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

#[cfg(test)]
mod tests;
