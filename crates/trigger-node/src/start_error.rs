//! Why a program could not be started, in words. The system's "No such file or directory" is about the program, about the
//! interpreter that its first line names, or about the loader of a binary.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The longest first line that the kernel reads.
const MAX_LINE_BYTES: u64 = 256;

/// Describes the error of starting `program` in `directory` with this environment added to that of this process.
pub(crate) fn describe(
    program: &str,
    error: &io::Error,
    directory: &Path,
    environment: &BTreeMap<String, String>,
) -> String {
    let path = environment.get("PATH").cloned().or_else(|| std::env::var("PATH").ok()).unwrap_or_default();
    let plain = format!("cannot start '{program}': {error}");
    if error.kind() != io::ErrorKind::NotFound {
        return plain;
    }
    let Some(file) = find(program, directory, &path) else {
        return if program.contains('/') {
            format!("cannot start '{program}': there is no such file")
        } else {
            format!("cannot start '{program}': there is no such program in PATH ({path})")
        };
    };
    match interpreter(&file) {
        Some(interpreter) => format!(
            "cannot start '{}': its first line names the interpreter '{}', which does not exist",
            file.display(),
            interpreter.escape_debug()
        ),
        None => format!(
            "cannot start '{}', which exists: {error}; it may be a program for another system, whose loader is missing \
             here",
            file.display()
        ),
    }
}

/// The file that the system would have started.
fn find(program: &str, directory: &Path, path: &str) -> Option<PathBuf> {
    let exists = |file: &PathBuf| fs::metadata(file).is_ok_and(|file| file.is_file());
    if program.contains('/') {
        return Some(directory.join(program)).filter(exists);
    }
    path.split(':').map(|in_path| directory.join(in_path).join(program)).find(exists)
}

/// The program that the first line of a script names.
fn interpreter(file: &Path) -> Option<String> {
    let mut start = Vec::new();
    File::open(file).ok()?.take(MAX_LINE_BYTES).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    line.trim_matches([' ', '\t']).split([' ', '\t']).next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    fn script(dir: &Path, name: &str, text: &str) {
        fs::write(dir.join(name), text).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Starts a program with `dir` as its PATH, and returns the description of the failure without the directory.
    fn failure(dir: &Path, program: &str) -> String {
        let environment = BTreeMap::from([("PATH".to_owned(), dir.to_string_lossy().into_owned())]);
        let error = Command::new(program).envs(&environment).current_dir(dir).spawn().unwrap_err();
        describe(program, &error, dir, &environment).replace(dir.to_str().unwrap(), "DIR")
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "converge", "#!/opt/ruby/bin/ruby -w\n");
        script(dir.path(), "crlf", "#! /bin/sh\r\necho\r\n");
        script(dir.path(), "loader", "not here");
        let names = "its first line names the interpreter";
        assert_eq!(
            failure(dir.path(), "converge"),
            format!("cannot start 'DIR/converge': {names} '/opt/ruby/bin/ruby', which does not exist")
        );
        let whole = dir.path().join("converge");
        assert!(failure(dir.path(), whole.to_str().unwrap()).contains("'/opt/ruby/bin/ruby', which"));
        assert_eq!(
            failure(dir.path(), "crlf"),
            format!("cannot start 'DIR/crlf': {names} '/bin/sh\\r', which does not exist")
        );
        assert_eq!(
            failure(dir.path(), "absent"),
            "cannot start 'absent': there is no such program in PATH (DIR)"
        );
        assert_eq!(
            failure(dir.path(), "/nonexistent/x"),
            "cannot start '/nonexistent/x': there is no such file"
        );
        fs::set_permissions(dir.path().join("loader"), fs::Permissions::from_mode(0o644)).unwrap();
        let denied = failure(dir.path(), dir.path().join("loader").to_str().unwrap());
        assert!(denied.contains("Permission denied"), "{denied}");
    }
}
