//! Events on their way: parts, deliveries, lists of members, notes of sweeps, and the content of an outbox file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Stored, WireError, read, write};
use crate::delivery::{Delivery, Members};
use crate::event::{Declaration, Event, FiredBy, FiringResource, MAX_LIFETIME, Part, RunOptions, Targets};
use crate::identity::{
    CatalogUuid, Certname, Environment, EventId, GroupName, KeyPrefix, RunId, Tag, TriggerName,
};
use crate::lineage::{Chain, Hop, Lineage, Loops};
use crate::publication::Publication;
use crate::sweep::Settled;
use crate::time::Timestamp;

#[derive(Serialize, Deserialize)]
pub(super) struct EventForm {
    id: EventId,
    trigger: TriggerName,
    origin: Certname,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    hosts: BTreeSet<Certname>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    groups: BTreeSet<GroupName>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    tags: BTreeSet<Tag>,
    #[serde(default)]
    noop: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    environment: Option<Environment>,
    lineage: Vec<ChainForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fired_in: Option<RunId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fired_by: Option<ResourceForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_of: Option<EventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    catalog: Option<CatalogUuid>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    allow_loops: bool,
    fired_at_unix_ms: Timestamp,
    expires_in_seconds: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ResourceForm {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct ChainForm {
    root: EventId,
    hops: Vec<HopForm>,
}

#[derive(Serialize, Deserialize)]
struct HopForm {
    trigger: TriggerName,
    certname: Certname,
}

impl EventForm {
    pub(super) fn of(event: Event) -> Self {
        Self {
            id: event.id,
            trigger: event.trigger,
            origin: event.origin,
            hosts: event.targets.hosts,
            groups: event.targets.groups,
            tags: event.options.tags,
            noop: event.options.noop,
            environment: event.options.environment,
            lineage: event.lineage.chains.into_iter().map(ChainForm::of).collect(),
            fired_in: event.fired_in,
            retry_of: event.fired_by.as_ref().and_then(FiredBy::retried),
            fired_by: ResourceForm::of(event.fired_by),
            catalog: event.catalog,
            allow_loops: event.loops == Loops::Allow,
            fired_at_unix_ms: event.fired_at,
            expires_in_seconds: event.expires_in.as_secs(),
        }
    }

    pub(super) fn read(self) -> Result<Event, WireError> {
        if self.lineage.is_empty() {
            let detail = "its lineage is empty".to_owned();
            return Err(WireError::Unreadable { what: "an event", detail });
        }
        if !self.id.may_be_of(&self.origin) {
            let detail =
                format!("its id {} is not one of {}, which it names as its origin", self.id, self.origin);
            return Err(WireError::Unreadable { what: "an event", detail });
        }
        Ok(Event {
            id: self.id,
            trigger: self.trigger,
            origin: self.origin,
            targets: Targets { hosts: self.hosts, groups: self.groups },
            options: RunOptions { tags: self.tags, noop: self.noop, environment: self.environment },
            lineage: Lineage { chains: self.lineage.into_iter().map(ChainForm::read).collect() },
            fired_in: self.fired_in,
            fired_by: ResourceForm::read(self.fired_by, self.retry_of),
            catalog: self.catalog,
            loops: if self.allow_loops { Loops::Allow } else { Loops::Avoid },
            fired_at: self.fired_at_unix_ms,
            // Bounds how long a node has to remember the event, whichever node wrote it.
            expires_in: Duration::from_secs(self.expires_in_seconds).min(MAX_LIFETIME),
        })
    }
}

impl ResourceForm {
    /// The form of a resource; an event that was retried has a field of its own.
    pub(super) fn of(fired_by: Option<FiredBy>) -> Option<Self> {
        let Some(FiredBy::Resource(FiringResource { path, declared })) = fired_by else { return None };
        let (file, line) = declared.map_or((None, None), |Declaration { file, line }| (Some(file), line));
        Some(Self { path, file, line })
    }

    pub(super) fn read(form: Option<Self>, retry_of: Option<EventId>) -> Option<FiredBy> {
        let resource = form.map(|Self { path, file, line }| {
            FiredBy::Resource(FiringResource::new(&path, file.as_deref().map(|file| (file, line))))
        });
        resource.or(retry_of.map(FiredBy::RetryOf))
    }
}

impl ChainForm {
    fn of(chain: Chain) -> Self {
        let hop = |Hop { trigger, certname }| HopForm { trigger, certname };
        Self { root: chain.root, hops: chain.hops.into_iter().map(hop).collect() }
    }

    fn read(self) -> Chain {
        let hop = |HopForm { trigger, certname }| Hop { trigger, certname };
        Chain { root: self.root, hops: self.hops.into_iter().map(hop).collect() }
    }
}

#[derive(Serialize, Deserialize)]
struct PartForm {
    part: u32,
    parts: u32,
    event: EventForm,
}

impl Stored for Part {
    const WHAT: &'static str = "an event";

    fn to_body(&self) -> String {
        write(&PartForm { part: self.index, parts: self.count, event: EventForm::of(self.event.clone()) })
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        let form: PartForm = read(Self::WHAT, body)?;
        Ok(Self { index: form.part, count: form.parts, event: form.event.read()? })
    }
}

#[derive(Serialize, Deserialize)]
struct DeliveryForm {
    part: u32,
}

impl Stored for Delivery {
    const WHAT: &'static str = "a delivery";

    fn to_body(&self) -> String {
        write(&DeliveryForm { part: self.part })
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        read::<DeliveryForm>(Self::WHAT, body).map(|form| Self { part: form.part })
    }
}

#[derive(Serialize, Deserialize)]
struct MembersForm {
    members: BTreeSet<Certname>,
}

impl Stored for Members {
    const WHAT: &'static str = "a list of members";

    fn to_body(&self) -> String {
        write(&MembersForm { members: self.0.clone() })
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        read::<MembersForm>(Self::WHAT, body).map(|form| Self(form.members))
    }
}

#[derive(Serialize, Deserialize)]
struct SettledForm {
    removable_after_unix_ms: Timestamp,
}

impl Stored for Settled {
    const WHAT: &'static str = "a note of an event's end";

    fn to_body(&self) -> String {
        write(&SettledForm { removable_after_unix_ms: self.removable_after })
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        let form: SettledForm = read(Self::WHAT, body)?;
        Ok(Self { removable_after: form.removable_after_unix_ms })
    }
}

#[derive(Serialize, Deserialize)]
struct PublicationForm {
    backend: String,
    prefix: KeyPrefix,
    event: EventForm,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    suppressed: BTreeMap<Certname, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    suppressed_groups: BTreeMap<GroupName, String>,
}

impl Stored for Publication {
    const WHAT: &'static str = "a fired event";

    fn to_body(&self) -> String {
        let Self { backend, prefix, event, suppressed, suppressed_groups } = self.clone();
        let event = EventForm::of(event);
        write(&PublicationForm { backend, prefix, event, suppressed, suppressed_groups })
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        let form: PublicationForm = read(Self::WHAT, body)?;
        Ok(Self {
            backend: form.backend,
            prefix: form.prefix,
            event: form.event.read()?,
            suppressed: form.suppressed,
            suppressed_groups: form.suppressed_groups,
        })
    }
}
