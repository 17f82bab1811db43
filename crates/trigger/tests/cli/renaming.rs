//! A node that has another certname now, at a hub that knows its clients.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use snapbox::cmd::Command;
use trigger_pki::TlsFiles;
use trigger_pki::testing::TestCa;

use crate::daemon::{Daemon, free_address, get, is_healthy, until};
use crate::{state, trigger};

/// A configuration with these certificates.
fn config(directory: &Path, name: &str, tls: &TlsFiles) -> String {
    let path = directory.join(format!("{name}.toml"));
    let files = [
        ("certificate", &tls.certificate),
        ("key", &tls.key),
        ("ca", &tls.ca),
        ("crl", tls.crl.as_ref().unwrap()),
    ];
    let lines = files.map(|(setting, file)| format!("{setting} = '{}'\n", file.display()));
    fs::write(&path, format!("[tls]\n{}", lines.concat())).unwrap();
    path.display().to_string()
}

#[test]
fn a_rename_lists_what_waits_for_the_earlier_certname_as_that_certname_and_is_denied_nothing() {
    let site = state();
    let directory = site.path();
    let mut ca = TestCa::new("fleet").unwrap();
    let (address, health) = (free_address(), free_address());
    let of_hub = config(directory, "hub", &ca.node(directory, "hub.example.com").unwrap());
    let data = directory.join("hub");
    let mut arguments = vec!["hub", "--tls", "--config", &of_hub, "--listen", &address];
    arguments.extend(["--health-listen", &health, "--data-dir", data.to_str().unwrap()]);
    let _hub = Daemon::start(&arguments, directory, Stdio::null());
    until("the hub is healthy", || is_healthy(&health));

    let earlier = ca.node(directory, "old.example.com").unwrap();
    let of_old = config(directory, "old", &earlier);
    let of_new = config(directory, "new", &ca.node(directory, "new.example.com").unwrap());
    let node = directory.join("node");
    let run = |certname: &str, config: &str| -> Command {
        let port = address.rsplit_once(':').unwrap().1;
        trigger(&node)
            .env("TRIGGER_CERTNAME", certname)
            .env("TRIGGER_CONFIG", config)
            .env("TRIGGER_BACKEND", format!("hub+https://localhost:{port}"))
            .args(["--output", "json"])
    };
    let printed =
        |command: Command| String::from_utf8(command.assert().code(0).get_output().stdout.clone()).unwrap();
    let fired = printed(run("old.example.com", &of_old).args(["fire", "x", "--host", "old.example.com"]));
    assert!(fired.contains(r#""state":"committed""#), "{fired}");
    let event = fired.split('"').nth(3).unwrap();

    let belongs_to_old = || fs::write(node.join("certname"), "old.example.com\n").unwrap();
    belongs_to_old();
    let renamed = printed(run("new.example.com", &of_new).arg("rename"));
    assert!(renamed.contains(&format!(r#""left":["{event}"],"warnings":[]"#)), "{renamed}");

    belongs_to_old();
    fs::remove_file(&earlier.certificate).unwrap();
    let renamed = printed(run("new.example.com", &of_new).arg("rename"));
    let warning = "shows them to old.example.com and to operators only, and the certificate of old.example.com is not on \
                   this node any more";
    assert!(renamed.contains(r#""left":[]"#) && renamed.contains(warning), "{renamed}");
    let metrics = get(&health, "/metrics").unwrap();
    assert!(
        metrics.contains("trigger_hub_build") && !metrics.contains("trigger_hub_denied_requests_total{"),
        "{metrics}"
    );
}
