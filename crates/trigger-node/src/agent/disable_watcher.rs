//! Watches what Puppet's own settings and files say against a run: the lock of `puppet agent --disable`, by which an
//! operator forbids Puppet to run on this node, and Puppet's certname. `puppet agent` obeys the lock by itself and
//! `puppet apply` does not; Trigger obeys it for both, and holds deliveries with the operator's message.
//!
//! Only Puppet knows the path of the lock and its certname, and asking takes a second of Ruby. The agent asks when it
//! starts, when `puppet.conf` has changed, and every few minutes while the lock exists. Until Puppet has answered, no
//! run starts: not to know is no permission.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use trigger_core::identity::Certname;
use trigger_core::queue::{BLOCKER_POLL_INTERVAL, PuppetBlocker};
use trigger_core::run::command::{CommandKind, RunCommand};

use super::{CertnameSource, DisableCheck};
use crate::puppet_locks::disabled;
use crate::puppet_settings::{self, Attempt, PuppetSettings, PuppetSettingsError};

/// How long a check of the lock stays valid while no run is about to start.
const LOOK_LIFETIME: Duration = BLOCKER_POLL_INTERVAL;
/// How often Puppet is asked again while its settings keep runs from starting. The path of the lock and the certname
/// depend on more than `puppet.conf`, and a file that was put back may have the same time twice.
const ASK_WHILE_BLOCKED_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// What is known of Puppet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Known {
    puppet: Answer,
    /// Whether Puppet has answered since this agent started, so that its certname is the present one.
    is_fresh: bool,
    /// Why Puppet did not answer the latest question.
    failure: Option<Failure>,
}

/// Why Puppet did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    sentence: String,
    /// Whether it was only slow, and has more time at the next question.
    is_slow: bool,
}

impl Failure {
    fn of(error: &PuppetSettingsError) -> Self {
        let is_slow = matches!(error, PuppetSettingsError::NoAnswer { .. });
        Self { sentence: error.to_string(), is_slow }
    }
}

/// The latest answer of Puppet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Answer {
    /// Puppet has not answered yet.
    #[default]
    None,
    /// Nothing depends on Puppet: it is neither the run command nor the source of the certname.
    NotNeeded,
    /// What it answered, maybe to an earlier agent.
    Settings(Arc<PuppetSettings>),
}

/// The Puppet that is asked, and what its answers are compared with.
#[derive(Debug, Clone)]
pub(super) struct Puppet {
    pub(super) command: RunCommand,
    pub(super) environment: BTreeMap<String, String>,
    /// The directory of the cache of its answers.
    pub(super) state_dir: PathBuf,
    /// The certname that the agent acts for, which the state directory belongs to.
    pub(super) certname: Certname,
    /// Which certname this node is to have.
    pub(super) source: CertnameSource,
}

impl Puppet {
    fn runs(&self) -> bool {
        self.command.kind() != CommandKind::Other
    }

    /// Whether anything depends on what Puppet answers.
    fn is_needed(&self) -> bool {
        self.runs() || self.names_the_node()
    }

    fn names_the_node(&self) -> bool {
        self.source == CertnameSource::Puppet
    }

    /// Returns the sentence about another certname than the one that the agent acts for.
    fn other_certname(&self, answer: Option<&PuppetSettings>) -> Option<String> {
        let acts_for = self.certname.as_str();
        let (other, whose) = match (&self.source, answer) {
            (CertnameSource::Configured(name), _) => (name.as_str(), "the configured certname"),
            (CertnameSource::Puppet, Some(settings)) => {
                (settings.certname.as_str(), "Puppet's certname for this node")
            }
            (CertnameSource::Puppet, None) => return None,
        };
        let directory = self.state_dir.display();
        (other != acts_for).then(|| {
            if let Err(error) = other.parse::<Certname>() {
                return format!(
                    "{whose} is not {acts_for} any more, and cannot be used: {error}; correct it in puppet.conf (the state \
                     directory {directory} belongs to {acts_for})"
                );
            }
            // A reason that other nodes read is shortened, so what to do comes early.
            format!(
                "{whose} is {other}, and not {acts_for}: no run starts until 'trigger rename' has moved this node over \
                 to {other} (the state directory {directory} belongs to {acts_for})"
            )
        })
    }
}

/// Checks the lock, and limits how often it reads the file for a caller that asks often.
pub(super) struct DisableWatcher {
    puppet: Puppet,
    known: watch::Sender<Known>,
    seen: watch::Receiver<Known>,
    /// Makes [`find`] ask Puppet again.
    ask: Arc<Notify>,
    /// The modification time of `puppet.conf` for which Puppet was asked last, and when it was asked.
    asked_for: Option<(Option<SystemTime>, Instant)>,
    latest: Option<(Option<PuppetBlocker>, Instant)>,
}

impl DisableWatcher {
    /// Creates a watcher that has not asked yet: see [`find`].
    pub(super) fn new(puppet: Puppet) -> Self {
        let answer = if puppet.is_needed() { Answer::None } else { Answer::NotNeeded };
        let (known, seen) = watch::channel(Known { puppet: answer, ..Known::default() });
        Self { puppet, known, seen, ask: Arc::default(), asked_for: None, latest: None }
    }

    /// Keeps Puppet's settings up to date. Never ends, so that its end is an error of the agent.
    pub(super) fn find(&self) -> impl Future<Output = ()> + use<> {
        let find = find(self.puppet.clone(), self.known.clone(), Arc::clone(&self.ask));
        async move {
            find.await;
            // Nothing depends on Puppet, and nothing will.
            std::future::pending().await
        }
    }

    /// Does not mark the settings as seen: only [`DisableCheck::has_moved`] does, and its caller needs each change.
    fn look(&mut self) -> Option<PuppetBlocker> {
        let Known { puppet, is_fresh, failure } = self.seen.borrow().clone();
        let settings = match &puppet {
            Answer::Settings(settings) => Some(settings.as_ref()),
            Answer::None | Answer::NotNeeded => None,
        };
        let other = self.puppet.other_certname(settings).map(PuppetBlocker::OtherCertname);
        let unknown = |what: &str| {
            Some(match &failure {
                None => PuppetBlocker::Unknown(format!("{what}: Puppet is being asked")),
                Some(Failure { sentence, is_slow }) => {
                    let blocker = if *is_slow { PuppetBlocker::Unknown } else { PuppetBlocker::Broken };
                    blocker(format!("{what}: {sentence}; Puppet is asked again"))
                }
            })
        };
        let Some(settings) = settings else {
            return match puppet {
                Answer::NotNeeded => other,
                _ => other.or_else(|| unknown("it is not known yet whether Puppet may run here")),
            };
        };
        let now = settings.config_time();
        let is_outdated = now != settings.config_changed_at;
        let disabled = self.puppet.runs().then(|| disabled(&settings.disabled_lock)).flatten();
        if is_outdated || disabled.is_some() || other.is_some() {
            self.ask_for(now);
        }
        let outdated = || {
            let changed = format!("{} has changed", settings.config.display());
            is_outdated.then(|| unknown(&changed)).flatten()
        };
        let unnamed = || {
            let is_unnamed = self.puppet.names_the_node() && !is_fresh;
            is_unnamed
                .then(|| unknown("it is not known yet whether this node has kept its certname"))
                .flatten()
        };
        other.or(disabled).or_else(outdated).or_else(unnamed)
    }

    /// Requests a question to Puppet for this change of `puppet.conf`, once, and again every few minutes.
    fn ask_for(&mut self, change: Option<SystemTime>) {
        match self.asked_for {
            Some((known, at)) if known == change && at.elapsed() < ASK_WHILE_BLOCKED_INTERVAL => {}
            _ => {
                self.asked_for = Some((change, Instant::now()));
                self.ask.notify_one();
            }
        }
    }
}

impl DisableCheck for DisableWatcher {
    async fn has_moved(&mut self) {
        if self.seen.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.latest = None;
    }

    fn confirms_certname(&self) -> bool {
        match &self.puppet.source {
            CertnameSource::Configured(certname) => *certname == self.puppet.certname,
            CertnameSource::Puppet => match &*self.known.borrow() {
                Known { puppet: Answer::NotNeeded, .. } => true,
                Known { puppet: Answer::Settings(settings), is_fresh: true, .. } => {
                    settings.certname == self.puppet.certname.as_str()
                }
                _ => false,
            },
        }
    }

    fn take_over_cache(&mut self) {
        if !self.puppet.runs() {
            return;
        }
        let Some(cached) = puppet_settings::cached(&self.puppet.command, &self.puppet.state_dir) else {
            return;
        };
        // The cache may have an answer from before the latest change of `puppet.conf`: one that could not be written
        // since, or one to a slow question. It must not replace a later answer.
        if cached.config_changed_at != cached.config_time() {
            return;
        }
        let cached = Answer::Settings(Arc::new(cached));
        let is_news = self.known.send_if_modified(|known| {
            let is_news = known.puppet != cached;
            if is_news {
                known.puppet = cached;
            }
            is_news
        });
        if is_news {
            self.asked_for = None;
        }
    }

    fn reason(&mut self, about_to_start: bool) -> Option<PuppetBlocker> {
        if let Some((reason, at)) = &self.latest
            && at.elapsed() < LOOK_LIFETIME
            && (reason.is_some() || !about_to_start)
        {
            return reason.clone();
        }
        let reason = self.look();
        self.latest = Some((reason.clone(), Instant::now()));
        reason
    }
}

/// Asks Puppet for its settings, and does so again at each `ask`. A Puppet that does not answer is asked again, later
/// and with more patience each time.
async fn find(puppet: Puppet, known: watch::Sender<Known>, ask: Arc<Notify>) {
    if !puppet.is_needed() {
        return;
    }
    if let Some(cached) = puppet_settings::cached(&puppet.command, &puppet.state_dir) {
        known.send_modify(|known| known.puppet = Answer::Settings(Arc::new(cached)));
    }
    let mut attempt = Attempt::FIRST;
    loop {
        let answer =
            puppet_settings::ask(&puppet.command, &puppet.environment, &puppet.state_dir, attempt).await;
        match answer {
            Ok(settings) => {
                warn_of_other_certname(&puppet, &settings);
                known.send_replace(Known {
                    puppet: Answer::Settings(Arc::new(settings)),
                    is_fresh: true,
                    failure: None,
                });
                attempt = Attempt::FIRST;
                ask.notified().await;
            }
            // A node without Puppet is not renamed by it.
            Err(error) if error.is_not_installed() && !puppet.runs() => {
                tracing::warn!(%error, "Puppet cannot be asked for this node's certname; the agent keeps its own");
                known.send_modify(|known| known.puppet = Answer::NotNeeded);
                return;
            }
            Err(error) => {
                let failure = Failure::of(&error);
                if known.borrow().failure.as_ref() != Some(&failure) {
                    tracing::warn!(%error, "Puppet does not report its settings; no run starts until it does");
                }
                known.send_modify(|known| known.failure = Some(failure));
                tokio::select! {
                    biased;
                    () = ask.notified() => {}
                    () = tokio::time::sleep(attempt.pause) => {}
                }
                attempt = attempt.next();
            }
        }
    }
}

/// Logs that the runs of this node converge another certname than the configured one. The choice is the operator's.
fn warn_of_other_certname(puppet: &Puppet, settings: &PuppetSettings) {
    if let CertnameSource::Configured(configured) = &puppet.source
        && puppet.command.kind() == CommandKind::PuppetAgent
        && settings.certname != configured.as_str()
    {
        tracing::warn!(
            configured = %configured,
            puppets = settings.certname,
            "the configured certname is not Puppet's: runs here apply the catalog of Puppet's, whose events do not reach this agent"
        );
    }
}

#[cfg(test)]
mod tests;
