//! Bounds that requests and watches share.

use std::time::Duration;

use crate::hub_protocol::MAX_BODY_BYTES;

/// How long a hub may take to accept a connection before it counts as unreachable.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one page of a read, or the opening of a watch, may take. Longer than a write, since nothing is
/// spooled instead and impatience would only load a busy hub further.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// More than any answer or message of a hub: its largest entry and what stands around it.
pub(super) const MAX_ANSWER_BYTES: usize = MAX_BODY_BYTES + 1024 * 1024;
