//! The envelope of every stored value: `{"v":1,"body":{…}}`, with room for a signature.
//!
//! The body is kept as the text that its writer produced, never as a parsed value: a signature is over these bytes, so
//! they must survive being read and written again, also by a program that does not know all of their fields.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::{VERSION, WireError};
use super::json::write;
use super::signed_bytes::signed_bytes;
use crate::certificate::CertificateRef;

/// A stored value as its writer wrote it, with the writer's signature if there is one.
#[derive(Debug, Clone)]
pub struct Envelope {
    body: Box<RawValue>,
    sig: Option<String>,
    cert: Option<String>,
}

/// A writer's signature of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The algorithm, `:`, and the signature in base64.
    pub text: String,
    /// The certificate whose key has signed; absent for a key that the fleet shares.
    pub certificate: Option<CertificateRef>,
}

/// The fields of an envelope as they are stored. Fields that are not known are ignored.
#[derive(Serialize, Deserialize)]
struct EnvelopeForm<'a> {
    v: u32,
    // A newer version may have something else instead.
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cert: Option<String>,
}

/// The text of an envelope without a signature, around the JSON `body`.
pub(super) fn around(body: &str) -> String {
    format!("{{\"v\":{VERSION},\"body\":{body}}}")
}

fn parse<'a>(what: &'static str, text: &'a str) -> Result<(EnvelopeForm<'a>, &'a RawValue), WireError> {
    let unreadable = |detail: String| WireError::Unreadable { what, detail };
    let form: EnvelopeForm<'a> = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    if form.v > VERSION {
        return Err(WireError::TooNew { what, version: form.v });
    }
    if form.v < VERSION {
        return Err(unreadable(format!("there never was a version {}", form.v)));
    }
    let body = form.body.ok_or_else(|| unreadable("it has no body".to_owned()))?;
    Ok((form, body))
}

/// The body of the envelope that `text` is, where the form `what` is expected.
pub(super) fn body<'a>(what: &'static str, text: &'a str) -> Result<&'a str, WireError> {
    Ok(parse(what, text)?.1.get())
}

impl Envelope {
    /// The envelope of a body.
    pub(super) fn without_signature(body: String) -> Self {
        // What `write` has written is JSON.
        let body = RawValue::from_string(body)
            .unwrap_or_else(|error| unreachable!("a body is not the JSON that it was written as: {error}"));
        Self { body, sig: None, cert: None }
    }

    /// The same value with its writer's signature.
    #[must_use]
    pub fn signed(self, Signature { text, certificate }: Signature) -> Self {
        Self { sig: Some(text), cert: certificate.map(|reference| reference.to_string()), ..self }
    }

    /// The bytes that a signature of this value under `key`, the whole key with its prefix, is over.
    pub fn signed_bytes(&self, key: &str) -> Vec<u8> {
        signed_bytes(VERSION, key, self.body.get())
    }

    /// The reference to the certificate that a stored text names, whatever else it is.
    pub fn reference(text: &str) -> Option<String> {
        serde_json::from_str::<EnvelopeForm<'_>>(text).ok()?.cert
    }

    /// Reads the envelope that `text` is, where the form `what` is expected, and leaves its body as it is.
    pub(super) fn read(what: &'static str, text: &str) -> Result<Self, WireError> {
        let (form, body) = parse(what, text)?;
        Ok(Self { body: body.to_owned(), sig: form.sig, cert: form.cert })
    }

    /// The body, byte for byte as it was written.
    pub fn body(&self) -> &str {
        self.body.get()
    }

    /// The writer's signature, as it was written.
    pub fn signature(&self) -> Option<&str> {
        self.sig.as_deref()
    }

    /// The reference to the certificate that the signature is to be verified with.
    pub fn certificate(&self) -> Option<&str> {
        self.cert.as_deref()
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sig, cert) = (self.sig.clone(), self.cert.clone());
        let form = EnvelopeForm { v: VERSION, body: Some(&self.body), sig, cert };
        f.write_str(&write(&form))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Delivery;
    use crate::wire::Stored;

    /// Proves C15.
    #[test]
    fn a_body_and_its_signature_survive_being_read_and_written() {
        // Odd blanks, an unknown field and an order that no version of Trigger writes.
        let body = r#"{ "colour" : "r\u00e9d", "part":3,"n":1.50 }"#;
        let text = format!(r#"{{"v":1,"body":{body},"sig":"c2ln","cert":"sha256:ab"}}"#);
        let envelope = Envelope::parse::<Delivery>(&text).unwrap();
        assert_eq!(envelope.body(), body);
        assert_eq!((envelope.signature(), envelope.certificate()), (Some("c2ln"), Some("sha256:ab")));
        assert_eq!(envelope.to_string(), text);
        assert_eq!(envelope.open(), Ok(Delivery { part: 3 }));
        assert_eq!(Delivery::from_wire(&text), Ok(Delivery { part: 3 }), "a signature is ignored");
    }

    #[test]
    fn an_envelope_without_a_signature_is_what_is_written() {
        let text = Delivery { part: 2 }.to_wire();
        let envelope = Envelope::parse::<Delivery>(&text).unwrap();
        assert_eq!((envelope.signature(), envelope.certificate()), (None, None));
        assert_eq!(envelope.to_string(), text);
    }

    /// Proves C15.
    #[test]
    fn a_newer_version_and_garbage_are_distinguished() {
        for newer in [r#"{"v":2,"part":0,"what":"ever"}"#, r#"{"v":2,"body":{"part":0}}"#, r#"{"v":2}"#] {
            let too_new = WireError::TooNew { what: "a delivery", version: 2 };
            assert_eq!(Delivery::from_wire(newer), Err(too_new), "{newer}");
        }
        for garbage in [
            "",
            "{}",
            "null",
            "[1]",
            "{\"v\":1}",
            "{\"v\":\"1\"}",
            "\u{0}\u{1}",
            "{\"v\":0,\"body\":{\"part\":1}}",
            "{\"v\":1,\"part\":1}",
            "{\"v\":1,\"body\":null}",
            "{\"v\":1,\"body\":{\"part\":1}",
            "{\"v\":1,\"body\":{\"part\":1},\"body\":{\"part\":2}}",
        ] {
            assert!(matches!(Delivery::from_wire(garbage), Err(WireError::Unreadable { .. })), "{garbage}");
        }
    }
}
