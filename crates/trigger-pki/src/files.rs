//! The PEM files of a node, and what is in them.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use trigger_core::identity::Certname;

use crate::error::{FileKind, PkiError};

/// The PEM files of a node in its Puppet CA.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// The node's certificate, which intermediate certificates may follow.
    pub certificate: PathBuf,
    /// Its private key: PKCS#1, SEC1 or PKCS#8.
    pub key: PathBuf,
    /// The certificates of the CA, in any order: the whole chain, without which nobody is trusted.
    pub ca: PathBuf,
    /// The revocation lists of the CA. Without them this node cannot know of revocations, and can be no server.
    pub crl: Option<PathBuf>,
}

impl TlsFiles {
    /// The files of the certificate that this node had under an earlier certname, if they are still beside these: Puppet
    /// names both files after the certname, and so do others, with suffixes of their own.
    pub fn of_earlier_certname(&self, certname: &Certname) -> Option<Self> {
        let beside = |path: &Path| {
            let suffix = path.extension()?.to_str()?;
            let path = path.with_file_name(format!("{certname}.{suffix}"));
            path.exists().then_some(path)
        };
        Some(Self { certificate: beside(&self.certificate)?, key: beside(&self.key)?, ..self.clone() })
    }
}

/// Reads a file.
pub(crate) fn read(kind: FileKind, path: &Path) -> Result<Vec<u8>, PkiError> {
    fs::read(path).map_err(|error| PkiError::Unreadable { kind, path: path.to_owned(), error })
}

/// The certificates of a file, at least one.
pub(crate) fn certificates(
    kind: FileKind,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let certificates = all(kind, path, CertificateDer::pem_slice_iter(pem))?;
    if certificates.is_empty() {
        return Err(unusable(kind, path, "it holds no certificate in PEM form".to_owned()));
    }
    Ok(certificates)
}

/// The first private key of a file.
pub(crate) fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, PkiError> {
    // Both forms of encryption say so outside of what is encrypted.
    if String::from_utf8_lossy(pem).lines().any(|line| line.contains("ENCRYPTED")) {
        let reason = "it is encrypted with a passphrase: store it without one, readable by its owner only";
        return Err(unusable(FileKind::Key, path, reason.to_owned()));
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        Error::NoItemsFound => {
            unusable(FileKind::Key, path, "it holds no private key in PEM form".to_owned())
        }
        error => damaged(FileKind::Key, path, &error),
    })
}

/// The revocation lists of a file, perhaps none.
pub(crate) fn revocation_lists(
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, PkiError> {
    all(FileKind::Crl, path, CertificateRevocationListDer::pem_slice_iter(pem))
}

fn all<T>(
    kind: FileKind,
    path: &Path,
    sections: impl Iterator<Item = Result<T, Error>>,
) -> Result<Vec<T>, PkiError> {
    sections.collect::<Result<_, _>>().map_err(|error| damaged(kind, path, &error))
}

fn damaged(kind: FileKind, path: &Path, error: &Error) -> PkiError {
    let place = match error {
        Error::MissingSectionEnd { .. } => "a section has no end",
        Error::IllegalSectionStart { .. } => "a section begins wrongly",
        Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be read",
    };
    unusable(kind, path, format!("its PEM text is damaged ({place}); get it again from the CA"))
}

pub(crate) fn unusable(kind: FileKind, path: &Path, reason: String) -> PkiError {
    PkiError::Unusable { kind, path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_an_earlier_certname_have_the_suffixes_of_the_present_ones() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let files = |name: &str, key: &str| TlsFiles {
            certificate: file(&format!("{name}.pem")),
            key: file(&format!("{name}.{key}")),
            ca: file("ca.pem"),
            crl: None,
        };
        let earlier = "web01.example.com".parse().unwrap();
        assert_eq!(files("web02.example.com", "key").of_earlier_certname(&earlier), None);
        for name in ["web01.example.com.pem", "web01.example.com.key"] {
            fs::write(file(name), "").unwrap();
        }
        for key in ["key", "pem"] {
            let found = files("web02.example.com", key).of_earlier_certname(&earlier);
            assert_eq!(found, Some(files("web01.example.com", key)));
        }
    }
}
