//! What rustls needs for a connection: both ends prove who they are, and each is verified by [`Trust`].
//!
//! Sessions are never resumed, so that each connection verifies the certificates as they are then, and no end keeps
//! memory for connections that are gone.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    ServerConnection, SignatureScheme,
};

use crate::certificate::from_unix_time;
use crate::identity::Identity;
use crate::provider::provider;
use crate::trust::{Peer, Trust};
use crate::untrusted::Untrusted;

/// What one handshake needs. It is made for each connection, because it keeps what this end has found of the other one,
/// which rustls does not.
pub struct Handshake<C> {
    /// The configuration for rustls.
    pub config: Arc<C>,
    found: Found,
}

impl<C> Handshake<C> {
    /// Why this end has refused the other one's certificate, if it has.
    pub fn refusal(&self) -> Option<Untrusted> {
        match &*self.found.lock() {
            Some(Err(untrusted)) => Some(untrusted.clone()),
            Some(Ok(_)) | None => None,
        }
    }
}

impl Handshake<ServerConfig> {
    /// The node at the other end of the connection that this was made for. Nothing before the end of the handshake, since the node
    /// has not proven yet that the certificate is its own.
    pub fn into_peer(self, connection: &ServerConnection) -> Option<Peer> {
        if connection.is_handshaking() {
            return None;
        }
        self.found.lock().take()?.ok()
    }
}

impl<C> fmt::Debug for Handshake<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("refusal", &self.refusal()).finish_non_exhaustive()
    }
}

/// Which client's certificate was verified, or why either end's was refused.
#[derive(Debug, Clone, Default)]
struct Found(Arc<Mutex<Option<Result<Peer, Untrusted>>>>);

impl Found {
    fn lock(&self) -> MutexGuard<'_, Option<Result<Peer, Untrusted>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Verifies the other end of one connection.
#[derive(Debug)]
struct Verifier {
    trust: Arc<Trust>,
    found: Found,
}

/// The largest record of a client, in bytes. A server has to hold each whole before it can decrypt it, for thousands of
/// connections perhaps.
const MAX_CLIENT_RECORD_BYTES: usize = 2048;

/// For a client's connection.
pub(crate) fn client(
    identity: &Identity,
    trust: &Arc<Trust>,
    alpn: &[&[u8]],
) -> Result<Handshake<ClientConfig>, Error> {
    let found = Found::default();
    let verifier = Verifier { trust: Arc::clone(trust), found: found.clone() };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(identity.certified()))));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.max_fragment_size = Some(MAX_CLIENT_RECORD_BYTES);
    Ok(Handshake { config: Arc::new(config), found })
}

/// For a server's connection.
pub(crate) fn server(
    identity: &Identity,
    trust: &Arc<Trust>,
    alpn: &[&[u8]],
) -> Result<Handshake<ServerConfig>, Error> {
    let found = Found::default();
    let verifier = Verifier { trust: Arc::clone(trust), found: found.clone() };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(identity.certified()))));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Handshake { config: Arc::new(config), found })
}

impl Verifier {
    /// Keeps why the other end is refused, and returns what rustls makes the alert from.
    fn refuse(&self, untrusted: Untrusted) -> Error {
        let error = match &untrusted {
            Untrusted::UnknownIssuer { .. } => CertificateError::UnknownIssuer,
            Untrusted::Expired { .. } => CertificateError::Expired,
            Untrusted::NotYetValid { .. } => CertificateError::NotValidYet,
            Untrusted::Revoked { .. } => CertificateError::Revoked,
            Untrusted::NoRevocationList { .. } => CertificateError::UnknownRevocationStatus,
            Untrusted::WrongName { .. } => CertificateError::NotValidForName,
            Untrusted::WrongPurpose { .. } => CertificateError::InvalidPurpose,
            Untrusted::NotACertname { .. } => CertificateError::ApplicationVerificationFailure,
            Untrusted::BadSignature | Untrusted::UnknownSignature { .. } => CertificateError::BadSignature,
            Untrusted::Unreadable { .. } => CertificateError::BadEncoding,
        };
        *self.found.lock() = Some(Err(untrusted));
        Error::InvalidCertificate(error)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.trust.verify_server(end_entity, intermediates, server_name, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(untrusted) => Err(self.refuse(untrusted)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A client has one identity. Hints would only let it withhold the certificate whose refusal would say more.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.trust.verify(end_entity, intermediates, from_unix_time(now)) {
            Ok(peer) => {
                *self.found.lock() = Some(Ok(peer));
                Ok(ClientCertVerified::assertion())
            }
            Err(untrusted) => Err(self.refuse(untrusted)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
