//! With what a command signs and verifies where no agent runs (C13).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use snapbox::cmd::Command;
use trigger_pki::TlsFiles;
use trigger_pki::testing::TestCa;

use crate::daemon::{Daemon, free_address, is_healthy, until};
use crate::{state, trigger};

/// A plain hub, and a node that fires through it without an agent, with the settings that most nodes have.
struct Site {
    _hub: Daemon,
    address: String,
    directory: tempfile::TempDir,
}

impl Site {
    fn new(run_cmd: &str) -> Self {
        let (directory, address) = (state(), free_address());
        let data = directory.path().join("data");
        let arguments = ["hub", "--listen", &address, "--data-dir", data.to_str().unwrap()];
        let hub = Daemon::start(&arguments, directory.path(), Stdio::null());
        until("the hub is healthy", || is_healthy(&address));
        fs::write(directory.path().join("trigger.toml"), format!("run_cmd = '{run_cmd}'\n")).unwrap();
        Self { _hub: hub, address, directory }
    }

    fn trigger(&self) -> Command {
        trigger(&self.directory.path().join("state"))
            .env_remove("TRIGGER_REQUIRE_SIGNATURE")
            .env("TRIGGER_CONFIG", self.directory.path().join("trigger.toml"))
            .env("TRIGGER_BACKEND", format!("hub+http://{}", self.address))
            .args(["--output", "json"])
    }

    /// Fires an event; returns what is printed, and the event.
    fn fire(&self) -> (String, String) {
        let fire = self.trigger().args(["fire", "x", "--host", "lb01.example.com"]).assert().code(0);
        let printed = String::from_utf8(fire.get_output().stdout.clone()).unwrap();
        assert!(printed.contains(r#""state":"committed""#), "{printed}");
        let event = printed.split('"').nth(3).unwrap().to_owned();
        (printed, event)
    }

    fn status(&self, event: &str) -> String {
        let status = self.trigger().args(["status", event]).assert().code(0);
        String::from_utf8(status.get_output().stdout.clone()).unwrap()
    }
}

#[test]
fn a_node_without_anything_to_sign_with_warns_at_each_command() {
    let site = Site::new("/bin/true");
    let (fired, event) = site.fire();
    let warning = "the event is not signed, and nodes that require signatures refuse it: this node has nothing to sign \
                   with; run an agent here, or sign this node's certificate";
    assert_eq!(fired.matches(warning).count(), 1, "{fired}");
    let status = site.status(&event);
    assert_eq!(status.matches("what follows is not verified: neither this node's").count(), 1, "{status}");
    // A fleet that signs nothing has said so.
    let quiet = site.trigger().env("TRIGGER_REQUIRE_SIGNATURE", "false").args(["status", &event]).assert();
    let quiet = String::from_utf8(quiet.get_output().stdout.clone()).unwrap();
    assert!(quiet.contains(r#""warnings":[]"#), "{quiet}");
}

/// A Puppet that counts its questions, and fails while there is a file `broken`.
fn fake_puppet(directory: &Path, tls: &TlsFiles) -> String {
    fake_puppet_at(&directory.join("puppet"), directory, tls)
}

/// The same in another place.
fn fake_puppet_at(program: &Path, directory: &Path, tls: &TlsFiles) -> String {
    let paths = [
        ("hostcert", &tls.certificate),
        ("hostprivkey", &tls.key),
        ("localcacert", &tls.ca),
        ("hostcrl", tls.crl.as_ref().unwrap()),
        ("config", &directory.join("puppet.conf")),
    ]
    .map(|(name, path)| format!("echo '{name} = {}'\n", path.display()));
    let script = format!(
        "#!/bin/sh\ncd {}\necho asked >>questions\n[ -e broken ] && exit 1\n{}\
         for name in agent_catalog_run_lockfile agent_disabled_lockfile lastrunreport logdest tags skip_tags; do\n\
         echo \"$name = $PWD/$name\"\ndone\necho 'certname = web01.example.com'\n",
        directory.display(),
        paths.concat()
    );
    fs::write(program, script).unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    program.display().to_string()
}

#[test]
fn puppets_certificates_sign_and_puppet_is_asked_again_only_when_its_configuration_changes() {
    let puppet = state();
    let tls = TestCa::new("puppet").unwrap().node(puppet.path(), "web01.example.com").unwrap();
    let site = Site::new(&format!("{} agent", fake_puppet(puppet.path(), &tls)));
    let questions =
        || fs::read_to_string(puppet.path().join("questions")).unwrap_or_default().lines().count();
    let check = |asked: usize| {
        let (fired, event) = site.fire();
        assert!(!fired.contains("not signed"), "{fired}");
        let status = site.status(&event);
        assert!(status.contains(r#""warnings":[]"#), "{status}");
        assert_eq!(questions(), asked);
    };
    check(1);
    check(1);
    fs::write(puppet.path().join("puppet.conf"), "[main]\n").unwrap();
    check(2);
    // A Puppet that does not answer leaves its last answer.
    fs::write(puppet.path().join("broken"), "").unwrap();
    check(2);
    fs::remove_file(puppet.path().join("puppet.conf")).unwrap();
    check(3);
}

/// The packages of Puppet and OpenVox, and those of Debian.
#[test]
fn the_certificates_that_puppet_names_sign_wherever_its_packages_put_them() {
    for (bin, ssl) in [("opt/puppetlabs/bin", "etc/puppetlabs/puppet/ssl"), ("usr/bin", "var/lib/puppet/ssl")]
    {
        let root = state();
        let bin = root.path().join(bin);
        fs::create_dir_all(&bin).unwrap();
        let ssl = root.path().join(ssl);
        let tls = TestCa::new("puppet").unwrap().node(&ssl, "web01.example.com").unwrap();
        assert_eq!(tls.certificate, ssl.join("certs/web01.example.com.pem"));
        let site = Site::new(&format!("{} agent", fake_puppet_at(&bin.join("puppet"), root.path(), &tls)));
        let (fired, event) = site.fire();
        assert!(!fired.contains("not signed"), "{fired}");
        let status = site.status(&event);
        assert!(status.contains(r#""warnings":[]"#), "{status}");

        // Nothing else signs.
        fs::remove_file(&tls.certificate).unwrap();
        let (fired, _) = site.fire();
        assert!(fired.contains("the event is not signed"), "{fired}");
    }
}
