//! Cancellations of deliveries.

use serde::{Deserialize, Serialize};

use super::{Stored, WireError, optional_sentence, read, write};
use crate::cancellation::Cancellation;
use crate::identity::Certname;
use crate::time::Timestamp;

#[derive(Serialize, Deserialize)]
struct CancellationForm {
    part: u32,
    by: Certname,
    at_unix_ms: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_sentence")]
    reason: Option<String>,
}

impl Stored for Cancellation {
    const WHAT: &'static str = "a cancellation";

    fn to_body(&self) -> String {
        let Self { part, by, at, reason } = self.clone();
        write(&CancellationForm { part, by, at_unix_ms: at, reason })
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        let CancellationForm { part, by, at_unix_ms, reason } = read(Self::WHAT, body)?;
        Ok(Self::new(part, by, at_unix_ms, reason.as_deref()))
    }
}
