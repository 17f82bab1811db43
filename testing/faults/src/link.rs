//! The link between one agent and one server, as a TCP proxy that can be cut and healed.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use trigger_e2e::free_port;

/// The number of ports to try before giving up.
const PORTS_TRIED: usize = 20;

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It forwards data.
    Open,
    /// It breaks each existing and each new connection.
    Broken,
    /// It discards all data silently. A connection that existed meanwhile stays dead after the link is healed.
    Silent,
    /// It holds all data back, and forwards it when it is healed.
    Frozen,
}

/// A proxy on a port of its own.
#[derive(Debug)]
pub(crate) struct Link {
    port: u16,
    mode: watch::Sender<Mode>,
}

impl Link {
    /// Starts a proxy to a port of this machine.
    pub(crate) fn to(server: u16, runtime: &Handle) -> io::Result<Self> {
        let (mode, receiver) = watch::channel(Mode::Open);
        // The port needs five digits, see `Names`; another process may take it first.
        let listener = (0..PORTS_TRIED)
            .find_map(|_| runtime.block_on(TcpListener::bind(("127.0.0.1", free_port()))).ok())
            .ok_or(io::ErrorKind::AddrInUse)?;
        let port = listener.local_addr()?.port();
        runtime.spawn(listen(listener, server, receiver));
        Ok(Self { port, mode })
    }

    /// Returns the port on which it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts or heals it.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn listen(listener: TcpListener, server: u16, mode: watch::Receiver<Mode>) {
    let own = listener.local_addr().map_or(0, |address| address.port());
    loop {
        // The process is out of file descriptors for a moment; the next connection may succeed.
        if let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, Names { own, server }, mode.clone()));
        }
    }
}

/// The ports on both ends. The hub answers only to its own name, so a request that names the link's port must arrive
/// with the hub's.
#[derive(Debug, Clone, Copy)]
struct Names {
    own: u16,
    server: u16,
}

impl Names {
    /// Replaces the link's name by the server's. A client sends a request only after the previous answer, so the name
    /// is never split between two reads; all ports have five digits, so the length does not change.
    fn translate(self, bytes: &mut [u8]) {
        let [own, server] = [self.own, self.server].map(|port| format!("127.0.0.1:{port:05}").into_bytes());
        if let Some(at) = bytes.windows(own.len()).position(|window| window == own) {
            bytes[at..at + own.len()].copy_from_slice(&server);
        }
    }
}

/// Serves one connection to its end.
async fn carry(mut client: TcpStream, names: Names, mut mode: watch::Receiver<Mode>) {
    let _ = client.set_nodelay(true);
    let present = *mode.borrow_and_update();
    match present {
        Mode::Broken => return,
        Mode::Silent => return swallow(&mut client).await,
        Mode::Open | Mode::Frozen => {}
    }
    let Ok(mut server) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], names.server))).await else {
        return;
    };
    let _ = server.set_nodelay(true);
    let cut_by = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        tokio::select! {
            () = pump(&mut from_client, &mut to_server, mode.clone(), |bytes| names.translate(bytes)) => return,
            () = pump(&mut from_server, &mut to_client, mode.clone(), |_| ()) => return,
            cut_by = cut(&mut mode) => cut_by,
        }
    };
    if cut_by == Mode::Silent {
        // Neither side is notified; each must find out by itself.
        tokio::join!(swallow(&mut client), swallow(&mut server));
    }
}

/// Returns when the connection is to be broken or its data discarded.
async fn cut(mode: &mut watch::Receiver<Mode>) -> Mode {
    let cut = mode.wait_for(|mode| matches!(mode, Mode::Broken | Mode::Silent)).await;
    cut.map_or(Mode::Broken, |mode| *mode)
}

/// Copies one direction until its end, and pauses while the link is frozen.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut mode: watch::Receiver<Mode>,
    translate: impl Fn(&mut [u8]),
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        if mode.wait_for(|mode| *mode == Mode::Open).await.is_err() {
            return;
        }
        tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(count) if count > 0 => {
                    translate(&mut buffer[..count]);
                    if to.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            changed = mode.changed() => if changed.is_err() { return },
        }
    }
}

/// Reads and discards all data until the other side closes the connection.
async fn swallow(stream: &mut TcpStream) {
    let mut buffer = vec![0; 16 * 1024];
    while matches!(stream.read(&mut buffer).await, Ok(count) if count > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream as Stream;
    use std::time::Duration;

    /// The time that a test waits for an answer that must come.
    const TIMEOUT: Duration = Duration::from_secs(20);
    /// The time that a test waits to see that no answer comes.
    const A_WHILE: Duration = Duration::from_millis(200);

    /// Starts a server that echoes each byte, with a link to it.
    fn echo() -> (tokio::runtime::Runtime, Link) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in server.incoming() {
                let (mut from, mut to) = (stream.as_ref().unwrap(), stream.as_ref().unwrap());
                std::thread::scope(|_| drop(std::io::copy(&mut from, &mut to)));
            }
        });
        let link = Link::to(port, runtime.handle()).unwrap();
        (runtime, link)
    }

    fn connect(link: &Link) -> Stream {
        Stream::connect(("127.0.0.1", link.port())).unwrap()
    }

    /// Returns the answer to one byte; `None` at the end of the connection.
    fn ask(mut stream: &Stream, patience: Duration) -> Result<Option<u8>, ErrorKind> {
        stream.set_read_timeout(Some(patience)).unwrap();
        stream.write_all(b"x").map_err(|error| error.kind())?;
        let mut byte = [0];
        let count = stream.read(&mut byte).map_err(|error| error.kind())?;
        Ok((count > 0).then_some(byte[0]))
    }

    #[test]
    fn an_open_wire_carries() {
        let (_runtime, link) = echo();
        let stream = connect(&link);
        assert_eq!(ask(&stream, TIMEOUT), Ok(Some(b'x')));
        assert_eq!(ask(&stream, TIMEOUT), Ok(Some(b'x')));
    }

    #[test]
    fn a_request_names_the_server_when_it_arrives() {
        let mut request = b"POST / HTTP/1.1\r\nhost: 127.0.0.1:40001\r\n\r\n".to_vec();
        Names { own: 40_001, server: 50_002 }.translate(&mut request);
        assert_eq!(request, b"POST / HTTP/1.1\r\nhost: 127.0.0.1:50002\r\n\r\n");
    }

    #[test]
    fn a_broken_wire_ends_connections_old_and_new() {
        let (_runtime, link) = echo();
        let old = connect(&link);
        assert_eq!(ask(&old, TIMEOUT), Ok(Some(b'x')));
        link.set(Mode::Broken);
        let is_dead =
            |answer| matches!(answer, Ok(None) | Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
        assert!(is_dead(ask(&old, TIMEOUT)));
        assert!(is_dead(ask(&connect(&link), TIMEOUT)));
    }

    #[test]
    fn a_silent_wire_swallows_and_what_it_swallowed_stays_dead() {
        let (_runtime, link) = echo();
        let old = connect(&link);
        assert_eq!(ask(&old, TIMEOUT), Ok(Some(b'x')));
        link.set(Mode::Silent);
        assert_eq!(ask(&old, A_WHILE), Err(ErrorKind::WouldBlock));
        link.set(Mode::Open);
        assert_eq!(ask(&old, A_WHILE), Err(ErrorKind::WouldBlock));
    }

    #[test]
    fn a_frozen_wire_carries_on_when_it_is_healed() {
        let (_runtime, link) = echo();
        let stream = connect(&link);
        assert_eq!(ask(&stream, TIMEOUT), Ok(Some(b'x')));
        link.set(Mode::Frozen);
        assert_eq!(ask(&stream, A_WHILE), Err(ErrorKind::WouldBlock));
        link.set(Mode::Open);
        assert_eq!(ask(&stream, TIMEOUT), Ok(Some(b'x')));
    }
}
