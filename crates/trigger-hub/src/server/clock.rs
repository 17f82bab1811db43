//! The hub's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use trigger_core::time::Timestamp;

/// The time by this machine's clock.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
