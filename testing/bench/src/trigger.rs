//! Trigger on one backend: an agent that fires, one that is the target, and a node without an agent.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use trigger_pki::TlsFiles;

use crate::etcd::Etcd;
use crate::free_port::free_port;
use crate::pki::{Ca, Key, table};
use crate::process::{Background, run, wait_for};
use crate::scratch::Scratch;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The program that is measured, and the run command of all sides.
pub(crate) struct Program {
    trigger: PathBuf,
    pub(crate) stamp: PathBuf,
    /// An empty file, so that no configuration of this machine has an effect.
    config: PathBuf,
}

impl Program {
    pub(crate) fn find(scratch: &Scratch, trigger: Option<&Path>) -> Result<Self> {
        let own = std::env::current_exe().context("this program does not know where it is")?;
        let beside = |name: &str| own.with_file_name(name);
        let trigger = trigger.map_or_else(|| beside("trigger"), Path::to_owned);
        let program = trigger.canonicalize().with_context(|| format!("{} is missing", trigger.display()))?;
        // The link has the program's usual name, whatever the file is called, because Puppet finds the program by
        // that name in PATH.
        let trigger = scratch.directory("bin")?.join("trigger");
        symlink(program, &trigger).context("cannot make a link to the program")?;
        let config = scratch.write("trigger.toml", "")?;
        Ok(Self { trigger, stamp: beside("trigger-bench-stamp"), config })
    }

    /// Returns the path of the program itself.
    pub(crate) fn path(&self) -> &Path {
        &self.trigger
    }

    /// Returns the directory that holds `trigger`, for a PATH.
    pub(crate) fn directory(&self) -> &Path {
        self.trigger.parent().unwrap_or(Path::new("/"))
    }

    pub(crate) fn command(&self) -> Command {
        self.command_with(&self.config)
    }

    /// Returns the command with a configuration.
    pub(crate) fn command_with(&self, config: &Path) -> Command {
        let mut command = Command::new(&self.trigger);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRIGGER_"))
        {
            command.env_remove(name);
        }
        command.env("TRIGGER_CONFIG", config);
        command
    }
}

/// A file to which every run's start is appended.
pub(crate) struct Stamps {
    path: PathBuf,
}

impl Stamps {
    /// The duration of a run in milliseconds.
    pub(crate) const RUN_MS: &'static str = "10";

    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the stamps in nanoseconds, as [`crate::process::now`] counts them.
    pub(crate) fn read(&self) -> Vec<u128> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        // The last line may be incomplete.
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')?.parse().ok()).collect()
    }
}

/// A hub with data of its own.
pub(crate) struct Hub {
    pub(crate) process: Background,
    /// `HOST:PORT`.
    pub(crate) address: String,
    name: String,
    /// Whether its configuration, which has its name, gives it a certificate.
    is_tls: bool,
}

impl Hub {
    /// Starts a hub; with a certificate it speaks TLS.
    pub(crate) fn start(
        scratch: &Scratch,
        program: &Program,
        name: &str,
        tls: Option<&TlsFiles>,
    ) -> Result<Self> {
        if let Some(files) = tls {
            scratch.write(&format!("{name}.toml"), &format!("{}[hub]\ntls = true\n", table(files)))?;
        }
        let address = format!("127.0.0.1:{}", free_port());
        Self::start_at(scratch, program, address, name.to_owned(), tls.is_some())
    }

    /// Kills the hub. The closure that is returned starts it again with its data.
    pub(crate) fn kill(self) -> impl FnOnce(&Scratch, &Program) -> Result<Self> {
        let Self { process, address, name, is_tls } = self;
        drop(process);
        move |scratch, program| Self::start_at(scratch, program, address, name, is_tls)
    }

    pub(crate) fn url(&self) -> String {
        format!("hub+{}://{}", if self.is_tls { "https" } else { "http" }, self.address)
    }

    /// Starts a hub at this address, with the data under this name if there is any already.
    fn start_at(
        scratch: &Scratch,
        program: &Program,
        address: String,
        name: String,
        is_tls: bool,
    ) -> Result<Self> {
        let config = scratch.path(&format!("{name}.toml"));
        let mut command = if is_tls { program.command_with(&config) } else { program.command() };
        command.args(["hub", "--listen", &address, "--data-dir"]).arg(scratch.path(&name));
        // As its unit does.
        command.env("MALLOC_ARENA_MAX", "2");
        command.stdout(scratch.log(&name)?).stderr(scratch.log(&name)?);
        let process = Background::start(command)?;
        wait_for("the start of the hub", START_TIMEOUT, || std::net::TcpStream::connect(&address).is_ok())?;
        Ok(Self { process, address, name, is_tls })
    }
}

/// One backend with its nodes.
pub(crate) struct Site<'a> {
    /// Its name in the table.
    pub(crate) backend: String,
    pub(crate) url: String,
    program: &'a Program,
    /// Whether its nodes sign, and need certificates.
    pub(crate) key: Option<Key>,
    pub(crate) hub: Option<Background>,
    pub(crate) firing: Agent,
    pub(crate) target: Agent,
    /// A state directory without an agent.
    pub(crate) agentless: PathBuf,
    pub(crate) stamps: Stamps,
}

/// A node's agent.
pub(crate) struct Agent {
    pub(crate) process: Background,
    pub(crate) state: PathBuf,
    pub(crate) certname: String,
    pub(crate) url: String,
    config: PathBuf,
}

impl<'a> Site<'a> {
    pub(crate) fn on_etcd(scratch: &Scratch, etcd: &Etcd, program: &'a Program) -> Result<Self> {
        Self::new(scratch, "etcd", etcd.url(), None, program, None)
    }

    pub(crate) fn on_hub(scratch: &Scratch, program: &'a Program) -> Result<Self> {
        let hub = Hub::start(scratch, program, "hub", None)?;
        Self::new(scratch, "hub", hub.url(), Some(hub.process), program, None)
    }

    /// Starts a hub and nodes that all have certificates with such keys.
    pub(crate) fn on_tls_hub(scratch: &Scratch, program: &'a Program, ca: &mut Ca, key: Key) -> Result<Self> {
        let name = format!("hub-{}", key.name().to_lowercase());
        let files = ca.issue(&format!("{name}.example.com"), key)?;
        let hub = Hub::start(scratch, program, &name, Some(&files))?;
        Self::new(scratch, &name, hub.url(), Some(hub.process), program, Some((ca, key)))
    }

    /// Starts nodes on an etcd with TLS that all have certificates with such keys.
    pub(crate) fn on_tls_etcd(
        scratch: &Scratch,
        etcd: &Etcd,
        program: &'a Program,
        ca: &mut Ca,
        key: Key,
    ) -> Result<Self> {
        let name = format!("etcd-{}", key.name().to_lowercase());
        Self::new(scratch, &name, etcd.url(), None, program, Some((ca, key)))
    }

    fn new(
        scratch: &Scratch,
        name: &str,
        url: String,
        hub: Option<Background>,
        program: &'a Program,
        mut tls: Option<(&mut Ca, Key)>,
    ) -> Result<Self> {
        let stamps = Stamps::new(scratch.path(&format!("{name}.stamps")));
        let run = format!("{} {} {}", program.stamp.display(), stamps.path().display(), Stamps::RUN_MS);
        let mut agent = |which: &str| {
            let name = format!("{name}-{which}");
            let files = match &mut tls {
                Some((ca, key)) => Some(ca.issue(&certname(&name), *key)?),
                None => None,
            };
            Agent::start(scratch, program, &url, &name, &run, files.as_ref())
        };
        let (firing, target) = (agent("firing")?, agent("target")?);
        let key = tls.map(|(_, key)| key);
        let kind = if hub.is_some() { "hub" } else { "etcd" };
        let backend = key.map_or_else(|| kind.to_owned(), |key| format!("{kind}, TLS, {}", key.name()));
        let agentless = scratch.path(&format!("{name}-agentless"));
        Ok(Self { backend, url, program, key, hub, firing, target, agentless, stamps })
    }

    /// Returns a `trigger fire` command on the node with this state directory.
    pub(crate) fn fire(&self, state: &Path) -> Command {
        let mut command = self.program.command_with(&self.firing.config);
        command.args(["fire", "bench", "--output", "json", "--certname", &self.firing.certname]);
        command.args(["--backend", &self.url, "--state-dir"]).arg(state);
        command
    }

    pub(crate) fn is_hub(&self) -> bool {
        self.hub.is_some()
    }

    /// Returns the states of this event's deliveries.
    pub(crate) fn status(&self, event: &str) -> Result<Value> {
        let mut command = self.program.command_with(&self.firing.config);
        json(command.args(["status", event, "--output", "json", "--backend", &self.url]))
    }
}

impl Agent {
    pub(crate) fn start(
        scratch: &Scratch,
        program: &Program,
        url: &str,
        name: &str,
        run_cmd: &str,
        tls: Option<&TlsFiles>,
    ) -> Result<Self> {
        let (state, certname) = (scratch.path(name), certname(name));
        let config = scratch.write(&format!("{name}.toml"), &tls.map_or_else(String::new, table))?;
        let mut command = program.command_with(&config);
        command.args([
            "agent",
            "--backend",
            url,
            "--certname",
            &certname,
            "--run-cmd",
            run_cmd,
            // Samples are runs, and there are many of them within a minute.
            "--runs-per-minute",
            "600",
            "--require-signature",
            if tls.is_some() { "true" } else { "false" },
            "--state-dir",
        ]);
        command.arg(&state).stdout(scratch.log(name)?).stderr(scratch.log(name)?);
        let agent =
            Self { process: Background::start(command)?, state, certname, url: url.to_owned(), config };
        let what = format!("the registration of {}", agent.certname);
        wait_for(&what, START_TIMEOUT, || {
            agent.queue(program).is_ok_and(|queue| {
                queue["agent_running"] == true
                    && queue["blocked"].is_null()
                    && queue["disconnected"].is_null()
            })
        })?;
        Ok(agent)
    }

    fn queue(&self, program: &Program) -> Result<Value> {
        let mut command = program.command_with(&self.config);
        json(command.args(["queue", "--output", "json", "--state-dir"]).arg(&self.state))
    }

    /// Returns a command on its node.
    pub(crate) fn command(&self, program: &Program) -> Command {
        program.command_with(&self.config)
    }
}

/// Returns the certname of the node with this name.
fn certname(name: &str) -> String {
    format!("{name}.example.com")
}

fn json(command: &mut Command) -> Result<Value> {
    serde_json::from_slice(&run(command)?.stdout).with_context(|| format!("{command:?} printed no JSON"))
}

/// Returns the event's id if it was committed; any other answer is an error.
pub(crate) fn committed(stdout: &[u8]) -> Result<String> {
    let reply: Value = serde_json::from_slice(stdout).context("`trigger fire` printed no JSON")?;
    match (reply["state"].as_str(), reply["event_id"].as_str()) {
        (Some("committed"), Some(event)) => Ok(event.to_owned()),
        _ => bail!("an event was not committed: {reply}"),
    }
}
