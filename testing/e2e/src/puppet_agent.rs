//! Nodes whose run command is the real `puppet agent`, with a real Puppet server.

use std::path::PathBuf;
use std::process::Command;

use crate::node::{Node, path_with_trigger};
use crate::pki::Ssl;
use crate::process::Process;
use crate::puppet::Applied;
use crate::puppet_server::PuppetServer;

impl Node {
    /// Makes `puppet agent` this node's run command: with a `puppet.conf` of its own, an environment of its own on
    /// the server, and additional `flags`.
    pub fn runs_puppet_agent(&mut self, manifest: &str, flags: &str) -> &mut Self {
        let server = PuppetServer::shared();
        server.manifest(&self.environment(), manifest);
        self.puppet_conf(server.port(), "");
        let command = format!("puppet agent --confdir {} {flags}", self.path("puppet").display());
        self.set("run_cmd", &format!("'{}'", command.trim_end()))
    }

    /// Sets the manifest that the server compiles for this node from now on.
    pub fn served(&self, manifest: &str) {
        PuppetServer::shared().manifest(&self.environment(), manifest);
    }

    /// Writes a file into this node's environment on the server.
    pub fn served_file(&self, path: &str, text: &str) {
        PuppetServer::shared().file(&self.environment(), path, text);
    }

    /// Returns the name of the server's environment that belongs to this node alone.
    pub fn environment(&self) -> String {
        self.certname().replace(|c: char| !c.is_ascii_alphanumeric(), "_")
    }

    /// Writes its `puppet.conf`, with the server's port and more lines for `[agent]`.
    pub fn puppet_conf(&self, port: u16, more: &str) {
        let here = self.path("puppet");
        std::fs::create_dir_all(&here).expect("Puppet's configuration directory");
        let here = here.display();
        // Debian's server takes half a minute for a certificate when the connection is kept alive.
        let text = format!(
            "[main]\ncertname = {}\nenvironment = {}\nserver = localhost\nserverport = {port}\n\
             vardir = {here}/var\nssldir = {here}/ssl\ncodedir = {here}/code\nrundir = {here}/run\n\
             logdir = {here}/log\npublicdir = {here}/public\nkeylength = 2048\nhttp_keepalive_timeout = 0\n\
             [agent]\n{more}\n",
            self.certname(),
            self.environment(),
        );
        self.write("puppet/puppet.conf", &text);
    }

    /// Has Puppet fetch a certificate, the CA's certificates and the revocation lists from the server that its
    /// `puppet.conf` names, and returns the files.
    pub fn bootstrap_certificate(&self) -> Ssl {
        let mut command = Command::new("puppet");
        command.args(["ssl", "bootstrap", "--color=false", "--confdir"]).arg(self.path("puppet"));
        let bootstrapped = Applied::by(&mut command);
        assert_eq!(bootstrapped.code, 0, "{}", bootstrapped.output);
        Ssl::at(&self.path("puppet/ssl"), self.certname())
    }

    /// Returns the path of a file of Puppet's state on this node.
    pub fn puppet_state(&self, name: &str) -> PathBuf {
        self.path("puppet/var/state").join(name)
    }

    /// Runs `puppet agent FLAGS` to its end, as an operator would on this node.
    pub fn puppet_agent(&self, flags: &[&str]) -> Applied {
        Applied::by(&mut self.puppet_agent_command(flags))
    }

    /// Starts `puppet agent FLAGS` and leaves it running; its output goes to the file `by-hand.log`.
    pub fn start_puppet_agent(&self, flags: &[&str]) -> Process {
        Process::start(&mut self.puppet_agent_command(flags), &self.path("by-hand.log"), "puppet-agent")
    }

    fn puppet_agent_command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new("puppet");
        command.arg("agent").arg("--confdir").arg(self.path("puppet")).arg("--color=false").args(flags);
        command
            .env("PATH", path_with_trigger())
            .env("TRIGGER_CONFIG", self.config())
            .env("LC_ALL", "C.UTF-8");
        command
    }
}
