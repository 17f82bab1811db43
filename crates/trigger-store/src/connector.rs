//! Connections to a backend's servers, for every client that speaks to one.
//!
//! Whether they are plain or encrypted is decided here and nowhere else: clients get a stream of bytes and do not know.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection as HttpConnection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::address::Address;
use crate::backend::OpenError;
use crate::credentials::Credentials;
use crate::kind::{BackendUrl, Transport};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Dials servers. Clones share only the configuration.
#[derive(Debug, Clone)]
pub struct Connector {
    tcp: HttpConnector,
    security: Security,
}

/// The layer on top of a TCP connection.
#[derive(Debug, Clone)]
enum Security {
    /// Nothing. A variant for TLS holds what the credentials' files were read into.
    Plain,
}

impl Connector {
    /// A connector for the servers of `url`.
    ///
    /// # Errors
    /// [`OpenError::TlsUnavailable`] when the URL's scheme asks for TLS, which this version does not have.
    pub fn new(url: &BackendUrl, credentials: &Credentials) -> Result<Self, OpenError> {
        let security = match (url.scheme().transport, credentials) {
            // A plain connection proves nothing about either end, so no credentials go into it.
            (Transport::Plain, _) => Security::Plain,
            (Transport::Tls, _) => return Err(OpenError::TlsUnavailable { url: url.to_string() }),
        };
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        Ok(Self { tcp, security })
    }

    /// Gives an address up after `timeout`. A name's resolution takes its own time.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.tcp.set_connect_timeout(Some(timeout));
        self
    }

    /// Lets the kernel probe a connection that was idle for `interval`.
    #[must_use]
    pub fn with_keep_alive(mut self, interval: Duration) -> Self {
        self.tcp.set_keepalive(Some(interval));
        self
    }

    /// The scheme of HTTP's own URIs that fits these connections.
    pub fn http_scheme(&self) -> &'static str {
        match self.security {
            Security::Plain => "http",
        }
    }

    /// Connects to a server.
    ///
    /// # Errors
    /// The error of the resolver or the kernel, innermost in the chain of sources.
    pub async fn connect(&self, address: &Address) -> Result<Connection, BoxError> {
        let uri: Uri = format!("{}://{address}", self.http_scheme()).parse()?;
        Ok(self.clone().call(uri).await?.into_inner())
    }
}

impl Security {
    async fn secure(self, stream: TcpStream) -> Result<Connection, BoxError> {
        match self {
            Self::Plain => Ok(Connection::Plain(stream)),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.tcp.call(uri);
        let security = self.security.clone();
        Box::pin(async move {
            let stream = connecting.await?.into_inner();
            Ok(TokioIo::new(security.secure(stream).await?))
        })
    }
}

/// A stream of bytes to a server.
#[derive(Debug)]
pub enum Connection {
    /// In the clear.
    Plain(TcpStream),
}

impl Connection {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream),
        }
    }
}

impl HttpConnection for Connection {
    fn connected(&self) -> Connected {
        match self {
            Self::Plain(stream) => stream.connected(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_plain_url_gives_a_plain_stream() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: BackendUrl = format!("hub+http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let connector = Connector::new(&url, &Credentials::default()).unwrap();
        let mut connection = connector.connect(&url.addresses()[0]).await.unwrap();
        connection.write_all(b"hello").await.unwrap();
        let mut received = [0; 5];
        listener.accept().await.unwrap().0.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"hello");
    }
}
