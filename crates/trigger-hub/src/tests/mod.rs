//! A real hub on a free port, and the real client.

mod crl;
mod durability;
mod health;
mod limits;
mod over_watches;
mod requests;
mod rights;
mod startup;
mod stores;
mod tls;
mod watches;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use trigger_core::identity::Revision;
use trigger_store::conformance;
use trigger_store::hub::HubStore;
use trigger_store::store::{CasOutcome, Change, KeyRange, Store, StoreError, Watch, WatchEvent};

use crate::sqlite::database;
use crate::{
    HubError, HubSettings, ListenAddress, Rights, ServedStore, SqliteError, SqliteStore, backup, run,
    serve_store, server,
};

/// How long a test waits before it fails.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A hub in this process.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), HubError>>,
}

impl Running {
    async fn start(data_dir: &Path) -> Self {
        Self::start_on("127.0.0.1:0", data_dir).await
    }

    async fn start_on(listen: &str, data_dir: &Path) -> Self {
        let settings = settings(listen, data_dir);
        Self::spawn(|ready, stopped| run(settings, ready, stopped)).await
    }

    /// Starts a hub in front of any store.
    async fn serving(store: impl ServedStore + 'static) -> Self {
        let listen: ListenAddress = "127.0.0.1:0".parse().unwrap();
        Self::spawn(|ready, stopped| async move {
            Ok(server::serve(Arc::new(store), listen, ready, stopped).await?)
        })
        .await
    }

    async fn spawn<F: Future<Output = Result<(), HubError>> + Send + 'static>(
        hub: impl FnOnce(Box<dyn FnOnce(SocketAddr) + Send>, BoxFuture<'static, ()>) -> F,
    ) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let ready = Box::new(|address| ready.send(address).unwrap());
        let stopped = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(hub(ready, stopped.boxed()));
        match is_ready.await {
            Ok(address) => Self { address, stop, task },
            Err(_) => panic!("the hub did not start: {:?}", task.await),
        }
    }

    fn store(&self) -> HubStore {
        HubStore::connect(&self.address.to_string()).unwrap()
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(TIMEOUT, self.task).await.unwrap().unwrap().unwrap();
    }

    /// Sends `request` with `HOST` replaced, and returns the status line and the body.
    async fn raw(&self, request: &str) -> String {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        let request = request.replace("HOST", &self.address.to_string()).replace('\n', "\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(TIMEOUT, connection.read_to_end(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        format!("{} {body}", head.lines().next().unwrap_or_default().trim_start_matches("HTTP/1.1 "))
    }

    async fn post(&self, path: &str, body: &str) -> String {
        let length = body.len();
        let head = "Host: HOST\nContent-Type: application/json\nConnection: close\nContent-Length";
        self.raw(&format!("POST {path} HTTP/1.1\n{head}: {length}\n\n{body}")).await
    }

    async fn get(&self, path: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\nHost: HOST\nConnection: close\n\n")).await
    }
}

async fn put(store: &HubStore, key: &str, value: &str) -> Revision {
    store.put_many(vec![(key.to_owned(), value.to_owned())]).await.remove(0).unwrap()
}

/// Puts entries, and repeats that until all are stored, because a busy machine may need longer than a client's timeout.
async fn put_all(store: &HubStore, entries: Vec<(String, String)>) {
    let all_written = async { while !store.put_many(entries.clone()).await.iter().all(Result::is_ok) {} };
    timeout(TIMEOUT, all_written).await.unwrap();
}

async fn values(store: &HubStore) -> Vec<String> {
    let entries = store.read(&[all()]).await.unwrap();
    entries.into_iter().map(|entry| format!("{}={}", entry.key, entry.value)).collect()
}

fn all() -> KeyRange {
    KeyRange::Prefix("/".to_owned())
}

async fn next(watch: &mut Watch) -> Option<Result<WatchEvent, StoreError>> {
    timeout(TIMEOUT, watch.next()).await.unwrap()
}

/// The settings of a hub on loopback.
fn settings(listen: &str, data_dir: &Path) -> HubSettings {
    HubSettings {
        rights: Rights::default(),
        listen: listen.to_owned(),
        tls: None,
        crl_fetch: None,
        health_listen: None,
        allowed_hosts: Vec::new(),
        data_dir: data_dir.to_owned(),
    }
}

/// Returns the error of a hub that does not start.
async fn start_fails(listen: &str, data_dir: &Path) -> String {
    let settings = settings(listen, data_dir);
    let ready = |address| panic!("it must not listen on {address}");
    timeout(TIMEOUT, run(settings, ready, std::future::pending())).await.unwrap().unwrap_err().to_string()
}
