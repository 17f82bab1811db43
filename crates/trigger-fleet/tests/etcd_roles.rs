//! The work of nodes at a real etcd with authentication stays within their roles, also what they do once an hour.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects")]

#[path = "support/etcd_server.rs"]
mod etcd_server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Permission, UserAddOptions};
use etcd_server::EtcdServer;
use trigger_core::delivery::{Completion, DeliveryOutcome};
use trigger_core::event::{DEFAULT_LIFETIME, Event, RunOptions, Target, Targets};
use trigger_core::identity::{Certname, EventId, KeyPrefix, RunId};
use trigger_core::key_roles::{Access, KeyRole};
use trigger_core::keyspace::{Key, Keyspace, Range};
use trigger_core::lineage::{Lineage, Loops};
use trigger_core::node::{Activity, NodeRecord};
use trigger_core::publication::Publication;
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::sweep::{EVENT_RETENTION, SWEEP_GRACE_PERIOD};
use trigger_core::time::Timestamp;
use trigger_fleet::Fleet;
use trigger_fleet::sweeping::Swept;
use trigger_pki::testing::TestCa;
use trigger_pki::{LazyPki, TlsFiles};
use trigger_store::backend::Backend;
use trigger_store::credentials::Credentials;
use trigger_store::store::{KeyRange, StoreError};
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);
const WEB: &str = "web01";
const LB: &str = "lb01";
/// It never registers.
const GONE: &str = "gone";

fn node(name: &str) -> Certname {
    name.parse().unwrap()
}

fn event_id() -> EventId {
    EventId::from_uuid(Uuid::from_u128(1))
}

async fn grant(server: &EtcdServer, nodes: &[&str]) {
    let mut etcd = server.raw().await;
    let keyspace = Keyspace::default();
    let without_password = || Some(UserAddOptions::new().with_no_pwd());
    etcd.user_add("root", "", without_password()).await.unwrap();
    etcd.user_grant_role("root", "root").await.unwrap();
    let own = nodes.iter().map(|name| KeyRole::of_node(&keyspace, &node(name)));
    let roles: Vec<KeyRole> = std::iter::once(KeyRole::of_fleet(&keyspace)).chain(own).collect();
    for KeyRole { name, grants } in &roles {
        etcd.role_add(name.as_str()).await.unwrap();
        for grant in grants {
            let key = grant.key.as_str();
            let permission = match grant.access {
                Access::Read => Permission::read(key),
                Access::Write => Permission::write(key),
                Access::ReadWrite => Permission::read_write(key),
            };
            let permission = if grant.is_prefix { permission.with_prefix() } else { permission };
            etcd.role_grant_permission(name.as_str(), permission).await.unwrap();
        }
    }
    for (name, own) in nodes.iter().zip(&roles[1..]) {
        etcd.user_add(*name, "", without_password()).await.unwrap();
        etcd.user_grant_role(*name, roles[0].name.as_str()).await.unwrap();
        etcd.user_grant_role(*name, own.name.as_str()).await.unwrap();
    }
    etcd.auth_enable().await.unwrap();
}

/// A node's own fleet, by its certificate.
fn fleet(server: &EtcdServer, certname: &str, files: TlsFiles) -> Fleet {
    let credentials = Credentials { tls: Some(LazyPki::new(files)) };
    let url = format!("etcds://{}", server.tls_endpoint()).parse().unwrap();
    let store = Arc::clone(Backend::open(&url, &credentials).unwrap().store().unwrap());
    Fleet::new(store, Keyspace::default()).acting_as(node(certname))
}

async fn register(fleet: &Fleet, certname: &str, seen_at: Timestamp) -> Result<(), StoreError> {
    let record = NodeRecord {
        instance: certname.to_owned(),
        lock: None,
        released: false,
        location: String::new(),
        renewals: 1,
        version: "0".to_owned(),
        seen_at,
        groups: BTreeMap::new(),
        activity: Activity::default(),
    };
    let key = fleet.keyspace().key(&Key::Node { certname: node(certname) });
    fleet.store().put_many(vec![(key, fleet.codec().encode(&record))]).await.remove(0).map(drop)
}

fn publication() -> Publication {
    let event = Event {
        id: event_id(),
        trigger: "refresh".parse().unwrap(),
        origin: node(WEB),
        targets: Targets { hosts: [node(LB), node(GONE)].into(), groups: Default::default() },
        options: RunOptions::default(),
        lineage: Lineage::root(event_id()),
        fired_in: None,
        fired_by: None,
        catalog: None,
        loops: Loops::Avoid,
        fired_at: NOW,
        expires_in: DEFAULT_LIFETIME,
    };
    let (suppressed, suppressed_groups) = Default::default();
    Publication { backend: String::new(), prefix: KeyPrefix::default(), event, suppressed, suppressed_groups }
}

fn done() -> DeliveryOutcome {
    let result = RunResult {
        outcome: RunOutcome::Changed,
        reason: None,
        reported_noop: false,
        drift: Default::default(),
        started_at: NOW,
        finished_at: NOW,
    };
    DeliveryOutcome::Done(CompletedRun::new(RunId::from_uuid(Uuid::from_u128(2)), false, result))
}

/// Proves C13.
#[tokio::test]
async fn a_sweep_expires_and_removes_within_the_roles_of_its_node() {
    let directory = tempfile::tempdir().unwrap();
    let mut ca = TestCa::new("puppet").unwrap();
    let mut files = |name: &str| ca.node(&directory.path().join(name), name).unwrap();
    let server = EtcdServer::start_with_tls(&files("localhost"), &[]).await;
    grant(&server, &[WEB, LB]).await;
    let (web, lb) = (fleet(&server, WEB, files(WEB)), fleet(&server, LB, files(LB)));
    register(&web, WEB, NOW).await.unwrap();
    register(&lb, LB, NOW).await.unwrap();
    let refused = register(&web, LB, NOW).await.unwrap_err();
    assert!(matches!(refused, StoreError::Denied { .. }), "{refused}");

    web.publish(&publication(), true).await.unwrap();
    let addressed_as = [Target::Node(node(LB))].into();
    lb.finish(&[Completion { event: event_id(), addressed_as, outcome: done() }]).await.unwrap();
    // The node that sweeps is neither the origin nor the one whose delivery expires.
    assert!(lb.try_acquire_sweep(None, false).await.unwrap().0);
    let swept_after = async |after: Duration| {
        let now = publication().event.expires_at().plus(after + Duration::from_secs(1));
        register(&web, WEB, now).await.unwrap();
        register(&lb, LB, now).await.unwrap();
        lb.sweep(now, None).await.unwrap()
    };
    assert_eq!(swept_after(SWEEP_GRACE_PERIOD).await, Swept { expired: 1, removed: 0 });
    assert_eq!(swept_after(EVENT_RETENTION).await, Swept { expired: 0, removed: 1 });
    let left = [Range::Event(event_id()), Range::Outcomes(event_id())];
    let left = left.map(|range| KeyRange::Prefix(web.keyspace().range(&range)));
    assert_eq!(web.store().list(&left).await.unwrap(), []);
}
