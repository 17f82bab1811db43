//! A CA for tests that is built as Puppet's: a root, an intermediate that issues, and a revocation list of each.

use std::path::Path;
use std::{fs, io};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};

use crate::files::TlsFiles;

/// The tree of Puppet's registered extensions, such as `pp_role` (13).
pub const REGISTERED_EXTENSION: [u64; 9] = [1, 3, 6, 1, 4, 1, 34380, 1, 1];
/// The tree of Puppet's extensions for authorization, such as `pp_auth_role` (13) and `pp_cli_auth` (39).
pub const AUTHORIZATION_EXTENSION: [u64; 9] = [1, 3, 6, 1, 4, 1, 34380, 1, 3];

/// A CA with EC keys.
#[derive(Debug)]
pub struct TestCa {
    root: Authority,
    intermediate: Authority,
    serial: u64,
    revoked: Vec<SerialNumber>,
    crl_number: u64,
}

#[derive(Debug)]
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its key, in PEM form.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key, PKCS#8.
    pub key: String,
    serial: SerialNumber,
}

/// What a test fails with.
pub type TestError = Box<dyn std::error::Error + Send + Sync>;

impl TestCa {
    /// A new CA. Two of one name differ in their keys.
    ///
    /// # Errors
    /// That of rcgen.
    pub fn new(name: &str) -> Result<Self, TestError> {
        let root = Authority::new(&format!("Puppet Root CA: {name}"), None)?;
        let intermediate = Authority::new(&format!("Puppet CA: {name}"), Some(&root))?;
        Ok(Self { root, intermediate, serial: 1, revoked: Vec::new(), crl_number: 1 })
    }

    /// Issues a certificate as Puppet's CA does: for clients and servers, with its certname as name.
    ///
    /// # Errors
    /// That of rcgen.
    pub fn issue(&mut self, certname: &str) -> Result<Issued, TestError> {
        self.issue_with(certname, |_| {})
    }

    /// Issues a certificate of which something is different.
    ///
    /// # Errors
    /// That of rcgen.
    pub fn issue_with(
        &mut self,
        certname: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<Issued, TestError> {
        let key = KeyPair::generate()?;
        let certificate = self.certify(certname, &key, change)?;
        Ok(Issued { certificate, key: key.serialize_pem(), serial: SerialNumber::from(self.serial) })
    }

    /// Issues a certificate for a key that exists: the text of the certificate.
    ///
    /// # Errors
    /// That of rcgen.
    pub fn certify(
        &mut self,
        certname: &str,
        key: &impl rcgen::PublicKeyData,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<String, TestError> {
        self.serial += 1;
        let mut params = CertificateParams::new(vec![certname.to_owned(), "localhost".to_owned()])?;
        params.subject_alt_names.push(rcgen::SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, certname);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(self.serial));
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1));
        change(&mut params);
        Ok(params.signed_by(key, &self.intermediate.issuer)?.pem())
    }

    /// Revokes a certificate in all lists that are made from now on.
    pub fn revoke(&mut self, issued: &Issued) {
        self.revoked.push(issued.serial.clone());
        self.crl_number += 1;
    }

    /// The CA's certificates, in Puppet's order: the intermediate, then the root.
    pub fn certificates(&self) -> String {
        format!("{}{}", self.intermediate.pem, self.root.pem)
    }

    /// The revocation lists, in Puppet's order: that of the intermediate, then that of the root.
    ///
    /// # Errors
    /// That of rcgen.
    pub fn revocation_lists(&self) -> Result<String, TestError> {
        Ok(format!("{}{}", self.issued_list()?, self.root_list()?))
    }

    /// The list of the intermediate, which says which nodes are revoked.
    ///
    /// # Errors
    /// That of rcgen.
    pub fn issued_list(&self) -> Result<String, TestError> {
        list(&self.intermediate, self.revoked.clone(), self.crl_number, 2100)
    }

    /// As [`Self::issued_list`], out of date since 2021.
    ///
    /// # Errors
    /// That of rcgen.
    pub fn stale_list(&self) -> Result<String, TestError> {
        list(&self.intermediate, self.revoked.clone(), self.crl_number, 2021)
    }

    /// The list of the root, which says which CAs are revoked: none.
    ///
    /// # Errors
    /// That of rcgen.
    pub fn root_list(&self) -> Result<String, TestError> {
        list(&self.root, Vec::new(), 1, 2100)
    }

    /// The list of the root when it has revoked the intermediate.
    ///
    /// # Errors
    /// That of rcgen.
    pub fn root_list_without_intermediate(&self) -> Result<String, TestError> {
        list(&self.root, vec![SerialNumber::from(1)], 2, 2100)
    }

    /// Writes the files of a node into a directory, in the layout of Puppet's `ssldir`.
    ///
    /// # Errors
    /// That of rcgen or of the system.
    pub fn write(&self, directory: &Path, certname: &str, issued: &Issued) -> Result<TlsFiles, TestError> {
        let files = layout(directory, certname)?;
        fs::write(&files.certificate, &issued.certificate)?;
        fs::write(&files.key, &issued.key)?;
        fs::write(&files.ca, self.certificates())?;
        if let Some(crl) = &files.crl {
            fs::write(crl, self.revocation_lists()?)?;
        }
        Ok(files)
    }

    /// Issues a certificate and writes the files of its node.
    ///
    /// # Errors
    /// That of rcgen or of the system.
    pub fn node(&mut self, directory: &Path, certname: &str) -> Result<TlsFiles, TestError> {
        let issued = self.issue(certname)?;
        self.write(directory, certname, &issued)
    }
}

/// An extension with a text, as Puppet writes it: below a tree, a number.
pub fn extension(tree: [u64; 9], number: u64, value: &str) -> CustomExtension {
    let mut der = vec![0x0c, u8::try_from(value.len()).unwrap_or(0)];
    der.extend_from_slice(value.as_bytes());
    let mut oid = tree.to_vec();
    oid.push(number);
    CustomExtension::from_oid_content(&oid, der)
}

fn layout(directory: &Path, certname: &str) -> io::Result<TlsFiles> {
    let (certs, keys) = (directory.join("certs"), directory.join("private_keys"));
    fs::create_dir_all(&certs)?;
    fs::create_dir_all(&keys)?;
    Ok(TlsFiles {
        certificate: certs.join(format!("{certname}.pem")),
        key: keys.join(format!("{certname}.pem")),
        ca: certs.join("ca.pem"),
        crl: Some(directory.join("crl.pem")),
    })
}

impl Authority {
    fn new(name: &str, issuer: Option<&Self>) -> Result<Self, TestError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from(1));
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1));
        let certificate = match issuer {
            Some(issuer) => params.signed_by(&key, &issuer.issuer)?,
            None => params.self_signed(&key)?,
        };
        let pem = certificate.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }
}

fn list(
    authority: &Authority,
    serials: Vec<SerialNumber>,
    number: u64,
    next_update_year: i32,
) -> Result<String, TestError> {
    let revoked = |serial_number| RevokedCertParams {
        serial_number,
        revocation_time: date_time_ymd(2020, 2, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(next_update_year, 1, 1),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: serials.into_iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(params.signed_by(&authority.issuer)?.pem()?)
}
