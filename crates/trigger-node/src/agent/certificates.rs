//! Reads the node's certificates again when they change, and says what is wrong with them.

use std::collections::BTreeSet;
use std::time::Duration;

use trigger_core::time::Timestamp;
use trigger_pki::{LazyPki, Pki};

use crate::host::Host;
use crate::os::Os;

/// How often the files are looked at. A look costs a system call for each of them.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Follows the files of the node's certificates. Does not end.
pub(super) async fn follow(host: Os, certificates: LazyPki) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let mut reported = BTreeSet::new();
    loop {
        looks.tick().await;
        let (certificates, now) = (certificates.clone(), host.wall());
        let found = tokio::task::spawn_blocking(move || look(&certificates, now)).await.unwrap_or_default();
        // Each trouble is logged once, and again if it comes back.
        found.difference(&reported).for_each(|trouble| tracing::warn!("{trouble}"));
        reported = found;
    }
}

/// Reads what has changed. Returns what is wrong.
fn look(certificates: &LazyPki, now: Timestamp) -> BTreeSet<String> {
    let pki = match certificates.get() {
        Ok(pki) => pki,
        Err(error) => return BTreeSet::from([format!("no encrypted connection can be made: {error}")]),
    };
    let mut troubles = BTreeSet::new();
    match pki.reload() {
        Ok(false) => {}
        Ok(true) => {
            let identity = pki.identity();
            let until = identity.not_after().date_and_time();
            tracing::info!(certname = %identity.certname(), %until, "this node's certificates were read again");
        }
        Err(error) => {
            let sentence =
                format!("this node's certificates have changed, and those read before stay in use: {error}");
            troubles.insert(sentence);
        }
    }
    troubles.extend(troubles_at(&pki, now));
    troubles
}

/// What is wrong with certificates that can be read, at a time.
fn troubles_at(pki: &Pki, now: Timestamp) -> Vec<String> {
    let (identity, trust) = (pki.identity(), pki.trust());
    let mut troubles: Vec<String> = trust.stale_lists(now).iter().map(ToString::to_string).collect();
    let path = pki.files().certificate.display();
    if identity.not_after() < now {
        let when = identity.not_after().date_and_time();
        troubles
            .push(format!("this node's certificate {path} expired at {when}: renew it, or set the clock"));
    } else if now < identity.not_before() {
        let when = identity.not_before().date_and_time();
        troubles.push(format!("this node's certificate {path} is valid from {when} only: set the clock"));
    } else if identity.expires_soon(now) {
        let when = identity.not_after().date_and_time();
        troubles.push(format!("this node's certificate {path} expires at {when}: renew it"));
    }
    troubles
}

#[cfg(test)]
mod tests {
    use std::fs;

    use trigger_pki::testing::TestCa;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_and_what_changes_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut ca = TestCa::new("puppet").unwrap();
        let files = ca.node(directory.path(), "web01.example.com").unwrap();
        let certificate = fs::read(&files.certificate).unwrap();
        fs::remove_file(&files.certificate).unwrap();
        let certificates = LazyPki::new(files.clone());
        let now = Timestamp::from_unix_ms(1_763_812_800_000);
        let only_trouble = |certificates: &LazyPki| {
            let troubles = look(certificates, now);
            assert_eq!(troubles.len(), 1, "{troubles:?}");
            troubles.into_iter().next().unwrap()
        };
        assert!(only_trouble(&certificates).contains("has no signed certificate yet"));

        fs::write(&files.certificate, certificate).unwrap();
        assert!(look(&certificates, now).is_empty());
        let renewed = ca.issue("web01.example.com").unwrap();
        fs::write(&files.certificate, &renewed.certificate).unwrap();
        assert!(only_trouble(&certificates).contains("stay in use"));
        fs::write(&files.key, &renewed.key).unwrap();
        assert!(look(&certificates, now).is_empty());
        assert_eq!(certificates.get().unwrap().generation(), 1);

        let at = |year: u64| Timestamp::from_unix_ms((year - 1970) * 31_556_952_000);
        let pki = certificates.get().unwrap();
        assert!(troubles_at(&pki, at(2019))[0].contains("is valid from 2020-01-01"));
        assert!(troubles_at(&pki, at(2101)).iter().any(|trouble| trouble.contains("expired at 2100-01-01")));
        let soon = Timestamp::from_unix_ms(pki.identity().not_after().as_unix_ms() - 1000);
        assert!(troubles_at(&pki, soon).iter().any(|trouble| trouble.contains("expires at 2100-01-01")));
    }
}
