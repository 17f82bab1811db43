//! Finds the signal that ended Puppet in the middle of a catalog where the exit code hides it.
//!
//! `puppet apply` makes an error of every signal and exits with 1, and so does `puppet agent` where its
//! `postrun_command` fails, so the operating system shows nothing. Puppet's own last message is used then, and only under
//! conditions that no message of another program or of a manifest meets: such a message is always part of a longer one
//! of Puppet's, and the report keeps where each message begins and ends. Where no catalog was begun, none of this is
//! asked, because the run is tried again anyway.
//!
//! In `puppet apply`, a provider may raise an error whose only word is the name of a signal, or exit, which leaves the same
//! traces as a signal. The code of Puppet's own resource types does neither. So a resource of another type that was not
//! evaluated to its end counts against the signal: the run has failed there, and is not repeated.

use crate::run::command::CommandKind;
use crate::run::explanation::Traces;
use crate::run::report_errors::ReportErrors;

/// The name of the signal, if it is certain.
pub(super) fn certain(kind: CommandKind, traces: &Traces<'_>) -> Option<String> {
    let errors = traces.errors?;
    match kind {
        CommandKind::PuppetAgent => caught(errors),
        CommandKind::PuppetApply if is_in_foreign_code(errors) => None,
        CommandKind::PuppetApply => raised(traces.output, errors).or_else(|| exiting(traces.output, errors)),
        CommandKind::Other => None,
    }
}

/// `puppet agent` logs the signal, closes its logs and exits. The message is therefore the last one in its report,
/// whereas a resource with the same message is followed by Puppet's message about that resource.
fn caught(errors: &ReportErrors) -> Option<String> {
    let last = errors.last_message.as_ref()?;
    if (last.level.as_str(), last.source.as_str()) != ("notice", "Puppet") {
        return None;
    }
    match last.message.as_str() {
        "Caught TERM; exiting" => Some("SIGTERM".to_owned()),
        "Caught INT; exiting" => Some("SIGINT".to_owned()),
        _ => None,
    }
}

/// In `puppet apply`, Ruby raises the signal as an exception, which Puppet logs when its report is complete:
/// `Error: Could not run: SIGTERM`. The words may be translated. An exception of another kind with more words than the
/// name of a signal has another line of the same beginning, or a further colon.
fn raised(output: &str, errors: &ReportErrors) -> Option<String> {
    let last = output.lines().rev().find(|line| line.starts_with("Error: "))?;
    let (words, signal) = last.strip_prefix("Error: ")?.split_once(": ")?;
    let beginning = format!("Error: {words}: ");
    let is_only = output.lines().filter(|line| line.starts_with(&beginning)).count() == 1;
    (is_signal(signal) && is_only && !is_quoted(last, errors)).then(|| signal.to_owned())
}

/// At SIGINT `puppet apply` prints `Exiting` and exits, which fails the resource at which it was with the message `exit`.
fn exiting(output: &str, errors: &ReportErrors) -> Option<String> {
    const EXITING: &str = "Exiting";
    let mut after = output.lines().skip_while(|line| *line != EXITING);
    after.next()?;
    let is_the_end = after
        .all(|line| line != EXITING && (!line.starts_with("Error: ") || line.ends_with(" failed: exit")));
    (is_the_end && !is_quoted(EXITING, errors)).then(|| "SIGINT".to_owned())
}

/// The signals that Ruby raises as an exception with this message. All others end the process at once, which shows in its
/// exit, or not at all; `puppet apply` handles `INT` itself.
const SIGNALS: [&str; 6] = ["SIGHUP", "SIGQUIT", "SIGALRM", "SIGTERM", "SIGUSR1", "SIGUSR2"];

/// The resource types whose code is Puppet's own, or that of its modules for the system, and Trigger's.
const OWN_TYPES: [&str; 23] = [
    "Augeas",
    "Cron",
    "Exec",
    "File",
    "Filebucket",
    "Group",
    "Host",
    "Mount",
    "Notify",
    "Package",
    "Resources",
    "Schedule",
    "Selboolean",
    "Selmodule",
    "Service",
    "Ssh_authorized_key",
    "Sshkey",
    "Stage",
    "Tidy",
    "Trigger",
    "User",
    "Yumrepo",
    "Zone",
];

fn is_signal(word: &str) -> bool {
    SIGNALS.contains(&word)
}

/// Whether Puppet ended in a resource whose type comes from a module, or a resource has failed with nothing but such a word.
fn is_in_foreign_code(errors: &ReportErrors) -> bool {
    let is_foreign = |resource: &str| {
        let of_type = resource.split_once('[').map_or(resource, |(of_type, _)| of_type);
        !OWN_TYPES.contains(&of_type)
    };
    let has_failed_so = errors.first_failed.as_ref().is_some_and(|failed| {
        let word = failed.message.rsplit(' ').next().unwrap_or_default();
        is_foreign(&failed.resource) && (is_signal(word) || word == "exit")
    });
    has_failed_so || errors.unfinished.as_deref().is_some_and(is_foreign)
}

/// Whether the line is part of a message, so that something else than Puppet itself may have written it.
fn is_quoted(line: &str, errors: &ReportErrors) -> bool {
    errors.quoted_lines.iter().any(|quoted| quoted == line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::report_errors::LogMessage;

    fn check(kind: CommandKind, output: &str, errors: &ReportErrors, expected: Option<&str>) {
        let traces = Traces { output, errors: Some(errors), ..Traces::default() };
        assert_eq!(certain(kind, &traces).as_deref(), expected, "{output}");
    }

    #[test]
    fn puppet_applys_own_last_words_name_the_signal() {
        let apply = CommandKind::PuppetApply;
        let none = ReportErrors::default();
        let at_exec = "Error: /Exec[x]/returns: change from 'notrun' to ['0'] failed: ";
        check(apply, &format!("{at_exec}SIGTERM\nError: Could not run: SIGTERM\n"), &none, Some("SIGTERM"));
        check(apply, "Error: Konnte nicht laufen: SIGHUP\nInfo: x\n", &none, Some("SIGHUP"));
        check(apply, &format!("Exiting\n{at_exec}exit\n"), &none, Some("SIGINT"));
        check(apply, "Exiting\n", &none, Some("SIGINT"));
        assert_eq!(certain(apply, &Traces { output: "Exiting\n", ..Traces::default() }), None, "no report");
    }

    /// Proves C9.
    #[test]
    fn a_message_that_imitates_them_names_no_signal() {
        let apply = CommandKind::PuppetApply;
        let none = ReportErrors::default();
        for output in [
            // The end of a longer message.
            "Error: Could not run: cannot load such file -- x: SIGTERM\n",
            "Error: /Kaput[x]/ensure: change failed: SIGTERM\nError: Could not run: no such file\n",
            "Error: Could not run: SIGNALS are not what this is about\n",
            // A message with several lines, which Puppet logs as its last one.
            "Error: Could not run: x\nError: Could not run: SIGTERM\n",
            "Notice: /Exec[x]/returns: Exiting\n",
            // A program that a provider starts without catching its output.
            "Exiting\nError: Could not run: cannot load such file -- x\n",
            "Exiting\nError: Failed to apply catalog: x\n",
        ] {
            check(apply, output, &none, None);
        }
        for line in ["Exiting", "Error: Could not run: SIGTERM"] {
            let quoted = ReportErrors { quoted_lines: vec![line.to_owned()], ..ReportErrors::default() };
            check(apply, &format!("Error: Failed to apply catalog: x\n{line}\n"), &quoted, None);
        }
    }

    /// Proves C9. A provider of a module that raises `LoadError` or exits leaves what a signal leaves.
    #[test]
    fn a_resource_of_a_modules_type_has_failed_and_one_of_puppets_was_interrupted() {
        let apply = CommandKind::PuppetApply;
        let in_resource = |resource: &str| ReportErrors {
            unfinished: Some(resource.to_owned()),
            ..ReportErrors::default()
        };
        let at = |resource: &str, word: &str| {
            format!("Error: /Stage[main]/Main/{resource}/x: change failed: {word}\n")
        };
        for (resource, is_own) in [
            ("Exec[a]", true),
            ("Package[Kaput[a]]", true),
            ("Kaput[Exec[a]]", false),
            ("My::Type[x]", false),
        ] {
            let errors = in_resource(resource);
            let raised = format!("{}Error: Could not run: SIGTERM\n", at(resource, "SIGTERM"));
            check(apply, &raised, &errors, is_own.then_some("SIGTERM"));
            check(apply, "Error: Could not run: SIGHUP\n", &errors, is_own.then_some("SIGHUP"));
            check(apply, &format!("Exiting\n{}", at(resource, "exit")), &errors, is_own.then_some("SIGINT"));
        }
        let failed = ReportErrors {
            first_failed: Some(crate::run::report_errors::FailedResource {
                resource: "Kaput[x]".to_owned(),
                message: "change from 'no' to 'yes' failed: SIGTERM".to_owned(),
            }),
            ..ReportErrors::default()
        };
        check(apply, "Error: Could not run: SIGTERM\n", &failed, None);
        for no_end in ["SIGUSR9", "SIGINT", "SIGCHLD", "SIGKILL", "SIGWINCH", "SIG", "SIGTERM!", "TERM"] {
            check(apply, &format!("Error: Could not run: {no_end}\n"), &in_resource("Exec[a]"), None);
        }
    }

    #[test]
    fn puppet_agent_logs_the_signal_as_the_last_message_of_its_report() {
        let agent = CommandKind::PuppetAgent;
        let last = |level: &str, source: &str, message: &str| ReportErrors {
            last_message: Some(LogMessage {
                level: level.to_owned(),
                source: source.to_owned(),
                message: message.to_owned(),
            }),
            ..ReportErrors::default()
        };
        check(agent, "", &last("notice", "Puppet", "Caught TERM; exiting"), Some("SIGTERM"));
        check(agent, "", &last("notice", "Puppet", "Caught INT; exiting"), Some("SIGINT"));
        for other in [
            last("notice", "/Notify[x]/message", "Caught TERM; exiting"),
            last("err", "Puppet", "Caught TERM; exiting"),
            last("notice", "Puppet", "Caught HUP; storing restart"),
            last("notice", "Puppet", "x\nCaught TERM; exiting"),
        ] {
            check(
                agent,
                "Notice: Caught TERM; exiting\nExiting\nError: Could not run: SIGTERM\n",
                &other,
                None,
            );
        }
    }
}
