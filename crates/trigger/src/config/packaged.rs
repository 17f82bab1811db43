//! The configuration file of the packages, in which each setting is a comment.

use std::collections::BTreeSet;
use std::path::Path;

use trigger_core::identity::KeyPrefix;
use trigger_core::rate_limiter::RunsPerMinute;

use super::*;

const FILE: &str = include_str!("../../../../packaging/trigger.toml");

/// Whether a line of the file is a setting or a table. A comment has a space after its '#'.
fn setting_in(line: &str) -> Option<&str> {
    line.strip_prefix('#')
        .filter(|rest| rest.starts_with(|first: char| first.is_alphabetic() || first == '['))
}

/// The file with every setting set.
fn with_all_settings() -> String {
    FILE.lines().map(|line| setting_in(line).unwrap_or(line).to_owned() + "\n").collect()
}

/// The keys that the configuration may have below a header such as `[hub]`, or without one; none if there is no such table.
fn known_keys(header: &str) -> Vec<String> {
    let error = toml::from_str::<ConfigFile>(&format!("{header}\nzzz = 1\n")).map(|_| ()).unwrap_err();
    let unknown = error.message().strip_prefix("unknown field `zzz`").unwrap_or_default();
    quoted_words(unknown).into_iter().map(str::to_owned).collect()
}

/// The settings that the program knows, each by its table and key.
fn known_settings() -> BTreeSet<(String, String)> {
    let mut known = BTreeSet::new();
    for key in known_keys("") {
        let headers = [format!("[{key}]"), format!("[[{key}]]"), format!("[{key}.etcd]")];
        let tables: Vec<_> = headers.iter().filter(|header| !known_keys(header).is_empty()).collect();
        match tables.as_slice() {
            [] => {
                known.insert((String::new(), key));
            }
            [header, ..] => {
                known.extend(known_keys(header).into_iter().map(|key| ((*header).clone(), key)));
            }
        }
    }
    known
}

/// The settings that the file has, each by its table and key.
fn settings_in_file() -> BTreeSet<(String, String)> {
    let mut header = String::new();
    let mut settings = BTreeSet::new();
    for line in FILE.lines().filter_map(setting_in) {
        match line.split_once('=') {
            Some((key, _)) => {
                settings.insert((header.clone(), key.trim().to_owned()));
            }
            None => header = line.to_owned(),
        }
    }
    settings
}

#[test]
fn it_has_each_setting_that_the_program_knows_and_no_other() {
    let (in_file, known) = (settings_in_file(), known_settings());
    let missing: Vec<_> = known.difference(&in_file).collect();
    let unknown: Vec<_> = in_file.difference(&known).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "packaging/trigger.toml lacks {missing:?} and has {unknown:?}, which the program does not know"
    );
    assert!(known.contains(&("[hub]".to_owned(), "listen".to_owned())), "tables are found");
}

#[test]
fn as_it_is_installed_it_sets_nothing() {
    assert_eq!(toml::from_str::<toml::Table>(FILE).unwrap(), toml::Table::new());
}

#[test]
fn every_setting_in_it_is_one_that_the_program_takes() {
    let config = ConfigFile::parse(&with_all_settings()).unwrap();
    config.certname().unwrap();
    config.groups().unwrap();
    config.policy().unwrap();
    metrics_file(config.metrics_file.as_deref()).unwrap();
    let listen = config.hub.listen.as_deref().unwrap();
    assert_eq!(listen, DEFAULT_LISTEN);
    assert_eq!(config.state_dir.as_deref(), Some(Path::new(DEFAULT_STATE_DIR)));
    assert_eq!(config.hub.data_dir.as_deref(), Some(Path::new(DEFAULT_HUB_DATA_DIR)));
    assert_eq!(config.prefix().unwrap(), KeyPrefix::default());
    assert_eq!(run_timeout(config.run_timeout.as_deref()).unwrap(), DEFAULT_RUN_TIMEOUT);
    assert_eq!(settle(config.settle.as_deref()).unwrap(), DEFAULT_SETTLE);
    config.puppetdb_url().unwrap().unwrap();
    assert_eq!(runs_per_minute(None, config.runs_per_minute).unwrap(), RunsPerMinute::default());
    assert_eq!(run_command(config.run_cmd.as_deref()).unwrap().words(), RunCommand::default().words());
}
