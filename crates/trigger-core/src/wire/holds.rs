//! Orders to hold a node, and a node's note of the one that it has accepted last.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Stored, WireError, optional_sentence, read, write};
use crate::holds::{Demand, HoldNote, HoldOrder};
use crate::identity::Certname;
use crate::time::Timestamp;

#[derive(Serialize, Deserialize)]
struct HoldOrderForm {
    number: u64,
    by: Certname,
    at_unix_ms: Timestamp,
    demand: DemandForm,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DemandForm {
    Hold(HoldForm),
    Release,
}

#[derive(Serialize, Deserialize)]
struct HoldForm {
    lasts_seconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_sentence")]
    reason: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct HoldNoteForm {
    order: HoldOrderForm,
    left_seconds: u64,
    noted_at_unix_ms: Timestamp,
}

impl From<HoldOrder> for HoldOrderForm {
    fn from(HoldOrder { number, by, at, demand }: HoldOrder) -> Self {
        let demand = match demand {
            Demand::Hold { lasts, reason } => {
                DemandForm::Hold(HoldForm { lasts_seconds: lasts.as_secs(), reason })
            }
            Demand::Release => DemandForm::Release,
        };
        Self { number, by, at_unix_ms: at, demand }
    }
}

impl From<HoldOrderForm> for HoldOrder {
    fn from(HoldOrderForm { number, by, at_unix_ms, demand }: HoldOrderForm) -> Self {
        let demand = match demand {
            DemandForm::Hold(HoldForm { lasts_seconds, reason }) => {
                Demand::hold(Duration::from_secs(lasts_seconds), reason.as_deref())
            }
            DemandForm::Release => Demand::Release,
        };
        Self { number, by, at: at_unix_ms, demand }
    }
}

impl Stored for HoldOrder {
    const WHAT: &'static str = "an order to hold a node";

    fn to_body(&self) -> String {
        write(&HoldOrderForm::from(self.clone()))
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        let form: HoldOrderForm = read(Self::WHAT, body)?;
        Ok(form.into())
    }
}

impl Stored for HoldNote {
    const WHAT: &'static str = "the note of a node's hold";

    fn to_body(&self) -> String {
        let Self { order, left, noted_at } = self.clone();
        write(&HoldNoteForm { order: order.into(), left_seconds: left.as_secs(), noted_at_unix_ms: noted_at })
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        let HoldNoteForm { order, left_seconds, noted_at_unix_ms } = read(Self::WHAT, body)?;
        Ok(Self { order: order.into(), left: Duration::from_secs(left_seconds), noted_at: noted_at_unix_ms })
    }
}
