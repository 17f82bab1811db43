//! Three real etcd members that elect a leader, for faults that a single member cannot have.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::backend::{BackendKind, etcd_client, etcd_server};
use crate::free_port;
use crate::pki::{Authority, Ssl};
use crate::polling::eventually;
use crate::process::{Process, explain};

/// The number of members: the cluster survives the loss of one, but not of two.
const MEMBERS: usize = 3;
/// The time that a member may take to answer a query; a paused one never does.
const ASK_FOR: Duration = Duration::from_secs(2);

/// An etcd cluster, whose members end when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    token: String,
    /// The certificate of all members, which the harness itself shows too; absent without TLS.
    ssl: Option<Ssl>,
}

#[derive(Debug)]
struct Member {
    name: String,
    port: u16,
    peer_port: u16,
    directory: PathBuf,
    /// Absent while the member is killed.
    process: Option<Process>,
}

impl Cluster {
    /// Starts a cluster whose data lies in `directory`, and waits until it serves.
    pub fn start(kind: BackendKind, directory: &Path) -> Self {
        let member = |index: usize| {
            let name = format!("m{}", index + 1);
            let directory = directory.join(&name);
            std::fs::create_dir_all(&directory).expect("a directory for an etcd member");
            Member { name, port: free_port(), peer_port: free_port(), directory, process: None }
        };
        // The token keeps members of another cluster, on a port that was ours a moment ago, out of this one.
        let token = directory.to_string_lossy().into_owned();
        let ssl = kind.is_tls().then(|| Authority::puppet().server(&directory.join("ssl")));
        let mut cluster = Self { members: (0..MEMBERS).map(member).collect(), token, ssl };
        (0..MEMBERS).for_each(|index| cluster.restart(index));
        cluster.wait_until_it_serves();
        cluster
    }

    /// Returns the members' client ports.
    pub fn ports(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.port).collect()
    }

    /// Returns the members' numbers.
    pub fn members(&self) -> std::ops::Range<usize> {
        0..self.members.len()
    }

    /// Sends SIGKILL to one member; its data and its ports stay.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.members[index].process.take() {
            process.kill();
        }
    }

    /// Starts a killed member again with its data, without waiting for anything; does nothing to a live one.
    pub fn restart(&mut self, index: usize) {
        if self.members[index].process.is_none() {
            let process = self.launch(&self.members[index]);
            self.members[index].process = Some(process);
        }
    }

    /// Makes a member silent: its connections stay open, but it does not answer.
    pub fn pause(&self, index: usize) {
        self.members[index].process.iter().for_each(Process::pause);
    }

    /// Lets a member go on after [`Self::pause`].
    pub fn go_on(&self, index: usize) {
        self.members[index].process.iter().for_each(Process::go_on);
    }

    /// Returns the leader: among the members that answer and report themselves as leader, the one of the latest term.
    pub fn leader(&self) -> Option<usize> {
        let leads = |index: usize| {
            let said = self.etcdctl(index, &["endpoint", "status", "-w", "json"]).ok()?;
            term_of_leader(&said).map(|term| (term, index))
        };
        self.members().filter_map(leads).max().map(|(_, index)| index)
    }

    /// Returns the members that ended without a fault, each with its latest log lines; they count as killed from here
    /// on.
    pub fn deaths(&mut self) -> Vec<String> {
        let mut deaths = Vec::new();
        for member in &mut self.members {
            if let Some(code) = member.process.as_mut().and_then(Process::exit) {
                let log = member.process.take().map(|process| process.latest_log()).unwrap_or_default();
                deaths.push(format!("{} ended with {code}; its log:\n{log}", member.name));
            }
        }
        deaths
    }

    /// Returns the keys below a prefix.
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>, String> {
        let said = self.etcdctl(0, &["get", "--prefix", "--keys-only", "--", prefix])?;
        Ok(said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    /// Makes the cluster forget all changes before its latest one.
    pub fn compact(&self) -> Result<(), String> {
        let said = self.etcdctl(0, &["get", "/", "-w", "json"])?;
        let answer: Value = serde_json::from_str(&said).map_err(|error| format!("{said}: {error}"))?;
        self.etcdctl(0, &["compact", "--", &answer["header"]["revision"].to_string()]).map(drop)
    }

    /// Waits until every member serves.
    pub fn wait_until_it_serves(&mut self) {
        for index in self.members() {
            eventually("an etcd member that serves", || {
                let member = &mut self.members[index];
                if let Some(process) = &mut member.process
                    && let Some(code) = process.exit()
                {
                    panic!("{} ended with {code}; its log:\n{}", member.name, process.log());
                }
                self.etcdctl(index, &["get", "/"]).map(drop)
            });
        }
    }

    fn etcdctl(&self, index: usize, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--command-timeout").arg(format!("{}s", ASK_FOR.as_secs()));
        etcd_client(&mut command, self.members[index].port, self.ssl.as_ref());
        command.args(arguments);
        let output = command.output();
        let output = output.unwrap_or_else(|error| panic!("{}", explain(&command, "etcd-client", &error)));
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn launch(&self, member: &Member) -> Process {
        let all: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}=http://127.0.0.1:{}", member.name, member.peer_port))
            .collect();
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(member.directory.join("data")).args(["--name", &member.name]);
        etcd_server(&mut command, member.port, member.peer_port, self.ssl.as_ref());
        command.args(["--initial-cluster", &all.join(","), "--initial-cluster-token", &self.token]);
        Process::start(&mut command, &member.directory.join("log"), "etcd-server")
    }
}

/// Returns the term in which the member with this answer leads; `None` if it does not lead.
fn term_of_leader(said: &str) -> Option<u64> {
    let answer: Value = serde_json::from_str(said).ok()?;
    let status = &answer[0]["Status"];
    let leads = !status["leader"].is_null() && status["header"]["member_id"] == status["leader"];
    leads.then(|| status["raftTerm"].as_u64()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_leads_says_so() {
        let said = |leader: &str| {
            format!(
                r#"[{{"Endpoint":"127.0.0.1:1","Status":{{"header":{{"member_id":7,"raft_term":3}},"leader":{leader},"raftTerm":3}}}}]"#
            )
        };
        assert_eq!(term_of_leader(&said("7")), Some(3));
        assert_eq!(term_of_leader(&said("8")), None);
        assert_eq!(term_of_leader(&said("null")), None);
        assert_eq!(term_of_leader("no member answers"), None);
    }
}
