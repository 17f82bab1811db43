//! How large a value of each kind may be. Each limit is several times what a node writes, and small enough that many of
//! them do not fill a disk.

use super::actor::Actor;
use super::denial::{Denial, DenialKind};
use crate::keyspace::Key;

const KIB: usize = 1024;

/// The largest value that a key may have, in bytes.
fn limit(key: &Key) -> usize {
    match key {
        // 128 targets, 64 groups and 8 chains, all with the longest names.
        Key::Part { .. } => 512 * KIB,
        // 1024 certnames of 255 characters.
        Key::Members { .. } => 512 * KIB,
        Key::Delivery { .. } | Key::GroupDelivery { .. } | Key::Settled { .. } | Key::Sweep => KIB,
        Key::Cancellation { .. } | Key::GroupCancellation { .. } => 4 * KIB,
        Key::Hold { .. } => 8 * KIB,
        Key::Outcome { .. } => 64 * KIB,
        // Four lists of 1000 deliveries with their reasons.
        Key::Node { .. } => 2048 * KIB,
        Key::LogRequest { .. } => 8 * KIB,
        // 64 KiB of output, sealed and in base64, and its signature.
        Key::LogAnswer { .. } => 128 * KIB,
        // A body of 128 KiB, and its signature.
        Key::RunHistory { .. } => 256 * KIB,
        // A certificate and the intermediates that it needs, in base64.
        Key::Certificate { .. } => 128 * KIB,
    }
}

/// Checks the size of a value.
///
/// # Errors
/// When it is larger than any of its kind.
pub fn check_size(actor: &Actor, key: &Key, bytes: usize) -> Result<(), Denial> {
    let limit = limit(key);
    if bytes <= limit {
        return Ok(());
    }
    let sentence = format!(
        "{actor} may not write {key}: a value there has at most {} KiB, and this one has {bytes} bytes",
        limit / KIB
    );
    Err(Denial { kind: DenialKind::TooLarge, sentence })
}
