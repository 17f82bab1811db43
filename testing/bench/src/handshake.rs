//! What a handshake costs the hub: with an RSA key, and with one of EC.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use trigger_pki::Pki;

use crate::figures::{Figure, Figures, Peer};
use crate::pki::{Ca, Key};
use crate::process::cpu_seconds;
use crate::trigger::Site;

/// The number of windows over which the processor time is measured: the kernel counts it in ticks of 10 ms.
const WINDOWS: usize = 5;
/// The time after a window, in which the hub closes its connections.
const QUIESCE_TIME: Duration = Duration::from_millis(500);

/// Measures `count` handshakes in each window, by a client with an EC key.
pub(crate) fn measure(sites: &[Site<'_>], ca: &mut Ca, count: usize, figures: &mut Figures) -> Result<()> {
    let config = Pki::open(ca.issue("handshakes.example.com", Key::Ec)?)?.client_config(&[])?;
    let mut hubs = Vec::new();
    for key in [Key::Rsa, Key::Ec] {
        let site = sites.iter().find(|site| site.is_hub() && site.key == Some(key));
        let site = site.context("no hub with TLS")?;
        let pid = site.hub.as_ref().context("no hub")?.pid();
        let address = site.url.rsplit('/').next().unwrap_or_default().to_owned();
        hubs.push((key, pid, address, Vec::new()));
    }
    for _ in 0..WINDOWS {
        for (_, pid, address, samples) in &mut hubs {
            let before = cpu_seconds(*pid)?;
            for _ in 0..count {
                connect(address, &config)?;
            }
            std::thread::sleep(QUIESCE_TIME);
            samples.push((cpu_seconds(*pid)? - before) * 1e3 / count as f64);
        }
    }
    let mut peer = None;
    for (key, _, _, samples) in hubs {
        let beside = peer.as_deref().map(Peer::rsa);
        figures.add(Figure {
            measure: "processor of the hub for a handshake",
            setup: format!("hub, TLS, {}", key.name()),
            unit: "ms",
            samples: samples.clone(),
            peer: beside,
            goal: None,
        });
        peer.get_or_insert(samples);
    }
    Ok(())
}

/// Connects, and closes the connection once the hub has accepted it.
fn connect(address: &str, config: &Arc<ClientConfig>) -> Result<()> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot reach {address}"))?;
    let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
    let mut connection = ClientConnection::new(Arc::clone(config), name)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    // With TLS 1.3 the hub has yet to verify the client: it closes without an alert only if it was content.
    connection.send_close_notify();
    connection.complete_io(&mut stream)?;
    let mut rest = Vec::new();
    match rustls::Stream::new(&mut connection, &mut stream).read_to_end(&mut rest) {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(error).context("a handshake"),
        _ => {}
    }
    ensure!(rest.is_empty(), "the hub said something unasked");
    Ok(())
}
