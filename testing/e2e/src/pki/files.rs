//! The files of one node, laid out as Puppet's `ssldir`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::pki::validity::Validity;

/// A node's `ssldir`.
#[derive(Debug, Clone)]
pub struct Ssl {
    directory: PathBuf,
    certname: String,
}

/// What a CRL is to say.
#[derive(Debug, Clone)]
pub struct Crl<'a> {
    /// The certificates that it revokes.
    pub revoked: Vec<&'a Ssl>,
    /// Its number: of two CRLs of one issuer the higher number is the newer.
    pub number: u32,
    /// When it was made, and when the next one is due.
    pub validity: Validity,
}

impl Default for Crl<'_> {
    fn default() -> Self {
        Self { revoked: Vec::new(), number: 1, validity: Validity::Now }
    }
}

impl Ssl {
    /// Names the files of a certname in a directory, which need not be there.
    pub fn at(directory: &Path, certname: &str) -> Self {
        Self { directory: directory.to_owned(), certname: certname.to_owned() }
    }

    /// Returns the directory, for Puppet's setting `ssldir`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn certname(&self) -> &str {
        &self.certname
    }

    /// Returns the path of the certificate.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join(format!("certs/{}.pem", self.certname))
    }

    /// Returns the path of the private key.
    pub fn key(&self) -> PathBuf {
        self.directory.join(format!("private_keys/{}.pem", self.certname))
    }

    /// Returns the path of the CA's certificates.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("certs/ca.pem")
    }

    /// Returns the path of the CRLs.
    pub fn crl(&self) -> PathBuf {
        self.directory.join("crl.pem")
    }

    /// Returns the value of the setting `tls` that names the four files: a table of TOML in one line.
    pub fn table(&self) -> String {
        let [certificate, key, ca, crl] =
            [self.certificate(), self.key(), self.ca(), self.crl()].map(|path| path.display().to_string());
        format!("{{ certificate = '{certificate}', key = '{key}', ca = '{ca}', crl = '{crl}' }}")
    }

    /// Replaces the CRLs, as when the node has fetched them again.
    pub fn set_crl(&self, text: &str) {
        replace(&self.crl(), text, 0o644);
    }

    /// Replaces the CA's certificates.
    pub fn set_ca(&self, text: &str) {
        replace(&self.ca(), text, 0o644);
    }

    pub(super) fn install(&self, certificate: &str, key: &str, ca: &str, crl: &str) {
        replace(&self.ca(), ca, 0o644);
        replace(&self.crl(), crl, 0o644);
        replace(&self.key(), key, 0o640);
        replace(&self.certificate(), certificate, 0o644);
    }
}

/// Replaces a file at once: an agent that reads it meanwhile sees the old text or the new one.
fn replace(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory of Puppet's ssldir");
    let new = path.with_extension("new");
    fs::write(&new, text).expect("a file in Puppet's ssldir");
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).expect("the mode of a file");
    fs::rename(&new, path).expect("a file in its place");
}
