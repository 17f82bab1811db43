use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use super::*;
use crate::agent::catalogs::CatalogChannels;
use crate::agent::testing::{Check, settings};
use crate::agent::view::not_tried;
use crate::agent::{Surroundings, start};

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Starts to log what this thread does, until the guard is dropped.
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn count(&self, words: &str) -> usize {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().matches(words).count()
    }
}

#[tokio::test]
async fn an_agent_with_another_certname_says_so_and_not_that_the_backend_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _guard) = Log::start();
    let sentence = "Puppet's certname for this node is lb02, and not lb01";
    let (signals_in, signals) = mpsc::channel(1);
    let (service_in, service) = tokio::sync::oneshot::channel();
    let surroundings = Surroundings {
        signals,
        policy: watch::channel(Default::default()).1,
        catalogs: CatalogChannels::unconnected(),
        disabled: Check(Some(PuppetBlocker::OtherCertname(sentence.to_owned()))),
        serve: |service| {
            drop(service_in.send(service));
            Ok(Vec::new())
        },
        on_ready: Box::new(|| ()),
    };
    let agent = start::run(settings(dir.path()), surroundings, || async { Ok::<(), AgentError>(()) });
    let ask = async {
        let service = service.await.unwrap_or_else(|_| panic!("it serves"));
        for _ in 0..3 {
            let view = service.queue().await.unwrap();
            assert_eq!(view.disconnected.as_deref(), Some(sentence));
            assert!(view.held.is_empty());
        }
        signals_in.send(Signal::Terminate).await.unwrap();
    };
    let limit = Duration::from_secs(20);
    let (stopped, ()) = tokio::time::timeout(limit, async { tokio::join!(agent, ask) }).await.unwrap();
    assert!(matches!(stopped, Ok(Stopped::Terminated)), "{stopped:?}");
    assert_eq!(log.count(sentence), 1, "without any delivery, and once");
}

#[test]
fn a_blocker_without_deliveries_is_logged_once_when_it_begins() {
    let (log, _guard) = Log::start();
    let other = |name: &str| Some(PuppetBlocker::OtherCertname(format!("the certname is {name}")));
    let unknown = |why: &str| Some(PuppetBlocker::Unknown(why.to_owned()));
    let steps = [
        unknown("asked"),
        unknown("asked again"),
        other("lb02"),
        other("lb02"),
        other("lb03"),
        None,
        Some(PuppetBlocker::Disabled("disabled".to_owned())),
        unknown("changed"),
    ];
    let mut before = None;
    for now in steps {
        daemon_log::puppet(before.as_ref(), now.as_ref());
        before = now;
    }
    for (words, times) in
        [("asked", 1), ("asked again", 0), ("is lb02", 1), ("is lb03", 1), ("disabled", 0), ("changed", 1)]
    {
        assert_eq!(log.count(words), times, "{words}");
    }
}

#[test]
fn why_deliveries_are_not_read_is_puppets_reason_while_the_certname_is_not_confirmed() {
    let unregistered = || ClaimState::Unregistered { trouble: None };
    let unknown = PuppetBlocker::Unknown("Puppet is being asked".to_owned());
    assert_eq!(not_tried(&unregistered(), false, Some(&unknown)), "Puppet is being asked");
    let disabled = PuppetBlocker::Disabled("Puppet is disabled: disks".to_owned());
    for puppet in [Some(&disabled), None] {
        let reason = not_tried(&unregistered(), false, puppet);
        assert!(reason.contains("once Puppet has confirmed the certname"), "{reason}");
    }
    // The backend is asked, whatever Puppet says.
    for puppet in [Some(&unknown), Some(&disabled), None] {
        assert_eq!(not_tried(&unregistered(), true, puppet), "the backend has not answered yet");
    }
    let troubled = ClaimState::Unregistered { trouble: Some("no route".to_owned()) };
    assert_eq!(not_tried(&troubled, true, None), "no route");
    let held = ClaimState::Held { joined: BTreeMap::new(), renewed_at: Duration::ZERO };
    assert_eq!(not_tried(&held, false, Some(&unknown)), "deliveries are not read yet");
}
