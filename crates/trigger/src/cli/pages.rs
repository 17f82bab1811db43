//! Man pages and shell completions, generated from the command line for the packages.
//!
//! They are built by a test, so that the program itself does not grow by what generates them. `packaging/build` runs it
//! with a directory in `TRIGGER_PAGES`; without one it writes to a temporary directory.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::command;

const CONFIG_FILE: &str = include_str!("../../../../packaging/trigger.toml");
const MANUAL: &str = "Trigger";

fn name_with_version() -> String {
    format!("trigger {}", env!("CARGO_PKG_VERSION"))
}

/// Writes the page of each command that is not hidden, and returns the names of the files.
fn write_command_pages(command: &clap::Command, directory: &Path) -> BTreeSet<String> {
    let mut names: BTreeSet<_> = command
        .get_subcommands()
        .filter(|subcommand| !subcommand.is_hide_set())
        .flat_map(|subcommand| write_command_pages(subcommand, directory))
        .collect();
    let page = Man::new(command.clone()).source(name_with_version()).manual(MANUAL);
    page.generate_to(directory).unwrap();
    names.insert(page.get_filename());
    names
}

/// Writes trigger.toml(5), which shows the commented file of the packages.
fn write_config_page(directory: &Path) {
    let mut page = Roff::new();
    page.control("TH", ["trigger.toml", "5", "", &name_with_version(), MANUAL]);
    page.control("SH", ["NAME"]);
    page.text([roman("trigger.toml - the configuration of Trigger")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "/etc/trigger/trigger.toml is read by the agent, the hub and every command of trigger(1). Durations are numbers with \
         units, such as 90s, 2h 30m or 1d; a number without a unit is seconds. Paths are absolute. These are all settings:",
    )]);
    page.control("PP", []);
    page.control("nf", []);
    for line in CONFIG_FILE.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("trigger(1), trigger-agent(1), trigger-hub(1)")]);
    fs::write(directory.join("trigger.toml.5"), page.render()).unwrap();
}

fn write_completions(command: &mut clap::Command, directory: &Path) {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let path = clap_complete::generate_to(shell, command, "trigger", directory).unwrap();
        assert!(fs::read_to_string(path).unwrap().contains("readdress"), "{shell} completes subcommands");
    }
}

#[test]
fn every_command_has_a_page_and_every_shell_completes() {
    let temporary = tempfile::tempdir().unwrap();
    let wanted = std::env::var_os("TRIGGER_PAGES").map(PathBuf::from);
    let root = wanted.unwrap_or_else(|| temporary.path().to_owned());
    let directory = |name: &str| {
        let path = root.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };

    let mut for_pages = command().disable_help_subcommand(true);
    for_pages.build();
    let pages = write_command_pages(&for_pages, &directory("man"));
    for page in [
        "trigger.1",
        "trigger-fire.1",
        "trigger-agent.1",
        "trigger-outbox-readdress.1",
        "trigger-hub-backup.1",
    ] {
        assert!(pages.contains(page), "{page} is missing in {pages:?}");
    }
    write_config_page(&directory("man"));
    write_completions(&mut command(), &directory("completions"));
}
