//! Watches the lock of `puppet agent --disable`, by which an operator forbids Puppet to run on this node. `puppet
//! agent` obeys the lock by itself and `puppet apply` does not; Trigger obeys it for both, and holds deliveries with
//! the operator's message.
//!
//! Only Puppet knows the path of the lock, and asking takes a second of Ruby. The agent asks when it starts, when
//! `puppet.conf` has changed, and every few minutes while the lock exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use trigger_core::queue::BLOCKER_POLL_INTERVAL;
use trigger_core::run::command::{CommandKind, RunCommand};

use super::DisableCheck;
use crate::puppet_locks::disabled_reason;
use crate::puppet_settings::{self, PuppetPaths};

/// How long a check of the lock stays valid while no run is about to start.
const LOOK_LIFETIME: Duration = BLOCKER_POLL_INTERVAL;
/// How long after a failed question Puppet is asked again.
const ASK_AGAIN_INTERVAL: Duration = Duration::from_secs(60);
/// How often Puppet is asked again while it is disabled, because the path of the lock depends on more than
/// `puppet.conf`.
const ASK_WHILE_DISABLED_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The path of the lock, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Puppet has not answered yet.
    Unknown,
    /// There is no lock to check: the run command is not Puppet, or Puppet did not answer.
    None,
    /// The path that Puppet reported, and the modification time of `puppet.conf` at that time.
    At { lock: PathBuf, config: PathBuf, changed_at: Option<SystemTime> },
}

impl Place {
    /// Makes a place of Puppet's answer, fresh or cached. `changed_at` was read before Puppet was asked.
    fn of(paths: PuppetPaths, changed_at: Option<SystemTime>) -> Self {
        Self::At { lock: paths.disabled_lock, config: paths.config, changed_at }
    }

    /// Returns whether both are the same path. The time of `puppet.conf` is ignored, because the cache lacks it.
    fn is_same(&self, other: &Self) -> bool {
        let paths = |place: &Self| match place {
            Self::At { lock, config, .. } => Some((lock.clone(), config.clone())),
            Self::Unknown | Self::None => None,
        };
        paths(self) == paths(other)
    }

    fn from_cache(puppet: &Puppet) -> Option<Self> {
        let paths = puppet_settings::cached_paths(&puppet.command, &puppet.state_dir)?;
        let changed_at = changed_at(&paths.config);
        Some(Self::of(paths, changed_at))
    }
}

/// Returns when a file was last changed, or `None` if it does not exist.
fn changed_at(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}

/// The Puppet that owns the lock.
#[derive(Debug, Clone)]
pub(super) struct Puppet {
    pub(super) command: RunCommand,
    pub(super) environment: BTreeMap<String, String>,
    /// The directory of the cache of its answers.
    pub(super) state_dir: PathBuf,
}

/// Checks the lock, and limits how often it reads the file for a caller that asks often.
pub(super) struct DisableWatcher {
    puppet: Puppet,
    place: watch::Sender<Place>,
    seen: watch::Receiver<Place>,
    /// Makes [`find`] ask Puppet again.
    ask: Arc<Notify>,
    /// The modification time of `puppet.conf` for which Puppet was asked last, and when it was asked.
    asked_for: Option<(Option<SystemTime>, Instant)>,
    latest: Option<(Option<String>, Instant)>,
}

impl DisableWatcher {
    /// Creates a watcher that does not know the path yet: see [`find`].
    pub(super) fn new(puppet: Puppet) -> Self {
        let (place, seen) = watch::channel(Place::Unknown);
        Self { puppet, place, seen, ask: Arc::default(), asked_for: None, latest: None }
    }

    /// Keeps the path of the lock up to date. Ends only if the run command is not Puppet.
    pub(super) fn find(&self) -> impl Future<Output = ()> + use<> {
        find(self.puppet.clone(), self.place.clone(), Arc::clone(&self.ask))
    }

    fn look(&mut self) -> Option<String> {
        let place = self.seen.borrow_and_update().clone();
        match place {
            Place::Unknown => {
                Some("where Puppet keeps its locks is not known yet: it is being asked".to_owned())
            }
            Place::None => None,
            Place::At { lock, config, changed_at: known } => {
                let now = changed_at(&config);
                let reason = disabled_reason(&lock);
                if now != known {
                    self.ask_for(now, Duration::MAX);
                    let changed =
                        format!("{} has changed: Puppet is asked where its locks are", config.display());
                    return reason.or(Some(changed));
                }
                if reason.is_some() {
                    self.ask_for(now, ASK_WHILE_DISABLED_INTERVAL);
                }
                reason
            }
        }
    }

    /// Requests a question to Puppet for this change of `puppet.conf`, once, and again after `again_after`.
    fn ask_for(&mut self, change: Option<SystemTime>, again_after: Duration) {
        match self.asked_for {
            Some((known, at)) if known == change && at.elapsed() < again_after => {}
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

    fn take_over_cache(&mut self) {
        if self.puppet.command.kind() == CommandKind::Other {
            return;
        }
        let Some(cached) = Place::from_cache(&self.puppet) else { return };
        self.place.send_if_modified(|known| {
            let is_news = !known.is_same(&cached);
            if is_news {
                *known = cached;
            }
            is_news
        });
    }

    fn reason(&mut self, about_to_start: bool) -> Option<String> {
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

/// Finds the path of the lock, and does so again at each `ask`. Puppet's previous answer stays valid until the next
/// one. A Puppet that does not answer is asked again later.
async fn find(puppet: Puppet, place: watch::Sender<Place>, ask: Arc<Notify>) {
    if puppet.command.kind() == CommandKind::Other {
        place.send_replace(Place::None);
        return;
    }
    if let Some(cached) = Place::from_cache(&puppet) {
        place.send_replace(cached);
    }
    loop {
        // Read before the question, so that a change during it counts as another change.
        let known = match &*place.borrow() {
            Place::At { config, .. } => Some((config.clone(), changed_at(config))),
            Place::Unknown | Place::None => None,
        };
        match puppet_settings::ask_paths(&puppet.command, &puppet.environment, &puppet.state_dir).await {
            Ok(paths) => {
                let known = known.filter(|(config, _)| *config == paths.config);
                let changed_at = known.map_or_else(|| changed_at(&paths.config), |(_, at)| at);
                place.send_replace(Place::of(paths, changed_at));
                ask.notified().await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot find out whether Puppet is disabled; runs start without that check");
                place.send_modify(go_on_without_answer);
                tokio::time::sleep(ASK_AGAIN_INTERVAL).await;
            }
        }
    }
}

/// Lets runs start although Puppet did not answer, as if it were enabled or the path had not changed. Otherwise a
/// Puppet that cannot answer would block runs indefinitely.
fn go_on_without_answer(place: &mut Place) {
    match place {
        Place::Unknown => *place = Place::None,
        Place::None => {}
        Place::At { config, changed_at: known, .. } => *known = changed_at(config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Site {
        dir: tempfile::TempDir,
        look: DisableWatcher,
    }

    impl Site {
        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn disable(&self, lock: &str, why: &str) {
            fs::write(self.path(lock), format!(r#"{{"disabled_message":"{why}"}}"#)).unwrap();
        }

        fn set_place(&self, lock: &str) {
            let config = self.path("puppet.conf");
            let changed_at = changed_at(&config);
            self.look.place.send_replace(Place::At { lock: self.path(lock), config, changed_at });
        }

        fn reason(&mut self, about_to_start: bool) -> String {
            self.look.reason(about_to_start).unwrap_or_default()
        }

        async fn is_asked(&self) -> bool {
            tokio::time::timeout(Duration::from_millis(1), self.look.ask.notified()).await.is_ok()
        }
    }

    /// Creates a directory in which the path of Puppet's lock is known.
    fn site() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let command = RunCommand::from_words(vec!["puppet".to_owned(), "agent".to_owned()]).unwrap();
        let puppet = Puppet { command, environment: BTreeMap::new(), state_dir: dir.path().to_owned() };
        let site = Site { dir, look: DisableWatcher::new(puppet) };
        fs::write(site.path("puppet.conf"), "").unwrap();
        site.set_place("lock");
        site
    }

    async fn a_second() {
        tokio::time::sleep(LOOK_LIFETIME).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_holds_for_a_second_unless_a_run_is_about_to_start() {
        let mut site = site();
        assert_eq!(site.reason(true), "");
        site.disable("lock", "disks");
        assert_eq!(site.reason(false), "", "a thousand arrivals are one look");
        assert_eq!(site.reason(true), "Puppet is disabled on this node: disks");
        fs::remove_file(site.path("lock")).unwrap();
        assert!(site.reason(true).contains("disks"), "nor are they more while they all wait");
        a_second().await;
        assert_eq!(site.reason(false), "");
    }

    #[tokio::test(start_paused = true)]
    async fn puppet_is_asked_again_when_its_configuration_has_changed() {
        let mut site = site();
        site.disable("moved", "disks");
        assert_eq!(site.reason(true), "");
        assert!(!site.is_asked().await);
        fs::remove_file(site.path("puppet.conf")).unwrap();
        assert!(site.reason(true).contains("has changed: Puppet is asked"));
        assert!(site.is_asked().await);
        a_second().await;
        assert!(site.reason(true).contains("has changed"));
        assert!(!site.is_asked().await, "once for each change");
        site.set_place("moved");
        site.look.has_moved().await;
        assert!(site.reason(false).contains("disks"));
    }

    #[tokio::test(start_paused = true)]
    async fn puppet_is_asked_now_and_then_while_it_is_disabled() {
        let mut site = site();
        site.disable("lock", "disks");
        let mut asked = 0;
        for _ in 0..601 {
            assert!(site.reason(false).contains("disks"));
            asked += usize::from(site.is_asked().await);
            a_second().await;
        }
        assert_eq!(asked, 3, "at once, and every five minutes");
    }

    #[test]
    fn the_same_place_is_no_news_though_the_configuration_has_changed_since() {
        let at = |lock: &str, changed_at| Place::At { lock: lock.into(), config: "c".into(), changed_at };
        assert!(at("a", None).is_same(&at("a", Some(SystemTime::now()))));
        assert!(!at("a", None).is_same(&at("b", None)));
        assert!(!Place::Unknown.is_same(&at("a", None)));
    }

    #[test]
    fn without_an_answer_runs_go_on() {
        let site = site();
        fs::remove_file(site.path("puppet.conf")).unwrap();
        site.look.place.send_modify(go_on_without_answer);
        let expected =
            Place::At { lock: site.path("lock"), config: site.path("puppet.conf"), changed_at: None };
        assert_eq!(*site.look.place.borrow(), expected);
        let mut unknown = Place::Unknown;
        go_on_without_answer(&mut unknown);
        assert_eq!(unknown, Place::None);
    }
}
