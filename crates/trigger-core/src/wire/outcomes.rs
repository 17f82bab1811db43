//! The outcomes of deliveries.

use serde::{Deserialize, Serialize};

use super::runs::RunResultForm;
use super::{Stored, WireError, optional_sentence, read, sentence, write};
use crate::delivery::DeliveryOutcome;
use crate::identity::{Certname, EventId, RunId};
use crate::run::CompletedRun;

#[derive(Serialize, Deserialize)]
pub(super) struct CompletedRunForm {
    run_id: RunId,
    noop: bool,
    #[serde(flatten)]
    result: RunResultForm,
}

impl CompletedRunForm {
    pub(super) fn of(run: CompletedRun) -> Self {
        Self { run_id: run.run_id, noop: run.noop, result: RunResultForm::of(run.result) }
    }

    pub(super) fn read(self) -> CompletedRun {
        CompletedRun { run_id: self.run_id, noop: self.noop, result: self.result.read() }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum DeliveryOutcomeForm {
    Done(CompletedRunForm),
    Failed(CompletedRunForm),
    Expired {
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_sentence")]
        reason: Option<String>,
    },
    Refused {
        #[serde(deserialize_with = "sentence")]
        reason: String,
    },
    Suppressed {
        #[serde(deserialize_with = "sentence")]
        reason: String,
    },
    Superseded {
        by: EventId,
    },
    Cancelled {
        by: Certname,
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_sentence")]
        reason: Option<String>,
    },
}

impl Stored for DeliveryOutcome {
    const WHAT: &'static str = "an outcome";

    fn to_body(&self) -> String {
        write(&match self.clone() {
            Self::Done(run) => DeliveryOutcomeForm::Done(CompletedRunForm::of(run)),
            Self::Failed(run) => DeliveryOutcomeForm::Failed(CompletedRunForm::of(run)),
            Self::Expired(reason) => DeliveryOutcomeForm::Expired { reason },
            Self::Refused(reason) => DeliveryOutcomeForm::Refused { reason },
            Self::Suppressed(reason) => DeliveryOutcomeForm::Suppressed { reason },
            Self::Superseded(by) => DeliveryOutcomeForm::Superseded { by },
            Self::Cancelled { by, reason } => DeliveryOutcomeForm::Cancelled { by, reason },
        })
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        Ok(match read(Self::WHAT, body)? {
            DeliveryOutcomeForm::Done(form) => Self::Done(form.read()),
            DeliveryOutcomeForm::Failed(form) => Self::Failed(form.read()),
            DeliveryOutcomeForm::Expired { reason } => Self::Expired(reason),
            DeliveryOutcomeForm::Refused { reason } => Self::Refused(reason),
            DeliveryOutcomeForm::Suppressed { reason } => Self::Suppressed(reason),
            DeliveryOutcomeForm::Superseded { by } => Self::Superseded(by),
            DeliveryOutcomeForm::Cancelled { by, reason } => Self::Cancelled { by, reason },
        })
    }
}
