//! Answers readers who ask for the output of a run (C13). The node's policy decides who gets it, and it travels sealed to
//! its reader.
//!
//! Works on one request at a time and pauses after each, so that no number of requests takes the agent's time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use trigger_core::log_policy::Reader;
use trigger_core::policy::Policy;
use trigger_core::run_log::{LogAnswer, LogContent, SealedOutput};
use trigger_fleet::claim::ClaimState;
use trigger_fleet::run_logs::AskedForLog;
use trigger_pki::seal;
use trigger_store::store::{Entry, StoreError};

use super::{Node, audit};
use crate::os::Os;
use crate::run_output::{self, RunOutput};
use crate::state::Runs;

/// How long the agent pauses after an answer.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers what comes until the sender is gone, and then waits for the end of the agent.
pub(super) async fn run(
    node: Arc<Node<Os>>,
    claim: watch::Receiver<ClaimState>,
    policy: watch::Receiver<Policy>,
    mut requests: mpsc::Receiver<Vec<Entry>>,
) {
    while let Some(entries) = requests.recv().await {
        // The one agent that acts for the certname answers.
        if !matches!(*claim.borrow(), ClaimState::Held { .. }) {
            continue;
        }
        if let Err(error) = answer_all(&node, &policy, entries).await {
            tracing::warn!(%error, "cannot answer a request for the output of a run; its reader may ask again");
        }
    }
    std::future::pending::<()>().await;
}

async fn answer_all(
    node: &Node<Os>,
    policy: &watch::Receiver<Policy>,
    entries: Vec<Entry>,
) -> Result<(), StoreError> {
    let (asked, others) = node.fleet.open_log_requests(entries).await?;
    for (reader, why) in others {
        tracing::warn!(%reader, reason = why, "a request for the output of a run does not count");
    }
    for asked in asked {
        let policy = policy.borrow().clone();
        let answer = answer(node, &policy, &asked).await;
        audit::read_log(&asked, &answer);
        node.fleet.answer_log_request(&asked.reader, &answer).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn answer(node: &Node<Os>, policy: &Policy, asked: &AskedForLog) -> LogAnswer {
    let AskedForLog { reader, signer, request } = asked;
    let reader = Reader {
        certname: reader,
        signer,
        as_operator: request.as_operator,
        // The one kind of backend that knows its clients also sweeps for them.
        backend_knows_operators: node.fleet.store().sweeps_itself(),
    };
    let content = match policy.logs().judge(reader, policy.source()) {
        Ok(()) => output(node, asked).await.unwrap_or_else(LogContent::Refused),
        Err(why) => LogContent::Refused(why),
    };
    LogAnswer { request: request.key, content }
}

/// Reads and seals what a reader asks for; the error is a sentence.
async fn output(node: &Node<Os>, AskedForLog { request, .. }: &AskedForLog) -> Result<LogContent, String> {
    let (state, certname) = (node.settings.state.clone(), node.settings.certname.clone());
    let (choice, from) = (request.run, request.from);
    let reading = tokio::task::spawn_blocking(move || {
        let runs = Runs::open(&state)?;
        run_output::read(&runs, choice, from, &certname)
    });
    let read = reading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let Some(RunOutput { run, from, to, is_over, bytes }) = read else {
        return Err(format!(
            "{} has no such run any more: it keeps the last hundred",
            node.settings.certname
        ));
    };
    let sealed = seal(&request.key, bytes).map_err(|error| error.to_string())?;
    Ok(LogContent::Output(SealedOutput { run, from, to, is_over, key: sealed.key, sealed: sealed.bytes }))
}
