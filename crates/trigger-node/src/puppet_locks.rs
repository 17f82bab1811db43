//! Reads Puppet's two lock files. Trigger never writes them, because the locks are Puppet's.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::Deserialize;
use trigger_core::queue::PuppetBlocker;
use trigger_core::run::explanation::LockHolder;

#[derive(Deserialize)]
struct Disabled {
    disabled_message: String,
}

/// Returns why Puppet is disabled on this node, or `None` if it is not. `puppet agent --disable` creates this lock. A
/// lock that cannot be read leaves unknown whether Puppet is disabled, and keeps runs from starting as well.
pub fn disabled(lock: &Path) -> Option<PuppetBlocker> {
    match fs::read(lock) {
        Ok(content) => Some(PuppetBlocker::Disabled(match serde_json::from_slice::<Disabled>(&content) {
            Ok(content) => format!("Puppet is disabled on this node: {}", content.disabled_message),
            Err(_) => format!("Puppet is disabled on this node ({})", lock.display()),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(PuppetBlocker::Broken(format!(
            "cannot tell whether Puppet is disabled: {}: {error}",
            lock.display()
        ))),
    }
}

/// Returns the pid of the `puppet agent` whose run is in progress, if there is one.
///
/// A run that was killed leaves its lock, and the system may give the pid in it to another program. Like Puppet itself
/// (`Puppet::Util::Pidlock`), this takes the pid for Puppet's only if the process looks like Puppet. A process that
/// exists and cannot be looked at counts as Puppet.
///
/// # Errors
/// The system's reason if the lock exists and cannot be read, so that it is unknown whether a run is in progress.
pub fn run_in_progress(lock: &Path) -> io::Result<Option<u32>> {
    let content = match fs::read(lock) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Ok(holder) = String::from_utf8_lossy(&content).trim().parse::<u32>() else { return Ok(None) };
    let read = |file: &str| fs::read(format!("/proc/{holder}/{file}"));
    let (name, arguments) = (read("comm"), read("cmdline").unwrap_or_default());
    let is_puppet = match name {
        Ok(name) => looks_like_puppet(&String::from_utf8_lossy(&name), &String::from_utf8_lossy(&arguments)),
        // A system may hide the processes of other users.
        Err(_) => exists(holder),
    };
    Ok(is_puppet.then_some(holder))
}

/// Whether there is such a process, visible or not.
fn exists(process: u32) -> bool {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| !matches!(test_kill_process(pid), Err(Errno::SRCH)))
}

/// Returns the lock with its holder, for a message.
pub(crate) fn holder_of(lock: &Path, process: u32) -> LockHolder {
    let arguments = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&arguments).replace('\0', " ");
    LockHolder { file: lock.display().to_string(), process, command: command.trim().to_owned() }
}

fn looks_like_puppet(name: &str, arguments: &str) -> bool {
    let name = name.trim_end();
    let has_its_name = name.ends_with("puppet") || name.contains("puppet-");
    has_its_name || (name.contains("ruby") && arguments.contains("puppet"))
}

#[cfg(test)]
pub(crate) mod samples {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::{Child, Command};

    /// A process that looks like Puppet, until it is dropped.
    pub(crate) struct Lookalike(Child);

    impl Lookalike {
        pub(crate) fn start(dir: &Path) -> Self {
            let program = dir.join("puppet");
            std::fs::write(&program, "#!/bin/sh\nexec 0<&-\nread -r _ <>\"$1\"\n").unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            let pipe = dir.join("pipe");
            let _ = Command::new("mkfifo").arg(&pipe).status().unwrap();
            let puppet = Self(Command::new(program).arg(pipe).spawn().unwrap());
            // `spawn` returns a moment before the kernel gives the process its new name.
            let name = format!("/proc/{}/comm", puppet.process());
            while std::fs::read_to_string(&name).unwrap() != "puppet\n" {
                std::thread::yield_now();
            }
            puppet
        }

        pub(crate) fn process(&self) -> u32 {
            self.0.id()
        }
    }

    impl Drop for Lookalike {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_counts_while_a_process_that_looks_like_puppet_has_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("lock");
        assert_eq!(run_in_progress(&lock).unwrap(), None, "no lock, no run");
        let puppet = samples::Lookalike::start(dir.path());
        fs::write(&lock, puppet.process().to_string()).unwrap();
        assert_eq!(run_in_progress(&lock).unwrap(), Some(puppet.process()));
        for stale in [std::process::id().to_string(), i32::MAX.to_string(), "no process id".to_owned()] {
            fs::write(&lock, &stale).unwrap();
            assert_eq!(run_in_progress(&lock).unwrap(), None, "{stale}");
        }
        assert!(run_in_progress(dir.path()).is_err(), "a lock that cannot be read is not a free one");
        for (name, arguments, expected) in [
            ("puppet\n", "/usr/bin/ruby\0/usr/bin/puppet\0agent\0", true),
            ("puppet-agent", "", true),
            ("ruby3.1", "puppet agent: applying configuration", true),
            ("ruby", "irb", false),
            ("puppetserver", "java", false),
        ] {
            assert_eq!(looks_like_puppet(name, arguments), expected, "{name}");
        }
    }

    #[test]
    fn an_operators_message_is_shown_whatever_the_lock_holds() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("lock");
        assert_eq!(disabled(&lock), None);
        let is_disabled = |sentence: &str| Some(PuppetBlocker::Disabled(sentence.to_owned()));
        fs::write(&lock, r#"{"disabled_message":"disks"}"#).unwrap();
        assert_eq!(disabled(&lock), is_disabled("Puppet is disabled on this node: disks"));
        for content in [&b""[..], b"\xff\xfe"] {
            fs::write(&lock, content).unwrap();
            let expected = format!("Puppet is disabled on this node ({})", lock.display());
            assert_eq!(disabled(&lock), is_disabled(&expected));
        }
        let unreadable = disabled(dir.path());
        assert!(
            matches!(&unreadable, Some(PuppetBlocker::Broken(reason)) if reason.contains("cannot tell whether"))
        );
    }
}
