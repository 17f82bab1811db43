//! The hub's own certificate and whom it trusts, as they are now.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use trigger_core::certificate::{CertificateRef, StoredCertificate};
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

    /// What is wrong with the hub's own certificate, or with its revocation lists.
    pub(super) fn problems(&self) -> Vec<String> {
        let own = self.0.own_problem(now()).map(|problem| format!("clients will refuse this hub: {problem}"));
        let stale = self.0.trust().stale_lists(now());
        own.into_iter().chain(stale.iter().map(ToString::to_string)).collect()
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
