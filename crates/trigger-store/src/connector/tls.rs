//! TLS on top of a TCP connection, with errors that say which end is at fault.
//!
//! In TLS 1.3 a client has finished its handshake before the server has verified the client's certificate. So a server's
//! refusal arrives with the first bytes that are read, as an alert, and may be announced by a write that fails.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use trigger_core::duration;
use trigger_pki::{LazyPki, OtherEnd, Pki};

use crate::step_limit::StepLimit;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The first limit of a handshake. A server to which a whole fleet returns at once makes thousands of signatures.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(4);
/// The longest limit of a handshake.
const LONGEST_HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);

/// Makes TLS connections with the certificates of a node, as they are at the time.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    certificates: LazyPki,
    protocol: &'static [u8],
    limit: Arc<StepLimit>,
}

/// Why a server refused the latest connection after it was made.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusal(Arc<Mutex<Option<String>>>);

impl Refusal {
    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, sentence: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sentence;
    }
}

/// An encrypted connection.
pub struct TlsConnection {
    stream: TlsStream<TcpStream>,
    pki: Pki,
    /// The server's `HOST:PORT`.
    server: String,
    /// Whether the server has answered, and so has accepted the certificate of this node.
    is_answered: bool,
    refusal: Refusal,
    /// A write that failed and is not reported yet.
    failed_write: Option<io::Error>,
}

/// TLS has failed, as a sentence for people.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
struct TlsFailure {
    sentence: String,
    /// Whether the server has read nothing of what was sent.
    is_refused_handshake: bool,
}

/// Whether an error is that a server refused the connection before it read anything that was sent on it.
pub(crate) fn is_refused_handshake(error: &(dyn std::error::Error + 'static)) -> bool {
    let failure = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref()?.downcast_ref());
    failure.is_some_and(|failure: &TlsFailure| failure.is_refused_handshake)
}

impl Tls {
    pub(super) fn new(certificates: LazyPki, protocol: &'static [u8]) -> Self {
        let limit = Arc::new(StepLimit::new(HANDSHAKE_LIMIT, LONGEST_HANDSHAKE_LIMIT));
        Self { certificates, protocol, limit }
    }

    /// Does the handshake with the server of this name, `HOST:PORT`.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        server: &str,
        refusal: &Refusal,
    ) -> Result<TlsConnection, BoxError> {
        refusal.set(None);
        let failure = |sentence| TlsFailure { sentence, is_refused_handshake: true };
        let pki = self.certificates.get()?;
        let handshake = pki.client_handshake(&[self.protocol])?;
        let name = server_name(server)?;
        let connecting = TlsConnector::from(Arc::clone(&handshake.config)).connect(name, stream);
        match self.limit.bound(connecting).await {
            Ok(Ok(stream)) => {
                let (server, refusal) = (server.to_owned(), refusal.clone());
                Ok(TlsConnection { stream, pki, server, is_answered: false, refusal, failed_write: None })
            }
            Ok(Err(error)) => {
                let refusal = handshake.refusal();
                let sentence = pki.explain_handshake(OtherEnd::Server(server), &error, refusal.as_ref());
                Err(failure(sentence).into())
            }
            Err(limit) => {
                let limit = duration::format_short(limit);
                let sentence = format!(
                    "the server {server} has accepted a connection, but has not done the TLS handshake within {limit}"
                );
                Err(failure(sentence).into())
            }
        }
    }
}

/// The name that has to be in the server's certificate.
fn server_name(server: &str) -> Result<ServerName<'static>, BoxError> {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    Ok(ServerName::try_from(host.to_owned())?)
}

impl TlsConnection {
    pub(super) fn tcp(&self) -> &TcpStream {
        self.stream.get_ref().0
    }

    fn explain(&self, error: io::Error) -> io::Error {
        match self.pki.explain_io(OtherEnd::Server(&self.server), &error, None) {
            Some(sentence) => {
                if !self.is_answered {
                    self.refusal.set(Some(sentence.clone()));
                }
                let failure = TlsFailure { sentence, is_refused_handshake: !self.is_answered };
                io::Error::new(error.kind(), failure)
            }
            None => error,
        }
    }

    /// Writes. Once that fails because the server has closed the connection, the alert that says why may be waiting to be
    /// read, or about to arrive.
    fn write<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TlsStream<TcpStream>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.failed_write.is_none() {
            match write(Pin::new(&mut self.stream), context) {
                Poll::Ready(Err(error)) if is_closed_by_peer(&error) => self.failed_write = Some(error),
                done => return done.map_err(|error| self.explain(error)),
            }
        }
        let mut byte = [0];
        // A closed connection can always be read, at the latest when the kernel's notice of it has been processed.
        match Pin::new(&mut self.stream).poll_read(context, &mut ReadBuf::new(&mut byte)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(alert)) if !is_closed_by_peer(&alert) => Poll::Ready(Err(self.explain(alert))),
            Poll::Ready(_) => {
                let error = self.failed_write.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
                Poll::Ready(Err(error))
            }
        }
    }
}

fn is_closed_by_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl fmt::Debug for TlsConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnection").field("server", &self.server).finish_non_exhaustive()
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.is_answered |= buffer.filled().len() > filled;
        read.map_err(|error| self.explain(error))
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |stream, context| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
