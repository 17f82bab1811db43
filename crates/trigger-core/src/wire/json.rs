//! Stored forms as JSON text.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::WireError;

pub(super) fn write<T: Serialize>(form: &T) -> String {
    serde_json::to_string(form).unwrap_or_else(|error| {
        // Every form is plain data with string keys, which cannot fail to serialise.
        unreachable!("a stored form cannot be serialised: {error}")
    })
}

pub(super) fn read<T: DeserializeOwned>(what: &'static str, body: &str) -> Result<T, WireError> {
    serde_json::from_str(body).map_err(|error| WireError::Unreadable { what, detail: error.to_string() })
}
