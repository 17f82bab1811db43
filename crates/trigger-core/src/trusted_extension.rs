//! The names of the trusted extensions that Puppet's certificates may have.
//!
//! Sources: Puppet's registered object identifiers (`lib/puppet/ssl/oids.rb`), and `pp_cli_auth` of puppetserver.

/// Puppet's registered extensions, whose last number is their place here, from 1.
const REGISTERED: [&str; 26] = [
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
const REGISTERED_ARC: &str = "1.3.6.1.4.1.34380.1.1.";

/// The extensions for authorization, with their last number.
const AUTHORIZATION: [(&str, u32); 3] = [("pp_authorization", 1), ("pp_auth_role", 13), ("pp_cli_auth", 39)];
const AUTHORIZATION_ARC: &str = "1.3.6.1.4.1.34380.1.3.";

/// What the object identifiers of all of Puppet's extensions begin with.
pub const PUPPET_TREE: &str = "1.3.6.1.4.1.34380.1.";

/// Puppet's short name for an object identifier, if it has one.
pub fn short_name(oid: &str) -> Option<&'static str> {
    let number = |arc: &str| oid.strip_prefix(arc)?.parse::<u32>().ok();
    if let Some(number) = number(REGISTERED_ARC) {
        return REGISTERED.get(usize::try_from(number.checked_sub(1)?).ok()?).copied();
    }
    let number = number(AUTHORIZATION_ARC)?;
    AUTHORIZATION.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

/// The spelling by which an extension is looked up: its short name where Puppet has one, else its object identifier.
/// `None` for a text that is neither.
pub fn canonical(text: &str) -> Option<&str> {
    let is_named = |(name, _): &(&str, u32)| *name == text;
    if REGISTERED.contains(&text) || AUTHORIZATION.iter().any(is_named) {
        return Some(text);
    }
    let is_number = |arc: &str| !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit());
    let is_oid = text.strip_prefix(PUPPET_TREE).is_some_and(|rest| rest.split('.').all(is_number));
    short_name(text).or(is_oid.then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_has_one_spelling() {
        for (text, expected) in [
            ("pp_role", Some("pp_role")),
            ("1.3.6.1.4.1.34380.1.1.13", Some("pp_role")),
            ("1.3.6.1.4.1.34380.1.1.1", Some("pp_uuid")),
            ("1.3.6.1.4.1.34380.1.1.26", Some("pp_owner")),
            ("1.3.6.1.4.1.34380.1.1.0", Some("1.3.6.1.4.1.34380.1.1.0")),
            ("1.3.6.1.4.1.34380.1.1.27", Some("1.3.6.1.4.1.34380.1.1.27")),
            ("1.3.6.1.4.1.34380.1.3.39", Some("pp_cli_auth")),
            ("1.3.6.1.4.1.34380.1.2.1.1", Some("1.3.6.1.4.1.34380.1.2.1.1")),
            ("pp_rol", None),
            ("", None),
            ("1.3.6.1.4.1.34380.1.", None),
            ("1.3.6.1.4.1.34380.1.2..1", None),
            ("2.5.29.17", None),
            ("13", None),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }
}
