//! The output of a run on demand: a reader's request, and the node's answer, sealed to the reader (C13).
//!
//! Each reader has one place for its request to a node, and each node one for its answer to a reader, so that there are
//! never more than a fleet has pairs that ask. Who has asked removes both; a sweep removes what was left behind.

use std::ops::ControlFlow;

use trigger_core::identity::{Certname, Revision, RunId};
use trigger_core::keyspace::{Key, Range};
use trigger_core::run::history::RunHistory;
use trigger_core::run_log::{LogAnswer, LogRequest, SealKey};
use trigger_core::signature::Authors;
use trigger_core::signer::Signer;
use trigger_store::store::{Change, Entry, StoreError, Watch, WatchEvent};

use crate::codec::Opened;
use crate::fleet::{Fleet, Record};
use crate::verifying::Unverified;

/// A request that has come to a node and is what its reader has signed.
#[derive(Debug)]
pub struct AskedForLog {
    /// Who asks.
    pub reader: Certname,
    /// What is verified of the reader.
    pub signer: Signer,
    /// The request.
    pub request: LogRequest,
}

/// What is known of the node of a run.
#[derive(Debug, Default)]
pub struct NodeOfRun {
    /// The node that says that the run is its own.
    pub certname: Option<Certname>,
    /// Why run histories were not read, where the backend does not show them to this node: its own words.
    pub denied: Option<String>,
    /// What was read and does not count.
    pub unverified: Unverified,
}

impl Fleet {
    /// Asks a node for the output of a run, in the place of an earlier request of this node.
    ///
    /// # Errors
    /// When the backend does not answer or refuses, or this node cannot sign.
    pub async fn ask_for_log(&self, certname: &Certname, request: &LogRequest) -> Result<(), StoreError> {
        let key = Key::LogRequest { certname: certname.clone(), reader: self.own().clone() };
        self.put_signed(&key, request).await
    }

    /// Watches for the answers of a node to this one.
    ///
    /// # Errors
    /// When the backend cannot be watched now.
    pub async fn watch_log_answers(&self, certname: &Certname) -> Result<Watch, StoreError> {
        self.store().watch(vec![self.one(&self.answer_to_this(certname))]).await
    }

    /// The answer to a request among what a watch has reported, if it is there and counts. What does not is noted; an
    /// answer to another request, or an earlier one that was put back, is ignored.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn log_answer(
        &self,
        certname: &Certname,
        request: &SealKey,
        event: WatchEvent,
        unverified: &mut Unverified,
    ) -> Result<Option<LogAnswer>, StoreError> {
        let entries: Vec<Entry> = match event {
            WatchEvent::Snapshot(entries) => entries,
            WatchEvent::Changes(changes) => changes.into_iter().filter_map(put).collect(),
        };
        let key = self.answer_to_this(certname);
        for record in self.records(entries).into_iter().filter(|record| record.key == key) {
            let certificates = self.read_certificates([record.text.as_str()]).await?;
            // Even where signatures are not required, one that anyone could have written is no output of that node.
            let authors = |_: &LogAnswer| Authors::Node(certname.clone());
            match self.open(&record.key, &record.text, &certificates, authors) {
                Ok(Opened::Accepted { signer: Signer::Unsigned, .. }) => {
                    unverified.add(&self.key(&record.key), "it is not signed");
                }
                Ok(Opened::Accepted { value, .. }) if value.request == *request => return Ok(Some(value)),
                Ok(Opened::Accepted { .. }) => {}
                Ok(Opened::Outdated { why, .. } | Opened::Refused(why) | Opened::Waits(why)) => {
                    unverified.add(&self.key(&record.key), &why);
                }
                Err(error) => unverified.add(&self.key(&record.key), &error.to_string()),
            }
        }
        Ok(None)
    }

    /// Removes this node's request to another one, and the answer.
    ///
    /// # Errors
    /// When the backend does not answer; a sweep removes them then.
    pub async fn withdraw_log_request(&self, certname: &Certname) -> Result<(), StoreError> {
        let request = Key::LogRequest { certname: certname.clone(), reader: self.own().clone() };
        self.delete(vec![request, self.answer_to_this(certname)]).await
    }

    /// The requests among entries, of those to this node, whose signature lets them count; the others with the reason.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn open_log_requests(
        &self,
        entries: Vec<Entry>,
    ) -> Result<(Vec<AskedForLog>, Vec<(Certname, String)>), StoreError> {
        let records = self.records(entries);
        let certificates = self.read_certificates(records.iter().map(|record| record.text.as_str())).await?;
        let (mut asked, mut others) = (Vec::new(), Vec::new());
        for Record { key, text, .. } in &records {
            let Key::LogRequest { certname, reader } = key else { continue };
            if certname != self.own() {
                continue;
            }
            let authors = |_: &LogRequest| Authors::Node(reader.clone());
            match self.open(key, text, &certificates, authors) {
                Ok(Opened::Accepted { value, signer, .. }) => {
                    asked.push(AskedForLog { reader: reader.clone(), signer, request: value });
                }
                Ok(Opened::Outdated { why, .. } | Opened::Refused(why) | Opened::Waits(why)) => {
                    others.push((reader.clone(), why));
                }
                Err(error) => others.push((reader.clone(), error.to_string())),
            }
        }
        Ok((asked, others))
    }

    /// Stores the answer of this node to a reader, and removes the request.
    ///
    /// # Errors
    /// When the backend does not answer or refuses, or this node cannot sign.
    pub async fn answer_log_request(&self, reader: &Certname, answer: &LogAnswer) -> Result<(), StoreError> {
        let (reader, certname) = (reader.clone(), self.own().clone());
        let key = Key::LogAnswer { reader: reader.clone(), certname: certname.clone() };
        self.put_signed(&key, answer).await?;
        self.delete(vec![Key::LogRequest { certname, reader }]).await
    }

    /// Finds the node of a run, by what the nodes say of themselves. The node's own answer decides.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn node_of_run(&self, run: RunId) -> Result<NodeOfRun, StoreError> {
        let mut found = NodeOfRun::default();
        let nodes = self.nodes().await?;
        let is_running = |certname: &&Certname| {
            nodes[*certname].activity.running.as_ref().is_some_and(|running| running.run_id == run)
        };
        found.certname = nodes.keys().find(is_running).cloned();
        if found.certname.is_some() {
            return Ok(found);
        }
        let certnames: Vec<Certname> = nodes.into_keys().collect();
        let NodeOfRun { certname, unverified, .. } = &mut found;
        let find = |node: &Certname, history: RunHistory| {
            if !history.runs.iter().any(|past| past.run.run_id == run) {
                return ControlFlow::Continue(());
            }
            *certname = Some(node.clone());
            ControlFlow::Break(())
        };
        match self.read_histories(&certnames, unverified, find).await {
            Err(StoreError::Refused { detail, .. } | StoreError::Denied { detail, .. }) => {
                found.denied = Some(detail.to_string());
            }
            read => read?,
        }
        Ok(found)
    }

    /// Removes the requests and answers that were there at the last sweep, at `last`: they are hours old, whatever any
    /// clock says.
    pub(crate) async fn sweep_logs(&self, last: Revision) -> Result<(), StoreError> {
        let ranges = [self.all(&Range::LogRequests), self.all(&Range::LogAnswers)];
        let listed = match self.list(&ranges).await {
            // Roles of an etcd that were made before there were such keys.
            Err(StoreError::Refused { .. } | StoreError::Denied { .. }) => return Ok(()),
            listed => listed?,
        };
        let old = listed.into_iter().filter(|(_, revision)| *revision < last);
        self.delete(old.map(|(key, _)| key).collect()).await
    }

    fn answer_to_this(&self, certname: &Certname) -> Key {
        Key::LogAnswer { reader: self.own().clone(), certname: certname.clone() }
    }
}

fn put(change: Change) -> Option<Entry> {
    match change {
        Change::Put(entry) => Some(entry),
        Change::Deleted(_) => None,
    }
}
