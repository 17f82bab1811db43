//! Submits the event of a `trigger fire` once the loop guard has judged it: hands it to the agent or publishes it, and
//! notes the result.

use std::time::Duration;

use trigger_core::publication::Publication;
use trigger_core::run::record::RunRecord;

use crate::agent_socket::NoReply;
use crate::fire_chain::{self, Guarded};
use crate::fire_error::FireError;
use crate::firing::{FireReport, Fired, Publisher};
use crate::host::Host;
use crate::node_backends::UNADDRESSED;
use crate::state::StateDir;

/// Added to the time that an agent may take to publish. After that the agent is alive but does not answer.
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);

/// What runs a `trigger fire`. It decides how long the command may be made to wait, and what the user is advised to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A Puppet run. It may fire many events, and is not to wait for the same silent backend with each of them.
    Puppet,
    /// An operator, or a script of one.
    Operator,
    /// An operator whose command goes on until all deliveries have ended, and publishes spooled events meanwhile.
    WaitingOperator,
}

impl Caller {
    /// Whether the backend is asked although it did not answer a moment ago.
    fn ignores_pause(self) -> bool {
        self != Self::Puppet
    }
}

/// One `trigger fire`.
pub struct Submission<'a, H: Host> {
    /// The node's state directory, if this process can use one.
    pub state: Option<&'a StateDir<H>>,
    /// Publishes the event if no agent does.
    pub publisher: &'a Publisher<H>,
    /// The run inside which the event is fired, if it is fired inside one.
    pub parent: Option<&'a RunRecord>,
    /// What runs it.
    pub caller: Caller,
    /// What the user should know if this process publishes the event because no agent does: that it is not signed.
    pub unsigned: Option<String>,
}

impl<H: Host> Submission<'_, H> {
    /// Fires the event: when this returns `Ok`, the event is durable. Adds to `warnings` what the user should know
    /// besides, whether it succeeds or not.
    ///
    /// # Errors
    /// Those of [`Publisher::fire`], from the agent or from this process. The loop guard does not count a fire that
    /// failed.
    pub async fn submit(
        &self,
        publication: &Publication,
        guarded: &Guarded,
        warnings: &mut Vec<String>,
    ) -> Result<Fired, FireError> {
        let submitted = self.by_agent_or_here(publication).await;
        if let (Err(_), Some(state)) = (&submitted, self.state) {
            fire_chain::take_back(state, guarded, &publication.event, warnings);
        }
        let (FireReport { fired, warnings: report }, agent) = submitted?;
        warnings.extend(report);
        if let Fired::Spooled(reason) = &fired {
            warnings.push(spooled_warning(reason, agent, self.caller, &publication.backend));
        }
        if let (Some(parent), Some(state)) = (self.parent, self.state) {
            fire_chain::note_fired(state, parent, publication, guarded, warnings);
        }
        if agent.is_err() && matches!(fired, Fired::Committed(_)) {
            warnings.extend(self.unsigned.clone());
            // No agent empties the outbox, so the process that has reached the backend does.
            self.drain(warnings).await;
        }
        Ok(fired)
    }

    /// Hands the event to the agent if one is alive, otherwise publishes it from here. If the agent does not answer in
    /// time, both publish it, which does no harm, because targets recognise the event's id. Returns whether the agent
    /// did it, or why not.
    async fn by_agent_or_here(
        &self,
        publication: &Publication,
    ) -> Result<(FireReport, Result<(), NoReply>), FireError> {
        let mut no_reply = NoReply::NoAgent;
        if let Some(state) = self.state {
            let timeout = Publisher::<H>::patience(publication) + AGENT_TIMEOUT;
            let ignores_pause = self.caller.ignores_pause();
            let by_agent = state.host().fire_by_agent(state.path(), publication, ignores_pause, timeout);
            match by_agent.await {
                Ok(report) => return Ok((report?, Ok(()))),
                Err(why) => no_reply = why,
            }
        }
        Ok((self.publisher.fire(publication, self.caller.ignores_pause()).await?, Err(no_reply)))
    }

    /// Publishes the events of the outbox. Its failure is only a warning, because the event fired now is committed.
    async fn drain(&self, warnings: &mut Vec<String>) {
        match self.publisher.drain(true).await {
            Ok(drained) => warnings.extend(drained.quarantined.into_iter().map(|aside| {
                format!("a spooled event is quarantined in {}: {}", aside.path.display(), aside.reason)
            })),
            Err(error) => warnings.push(format!("the outbox cannot be emptied: {error}")),
        }
    }
}

fn spooled_warning(reason: &str, agent: Result<(), NoReply>, caller: Caller, address: &str) -> String {
    if agent.is_err() && !address.contains(':') {
        let lacking = match address {
            UNADDRESSED => "no backend is configured on this node".to_owned(),
            kind => format!("no URL is configured for the backend '{kind}' on this node"),
        };
        return format!(
            "{lacking}, and the default did not take the event ({reason}): it is kept in this node's outbox for the \
             backend that the node gets configured, and published by 'trigger agent' or the next fire then"
        );
    }
    if caller == Caller::WaitingOperator {
        format!(
            "{reason}; the event is safe in this node's outbox and is offered to the backend again while this command waits"
        )
    } else {
        let next = match agent {
            Ok(()) => " and its agent delivers it later",
            Err(NoReply::NotUnderstood) => " and its agent, which is of another version, delivers it later",
            Err(NoReply::NotInTime) => {
                ", but its agent DOES NOT ANSWER (its process is stopped or overloaded): it waits for the next fire that \
                 reaches the backend, or until the agent goes on"
            }
            Err(NoReply::NoAgent) => {
                ", but NO AGENT IS RUNNING HERE to deliver it: it waits for the next fire that reaches the backend, or for \
                 'trigger agent'"
            }
        };
        format!("{reason}; the event is safe in this node's outbox{next}")
    }
}
