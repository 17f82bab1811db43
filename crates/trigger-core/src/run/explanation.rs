//! The words with which the reason of a run's outcome quotes Puppet and says what to do. Nothing here decides an
//! outcome: Puppet prints what other programs print, and its messages may be translated.

use crate::identity::RunId;
use crate::reason::cut;
use crate::run::command::{CommandKind, WrapperExit};
use crate::run::report_errors::ReportErrors;

/// The most characters of Puppet's own words in a reason, which is stored with the outcome.
const MAX_QUOTE_CHARS: usize = 300;

/// What a run left behind that explains its outcome, beside its report's own fields.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traces<'a> {
    /// What the run printed.
    pub output: &'a str,
    /// The errors in its report, if it left one.
    pub errors: Option<&'a ReportErrors>,
    /// The certname of the node.
    pub certname: &'a str,
    /// The process that held Puppet's lock when the run ended, if it was another one.
    pub lock: Option<&'a LockHolder>,
    /// Whether the run's supervisor was asked to stop before the run had ended.
    pub was_stopped: bool,
    /// What the exit code means if it is that of a wrapper of Puppet.
    pub wrapper: Option<WrapperExit>,
    /// The run, by which a reader finds its output.
    pub run: Option<RunId>,
}

/// Where the output of a run is to be seen, from every node whose reader may.
pub(super) fn see_log(run: RunId) -> String {
    format!("see 'trigger log {run}'")
}

/// The holder of Puppet's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// The path of the lock.
    pub file: String,
    /// The process that holds it.
    pub process: u32,
    /// The command line of that process; empty if it is not known.
    pub command: String,
}

impl LockHolder {
    /// Names the file and the process.
    pub fn describe(&self) -> String {
        let Self { file, process, .. } = self;
        match readable(&self.command) {
            command if command.is_empty() => format!("{file} of process {process}"),
            command => format!("{file} of process {process} ({command})"),
        }
    }
}

/// What a message of Puppet means for an operator: the parts of the message that are the same in every one, in their
/// order, and what to do. A part without its context may be in a message of anything else.
type Advice = (&'static [&'static [&'static str]], &'static str);

/// What to do about the messages of `puppet agent` about its certificates and its connection, as `Puppet::SSL` and
/// `Puppet::HTTP` write them. The first that fits counts.
const AGENT_ADVICE: [Advice; 6] = [
    (
        &[&["Another puppet instance is already running and the ", "; exiting"]],
        "that instance is at its certificates: its process id is in the file ssl.lock in the directory of the setting 'ssldir'",
    ),
    (
        &[
            &["The certificate for '", "' does not match its private key"],
            &["The CSR for host '", "' does not match the public key"],
        ],
        "the CA has a certificate of another key for this node: remove it there with 'puppetserver ca clean' and here with 'puppet ssl clean'",
    ),
    (
        &[
            &["Certificate '", "' is revoked"],
            &["certificate verify failed [certificate revoked for "],
            &["SSL_connect returned=", "alert certificate revoked"],
        ],
        "a certificate was revoked: if it is this node's, remove it with 'puppet ssl clean' and get a new one",
    ),
    (
        &[
            &["The certificate '", "' is not yet valid, verify time is synchronized"],
            &["The certificate '", "' has expired, verify time is synchronized"],
            &["The CRL issued by '", "' is not yet valid, verify time is synchronized"],
            &["The CRL issued by '", "' has expired, verify time is synchronized"],
            &["certificate verify failed [certificate has expired for "],
            &["certificate verify failed [certificate is not yet valid for "],
            &["certificate verify failed [CRL has expired for "],
            &["certificate verify failed [CRL is not yet valid for "],
            &["SSL_connect returned=", "alert certificate expired"],
        ],
        "compare the clocks of this node and of the server, and the dates of the certificates",
    ),
    (
        &[
            &["certificate verify failed ["],
            &["SSL_connect returned=", "certificate verify failed"],
            &["SSL_connect returned=", "alert unknown ca"],
        ],
        "this node and the server do not have the same CA: check the settings 'server' and 'ssldir', and 'puppet ssl verify'",
    ),
    (
        &[
            &["Request to http", "://", " failed"],
            &["Request to http", "://", " timed out connect operation after ", " seconds"],
            &["Request to http", "://", " timed out read operation after ", " seconds"],
            &["Request to http", "://", " interrupted after ", " seconds"],
            &["Connection to http", "://", " failed, trying next route"],
            &["Failed to open TCP connection to ", ":", "("],
            &["Connection refused - connect(2) for "],
            &["Could not select a functional puppet server from server_list"],
            &["No more routes to "],
        ],
        "check that the Puppet server runs and can be reached from here (settings 'server' and 'serverport')",
    ),
];

/// The same for a message about the catalog, of any Puppet.
const CATALOG_ADVICE: Advice =
    (&[&["Found ", " dependency cycle"]], "remove a requirement from the cycle in the manifests");

/// Parts of the errors in which Puppet repeats words of others: of a manifest, of the compiler, of a command, of a
/// provider.
const REPEATED: [&str; 7] = [
    "Evaluation Error",
    " on SERVER: ",
    "Syntax error",
    " from prerun_command",
    " from postrun_command",
    "Could not prefetch ",
    "Could not autoload ",
];

/// The lines that `puppet agent` prints where it has no certificate yet, because no person or rule has signed its request:
/// how they begin, and what else is in them.
const UNSIGNED: [(&str, &str); 4] = [
    ("Couldn't fetch certificate from CA server; ", "you might still need to sign this agent's certificate"),
    (
        "Error: Couldn't fetch certificate from CA server; ",
        "you might still need to sign this agent's certificate",
    ),
    ("Info: Certificate for ", " has not been signed yet"),
    ("Exiting; ", "no certificate found and waitforcert is disabled"),
];
/// What it prints when it has got its certificate after all.
const SIGNED: &str = "Info: Downloaded certificate for ";

impl Traces<'_> {
    /// A sentence about what did not happen, with the words of Puppet that explain it and with what to do. `kind` is that
    /// of the run command: only `puppet agent` has a server and certificates.
    pub(super) fn explain(&self, kind: CommandKind, what: &str) -> String {
        let error = self.first_error();
        if let (None, Some(lock)) = (&error, self.lock) {
            let said = self.last_notice().map(|notice| format!(": {}", quoted(notice))).unwrap_or_default();
            let lock = lock.describe();
            return format!("{what}: the lock {lock} was not free in time{said} ({})", self.see());
        }
        if kind == CommandKind::PuppetAgent && self.is_unsigned() {
            let certname = self.certname;
            let error = error.map(|error| format!("{}; ", quoted(error))).unwrap_or_default();
            return format!(
                "{what}: {error}this node's certificate is not signed yet: sign it on the CA server with 'puppetserver ca sign --certname {certname}' ({})",
                self.see()
            );
        }
        match error.or_else(|| self.last_notice()).or_else(|| self.last_plain_line()) {
            Some(line) => match advice(kind, line) {
                Some(advice) => format!("{what}: {}; {advice} ({})", quoted(line), self.see()),
                None => format!("{what}: {} ({})", quoted(line), self.see()),
            },
            None => format!("{what}: {}", self.see()),
        }
    }

    /// A sentence with Puppet's first error, if it printed one.
    pub(super) fn with_first_error(&self, kind: CommandKind, what: String) -> String {
        if self.first_error().is_some() { self.explain(kind, &what) } else { what }
    }

    /// Whether `puppet agent` has waited for its certificate in vain.
    fn is_unsigned(&self) -> bool {
        let is_unsigned =
            |line: &str| UNSIGNED.iter().any(|(begin, part)| line.starts_with(begin) && line.contains(part));
        let signs = self.output.lines().rev().filter(|line| is_unsigned(line) || line.starts_with(SIGNED));
        signs.take(1).any(is_unsigned)
    }

    /// A sentence with the last line of the output, if there is one.
    pub(super) fn with_last_line(&self, what: String) -> String {
        match self.output.lines().rev().map(quoted).find(|line| !line.is_empty()) {
            Some(line) => format!("{what}; its output ends with: {line}"),
            None => what,
        }
    }

    /// A sentence about a run whose resources failed.
    pub(super) fn failed_resources(&self) -> String {
        let errors = self.errors.cloned().unwrap_or_default();
        let first = match errors.first_failed {
            Some(first) if first.message.is_empty() => quoted(&first.resource),
            Some(first) => quoted(&format!("{}: {}", first.resource, first.message)),
            // A resource that cannot generate others fails the run and is not marked itself.
            None => match errors.first_error.as_deref().or_else(|| self.first_error()) {
                Some(error) => quoted(error),
                None => return format!("resources failed: {}", self.see()),
            },
        };
        let more = match errors.failed {
            0 | 1 => String::new(),
            failed => format!("and {} more; ", failed - 1),
        };
        format!("resources failed: {first} ({more}{})", self.see())
    }

    /// Where all that the run printed is to be seen.
    pub(super) fn see(&self) -> String {
        self.run.map_or_else(|| "see the run's output".to_owned(), see_log)
    }

    /// Puppet's first error, since later errors follow from it. Errors of Facter are ignored: it reports some in every
    /// container.
    fn first_error(&self) -> Option<&str> {
        let mut errors = self.output.lines().filter_map(|line| line.strip_prefix("Error: "));
        errors.find(|line| !line.starts_with("Facter:"))
    }

    /// Puppet's last notice, by which it reports locks.
    fn last_notice(&self) -> Option<&str> {
        self.output.lines().rev().find_map(|line| line.strip_prefix("Notice: "))
    }

    /// The last line that is no message of Puppet's log. Puppet prints so why it has no certificate.
    fn last_plain_line(&self) -> Option<&str> {
        const LEVELS: [&str; 3] = ["Debug: ", "Info: ", "Warning: "];
        let is_plain = |line: &&str| {
            !line.trim().is_empty()
                && !line.starts_with("Error: Facter:")
                && !LEVELS.iter().any(|level| line.starts_with(level))
        };
        self.output.lines().rev().find(is_plain)
    }
}

fn advice(kind: CommandKind, line: &str) -> Option<&'static str> {
    // The message of a resource begins with its path, and comes from a provider or from what it started.
    let is_repeated = line.starts_with("/Stage[") || REPEATED.iter().any(|part| line.contains(part));
    let of_agent = AGENT_ADVICE.iter().filter(|_| kind == CommandKind::PuppetAgent && !is_repeated);
    let of_catalog = std::iter::once(&CATALOG_ADVICE).filter(|_| line.starts_with("Found "));
    let mut advice = of_agent.chain(of_catalog);
    let fits = |(messages, _): &&Advice| messages.iter().any(|parts| has_in_order(line, parts));
    advice.find(fits).map(|(_, advice)| *advice)
}

/// Whether a line has these parts, one after another. The first is where a message begins: at the start of the line or
/// after what another message says before it.
fn has_in_order(line: &str, parts: &[&str]) -> bool {
    let Some((first, others)) = parts.split_first() else { return false };
    line.match_indices(first).any(|(at, _)| {
        let begins = at == 0 || line[..at].ends_with(": ");
        let mut rest = &line[at + first.len()..];
        begins
            && others.iter().all(|part| match rest.split_once(part) {
                Some((_, after)) => {
                    rest = after;
                    true
                }
                None => false,
            })
    })
}

/// Words of another program in one line of bounded length, without the dot at their end.
pub(super) fn quoted(text: &str) -> String {
    let line = readable(text);
    cut(line.trim_end_matches([';', '.']), MAX_QUOTE_CHARS)
}

/// A text in one line and without control characters.
fn readable(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::report_errors::FailedResource;

    fn explained_of(kind: CommandKind, output: &str) -> String {
        Traces { output, certname: "web01", ..Traces::default() }.explain(kind, "Puppet did not run")
    }

    fn explained(output: &str) -> String {
        explained_of(CommandKind::PuppetAgent, output)
    }

    #[test]
    fn frequent_causes_come_with_what_to_do() {
        for (output, expected) in [
            (
                "Error: Request to https://localhost:1/puppet failed: Failed to open TCP connection to localhost:1 (Connection refused - connect(2))\n",
                "check that the Puppet server runs",
            ),
            (
                "Error: certificate verify failed [self signed certificate in certificate chain for CN=x]\n",
                "do not have the same CA",
            ),
            ("Error: The certificate for 'CN=web01' does not match its private key\n", "puppet ssl clean"),
            ("Error: Certificate 'CN=web01' is revoked\n", "was revoked"),
            ("Error: The CRL issued by 'x' has expired, verify time is synchronized\n", "compare the clocks"),
            (
                "Info: Certificate for web01 has not been signed yet\nExiting now because the waitforcert setting is set to 0.\n",
                "certificate is not signed yet: sign it on the CA server with 'puppetserver ca sign --certname web01'",
            ),
        ] {
            let reason = explained(output);
            assert!(reason.contains(expected), "{reason}");
        }
        let locked = "Info: x\nAnother puppet instance is already running and the maxwaitforlock timeout has been exceeded; exiting\n";
        assert!(
            explained(locked).contains("has been exceeded; exiting; that instance is at its certificates")
        );
        assert_eq!(explained("Error: Facter: y\nInfo: x\n \n"), "Puppet did not run: see the run's output");
        assert_eq!(
            explained("Error: Could not find class x.\n"),
            "Puppet did not run: Could not find class x (see the run's output)"
        );
    }

    #[test]
    fn words_of_others_are_quoted_without_advice() {
        const EVALUATION: &str = "Evaluation Error: Error while evaluating a Function Call,";
        let refused = "Request to https://p:8140/puppet/v3 failed after 0.001 seconds: Failed to open TCP connection to p:8140 (Connection refused - connect(2) for \"p\" port 8140)";
        for error in [
            &format!("{EVALUATION} package foo has not been signed yet (file: /x.pp, line: 1)"),
            &format!("{EVALUATION} {refused} (file: /x.pp, line: 1)"),
            &format!(
                "Could not retrieve catalog from remote server: Error 500 on SERVER: Server Error: {refused}"
            ),
            &format!("Could not run command from prerun_command: returned 1: {refused}"),
            &format!(
                "/Stage[main]/Main/Kaput[x]/ensure: change from 'absent' to 'present' failed: {refused}"
            ),
            "Could not run: the license of widget has expired",
            "Could not run: connection refused by the moderator",
            "Could not run command from prerun_command: Execution of '/x' returned 1: snapshot of vm01 timed out",
            "Could not run: the certificate 'x' is revoked, he said",
            "Could not run: a dependency cycles by",
        ] {
            for kind in [CommandKind::PuppetAgent, CommandKind::PuppetApply] {
                let output = format!("Info: x\nError: {error}\nError: Could not run: later\n");
                let expected = format!("Puppet did not run: {} (see the run's output)", quoted(error));
                assert_eq!(explained_of(kind, &output), expected);
            }
        }
        // What only a server or certificates can explain is not for `puppet apply`.
        let unsigned = "Info: Certificate for web01 has not been signed yet\n";
        for line in [refused, "The CRL issued by 'x' has expired, verify time is synchronized"] {
            let output = format!("{unsigned}Error: {line}\n");
            let expected = format!("Puppet did not run: {} (see the run's output)", quoted(line));
            assert_eq!(explained_of(CommandKind::PuppetApply, &output), expected);
        }
        // A word in the middle of a line is no line of Puppet's, and a certificate may have come later.
        for output in [
            "Notice: x: Info: Certificate for web01 has not been signed yet\n".to_owned(),
            format!("{unsigned}Info: Downloaded certificate for web01 from https://p\n"),
        ] {
            assert!(!explained(&output).contains("sign it"), "{output}");
        }
    }

    #[test]
    fn puppets_first_error_is_quoted_beside_any_advice() {
        let unsigned = "Error: Connection to https://p:8140/puppet-ca/v1 failed, trying next route: x\nInfo: Certificate for web01 has not been signed yet\n";
        let reason = explained(unsigned);
        assert!(
            reason.contains(": Connection to https://p:8140/puppet-ca/v1 failed, trying next route: x; this node's certificate is not signed yet"),
            "{reason}"
        );
        for line in [
            "Could not retrieve catalog from remote server: Request to https://p:8140/puppet/v3/catalog/web01 timed out read operation after 120.1 seconds",
            "Could not run: No more routes to ca",
            "/File[/var/lib/puppet/facts.d]: Could not evaluate: Could not retrieve file metadata for puppet:///pluginfacts: Failed to open TCP connection to p:8140 (getaddrinfo: Name or service not known)",
        ] {
            let reason = explained(&format!("Error: {line}\n"));
            assert!(
                reason.contains(line) && reason.contains("check that the Puppet server runs"),
                "{reason}"
            );
        }
        let cycle = "Error: Found 1 dependency cycle:\n(Exec[a] => Exec[a])\n";
        for kind in [CommandKind::PuppetAgent, CommandKind::PuppetApply] {
            assert!(explained_of(kind, cycle).contains("remove a requirement from the cycle"));
        }
    }

    #[test]
    fn a_lock_is_named_with_its_file_and_process_but_not_where_an_error_explains_the_end() {
        let lock =
            LockHolder { file: "/s/run.lock".to_owned(), process: 7, command: "puppet agent".to_owned() };
        let explain = |output| {
            Traces { output, lock: Some(&lock), ..Traces::default() }
                .explain(CommandKind::PuppetAgent, "Puppet did not run")
        };
        assert_eq!(
            explain("Info: x\nNotice: Exiting now because the maxwaitforlock timeout has been exceeded.\n"),
            "Puppet did not run: the lock /s/run.lock of process 7 (puppet agent) was not free in time: Exiting now because the maxwaitforlock timeout has been exceeded (see the run's output)"
        );
        assert!(!explain("Error: something else\n").contains("/s/run.lock"));
    }

    #[test]
    fn a_failed_resource_is_quoted_in_one_bounded_line() {
        let errors = |message: &str, failed| ReportErrors {
            first_failed: Some(FailedResource {
                resource: "Exec[x]".to_owned(),
                message: message.to_owned(),
            }),
            failed,
            ..ReportErrors::default()
        };
        let reason =
            |errors: &ReportErrors| Traces { errors: Some(errors), ..Traces::default() }.failed_resources();
        assert_eq!(
            reason(&errors("failed:\n\u{1b}[31m'x'\treturned 1.", 1)),
            "resources failed: Exec[x]: failed: [31m'x' returned 1 (see the run's output)"
        );
        assert_eq!(reason(&errors("", 3)), "resources failed: Exec[x] (and 2 more; see the run's output)");
        assert!(reason(&errors(&"ä".repeat(5000), 1)).chars().count() < 400);
        let generate =
            ReportErrors { first_error: Some("/Kaput[x]: no".to_owned()), ..ReportErrors::default() };
        assert_eq!(reason(&generate), "resources failed: /Kaput[x]: no (see the run's output)");
        assert_eq!(Traces::default().failed_resources(), "resources failed: see the run's output");
        let run = Some(crate::run::history::samples::run_id(7));
        let named = Traces { run, ..Traces::default() }.failed_resources();
        assert_eq!(named, "resources failed: see 'trigger log 00000000-0000-0000-0000-000000000007'");
    }
}
