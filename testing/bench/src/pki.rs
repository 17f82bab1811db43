//! The certificates of the bench's fleets: a CA with an intermediate one, as Puppet's, but with EC keys of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Error, Result, anyhow};
use clap::ValueEnum;
use rcgen::KeyPair;
use trigger_pki::TlsFiles;
use trigger_pki::testing::{TestCa, TestError};

use crate::process::run;
use crate::scratch::Scratch;

/// The key of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Key {
    /// P-256.
    Ec,
    /// RSA of 4096 bits, as Puppet makes it by default.
    Rsa,
}

impl Key {
    /// Returns its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ec => "EC",
            Self::Rsa => "RSA-4096",
        }
    }
}

/// A CA that all nodes of the bench trust.
pub(crate) struct Ca {
    ca: TestCa,
    directory: PathBuf,
    /// The one RSA key, which takes seconds to make: every certificate with an RSA key has it.
    rsa: String,
}

impl Ca {
    pub(crate) fn new(scratch: &Scratch) -> Result<Self> {
        let directory = scratch.directory("pki")?;
        let ca = TestCa::new("bench").map_err(failed)?;
        write(&directory.join("ca.pem"), &ca.certificates())?;
        write(&directory.join("crl.pem"), &ca.revocation_lists().map_err(failed)?)?;
        let key = directory.join("rsa.pem");
        let mut openssl = Command::new("openssl");
        openssl.args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096", "-out"]);
        run(openssl.arg(&key))?;
        let rsa = fs::read_to_string(&key).with_context(|| format!("cannot read {}", key.display()))?;
        Ok(Self { ca, directory, rsa })
    }

    /// Issues a certificate, and returns the files of its node.
    pub(crate) fn issue(&mut self, certname: &str, key: Key) -> Result<TlsFiles> {
        let (certificate, private) = match key {
            Key::Ec => {
                let issued = self.ca.issue(certname).map_err(failed)?;
                (issued.certificate, issued.key)
            }
            Key::Rsa => {
                let pair = KeyPair::from_pem(&self.rsa).context("a key of openssl that is none")?;
                (self.ca.certify(certname, &pair, |_| {}).map_err(failed)?, self.rsa.clone())
            }
        };
        let path = |name: String| self.directory.join(name);
        let files = TlsFiles {
            certificate: path(format!("{certname}.pem")),
            key: path(format!("{certname}.key")),
            ca: path("ca.pem".to_owned()),
            crl: Some(path("crl.pem".to_owned())),
        };
        write(&files.certificate, &certificate)?;
        write(&files.key, &private)?;
        Ok(files)
    }
}

/// Returns the table `[tls]` of a configuration.
pub(crate) fn table(files: &TlsFiles) -> String {
    let line = |key: &str, path: &Path| format!("{key} = '{}'\n", path.display());
    let mut table = String::from("[tls]\n");
    table += &line("certificate", &files.certificate);
    table += &line("key", &files.key);
    table += &line("ca", &files.ca);
    table += &files.crl.as_ref().map_or_else(String::new, |crl| line("crl", crl));
    table
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn failed(error: TestError) -> Error {
    anyhow!("the bench's CA: {error}")
}
