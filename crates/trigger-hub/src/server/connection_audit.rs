//! The hub's lines in the audit about connections: who was not let in, and whose connection was closed. Apart from those about
//! requests (`audit.rs`), since a request's client is known by its connection.

use std::net::SocketAddr;

use super::shares::LiveConnection;

/// A client was not let in. `certname` is that of the certificate that it has shown, if that could be read; so many refusals were
/// not logged before it.
pub(super) fn not_let_in(peer: SocketAddr, certname: Option<&str>, reason: &str, unlogged: u64) {
    tracing::info!(
        target: "audit",
        parent: None,
        action = "connect",
        decision = "refused",
        reason,
        certname,
        %peer,
        unlogged = (unlogged > 0).then_some(unlogged),
    );
}

/// A connection was closed, because its certificate is not trusted any more.
pub(super) fn closed(live: &LiveConnection, reason: &str) {
    let peer = &live.presented.peer;
    tracing::info!(
        target: "audit",
        parent: None,
        action = "close",
        decision = "refused",
        reason,
        certname = %peer.certname,
        fingerprint = %peer.fingerprint,
        peer = %live.address,
    );
}
