//! What an operator should know about a run command before its first run: it does not mean what it seems to, or Trigger
//! can do less with it.

use super::out_of_sight::out_of_sight;
use super::wrappers::{Wrapped, wrapped};
use super::{CommandKind, RunCommand, puppet_kind};

/// The directory in which every run starts.
pub const WORKING_DIRECTORY: &str = "/";

/// Puppet's options without a value, which are its boolean settings and those of its own; all others with two dashes have
/// one.
#[rustfmt::skip]
const PUPPET_FLAGS: [&str; 61] = [
    "--allow_duplicate_certs", "--always_retry_plugins", "--autoflush",
    "--daemonize", "--debug", "--default_schedules",
    "--detailed-exitcodes", "--disable_i18n", "--disable_per_environment_manifest",
    "--document_all", "--enable", "--evaltrace",
    "--exclude_unchanged_resources", "--fingerprint", "--freeze_main",
    "--genconfig", "--genmanifest", "--graph",
    "--http_debug", "--ignore_plugin_errors", "--ignoremissingtypes",
    "--ignoreschedules", "--include_legacy_facts", "--ldapssl",
    "--ldaptls", "--loadclasses", "--location_trusted",
    "--manage_internal_file_permissions", "--merge_dependency_warnings", "--mkusers",
    "--noop", "--onetime", "--parseonly",
    "--pluginsync", "--preprocess_deferred", "--profile",
    "--puppet_trace", "--report", "--report_include_system_store",
    "--resubmit_facts", "--rich_data", "--settings_catalog",
    "--show_diff", "--splay", "--static_catalogs",
    "--storeconfigs", "--strict_environment_mode", "--strict_variables",
    "--summarize", "--tasks", "--test",
    "--trace", "--use-nodes", "--use_cached_catalog",
    "--use_last_environment", "--use_srv_records", "--usecacheonfailure",
    "--verbose", "--versioned_environment_dirs", "--write-catalog-summary",
    "--write_catalog_summary",
];
/// Puppet's options whose value is a path, or several with colons between them.
const PUPPET_PATHS: [&str; 19] = [
    "--basemodulepath",
    "--catalog",
    "--codedir",
    "--confdir",
    "--config",
    "--environmentpath",
    "--factpath",
    "--hiera_config",
    "--lastrunfile",
    "--libdir",
    "--logdir",
    "--manifest",
    "--modulepath",
    "--pluginfactdest",
    "--publicdir",
    "--rundir",
    "--ssldir",
    "--statedir",
    "--vardir",
];

/// Words, and beginnings and ends of words, that mean something to a shell and are unlikely to be meant literally.
const SHELL_WORDS: [&str; 7] = ["|", "||", "&", "&&", ";", "<", "!"];
const SHELL_BEGINNINGS: [&str; 9] = [">", "1>", "2>", "&>", "<(", "$(", "`", "|", ";"];

impl RunCommand {
    /// Sentences about this command for the agent's log.
    pub fn doubts(&self) -> Vec<String> {
        let words = self.words();
        let command = words.join(" ");
        let wrapped = wrapped(&words);
        let mut doubts = Vec::new();
        let shell = words.iter().find(|word| is_for_a_shell(word));
        if let Some(word) = shell {
            doubts.push(format!(
                "the run command '{command}' contains '{word}', which means something to a shell only, and no shell \
                 interprets a run command: the words are passed on as they are"
            ));
        }
        let hidden =
            puppet_kind(&words[wrapped.words..]).and_then(|kind| out_of_sight(&wrapped, &words, kind));
        if let Some(why) = hidden {
            doubts.push(format!(
                "the run command '{command}' is taken for another command than Puppet, because {why}: its locks and \
                 'puppet agent --disable' are not obeyed, no options are added to it, its exit code alone decides the \
                 outcome of a run (0 is good, and Puppet may exit with 0 although resources failed), tags are not \
                 applied, and events that ask for noop or an environment are refused; run an agent of Trigger there instead"
            ));
        } else if self.kind == CommandKind::Other {
            doubts.push(format!(
                "the run command '{command}' is neither 'puppet agent' nor 'puppet apply', nor one of them behind a \
                 program that Trigger knows, such as env, nice, timeout or sudo: no options are added to it, its exit \
                 code alone decides the outcome of a run, tags are not applied, and events that ask for noop or an environment are refused"
            ));
        }
        doubts.extend(about_wrappers(&wrapped, &words));
        doubts
    }

    /// The first word of the command that is a relative path and would be looked for in [`WORKING_DIRECTORY`].
    pub fn relative_path(&self) -> Option<String> {
        let words = self.words();
        let wrapped = wrapped(&words);
        let changes_directory = wrapped.each.iter().any(|wrapper| {
            let options: &[&str] = match wrapper.name() {
                "env" => &["-C", "--chdir"],
                "sudo" => &["-D", "--chdir", "-R", "--chroot"],
                "systemd-run" => &["--working-directory", "-d", "--same-dir"],
                "unshare" => &["-w", "--wd", "-R", "--root"],
                "nsenter" => &["-w", "--wd", "--wdns"],
                "chroot" => return true,
                _ => &[],
            };
            words[wrapper.words.clone()]
                .iter()
                .any(|word| options.iter().any(|option| word.starts_with(option)))
        });
        if changes_directory {
            return None;
        }
        let is_relative = |word: &str| !word.starts_with('/');
        let programs = [words.first(), words.get(wrapped.words)];
        let program = programs.into_iter().flatten().find(|word| word.contains('/') && is_relative(word));
        program.cloned().or_else(|| self.puppet_paths().into_iter().find(|path| is_relative(path)))
    }

    /// The paths among the arguments of Puppet: values of its options, and the manifest of `puppet apply`.
    fn puppet_paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        if self.kind == CommandKind::Other {
            return paths;
        }
        let mut arguments = self.arguments.iter();
        while let Some(argument) = arguments.next() {
            if !argument.starts_with('-') {
                if self.kind == CommandKind::PuppetApply {
                    paths.push(argument.clone());
                }
                continue;
            }
            let (option, value) = match argument.split_once('=') {
                Some((option, value)) => (option, Some(value.to_owned())),
                None if has_value(argument) => (argument.as_str(), arguments.next().cloned()),
                None => (argument.as_str(), None),
            };
            if let Some(value) = value.filter(|_| PUPPET_PATHS.contains(&option)) {
                paths.extend(value.split(':').filter(|path| !path.starts_with('$')).map(str::to_owned));
            }
        }
        paths
    }
}

/// Whether the value of an option of Puppet is the next word.
pub(super) fn has_value(option: &str) -> bool {
    match option.strip_prefix("--") {
        Some(long) => !long.starts_with("no-") && !PUPPET_FLAGS.contains(&option),
        // `-e CODE`, `-l DESTINATION`; `-t`, `-v`, `-d` and the like have no value.
        None => matches!(option, "-e" | "-l" | "-w" | "-i" | "-c" | "-E" | "-f"),
    }
}

fn is_for_a_shell(word: &str) -> bool {
    SHELL_WORDS.contains(&word)
        || SHELL_BEGINNINGS.iter().any(|beginning| word.starts_with(beginning))
        || (word.len() > 1 && word.ends_with([';', '|']) && !word.contains(char::is_whitespace))
        || (word.len() > 1 && word.ends_with('&') && !word.contains(char::is_whitespace))
}

/// Wrappers that take the run out of Trigger's sight or its environment away.
fn about_wrappers(wrapped: &Wrapped, words: &[String]) -> Vec<String> {
    let lost = "so that a 'trigger fire' inside the run does not find its run, and loops are not recognised";
    let mut doubts = Vec::new();
    for wrapper in &wrapped.each {
        let own = &words[wrapper.words.clone()];
        let has = |options: &[&str]| {
            own.iter().any(|word| {
                options.iter().any(|option| word == option || word.starts_with(&format!("{option}=")))
            })
        };
        match wrapper.name() {
            "sudo" if !has(&["--preserve-env"]) && !own.iter().any(|word| is_short(word, 'E')) => {
                doubts.push(format!(
                    "the run command starts Puppet by sudo, which removes the variables TRIGGER_* from the environment, \
                     {lost}: add --preserve-env if the rules of sudo allow it"
                ));
            }
            "env" if has(&["-", "--ignore-environment"]) || own.iter().any(|word| is_short(word, 'i')) => {
                doubts.push(format!(
                    "the run command empties the environment, also of the variables TRIGGER_*, {lost}"
                ));
            }
            "systemd-run" if !has(&["--scope"]) => doubts.push(format!(
                "the run command starts Puppet by systemd-run without --scope, so that it is no child of Trigger: it is \
                 not ended at the run timeout, and the variables TRIGGER_* do not reach it, {lost}; add --scope"
            )),
            _ => {}
        }
    }
    doubts
}

/// Whether a word is a cluster of short options with this one.
fn is_short(word: &str, letter: char) -> bool {
    word.strip_prefix('-').is_some_and(|letters| !letters.starts_with('-') && letters.contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> RunCommand {
        RunCommand::from_words(words.iter().map(|&word| word.to_owned()).collect()).unwrap()
    }

    fn split(text: &str) -> RunCommand {
        command(&text.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn a_command_that_says_what_it_means_raises_no_doubt() {
        for good in [
            "puppet agent",
            "/opt/puppetlabs/bin/puppet agent -t",
            "nice -n 5 puppet apply /etc/site.pp",
            "LC_ALL=C.UTF-8 puppet agent",
            "sudo -E puppet agent",
            "sudo -nE puppet agent",
            "sudo --preserve-env=TRIGGER_RUN_ID puppet agent",
            "systemd-run --scope -p MemoryMax=1G puppet agent",
        ] {
            assert_eq!(split(good).doubts(), Vec::<String>::new(), "{good}");
        }
        assert_eq!(command(&["puppet", "apply", "-e", "notify { 'a; b': }"]).doubts(), Vec::<String>::new());
    }

    #[test]
    fn what_trigger_cannot_see_through_is_named() {
        for (text, parts) in [
            (
                "puppet agent; true",
                &["contains 'agent;', which means something to a shell", "is neither"][..],
            ),
            ("puppet agent && true", &["contains '&&'"]),
            ("puppet agent -t >/dev/null", &["contains '>/dev/null'"]),
            ("puppet agent 2>&1", &["contains '2>&1'"]),
            ("sh -c puppet", &["is neither 'puppet agent' nor 'puppet apply'"]),
            ("/usr/local/bin/converge now", &["is neither 'puppet agent' nor 'puppet apply'"]),
            ("nice /usr/local/bin/converge", &["is neither"]),
            ("su -c x", &["is neither"]),
            ("puppet resource x", &["is neither"]),
            (
                "chroot /srv/root puppet agent -t",
                &["chroot gives Puppet another root directory or namespace: its locks and"],
            ),
            (
                "runuser -u x -- puppet apply /x.pp",
                &["runuser starts it as the user x, who cannot write its"],
            ),
            ("runuser -u x -- puppet resource y", &["is neither"]),
            ("sudo puppet agent", &["by sudo, which removes the variables TRIGGER_*"]),
            ("sudo -u root env A=b puppet agent", &["by sudo"]),
            ("env -i puppet agent", &["empties the environment"]),
            ("env - puppet agent", &["empties the environment"]),
            ("systemd-run --wait puppet agent", &["systemd-run without --scope"]),
        ] {
            let doubts = split(text).doubts();
            assert_eq!(doubts.len(), parts.len(), "{text}: {doubts:?}");
            for (doubt, part) in doubts.iter().zip(parts) {
                assert!(doubt.contains(part), "{text}: {doubt}");
            }
        }
    }

    #[test]
    fn a_relative_path_is_found_wherever_it_stands() {
        for (text, expected) in [
            ("puppet apply site.pp", Some("site.pp")),
            ("puppet apply --verbose site.pp", Some("site.pp")),
            ("puppet apply --no-report -t manifests", Some("manifests")),
            ("nice puppet apply ./site.pp", Some("./site.pp")),
            ("puppet apply --modulepath /a:modules /site.pp", Some("modules")),
            ("puppet apply --modulepath=modules /site.pp", Some("modules")),
            ("puppet agent --confdir conf", Some("conf")),
            ("bin/converge now", Some("bin/converge")),
            ("nice ./bin/puppet agent", Some("./bin/puppet")),
            ("puppet apply /etc/site.pp", None),
            ("puppet apply --modulepath /a:$basemodulepath /etc/site.pp", None),
            ("puppet apply --environment test --tags web -l syslog /etc/site.pp", None),
            ("puppet apply -e x", None),
            ("puppet agent --server puppet.example.com -t", None),
            ("converge relative/path", None),
            ("env -C /srv puppet apply site.pp", None),
            ("env --chdir=/srv puppet apply site.pp", None),
        ] {
            assert_eq!(split(text).relative_path().as_deref(), expected, "{text}");
        }
    }
}
