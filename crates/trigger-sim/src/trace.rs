//! The trace of what happened, step by step: it is always hashed, and kept only on request.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::time::Duration;

/// Lines kept for the report of a failure.
const KEPT: usize = 200_000;

/// The trace of one seed. Its hash stands for all of it: two runs of one seed have the same hash.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: Fnv,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    pub(crate) fn new(is_kept: bool) -> Self {
        Self { hash: Fnv(0xcbf2_9ce4_8422_2325), lines: is_kept.then(VecDeque::new) }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.0
    }

    pub(crate) fn note(&mut self, now: Duration, what: fmt::Arguments<'_>) {
        // Writing to a hash cannot fail.
        let _ = write!(self.hash, "{} {what}", now.as_micros());
        if let Some(lines) = &mut self.lines {
            if lines.len() == KEPT {
                lines.pop_front();
            }
            lines.push_back(format!("{:>12.6} {what}", now.as_secs_f64()));
        }
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default().into()
    }
}

/// FNV-1a: the same on every machine and in every version of Rust.
#[derive(Debug)]
struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
