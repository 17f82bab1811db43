//! The state of a decision.

use super::denial::Denial;
use super::facts::Question;

/// What is known of an action's admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is allowed.
    Allowed,
    /// It is allowed, and changes nothing: what is stored stays.
    KeepsStored,
    /// It is allowed, and shows nothing, whatever is stored by now: nothing was when it was decided.
    ShowsNothing,
    /// This has to be looked up first.
    LookUp(Question),
}

/// Why a rule has come to no decision, or to a denial.
#[derive(Debug)]
pub(super) enum Stop {
    LookUp(Question),
    Denied(Denial),
}

impl From<Question> for Stop {
    fn from(question: Question) -> Self {
        Self::LookUp(question)
    }
}

impl From<Denial> for Stop {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl Stop {
    /// The same as the interface states it.
    pub(super) fn progress(self) -> Result<Progress, Denial> {
        match self {
            Self::LookUp(question) => Ok(Progress::LookUp(question)),
            Self::Denied(denial) => Err(denial),
        }
    }
}
