//! What a CA certifies about a node besides its name: Puppet's trusted extensions.

use std::collections::BTreeMap;

use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::ber::BerObjectContent;
use x509_parser::der_parser::parse_der;

use trigger_core::trusted_extension::{PUPPET_TREE, short_name};

use crate::certificate::parse;

/// The values of Puppet's extensions in a certificate, by Puppet's short name, or by object identifier where it has
/// none. Only a CA can put them there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedExtensions(BTreeMap<String, String>);

impl TrustedExtensions {
    /// The value of an extension, by its short name such as `pp_role`, or by its object identifier in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(short_name(name).unwrap_or(name)).map(String::as_str)
    }

    /// All names with their values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Those of a certificate that nobody has verified: anyone can write them. For showing a certificate, and for tests;
    /// [`Trust::verify`](crate::Trust::verify) has those that a CA vouches for. Absent for what is no certificate.
    pub fn unverified(certificate_der: &[u8]) -> Option<Self> {
        parse(certificate_der).ok().map(|certificate| Self::of(&certificate))
    }

    /// Those of a certificate. One whose value is no text is left out, and so are both of two with one name.
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut values = BTreeMap::new();
        let mut repeated = Vec::new();
        for extension in certificate.extensions() {
            let oid = extension.oid.to_id_string();
            if !oid.starts_with(PUPPET_TREE) {
                continue;
            }
            let name = short_name(&oid).map_or(oid.clone(), str::to_owned);
            if let Some(value) = text(extension.value)
                && values.insert(name.clone(), value).is_some()
            {
                repeated.push(name);
            }
        }
        for name in repeated {
            values.remove(&name);
        }
        Self(values)
    }
}

/// The text in a DER value.
fn text(der: &[u8]) -> Option<String> {
    let (rest, value) = parse_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    match value.content {
        BerObjectContent::UTF8String(text)
        | BerObjectContent::PrintableString(text)
        | BerObjectContent::IA5String(text) => Some(text.to_owned()),
        _ => None,
    }
}
