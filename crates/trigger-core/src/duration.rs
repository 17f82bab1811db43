//! Lengths of time as operators write and read them: `90s`, `2h 30m`, `1d`, or a bare number of seconds.

use std::time::Duration;

use jiff::fmt::friendly::{SpanParser, SpanPrinter};
use jiff::{Span, SpanRelativeTo, SpanRound, Unit};

/// A text that is no length of time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DurationError(String);

/// Reads a length of time: numbers, each with a unit from `ns` to `weeks`, or one bare number, which is seconds as in
/// Puppet. A day has 24 hours. Months and years have no length, and are refused like negative durations.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = text.parse().map_err(|_| DurationError(format!("{text} seconds are too many")))?;
        return Ok(Duration::from_secs(seconds));
    }
    let refused = |error: jiff::Error| DurationError(error.to_string());
    // The parser's own sentence is about its grammar.
    let unclear = |_| DurationError("give numbers with units, such as 90s, 2h 30m or 1d".to_owned());
    let span = SpanParser::new().parse_span(text).map_err(unclear)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(refused)?;
    duration.try_into().map_err(refused)
}

/// Writes a length of time in days, hours, minutes, seconds and parts of a second.
pub fn format(duration: Duration) -> String {
    let round = SpanRound::new().largest(Unit::Day).days_are_24_hours();
    match Span::try_from(duration).and_then(|span| span.round(round)) {
        Ok(span) => SpanPrinter::new().span_to_string(&span),
        // Longer than nineteen thousand years.
        Err(_) => format!("{}s", duration.as_secs()),
    }
}

/// Writes a length of time for people, who need no more than about three digits: `2d 3h`, `5m 12s`, `2.4s`, `30s`.
/// What is less than that is cut off.
pub fn format_short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 10 && duration.subsec_millis() >= 100 {
        return format!("{seconds}.{}s", duration.subsec_millis() / 100);
    }
    let unit = match seconds {
        0..3600 => 1,
        3600..86_400 => 60,
        86_400..864_000 => 3600,
        _ => 86_400,
    };
    format(Duration::from_secs(seconds - seconds % unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<u64, ()>) {
        let parsed = parse(text).map(|duration| duration.as_millis() as u64).map_err(|_| ());
        assert_eq!(parsed, expected, "{text}");
    }

    #[test]
    fn what_operators_write_is_read() {
        for (text, seconds) in [
            ("90s", 90),
            ("5m", 300),
            ("5 min", 300),
            ("10minutes", 600),
            ("1h", 3600),
            ("2h 30m", 9000),
            ("2h30m", 9000),
            ("1day", 86_400),
            ("1d 12h", 129_600),
            ("7days", 604_800),
            ("1w", 604_800),
            ("2weeks", 1_209_600),
            ("5", 5),
            (" 300 ", 300),
            ("007", 7),
            ("0", 0),
        ] {
            check(text, Ok(seconds * 1000));
        }
        check("250ms", Ok(250));
        for text in [
            "",
            "5 5",
            "1.5",
            "-5",
            "+5",
            "99999999999999999999",
            "m",
            "-5m",
            "5m ago",
            "soon",
            "1month",
            "1y",
        ] {
            check(text, Err(()));
        }
    }

    #[test]
    fn a_length_for_people_has_no_more_digits_than_they_need() {
        for (ms, text) in [
            (0, "0s"),
            (99, "0s"),
            (250, "0.2s"),
            (2_000, "2s"),
            (2_450, "2.4s"),
            (30_999, "30s"),
            (312_345, "5m 12s"),
            (3_601_000, "1h"),
            (7_330_000, "2h 2m"),
            (2 * 86_400_000 + 1_000, "2d"),
            (2 * 86_400_000 + 3 * 3_600_000 + 61_000, "2d 3h"),
            (45 * 86_400_000 + 3 * 3_600_000, "45d"),
        ] {
            assert_eq!(format_short(Duration::from_millis(ms)), text, "{ms} ms");
        }
    }

    #[test]
    fn what_is_written_is_short_and_is_read_again() {
        for (duration, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_millis(1500), "1s 500ms"),
            (Duration::from_secs(90), "1m 30s"),
            (Duration::from_secs(3600), "1h"),
            (Duration::from_secs(86_400), "1d"),
            (Duration::from_secs(2 * 86_400 + 3661), "2d 1h 1m 1s"),
            (Duration::from_secs(45 * 86_400), "45d"),
        ] {
            assert_eq!(format(duration), text);
            assert_eq!(parse(text).unwrap(), duration);
        }
        assert_eq!(format(Duration::MAX), format!("{}s", u64::MAX));
    }
}
