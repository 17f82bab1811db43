//! The declarations, imports and names of the modules of one file.

use std::collections::{BTreeMap, BTreeSet};

use crate::tokens::{Kind, Token};

/// The segments of a path, `crate`, `self` and `super` among them.
pub(crate) type Path = Vec<String>;

/// A path and the line that it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) path: Path,
    pub(crate) line: usize,
}

/// A module: the whole file, or an inline module of it.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// The modules below it that have files of their own, with the value of a `#[path]`.
    pub(crate) files: BTreeMap<String, Option<String>>,
    /// Its inline modules.
    pub(crate) inline: BTreeMap<String, Module>,
    /// The names that it imports or re-exports, by the name under which it has them.
    pub(crate) imports: BTreeMap<String, Import>,
    /// The modules all of whose names it imports.
    pub(crate) globs: Vec<Mention>,
    /// The names that it defines.
    pub(crate) items: BTreeSet<String>,
    /// The paths of at least two segments in its code.
    pub(crate) mentions: Vec<Mention>,
    /// The first words of all paths in its code.
    pub(crate) words: BTreeSet<String>,
}

/// A `use` of one name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) mention: Mention,
    /// Whether other modules see the name as one of this module.
    pub(crate) exported: bool,
}

const DEFINE: [&str; 9] =
    ["fn", "struct", "enum", "trait", "type", "const", "static", "union", "macro_rules"];

/// Parses a file. Code that exists only for its tests counts as absent: a test may use all of a crate.
pub(crate) fn parse(tokens: &[Token]) -> Module {
    let mut module = Module::default();
    Parser { tokens, at: 0 }.module(&mut module);
    module
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl Parser<'_> {
    fn kind(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    fn is(&self, ahead: usize, sign: char) -> bool {
        self.kind(ahead) == Some(&Kind::Sign(sign))
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        match self.kind(ahead) {
            Some(Kind::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |token| token.line)
    }

    /// Reads up to the brace that closes the module, or to the end of the file.
    fn module(&mut self, module: &mut Module) {
        let mut depth = 0;
        while self.at < self.tokens.len() {
            if self.is(0, '#') {
                self.attributes_and_module(module);
                continue;
            }
            match self.kind(0) {
                Some(Kind::Sign('{')) => depth += 1,
                Some(Kind::Sign('}')) if depth == 0 => return,
                Some(Kind::Sign('}')) => depth -= 1,
                Some(Kind::Word(word)) => match word.as_str() {
                    "use" => {
                        // A `use` after `pub` or `pub(crate)` is exported.
                        let before = self.at.checked_sub(1).map(|before| &self.tokens[before].kind);
                        let exported = match before {
                            Some(Kind::Word(word)) => word == "pub",
                            Some(Kind::Sign(sign)) => *sign == ')',
                            _ => false,
                        };
                        self.at += 1;
                        self.import(Vec::new(), exported, module);
                        continue;
                    }
                    "mod" if self.declares_a_module() => {
                        self.declaration(None, module);
                        continue;
                    }
                    define if DEFINE.contains(&define) => {
                        let name = if self.is(1, '!') { 2 } else { 1 };
                        if depth == 0
                            && let Some(name) = self.word(name)
                        {
                            module.items.insert(name.to_owned());
                        }
                    }
                    _ => {
                        self.mention(module);
                        continue;
                    }
                },
                _ => {}
            }
            self.at += 1;
        }
    }

    fn declares_a_module(&self) -> bool {
        self.word(1).is_some() && (self.is(2, ';') || self.is(2, '{'))
    }

    /// Reads attributes, and the module or the test that they belong to.
    fn attributes_and_module(&mut self, module: &mut Module) {
        let (mut for_tests, mut path) = (false, None);
        while self.is(0, '#') && (self.is(1, '[') || self.is(1, '!')) {
            let began = self.at;
            while self.at < self.tokens.len() && !self.is(0, '[') {
                self.at += 1;
            }
            self.skip_group();
            let attribute = &self.tokens[began..self.at];
            let words: Vec<&str> = attribute.iter().filter_map(|token| word_of(token)).collect();
            for_tests |= matches!(words.as_slice(), ["cfg", "test"] | ["cfg", "all", "test", ..]);
            if words == ["path"] {
                path = attribute.iter().find_map(|token| match &token.kind {
                    Kind::Text(text) => Some(text.clone()),
                    _ => None,
                });
            }
        }
        if for_tests {
            self.skip_item();
        } else if path.is_some() {
            while self.at < self.tokens.len() && self.word(0) != Some("mod") {
                self.at += 1;
            }
            self.declaration(path, module);
        } else if self.is(0, '#') {
            self.at += 1;
        }
    }

    /// Reads from an opening bracket past the one that closes it.
    fn skip_group(&mut self) {
        let mut depth = 0;
        while let Some(kind) = self.kind(0) {
            match kind {
                Kind::Sign('(' | '[' | '{') => depth += 1,
                Kind::Sign(')' | ']' | '}') => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    /// Skips an item: to its semicolon or past its block.
    fn skip_item(&mut self) {
        while let Some(kind) = self.kind(0) {
            match kind {
                Kind::Sign('{') => return self.skip_group(),
                Kind::Sign('(' | '[') => self.skip_group(),
                Kind::Sign(';') => {
                    self.at += 1;
                    return;
                }
                // The item is a field or an arm that only tests have.
                Kind::Sign('}') => return,
                _ => self.at += 1,
            }
        }
    }

    /// Reads `mod name;` or `mod name { … }`.
    fn declaration(&mut self, path: Option<String>, module: &mut Module) {
        let Some(name) = self.word(1).map(str::to_owned) else {
            self.at += 1;
            return;
        };
        let inline = self.is(2, '{');
        self.at += 3;
        if !inline {
            module.files.insert(name, path);
            return;
        }
        let mut inner = Module::default();
        self.module(&mut inner);
        self.at += 1;
        // An inline module whose files lie elsewhere shares those of another crate, where they are looked at.
        if path.is_none() {
            module.inline.insert(name, inner);
        }
    }

    /// Reads what follows `use`, or one branch of it, and the sign after it unless that closes a group.
    fn import(&mut self, mut path: Path, exported: bool, module: &mut Module) {
        let line = self.line();
        while let Some(kind) = self.kind(0).cloned() {
            match kind {
                Kind::Word(word) if word == "as" => {
                    if let Some(name) = self.word(1).map(str::to_owned) {
                        let mention = Mention { path: path.clone(), line };
                        module.imports.insert(name, Import { mention, exported });
                    }
                    self.at += 2;
                    path.clear();
                }
                Kind::Word(word) => {
                    // `a::{self}` is `a`.
                    if word != "self" || path.is_empty() {
                        path.push(word);
                    }
                    self.at += 1;
                }
                Kind::Path => self.at += 1,
                Kind::Sign('*') => {
                    module.globs.push(Mention { path: std::mem::take(&mut path), line });
                    self.at += 1;
                }
                Kind::Sign('{') => {
                    self.at += 1;
                    while self.at < self.tokens.len() && !self.is(0, '}') {
                        self.import(path.clone(), exported, module);
                        if self.is(0, ',') {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    path.clear();
                }
                _ => break,
            }
        }
        if let Some(name) = path.last().cloned() {
            module.imports.insert(name, Import { mention: Mention { path, line }, exported });
        }
    }

    /// Reads a word, and the path that it begins.
    fn mention(&mut self, module: &mut Module) {
        let line = self.line();
        let mut path = Vec::new();
        while let Some(word) = self.word(0).map(str::to_owned) {
            path.push(word);
            self.at += 1;
            if self.kind(0) != Some(&Kind::Path) || self.word(1).is_none() {
                break;
            }
            self.at += 1;
        }
        module.words.extend(path.first().cloned());
        if path.len() > 1 {
            module.mentions.push(Mention { path, line });
        }
    }
}

fn word_of(token: &Token) -> Option<&str> {
    match &token.kind {
        Kind::Word(word) => Some(word),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokens;

    fn read(source: &str) -> Module {
        parse(&tokens(source))
    }

    fn imports(source: &str) -> Vec<String> {
        let module = read(source);
        let named = module.imports.iter();
        let named = named.map(|(name, import)| format!("{name}={}", import.mention.path.join("::")));
        let globs = module.globs.iter().map(|mention| format!("*={}", mention.path.join("::")));
        named.chain(globs).collect()
    }

    #[test]
    fn use_trees_are_taken_apart() {
        assert_eq!(imports("use a::b;"), ["b=a::b"]);
        assert_eq!(
            imports("pub(crate) use super::{self as up, b::{self, C, d::*}, e as _};\nuse f;"),
            ["C=super::b::C", "_=super::e", "b=super::b", "f=f", "up=super", "*=super::b::d"]
        );
    }

    #[test]
    fn what_is_exported_again_is_known() {
        let module = read("pub use a::b; pub(crate) use c::{d, e}; use f::g; fn h(d: d) { e::i() }");
        let exported = module.imports.iter().filter(|(_, import)| import.exported);
        assert_eq!(exported.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "d", "e"]);
        assert!(module.words.contains("d") && module.words.contains("e") && !module.words.contains("b"));
    }

    #[test]
    fn modules_of_files_and_inline_ones_are_known() {
        let module = read(
            "mod a; #[path = \"x/y.rs\"] pub mod b; #[path = \"../d\"] mod d { mod f; } mod c { use super::d; mod e; } fn mod_f() {}",
        );
        assert_eq!(module.files.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(module.files["b"].as_deref(), Some("x/y.rs"));
        assert_eq!(module.inline["c"].imports["d"].mention.path, ["super", "d"]);
        assert!(module.inline["c"].files.contains_key("e"));
        assert!(module.items.contains("mod_f"));
    }

    #[test]
    fn what_only_tests_have_is_absent() {
        let source = "#[cfg(test)] mod tests { use a::b; } #[cfg(test)] fn f(x: [u8; 2]) { g::h() } \
                      #[cfg(test)] use i::j; #[cfg(any(test, feature = \"x\"))] mod k { use l::m; } fn n() { o::p() }";
        let module = read(source);
        assert_eq!(module.inline.keys().collect::<Vec<_>>(), ["k"]);
        assert!(module.imports.is_empty());
        assert_eq!(module.items.iter().collect::<Vec<_>>(), ["n"]);
        assert_eq!(module.mentions, [Mention { path: vec!["o".to_owned(), "p".to_owned()], line: 1 }]);
    }

    #[test]
    fn attributes_do_not_hide_what_they_belong_to() {
        let module = read("#![allow(x)]\n#[derive(Debug)]\nstruct A;\n#[cfg(unix)]\nuse b::c;\n#[x]\nmod d;");
        assert!(
            module.items.contains("A") && module.imports.contains_key("c") && module.files.contains_key("d")
        );
    }
}
