//! The wrappers behind which Trigger cannot find what it needs of Puppet: its settings, locks and report.

use super::kind::CommandKind;
use super::wrappers::{Used, Wrapped};

/// Options that change the root directory or a namespace by which paths, processes or users have another meaning.
const OTHER_SYSTEM: [(&str, &[&str]); 4] = [
    ("sudo", &["-R", "--chroot"]),
    ("systemd-run", &["-M", "--machine", "-H", "--host"]),
    ("nsenter", &["-m", "--mount", "-r", "--root", "-p", "--pid", "-U", "--user", "-a", "--all"]),
    (
        "unshare",
        &[
            "-m",
            "--mount",
            "-R",
            "--root",
            "-p",
            "--pid",
            "-U",
            "--user",
            "-r",
            "--map-root-user",
            "-c",
            "--map-current-user",
            "--map-user",
            "--map-users",
            "--map-auto",
            "--mount-proc",
        ],
    ),
];

/// Options whose value is another user.
const OTHER_USER: [(&str, &[&str]); 7] = [
    ("sudo", &["-u", "--user", "-U", "--other-user"]),
    ("doas", &["-u"]),
    ("runuser", &["-u", "--user"]),
    ("setpriv", &["--reuid", "--euid", "--ruid"]),
    ("systemd-run", &["--uid"]),
    ("nsenter", &["-S", "--setuid"]),
    ("unshare", &["-S", "--setuid"]),
];

/// Root, who may read and write the files of everyone.
const ROOT: [&str; 3] = ["root", "0", "#0"];

/// Why Trigger cannot see what this Puppet does, as the end of a sentence.
///
/// Another root directory or namespace hides the locks and the report of any run. Another user can neither reach the
/// report of a `puppet apply` in the state directory, which is the agent's own, nor read it there; the report of a
/// `puppet agent` is at its own place, where the agent reads it.
pub(super) fn out_of_sight(wrapped: &Wrapped, words: &[String], kind: CommandKind) -> Option<String> {
    wrapped.each.iter().find_map(|wrapper| {
        let name = wrapper.name();
        if is_other_system(wrapper, words) {
            return Some(format!("{name} gives Puppet another root directory or namespace"));
        }
        let user = other_user(wrapper, words).filter(|_| kind == CommandKind::PuppetApply)?;
        Some(format!(
            "{name} starts it as the user {user}, who cannot write its report into Trigger's state directory"
        ))
    })
}

fn is_other_system(wrapper: &Used, words: &[String]) -> bool {
    wrapper.name() == "chroot"
        || options_of(&OTHER_SYSTEM, wrapper).is_some_and(|options| wrapper.has(words, options))
        || properties(wrapper, words)
            .any(|(name, _)| matches!(name, "RootDirectory" | "RootImage" | "PrivateUsers"))
}

fn other_user<'a>(wrapper: &Used, words: &'a [String]) -> Option<&'a str> {
    if properties(wrapper, words).any(|(name, value)| name == "DynamicUser" && value != "no") {
        return Some("of systemd's choice");
    }
    let by_option =
        options_of(&OTHER_USER, wrapper).and_then(|options| wrapper.value(words, options)).map(str::trim);
    let by_property = properties(wrapper, words).find(|(name, _)| *name == "User").map(|(_, user)| user);
    by_option.or(by_property).filter(|user| !ROOT.contains(user))
}

/// The properties that `systemd-run` sets.
fn properties<'a>(wrapper: &Used, words: &'a [String]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let is_systemd = wrapper.name() == "systemd-run";
    let options = wrapper.options(words).into_iter().filter(move |_| is_systemd);
    let values = options.filter(|(name, _)| name == "-p" || name == "--property").filter_map(|(_, v)| v);
    values.filter_map(|value| value.split_once('='))
}

fn options_of(all: &[(&str, &'static [&'static str])], wrapper: &Used) -> Option<&'static [&'static str]> {
    all.iter().find(|(name, _)| *name == wrapper.name()).map(|(_, options)| *options)
}

#[cfg(test)]
mod tests {
    use super::super::RunCommand;
    use super::*;

    fn kind(text: &str) -> CommandKind {
        RunCommand::from_words(text.split(' ').map(str::to_owned).collect()).unwrap().kind()
    }

    /// Proves C9.
    #[test]
    fn a_puppet_in_another_root_or_namespace_is_another_command() {
        for wrappers in [
            "chroot /srv/root",
            "busybox chroot /srv/root",
            "nice /usr/sbin/chroot --userspec=a:b /srv/root env A=b",
            "sudo -R /srv/root",
            "sudo -nR/srv/root",
            "sudo --chroot=/srv/root -E",
            "unshare -m",
            "unshare -nm --",
            "unshare --root=/srv/root",
            "unshare --map-root-user",
            "nsenter -t 1 -m",
            "nsenter --target 1 --mount=/proc/1/ns/mnt",
            "nsenter -t 1 -a",
            "systemd-run --scope -p RootDirectory=/srv/root",
            "systemd-run --wait --machine=x",
        ] {
            for puppet in ["puppet agent -t", "puppet apply /x.pp"] {
                assert_eq!(kind(&format!("{wrappers} {puppet}")), CommandKind::Other, "{wrappers} {puppet}");
            }
        }
        for wrappers in
            ["unshare -n", "unshare --net -u", "nsenter -t 1 -n", "systemd-run --scope -p MemoryMax=1G"]
        {
            assert_eq!(kind(&format!("{wrappers} puppet agent -t")), CommandKind::PuppetAgent, "{wrappers}");
            assert_eq!(kind(&format!("{wrappers} puppet apply /x")), CommandKind::PuppetApply, "{wrappers}");
        }
    }

    /// Proves C9.
    #[test]
    fn an_apply_of_another_user_is_another_command_and_an_agent_is_not() {
        for wrappers in [
            "runuser -u puppet --",
            "sudo -u puppet",
            "sudo -nupuppet --",
            "sudo --user=puppet LC_ALL=C",
            "doas -u puppet",
            "setpriv --reuid=puppet --clear-groups",
            "setpriv --reuid 52 --init-groups",
            "systemd-run --wait --uid puppet",
            "systemd-run --wait -pUser=puppet",
            "systemd-run --wait --property DynamicUser=yes",
            "nice unshare -S 52 -n",
        ] {
            assert_eq!(kind(&format!("{wrappers} puppet apply /x.pp")), CommandKind::Other, "{wrappers}");
            assert_eq!(kind(&format!("{wrappers} puppet agent")), CommandKind::PuppetAgent, "{wrappers}");
        }
        for wrappers in ["sudo", "sudo -n -u root", "sudo -u #0", "setpriv --reuid 0 --no-new-privs", "doas"]
        {
            assert_eq!(
                kind(&format!("{wrappers} puppet apply /x.pp")),
                CommandKind::PuppetApply,
                "{wrappers}"
            );
        }
    }
}
