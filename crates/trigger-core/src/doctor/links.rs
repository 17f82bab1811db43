//! The certificate, and the backend that it leads to.

use std::time::Duration;

use super::facts::{Backend, Certificate};
use super::finding::Finding;
use crate::duration::format_short;
use crate::event::CLOCK_TOLERANCE;
use crate::time::Timestamp;

/// How long before its end a certificate is worth a warning.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// An answer that takes longer is worth a warning.
const SLOW: Duration = Duration::from_secs(1);

pub(super) fn certificate(certificate: &Certificate, now: Timestamp) -> Vec<Finding> {
    const AREA: &str = "certificate";
    if let Some(problem) = &certificate.problem {
        let remedy = "do what the sentence says; docs/operating/tls.md explains it";
        return vec![Finding::error(AREA, problem, remedy)];
    }
    let mut findings = Vec::new();
    if let Some(end) = certificate.not_after {
        let shown = end.date_and_time();
        findings.push(if end <= now.plus(RENEW_BEFORE) {
            let remedy = "renew it: Puppet 8 does so by itself (hostcert_renewal_interval); else `puppet ssl clean` here \
                          and on the CA, then `puppet ssl bootstrap`";
            Finding::warning(AREA, format!("it expires at {shown}"), remedy)
        } else {
            Finding::ok(AREA, format!("it is valid until {shown}"))
        });
    }
    if !certificate.checks_revocation {
        let remedy = "set certificate_revocation in puppet.conf to true or chain, so that Puppet fetches the CA's lists";
        findings.push(Finding::warning(AREA, "revocations are not checked on this node", remedy));
    }
    for list in &certificate.stale_lists {
        let remedy = "`puppet ssl bootstrap` fetches the lists; on a hub, set crl_url";
        findings.push(Finding::warning("revocation lists", list, remedy));
    }
    findings
}

pub(super) fn backend(Backend { url, is_hub, answer }: &Backend, version: &str) -> Vec<Finding> {
    const AREA: &str = "backend";
    let answered = match answer {
        Ok(answered) => answered,
        Err(why) => {
            let remedy = "check that its server runs, that the URL is right, and that nothing between filters the port; \
                          what is fired meanwhile waits in the outbox";
            return vec![Finding::error(AREA, why, remedy)];
        }
    };
    let mut findings = Vec::new();
    if answered.took > SLOW {
        let took = format!("{:.1} s", answered.took.as_secs_f64());
        findings.push(Finding::warning(
            AREA,
            format!("{url} took {took} to answer"),
            "look at the lookup of its name, and at the way to it: every Puppet run that fires waits for it",
        ));
    } else {
        findings.push(Finding::ok(AREA, format!("{url} answers")));
    }
    findings.extend(answered.version.as_deref().map(|theirs| server(theirs, *is_hub, version)));
    if let Some(denied) = &answered.denied {
        findings.push(Finding::error(
            "rights",
            format!("this node may not write its own keys there: {denied}"),
            "give it the rights that docs/operating/rights.md lists; at a hub, its certname decides",
        ));
    }
    findings.extend(clock(answered.ahead, answered.behind));
    findings
}

fn server(theirs: &str, is_hub: bool, version: &str) -> Finding {
    const AREA: &str = "backend version";
    if is_hub {
        return if theirs == version {
            Finding::ok(AREA, format!("the hub has version {theirs}, as this program"))
        } else {
            Finding::warning(
                AREA,
                format!("the hub has version {theirs}, and this program version {version}"),
                "upgrade the hub first, then the nodes",
            )
        };
    }
    if lets_readers_write(theirs) {
        return Finding::warning(
            AREA,
            format!(
                "etcd {theirs} lets a user who may only read write other keys (CVE-2026-33343, GHSA-xg4h-6gfc-h4m8)"
            ),
            "upgrade etcd to 3.4.42, 3.5.33 or later; until then, events that are signed are still safe",
        );
    }
    Finding::ok(AREA, format!("etcd {theirs}"))
}

/// Whether an etcd of this version is one of those in which a nested transaction passes the check of rights.
fn lets_readers_write(version: &str) -> bool {
    let numbers: Vec<u64> = version.split('.').map_while(|number| number.parse().ok()).collect();
    match numbers[..] {
        [3, 5, patch] => patch < 33,
        [3, 4, patch] => patch < 42,
        [3, minor, _] => minor < 4,
        _ => false,
    }
}

/// A clock that is wrong by more than an event's expiry tolerates.
fn clock(ahead: Duration, behind: Duration) -> Option<Finding> {
    let (by, side) = if ahead > behind { (ahead, "ahead of") } else { (behind, "behind") };
    (by > CLOCK_TOLERANCE).then(|| {
        Finding::error(
            "clock",
            format!(
                "this node's clock is at least {} {side} the backend's: events expire early or late",
                format_short(by)
            ),
            "set the wrong one of the two (timedatectl; chrony or systemd-timesyncd keeps it right)",
        )
    })
}
