//! What a CA certifies about a node besides its name: Puppet's trusted extensions.
//!
//! The names and object identifiers are those of Puppet's `lib/puppet/ssl/oids.rb` and of the Puppet server, which adds
//! `pp_cli_auth`.

use std::collections::BTreeMap;

use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::ber::BerObjectContent;
use x509_parser::der_parser::parse_der;

use crate::certificate::parse;

/// The tree below which all of Puppet's extensions lie.
const PUPPET_TREE: &str = "1.3.6.1.4.1.34380.1.";
const REGISTERED: &str = "1.3.6.1.4.1.34380.1.1.";
/// Puppet's names for the first registered extensions, in the order of their numbers, which begin with one.
const REGISTERED_NAMES: [&str; 26] = [
    "pp_uuid",
    "pp_instance_id",
    "pp_image_name",
    "pp_preshared_key",
    "pp_cost_center",
    "pp_product",
    "pp_project",
    "pp_application",
    "pp_service",
    "pp_employee",
    "pp_created_by",
    "pp_environment",
    "pp_role",
    "pp_software_version",
    "pp_department",
    "pp_cluster",
    "pp_provisioner",
    "pp_region",
    "pp_datacenter",
    "pp_zone",
    "pp_network",
    "pp_securitypolicy",
    "pp_cloudplatform",
    "pp_apptier",
    "pp_hostname",
    "pp_owner",
];
const AUTHORIZATION_NAMES: [(&str, &str); 3] = [
    ("1.3.6.1.4.1.34380.1.3.1", "pp_authorization"),
    ("1.3.6.1.4.1.34380.1.3.13", "pp_auth_role"),
    ("1.3.6.1.4.1.34380.1.3.39", "pp_cli_auth"),
];

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

    /// Whether the certificate has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for TrustedExtensions {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

fn short_name(oid: &str) -> Option<&'static str> {
    if let Some(number) = oid.strip_prefix(REGISTERED) {
        let index = number.parse::<usize>().ok()?.checked_sub(1)?;
        return REGISTERED_NAMES.get(index).copied();
    }
    AUTHORIZATION_NAMES.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name)
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
