//! A backend and the nodes around it, in one scratch directory.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::backend::{Backend, BackendKind};
use crate::disk::SmallDisk;
use crate::node::Node;
use crate::pki::{Authority, OPERATOR, Request};
use crate::process::end_all_of;

/// A fleet, of which each test has its own.
#[derive(Debug)]
pub struct Fleet {
    /// The backend.
    pub backend: Backend,
    disk: Option<SmallDisk>,
    scratch: TempDir,
}

impl Fleet {
    /// Starts a backend; nodes are added with [`Self::node`].
    pub fn on(kind: BackendKind) -> Self {
        let scratch = scratch();
        let backend = Backend::start(kind, &scratch.path().join("backend"));
        Self { backend, disk: None, scratch }
    }

    /// Starts a backend whose data lies on a disk of its own of so many KiB.
    pub fn on_small_disk(kind: BackendKind, kib: u32) -> Self {
        let scratch = scratch();
        let disk = SmallDisk::mount(&scratch.path().join("backend/data"), kib);
        let backend = Backend::start(kind, &scratch.path().join("backend"));
        Self { backend, disk: Some(disk), scratch }
    }

    /// Starts a backend whose server has this certificate, whatever is wrong with it.
    pub fn with_server(kind: BackendKind, request: &Request<'_>) -> Self {
        let scratch = scratch();
        let directory = scratch.path().join("backend");
        let ssl = Authority::puppet().issue(request, &directory.join("ssl"));
        let backend = Backend::start_with(kind, &directory, Some(ssl));
        Self { backend, disk: None, scratch }
    }

    /// Returns the backend's own disk; panics if it has none.
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("a fleet on a small disk")
    }

    /// Makes a node with a directory of its own and no agent yet.
    pub fn node(&self, certname: &str) -> Node {
        self.node_in(certname, certname)
    }

    /// Makes the node of an operator, who may see at a hub what no other node may.
    pub fn operator(&self) -> Node {
        self.node(OPERATOR)
    }

    /// Makes such a node in a directory whose name is not its certname.
    pub fn node_in(&self, directory: &str, certname: &str) -> Node {
        let mut node = Node::new(certname, &self.directory(directory), &self.backend.url());
        if self.backend.kind().is_tls() {
            let ssl = Authority::puppet().node(certname, &node.path("ssl"));
            node.has_certificate(&ssl);
        }
        node
    }

    /// Makes a node whose agent is running and connected.
    pub fn running(&self, certname: &str) -> Node {
        let mut node = self.node(certname);
        node.start_agent();
        node
    }

    /// Returns a directory in the scratch directory, and creates it if necessary.
    pub fn directory(&self, name: &str) -> PathBuf {
        let directory = self.path().join(name);
        std::fs::create_dir_all(&directory).expect("a scratch directory");
        directory
    }

    /// Returns the scratch directory.
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }
}

fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("trigger-e2e-").tempdir().expect("a scratch directory")
}

impl Drop for Fleet {
    fn drop(&mut self) {
        end_all_of(self.scratch.path());
    }
}
