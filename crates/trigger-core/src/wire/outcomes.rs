//! How deliveries ended.

use serde::{Deserialize, Serialize};

use super::runs::RunResultForm;
use super::{Stored, WireError, decode, encode, sentence, valid};
use crate::delivery::DeliveryOutcome;
use crate::run::CompletedRun;

#[derive(Serialize, Deserialize)]
pub(super) struct CompletedRunForm {
    run_id: String,
    noop: bool,
    #[serde(flatten)]
    result: RunResultForm,
}

impl CompletedRunForm {
    pub(super) fn of(run: &CompletedRun) -> Self {
        Self { run_id: run.run_id.to_string(), noop: run.noop, result: RunResultForm::of(&run.result) }
    }

    pub(super) fn read(self) -> Result<CompletedRun, WireError> {
        Ok(CompletedRun {
            run_id: valid("an ended run", &self.run_id)?,
            noop: self.noop,
            result: self.result.read()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum DeliveryOutcomeForm {
    Done(CompletedRunForm),
    Failed(CompletedRunForm),
    Expired,
    Refused { reason: String },
    Suppressed { reason: String },
    Superseded { by: String },
}

impl Stored for DeliveryOutcome {
    fn to_wire(&self) -> String {
        encode(match self {
            Self::Done(ended) => DeliveryOutcomeForm::Done(CompletedRunForm::of(ended)),
            Self::Failed(ended) => DeliveryOutcomeForm::Failed(CompletedRunForm::of(ended)),
            Self::Expired => DeliveryOutcomeForm::Expired,
            Self::Refused(reason) => DeliveryOutcomeForm::Refused { reason: reason.clone() },
            Self::Suppressed(reason) => DeliveryOutcomeForm::Suppressed { reason: reason.clone() },
            Self::Superseded(by) => DeliveryOutcomeForm::Superseded { by: by.to_string() },
        })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        const WHAT: &str = "an outcome";
        Ok(match decode(WHAT, text)? {
            DeliveryOutcomeForm::Done(form) => Self::Done(form.read()?),
            DeliveryOutcomeForm::Failed(form) => Self::Failed(form.read()?),
            DeliveryOutcomeForm::Expired => Self::Expired,
            DeliveryOutcomeForm::Refused { reason } => Self::Refused(sentence(reason)),
            DeliveryOutcomeForm::Suppressed { reason } => Self::Suppressed(sentence(reason)),
            DeliveryOutcomeForm::Superseded { by } => Self::Superseded(valid(WHAT, &by)?),
        })
    }
}
