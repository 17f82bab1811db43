//! The client of a hub: each watch over a WebSocket of its own, requests over one of these or over kept-alive HTTP
//! connections.
//!
//! Nothing is connected before it is needed, and nothing is repeated here: the layers above know what may
//! be repeated. What is sent is in [`crate::hub_protocol`].

mod connections;
mod failure;
mod limits;
mod open_watches;
mod requests;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use trigger_core::identity::{KeyPrefix, Revision};
use trigger_core::why::Question;

use self::failure::HubFailure;
use self::requests::{Requests, chunks};
use self::watching::{closed, open};
use crate::clock::ClockDifference;
use crate::connector::Connector;
use crate::credentials::Credentials;
use crate::hub_protocol::{
    COMPARE_AND_SWAP, CasReply, CasRequest, DELETE, DeleteReply, DeleteRequest, HEALTH, HealthReply,
    NewEntry, PutRequest, STATUS, StatusReply, StatusRequest, WHY, WhyReply, WhyRequest,
};
use crate::inquiry::{VisibleEvents, WantedEvents};
use crate::kind::BackendUrl;
use crate::store::{
    CasOutcome, Entry, KeyRange, MAX_ORDERED_BYTES, MAX_ORDERED_ENTRIES, Store, StoreError, Watch,
    replace_in_steps,
};

/// The protocol within TLS.
pub(crate) const ALPN: &[u8] = b"http/1.1";

/// A hub, as a client sees it.
#[derive(Debug)]
pub struct HubStore {
    /// The URL, for people.
    url: String,
    connector: Connector,
    requests: Arc<Requests>,
}

impl HubStore {
    /// The hub at the first address of `url`. Connects when first used.
    pub fn new(url: &BackendUrl, connector: Connector) -> Self {
        let requests = Arc::new(Requests::new(&url.addresses()[0], connector.clone()));
        Self { url: url.to_string(), connector, requests }
    }

    /// The hub at `HOST:PORT`, over plain connections.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when that is no address.
    pub fn connect(address: &str) -> Result<Self, StoreError> {
        let url = format!("hub+http://{address}");
        let refused = |detail: String| StoreError::Refused { backend: url.clone(), detail: detail.into() };
        let url: BackendUrl = url.parse().map_err(|error| refused(format!("{error}")))?;
        let connector = Connector::new(&url, &Credentials::default(), ALPN)
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self::new(&url, connector))
    }

    async fn read_pages(&self, ranges: &[KeyRange], keys_only: bool) -> Result<Vec<Entry>, StoreError> {
        self.requests.read_pages(ranges, keys_only).await.map_err(|failure| self.error(failure))
    }

    async fn open_watch(&self, ranges: Vec<KeyRange>, puts_only: bool) -> Result<Watch, StoreError> {
        let events = open(&self.requests, ranges, puts_only).await.map_err(|failure| self.error(failure))?;
        let address = self.url.clone();
        let events = stream::unfold(Some((events, address)), |state| async move {
            let (mut events, address) = state?;
            match events.recv().await.unwrap_or_else(|| Err(closed())) {
                Ok(event) => Some((Ok(event), Some((events, address)))),
                Err(failure) => Some((Err(failure.of(&address)), None)),
            }
        });
        Ok(Box::pin(events))
    }

    fn error(&self, failure: HubFailure) -> StoreError {
        failure.of(&self.url)
    }
}

#[async_trait]
impl Store for HubStore {
    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        let entries = entries.into_iter().map(|(key, value)| NewEntry { key, value });
        let chunks = chunks(entries, |entry| entry.key.len() + entry.value.len());
        let requests = chunks.into_iter().map(|entries| PutRequest { entries, delete: Vec::new() }).collect();
        let answers = self.requests.put_chunks(requests).await;
        answers.into_iter().map(|answer| answer.map_err(|failure| self.error(failure))).collect()
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        for keys in chunks(keys.into_iter(), String::len) {
            let request = DeleteRequest { keys };
            let reply: Result<DeleteReply, _> = self.requests.write(DELETE, &request, Duration::ZERO).await;
            reply.map_err(|failure| self.error(failure))?;
        }
        Ok(())
    }

    async fn replace(
        &self,
        keys: Vec<String>,
        entries: Vec<(String, String)>,
    ) -> Result<Vec<Revision>, StoreError> {
        let bytes: usize = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        if keys.len() + entries.len() > MAX_ORDERED_ENTRIES || bytes > MAX_ORDERED_BYTES {
            return replace_in_steps(self, keys, entries).await;
        }
        let entries = entries.into_iter().map(|(key, value)| NewEntry { key, value }).collect();
        let replaced = self.requests.put(&PutRequest { entries, delete: keys }).await;
        replaced.map_err(|failure| self.error(failure))
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        let request = CasRequest {
            key: key.to_owned(),
            value: value.to_owned(),
            expected: expected.map(|revision| revision.0),
        };
        let reply: Result<CasReply, _> =
            self.requests.write(COMPARE_AND_SWAP, &request, Duration::ZERO).await;
        reply.map(CasOutcome::from).map_err(|failure| self.error(failure))
    }

    async fn prepare(&self) {
        self.requests.prepare().await;
    }

    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        self.read_pages(ranges, false).await
    }

    async fn list(&self, ranges: &[KeyRange]) -> Result<Vec<(String, Revision)>, StoreError> {
        let entries = self.read_pages(ranges, true).await?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.revision)).collect())
    }

    async fn watch(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError> {
        self.open_watch(ranges, false).await
    }

    async fn watch_puts(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError> {
        self.open_watch(ranges, true).await
    }

    async fn explain(
        &self,
        prefix: &KeyPrefix,
        question: &Question,
    ) -> Result<Option<Vec<Entry>>, StoreError> {
        let request = WhyRequest { prefix: prefix.clone(), about: question.into() };
        let reply: Option<WhyReply> =
            self.requests.ask(WHY, &request).await.map_err(|failure| self.error(failure))?;
        Ok(reply.map(|reply| reply.entries.into_iter().map(Entry::from).collect()))
    }

    async fn visible_events(
        &self,
        prefix: &KeyPrefix,
        wanted: &WantedEvents,
    ) -> Result<Option<VisibleEvents>, StoreError> {
        let request = StatusRequest { prefix: prefix.clone(), wanted: wanted.into() };
        let reply: Option<StatusReply> =
            self.requests.ask(STATUS, &request).await.map_err(|failure| self.error(failure))?;
        Ok(reply.map(VisibleEvents::from))
    }

    /// A hub that knows its clients sweeps, because none of them may.
    fn sweeps_itself(&self) -> bool {
        self.connector.http_scheme() == "https"
    }

    fn clock_difference(&self) -> Option<ClockDifference> {
        self.requests.clock_difference()
    }

    async fn server_version(&self) -> Result<Option<String>, StoreError> {
        let health: HealthReply =
            self.requests.get(HEALTH).await.map_err(|failure| self.error(failure.of_read()))?;
        Ok(Some(health.version))
    }

    fn address(&self) -> &str {
        &self.url
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::net::TcpListener;

    use super::*;

    async fn put(store: &HubStore) -> String {
        match store.put_many(vec![("a".to_owned(), "1".to_owned())]).await.remove(0) {
            Ok(revision) => format!("written at {revision}"),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable_at_once() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let store = HubStore::connect(&address.to_string()).unwrap();
        let message = put(&store).await;
        assert_eq!(
            message,
            format!("backend hub+http://{address} is unreachable: Connection refused (os error 111)")
        );
        let watch = store.watch(vec![KeyRange::Key("a".to_owned())]).await.err().unwrap();
        assert!(matches!(watch, StoreError::Unreachable { .. }), "{watch}");
    }

    #[tokio::test]
    async fn a_hub_that_never_answers_is_known_within_seconds() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let store = HubStore::connect(&listener.local_addr().unwrap().to_string()).unwrap();
        let started = Instant::now();
        let message = put(&store).await;
        assert!(
            message.ends_with("no answer within 2s; it may or may not have done what was asked"),
            "{message}"
        );
        assert!(started.elapsed() < Duration::from_secs(3));
    }

    #[tokio::test]
    async fn a_hub_whose_clock_is_days_ahead_shows_in_its_answers() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let store = HubStore::connect(&listener.local_addr().unwrap().to_string()).unwrap();
        assert_eq!(store.clock_difference(), None, "it has not answered yet");
        let hub = async {
            let mut stream = listener.accept().await.unwrap().0;
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(length > 0);
            let date =
                httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(2 * 86_400));
            let head = format!("HTTP/1.1 200 OK\r\ndate: {date}\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
        };
        let (_, _) = tokio::join!(hub, put(&store));
        let difference = store.clock_difference().unwrap();
        let behind = difference.behind().as_secs();
        assert!((2 * 86_400 - 5..=2 * 86_400).contains(&behind), "{difference:?}");
        assert_eq!(difference.ahead(), Duration::ZERO);
    }
}
