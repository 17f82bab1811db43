//! A real Puppet server with a CA of its own, on a free loopback port and in a scratch directory.
//!
//! It takes half a minute and half a gigabyte to start, so the tests of one test run share one server: the tests of a
//! process, or all tests of a nextest run, which starts a process for each. Its end does not depend on how the tests
//! end: a guard waits until the process that the test run belongs to is gone, then ends the server and removes its
//! directory.
//!
//! Each node has an environment of its own, so that one test's broken manifest affects no other.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::free_port;
use crate::once::{nextest_run, once_a_run};
use crate::pki::Ssl;
use crate::polling::eventually_within;
use crate::process::{Process, explain};
use crate::puppet::module_path;

/// The time that a server may take to start on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(240);
/// The certname of the server; agents reach it as `localhost`.
const CERTNAME: &str = "puppet.example.test";
/// The directory of the initial configuration in Debian's package.
const PACKAGED: &str = "/etc/puppet/puppetserver";
/// The path of the server's program in Debian's package.
const JAR: &str = "/usr/share/puppetserver/puppetserver.jar";
const PACKAGE: &str = "puppetserver";

/// A Puppet server that the tests of a test run share.
#[derive(Debug)]
pub struct PuppetServer {
    directory: PathBuf,
    port: u16,
}

static SERVER: OnceLock<PuppetServer> = OnceLock::new();

impl PuppetServer {
    /// Returns the server, which the first test that needs it starts.
    pub fn shared() -> &'static Self {
        SERVER.get_or_init(|| {
            let note = once_a_run("puppetserver", || {
                let Self { directory, port } = Self::start();
                format!("{port} {}", directory.display())
            });
            let (port, directory) = note.split_once(' ').expect("a port and a directory");
            Self { directory: PathBuf::from(directory), port: port.parse().expect("a port") }
        })
    }

    /// Returns the port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the files of the server's own certificate, which bears `pp_cli_auth`.
    pub fn ssl(&self) -> Ssl {
        Ssl::at(&self.directory.join("ssl"), CERTNAME)
    }

    /// Sets the manifest of an environment from now on, replacing it as a whole.
    pub fn manifest(&self, environment: &str, text: &str) {
        self.file(environment, "manifests/site.pp", text);
    }

    /// Writes a file of an environment.
    pub fn file(&self, environment: &str, path: &str, text: &str) {
        let path = self.environment(environment).join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory of an environment");
        // The server may be reading the file: it sees the old text or the new one, never a part of it.
        let new = path.with_extension("new");
        fs::write(&new, text).expect("a file of an environment");
        fs::rename(new, path).expect("a file in its place");
    }

    fn environment(&self, name: &str) -> PathBuf {
        self.directory.join("code/environments").join(name)
    }

    fn start() -> Self {
        assert!(Path::new(JAR).exists(), "this test needs {JAR}: apt-get install {PACKAGE}");
        let scratch = tempfile::Builder::new().prefix("trigger-e2e-puppetserver-").tempdir();
        let directory = scratch.expect("a scratch directory").keep();
        let port = free_port();
        write_settings(&directory, port);
        let mut process = Process::start(&mut java(&directory), &directory.join("stdout"), PACKAGE);
        guard(process.pid(), &directory);
        wait_until_it_serves(&mut process, &directory);
        // The guard ends the server from here on; a drop would end it with this function.
        std::mem::forget(process);
        Self { directory, port }
    }
}

fn wait_until_it_serves(process: &mut Process, directory: &Path) {
    let log = directory.join("log/puppetserver.log");
    eventually_within(START_TIMEOUT, "a Puppet server that serves", || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        if let Some(code) = process.exit() {
            panic!("the Puppet server ended with {code}:\n{}\n{said}", process.log());
        }
        if said.contains("Puppet Server has successfully started") { Ok(()) } else { Err(said) }
    });
}

/// Ends the server when the test run is over, however it ends: when this process is gone or, under nextest, the
/// process that started it.
fn guard(server: u32, directory: &Path) {
    let script = r#"while kill -0 "$1" 2>/dev/null; do sleep 1; done; kill -KILL "$2"; sleep 1; rm -rf "$3""#;
    let run = match nextest_run() {
        Some(_) => std::os::unix::process::parent_id(),
        None => std::process::id(),
    };
    let mut command = Command::new("sh");
    command.args(["-c", script, "guard", &run.to_string(), &server.to_string()]).arg(directory);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A Ctrl-C at the tests must not reach the guard, which has to clean up after them.
    command.process_group(0);
    drop(command.spawn().unwrap_or_else(|error| panic!("{}", explain(&command, "dash", &error))));
}

fn java(directory: &Path) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xms128m", "-Xmx512m", "-XX:TieredStopAtLevel=1"]);
    command.arg("-Djruby.lib=/usr/share/jruby/lib");
    command.arg("-Djruby.logger.class=com.puppetlabs.jruby_utils.jruby.Slf4jLogger");
    command.args(["-jar", JAR]);
    command.arg("--config").arg(directory.join("conf.d"));
    command.arg("--bootstrap-config").arg(directory.join("services.d"));
    command.arg("--restart-file").arg(directory.join("restart"));
    // nextest may end the process group of the test that started the server, which the other tests still need.
    command.env("HOME", directory).current_dir(directory).process_group(0);
    command
}

fn write_settings(directory: &Path, port: u16) {
    let write =
        |name: &str, text: String| fs::write(directory.join(name), text).expect("a setting of the server");
    for part in ["conf.d", "services.d", "code/environments/production/manifests", "var", "run", "log"] {
        fs::create_dir_all(directory.join(part)).expect("a directory of the server");
    }
    symlink(module_path(), directory.join("code/modules")).expect("the module under test in its modulepath");
    let packaged = Path::new(PACKAGED);
    for name in
        ["conf.d/auth.conf", "conf.d/web-routes.conf", "services.d/bootstrap.cfg", "services.d/ca.cfg"]
    {
        fs::copy(packaged.join(name), directory.join(name))
            .expect("what the package puppetserver starts with");
    }
    let here = directory.display();
    write(
        "puppet.conf",
        format!(
            "[main]\nconfdir = {here}\nvardir = {here}/var\nssldir = {here}/ssl\ncodedir = {here}/code\n\
             rundir = {here}/run\nlogdir = {here}/log\npublicdir = {here}/public\n\
             certname = {CERTNAME}\ndns_alt_names = localhost,{CERTNAME}\nkeylength = 2048\n\
             user = root\ngroup = root\n\
             [server]\ncadir = {here}/ca\nautosign = {here}/autosign\n\
             node_terminus = exec\nexternal_nodes = {here}/classifier\nreports = none\nenvironment_timeout = 0\n"
        ),
    );
    // It signs every certificate but those of nodes whose name says that theirs is not.
    write("autosign", "#!/bin/sh\ncase \"$1\" in unsigned*) exit 1;; esac\n".to_owned());
    // It insists on the environment of nodes whose name says so, and leaves it to all others.
    write(
        "classifier",
        "#!/bin/sh\necho 'classes: []'\ncase \"$1\" in classified.*) echo 'environment: classified_example_test';; esac\n"
            .to_owned(),
    );
    for program in ["autosign", "classifier"] {
        fs::set_permissions(directory.join(program), fs::Permissions::from_mode(0o755))
            .expect("a program of the server");
    }
    write(
        "conf.d/puppetserver.conf",
        format!(
            "jruby-puppet: {{\n ruby-load-path: [/usr/lib/puppetserver/ruby/vendor_ruby]\n \
             gem-home: {here}/var/jruby-gems\n \
             gem-path: [${{jruby-puppet.gem-home}}, \"/usr/lib/puppetserver/vendored-jruby-gems\"]\n \
             server-conf-dir: {here}\n server-code-dir: {here}/code\n server-var-dir: {here}/var\n \
             server-run-dir: {here}/run\n server-log-dir: {here}/log\n max-active-instances: 1\n}}\n\
             http-client: {{}}\nprofiler: {{}}\n"
        ),
    );
    write(
        "conf.d/webserver.conf",
        format!("webserver: {{ client-auth: want, ssl-host: 127.0.0.1, ssl-port: {port} }}\n"),
    );
    // Without a name for its metrics the server fails at its start.
    write("conf.d/metrics.conf", "metrics: { server-id: localhost }\n".to_owned());
    write("conf.d/ca.conf", "certificate-authority: { allow-subject-alt-names: true }\n".to_owned());
    write("conf.d/global.conf", format!("global: {{ logging-config: {here}/logback.xml }}\n"));
    write(
        "logback.xml",
        format!(
            "<configuration><appender name=\"F\" class=\"ch.qos.logback.core.FileAppender\">\
             <file>{here}/log/puppetserver.log</file><encoder><pattern>%d %-5p [%c{{2}}] %m%n</pattern></encoder>\
             </appender><root level=\"info\"><appender-ref ref=\"F\"/></root></configuration>\n"
        ),
    );
    write("restart", "0".to_owned());
}
