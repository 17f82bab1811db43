//! An event's deliveries, counted by state.

use std::collections::BTreeMap;

use trigger_core::delivery::DeliveryState;
use trigger_fleet::status::EventStatus;

/// `2 done, 1 pending`, in the order of the states' progress.
pub(super) fn sentence(status: &EventStatus) -> String {
    let mut counts: BTreeMap<DeliveryState, usize> = BTreeMap::new();
    for target in status.targets.values() {
        *counts.entry(target.state).or_default() += 1;
    }
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}
