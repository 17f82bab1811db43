//! A TCP relay from the other loopback address. The agents connect to it, so that a packet filter can cut them off
//! while other clients still reach the backend itself. It uses the backend's own port, since a hub answers only to
//! its own name and port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};

/// Forwards connections to `[::1]` to this address, which is 127.0.0.1 at the same port, for as long as this program
/// lives. Returns the port.
pub(crate) fn start(address: &str) -> Result<u16> {
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    let port = port.context("an address without a port")?;
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, port))
        .with_context(|| format!("cannot listen on [::1]:{port}"))?;
    thread::spawn(move || {
        for accepted in listener.incoming() {
            thread::spawn(move || {
                // If either side fails, the other sees its connection end.
                let _ =
                    accepted.and_then(|from| pass_on(from, TcpStream::connect((Ipv4Addr::LOCALHOST, port))?));
            });
        }
    });
    Ok(port)
}

fn pass_on(from: TcpStream, to: TcpStream) -> io::Result<()> {
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    let back = (to.try_clone()?, from.try_clone()?);
    thread::spawn(move || copy(back.0, back.1));
    copy(from, to);
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
