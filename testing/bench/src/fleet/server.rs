//! The backend's process, which can be killed and started again at the same address.

use anyhow::Result;
use trigger_pki::TlsFiles;

use crate::etcd::{self, Etcd};
use crate::pki::Key;
use crate::process::Background;
use crate::scratch::Scratch;
use crate::trigger::{Hub, Program};

/// What the agents of a scene are connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) is_hub: bool,
    /// The key of the server's certificate; absent without TLS. The agents have EC keys.
    pub(super) key: Option<Key>,
}

impl Kind {
    pub(super) const ETCD: Self = Self { is_hub: false, key: None };
    pub(super) const HUB: Self = Self { is_hub: true, key: None };

    /// Returns the name for files and certnames.
    pub(super) fn name(self) -> String {
        let key = self.key.map_or_else(String::new, |key| format!("-{}", key.name().to_lowercase()));
        format!("{}-fleet{key}", if self.is_hub { "hub" } else { "etcd" })
    }

    /// Returns the name for the table.
    pub(super) fn title(self) -> String {
        let key = self.key.map_or_else(String::new, |key| format!(", TLS, {}", key.name()));
        format!("{}{key}", if self.is_hub { "hub" } else { "etcd" })
    }
}

pub(super) enum Server {
    Hub(Hub),
    Etcd(Etcd),
}

/// Starts a killed server again, at its address and with its data.
pub(super) type StartAgain = Box<dyn FnOnce(&Scratch, &Program) -> Result<Server>>;

impl Server {
    pub(super) fn start(
        kind: Kind,
        name: &str,
        scratch: &Scratch,
        program: &Program,
        tls: Option<&TlsFiles>,
    ) -> Result<Self> {
        Ok(if kind.is_hub {
            Self::Hub(Hub::start(scratch, program, name, tls)?)
        } else {
            Self::Etcd(etcd::start(scratch, name)?)
        })
    }

    pub(super) fn pid(&self) -> u32 {
        let process: &Background = match self {
            Self::Hub(hub) => &hub.process,
            Self::Etcd(etcd) => &etcd.process,
        };
        process.pid()
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Hub(hub) => hub.url(),
            Self::Etcd(etcd) => etcd.url(),
        }
    }

    /// Kills the server with SIGKILL.
    pub(super) fn kill(self) -> StartAgain {
        match self {
            Self::Hub(hub) => {
                let again = hub.kill();
                Box::new(|scratch, program| Ok(Self::Hub(again(scratch, program)?)))
            }
            Self::Etcd(etcd) => {
                let again = etcd.kill();
                Box::new(|scratch, _| Ok(Self::Etcd(again(scratch)?)))
            }
        }
    }
}
