//! Asking a node for the output of a run: the request and the answer (C13).
//!
//! The output of Puppet may hold secrets. So a request carries a key that its reader has made for it alone, and the output
//! travels sealed to that key: neither the backend nor another node can open it. Both are signed, and the node decides.

use crate::identity::RunId;

/// The most output that one answer has, in bytes.
pub const MAX_OUTPUT_BYTES: usize = 64 * 1024;
/// How many bytes sealing adds to an output.
pub const SEAL_BYTES: usize = 16;

/// A public key, by which an output is sealed or opened. The reader makes one for each request, which it also identifies.
pub type SealKey = [u8; 32];

/// What a reader wants to see of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// The reader's key for the answer.
    pub key: SealKey,
    /// Which run.
    pub run: RunChoice,
    /// Where the output begins that the reader does not have yet; absent: its end is wanted.
    pub from: Option<u64>,
    /// Whether the reader asks as an operator. A hub that knows its clients takes such a request from operators alone.
    pub as_operator: bool,
}

/// One run of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunChoice {
    /// The run with this id.
    Id(RunId),
    /// The latest one, or so many before it.
    Latest {
        /// How many runs before the latest.
        back: u32,
    },
}

/// The answer of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogAnswer {
    /// The key of the request.
    pub request: SealKey,
    /// The answer.
    pub content: LogContent,
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogContent {
    /// A part of the run's output.
    Output(SealedOutput),
    /// Nothing, for the reason in this sentence.
    Refused(String),
}

/// A part of a run's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedOutput {
    /// The run.
    pub run: RunId,
    /// Where the part begins in the output, in bytes.
    pub from: u64,
    /// Where it ends. The next request begins here.
    pub to: u64,
    /// Whether the run has ended and this is the end of its output.
    pub is_over: bool,
    /// The node's key for this answer.
    pub key: SealKey,
    /// The part, sealed: at most [`MAX_OUTPUT_BYTES`] and [`SEAL_BYTES`].
    pub sealed: Vec<u8>,
}
