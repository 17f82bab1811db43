//! The bytes that a signature is over.
//!
//! They name all that makes a value what it is: the version of its envelope, its whole key with the prefix of its fleet,
//! and its body as it was written. So a value that is copied to another key, into another fleet, or read as another form
//! has no valid signature. Lengths stand before the texts, so that no two values have the same bytes, and the first line
//! keeps anything else that is ever signed with a node's key from passing for a value.

/// Begins what is signed, and nothing else that the same key may sign.
const DOMAIN: &str = "trigger stored value\n";

/// The bytes to sign of a value: `key` is the whole key, and `body` the text of the body.
pub(super) fn signed_bytes(version: u32, key: &str, body: &str) -> Vec<u8> {
    format!("{DOMAIN}{version}\n{}\n{key}\n{}\n{body}", key.len(), body.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Proves C13: the bytes are a released form, because stored signatures are over them.
    #[test]
    fn the_bytes_to_sign_stay() {
        let bytes = signed_bytes(1, "/p/run-history/a", r#"{"runs":[]}"#);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "trigger stored value\n1\n16\n/p/run-history/a\n11\n{\"runs\":[]}"
        );
    }

    #[test]
    fn what_moves_between_key_and_body_changes_the_bytes() {
        let cases =
            [(1, "/p/a", "b"), (1, "/p/", "ab"), (11, "/p/a", "b"), (1, "/p/a\n1\nb", ""), (1, "", "/p/a")];
        let all: BTreeSet<Vec<u8>> = cases.iter().map(|(v, key, body)| signed_bytes(*v, key, body)).collect();
        assert_eq!(all.len(), cases.len());
    }

    proptest! {
        /// Proves C13: no value passes for another one.
        #[test]
        fn two_values_never_have_the_same_bytes(
            (version, key, body) in (1u32..30, "[/a\n1]{0,6}", "[/a\n1]{0,6}"),
            (version2, key2, body2) in (1u32..30, "[/a\n1]{0,6}", "[/a\n1]{0,6}"),
        ) {
            let is_same = version == version2 && key == key2 && body == body2;
            prop_assert_eq!(
                signed_bytes(version, &key, &body) == signed_bytes(version2, &key2, &body2),
                is_same
            );
        }
    }
}
