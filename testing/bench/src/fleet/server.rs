//! The backend's process, which can be killed and started again at the same address.

use anyhow::Result;
use trigger_pki::TlsFiles;

use super::Kind;
use crate::etcd::{self, Etcd};
use crate::process::Background;
use crate::scratch::Scratch;
use crate::trigger::{Hub, Program};

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
