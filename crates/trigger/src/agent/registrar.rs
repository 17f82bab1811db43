//! Keeps this node's registration in the backend: its claim on the certname, its groups, what it does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use trigger_backend::registry::{self, Claim, Contender, RENEW_EVERY, TRUST_FOR};
use trigger_backend::store::{StoreError, Swap};
use trigger_core::backoff;
use trigger_core::identity::{GroupName, Revision};
use trigger_core::status::{Activity, NodeRecord};
use trigger_core::wire::Stored;

use super::{AgentSettings, Node};
use crate::clock::{self, jitter};
use crate::state::{FileError, StateDir, at, read_if_present, write_durably};

/// Changes of activity are written at most this often.
const ACTIVITY_SPACING: Duration = Duration::from_millis(250);
/// A change of activity is written so long after it: the run that just started goes first, on this node's
/// processors and on the backend's disk.
const ACTIVITY_DELAY: Duration = Duration::from_millis(50);
/// How often somebody else's claim is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// Where the claim on the certname stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClaimState {
    /// The backend has not answered yet.
    Unregistered,
    /// Ours.
    Held { joined: BTreeMap<GroupName, Revision> },
    /// Another agent's; the sentence names it.
    Lost(String),
    /// Ours when it was last renewed, which is too long ago.
    Stale(String),
}

/// The owner of this node's registration.
pub(super) struct Registrar {
    node: Arc<Node>,
    state: watch::Sender<ClaimState>,
    instance: String,
    /// The instances that ran from this folder before us and may still hold the claim.
    previous: Vec<String>,
    location: String,
    joined: BTreeMap<GroupName, Revision>,
    renewals: u64,
    /// Our latest write, once there is one.
    revision: Option<Revision>,
    renewed_at: Duration,
    contender: Contender,
}

impl Registrar {
    pub(super) fn new(node: Arc<Node>, state: watch::Sender<ClaimState>) -> Result<Self, FileError> {
        let folder = &node.settings.state;
        let instance = uuid::Uuid::new_v4().to_string();
        let previous = read_instances(folder)?;
        // Before the claim is taken: a crash right after it must not leave a claim that nobody here knows.
        write_instances(folder, previous.iter().chain([&instance]))?;
        let joined = read_joined(&node.settings)?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Self {
            instance,
            previous,
            location: format!("{host}, pid {}, {}", std::process::id(), folder.path().display()),
            joined,
            renewals: 0,
            revision: None,
            renewed_at: node.clock.now().elapsed,
            contender: Contender::default(),
            node,
            state,
        })
    }

    /// Registers and keeps the registration true for as long as anybody listens.
    pub(super) async fn run(mut self, mut activity: watch::Receiver<Activity>) {
        let mut attempt = 0;
        while !self.state.is_closed() {
            let current = activity.borrow_and_update().clone();
            let wait = match self.register(current).await {
                Ok(wait) => {
                    attempt = 0;
                    wait
                }
                Err(error) => {
                    self.distrust(&error);
                    attempt += 1;
                    let now = self.node.clock.now().elapsed;
                    backoff::reconnect(attempt, now.saturating_sub(self.renewed_at), jitter())
                }
            };
            tokio::time::sleep(ACTIVITY_SPACING.min(wait)).await;
            tokio::select! {
                () = tokio::time::sleep(wait.saturating_sub(ACTIVITY_SPACING)) => {}
                changed = activity.changed(), if attempt == 0 => match changed {
                    Ok(()) => tokio::time::sleep(ACTIVITY_DELAY).await,
                    Err(_) => return,
                },
            }
        }
    }

    fn record(&self, activity: Activity) -> NodeRecord {
        let joined = |group: &GroupName| self.joined.get(group).copied().unwrap_or_default();
        let groups = self.node.settings.groups.iter().map(|group| (group.clone(), joined(group)));
        NodeRecord {
            instance: self.instance.clone(),
            location: self.location.clone(),
            renewals: self.renewals,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seen_at: clock::wall(),
            groups: groups.collect(),
            activity,
        }
    }

    /// Takes or renews the claim, once; how long to wait before the next time.
    async fn register(&mut self, activity: Activity) -> Result<Duration, StoreError> {
        self.renewals += 1;
        if self.revision.is_none() {
            self.recall_groups().await?;
        }
        let record = self.record(activity);
        match self.write(&record).await? {
            Claim::Held(revision) => {
                let is_first = self.revision.replace(revision).is_none();
                self.renewed_at = self.node.clock.now().elapsed;
                if is_first && let Err(error) = self.settle_in(revision) {
                    tracing::error!("this start cannot be remembered: {error}");
                }
                self.tell(ClaimState::Held { joined: self.joined.clone() });
                // The first write could not know the revision at which new groups were joined.
                Ok(if is_first { Duration::ZERO } else { RENEW_EVERY.mul_f64(0.75 + jitter() / 4.0) })
            }
            Claim::HeldBy { record, .. } => {
                self.revision = None;
                self.tell(ClaimState::Lost(format!(
                    "{} is claimed by another live agent ({}); stop one of the two",
                    self.node.settings.certname, record.location
                )));
                Ok(LOOK_EVERY)
            }
        }
    }

    async fn write(&mut self, record: &NodeRecord) -> Result<Claim, StoreError> {
        let (store, settings) = (self.node.store.as_ref(), &self.node.settings);
        if let Some(known) = self.revision {
            let key = settings.layout.node(&settings.certname);
            if let Swap::Written(revision) =
                store.put_if_unchanged(&key, &record.to_wire(), Some(known)).await?
            {
                return Ok(Claim::Held(revision));
            }
        }
        let elapsed = self.node.clock.now().elapsed;
        let previous = &self.previous;
        let layout = &settings.layout;
        registry::claim(store, layout, &settings.certname, record, previous, &mut self.contender, elapsed)
            .await
    }

    /// After the first registration: remembers who we are and since when we belong to our groups.
    fn settle_in(&mut self, revision: Revision) -> Result<(), FileError> {
        let settings = &self.node.settings;
        for group in &settings.groups {
            let since = self.joined.entry(group.clone()).or_insert(revision);
            // From the future: the backend was made anew, and counts from the start again.
            *since = revision.min(*since);
        }
        write_joined(settings, &self.joined)?;
        let folder = &settings.state;
        write_instances(folder, [&self.instance])?;
        // From here on they are history: a claim in the name of one is that of a copy of this folder.
        self.previous.clear();
        Ok(())
    }

    /// Since when we belong to our groups as the backend remembers it: events fired at a group before its
    /// state folder was lost are still this node's.
    async fn recall_groups(&mut self) -> Result<(), StoreError> {
        let settings = &self.node.settings;
        let certname = std::slice::from_ref(&settings.certname);
        let known = registry::read(self.node.store.as_ref(), &settings.layout, certname).await?;
        let remembered = known.into_values().flat_map(|record| record.groups);
        // Zero was written by a registration that did not live to learn its own revision.
        for (group, since) in remembered.filter(|(_, since)| *since > Revision::default()) {
            if settings.groups.contains(&group) {
                let earliest = self.joined.entry(group).or_insert(since);
                *earliest = since.min(*earliest);
            }
        }
        Ok(())
    }

    fn distrust(&mut self, error: &StoreError) {
        let silent_for = self.node.clock.now().elapsed.saturating_sub(self.renewed_at);
        if self.revision.is_some() && silent_for > TRUST_FOR {
            self.tell(ClaimState::Stale(format!(
                "the claim on {} could not be renewed for {} s ({error})",
                self.node.settings.certname,
                silent_for.as_secs()
            )));
        }
    }

    fn tell(&self, state: ClaimState) {
        self.state.send_if_modified(|known| {
            let changed = *known != state;
            if changed {
                match &state {
                    ClaimState::Lost(reason) | ClaimState::Stale(reason) => tracing::error!("{reason}"),
                    ClaimState::Held { .. } => tracing::info!("registered {}", self.node.settings.certname),
                    ClaimState::Unregistered => {}
                }
                *known = state;
            }
            changed
        });
    }
}

/// The instances that ran from this very folder, below a line that says which it is: the claim of the agent
/// whose folder was copied is not the copy's to continue.
fn read_instances(folder: &StateDir) -> Result<Vec<String>, FileError> {
    let text = read_if_present(&folder.file("instance"))?.unwrap_or_default();
    let lines = text.strip_prefix(&folder_identity(folder)?).unwrap_or_default();
    Ok(lines.lines().map(str::to_owned).collect())
}

fn write_instances<'a>(
    folder: &StateDir,
    instances: impl IntoIterator<Item = &'a String>,
) -> Result<(), FileError> {
    let lines = instances.into_iter().map(|instance| format!("{instance}\n"));
    let text: String = std::iter::once(folder_identity(folder)?).chain(lines).collect();
    write_durably(&folder.file("instance"), text.as_bytes())
}

/// What a copy of a folder does not share with it: the machine, and the number of the folder there.
fn folder_identity(folder: &StateDir) -> Result<String, FileError> {
    let machine = read_if_present(Path::new("/etc/machine-id"))?.unwrap_or_default();
    let inode = fs::metadata(folder.path()).map_err(at("look at", folder.path()))?.ino();
    Ok(format!("machine {} folder {inode}\n", machine.trim()))
}

/// The groups joined, below a line that says where: revisions of one backend mean nothing in another.
fn read_joined(settings: &AgentSettings) -> Result<BTreeMap<GroupName, Revision>, FileError> {
    let text = read_if_present(&settings.state.file("groups"))?.unwrap_or_default();
    let Some(lines) = text.strip_prefix(&place(settings)) else { return Ok(BTreeMap::new()) };
    let line = |line: &str| {
        let (group, revision) = line.split_once(' ')?;
        Some((group.parse().ok()?, Revision(revision.parse().ok()?)))
    };
    let joined = lines.lines().filter_map(line);
    Ok(joined.filter(|(group, _)| settings.groups.contains(group)).collect())
}

fn write_joined(settings: &AgentSettings, joined: &BTreeMap<GroupName, Revision>) -> Result<(), FileError> {
    let lines = joined.iter().map(|(group, revision)| format!("{group} {revision}\n"));
    let text: String = std::iter::once(place(settings)).chain(lines).collect();
    write_durably(&settings.state.file("groups"), text.as_bytes())
}

fn place(settings: &AgentSettings) -> String {
    format!("{} {}\n", settings.backend, settings.layout.prefix())
}
