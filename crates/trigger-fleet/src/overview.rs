//! The fleet at a glance: each node's registration and its latest run.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use trigger_core::identity::Certname;
use trigger_core::keyspace::{Key, Range};
use trigger_core::node::NodeRecord;
use trigger_core::run::history::{PastRun, RunHistory};
use trigger_core::signature::Authors;
use trigger_store::inquiry::WantedEvents;
use trigger_store::store::{KeyRange, StoreError};

use crate::fleet::{Fleet, Record};
use crate::verifying::Unverified;

/// How many run histories are read at once: up to 256 KiB each.
const HISTORIES_PER_READ: usize = 32;

/// The nodes that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overview {
    /// The nodes that have registered.
    pub nodes: BTreeMap<Certname, NodeOverview>,
    /// The nodes whose registration this version cannot read, each with the reason.
    pub unreadable: BTreeMap<Certname, String>,
    /// Why the runs of other nodes are missing, where the backend does not show them to this one.
    pub runs_denied: Option<String>,
    /// What was read and does not count, because its node has not signed it.
    pub unverified: Unverified,
}

/// A node that has registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOverview {
    /// Its registration.
    pub record: NodeRecord,
    /// Its latest run that has ended. Absent as well where the backend does not show it.
    pub last_run: Option<PastRun>,
}

/// Who reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// Its certname, where the backend knows its clients.
    pub certname: Option<Certname>,
    /// Whether it may read what concerns other nodes alone, as far as the backend says.
    pub sees_all: bool,
}

impl Asker {
    /// Whether the backend shows it what concerns this node alone.
    pub fn sees(&self, node: &Certname) -> bool {
        self.sees_all || self.certname.as_ref() == Some(node)
    }

    /// Why it does not see all.
    pub fn sentence(&self) -> String {
        match &self.certname {
            Some(certname) => format!("{certname} is no operator of the hub"),
            None => "the backend does not show them".to_owned(),
        }
    }
}

impl Fleet {
    /// Reads the registrations that `is_wanted` selects, and the latest run of each of these nodes.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn overview(
        &self,
        is_wanted: impl Fn(&Certname, Option<&NodeRecord>) -> bool,
    ) -> Result<Overview, StoreError> {
        let mut overview = Overview::default();
        for record in self.read(&[self.all(&Range::Nodes)]).await? {
            let Key::Node { certname } = record.key else { continue };
            match self.decode::<NodeRecord>(&record.text) {
                Ok(node) if is_wanted(&certname, Some(&node)) => {
                    overview.nodes.insert(certname, NodeOverview { record: node, last_run: None });
                }
                Err(error) if is_wanted(&certname, None) => {
                    overview.unreadable.insert(certname, error.to_string());
                }
                Ok(_) | Err(_) => {}
            }
        }
        let certnames: Vec<Certname> = overview.nodes.keys().cloned().collect();
        let asker = self.asker().await?;
        let own: Vec<Certname> =
            certnames.iter().filter(|name| Some(*name) == asker.certname.as_ref()).cloned().collect();
        if !asker.sees_all && own.len() < certnames.len() {
            overview.runs_denied = Some(asker.sentence());
            self.read_last_runs(&own, &mut overview).await?;
            return Ok(overview);
        }
        match self.read_last_runs(&certnames, &mut overview).await {
            Err(StoreError::Refused { detail, .. } | StoreError::Denied { detail, .. }) => {
                overview.runs_denied = Some(detail.to_string());
                self.read_last_runs(&own, &mut overview).await?;
            }
            read => read?,
        }
        Ok(overview)
    }

    async fn read_last_runs(
        &self,
        certnames: &[Certname],
        overview: &mut Overview,
    ) -> Result<(), StoreError> {
        let Overview { nodes, unverified, .. } = overview;
        let keep_latest = |certname: &Certname, history: RunHistory| {
            if let Some(node) = nodes.get_mut(certname) {
                node.last_run = history.runs.into_iter().next();
            }
            ControlFlow::Continue(())
        };
        self.read_histories(certnames, unverified, keep_latest).await
    }

    /// Reads the run histories of nodes, some at a time, until `look` has seen enough. One that does not count is noted.
    pub(crate) async fn read_histories(
        &self,
        certnames: &[Certname],
        unverified: &mut Unverified,
        mut look: impl FnMut(&Certname, RunHistory) -> ControlFlow<()> + Send,
    ) -> Result<(), StoreError> {
        for chunk in certnames.chunks(HISTORIES_PER_READ) {
            let key = |certname: &Certname| self.one(&Key::RunHistory { certname: certname.clone() });
            let records = self.read(&chunk.iter().map(key).collect::<Vec<KeyRange>>()).await?;
            let certificates =
                self.read_certificates(records.iter().map(|record| record.text.as_str())).await?;
            for record in records {
                let Record { key: Key::RunHistory { certname }, .. } = &record else { continue };
                let authors = |_: &RunHistory| Authors::Node(certname.clone());
                let history = self.open_or_note(&record, &certificates, authors, unverified);
                if let Some((history, _)) = history
                    && look(certname, history).is_break()
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What the backend says of the one that asks.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn asker(&self) -> Result<Asker, StoreError> {
        let nothing = WantedEvents::These(Vec::new());
        let visible = self.store().visible_events(self.prefix(), &nothing).await?;
        Ok(visible.map_or(Asker { certname: None, sees_all: true }, |visible| Asker {
            certname: visible.asker,
            sees_all: visible.sees_all,
        }))
    }
}
