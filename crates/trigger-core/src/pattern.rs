//! Patterns of names: `*` stands for any text, also for none, and `?` for one character.

use std::fmt;

/// One or more patterns, of which a name has to match one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patterns(Vec<String>);

/// Why texts are no patterns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// There is none, so that no name could match.
    #[error("the list is empty, so that nothing can match")]
    None,
    /// No name has this form.
    #[error("'{pattern}' matches no {what}: besides '*' and '?' it may hold {allowed}")]
    Never {
        /// The pattern, with control characters escaped.
        pattern: String,
        /// What the names are.
        what: &'static str,
        /// The alphabet of such names.
        allowed: &'static str,
    },
}

/// The characters of the names that patterns are for.
#[derive(Debug, Clone, Copy)]
pub struct Alphabet {
    /// What the names are.
    pub what: &'static str,
    /// The alphabet in words.
    pub allowed: &'static str,
    /// Whether such a name can hold a character.
    pub holds: fn(char) -> bool,
}

/// The characters of certnames.
pub(crate) const CERTNAMES: Alphabet = Alphabet {
    what: "certname",
    allowed: "lower-case letters, digits, '.', '_' and '-'",
    holds: |character| matches!(character, 'a'..='z' | '0'..='9' | '.' | '_' | '-'),
};

impl Patterns {
    /// The patterns for names of an alphabet.
    ///
    /// # Errors
    /// [`InvalidPattern`] if there is none, or one that matches no name of the alphabet.
    pub fn new(
        patterns: impl IntoIterator<Item = String>,
        alphabet: Alphabet,
    ) -> Result<Self, InvalidPattern> {
        let patterns: Vec<String> = patterns.into_iter().collect();
        if patterns.is_empty() {
            return Err(InvalidPattern::None);
        }
        let is_possible = |c: char| matches!(c, '*' | '?') || (alphabet.holds)(c);
        match patterns.iter().find(|pattern| pattern.is_empty() || !pattern.chars().all(is_possible)) {
            Some(pattern) => Err(InvalidPattern::Never {
                pattern: pattern.escape_debug().to_string(),
                what: alphabet.what,
                allowed: alphabet.allowed,
            }),
            None => Ok(Self(patterns)),
        }
    }

    /// Whether one of the patterns matches the whole name.
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, name))
    }
}

/// Joined by commas.
impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Whether a pattern matches the whole name. The time is at most the product of both lengths: after a mismatch, only the
/// latest `*` has to take more text.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(&expected) if expected == '?' || expected == name[read] => {
                at += 1;
                read += 1;
            }
            _ => match &mut star {
                Some((star_at, taken_until)) => {
                    *taken_until += 1;
                    (at, read) = (*star_at + 1, *taken_until);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_character() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        };
        for name in ["refresh", "refresh lb", "refresh "] {
            check("refresh*", name, true);
        }
        check("refresh*", "a refresh", false);
        check("*.example.com", "web01.example.com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", "web01.example.com.evil.net", false);
        check("web??.*", "web01.example.com", true);
        check("web??.*", "web001.example.com", false);
        check("*a*b*", "xxaxxbxx", true);
        check("*a*b*", "xxbxxaxx", false);
        check("?", "ü", true);
        check("", "", true);
        check("*", "", true);
        check("?", "", false);
        check("a", "A", false);
        check(&"a*".repeat(20), &"a".repeat(10_000), true);
        check(&format!("{}b", "a*".repeat(100)), &"a".repeat(10_000), false);
    }

    #[test]
    fn a_pattern_that_no_name_has_is_refused() {
        let digits =
            Alphabet { what: "number", allowed: "digits", holds: |character| character.is_ascii_digit() };
        let new = |patterns: &[&str]| {
            Patterns::new(patterns.iter().map(|&text| text.to_owned()), digits).map_err(|e| e.to_string())
        };
        assert_eq!(new(&["1*", "?2"]).unwrap().to_string(), "1*, ?2");
        assert_eq!(new(&[]).unwrap_err(), "the list is empty, so that nothing can match");
        for (bad, shown) in [("a", "a"), ("", ""), ("1\n", "1\\n")] {
            let expected = format!("'{shown}' matches no number: besides '*' and '?' it may hold digits");
            assert_eq!(new(&["1", bad]).unwrap_err(), expected);
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_it_was_made_from(name in "[a-c]{0,12}", cuts in prop::collection::vec(0usize..12, 0..4)) {
            let mut pattern: Vec<char> = name.chars().collect();
            for cut in cuts {
                if let Some(place) = pattern.get_mut(cut) {
                    *place = if cut % 2 == 0 { '*' } else { '?' };
                }
            }
            let pattern: String = pattern.into_iter().collect();
            prop_assert!(matches(&pattern, &name));
            let (longer_pattern, longer_name) = (format!("*{pattern}"), format!("b{name}"));
            prop_assert!(matches(&longer_pattern, &longer_name));
        }
    }
}
