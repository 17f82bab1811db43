//! The note that an agent of this state directory has ended in good order, although its claim is still in the backend: the
//! backend was gone first, as when both are on one machine that is rebooted.
//!
//! It lists every stamp that the record in the backend can carry if that agent wrote it last. The process that wrote the
//! note has ended and writes nothing more, so the next agent of this directory takes over a record with such a stamp at
//! once. A record with any other stamp was written by another process since: by a copy of that one which was made with its
//! memory, or by an agent that has taken the claim over; then the agent waits like any other. So a copy of the directory
//! may have the note as well: the first to use it writes a stamp that is not in it.

use trigger_core::time::Timestamp;
use trigger_fleet::lease::Stamp;

use super::AgentSettings;
use crate::host::Host;
use crate::state::{FileError, at, read_if_present, write_durably};

const FILE: &str = "agent-ended";

/// The stamps of the note; none without one, or if it is about another backend.
pub(super) fn read<H: Host>(settings: &AgentSettings<H>) -> Vec<Stamp> {
    let text = match read_if_present(settings.state.host(), &settings.state.file(FILE)) {
        Ok(text) => text.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, "cannot read whether the last agent has ended; its claim is waited for");
            return Vec::new();
        }
    };
    let Some(lines) = text.strip_prefix(&place(settings)) else { return Vec::new() };
    lines.lines().filter_map(stamp).collect()
}

fn stamp(line: &str) -> Option<Stamp> {
    let mut words = line.split(' ');
    let (holder, renewals, written_at) = (words.next()?, words.next()?, words.next()?);
    Some(Stamp {
        holder: holder.to_owned(),
        renewals: renewals.parse().ok()?,
        written_at: Timestamp::from_unix_ms(written_at.parse().ok()?),
    })
}

/// Writes the note. The agent must write nothing to its registration after that.
pub(super) fn write<H: Host>(settings: &AgentSettings<H>, stamps: &[Stamp]) -> Result<(), FileError> {
    let lines = stamps.iter().map(|Stamp { holder, renewals, written_at }| {
        format!("{holder} {renewals} {}\n", written_at.as_unix_ms())
    });
    let text: String = std::iter::once(place(settings)).chain(lines).collect();
    write_durably(settings.state.host(), &settings.state.file(FILE), text.as_bytes())
}

/// Removes the note, if there is one. One that stays does no harm: its stamps never occur again.
pub(super) fn remove<H: Host>(settings: &AgentSettings<H>) {
    let path = settings.state.file(FILE);
    if settings.state.host().is_file(&path)
        && let Err(error) = settings.state.host().remove_file(&path).map_err(at("remove", &path))
    {
        tracing::debug!(%error, "the note of an earlier agent's end stays");
    }
}

/// Stamps have a meaning in one backend only.
fn place<H: Host>(settings: &AgentSettings<H>) -> String {
    format!("{} {}\n", settings.backend, settings.prefix)
}
