//! Firing again for the targets at which an event came to nothing: `trigger fire --retry`.

use std::collections::BTreeSet;

use crate::delivery::DeliveryState;
use crate::identity::Certname;

/// Whether a delivery that ended so is worth another event: it failed, or nothing ran for it because of the time that
/// passed or because it was cancelled. One that was refused, suppressed or superseded would end so again, or has a successor that did not.
pub fn is_worth_it(state: DeliveryState) -> bool {
    matches!(state, DeliveryState::Failed | DeliveryState::Expired | DeliveryState::Cancelled)
}

/// The targets of a retry.
pub fn targets<'a>(
    deliveries: impl IntoIterator<Item = (&'a Certname, DeliveryState)>,
) -> BTreeSet<Certname> {
    let wanted = deliveries.into_iter().filter(|(_, state)| is_worth_it(*state));
    wanted.map(|(certname, _)| certname.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_to_nothing_is_tried_again() {
        let wanted: Vec<&str> = DeliveryState::ALL
            .iter()
            .filter(|state| is_worth_it(**state))
            .map(|state| state.as_str())
            .collect();
        assert_eq!(wanted, ["failed", "expired", "cancelled"]);
        let names: Vec<Certname> = ["a", "b", "c"].iter().map(|name| name.parse().unwrap()).collect();
        let states = [DeliveryState::Done, DeliveryState::Expired, DeliveryState::Failed];
        assert_eq!(targets(names.iter().zip(states)), names[1..].iter().cloned().collect());
    }
}
