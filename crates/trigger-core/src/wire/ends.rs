//! How deliveries ended.

use serde::{Deserialize, Serialize};

use super::runs::RunResultForm;
use super::{Stored, WireError, decode, encode, valid};
use crate::outcome::{End, EndedRun};

#[derive(Serialize, Deserialize)]
struct EndedRunForm {
    run_id: String,
    noop: bool,
    #[serde(flatten)]
    result: RunResultForm,
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
        let run = |run: &EndedRun| EndedRunForm {
            run_id: run.run_id.to_string(),
            noop: run.noop,
            result: RunResultForm::of(&run.result),
        };
        encode(match self {
            Self::Done(ended) => EndForm::Done(run(ended)),
            Self::Failed(ended) => EndForm::Failed(run(ended)),
            Self::Expired => EndForm::Expired,
            Self::Refused(reason) => EndForm::Refused { reason: reason.clone() },
            Self::Suppressed(reason) => EndForm::Suppressed { reason: reason.clone() },
            Self::Superseded(by) => EndForm::Superseded { by: by.to_string() },
        })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        const WHAT: &str = "an outcome";
        let run = |form: EndedRunForm| {
            Ok(EndedRun { run_id: valid(WHAT, &form.run_id)?, noop: form.noop, result: form.result.read()? })
        };
        Ok(match decode(WHAT, text)? {
            EndForm::Done(form) => Self::Done(run(form)?),
            EndForm::Failed(form) => Self::Failed(run(form)?),
            EndForm::Expired => Self::Expired,
            EndForm::Refused { reason } => Self::Refused(reason),
            EndForm::Suppressed { reason } => Self::Suppressed(reason),
            EndForm::Superseded { by } => Self::Superseded(valid(WHAT, &by)?),
        })
    }
}
