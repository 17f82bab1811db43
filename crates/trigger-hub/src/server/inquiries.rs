//! Answers the questions that a node has no right to find the answers to by itself: what led to its runs, and which events
//! concern it. The hub reads with its own rights, and answers with what concerns the asker. An operator sees all.

mod recorder;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use trigger_core::authorization::{Role, Scope};
use trigger_core::identity::{EventId, KeyPrefix};
use trigger_core::keyspace::{Key, Keyspace, Range};
use trigger_core::why::{Asker, Explanation, Question};
use trigger_fleet::Fleet;
use trigger_store::hub_protocol::{EntryForm, StatusReply, StatusRequest, WhyReply, WhyRequest};
use trigger_store::inquiry::{MAX_EVENTS, VisibleEvent, VisibleEvents, WantedEvents};
use trigger_store::store::{Entry, Store};

use self::recorder::Recorder;
use super::authorization::{Check, Sight};
use super::body::InquiryBody;
use super::caller::{Caller, MaybeCaller};
use super::refusal::Refusal;
use super::state::ServerState;

/// How many of the latest events are looked at for those that concern one node.
const MAX_EVENTS_SCANNED: usize = 4096;
/// How many events are looked at together.
const EVENTS_PER_LOOK: usize = 128;

const OWN_RUNS: &str = "a node asks about its own runs, and about the events that concern it";
const OWN_EVENTS: &str =
    "a node sees the events that it has fired, that were delivered to it, or that are for groups";

/// Answers `POST /v1/why`.
pub(super) async fn why(
    State(state): State<Arc<ServerState>>,
    caller: MaybeCaller,
    body: InquiryBody<WhyRequest>,
) -> Result<Json<WhyReply>, Refusal> {
    let WhyRequest { prefix, about } = body.0;
    let question = Question::from(about);
    let check = state.check(caller.0.as_ref(), "why")?;
    let keyspace = keyspace(check.as_ref(), prefix)?;
    let limited = limited(check.as_ref());
    match (limited, &question) {
        (Some((check, node)), Question::Run(certname, _)) if *certname != node.actor.certname => {
            return Err(check.forbid(&format!("ask why {certname} ran"), OWN_RUNS));
        }
        (Some((check, _)), Question::Event(event)) => {
            match check.may_read(vec![Scope::Range(Range::Event(*event))]).await?[..] {
                [Sight::Whole] => {}
                [Sight::Nothing] => return Ok(Json(WhyReply { entries: Vec::new() })),
                _ => return Err(check.forbid(&format!("ask about event {event}"), OWN_RUNS)),
            }
        }
        _ => {}
    }
    let asker = limited.map_or(Asker::Reader, |(_, node)| Asker::Node(node.actor.certname.clone()));
    let recorder = Arc::new(Recorder::new(state.store.clone(), keyspace.clone()));
    // Where the question has no answer, its asker finds that out from the same entries.
    let fleet = Fleet::new(recorder.clone(), keyspace.clone());
    let explanation = fleet.explain_to(&asker, &question, &mut Default::default()).await?.unwrap_or_default();
    let mut entries = recorder.entries();
    if let Some((check, _)) = limited {
        entries.retain(|entry| explains(&explanation, &question, &asker, keyspace.parse(&entry.key)));
        entries = without_others_outcomes(check, &keyspace, entries).await?;
    }
    Ok(Json(WhyReply { entries: entries.into_iter().map(EntryForm::from).collect() }))
}

/// Whether a value that was read belongs to the explanation for a node.
fn explains(explanation: &Explanation, question: &Question, asker: &Asker, key: Option<Key>) -> bool {
    match key {
        Some(Key::Node { certname } | Key::RunHistory { certname }) => {
            explanation.runs.iter().any(|run| run.certname == certname) || *asker == Asker::Node(certname)
        }
        Some(Key::Part { event, .. }) => {
            *question == Question::Event(event)
                || explanation.event(event).is_some_and(|step| step.is_followed)
        }
        Some(Key::Outcome { .. }) => true,
        _ => false,
    }
}

/// Leaves out how events of other nodes ended at other nodes: that explains nothing of what led to a run.
async fn without_others_outcomes(
    check: &Check<'_>,
    keyspace: &Keyspace,
    entries: Vec<Entry>,
) -> Result<Vec<Entry>, Refusal> {
    let outcome = |entry: &Entry| keyspace.parse(&entry.key).filter(|key| matches!(key, Key::Outcome { .. }));
    let (outcomes, mut others): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| outcome(entry).is_some());
    let may_see = check.may_read(outcomes.iter().filter_map(outcome).map(Scope::Key).collect()).await?;
    let visible = outcomes.into_iter().zip(may_see).filter(|(_, sight)| *sight == Sight::Whole);
    others.extend(visible.map(|(entry, _)| entry));
    Ok(others)
}

/// Answers `POST /v1/status`.
pub(super) async fn status(
    State(state): State<Arc<ServerState>>,
    caller: MaybeCaller,
    body: InquiryBody<StatusRequest>,
) -> Result<Json<StatusReply>, Refusal> {
    let StatusRequest { prefix, wanted } = body.0;
    let wanted = WantedEvents::from(wanted);
    let count = match &wanted {
        WantedEvents::These(events) => events.len(),
        WantedEvents::Latest(count) => *count,
    };
    if count > MAX_EVENTS {
        return Err(Refusal::bad_request(format!(
            "{count} events are more than one question takes ({MAX_EVENTS})"
        )));
    }
    let check = state.check(caller.0.as_ref(), "status")?;
    let keyspace = keyspace(check.as_ref(), prefix)?;
    let store: Arc<dyn Store> = state.store.clone();
    let fleet = Fleet::new(store, keyspace);
    let sees_all = limited(check.as_ref()).is_none();
    let events = match (limited(check.as_ref()), wanted) {
        (None, WantedEvents::These(events)) => whole(fleet.stored_among(&events).await?),
        (None, WantedEvents::Latest(count)) => {
            whole(fleet.newest_events().await?.into_iter().take(count).collect())
        }
        (Some((check, _)), WantedEvents::These(events)) => {
            these(check, fleet.stored_among(&events).await?).await?
        }
        (Some((check, _)), WantedEvents::Latest(count)) => {
            latest(check, fleet.newest_events().await?, count).await?
        }
    };
    let asker = caller.0.map(|caller| caller.actor.certname);
    let mut visible = VisibleEvents { events, entries: Vec::new(), asker, sees_all };
    if let Some(asker) = &visible.asker {
        for shown in visible.events.iter().filter(|shown| !shown.is_whole) {
            visible.entries.extend(fleet.entries_about(shown.event, asker).await?);
        }
    }
    Ok(Json(visible.into()))
}

/// The keys below the prefix that is asked for; a hub that knows its clients serves one prefix.
fn keyspace(check: Option<&Check<'_>>, prefix: KeyPrefix) -> Result<Keyspace, Refusal> {
    match check {
        Some(check) if *check.keyspace().prefix() != prefix => {
            let rule = format!("this hub serves the keys below {} only", check.keyspace().prefix());
            Err(check.forbid(&format!("ask about events below {prefix}"), &rule))
        }
        _ => Ok(Keyspace::new(prefix)),
    }
}

/// The checks that limit what a client sees, and the client, unless it may see all.
fn limited<'a>(check: Option<&'a Check<'a>>) -> Option<(&'a Check<'a>, &'a Caller)> {
    check.map(|check| (check, check.caller())).filter(|(_, caller)| caller.actor.role == Role::Node)
}

fn whole(events: Vec<EventId>) -> Vec<VisibleEvent> {
    events.into_iter().map(|event| VisibleEvent { event, is_whole: true }).collect()
}

/// What a node may see of events that it names.
async fn these(check: &Check<'_>, events: Vec<EventId>) -> Result<Vec<VisibleEvent>, Refusal> {
    let mut shown = Vec::new();
    for (event, sight) in events.iter().zip(sights(check, &events).await?) {
        match sight {
            Some(visible) => shown.push(visible),
            None => return Err(check.forbid(&format!("see event {event}"), OWN_EVENTS)),
        }
    }
    Ok(shown)
}

/// The latest events that concern a node.
async fn latest(
    check: &Check<'_>,
    newest_first: Vec<EventId>,
    count: usize,
) -> Result<Vec<VisibleEvent>, Refusal> {
    let mut shown = Vec::new();
    for events in newest_first[..newest_first.len().min(MAX_EVENTS_SCANNED)].chunks(EVENTS_PER_LOOK) {
        shown.extend(sights(check, events).await?.into_iter().flatten());
        if shown.len() >= count {
            break;
        }
    }
    shown.truncate(count);
    Ok(shown)
}

/// What a node may see of each event: nothing, its share, or all.
async fn sights(check: &Check<'_>, events: &[EventId]) -> Result<Vec<Option<VisibleEvent>>, Refusal> {
    let scopes = |range: fn(EventId) -> Range| events.iter().map(move |event| Scope::Range(range(*event)));
    let may_see = check.may_read(scopes(Range::Event).chain(scopes(Range::Outcomes)).collect()).await?;
    let (share, whole) = may_see.split_at(events.len());
    let sight = |(event, (share, whole)): (&EventId, (&Sight, &Sight))| {
        let is_whole = *whole == Sight::Whole;
        (*share == Sight::Whole).then_some(VisibleEvent { event: *event, is_whole })
    };
    Ok(events.iter().zip(share.iter().zip(whole)).map(sight).collect())
}
