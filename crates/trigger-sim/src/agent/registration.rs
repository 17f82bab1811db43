//! Drives this node's claim, as the `trigger` crate's `agent/registrar.rs` does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use trigger_core::identity::{GroupName, Revision};
use trigger_core::node::Activity;
use trigger_fleet::claim::{Claim, ClaimState, Claimant};

use super::Node;

const ACTIVITY_SPACING: Duration = Duration::from_millis(250);
const ACTIVITY_DELAY: Duration = Duration::from_millis(50);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
const GROUPS: &str = "groups";

pub(super) struct Channels {
    pub(super) activity: watch::Receiver<Activity>,
    pub(super) seen: watch::Receiver<Revision>,
    pub(super) release: oneshot::Receiver<oneshot::Sender<()>>,
    pub(super) standing: watch::Sender<ClaimState>,
}

struct Registration {
    node: Arc<Node>,
    claim: Claim,
    remembered: BTreeMap<GroupName, Revision>,
    activity: watch::Receiver<Activity>,
    seen: watch::Receiver<Revision>,
    standing: watch::Sender<ClaimState>,
}

pub(super) async fn run(node: Arc<Node>, channels: Channels) {
    let own = node.own.clone();
    let remembered = read_joined(&node);
    let claimant = own.with(|world| {
        let instance = format!("i{}-{:x}", own.id.0, world.rng.u32(..));
        let machine = &world.machines[own.machine];
        let lock = format!("{}-{}", machine.boot, machine.identity);
        world.check.instance_started(&instance, own.machine, machine.boot);
        Claimant {
            instance,
            lock: Some(lock),
            // Nobody copies a machine with its memory here.
            may_inherit: true,
            host: node.certname.to_string(),
            pid: own.id.0,
            directory: "/var/lib/trigger".to_owned(),
            version: "sim".to_owned(),
            groups: node.groups.clone(),
        }
    });
    let claim = Claim::new(node.fleet.clone(), claimant, remembered.clone(), own.now().elapsed);
    let Channels { activity, seen, release, standing } = channels;
    let mut registrar = Registration { node, claim, remembered, activity, seen, standing };
    tokio::select! {
        biased;
        () = registrar.keep() => {}
        Ok(released) = release => {
            registrar.release().await;
            let _ = released.send(());
        }
    }
}

impl Registration {
    async fn keep(&mut self) {
        let own = self.node.own.clone();
        loop {
            let activity = self.activity.borrow_and_update().clone();
            self.seen.mark_unchanged();
            let _ = self.claim.renew(&activity, own.now()).await;
            own.step("registrar: answered").await;
            if *self.claim.joined() != self.remembered {
                self.remembered = self.claim.joined().clone();
                write_joined(&self.node, &self.remembered);
                own.step("registrar: groups written").await;
            }
            let elapsed = own.now().elapsed;
            self.tell(self.claim.standing(elapsed));
            let pause = self.claim.pause(elapsed, own.jitter());
            tokio::select! {
                biased;
                () = own.sim.sleep(pause) => {}
                () = news(&self.claim, &mut self.seen) => {}
                () = change(&self.node, &mut self.activity), if self.claim.publishes_activity() => {}
            }
        }
    }

    async fn release(&mut self) {
        let own = self.node.own.clone();
        let activity = self.activity.borrow().clone();
        tokio::select! {
            biased;
            released = self.claim.release(&activity, own.now()) => {
                own.note(format_args!("claim released: {released:?}"));
                own.with(|world| world.count("claim released"));
            }
            () = own.sim.sleep(RELEASE_TIMEOUT) => {}
        }
    }

    fn tell(&self, standing: ClaimState) {
        let is_held = matches!(standing, ClaimState::Held { .. });
        let changed = self.standing.send_if_modified(|known| {
            let changed = *known != standing;
            *known = standing;
            changed
        });
        if changed {
            let own = &self.node.own;
            own.note(format_args!("claim held: {is_held}"));
            own.with(|world| world.check_belief(own.id, own.machine, is_held));
        }
    }
}

async fn news(claim: &Claim, seen: &mut watch::Receiver<Revision>) {
    while seen.changed().await.is_ok() {
        if claim.is_news(*seen.borrow_and_update()) {
            return;
        }
    }
    std::future::pending::<()>().await;
}

async fn change(node: &Node, activity: &mut watch::Receiver<Activity>) {
    node.own.sim.sleep(ACTIVITY_SPACING).await;
    if activity.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    node.own.sim.sleep(ACTIVITY_DELAY).await;
}

fn read_joined(node: &Node) -> BTreeMap<GroupName, Revision> {
    let text = node.own.disk(|disk| disk.read(GROUPS).unwrap_or_default().to_owned());
    let line = |line: &str| {
        let (group, revision) = line.split_once(' ')?;
        Some((group.parse().ok()?, Revision(revision.parse().ok()?)))
    };
    text.lines().filter_map(line).collect()
}

fn write_joined(node: &Node, joined: &BTreeMap<GroupName, Revision>) {
    let lines = joined.iter().map(|(group, revision)| format!("{group} {revision}\n")).collect();
    node.own.disk(|disk| disk.write_synced(GROUPS, lines));
}
