//! The harness of the end-to-end tests: real processes in scratch directories, which the tests observe from outside
//! as an operator would, through `trigger status` and `trigger queue`.
//!
//! A [`Fleet`] is a real backend (a hub or an etcd) and the [`Node`]s around it. Every process that a fleet started
//! ends when it is dropped: by process id, never by name. A missing program fails the test with the Debian package to
//! install; nothing is ever skipped. The harness panics where it cannot do its part, since each such failure is a
//! failure of the test.
//!
//! Run `cargo test -p trigger-e2e` as root, because some tests mount small disks. The tests in `puppet_agent/` share
//! a [`PuppetServer`], which takes half a minute and some 700 MB of memory. The harness builds the program under
//! test; `TRIGGER_BIN` names another one.

#![allow(clippy::expect_used, reason = "a harness that cannot do its part fails the test")]

mod answer;
mod backend;
mod binary;
mod chaining;
mod cluster;
mod disk;
mod fleet;
#[path = "../../free_port.rs"]
mod free_port;
mod node;
mod once;
mod pki;
mod polling;
mod process;
mod puppet;
mod puppet_agent;
mod puppet_server;
mod puppetdb;

pub use answer::Answer;
pub use backend::{Backend, BackendKind};
pub use binary::program;
pub use chaining::{fired, then};
pub use cluster::Cluster;
pub use disk::{ReadOnly, SmallDisk};
pub use fleet::Fleet;
pub use free_port::free_port;
pub use node::{Node, Run};
pub use pki::{ADMINISTRATOR, Authority, Crl, KeyType, OPERATOR, Request, SERVER, Ssl, Validity};
pub use polling::{TIMEOUT, eventually, eventually_within, never_for, opened_within};
pub use process::{Process, end_all_of, go_on, is_alive, is_stopped, kill, parent_of, signal_to_end, stop};
pub use puppet::{Applied, module_path};
pub use puppet_server::PuppetServer;
pub use puppetdb::PuppetDb;

/// Makes two tests of each scenario, one on the hub and one on etcd, as a fleet has them: with TLS, the certificates of a
/// real Puppet CA, signatures and a policy. A scenario is a function that takes a [`BackendKind`].
#[macro_export]
macro_rules! on_each_backend {
    ($($scenario:ident),+ $(,)?) => {
        mod hub {
            $(#[test] fn $scenario() { super::$scenario($crate::BackendKind::Hub); })+
        }
        mod etcd {
            $(#[test] fn $scenario() { super::$scenario($crate::BackendKind::Etcd); })+
        }
    };
}

/// Makes two tests of each scenario as [`on_each_backend`] does, over plain links and without certificates: for what is
/// put into a backend past all of Trigger's checks, which only a hub that knows no clients lets anyone do, and for what
/// a fleet without a CA is.
#[macro_export]
macro_rules! on_each_plain_backend {
    ($($scenario:ident),+ $(,)?) => {
        mod plain_hub {
            $(#[test] fn $scenario() { super::$scenario($crate::BackendKind::PlainHub); })+
        }
        mod plain_etcd {
            $(#[test] fn $scenario() { super::$scenario($crate::BackendKind::PlainEtcd); })+
        }
    };
}
