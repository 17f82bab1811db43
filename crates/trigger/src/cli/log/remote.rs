//! Asks another node for the output of a run.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};
use trigger_core::duration;
use trigger_core::identity::Certname;
use trigger_core::node::Presence;
use trigger_core::run_log::{LogAnswer, LogContent, LogRequest, RunChoice, SealedOutput};
use trigger_fleet::Fleet;
use trigger_fleet::verifying::Unverified;
use trigger_node::clock;
use trigger_node::run_output::RunOutput;
use trigger_pki::{OpeningKey, Sealed};
use trigger_store::store::{StoreError, Watch};

use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

/// A node that is asked, and the watch for its answers.
pub(super) struct Remote {
    fleet: Fleet,
    certname: Certname,
    timeout: Duration,
    watch: Watch,
    /// Whether the backend takes requests of this node as those of an operator, as far as is known.
    as_operator: bool,
    warnings: Warnings,
}

impl Remote {
    /// Prepares to ask a node.
    pub(super) async fn open(
        fleet: Fleet,
        certname: Certname,
        timeout: Duration,
        warnings: &Warnings,
    ) -> Result<Self, Failure> {
        if !fleet.codec().signs() {
            return Err(Failure::config(
                "requests for the output of runs are signed, so that a node knows who reads, and this node has nothing to sign \
                 with: name its certificates in [tls], or a shared_key",
            ));
        }
        let watch = fleet.watch_log_answers(&certname).await?;
        Ok(Self { fleet, certname, timeout, watch, as_operator: true, warnings: warnings.clone() })
    }

    /// Removes the request and the answer when the reader has read, or does not wait any longer.
    pub(super) fn withdrawal(&self) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let (fleet, certname) = (self.fleet.clone(), self.certname.clone());
        async move { fleet.withdraw_log_request(&certname).await }
    }

    /// Asks once, and waits for the answer.
    pub(super) async fn read(&mut self, choice: RunChoice, from: Option<u64>) -> Result<RunOutput, Failure> {
        let key = OpeningKey::generate().map_err(|error| Failure::failed(error.to_string()))?;
        let mut request = LogRequest { key: key.public(), run: choice, from, as_operator: self.as_operator };
        match self.fleet.ask_for_log(&self.certname, &request).await {
            // A hub takes the requests of an operator from operators alone. The node may have named this reader.
            Err(StoreError::Refused { .. }) if request.as_operator => {
                (self.as_operator, request.as_operator) = (false, false);
                self.fleet.ask_for_log(&self.certname, &request).await?;
            }
            asked => asked?,
        }
        match self.answer(&request).await?.content {
            LogContent::Refused(why) => Err(Failure::failed(format!("{} refuses: {why}", self.certname))),
            LogContent::Output(output) => self.opened(key, output),
        }
    }

    /// Waits for the answer to a request.
    async fn answer(&mut self, request: &LogRequest) -> Result<LogAnswer, Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut unverified = Unverified::default();
        let answer = loop {
            let Ok(event) = timeout_at(deadline, self.watch.next()).await else { break None };
            let Some(Ok(event)) = event else {
                // The backend was restarted, say. What was answered meanwhile is in the first snapshot.
                self.watch = self.watch_again(deadline).await?;
                continue;
            };
            let found = self.fleet.log_answer(&self.certname, &request.key, event, &mut unverified).await?;
            if found.is_some() {
                break found;
            }
        };
        self.warnings.extend(unverified.sentences());
        match answer {
            Some(answer) => Ok(answer),
            None => Err(self.silence().await),
        }
    }

    async fn watch_again(&self, deadline: Instant) -> Result<Watch, Failure> {
        loop {
            match self.fleet.watch_log_answers(&self.certname).await {
                Ok(watch) => return Ok(watch),
                Err(error) if Instant::now() >= deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }

    fn opened(&self, key: OpeningKey, output: SealedOutput) -> Result<RunOutput, Failure> {
        let SealedOutput { run, from, to, is_over, key: sealed_by, sealed } = output;
        let bytes = key.open(&Sealed { key: sealed_by, bytes: sealed }).map_err(|error| {
            Failure::failed(format!("the answer of {} cannot be opened: {error}", self.certname))
        })?;
        Ok(RunOutput { run, from, to, is_over, bytes })
    }

    /// Why no answer came, as far as the node's registration shows.
    async fn silence(&self) -> Failure {
        let Self { certname, timeout, .. } = self;
        let waited = duration::format_short(*timeout);
        let why = match self.fleet.node(certname).await {
            Err(error) => error.to_string(),
            Ok(None) => {
                format!("no agent has registered as {certname}: 'trigger nodes' lists those that have")
            }
            Ok(Some(node)) => {
                let (seen, version) = (output::short_time(node.seen_at), &node.version);
                match node.presence(clock::wall()) {
                    Presence::Stopped => format!("its agent was stopped, and last seen at {seen}"),
                    Presence::Silent(silence) => {
                        let silence = duration::format_short(silence);
                        format!("its agent was last seen at {seen}, {silence} ago")
                    }
                    Presence::Alive => format!(
                        "its agent was seen at {seen}; its version {version} may be too old for this, its rights at the backend \
                         may be, or it could not verify the request: its log says so"
                    ),
                }
            }
        };
        Failure::failed(format!("{certname} has not answered within {waited}: {why}"))
    }
}
