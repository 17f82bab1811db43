use std::sync::{Arc, Mutex};

use tokio::time::{Instant, advance, timeout};
use trigger_core::identity::CatalogUuid;
use trigger_core::time::Timestamp;
use uuid::Uuid;

use super::*;
use crate::os::Os;

/// A PuppetDB whose answers a test decides. It notes what it was asked and when.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_absent: bool,
    stored: BTreeMap<Certname, StoredCatalog>,
    error: Option<AskError>,
    asked: Vec<(Duration, Vec<String>)>,
    begun: Option<Instant>,
}

impl Fake {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    fn asked(&self) -> Vec<Vec<String>> {
        self.with(|state| std::mem::take(&mut state.asked)).into_iter().map(|(_, names)| names).collect()
    }
}

impl PuppetDb for Fake {
    fn is_there(&self) -> bool {
        self.with(|state| !state.is_absent)
    }

    async fn catalogs(&self, names: &[Certname]) -> Result<BTreeMap<Certname, StoredCatalog>, AskError> {
        self.with(|state| {
            let begun = *state.begun.get_or_insert_with(Instant::now);
            state.asked.push((begun.elapsed(), names.iter().map(ToString::to_string).collect()));
            let stored = state.stored.iter().filter(|(name, _)| names.contains(name));
            let stored = stored.map(|(name, catalog)| (name.clone(), catalog.clone())).collect();
            state.error.clone().map_or(Ok(stored), Err)
        })
    }
}

fn names(names: &[&str]) -> BTreeSet<Certname> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn catalog() -> StoredCatalog {
    let uuid = Some(CatalogUuid::from_uuid(Uuid::from_u128(7)));
    StoredCatalog { uuid, produced_at: Timestamp::from_unix_ms(1) }
}

fn start(fake: &Fake) -> CatalogChannels {
    let (channels, task) = watch(Os::start(), fake.clone());
    tokio::spawn(task);
    channels
}

async fn next(channels: &mut CatalogChannels) -> Option<Catalogs> {
    let changed = timeout(Duration::from_secs(30), channels.catalogs.changed()).await;
    changed.ok().map(|_| channels.catalogs.borrow_and_update().clone())
}

#[tokio::test(start_paused = true)]
async fn a_catalog_is_asked_for_until_it_is_stored_and_less_and_less_often() {
    let fake = Fake::default();
    let mut channels = start(&fake);
    assert_eq!(*channels.catalogs.borrow(), Catalogs::Unknown);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(fake.asked(), [[""; 0]; 0], "nothing is awaited");
    channels.awaited.send_replace(names(&["web01"]));
    assert_eq!(next(&mut channels).await, Some(Catalogs::Stored(BTreeMap::new())));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let at: Vec<Duration> = fake.with(|state| state.asked.iter().map(|(at, _)| *at).collect());
    let gaps: Vec<u128> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert!(
        gaps.len() < 40 && gaps[0] < gaps[gaps.len() - 1] && gaps.iter().all(|gap| (380..4000).contains(gap)),
        "{gaps:?}"
    );
    fake.with(|state| state.stored.insert("web01".parse().unwrap(), catalog()));
    let stored = Catalogs::Stored([("web01".parse().unwrap(), catalog())].into());
    assert_eq!(next(&mut channels).await, Some(stored));
    fake.asked();
    channels.awaited.send_replace(BTreeSet::new());
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(fake.asked(), [[""; 0]; 0]);
}

#[tokio::test(start_paused = true)]
async fn one_question_is_for_all_nodes_and_a_burst_shares_it() {
    let fake = Fake::default();
    let channels = start(&fake);
    channels.awaited.send_replace(names(&["web01", "web02"]));
    advance(Duration::from_millis(1)).await;
    tokio::task::yield_now().await;
    for n in 0..50 {
        channels.awaited.send_modify(|awaited| awaited.extend(names(&[&format!("db{n:02}")])));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = fake.asked();
    assert_eq!(asked.iter().map(Vec::len).collect::<Vec<_>>(), [2, 52]);
    let many: BTreeSet<Certname> = (0..MAX_ASKED + 1).map(|n| format!("n{n}").parse().unwrap()).collect();
    channels.awaited.send_replace(many);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(fake.asked().iter().map(Vec::len).collect::<Vec<_>>(), [MAX_ASKED, 1]);
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_puppetdb_nothing_is_asked_until_there_is_one() {
    let fake = Fake::default();
    fake.with(|state| state.is_absent = true);
    let mut channels = start(&fake);
    assert_eq!(*channels.catalogs.borrow(), Catalogs::NotAsked);
    tokio::time::sleep(Duration::from_secs(200)).await;
    fake.with(|state| state.is_absent = false);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(next(&mut channels).await, Some(Catalogs::Unknown));
    fake.with(|state| state.is_absent = true);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(next(&mut channels).await, Some(Catalogs::NotAsked));
    assert_eq!(fake.asked(), [[""; 0]; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_puppetdb_that_refuses_or_is_out_of_reach_is_not_waited_for() {
    let refused = AskError::Refused("it answered 403".to_owned());
    let failed = AskError::Failed("no route".to_owned());
    for error in [refused, failed] {
        let fake = Fake::default();
        fake.with(|state| state.error = Some(error.clone()));
        let mut channels = start(&fake);
        channels.awaited.send_replace(names(&["web01"]));
        assert_eq!(next(&mut channels).await, Some(Catalogs::NotAsked), "{error:?}");
        // The queue awaits nothing then. Later it may answer.
        channels.awaited.send_replace(BTreeSet::new());
        fake.with(|state| state.error = None);
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(next(&mut channels).await, Some(Catalogs::Unknown));
        channels.awaited.send_replace(names(&["web01"]));
        assert_eq!(next(&mut channels).await, Some(Catalogs::Stored(BTreeMap::new())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_puppetdb_that_has_answered_before_is_waited_for_while_it_restarts() {
    let fake = Fake::default();
    let mut channels = start(&fake);
    channels.awaited.send_replace(names(&["web01"]));
    assert_eq!(next(&mut channels).await, Some(Catalogs::Stored(BTreeMap::new())));
    fake.with(|state| state.error = Some(AskError::Failed("refused".to_owned())));
    assert_eq!(next(&mut channels).await, None, "it stays as it is");
    fake.with(|state| {
        state.error = None;
        state.stored.insert("web01".parse().unwrap(), catalog());
    });
    assert!(matches!(next(&mut channels).await, Some(Catalogs::Stored(stored)) if stored.len() == 1));
}
