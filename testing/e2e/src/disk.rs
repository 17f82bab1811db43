//! Disks that are full or cannot be written. Mounting needs root; without it these tests fail, they are not
//! skipped.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk of its own, mounted at a folder and unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts an empty disk of so many KiB at `folder`.
    pub fn mount(folder: &Path, kib: u32) -> Self {
        fs::create_dir_all(folder).expect("a folder to mount at");
        mount(&["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"], folder);
        Self { folder: folder.to_owned() }
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.folder.join("filler")).expect("a file to fill the disk");
        while file.write_all(&[0; 4096]).is_ok() {}
        assert!(file.write_all(&[0]).is_err(), "the disk is full");
    }

    /// Makes room again.
    pub fn make_room(&self) {
        fs::remove_file(self.folder.join("filler")).expect("a filler to remove");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}

/// A folder that nobody can write, not even root; writable again when dropped.
#[derive(Debug)]
pub struct ReadOnly {
    folder: PathBuf,
}

impl ReadOnly {
    /// Makes `folder` read-only, with what lies in it.
    pub fn make(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder to make read-only");
        mount(&["--bind", &folder.to_string_lossy()], folder);
        let disk = Self { folder: folder.to_owned() };
        mount(&["-o", "remount,ro,bind"], folder);
        disk
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}

fn mount(arguments: &[&str], folder: &Path) {
    let output =
        Command::new("mount").args(arguments).arg(folder).output().expect("mount: apt-get install mount");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "this test mounts small disks, which needs root: {said}");
}

/// Lazily: a process that is just ending may still be inside.
fn unmount(folder: &Path) {
    let _ = Command::new("umount").arg("--lazy").arg(folder).status();
}
