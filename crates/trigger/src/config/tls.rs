//! `[tls]`: the files of this node's certificates.

use std::path::PathBuf;

use serde::Deserialize;
use trigger_store::credentials::TlsFiles;

use super::absolute;
use crate::failure::Failure;

/// `[tls]`. A file that it does not name is Puppet's.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsTable {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    crl: Option<PathBuf>,
}

impl TlsTable {
    /// The files, if the table names all that are needed.
    pub(crate) fn files(&self) -> Result<Option<TlsFiles>, Failure> {
        let Self { certificate, key, ca, crl } = self;
        let (Some(certificate), Some(key), Some(ca)) = (certificate, key, ca) else { return Ok(None) };
        Ok(Some(TlsFiles {
            certificate: absolute("tls.certificate", certificate.clone())?,
            key: absolute("tls.key", key.clone())?,
            ca: absolute("tls.ca", ca.clone())?,
            crl: crl.clone().map(|crl| absolute("tls.crl", crl)).transpose()?,
        }))
    }

    /// The files of the table, and Puppet's in the place of those that it does not name. A certificate goes with its key,
    /// and revocation lists with their CA: of each pair, Puppet's are used together or not at all.
    pub(crate) fn completed_by(&self, puppets: TlsFiles) -> Result<TlsFiles, Failure> {
        let Self { certificate, key, ca, crl } = self.clone();
        let (certificate, key) = match (certificate, key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => (puppets.certificate, puppets.key),
            _ => {
                return Err(Failure::config(
                    "setting tls: name both certificate and key, or none of the two",
                ));
            }
        };
        let (ca, crl) = match (ca, crl) {
            (Some(ca), crl) => (ca, crl),
            (None, Some(crl)) => (puppets.ca, Some(crl)),
            (None, None) => (puppets.ca, puppets.crl),
        };
        let complete = Self { certificate: Some(certificate), key: Some(key), ca: Some(ca), crl };
        complete.files()?.ok_or_else(|| Failure::config("setting tls: a file is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(table: &str) -> String {
        let table: TlsTable = toml::from_str(table).unwrap();
        let puppets = TlsFiles {
            certificate: "/ssl/cert".into(),
            key: "/ssl/key".into(),
            ca: "/ssl/ca".into(),
            crl: Some("/ssl/crl".into()),
        };
        let complete = table.files().map(|files| files.is_some());
        match table.completed_by(puppets) {
            Ok(TlsFiles { certificate, key, ca, crl }) => {
                let crl = crl.unwrap_or_default();
                let paths = [certificate, key, ca, crl].map(|path| path.display().to_string());
                format!("{} {}", if complete.unwrap() { "own:" } else { "puppet's:" }, paths.join(" "))
            }
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn what_the_table_does_not_name_is_puppets() {
        let check = |table, expected| assert_eq!(files(table), expected, "{table}");
        check("", "puppet's: /ssl/cert /ssl/key /ssl/ca /ssl/crl");
        check("crl = '/a'", "puppet's: /ssl/cert /ssl/key /ssl/ca /a");
        check("ca = '/a'", "puppet's: /ssl/cert /ssl/key /a ");
        check("certificate = '/c'\nkey = '/k'", "puppet's: /c /k /ssl/ca /ssl/crl");
        check("certificate = '/c'\nkey = '/k'\nca = '/a'", "own: /c /k /a ");
        check("certificate = '/c'\nkey = '/k'\nca = '/a'\ncrl = '/l'", "own: /c /k /a /l");
        check("key = '/k'", "setting tls: name both certificate and key, or none of the two");
        assert!(files("ca = 'ca.pem'").starts_with("setting tls.ca: 'ca.pem' is not an absolute path"));
    }
}
