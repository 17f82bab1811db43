//! What the operator should know about the targets of a fired event, besides that it was fired.

use std::time::Duration;

use trigger_core::duration::format_short;
use trigger_core::event::CLOCK_TOLERANCE;
use trigger_core::identity::Certname;
use trigger_core::time::Timestamp;
use trigger_fleet::targets::RegisteredTargets;
use trigger_store::clock::ClockDifference;

/// The most targets that a warning names.
const MAX_NAMED: usize = 5;

/// Warnings about names that no agent has registered under, and about clocks that certainly differ by more than an
/// event's expiry tolerates. `now` is a reading of this node's clock after the registrations were read.
pub(crate) fn warnings(
    found: &RegisteredTargets,
    backend: Option<ClockDifference>,
    now: Timestamp,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if !found.unregistered.is_empty() {
        let names = found.unregistered.iter().map(|(name, nearest)| match nearest {
            Some(nearest) => format!("{name} (did you mean {nearest}?)"),
            None => name.to_string(),
        });
        let names = listed(names.collect());
        warnings.push(format!("no agent has registered as {names}: the event waits there until it expires"));
    }
    let differs = |difference: &Duration| *difference > CLOCK_TOLERANCE;
    let behind = backend.map(ClockDifference::behind).filter(differs);
    if let Some(behind) = behind {
        warnings.push(format!(
            "the clock of this node is at least {} behind the backend's: other nodes may take the event for expired; \
             set the wrong one right",
            format_short(behind)
        ));
    } else if let Some(ahead) = backend.map(ClockDifference::ahead).filter(differs) {
        warnings.push(format!(
            "the clock of this node is at least {} ahead of the backend's: the event expires late; set the wrong one \
             right",
            format_short(ahead)
        ));
    }
    // A registration is written before it is read, so one from the future proves a clock wrong; an old one proves
    // nothing, because its agent may be off.
    let ahead: Vec<(&Certname, Duration)> = found
        .seen_at
        .iter()
        .map(|(certname, seen_at)| (certname, seen_at.since(now)))
        .filter(|(_, ahead)| differs(ahead))
        .collect();
    if let Some(most) = ahead.iter().map(|(_, ahead)| *ahead).max() {
        let names = listed(ahead.iter().map(|(certname, _)| certname.to_string()).collect());
        warnings.push(format!(
            "by its registration, the clock of {names} is up to {} ahead of this node's: the event may expire there at \
             once; set the wrong one right",
            format_short(most)
        ));
    }
    warnings
}

/// The first names of a list, and how many more there are.
fn listed(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(MAX_NAMED);
    names.truncate(MAX_NAMED);
    let names = names.join(", ");
    if more > 0 { format!("{names} and {more} more") } else { names }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);

    fn check(targets: &[(&str, Timestamp)], backend: Option<ClockDifference>, expected: &[&str]) {
        let seen_at = targets.iter().map(|(name, at)| (name.parse().unwrap(), *at)).collect();
        let found = RegisteredTargets { seen_at, ..RegisteredTargets::default() };
        let warnings = warnings(&found, backend, NOW);
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.contains(expected), "{warning}");
        }
    }

    #[test]
    fn a_clock_is_blamed_only_when_it_is_certainly_wrong() {
        check(&[("lb01", NOW), ("lb02", NOW.plus(CLOCK_TOLERANCE))], None, &[]);
        // An agent that was off for years has an old registration, too.
        check(&[("lb01", Timestamp::from_unix_ms(0))], None, &[]);
        let ahead = ["the clock of lb02 is up to 2d ahead of this node's"];
        check(&[("lb01", NOW), ("lb02", NOW.plus(2 * DAY + Duration::from_secs(1)))], None, &ahead);
        let now = NOW.as_unix_ms();
        let backend = |offset: i64| {
            let at = now.checked_add_signed(offset).unwrap();
            ClockDifference::observed(now, now + 10, at, at + 2_000)
        };
        check(&[], backend(-60_000), &[]);
        check(&[], backend(2 * 86_400_000 + 20), &["this node is at least 2d behind the backend's"]);
        check(&[], backend(-86_400_000 - 2_000), &["this node is at least 1d ahead of the backend's"]);
    }

    #[test]
    fn unknown_names_come_with_the_nearest_and_are_few() {
        let name = |n: usize| (format!("x{n}").parse().unwrap(), None);
        let mut found = RegisteredTargets { unregistered: (1..=7).map(name).collect(), ..Default::default() };
        let warning = || warnings(&found, None, NOW).concat();
        assert!(
            warning().starts_with("no agent has registered as x1, x2, x3, x4, x5 and 2 more:"),
            "{}",
            warning()
        );
        found.unregistered = [("lb1".parse().unwrap(), Some("lb01".parse().unwrap()))].into();
        let warning = warnings(&found, None, NOW).concat();
        assert_eq!(
            warning,
            "no agent has registered as lb1 (did you mean lb01?): the event waits there until it expires"
        );
    }
}
