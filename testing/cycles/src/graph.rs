//! The imports between the files of a crate, and the cycles among them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::module::{self, Import, Mention, Module};
use crate::tokens::tokens;

/// A module's place in its crate: the names of the modules from the root to it.
type Place = Vec<String>;

/// For each node, the nodes that it imports from, each with the line of the first import.
pub(crate) type Imports<Node> = BTreeMap<Node, BTreeMap<Node, usize>>;

/// The modules of a crate, by their places.
#[derive(Debug, Default)]
pub(crate) struct Crate {
    modules: BTreeMap<Place, (PathBuf, Module)>,
}

impl Crate {
    /// Reads the file at a crate's root and all files that belong to it.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut this = Self::default();
        let beside = root.parent().unwrap_or(Path::new(""));
        this.read_file(root, beside, Vec::new())?;
        Ok(this)
    }

    /// Reads a file, and the files of the modules below it, which lie in `directory`.
    fn read_file(&mut self, file: &Path, directory: &Path, place: Place) -> io::Result<()> {
        let text = fs::read_to_string(file)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))?;
        self.add(file, directory, place, module::parse(&tokens(&text)))
    }

    fn add(&mut self, file: &Path, directory: &Path, place: Place, mut module: Module) -> io::Result<()> {
        for (name, inner) in std::mem::take(&mut module.inline) {
            let place = [place.as_slice(), std::slice::from_ref(&name)].concat();
            self.add(file, &directory.join(&name), place, inner)?;
        }
        for (name, path) in &module.files {
            let place = [place.as_slice(), std::slice::from_ref(name)].concat();
            if let Some(path) = path {
                let file = file.parent().unwrap_or(Path::new("")).join(path);
                let beside = file.parent().unwrap_or(Path::new("")).to_owned();
                self.read_file(&file, &beside, place)?;
                continue;
            }
            let below = directory.join(name);
            let flat = directory.join(format!("{name}.rs"));
            let file = if flat.exists() { flat } else { below.join("mod.rs") };
            self.read_file(&file, &below, place)?;
        }
        self.modules.insert(place, (file.to_owned(), module));
        Ok(())
    }

    /// Returns the files of the crate.
    pub(crate) fn files(&self) -> BTreeSet<&Path> {
        self.modules.values().map(|(file, _)| file.as_path()).collect()
    }

    /// Returns the imports of each file.
    pub(crate) fn imports(&self) -> Imports<PathBuf> {
        let mut imports = Imports::new();
        for (place, (file, module)) in &self.modules {
            let from = imports.entry(file.clone()).or_default();
            let mut import = |target: &Place, line: usize| {
                let (target, _) = &self.modules[target];
                if target != file {
                    let first = from.entry(target.clone()).or_insert(line);
                    *first = (*first).min(line);
                }
            };
            for (name, Import { mention: Mention { path, line }, exported }) in &module.imports {
                // A module does not itself need what it only re-exports; the users of the name need it.
                if *exported && !module.words.contains(name) {
                    continue;
                }
                // The import of a module by itself takes nothing from it; a path that begins with its name does.
                if let Some(Found::Item(target)) = self.resolve(place, path, false) {
                    import(&target, *line);
                }
            }
            for Mention { path, line } in &module.globs {
                if let Some(Found::Module(target) | Found::Item(target)) = self.resolve(place, path, false) {
                    import(&target, *line);
                }
            }
            for Mention { path, line } in &module.mentions {
                if let Some(Found::Item(target)) = self.resolve(place, path, true) {
                    import(&target, *line);
                }
            }
        }
        imports
    }

    /// Resolves a path in a module; `None` if it leaves the crate. In code, unlike in a `use` of a module beside it,
    /// the names that the module imports are known as well.
    fn resolve(&self, from: &Place, path: &[String], in_code: bool) -> Option<Found> {
        self.resolve_within(from, path, in_code, &mut BTreeSet::new())
    }

    fn resolve_within(
        &self,
        from: &Place,
        path: &[String],
        in_code: bool,
        asked: &mut BTreeSet<(Place, String)>,
    ) -> Option<Found> {
        let (first, mut rest) = path.split_first()?;
        let mut place = match first.as_str() {
            "crate" => Place::new(),
            "self" => from.clone(),
            "super" => {
                let mut place = parent(from)?;
                while let Some(("super", further)) =
                    rest.split_first().map(|(word, rest)| (word.as_str(), rest))
                {
                    (place, rest) = (parent(&place)?, further);
                }
                place
            }
            _ => {
                let (_, module) = self.modules.get(from)?;
                let known = self.modules.contains_key(&child(from, first))
                    || (in_code && module.imports.contains_key(first));
                if !known {
                    return None;
                }
                rest = path;
                from.clone()
            }
        };
        for (index, name) in rest.iter().enumerate() {
            match self.look_up(&place, name, asked) {
                Some(Found::Module(found)) => place = found,
                Some(Found::Item(found)) => return Some(Found::Item(found)),
                // The first name may make the path leave the crate, as in `use serde::Serialize as Name`.
                None if index == 0 && rest.len() == path.len() => return None,
                None => return Some(Found::Item(place)),
            }
        }
        Some(Found::Module(place))
    }

    /// Looks up a name in a module; `None` if it comes from another crate or is not known.
    fn look_up(&self, place: &Place, name: &str, asked: &mut BTreeSet<(Place, String)>) -> Option<Found> {
        let below = child(place, name);
        if self.modules.contains_key(&below) {
            return Some(Found::Module(below));
        }
        let (_, module) = self.modules.get(place)?;
        if module.items.contains(name) {
            return Some(Found::Item(place.clone()));
        }
        if !asked.insert((place.clone(), name.to_owned())) {
            return None;
        }
        if let Some(import) = module.imports.get(name) {
            return self.resolve_within(place, &import.mention.path, false, asked);
        }
        module.globs.iter().find_map(|glob| {
            let Found::Module(target) = self.resolve_within(place, &glob.path, false, asked)? else {
                return None;
            };
            self.look_up(&target, name, asked)
        })
    }
}

/// The meaning of a path.
enum Found {
    Module(Place),
    /// An item that this module defines.
    Item(Place),
}

fn child(place: &Place, name: &str) -> Place {
    [place.as_slice(), &[name.to_owned()]].concat()
}

fn parent(place: &Place) -> Option<Place> {
    place.split_last().map(|(_, parent)| parent.to_vec())
}

/// Returns the groups of nodes that import each other in a cycle.
pub(crate) fn cycles<Node: Ord + Clone>(imports: &Imports<Node>) -> Vec<BTreeSet<Node>> {
    let reached: BTreeMap<&Node, BTreeSet<&Node>> =
        imports.keys().map(|node| (node, reachable(imports, node))).collect();
    let mut cycles = BTreeSet::new();
    for (node, ahead) in &reached {
        let returns = |other: &&&Node| reached.get(**other).is_some_and(|back| back.contains(node));
        let cycle: BTreeSet<Node> = ahead.iter().filter(returns).map(|other| (*other).clone()).collect();
        if cycle.len() > 1 {
            cycles.insert(cycle);
        }
    }
    cycles.into_iter().collect()
}

fn reachable<'a, Node: Ord>(imports: &'a Imports<Node>, from: &'a Node) -> BTreeSet<&'a Node> {
    let mut reached = BTreeSet::new();
    let mut ahead = vec![from];
    while let Some(node) = ahead.pop() {
        for next in imports.get(node).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(next) {
                ahead.push(next);
            }
        }
    }
    reached
}

/// A group of modules beside each other whose subtrees import each other, with the directory that they lie in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SubtreeCycle {
    pub(crate) directory: PathBuf,
    pub(crate) modules: BTreeSet<String>,
}

/// Returns the cycles among the subtrees of sibling modules, except those that are cycles of their files too. `base`
/// is the directory of the crate's root.
pub(crate) fn subtree_cycles(
    base: &Path,
    imports: &Imports<PathBuf>,
    file_cycles: &[BTreeSet<PathBuf>],
) -> Vec<SubtreeCycle> {
    let mut by_prefix: BTreeMap<Place, Imports<String>> = BTreeMap::new();
    for (from, targets) in imports {
        for (to, line) in targets {
            let (from, to) = (place_of(base, from), place_of(base, to));
            let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
            // Between a module and its descendants, only imports of files count.
            let (Some(one), Some(other)) = (from.get(shared), to.get(shared)) else { continue };
            let graph = by_prefix.entry(from[..shared].to_vec()).or_default();
            graph.entry(other.clone()).or_default();
            graph.entry(one.clone()).or_default().insert(other.clone(), *line);
        }
    }
    let mut found = Vec::new();
    for (prefix, graph) in by_prefix {
        for modules in cycles(&graph) {
            let is_of_files = file_cycles.iter().any(|files| {
                let places = files.iter().map(|file| place_of(base, file));
                let there: BTreeSet<String> =
                    places.filter_map(|place| place.get(prefix.len()).cloned()).collect();
                modules.is_subset(&there)
            });
            if !is_of_files {
                found
                    .push(SubtreeCycle { directory: base.join(prefix.iter().collect::<PathBuf>()), modules });
            }
        }
    }
    found
}

/// Returns the place of a file's module, from the path of the file.
fn place_of(base: &Path, file: &Path) -> Place {
    let inside = file.strip_prefix(base).unwrap_or(file).with_extension("");
    let mut place: Place =
        inside.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if place.last().is_some_and(|last| last == "mod") {
        place.pop();
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expects these cycles of files and of subtrees in a crate of these files.
    fn check(files: &[(&str, &str)], expected: &str) {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path();
        for (name, text) in files {
            let file = base.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let imports = Crate::read(&base.join("lib.rs")).unwrap().imports();
        let of_files = cycles(&imports);
        let subtrees = subtree_cycles(base, &imports, &of_files);
        let name = |file: &PathBuf| file.strip_prefix(base).unwrap().display().to_string();
        let of_files = of_files.iter().map(|cycle| cycle.iter().map(name).collect::<Vec<_>>().join(" "));
        let subtrees = subtrees.iter().map(|cycle| {
            let modules = cycle.modules.iter().cloned().collect::<Vec<_>>();
            format!("{{{}}}", modules.join(" "))
        });
        assert_eq!(of_files.chain(subtrees).collect::<Vec<_>>().join(", "), expected);
    }

    #[test]
    fn files_that_import_each_other_are_a_cycle() {
        check(
            &[
                ("lib.rs", "mod a; mod b; mod c;"),
                ("a.rs", "use crate::b::B; pub struct A;"),
                ("b.rs", "pub struct B; fn f() { crate::c::g() }"),
                ("c.rs", "use super::{a::A, b};"),
            ],
            "a.rs b.rs c.rs",
        );
        check(
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "use crate::b::B; pub struct A;"),
                ("b.rs", "pub struct B;"),
            ],
            "",
        );
    }

    #[test]
    fn a_parent_that_only_exports_again_is_in_no_cycle() {
        let child = ("a/child.rs", "use super::helper; pub struct Child;");
        check(
            &[("lib.rs", "mod a;"), ("a.rs", "mod child; pub use child::Child; fn helper() {}"), child],
            "",
        );
        let uses = "mod child; pub use child::Child; fn helper() -> Child { Child }";
        check(&[("lib.rs", "mod a;"), ("a/mod.rs", uses), child], "a/child.rs a/mod.rs");
    }

    #[test]
    fn what_is_exported_again_is_followed() {
        check(
            &[
                ("lib.rs", "mod a; mod b; mod c;"),
                ("a.rs", "use crate::b::C; pub struct A;"),
                ("b.rs", "pub use crate::c::*;"),
                ("c.rs", "use crate::a::A; pub struct C;"),
            ],
            "a.rs c.rs",
        );
    }

    #[test]
    fn subtrees_that_import_each_other_by_different_files_are_a_cycle() {
        check(
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a/mod.rs", "pub mod x; pub mod y;"),
                ("a/x.rs", "use crate::b::z::Z;"),
                ("a/y.rs", "pub struct Y;"),
                ("b/mod.rs", "pub mod z;"),
                ("b/z.rs", "use crate::a::y::Y; pub struct Z;"),
            ],
            "{a b}",
        );
    }

    #[test]
    fn tests_may_look_at_everything() {
        check(
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "use crate::b::B; pub struct A;"),
                ("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
            ],
            "",
        );
    }
}
