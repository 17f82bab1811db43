//! What `trigger fire` does with an event that is made and judged: hands it to the agent or publishes it, and notes
//! what came of it.

use std::time::Duration;

use trigger_core::publication::Publication;
use trigger_core::run::record::RunRecord;

use crate::failure::Failure;
use crate::fire_chain::{self, Guarded};
use crate::firing::{FireReport, Fired, Publisher};
use crate::host::Host;
use crate::state::StateDir;
use crate::warnings::Warnings;

/// Beyond the time an agent may take to publish: it is alive, but does not answer.
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);

/// One `trigger fire`.
pub struct Submission<'a, H: Host> {
    /// The node's state directory, where there is one.
    pub state: Option<&'a StateDir<H>>,
    /// Publishes where no agent does.
    pub publisher: &'a Publisher<H>,
    /// The run inside which the event is fired.
    pub parent: Option<&'a RunRecord>,
    /// What the user should know besides.
    pub warnings: &'a Warnings,
}

impl<H: Host> Submission<'_, H> {
    /// Fires the event: when this returns `Ok`, the event is durable.
    pub async fn submit(&self, publication: &Publication, guarded: &Guarded) -> Result<Fired, Failure> {
        let submitted = self.by_agent_or_here(publication).await;
        if let (Err(_), Some(state)) = (&submitted, self.state) {
            fire_chain::take_back(state, guarded, &publication.event, self.warnings);
        }
        let (FireReport { fired, warnings }, by_agent) = submitted?;
        self.warnings.extend(warnings);
        if let Fired::Spooled(reason) = &fired {
            self.warnings.push(spooled_warning(reason, by_agent));
        }
        if let (Some(parent), Some(state)) = (self.parent, self.state) {
            fire_chain::note_fired(state, parent, publication, guarded, self.warnings);
        }
        if !by_agent && matches!(fired, Fired::Committed(_)) {
            // No agent empties the outbox, so the process that has reached the backend does.
            self.drain().await;
        }
        Ok(fired)
    }

    /// To the agent where one is alive, else straight on. Both do the same, and doing it twice does no harm.
    async fn by_agent_or_here(&self, publication: &Publication) -> Result<(FireReport, bool), Failure> {
        if let Some(state) = self.state {
            let timeout = Publisher::<H>::patience(publication) + AGENT_TIMEOUT;
            if let Some(report) = state.host().fire_by_agent(state, publication, timeout).await {
                return Ok((report?, true));
            }
        }
        Ok((self.publisher.fire(publication).await?, false))
    }

    /// Publishes what waited in the outbox. Whatever comes of it, the event fired now is committed.
    async fn drain(&self) {
        match self.publisher.drain(true).await {
            Ok(drained) => self.warnings.extend(drained.quarantined.into_iter().map(|aside| {
                format!("a spooled event is quarantined in {}: {}", aside.path.display(), aside.reason)
            })),
            Err(failure) => {
                self.warnings.push(format!("the outbox cannot be emptied: {}", failure.message));
            }
        }
    }
}

fn spooled_warning(reason: &str, by_agent: bool) -> String {
    if by_agent {
        format!("{reason}; the event is safe in this node's outbox and its agent delivers it later")
    } else {
        format!(
            "{reason}; the event is safe in this node's outbox, but NO AGENT IS RUNNING HERE to deliver it: \
             it waits for the next fire that reaches the backend, or for 'trigger agent'"
        )
    }
}
