//! Requests for the output of runs, and answers. Keys and sealed bytes are in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Stored, WireError, optional_sentence, read, write};
use crate::identity::RunId;
use crate::run_log::{
    LogAnswer, LogContent, LogRequest, MAX_OUTPUT_BYTES, RunChoice, SEAL_BYTES, SealKey, SealedOutput,
};

/// Without a run, the latest one is wanted, or one before it.
#[derive(Serialize, Deserialize)]
struct LogRequestForm {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<RunId>,
    #[serde(default, skip_serializing_if = "is_zero")]
    back: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    as_operator: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(back: &u32) -> bool {
    *back == 0
}

impl Stored for LogRequest {
    const WHAT: &'static str = "a request for a run's output";

    fn to_body(&self) -> String {
        let (run, back) = match self.run {
            RunChoice::Id(run) => (Some(run), 0),
            RunChoice::Latest { back } => (None, back),
        };
        write(&LogRequestForm {
            key: STANDARD.encode(self.key),
            run,
            back,
            from: self.from,
            as_operator: self.as_operator,
        })
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        let form: LogRequestForm = read(Self::WHAT, body)?;
        let run = form.run.map_or(RunChoice::Latest { back: form.back }, RunChoice::Id);
        let key = seal_key(Self::WHAT, &form.key)?;
        Ok(Self { key, run, from: form.from, as_operator: form.as_operator })
    }
}

/// Either an output or the sentence of a refusal.
#[derive(Serialize, Deserialize)]
struct LogAnswerForm {
    request: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_sentence")]
    refused: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<SealedOutputForm>,
}

#[derive(Serialize, Deserialize)]
struct SealedOutputForm {
    run: RunId,
    from: u64,
    to: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_over: bool,
    key: String,
    sealed: String,
}

impl Stored for LogAnswer {
    const WHAT: &'static str = "an answer with a run's output";

    fn to_body(&self) -> String {
        let (refused, output) = match &self.content {
            LogContent::Refused(why) => (Some(why.clone()), None),
            LogContent::Output(output) => (None, Some(output)),
        };
        let output = output.map(|output| SealedOutputForm {
            run: output.run,
            from: output.from,
            to: output.to,
            is_over: output.is_over,
            key: STANDARD.encode(output.key),
            sealed: STANDARD.encode(&output.sealed),
        });
        write(&LogAnswerForm { request: STANDARD.encode(self.request), refused, output })
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        let form: LogAnswerForm = read(Self::WHAT, body)?;
        let content = match (form.refused, form.output) {
            (Some(why), None) => LogContent::Refused(why),
            (None, Some(output)) => LogContent::Output(output.read()?),
            _ => return Err(unreadable(Self::WHAT, "it is neither an output nor a refusal")),
        };
        Ok(Self { request: seal_key(Self::WHAT, &form.request)?, content })
    }
}

impl SealedOutputForm {
    fn read(self) -> Result<SealedOutput, WireError> {
        let what = LogAnswer::WHAT;
        let sealed = bytes(what, &self.sealed)?;
        if sealed.len() > MAX_OUTPUT_BYTES + SEAL_BYTES {
            return Err(unreadable(what, "it has more output than an answer may have"));
        }
        let key = seal_key(what, &self.key)?;
        Ok(SealedOutput { run: self.run, from: self.from, to: self.to, is_over: self.is_over, key, sealed })
    }
}

fn seal_key(what: &'static str, text: &str) -> Result<SealKey, WireError> {
    bytes(what, text)?.try_into().map_err(|_| unreadable(what, "a key in it has not 32 bytes"))
}

fn bytes(what: &'static str, text: &str) -> Result<Vec<u8>, WireError> {
    STANDARD.decode(text).map_err(|error| unreadable(what, &error.to_string()))
}

fn unreadable(what: &'static str, detail: &str) -> WireError {
    WireError::Unreadable { what, detail: detail.to_owned() }
}
