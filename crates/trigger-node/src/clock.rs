//! The one place that reads the clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use trigger_core::time::Timestamp;

/// Returns the time of the wall clock; the epoch if the clock is set before it.
pub fn wall() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

/// Returns the time since boot, by a clock that only goes forward. It includes the time in which the machine is
/// suspended, because other machines go on meanwhile.
pub(crate) fn since_boot() -> Duration {
    clock_gettime(ClockId::Boottime).try_into().unwrap_or_default()
}
