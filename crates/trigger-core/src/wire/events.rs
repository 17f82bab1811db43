//! Events on their way: parts, deliveries, lists of members, and what an outbox file holds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Stored, WireError, decode, encode, texts, valid, valid_all};
use crate::delivery::{Delivery, Members};
use crate::event::{Event, MAX_LIFETIME, Part, RunOptions, Targets};
use crate::lineage::{Chain, Hop, Lineage, Loops};
use crate::publication::Publication;
use crate::time::Timestamp;

#[derive(Serialize, Deserialize)]
pub(super) struct EventForm {
    id: String,
    trigger: String,
    origin: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default)]
    noop: bool,
    lineage: Vec<ChainForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fired_in: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    allow_loops: bool,
    fired_at_unix_ms: u64,
    expires_in_seconds: u64,
}

#[derive(Serialize, Deserialize)]
struct ChainForm {
    root: String,
    hops: Vec<HopForm>,
}

#[derive(Serialize, Deserialize)]
struct HopForm {
    trigger: String,
    certname: String,
}

impl EventForm {
    pub(super) fn of(event: &Event) -> Self {
        Self {
            id: event.id.to_string(),
            trigger: event.trigger.to_string(),
            origin: event.origin.to_string(),
            hosts: texts(&event.targets.hosts),
            groups: texts(&event.targets.groups),
            tags: texts(&event.options.tags),
            noop: event.options.noop,
            lineage: event.lineage.chains.iter().map(ChainForm::of).collect(),
            fired_in: event.fired_in.map(|run| run.to_string()),
            allow_loops: event.loops == Loops::Allow,
            fired_at_unix_ms: event.fired_at.as_unix_ms(),
            expires_in_seconds: event.expires_in.as_secs(),
        }
    }

    pub(super) fn read(self) -> Result<Event, WireError> {
        const WHAT: &str = "an event";
        let event = Event {
            id: valid(WHAT, &self.id)?,
            trigger: valid(WHAT, &self.trigger)?,
            origin: valid(WHAT, &self.origin)?,
            targets: Targets { hosts: valid_all(WHAT, &self.hosts)?, groups: valid_all(WHAT, &self.groups)? },
            options: RunOptions { tags: valid_all(WHAT, &self.tags)?, noop: self.noop },
            lineage: Lineage {
                chains: self.lineage.into_iter().map(ChainForm::read).collect::<Result<_, _>>()?,
            },
            fired_in: self.fired_in.map(|run| valid(WHAT, &run)).transpose()?,
            loops: if self.allow_loops { Loops::Allow } else { Loops::Avoid },
            fired_at: Timestamp::from_unix_ms(self.fired_at_unix_ms),
            // What a node remembers of its runs is bounded by it, whoever wrote the event.
            expires_in: Duration::from_secs(self.expires_in_seconds).min(MAX_LIFETIME),
        };
        if event.lineage.chains.is_empty() {
            return Err(WireError::Unreadable { what: WHAT, detail: "its lineage is empty".to_owned() });
        }
        Ok(event)
    }
}

impl ChainForm {
    fn of(chain: &Chain) -> Self {
        let hop =
            |hop: &Hop| HopForm { trigger: hop.trigger.to_string(), certname: hop.certname.to_string() };
        Self { root: chain.root.to_string(), hops: chain.hops.iter().map(hop).collect() }
    }

    fn read(self) -> Result<Chain, WireError> {
        const WHAT: &str = "a lineage";
        let hop = |hop: HopForm| {
            Ok(Hop { trigger: valid(WHAT, &hop.trigger)?, certname: valid(WHAT, &hop.certname)? })
        };
        Ok(Chain {
            root: valid(WHAT, &self.root)?,
            hops: self.hops.into_iter().map(hop).collect::<Result<_, _>>()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct PartForm {
    part: u32,
    parts: u32,
    #[serde(flatten)]
    event: EventForm,
}

impl Stored for Part {
    fn to_wire(&self) -> String {
        encode(PartForm { part: self.index, parts: self.count, event: EventForm::of(&self.event) })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        let form: PartForm = decode("an event", text)?;
        Ok(Self { index: form.part, count: form.parts, event: form.event.read()? })
    }
}

#[derive(Serialize, Deserialize)]
struct DeliveryForm {
    part: u32,
}

impl Stored for Delivery {
    fn to_wire(&self) -> String {
        encode(DeliveryForm { part: self.part })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        decode::<DeliveryForm>("a delivery", text).map(|form| Self { part: form.part })
    }
}

#[derive(Serialize, Deserialize)]
struct MembersForm {
    members: Vec<String>,
}

impl Stored for Members {
    fn to_wire(&self) -> String {
        encode(MembersForm { members: texts(&self.0) })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        let form: MembersForm = decode("a list of members", text)?;
        Ok(Self(valid_all("a list of members", &form.members)?))
    }
}

#[derive(Serialize, Deserialize)]
struct PublicationForm {
    backend: String,
    prefix: String,
    event: EventForm,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    suppressed: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    suppressed_groups: BTreeMap<String, String>,
}

impl Stored for Publication {
    fn to_wire(&self) -> String {
        let suppressed_groups = self.suppressed_groups.iter();
        encode(PublicationForm {
            backend: self.backend.clone(),
            prefix: self.prefix.to_string(),
            event: EventForm::of(&self.event),
            suppressed: self.suppressed.iter().map(|(c, reason)| (c.to_string(), reason.clone())).collect(),
            suppressed_groups: suppressed_groups.map(|(g, reason)| (g.to_string(), reason.clone())).collect(),
        })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        const WHAT: &str = "a fired event";
        let form: PublicationForm = decode(WHAT, text)?;
        let suppressed = form.suppressed.into_iter().map(|(c, reason)| Ok((valid(WHAT, &c)?, reason)));
        let suppressed_groups =
            form.suppressed_groups.into_iter().map(|(group, reason)| Ok((valid(WHAT, &group)?, reason)));
        Ok(Self {
            backend: form.backend,
            prefix: valid(WHAT, &form.prefix)?,
            event: form.event.read()?,
            suppressed: suppressed.collect::<Result<_, _>>()?,
            suppressed_groups: suppressed_groups.collect::<Result<_, _>>()?,
        })
    }
}
