//! Who may read and write what in a store that knows its clients by their certnames (C13).
//!
//! [`authorize`] decides over typed keys and reads nothing itself. Where the key alone does not tell, it returns the
//! questions that its caller has to look up in the store first, and is asked again with the answers.
//!
//! A node acts for itself alone: it fires events of which it is the origin, ends its own deliveries, and keeps its own
//! registration and run history. An operator may read all besides. Nobody may write for another.

mod action;
mod actor;
mod denial;
mod facts;
mod limits;
mod progress;
mod quota;
mod reading;
#[cfg(test)]
mod tests;
mod writing;

pub use action::{Action, Scope, Value};
pub use actor::{Actor, Operators, Role};
pub use denial::{Denial, DenialKind};
pub use facts::{Facts, Fired, Question};
pub use limits::check_size;
pub use progress::Progress;
pub use quota::{Cost, Quota};

use self::progress::Stop;
use crate::time::Timestamp;

/// Decides whether `actor` may do `action`, as far as `facts` tell. `now` is the store's clock: it bounds how far in the
/// future an event may say that it was fired, and decides nothing else.
///
/// # Errors
/// Why the action is denied, as a sentence that names the actor and what it may do.
pub fn authorize(actor: &Actor, action: &Action, facts: &Facts, now: Timestamp) -> Result<Progress, Denial> {
    let decided = match action {
        Action::Put { key, value } => writing::put(actor, key, value, facts, now),
        Action::CompareAndSwap { key } => writing::compare_and_swap(actor, key, facts),
        Action::Delete { key } => writing::delete(actor, key),
        Action::Read(scope) => reading::read(actor, scope, facts),
        Action::Watch(scope) => reading::watch(actor, scope, facts),
    };
    decided.or_else(Stop::progress)
}
