//! Disks that are full or read-only. Mounting needs root; without root these tests fail, they are not skipped.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk of its own, which is mounted at a directory and unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    directory: PathBuf,
}

impl SmallDisk {
    /// Mounts an empty disk of so many KiB at `directory`.
    pub fn mount(directory: &Path, kib: u32) -> Self {
        fs::create_dir_all(directory).expect("a directory to mount at");
        mount(&["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"], directory);
        Self { directory: directory.to_owned() }
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.directory.join("filler")).expect("a file to fill the disk");
        while file.write_all(&[0; 4096]).is_ok() {}
        assert!(file.write_all(&[0]).is_err(), "the disk is full");
    }

    /// Makes room again.
    pub fn make_room(&self) {
        fs::remove_file(self.directory.join("filler")).expect("a filler to remove");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.directory);
    }
}

/// A directory that not even root can write; it becomes writable again when this is dropped.
#[derive(Debug)]
pub struct ReadOnly {
    directory: PathBuf,
}

impl ReadOnly {
    /// Makes `directory` read-only, with its content.
    pub fn make(directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("a directory to make read-only");
        mount(&["--bind", &directory.to_string_lossy()], directory);
        let disk = Self { directory: directory.to_owned() };
        mount(&["-o", "remount,ro,bind"], directory);
        disk
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        unmount(&self.directory);
    }
}

fn mount(arguments: &[&str], directory: &Path) {
    let output =
        Command::new("mount").args(arguments).arg(directory).output().expect("mount: apt-get install mount");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "this test mounts small disks, which needs root: {said}");
}

/// The unmount is lazy, because a process that is about to end may still use the disk.
fn unmount(directory: &Path) {
    let _ = Command::new("umount").arg("--lazy").arg(directory).status();
}
