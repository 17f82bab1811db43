//! What the tests of the agent's tasks share.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use trigger_core::queue::PuppetBlocker;
use trigger_core::run::command::RunCommand;

use super::{AgentSettings, CertnameSource, DisableCheck};
use crate::state::StateDir;

/// The settings of an agent for lb01 in this directory, whose certname comes from Puppet and whose backend does not
/// answer.
pub(super) fn settings(dir: &Path) -> AgentSettings {
    let command = RunCommand::default();
    AgentSettings {
        certname: "lb01".parse().unwrap(),
        certname_source: CertnameSource::Puppet,
        state: StateDir::open(dir).unwrap(),
        backend: "hub+http://127.0.0.1:1".parse().unwrap(),
        named_backends: Vec::new(),
        credentials: Default::default(),
        codec: Default::default(),
        prefix: Default::default(),
        groups: Vec::new(),
        command,
        command_words: vec!["puppet".to_owned(), "agent".to_owned()],
        run_timeout: std::time::Duration::from_secs(60),
        runs_per_minute: Default::default(),
        policy: Default::default(),
        settle: Duration::ZERO,
        socket_groups: Vec::new(),
        metrics_file: None,
        run_environment: BTreeMap::new(),
        may_inherit_claim: true,
    }
}

/// What Puppet says, as a test decides. It never confirms the certname.
#[derive(Debug, Default)]
pub(super) struct Check(pub(super) Option<PuppetBlocker>);

impl DisableCheck for Check {
    async fn has_moved(&mut self) {
        std::future::pending().await
    }

    fn reason(&mut self, _: bool) -> Option<PuppetBlocker> {
        self.0.clone()
    }

    fn confirms_certname(&self) -> bool {
        false
    }

    fn take_over_cache(&mut self) {}
}
