//! Nodes whose run command is the real Puppet, as isolated from the machine's own as its settings allow.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::node::{Node, path_with_trigger};
use crate::process::explain;

/// Returns the directory that holds the Puppet module under test.
pub fn module_path() -> PathBuf {
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../puppet"));
    directory.canonicalize().expect("the directory of the Puppet module")
}

/// The result of a `puppet apply`.
#[derive(Debug)]
pub struct Applied {
    /// The detailed exit code: 2 for changes, 4 for failures, 6 for both.
    pub code: i32,
    /// Its whole output.
    pub output: String,
}

impl Applied {
    /// Runs Puppet to its end.
    pub(crate) fn by(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("{}", explain(command, "puppet-agent", &error)));
        let said = [output.stdout, output.stderr].concat();
        Self { code: output.status.code().unwrap_or(-1), output: String::from_utf8_lossy(&said).into_owned() }
    }
}

impl Applied {
    /// Returns Puppet's warnings and errors, without Facter's warnings about a container.
    pub fn problems(&self) -> Vec<&str> {
        let complains = |line: &&str| line.contains("Warning") || line.contains("Error");
        self.output.lines().filter(complains).filter(|line| !line.contains("Facter:")).collect()
    }
}

impl Node {
    /// Makes `puppet apply` of a manifest this node's run command.
    pub fn runs_puppet(&mut self, manifest: &str) -> &mut Self {
        self.manifest(manifest);
        let words: Vec<String> = self.puppet_words().iter().map(|word| format!("\"{word}\"")).collect();
        self.set("run_cmd", &format!("'puppet apply {}'", words.join(" ")))
    }

    /// Sets the manifest that this node's Puppet applies from now on.
    pub fn manifest(&self, manifest: &str) {
        self.write("site.pp", manifest);
    }

    /// Applies a manifest on this node, outside any run of Trigger.
    pub fn puppet_apply(&self, manifest: &str, flags: &[&str]) -> Applied {
        let path = self.write("by-hand.pp", manifest);
        let mut words = self.puppet_words();
        words.pop();
        let mut command = Command::new("puppet");
        command.args(["apply", "--detailed-exitcodes", "--color=false"]).args(words).args(flags).arg(path);
        command
            .env("PATH", path_with_trigger())
            .env("TRIGGER_CONFIG", self.config())
            .env("LC_ALL", "C.UTF-8");
        Applied::by(&mut command)
    }

    /// Returns the settings that keep this node's Puppet in its directory, and its manifest.
    fn puppet_words(&self) -> Vec<String> {
        let mut words = vec!["--certname".to_owned(), self.certname().to_owned()];
        // `last_run_summary.yaml` lies in publicdir, which `--vardir` does not move.
        for setting in ["confdir", "vardir", "publicdir", "codedir"] {
            words.push(format!("--{setting}"));
            words.push(self.path(setting).to_string_lossy().into_owned());
        }
        words.push("--modulepath".to_owned());
        words.push(module_path().to_string_lossy().into_owned());
        words.push(self.path("site.pp").to_string_lossy().into_owned());
        words
    }
}
