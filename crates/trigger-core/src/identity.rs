//! Names and ids, each of which is validated once, where it enters the program (C8).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::escaped::escaped;
use crate::text_serde::serde_as_text;
use crate::time::Timestamp;

/// A value that is not a valid name or id; the message says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value} is not {what}: {allowed}")]
pub struct InvalidName {
    /// The value as given: quoted, with control characters escaped, and shortened.
    value: String,
    what: &'static str,
    allowed: &'static str,
}

fn quoted(value: &str) -> String {
    format!("'{}'", escaped(value))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $allowed:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(value: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(value) {
                    return Ok(Self(value.to_owned()));
                }
                Err(InvalidName { value: quoted(value), what: $what, allowed: $allowed })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        serde_as_text!($name);
    };
}

/// The longest name, in bytes. File names have the same limit, and it is beyond any certname.
const MAX_NAME_BYTES: usize = 255;

fn is_node_name(value: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&value.len())
        && !value.starts_with(['-', '.'])
        && value.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

name_type!(
    /// A node's Puppet identity, and the only name of a node.
    ///
    /// The alphabet is that of Puppet's certnames without the characters that host names never have, so that a
    /// certname is also a safe segment of a path and of a key.
    Certname,
    "a certname",
    "it may hold lower-case letters, digits, '.', '_' and '-', starts with none of '.' and '-', and has at most 255 characters",
    is_node_name
);

impl Certname {
    /// Reads a certname as an operator or a query writes it. Puppet's certnames have no capitals and end in no dot, but the
    /// host names that they are taken from may, so that both are folded here. Stored names have one spelling and are
    /// parsed as they are.
    ///
    /// # Errors
    /// [`InvalidName`] if the text is no certname in lower case either.
    pub fn fold_case(text: &str) -> Result<Self, InvalidName> {
        let folded = text.to_ascii_lowercase();
        folded.strip_suffix('.').unwrap_or(&folded).parse().or_else(|_| text.parse())
    }
}

name_type!(
    /// A named set of nodes. A node joins it through its agent's configuration.
    GroupName,
    "a group",
    "it may hold lower-case letters, digits, '.', '_' and '-', starts with none of '.' and '-', and has at most 255 characters",
    is_node_name
);

name_type!(
    /// The title of a `trigger` resource. It never becomes part of a key or a path.
    TriggerName,
    "a trigger name",
    "it may hold any printable characters, not only blanks and no line breaks or other control characters, and has at most 255 bytes",
    |value| {
        (1..=MAX_NAME_BYTES).contains(&value.len())
            && !value.trim().is_empty()
            && !value.chars().any(char::is_control)
    }
);

name_type!(
    /// A Puppet tag, as `--tags` takes it.
    ///
    /// Puppet's own rule (`Puppet::Util::Tagging::ValidTagRegex`), in ASCII and without the comma that
    /// separates tags on a command line.
    Tag,
    "a tag",
    "it may hold lower-case letters, digits, '_', and after the first character ':', '.' and '-', and has at most 255 characters",
    |value| {
        let word = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
        (1..=MAX_NAME_BYTES).contains(&value.len())
            && value.bytes().next().is_some_and(word)
            && value.bytes().all(|b| word(b) || matches!(b, b':' | b'.' | b'-'))
    }
);

name_type!(
    /// The name of an environment of Puppet's, as `--environment` takes it: Puppet's own rule
    /// (`Puppet::Node::Environment.valid_name?`), in ASCII.
    Environment,
    "an environment",
    "it may hold letters, digits and '_', and has at most 255 characters",
    |value| {
        (1..=MAX_NAME_BYTES).contains(&value.len())
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    }
);

name_type!(
    /// The prefix of all keys of a fleet in its backend.
    KeyPrefix,
    "a key prefix",
    "it is a path such as /puppet_trigger/events: segments of letters, digits, '.', '_' and '-', each after a '/', none at the end, at most 255 characters",
    |value| {
        let segment = |s: &str| {
            !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        value.len() <= MAX_NAME_BYTES
            && value.strip_prefix('/').is_some_and(|path| path.split('/').all(segment))
    }
);

impl Default for KeyPrefix {
    /// The prefix of the original proof of concept, so that its manifests keep working.
    fn default() -> Self {
        Self("/puppet_trigger/events".to_owned())
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// An id from a UUIDv7 that the caller has generated, since the core has no randomness.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// When the id was made, by the clock of the node that made it; absent for an id that has no time.
            pub fn made_at(self) -> Option<Timestamp> {
                let ms = u64::try_from(self.0.as_u128() >> 80).unwrap_or_default();
                matches!(self.0.get_version_num(), 7 | 8).then_some(Timestamp::from_unix_ms(ms))
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(value: &str) -> Result<Self, InvalidName> {
                // Only the canonical form: another spelling of one id would be a second key.
                match Uuid::try_parse(value) {
                    Ok(uuid) if uuid.to_string() == value => Ok(Self(uuid)),
                    _ => Err(InvalidName {
                        value: quoted(value),
                        what: $what,
                        allowed: "it is a UUID in lower case with its four dashes",
                    }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        serde_as_text!($name);
    };
}

id_type!(
    /// Identifies one event everywhere and at all times: a UUIDv8 that only its origin's events have
    /// ([`EventId::of_origin`]), or a UUIDv7 of an earlier version of Trigger.
    EventId,
    "an event id"
);
id_type!(
    /// Identifies one catalog that Puppet has compiled, as PuppetDB knows it (`catalog_uuid`).
    CatalogUuid,
    "a catalog's uuid"
);
id_type!(
    /// Identifies one supervised Puppet process; given to Puppet as `--job-id`.
    RunId,
    "a run id"
);

/// The last bits of a UUIDv8 that are its origin's.
const ORIGIN_BITS: u128 = (1 << 42) - 1;
/// The last bits of a UUIDv7 that are random, whichever program made it.
const RANDOM_BITS: u128 = u32::MAX as u128;

impl EventId {
    /// The id of an event that `origin` fires, from a UUIDv7 that the caller has generated: a UUIDv8 with its time, 32 of its
    /// random bits, and 42 bits that follow from these and from the origin. No other node can fire an event with it, also
    /// one that knows the id before the event is published (C13).
    pub fn of_origin(origin: &Certname, uuid: Uuid) -> Self {
        const VERSION_AND_VARIANT: u128 = (8 << 76) | (0b10 << 62);
        let (time, random) = (uuid.as_u128() >> 80, uuid.as_u128() & RANDOM_BITS);
        let (high, low) = (random >> 20, random & ((1 << 20) - 1));
        let begin = (time << 80) | (high << 64) | (low << 42) | VERSION_AND_VARIANT;
        Self(Uuid::from_u128(begin | origin_bits(begin, origin)))
    }

    /// Whether an event of `origin` may have this id. Ids of an earlier version of Trigger name no origin.
    pub fn may_be_of(self, origin: &Certname) -> bool {
        let id = self.0.as_u128();
        self.0.get_version_num() != 8 || id & ORIGIN_BITS == origin_bits(id & !ORIGIN_BITS, origin)
    }
}

/// A UUIDv5 of the origin's name, in a namespace that is the beginning of the id.
fn origin_bits(begin: u128, origin: &Certname) -> u128 {
    Uuid::new_v5(&Uuid::from_u128(begin), origin.as_str().as_bytes()).as_u128() & ORIGIN_BITS
}

/// A position in the backend's history: opaque, growing, and the only source of order (C12). Serialised as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves C8.
    #[test]
    fn a_certname_is_a_safe_path_and_key_segment() {
        for good in ["lb01.example.com", "a", "web_1-x.test", "0"] {
            assert!(good.parse::<Certname>().is_ok(), "{good}");
        }
        for bad in ["", "lb 01", "LB01", "a/b", "..", "-rf", ".hidden", "a\n", "ä", &"x".repeat(256)] {
            assert!(bad.parse::<Certname>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_certname_is_typed_in_any_case_and_stored_in_one() {
        for typed in ["LB01.Example.com", "lb01.EXAMPLE.COM", "lb01.example.com"] {
            assert_eq!(Certname::fold_case(typed).unwrap().as_str(), "lb01.example.com", "{typed}");
        }
        for bad in ["LB 01", "Ä", "A/B", "-A"] {
            let error = Certname::fold_case(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("'{bad}' is not a certname")), "{error}");
        }
        assert!("LB01".parse::<Certname>().is_err(), "a stored name has one spelling");
    }

    #[test]
    fn a_refused_value_is_shown_harmlessly() {
        let error = "a\u{1b}[31m\nb'c".parse::<Certname>().unwrap_err().to_string();
        assert!(error.starts_with(r"'a\u{1b}[31m\nb'c' is not a certname: it may hold"), "{error}");
        let long = "y".repeat(1_000_000).parse::<Certname>().unwrap_err().to_string();
        assert!(long.len() < 300, "{}", long.len());
    }

    /// Proves C8.
    #[test]
    fn trigger_names_keep_shell_characters_and_refuse_line_breaks() {
        for good in ["refresh load balancers", "a/b", "$(rm -rf /)", "it's \"quoted\"", "`x`;|&", "größer"]
        {
            assert_eq!(good.parse::<TriggerName>().map(|n| n.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "  ", "a\nb", "a\0b", "a\u{7f}"] {
            assert!(bad.parse::<TriggerName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn environments_follow_puppet() {
        for valid in ["production", "Feature_42", "7", "_"] {
            assert!(valid.parse::<Environment>().is_ok(), "{valid}");
        }
        for invalid in ["", "feature-42", "a.b", "../production", "a b", "a\n", "ü", &"e".repeat(256)] {
            assert!(invalid.parse::<Environment>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn tags_follow_puppet_and_hold_no_comma() {
        for good in ["web", "profile::web", "_x", "v1.2-3"] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", "a,b", " web", "-x", "::x", "Web"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_are_absolute_paths_without_tricks() {
        for good in ["/puppet_trigger/events", "/a"] {
            assert!(good.parse::<KeyPrefix>().is_ok(), "{good}");
        }
        for bad in ["", "/", "a", "/a/", "//a", "/a b"] {
            assert!(bad.parse::<KeyPrefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_has_one_spelling() {
        let id = "019356b0-7c4a-7000-8000-000000000001";
        assert_eq!(id.parse::<EventId>().map(|i| i.to_string()).as_deref(), Ok(id));
        for bad in ["019356B0-7C4A-7000-8000-000000000001", "019356b07c4a70008000000000000001", "x"] {
            assert!(bad.parse::<EventId>().is_err(), "{bad}");
        }
    }

    /// Proves C13 and C15: an id that was made stays its origin's.
    #[test]
    fn an_event_id_is_one_of_its_origin_alone() {
        let (web, lb): (Certname, Certname) = ("web01".parse().unwrap(), "lb01".parse().unwrap());
        let uuid = Uuid::from_u128(0x019356b0_7c4a_7fff_bfff_ffff12345678);
        let id = EventId::of_origin(&web, uuid);
        assert_eq!(id.to_string(), "019356b0-7c4a-8123-9159-e23202fa591f");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.made_at(), Some(Timestamp::from_unix_ms(0x0193_56b0_7c4a)));
        assert_eq!((id.0.get_version_num(), id.0.get_variant()), (8, uuid::Variant::RFC4122));
        assert!(id.may_be_of(&web) && !id.may_be_of(&lb));
        for bit in (0..128).filter(|bit| !(62..64).contains(bit) && !(76..80).contains(bit)) {
            assert!(!EventId(Uuid::from_u128(id.0.as_u128() ^ (1 << bit))).may_be_of(&web), "bit {bit}");
        }
        let later = EventId::of_origin(&web, Uuid::from_u128(uuid.as_u128() + (1 << 80)));
        assert!(later > id, "ids of one origin are in the order of their times");
        let made = (0..32).map(|bit| EventId::of_origin(&web, Uuid::from_u128(uuid.as_u128() ^ (1 << bit))));
        assert_eq!(made.collect::<std::collections::BTreeSet<_>>().len(), 32, "each random bit counts");
        let of_an_earlier_version: EventId = "019356b0-7c4a-7000-8000-000000000001".parse().unwrap();
        assert!(of_an_earlier_version.may_be_of(&web) && of_an_earlier_version.may_be_of(&lb));
    }

    #[test]
    fn names_are_validated_when_they_are_deserialised() {
        let certname: Certname = serde_json::from_str("\"lb01.example.com\"").unwrap();
        assert_eq!(serde_json::to_string(&certname).unwrap(), "\"lb01.example.com\"");
        let error = serde_json::from_str::<Certname>("\"../../etc\"").unwrap_err().to_string();
        assert!(error.starts_with("'../../etc' is not a certname"), "{error}");
        // Escapes keep the text from being borrowed.
        let trigger: TriggerName = serde_json::from_str(r#""say \"hello\"""#).unwrap();
        assert_eq!(trigger.as_str(), "say \"hello\"");
        let id: EventId = serde_json::from_str("\"019356b0-7c4a-7000-8000-000000000001\"").unwrap();
        let by_event = std::collections::BTreeMap::from([(id, Revision(7))]);
        let text = serde_json::to_string(&by_event).unwrap();
        assert_eq!(text, r#"{"019356b0-7c4a-7000-8000-000000000001":7}"#);
        assert_eq!(serde_json::from_str::<std::collections::BTreeMap<_, _>>(&text).unwrap(), by_event);
    }
}
