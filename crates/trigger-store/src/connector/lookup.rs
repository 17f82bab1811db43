//! The lookup of a server's name.
//!
//! A resolver waits five seconds for a nameserver that is dead before it asks the next one, at every lookup. So a lookup
//! that was given up goes on, its result serves the next attempt, and addresses that are known are used when a lookup
//! is slow.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::oneshot;
use tokio::time::timeout;
use trigger_core::duration;

use crate::step_limit::StepLimit;

/// The first limit of a lookup: a resolver gives one dead nameserver up after five seconds.
const FIRST_LIMIT: Duration = Duration::from_secs(6);
/// The longest limit of a lookup: more than a resolver with three dead nameservers takes to fail.
const LONGEST_LIMIT: Duration = Duration::from_secs(32);
/// How long a lookup may take before the addresses of the last one are used.
const STALE_AFTER: Duration = Duration::from_millis(500);

type Addresses = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    #[error("the lookup of the name {host} took longer than {}", duration::format_short(*limit))]
    TimedOut { host: String, limit: Duration },
    #[error("the name {host} cannot be looked up")]
    Failed {
        host: String,
        #[source]
        source: Arc<io::Error>,
    },
}

/// The addresses of one server.
#[derive(Debug)]
pub(super) struct Lookup {
    host: String,
    port: u16,
    limit: StepLimit,
    known: Arc<Mutex<Vec<SocketAddr>>>,
    /// Whether the known addresses could not be connected to.
    is_doubtful: AtomicBool,
    in_progress: Mutex<Option<Shared<BoxFuture<'static, Addresses>>>>,
}

impl Lookup {
    /// `host` is a name or an address; an IPv6 address may be in brackets.
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            limit: StepLimit::new(FIRST_LIMIT, LONGEST_LIMIT),
            known: Arc::default(),
            is_doubtful: AtomicBool::new(false),
            in_progress: Mutex::default(),
        }
    }

    /// The addresses to connect to.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, LookupError> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        let lookup = self.begin(resolve);
        let known = locked(&self.known).clone();
        if !known.is_empty() && !self.is_doubtful.load(Ordering::Relaxed) {
            return match timeout(STALE_AFTER, lookup).await {
                Ok(Ok(found)) => Ok(found),
                _ => Ok(known),
            };
        }
        match self.limit.bound(lookup).await {
            Ok(Ok(found)) => {
                self.is_doubtful.store(false, Ordering::Relaxed);
                Ok(found)
            }
            _ if !known.is_empty() => Ok(known),
            Ok(Err(source)) => Err(LookupError::Failed { host: self.host.clone(), source }),
            Err(limit) => Err(LookupError::TimedOut { host: self.host.clone(), limit }),
        }
    }

    /// None of the addresses can be connected to: they may be those of yesterday. The next attempt waits for a whole
    /// lookup, and uses them again only if that fails.
    pub(super) fn doubt(&self) {
        self.is_doubtful.store(true, Ordering::Relaxed);
    }

    /// The lookup that is in progress, or a new one.
    fn begin(
        &self,
        resolve: impl FnOnce(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Addresses>> {
        let mut in_progress = locked(&self.in_progress);
        if let Some(lookup) = in_progress.as_ref().filter(|lookup| lookup.peek().is_none()) {
            return lookup.clone();
        }
        let (sender, receiver) = oneshot::channel();
        let (host, port, known) = (self.host.clone(), self.port, Arc::clone(&self.known));
        // A thread of its own: a resolver can take half a minute, and the runtime's few threads for blocking calls
        // also wait for runs to end.
        let thread = std::thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            let found = resolve(&host, port).map_err(Arc::new);
            if let Ok(found) = &found {
                known.lock().unwrap_or_else(PoisonError::into_inner).clone_from(found);
            }
            let _ = sender.send(found);
        });
        let lookup = async move {
            thread?;
            receiver.await.unwrap_or_else(|_| Err(Arc::new(io::Error::other("the lookup has failed"))))
        };
        let lookup = lookup.boxed().shared();
        *in_progress = Some(lookup.clone());
        lookup
    }
}

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_needs_no_lookup() {
        for (host, expected) in [("127.0.0.1", "127.0.0.1:1"), ("[::1]", "[::1]:1"), ("::1", "[::1]:1")] {
            assert_eq!(Lookup::new(host, 1).addresses().await.unwrap(), [expected.parse().unwrap()]);
        }
    }

    #[tokio::test]
    async fn a_lookup_that_was_given_up_serves_the_next_attempt() {
        let lookup = Lookup::new("slow.example.com", 1);
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let found: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let first = lookup.begin(move |_, _| {
            let _ = wait.recv();
            Ok(vec![found])
        });
        assert!(timeout(Duration::from_millis(50), first).await.is_err(), "it takes its time");
        let second = lookup.begin(|_, _| unreachable!("one lookup at a time"));
        go_on.send(()).unwrap();
        assert_eq!(second.await.unwrap(), [found]);
        assert_eq!(*locked(&lookup.known), [found]);
    }

    #[tokio::test]
    async fn known_addresses_are_used_where_the_next_lookup_fails() {
        let lookup = Lookup::new("gone.invalid", 1);
        let LookupError::Failed { .. } = lookup.addresses().await.unwrap_err() else {
            panic!("no such name")
        };
        let known: SocketAddr = "192.0.2.1:1".parse().unwrap();
        *locked(&lookup.known) = vec![known];
        assert_eq!(lookup.addresses().await.unwrap(), [known]);
        lookup.doubt();
        assert_eq!(
            lookup.addresses().await.unwrap(),
            [known],
            "without a nameserver there are no better ones"
        );
    }
}
