//! The stored forms of the domain types. Each value is the JSON body of an [`Envelope`].
//!
//! Readers ignore fields that they do not know. A change that an old reader must not ignore gets a new `v` (C15).
//! Golden files in `wire/golden/` hold each form. `docs/internals/wire-format.md` describes them.

mod envelope;
mod events;
mod history;
mod lines;
mod nodes;
mod outcomes;
mod runs;
mod sentence;

pub use envelope::{Envelope, Stored, VERSION, WireError};

#[cfg(test)]
mod tests;
