//! The hub's own certificate and whom it trusts, as they are now.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use trigger_core::certificate::{CertificateRef, StoredCertificate};
use trigger_core::time::Timestamp;
use trigger_pki::{Handshake, OtherEnd, Peer, Pki, PkiError, Untrusted};

use super::clock::now;
use super::handshake_error::{HandshakeError, tls_label};
use super::shares::Presented;

/// What clients and hub agree to speak.
const PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// The hub's own certificate and whom it trusts.
pub(super) struct Tls(Pki);

impl Tls {
    /// Checks that the files are those of a server.
    ///
    /// # Errors
    /// What they lack.
    pub(super) fn new(pki: Pki) -> Result<Self, PkiError> {
        pki.server_config(&PROTOCOLS)?;
        Ok(Self(pki))
    }

    /// What the next handshake uses.
    pub(super) fn handshake(&self) -> Result<Handshake<ServerConfig>, HandshakeError> {
        self.0.server_handshake(&PROTOCOLS).map_err(HandshakeError::OwnFiles)
    }

    /// Grows with each change of what is trusted.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation()
    }

    /// Reads the files again if they have changed. Returns whether they have. It waits for the disk.
    ///
    /// # Errors
    /// When the files cannot be used. What was read before stays in use.
    pub(super) fn reload(&self) -> Result<bool, PkiError> {
        self.0.reload()
    }

    /// What is wrong at a time with the hub's own certificate, or with its revocation lists.
    pub(super) fn problems(&self, now: Timestamp) -> BTreeSet<String> {
        let own = self.0.own_problem(now).map(|problem| {
            // Their own sentences have the time of the look, so that each look would find another problem.
            let problem = match problem {
                Untrusted::Expired { subject, not_after, .. } => format!(
                    "the certificate of {subject} expired at {}: renew it, or set the clock of this machine",
                    not_after.date_and_time()
                ),
                Untrusted::NotYetValid { subject, not_before, .. } => format!(
                    "the certificate of {subject} is valid from {}: set the clock of this machine, or that of the CA if \
                     it signed with a wrong one",
                    not_before.date_and_time()
                ),
                problem => problem.to_string(),
            };
            format!("clients will refuse this hub: {problem}")
        });
        let identity = self.0.identity();
        let expires = identity.expires_soon(now).then(|| {
            let (path, when) = (self.0.files().certificate.display(), identity.not_after().date_and_time());
            format!("the hub's certificate {path} expires at {when}, and no client is let in from then on: renew it")
        });
        let stale = self.0.trust().stale_lists(now);
        own.into_iter().chain(expires).chain(stale.iter().map(ToString::to_string)).collect()
    }

    /// Who is at the other end of a connection whose handshake has succeeded.
    pub(super) fn identify(
        &self,
        stream: &TlsStream<TcpStream>,
        handshake: Handshake<ServerConfig>,
    ) -> Result<Presented, HandshakeError> {
        let (_, connection) = stream.get_ref();
        let chain = connection.peer_certificates().unwrap_or_default();
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let peer = match handshake.into_peer(connection) {
            Some(peer) => peer,
            None => self.verify_chain(&chain)?,
        };
        Ok(Presented { peer: Arc::new(peer), chain })
    }

    /// The node whose certificate a stored one is, if it is trusted now.
    pub(super) fn node_of(&self, stored: &StoredCertificate) -> Option<CertificateRef> {
        let intermediates: Vec<CertificateDer<'_>> =
            stored.intermediates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let peer = self.0.trust().verify(&stored.certificate, &intermediates, now()).ok()?;
        Some(CertificateRef { certname: peer.certname, fingerprint: peer.fingerprint })
    }

    /// Verifies a certificate again, with what is trusted now.
    pub(super) fn verify(&self, presented: &Presented) -> Result<(), Untrusted> {
        self.verify_chain(&presented.chain).map(drop)
    }

    fn verify_chain(&self, chain: &[CertificateDer<'static>]) -> Result<Peer, Untrusted> {
        let leaf = chain.first().map_or(&[][..], |leaf| leaf.as_ref());
        self.0.trust().verify(leaf, chain.get(1..).unwrap_or_default(), now())
    }

    /// What an error of a handshake means.
    pub(super) fn explain(
        &self,
        client: SocketAddr,
        error: &std::io::Error,
        refusal: Option<Untrusted>,
    ) -> HandshakeError {
        if let Some(refusal) = refusal {
            return HandshakeError::Untrusted(refusal);
        }
        match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
            Some(error) => {
                let sentence = self.0.explain(OtherEnd::Client(&client.to_string()), error, None);
                HandshakeError::Tls { label: tls_label(error), sentence }
            }
            None => HandshakeError::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trigger_pki::testing::TestCa;

    use super::*;

    #[test]
    fn what_comes_with_time_is_a_problem_then() {
        let directory = tempfile::tempdir().unwrap();
        let mut ca = TestCa::new("puppet").unwrap();
        let tls = Tls::new(Pki::open(ca.node(directory.path(), "puppet").unwrap()).unwrap()).unwrap();
        let now = now();
        assert!(tls.problems(now).is_empty(), "{:?}", tls.problems(now));
        let until = tls.0.identity().not_after();
        let before = |days: u64| Timestamp::from_unix_ms(until.as_unix_ms() - days * 86_400_000);
        // The lists end with the certificate.
        for (at, expires, is_over) in [
            (before(15), false, false),
            (before(13), true, false),
            (until.plus(Duration::from_secs(1)), false, true),
        ] {
            let problems = tls.problems(at);
            assert_eq!(tls.problems(at.plus(Duration::from_secs(2))), problems, "it is said once");
            let says = |words: &str| problems.iter().any(|problem| problem.contains(words));
            assert_eq!(says("no client is let in from then on: renew it"), expires, "{problems:?}");
            assert_eq!(says("clients will refuse this hub"), is_over, "{problems:?}");
            assert_eq!(says("is out of date"), is_over, "{problems:?}");
        }
    }
}
