//! Finds import cycles between the files of each crate, and between the subtrees of modules beside each other.
//!
//! `trigger-cycles [DIRECTORY]` reads every package below a directory (by default the current one), prints each cycle
//! with the imports that form it, and fails if there is any. It does not expand macros or resolve types: an import is
//! a `use` or a path in the code, followed through re-exports to the file that defines its name. Imports in tests do
//! not count.

mod graph;
mod module;
mod tokens;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use graph::{Crate, Imports, SubtreeCycle};

fn main() -> ExitCode {
    let root = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    match report(&root, &mut io::stdout().lock()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reports on all crates and returns the number of cycles.
fn report(root: &Path, out: &mut impl Write) -> io::Result<usize> {
    let (mut total, mut files) = (0, 0);
    for package in packages(root)? {
        for crate_root in crate_roots(&package)? {
            let krate = Crate::read(&crate_root)?;
            files += krate.files().len();
            total += report_crate(root, &crate_root, &krate.imports(), out)?;
        }
    }
    writeln!(out, "{files} files, {total} import cycles")?;
    Ok(total)
}

fn report_crate(
    root: &Path,
    crate_root: &Path,
    imports: &Imports<PathBuf>,
    out: &mut impl Write,
) -> io::Result<usize> {
    let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let of_files = graph::cycles(imports);
    for cycle in &of_files {
        writeln!(out, "{}: a cycle of {} files:", shown(crate_root), cycle.len())?;
        for (from, targets) in imports.iter().filter(|(from, _)| cycle.contains(*from)) {
            for (to, line) in targets.iter().filter(|(to, _)| cycle.contains(*to)) {
                writeln!(out, "  {}:{line} imports {}", shown(from), shown(to))?;
            }
        }
    }
    let base = crate_root.parent().unwrap_or(root);
    let subtrees = graph::subtree_cycles(base, imports, &of_files);
    for SubtreeCycle { directory, modules } in &subtrees {
        let modules = modules.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        writeln!(out, "{}: a cycle of the modules {modules} with what is below them", shown(directory))?;
    }
    Ok(of_files.len() + subtrees.len())
}

/// Returns the directories below `root` that hold a package.
fn packages(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(directory) = ahead.pop() {
        if directory.join("src").is_dir() && directory.join("Cargo.toml").exists() {
            found.push(directory);
            continue;
        }
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            path.is_dir()
                && !path.is_symlink()
                && name != "target"
                && !name.to_string_lossy().starts_with('.')
        };
        ahead.extend(entries(&directory)?.into_iter().filter(is_ours));
    }
    found.sort();
    Ok(found)
}

/// Returns the files at the root of a package's crates: its library, programs, tests and examples.
fn crate_roots(package: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![package.join("src/lib.rs"), package.join("src/main.rs"), package.join("build.rs")];
    for directory in ["src/bin", "tests", "examples", "benches"] {
        for path in entries(&package.join(directory))? {
            if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            } else {
                found.push(path.join("main.rs"));
            }
        }
    }
    // The package may have a program beside `src`.
    found.extend(entries(package)?.into_iter().map(|path| path.join("main.rs")));
    found.retain(|file| file.is_file());
    found.sort();
    found.dedup();
    Ok(found)
}

/// Returns the entries of a directory; none if it does not exist.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}
