//! Bounds that requests and watches share.

use std::time::Duration;

use crate::hub_protocol::MAX_BODY_BYTES;

/// The first limit of one page of a read, or of the opening of a watch. Longer than that of a write, since nothing is
/// spooled instead and impatience would only load a busy hub further.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(5);
/// How long a request waits for the connections that are there before it makes one more. An overloaded hub would have to make one
/// more handshake for each request that does not wait, when it can least afford that. Some callers give up after 4 s.
pub(super) const CONNECTION_PATIENCE: Duration = Duration::from_secs(2);
/// The longest limit of any request. A hub that takes longer is of no use.
pub(super) const LONGEST_LIMIT: Duration = Duration::from_secs(20);
/// More than any answer or message of a hub: its largest entry and what stands around it.
pub(super) const MAX_ANSWER_BYTES: usize = MAX_BODY_BYTES + 1024 * 1024;
