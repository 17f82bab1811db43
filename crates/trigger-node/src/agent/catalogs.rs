//! Asks PuppetDB whether it has stored the catalogs that events were fired with: one question for all nodes whose catalogs
//! are awaited, again and again until it has. What its answers mean for runs, the queue decides.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::sync::watch;
use trigger_core::identity::Certname;
use trigger_core::puppetdb::{Catalogs, MAX_ASKED, StoredCatalog, poll_interval};

use crate::host::Host;

/// How often it is looked whether there is a PuppetDB now, or whether one that refused answers.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How soon after an answer PuppetDB is asked about other nodes: the deliveries of a burst share a question.
const SHARED_INTERVAL: Duration = Duration::from_millis(200);

/// The PuppetDB of a fleet, as a node may ask it.
pub trait PuppetDb: Send + Sync + 'static {
    /// Whether there is one, as far as is known here. It is not asked.
    fn is_there(&self) -> bool;

    /// Returns the latest catalogs of those of these nodes that it has one of.
    ///
    /// # Errors
    /// The reason, a sentence.
    fn catalogs(
        &self,
        certnames: &[Certname],
    ) -> impl Future<Output = Result<BTreeMap<Certname, StoredCatalog>, AskError>> + Send;
}

/// PuppetDB did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It will not answer this node before something is mended.
    #[error("{0}")]
    Refused(String),
    /// It may answer the next question.
    #[error("{0}")]
    Failed(String),
}

/// The daemon's ends of the channels to the task that asks PuppetDB.
pub struct CatalogChannels {
    /// The nodes whose catalogs are awaited.
    pub awaited: watch::Sender<BTreeSet<Certname>>,
    /// What PuppetDB says of them.
    pub catalogs: watch::Receiver<Catalogs>,
}

impl CatalogChannels {
    /// For an agent without the task: there is no PuppetDB.
    pub fn unconnected() -> Self {
        Self { awaited: watch::channel(BTreeSet::new()).0, catalogs: watch::channel(Catalogs::NotAsked).1 }
    }
}

/// Returns the channels of a daemon, and the task that asks `puppetdb`.
pub(super) fn watch<H: Host>(
    host: H,
    puppetdb: impl PuppetDb,
) -> (CatalogChannels, impl Future<Output = ()> + Send) {
    let (awaited_in, awaited) = watch::channel(BTreeSet::new());
    let (catalogs_in, catalogs) = watch::channel(before_an_answer(&puppetdb));
    let watcher =
        CatalogWatcher { host, puppetdb, catalogs: catalogs_in, has_answered: false, complaint: None };
    (CatalogChannels { awaited: awaited_in, catalogs }, watcher.run(awaited))
}

/// A run waits for the first answer if there is a PuppetDB.
fn before_an_answer(puppetdb: &impl PuppetDb) -> Catalogs {
    if puppetdb.is_there() { Catalogs::Unknown } else { Catalogs::NotAsked }
}

struct CatalogWatcher<H, P> {
    host: H,
    puppetdb: P,
    catalogs: watch::Sender<Catalogs>,
    /// Whether PuppetDB has answered this agent. If not, it is probably out of reach from here for good, and runs do not
    /// wait for it.
    has_answered: bool,
    /// What was logged last, so that it is logged once.
    complaint: Option<String>,
}

impl<H: Host, P: PuppetDb> CatalogWatcher<H, P> {
    async fn run(mut self, mut awaited: watch::Receiver<BTreeSet<Certname>>) {
        let mut asked = BTreeSet::new();
        let mut waited = Duration::ZERO;
        loop {
            let wanted = awaited.borrow_and_update().clone();
            if wanted.is_empty() {
                asked.clear();
                pause_or_news(&mut awaited, pin!(self.host.sleep(LOOK_INTERVAL))).await;
                self.look_again();
                continue;
            }
            if !wanted.is_subset(&asked) {
                waited = Duration::ZERO;
            }
            self.ask(&wanted).await;
            asked = wanted;
            self.host.sleep(SHARED_INTERVAL).await;
            let interval = poll_interval(waited, self.host.jitter());
            waited += SHARED_INTERVAL + interval;
            // It is asked at once about other nodes, and no sooner about those that it has answered for.
            let mut pause = pin!(self.host.sleep(interval));
            while is_among(&awaited, &asked) && pause_or_news(&mut awaited, pause.as_mut()).await {}
        }
    }

    /// PuppetDB may have been configured or mended since.
    fn look_again(&self) {
        let is_there = self.puppetdb.is_there();
        self.catalogs.send_if_modified(|catalogs| match (is_there, &catalogs) {
            (true, Catalogs::NotAsked) => {
                *catalogs = Catalogs::Unknown;
                true
            }
            (false, Catalogs::Unknown | Catalogs::Stored(_)) => {
                *catalogs = Catalogs::NotAsked;
                true
            }
            _ => false,
        });
    }

    async fn ask(&mut self, wanted: &BTreeSet<Certname>) {
        let wanted: Vec<Certname> = wanted.iter().cloned().collect();
        let mut stored = BTreeMap::new();
        for certnames in wanted.chunks(MAX_ASKED) {
            match self.puppetdb.catalogs(certnames).await {
                Ok(found) => stored.extend(found),
                Err(error) => return self.failed(error),
            }
        }
        self.has_answered = true;
        if self.complaint.take().is_some() {
            tracing::info!("PuppetDB answers");
        }
        self.publish(Catalogs::Stored(stored));
    }

    fn failed(&mut self, error: AskError) {
        let complaint = error.to_string();
        let is_waited_for = self.has_answered && matches!(error, AskError::Failed(_));
        if self.complaint.as_ref() != Some(&complaint) {
            let remedy = if is_waited_for {
                "runs wait for it as long as settle allows"
            } else {
                "runs do not wait until it has stored what other nodes export: mend that, or set settle = 0"
            };
            tracing::warn!(error = complaint, "PuppetDB does not answer; {remedy}");
            self.complaint = Some(complaint);
        }
        if !is_waited_for {
            self.publish(Catalogs::NotAsked);
        }
    }

    fn publish(&self, news: Catalogs) {
        self.catalogs.send_if_modified(|catalogs| {
            let is_news = *catalogs != news;
            *catalogs = news;
            is_news
        });
    }
}

/// Whether something is awaited, and nothing besides what was `asked` for.
fn is_among(awaited: &watch::Receiver<BTreeSet<Certname>>, asked: &BTreeSet<Certname>) -> bool {
    let awaited = awaited.borrow();
    !awaited.is_empty() && awaited.is_subset(asked)
}

/// Returns true when other nodes are awaited, and false when the pause is over.
async fn pause_or_news(
    awaited: &mut watch::Receiver<BTreeSet<Certname>>,
    pause: Pin<&mut impl Future<Output = ()>>,
) -> bool {
    tokio::select! {
        biased;
        changed = awaited.changed() => {
            if changed.is_err() {
                // The daemon has ended, and ends this task.
                std::future::pending::<()>().await;
            }
            true
        }
        () = pause => false,
    }
}

#[cfg(test)]
mod tests;
