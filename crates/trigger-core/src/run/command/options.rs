//! The names of Puppet's options as Puppet reads them.
//!
//! Puppet reads its arguments twice. The first time it takes settings, by their whole names only. The second time it takes
//! the options of `puppet agent` and `puppet apply`, also by a beginning of their names, in any case, and with dashes for
//! underscores; a setting that is written so is accepted here, and ignored.

/// Options with which Puppet does something else than a run and then exits.
pub(super) const NO_RUN: [&str; 11] = [
    "--configprint",
    "--genconfig",
    "--genmanifest",
    "--fingerprint",
    "--enable",
    "--disable",
    "--parseonly",
    "--help",
    "-h",
    "--version",
    "-V",
];

/// Settings among the operator's words that decide where Puppet's files are, or under which name it runs.
pub(super) const OVERRIDES: [&str; 10] = [
    "--confdir",
    "--config",
    "--vardir",
    "--statedir",
    "--ssldir",
    "--certname",
    "--publicdir",
    "--lastrunreport",
    "--agent_disabled_lockfile",
    "--agent_catalog_run_lockfile",
];

/// Further options that Trigger reads in a run command, or that an operator relies on there. An option's whole name that
/// is the beginning of another one's is among them.
const FURTHER: [&str; 26] = [
    "--basemodulepath",
    "--ca_server",
    "--catalog",
    "--code",
    "--codedir",
    "--environment",
    "--environmentpath",
    "--execute",
    "--factpath",
    "--hiera_config",
    "--lastrunfile",
    "--libdir",
    "--logdest",
    "--logdir",
    "--manifest",
    "--maxwaitforlock",
    "--modulepath",
    "--noop",
    "--pluginfactdest",
    "--rundir",
    "--runtimeout",
    "--server",
    "--serverport",
    "--skip_tags",
    "--tags",
    "--waitforlock",
];

/// The fewest letters that are taken for the beginning of a name.
const MIN_LETTERS: usize = 2;

/// An option of Puppet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named {
    /// Its whole name.
    pub(super) name: &'static str,
    /// Whether the word has this name as Puppet writes it, so that it has its effect also if it is a setting.
    pub(super) is_whole: bool,
}

/// The option that a word stands for, if it is one of those that matter to Trigger. A value may follow after `=`.
pub(super) fn named(word: &str) -> Option<Named> {
    let word = word.split_once('=').map_or(word, |(name, _)| name);
    let all = || NO_RUN.iter().chain(&OVERRIDES).chain(&FURTHER).copied();
    if let Some(name) = all().find(|name| *name == word) {
        return Some(Named { name, is_whole: true });
    }
    let letters = word.strip_prefix("--").filter(|letters| letters.len() >= MIN_LETTERS)?;
    let letters = letters.to_ascii_lowercase().replace('-', "_");
    let begins = |name: &&str| name.strip_prefix("--").is_some_and(|name| name.starts_with(&letters));
    // Puppet takes the shortest of several names that begin with one another.
    all().filter(begins).min_by_key(|name| name.len()).map(|name| Named { name, is_whole: false })
}

/// Whether a word is this option by its whole name.
pub(super) fn is_whole(word: &str, name: &str) -> bool {
    named(word).is_some_and(|option| option.is_whole && option.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_option_is_taken_for_the_one_that_puppet_takes_it_for() {
        for (word, name, is_whole) in [
            ("--disa", "--disable", false),
            ("--DISABLE=why", "--disable", false),
            ("--configp", "--configprint", false),
            ("--lastrunrep=/x", "--lastrunreport", false),
            ("--he", "--help", false),
            ("--skip-tags", "--skip_tags", false),
            ("--Tag=x", "--tags", false),
            ("--config", "--config", true),
            ("--environment=x", "--environment", true),
            ("--env", "--environment", false),
            ("--tags=x", "--tags", true),
        ] {
            assert_eq!(named(word), Some(Named { name, is_whole }), "{word}");
        }
        for other in
            ["--show_diff", "--verbose", "-t", "--", "--h", "disable", "--no-noop", "--disabled", "--test"]
        {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
