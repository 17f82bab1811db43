//! How deliveries ended.

use serde::{Deserialize, Serialize};

use super::runs::RunResultForm;
use super::{Stored, WireError, decode, encode, sentence, valid};
use crate::outcome::{End, EndedRun};

#[derive(Serialize, Deserialize)]
pub(super) struct EndedRunForm {
    run_id: String,
    noop: bool,
    #[serde(flatten)]
    result: RunResultForm,
}

impl EndedRunForm {
    pub(super) fn of(run: &EndedRun) -> Self {
        Self { run_id: run.run_id.to_string(), noop: run.noop, result: RunResultForm::of(&run.result) }
    }

    pub(super) fn read(self) -> Result<EndedRun, WireError> {
        Ok(EndedRun {
            run_id: valid("an ended run", &self.run_id)?,
            noop: self.noop,
            result: self.result.read()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum EndForm {
    Done(EndedRunForm),
    Failed(EndedRunForm),
    Expired,
    Refused { reason: String },
    Suppressed { reason: String },
    Superseded { by: String },
}

impl Stored for End {
    fn to_wire(&self) -> String {
        encode(match self {
            Self::Done(ended) => EndForm::Done(EndedRunForm::of(ended)),
            Self::Failed(ended) => EndForm::Failed(EndedRunForm::of(ended)),
            Self::Expired => EndForm::Expired,
            Self::Refused(reason) => EndForm::Refused { reason: reason.clone() },
            Self::Suppressed(reason) => EndForm::Suppressed { reason: reason.clone() },
            Self::Superseded(by) => EndForm::Superseded { by: by.to_string() },
        })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        const WHAT: &str = "an outcome";
        Ok(match decode(WHAT, text)? {
            EndForm::Done(form) => Self::Done(form.read()?),
            EndForm::Failed(form) => Self::Failed(form.read()?),
            EndForm::Expired => Self::Expired,
            EndForm::Refused { reason } => Self::Refused(sentence(reason)),
            EndForm::Suppressed { reason } => Self::Suppressed(sentence(reason)),
            EndForm::Superseded { by } => Self::Superseded(valid(WHAT, &by)?),
        })
    }
}
