//! What becomes of the output: a standard output that takes nothing, and text that would control a terminal.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use snapbox::cmd::cargo_bin;

use crate::{state, trigger};

/// A command with standard output at `stdout`.
fn run(state: &Path, arguments: &[&str], stdout: impl Into<Stdio>) -> Output {
    let mut command = Command::new(cargo_bin!("trigger"));
    command
        .env_clear()
        .env("TRIGGER_CONFIG", "/dev/null")
        .env("TRIGGER_STATE_DIR", state)
        .env("TRIGGER_CERTNAME", "web01.example.com")
        .env("TRIGGER_BACKEND", "dummy:");
    command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

fn hub_data(directory: &Path) {
    let hub = Command::new(cargo_bin!("trigger"))
        .args(["hub", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory)
        .env_clear()
        .stderr(Stdio::piped())
        .spawn();
    let mut hub = hub.unwrap();
    let mut log = Vec::new();
    let mut stderr = hub.stderr.take().unwrap();
    while !String::from_utf8_lossy(&log).contains("hub is ready") {
        let mut bytes = [0; 1024];
        let count = stderr.read(&mut bytes).unwrap();
        assert!(count > 0, "the hub did not start: {}", String::from_utf8_lossy(&log));
        log.extend_from_slice(&bytes[..count]);
    }
    hub.kill().unwrap();
    hub.wait().unwrap();
}

#[test]
fn a_result_that_cannot_be_written_fails_every_command() {
    let state = state();
    let data = state.path().join("data");
    hub_data(&data);
    let (data, copies) = (data.to_str().unwrap(), ["one", "two"].map(|name| state.path().join(name)));
    let backup = |copy: usize, format: &'static str| {
        let copy = copies[copy].to_str().unwrap().to_owned();
        vec!["hub", "backup", "--data-dir", data, "--output", format]
            .into_iter()
            .map(str::to_owned)
            .chain([copy])
            .collect::<Vec<String>>()
    };
    let spooled = ["fire", "x", "--host", "lb01", "--backend", "hub+http://127.0.0.1:9"];
    trigger(state.path()).args(spooled).assert().code(0);
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let commands = [
        words("--help"),
        words("--version"),
        words("help fire"),
        words("fire --help"),
        words("hub backup --help"),
        words("queue"),
        words("queue --output json"),
        words("fire x --host lb01"),
        words("fire x --host lb01 --output json"),
        backup(0, "text"),
        backup(1, "json"),
    ];
    for command in commands {
        let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        let output = run(state.path(), &arguments, full());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        let sentence = "error: cannot write the result to standard output: No space left on device";
        assert!(said.contains(sentence), "{command:?}: {said}");
        assert_eq!(said.contains("Fired"), command[0] == "fire" && !command.contains(&"--help".to_owned()));
    }
    assert!(copies.iter().all(|copy| copy.exists()), "the work itself is done");
}

#[test]
fn a_failure_that_cannot_be_written_keeps_its_exit_code_and_its_sentence() {
    let state = state();
    for (arguments, code, sentence) in [
        (vec!["status", "--backend", "hub+http://127.0.0.1:9", "--output", "json"], 4, "unreachable"),
        (vec!["fire", "--output", "json"], 2, "required arguments"),
    ] {
        let output = run(state.path(), &arguments, full());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(sentence), "{said}");
        assert!(said.contains("cannot write the result to standard output"), "{said}");
    }
}

#[test]
fn a_standard_output_that_is_not_open_for_writing_is_an_error_too() {
    let state = state();
    let output = run(state.path(), &["queue", "--output", "json"], File::open("/dev/null").unwrap());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Bad file descriptor"), "{said}");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let state = state();
    for arguments in [vec!["--help"], vec!["fire", "x", "--host", "lb01"], vec!["queue", "--output", "json"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = run(state.path(), &arguments, writer);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(!said.contains("standard output"), "{said}");
    }
}

/// C8. Text that clears a screen, hides what follows, turns the direction of writing and looks like another line.
const FORGED: &str = "why\u{1b}[2J\u{9b}8m\u{7f}\u{202e}\r\nerror: forged\nlb02 done";

fn is_clean(text: &str) -> bool {
    !text.chars().any(|char| (char.is_control() && char != '\n') || char == '\u{202e}')
}

#[test]
fn text_from_outside_neither_controls_a_terminal_nor_makes_lines_of_its_own() {
    let state = state();
    let aside = state.path().join("outbox/quarantined");
    fs::create_dir_all(&aside).unwrap();
    fs::write(aside.join("x.json"), "{}").unwrap();
    fs::write(aside.join("x.json.reason"), FORGED).unwrap();
    let trigger_name = "t\u{202e}x\u{200b}";
    let commands: [&[&str]; 4] = [
        &["queue"],
        &["status", FORGED],
        &["fire", FORGED, "--host", "lb01"],
        &["fire", trigger_name, "--host", "lb01", "--backend", "hub+http://127.0.0.1:9"],
    ];
    for arguments in commands {
        let output = trigger(state.path()).args(arguments).output().unwrap();
        for text in [output.stdout, output.stderr] {
            let text = String::from_utf8(text).unwrap();
            assert!(is_clean(&text), "{arguments:?}: {text:?}");
            assert!(!text.lines().any(|line| line.starts_with("lb02 done")), "{arguments:?}: {text:?}");
        }
    }
    let queue = trigger(state.path()).args(["queue"]).output().unwrap();
    let queue = String::from_utf8(queue.stdout).unwrap();
    let reason = r"why\u{1b}[2J\u{9b}8m\u{7f}\u{202e} error: forged lb02 done";
    assert!(queue.contains(reason), "{queue}");
    assert!(queue.contains(r"t\u{202e}x\u{200b}"), "{queue}");

    let json = trigger(state.path()).args(["queue", "--output", "json"]).output().unwrap();
    let json = String::from_utf8(json.stdout).unwrap();
    assert!(is_clean(&json), "{json:?}");
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["quarantined"][0]["reason"], FORGED, "exact, in JSON's own escapes");
}

#[test]
fn a_configuration_file_controls_no_terminal() {
    let state = state();
    let config = state.path().join("trigger.toml");
    fs::write(&config, "backend = \"\u{202e}hub\\u001b[2J\"\n\"a\\u001b[2Jb\" = 1\n").unwrap();
    for text in ["queue", "status"] {
        let output = trigger(state.path()).arg("--config").arg(&config).arg(text).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(is_clean(&said), "{said:?}");
    }
}
