//! The frames of a watch's WebSocket, as the hub reads its clients' and as a client reads the hub's.

use std::io::{self, Cursor, Read, Write};

use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use trigger_store::hub_protocol::{SocketRequest, WatchMessage, WatchRequest};

/// The hub's limit for a message of a client.
const MAX_MESSAGE_BYTES: usize = 2 * 1024 * 1024;

/// A peer that sends these bytes after the handshake.
pub(crate) fn watch(data: &[u8]) {
    for role in [Role::Server, Role::Client] {
        let mut config = WebSocketConfig::default();
        config.read_buffer_size = 1024;
        config.max_message_size = Some(MAX_MESSAGE_BYTES);
        config.max_frame_size = Some(MAX_MESSAGE_BYTES);
        let mut socket = WebSocket::from_raw_socket(Peer(Cursor::new(data)), role, Some(config));
        while let Ok(message) = socket.read() {
            assert!(message.len() <= MAX_MESSAGE_BYTES, "a message beyond its limit");
            if let Message::Text(text) = message {
                let _ = serde_json::from_str::<WatchRequest>(&text);
                let _ = serde_json::from_str::<WatchMessage>(&text);
                let _ = serde_json::from_str::<SocketRequest>(&text);
            }
        }
    }
}

/// A connection on which all that is written vanishes.
struct Peer<'a>(Cursor<&'a [u8]>);

impl Read for Peer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
