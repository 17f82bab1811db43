//! Puppet's two lock files, as anybody may read them. Trigger never writes them: the locks are Puppet's.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
struct Disabled {
    disabled_message: String,
}

/// Why Puppet is disabled on this node, if it is: `puppet agent --disable` leaves this lock.
pub fn disabled_reason(lock: &Path) -> Option<String> {
    match fs::read_to_string(lock) {
        Ok(text) => Some(match serde_json::from_str::<Disabled>(&text) {
            Ok(content) => format!("Puppet is disabled on this node: {}", content.disabled_message),
            Err(_) => format!("Puppet is disabled on this node ({})", lock.display()),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("cannot tell whether Puppet is disabled: {}: {error}", lock.display())),
    }
}

/// The process of the `puppet agent` whose run is in progress, if one is.
///
/// A run that was killed leaves its lock, whose number may become anybody's: as Puppet itself does
/// (`Puppet::Util::Pidlock`), only what looks like Puppet is taken for it.
pub fn run_in_progress(lock: &Path) -> Option<u32> {
    let holder: u32 = fs::read_to_string(lock).ok()?.trim().parse().ok()?;
    let read = |file: &str| fs::read(format!("/proc/{holder}/{file}")).ok();
    let (name, arguments) = (read("comm")?, read("cmdline").unwrap_or_default());
    looks_like_puppet(&String::from_utf8_lossy(&name), &String::from_utf8_lossy(&arguments)).then_some(holder)
}

fn looks_like_puppet(name: &str, arguments: &str) -> bool {
    let name = name.trim_end();
    let has_its_name = name.ends_with("puppet") || name.contains("puppet-");
    has_its_name || (name.contains("ruby") && arguments.contains("puppet"))
}

#[cfg(test)]
pub mod samples {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::{Child, Command};

    /// A process that looks like Puppet, until it is dropped.
    pub struct Lookalike(Child);

    impl Lookalike {
        pub fn start(dir: &Path) -> Self {
            let program = dir.join("puppet");
            std::fs::write(&program, "#!/bin/sh\nexec 0<&-\nread -r _ <>\"$1\"\n").unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            let pipe = dir.join("pipe");
            let _ = Command::new("mkfifo").arg(&pipe).status().unwrap();
            let puppet = Self(Command::new(program).arg(pipe).spawn().unwrap());
            // The kernel lets us go on a moment before it gives the process its new name.
            let name = format!("/proc/{}/comm", puppet.process());
            while std::fs::read_to_string(&name).unwrap() != "puppet\n" {
                std::thread::yield_now();
            }
            puppet
        }

        pub fn process(&self) -> u32 {
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
        assert_eq!(run_in_progress(&lock), None, "no lock, no run");
        let puppet = samples::Lookalike::start(dir.path());
        fs::write(&lock, puppet.process().to_string()).unwrap();
        assert_eq!(run_in_progress(&lock), Some(puppet.process()));
        for stale in [std::process::id().to_string(), i32::MAX.to_string(), "no process id".to_owned()] {
            fs::write(&lock, &stale).unwrap();
            assert_eq!(run_in_progress(&lock), None, "{stale}");
        }
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
    fn an_operators_message_is_told_whatever_the_lock_holds() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("lock");
        assert_eq!(disabled_reason(&lock), None);
        fs::write(&lock, r#"{"disabled_message":"disks"}"#).unwrap();
        assert_eq!(disabled_reason(&lock).unwrap(), "Puppet is disabled on this node: disks");
        fs::write(&lock, "").unwrap();
        assert_eq!(
            disabled_reason(&lock).unwrap(),
            format!("Puppet is disabled on this node ({})", lock.display())
        );
        assert!(disabled_reason(dir.path()).unwrap().contains("cannot tell whether"));
    }
}
