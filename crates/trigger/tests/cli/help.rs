//! The reference of the command line.

use snapbox::cmd::{Command, cargo_bin};
use snapbox::{assert_data_eq, file};

fn help(subcommand: &[&str]) -> String {
    let output = Command::new(cargo_bin!("trigger")).args(subcommand).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_reference_is_what_the_program_says() {
    let mut page = String::from(
        "# Command line reference\n\nWhat `trigger --help` and its subcommands print. Written by \
         `SNAPSHOTS=overwrite cargo test -p trigger --test cli`.\n",
    );
    let commands: &[&[&str]] = &[
        &[],
        &["fire"],
        &["cancel"],
        &["hold"],
        &["release"],
        &["status"],
        &["nodes"],
        &["node"],
        &["node", "forget"],
        &["queue"],
        &["doctor"],
        &["outbox"],
        &["outbox", "list"],
        &["outbox", "readdress"],
        &["outbox", "drop"],
        &["policy"],
        &["policy", "test"],
        &["facts"],
        &["why"],
        &["log"],
        &["agent"],
        &["etcd-roles"],
        &["hub"],
        &["hub", "backup"],
    ];
    for command in commands {
        let title = [&["trigger"], *command].concat().join(" ");
        page.push_str(&format!("\n## {title}\n\n```text\n{}\n```\n", help(command).trim_end()));
    }
    assert_data_eq!(page, file!["../../../../docs/cli.md"].raw());
}
