//! A real Puppet CA, and the certificates that a node may have: good ones and every bad one that a test needs.
//!
//! `puppetserver ca setup` makes the CA, with the intermediate CA that is its default, and the server's certificate; it
//! needs no running server. The certificates of nodes are signed with that CA's key by `openssl ca`, with the extensions
//! that a Puppet server gives them, because `puppetserver ca` itself signs none that is expired or bears another node's
//! name, and marks each one that it makes without a server as an administrator's.
//!
//! All test runs share two CAs below `target/trigger-e2e`, which are made once, and with each of them one good certificate
//! for every certname: keys of RSA take seconds, and `openssl` a tenth of one for each node.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::explain;

mod files;
mod validity;

pub use files::{Crl, Ssl};
pub use validity::Validity;

/// The certname of the Puppet server, on which the hub and etcd run; `localhost` is another name of its.
pub const SERVER: &str = "puppet.example.test";
/// The certname of the operator at the tests' hubs.
pub const OPERATOR: &str = "operator.example.test";
/// A certname that bears `pp_cli_auth`, which `puppetserver ca generate --ca-client` gives it.
pub const ADMINISTRATOR: &str = "admin.example.test";
/// Where test runs keep what they share.
const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/trigger-e2e");
/// The settings of `puppetserver ca`: RSA-4096, which is the default, would take seconds for each key.
const PUPPET_CONF: &str = "[main]\nkeylength = 2048\n";
/// What `openssl ca` needs to be told. The extensions are those that a Puppet server gives to a node.
const OPENSSL_CONF: &str = "[ca]\ndefault_ca = puppet\n\
    [puppet]\ndatabase = $ENV::HERE/index\nserial = $ENV::HERE/serial\ncrlnumber = $ENV::HERE/crlnumber\nnew_certs_dir = $ENV::HERE\n\
    default_md = sha256\npolicy = any\nunique_subject = no\n\
    [any]\ncommonName = supplied\n\
    [crl]\nauthorityKeyIdentifier = keyid:always\n\
    [node]\nbasicConstraints = critical,CA:FALSE\nnsComment = Puppet Server Internal Certificate\n\
    authorityKeyIdentifier = keyid:always\nextendedKeyUsage = critical,serverAuth,clientAuth\n\
    keyUsage = critical,digitalSignature,keyEncipherment\nsubjectKeyIdentifier = hash\n";

/// A Puppet CA with an intermediate CA.
#[derive(Debug, Clone)]
pub struct Authority {
    directory: PathBuf,
}

/// The key of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// P-256 in a SEC1 file, as with Puppet's setting `key_type = ec`.
    Ec,
    /// RSA of 4096 bits in a PKCS#1 file, as Puppet makes it by default. All of them are one key.
    Rsa,
}

/// What a certificate is to say.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    certname: &'a str,
    key: KeyType,
    alt_names: Vec<&'a str>,
    validity: Validity,
    extensions: Vec<(&'a str, &'a str)>,
}

impl<'a> Request<'a> {
    /// Asks for the certificate of a node as a Puppet server signs it.
    pub fn of(certname: &'a str) -> Self {
        Self {
            certname,
            key: KeyType::Ec,
            alt_names: vec![certname],
            validity: Validity::Now,
            extensions: Vec::new(),
        }
    }

    /// Asks for another kind of key.
    #[must_use]
    pub fn with_key(mut self, key: KeyType) -> Self {
        self.key = key;
        self
    }

    /// Asks for these DNS names in the place of the certname.
    #[must_use]
    pub fn with_alt_names(mut self, names: &[&'a str]) -> Self {
        self.alt_names = names.to_vec();
        self
    }

    /// Asks for a certificate that is valid at another time.
    #[must_use]
    pub fn valid(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }

    /// Asks for a trusted extension of Puppet, by its object identifier below `1.3.6.1.4.1.34380.1`.
    #[must_use]
    pub fn with_extension(mut self, id: &'a str, value: &'a str) -> Self {
        self.extensions.push((id, value));
        self
    }
}

impl Authority {
    /// Returns the CA of the tests' fleet.
    pub fn puppet() -> Self {
        Self::shared("fleet")
    }

    /// Returns a CA that knows nothing of the first, with the same certnames.
    pub fn stranger() -> Self {
        Self::shared("stranger")
    }

    /// Returns the certificate of the Puppet server, made by `puppetserver ca setup`, as files in `directory`.
    pub fn server(&self, directory: &Path) -> Ssl {
        self.made_by_puppet(SERVER, directory)
    }

    /// Returns an administrator's certificate, made by `puppetserver ca generate`, as files in `directory`.
    pub fn administrator(&self, directory: &Path) -> Ssl {
        self.made_by_puppet(ADMINISTRATOR, directory)
    }

    /// Returns a node's certificate as files in `directory`: one and the same in all tests. [`Self::issue`] makes others.
    pub fn node(&self, certname: &str, directory: &Path) -> Ssl {
        let kept = Ssl::at(&self.directory.join("nodes").join(certname), certname);
        once(kept.directory(), || drop(self.issue(&Request::of(certname), kept.directory())));
        self.copy_of(&kept, directory)
    }

    /// Makes a key, signs a certificate and writes both into `directory`, laid out as Puppet's `ssldir`. What was there
    /// before for the same certname is replaced, as when a host certificate is renewed.
    pub fn issue(&self, request: &Request<'_>, directory: &Path) -> Ssl {
        let ssl = Ssl::at(directory, request.certname);
        let work = Scratch::new();
        let at = |name: &str| work.path(name);
        match request.key {
            KeyType::Ec => openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"], &at("key")),
            KeyType::Rsa => work.write("key", &self.rsa_key()),
        }
        let subject = format!("/CN={}", request.certname);
        openssl(&["req", "-new", "-key", &at("key"), "-subj", &subject], &at("csr"));
        let names: Vec<String> = request.alt_names.iter().map(|name| format!("DNS:{name}")).collect();
        let mut settings = OPENSSL_CONF.to_owned();
        if !names.is_empty() {
            settings.push_str(&format!("subjectAltName = {}\n", names.join(",")));
        }
        for (id, value) in &request.extensions {
            settings.push_str(&format!("1.3.6.1.4.1.34380.1.{id} = ASN1:UTF8String:{value}\n"));
        }
        work.write("openssl.cnf", &settings);
        let (from, until) = request.validity.bounds();
        self.openssl_ca(
            &work,
            &["-batch", "-notext", "-rand_serial", "-extensions", "node", "-in", &at("csr")],
            &["-startdate", from, "-enddate", until],
            &at("certificate"),
        );
        ssl.install(&work.read("certificate"), &work.read("key"), &self.certificates(), &self.good_crl());
        ssl
    }

    /// Returns a key as Puppet makes it by default, which takes seconds.
    fn rsa_key(&self) -> String {
        let directory = self.directory.join("rsa");
        let path = directory.join("key");
        once(&directory, || openssl(&["genrsa", "-traditional", "4096"], &path.to_string_lossy()));
        fs::read_to_string(path).expect("a key of RSA")
    }

    /// Returns what [`Self::crl`] makes by default.
    fn good_crl(&self) -> String {
        let directory = self.directory.join("crl");
        let path = directory.join("crl.pem");
        once(&directory, || fs::write(&path, self.crl(&Crl::default())).expect("a CRL"));
        fs::read_to_string(path).expect("a CRL")
    }

    /// Returns the CRLs of the intermediate and of the root CA, as the Puppet server hands them out.
    pub fn crl(&self, content: &Crl<'_>) -> String {
        let work = Scratch::new();
        work.write("openssl.cnf", OPENSSL_CONF);
        work.write("index", "");
        work.write("crlnumber", &format!("{:04X}\n", content.number));
        for revoked in &content.revoked {
            let certificate = revoked.certificate().to_string_lossy().into_owned();
            self.openssl_ca(&work, &["-revoke", &certificate], &[], &work.path("said"));
        }
        let (from, until) = content.validity.bounds();
        self.openssl_ca(
            &work,
            &["-gencrl", "-crlexts", "crl"],
            &["-crl_lastupdate", from, "-crl_nextupdate", until],
            &work.path("crl"),
        );
        let puppets = fs::read_to_string(self.ca("ca_crl.pem")).expect("the CA's CRLs");
        // The root CA's CRL is the second one.
        let of_the_root = puppets.rfind("-----BEGIN").map_or("", |begin| &puppets[begin..]);
        format!("{}{of_the_root}", work.read("crl"))
    }

    /// Returns the certificates of the intermediate and of the root CA.
    pub fn certificates(&self) -> String {
        fs::read_to_string(self.ca("ca_crt.pem")).expect("the CA's certificates")
    }

    fn made_by_puppet(&self, certname: &str, directory: &Path) -> Ssl {
        self.copy_of(&Ssl::at(&self.directory.join("ssl"), certname), directory)
    }

    fn copy_of(&self, made: &Ssl, directory: &Path) -> Ssl {
        let read = |path: PathBuf| fs::read_to_string(path).expect("a certificate that was made");
        let ssl = Ssl::at(directory, made.certname());
        ssl.install(&read(made.certificate()), &read(made.key()), &self.certificates(), &self.good_crl());
        ssl
    }

    fn openssl_ca(&self, work: &Scratch, arguments: &[&str], more: &[&str], out: &str) {
        let (certificate, key) = (self.ca("ca_crt.pem"), self.ca("ca_key.pem"));
        let mut command = Command::new("openssl");
        command.env("HERE", &work.0).args(["ca", "-config", &work.path("openssl.cnf")]).args(arguments);
        command.arg("-cert").arg(certificate).arg("-keyfile").arg(key).args(more).args(["-out", out]);
        if !work.0.join("index").exists() {
            work.write("index", "");
        }
        run(&mut command, "openssl");
    }

    fn ca(&self, name: &str) -> PathBuf {
        self.directory.join("ca").join(name)
    }

    /// Returns a CA that is made once for all test runs.
    fn shared(name: &str) -> Self {
        let mut recipe = DefaultHasher::new();
        (PUPPET_CONF, OPENSSL_CONF, SERVER, ADMINISTRATOR).hash(&mut recipe);
        let directory = Path::new(SHARED).join(format!("ca-{name}-{:016x}", recipe.finish()));
        once(&directory, || make(&directory));
        Self { directory }
    }
}

/// Fills a directory once for all test runs. Tests that want it at the same time wait for the first.
fn once(directory: &Path, fill: impl FnOnce()) {
    let done = directory.join("done");
    if done.exists() {
        return;
    }
    let parent = directory.parent().expect("a directory that test runs share");
    fs::create_dir_all(parent).expect("a directory that test runs share");
    let mut name = directory.as_os_str().to_owned();
    name.push(".lock");
    let lock = File::options().create(true).append(true).open(name).expect("a lock");
    lock.lock().expect("a lock");
    if !done.exists() {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).expect("a directory that test runs share");
        fill();
        fs::write(done, "").expect("a note that the directory is complete");
    }
}

fn make(directory: &Path) {
    let here = directory.display();
    let conf = directory.join("puppet.conf");
    let settings = format!(
        "{PUPPET_CONF}confdir = {here}\nvardir = {here}/var\nssldir = {here}/ssl\ncertname = {SERVER}\n\
         dns_alt_names = localhost,{SERVER}\n[server]\ncadir = {here}/ca\n"
    );
    fs::write(&conf, settings).expect("settings of the CA");
    let puppetserver = |arguments: &[&str]| {
        let mut command = Command::new("puppetserver");
        command.arg("ca").args(arguments).arg("--config").arg(&conf);
        run(&mut command, "puppetserver");
    };
    puppetserver(&["setup"]);
    // It asks whether a server is running, which must not be so, and goes on where it gets no answer.
    puppetserver(&["generate", "--ca-client", "--force", "--certname", ADMINISTRATOR]);
}

fn openssl(arguments: &[&str], out: &str) {
    let (command, arguments) = arguments.split_first().expect("a command of openssl");
    run(Command::new("openssl").args([command, "-out", out]).args(arguments), "openssl");
}

fn run(command: &mut Command, package: &str) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{}", explain(command, package, &error)));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}:\n{said}");
}

/// A directory for the steps of one certificate, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("work-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = Path::new(SHARED).join(name);
        fs::create_dir_all(&directory).expect("a directory for a certificate's steps");
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).expect("a file that openssl wrote")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("a file for openssl");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
