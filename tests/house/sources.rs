//! The modules of a crate, and which module uses which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::tokens::{self, Token, Tokens};

/// A module's place below the root of its crate; the root's is empty.
pub type Module = Vec<String>;

/// Imports of imports are followed this often.
const STEPS_MAX: usize = 8;

/// A path that a file names.
#[derive(Debug)]
pub struct Named {
    pub path: Vec<String>,
    pub line: usize,
    /// It starts with `::`, so that its first name is a crate's.
    is_absolute: bool,
    /// The name that a `use` gives it.
    alias: Option<String>,
    /// A comment `// circle: why` stands beside it.
    pub is_excused: bool,
}

#[derive(Debug)]
pub struct Source {
    /// Below the root of the repository.
    pub file: String,
    pub module: Module,
    pub tokens: Vec<Token>,
    pub named: Vec<Named>,
}

/// One use of a module by another one in the same folder.
#[derive(Debug)]
pub struct Arrow {
    /// The module whose children they are.
    pub folder: Module,
    pub from: String,
    pub to: String,
    pub file: String,
    pub line: usize,
    pub path: String,
    pub is_excused: bool,
}

/// The sources below one folder.
#[derive(Debug)]
pub struct Crate {
    /// The folder below the root of the repository.
    pub root: String,
    /// The name of the crate in its own binaries.
    name: String,
    pub sources: Vec<Source>,
    modules: BTreeSet<Module>,
    aliases: BTreeMap<(Module, String), Vec<String>>,
}

impl Crate {
    /// Reads the files below `root`, except those below one of the folders in `without`.
    pub fn read(root: &str, name: &str, without: &[&str]) -> Self {
        let folder = project(root);
        let mut files: Vec<_> = files_below(&folder, "rs")
            .into_iter()
            .map(|path| {
                let below = path.strip_prefix(&folder).unwrap().with_extension("");
                let module: Module = below.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
                (module, fs::read_to_string(path).unwrap())
            })
            .collect();
        files.retain(|(module, _)| !without.contains(&module[0].as_str()));
        let read: Vec<_> = files
            .into_iter()
            .map(|(mut module, text)| {
                let file = format!("{root}/{}.rs", module.join("/"));
                if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
                    module.pop();
                }
                (file, module, tokens::read(&text))
            })
            .collect();
        let of_tests: Vec<Module> = read
            .iter()
            .flat_map(|(_, module, tokens)| tokens.test_modules.iter().map(|test| join(module, test)))
            .collect();
        let sources: Vec<_> = read
            .into_iter()
            .filter(|(_, module, _)| !of_tests.iter().any(|test| module.starts_with(test)))
            .map(|(file, module, tokens)| Source { file, module, named: named(&tokens), tokens: tokens.list })
            .collect();
        // A module without a file of its own, such as `mod buying { mod holds; }`, is known by its children.
        let modules = sources
            .iter()
            .flat_map(|Source { module, .. }| (1..=module.len()).map(|length| module[..length].to_vec()))
            .collect();
        let aliases = sources
            .iter()
            .flat_map(|source| source.named.iter().map(move |named| (source, named)))
            .filter(|(_, named)| !named.is_absolute)
            .filter_map(|(source, named)| {
                let alias = named.alias.clone()?;
                Some(((source.module.clone(), alias), named.path.clone()))
            })
            .collect();
        Self { root: root.to_owned(), name: name.to_owned(), sources, modules, aliases }
    }

    /// The modules directly in the folder of `module`.
    pub fn children(&self, module: &[String]) -> BTreeSet<&str> {
        let below = self.modules.iter().filter(|other| other.len() > module.len() && other.starts_with(module));
        below.map(|other| other[module.len()].as_str()).collect()
    }

    /// The crate whose item the path names, if it is not this one's.
    pub fn foreign<'a>(&self, source: &Source, named: &'a Named) -> Option<&'a str> {
        let is_own = !named.is_absolute && !self.targets(&source.module, &named.path).is_empty();
        (!is_own).then(|| named.path[0].as_str())
    }

    /// Which module uses which, between modules that share a folder: for each file the first line that does. It is
    /// excused if one of the file's lines that do so is.
    pub fn arrows(&self) -> Vec<Arrow> {
        let mut arrows: Vec<Arrow> = Vec::new();
        for source in &self.sources {
            let first = arrows.len();
            for named in source.named.iter().filter(|named| !named.is_absolute) {
                let from = &source.module;
                for to in self.targets(from, &named.path) {
                    let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
                    if shared == from.len() || shared == to.len() {
                        continue;
                    }
                    let same = |arrow: &&mut Arrow| arrow.folder == from[..shared] && arrow.to == to[shared];
                    if let Some(arrow) = arrows[first..].iter_mut().find(same) {
                        arrow.is_excused |= named.is_excused;
                        continue;
                    }
                    arrows.push(Arrow {
                        folder: from[..shared].to_vec(),
                        from: from[shared].clone(),
                        to: to[shared].clone(),
                        file: source.file.clone(),
                        line: named.line,
                        path: named.path.join("::"),
                        is_excused: named.is_excused,
                    });
                }
            }
        }
        arrows
    }

    /// The modules that `path` leads through when `module` names it: the one written, and those that it comes from if
    /// that one only passes it on.
    pub fn targets(&self, module: &[String], path: &[String]) -> BTreeSet<Module> {
        let mut found = BTreeSet::new();
        self.follow(module, path, STEPS_MAX, &mut found);
        found
    }

    fn follow(&self, module: &[String], path: &[String], steps: usize, found: &mut BTreeSet<Module>) {
        let Some((head, mut rest)) = path.split_first() else { return };
        let mut at = module.to_vec();
        match head.as_str() {
            "self" => {}
            "crate" => at.clear(),
            "super" => {
                at.pop();
                while rest.first().is_some_and(|up| up == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            head if self.modules.contains(&join(module, head)) => rest = path,
            head if head == self.name => at.clear(),
            head => match self.aliases.get(&(module.to_vec(), head.to_owned())) {
                Some(target) if target[0] != head => rest = path,
                _ => return,
            },
        }
        for (step, name) in rest.iter().enumerate() {
            if self.modules.contains(&join(&at, name)) {
                at.push(name.clone());
                continue;
            }
            if let Some(target) = self.aliases.get(&(at.clone(), name.clone()))
                && steps > 0
            {
                let onward: Vec<_> = target.iter().chain(&rest[step + 1..]).cloned().collect();
                self.follow(&at, &onward, steps - 1, found);
            }
            break;
        }
        found.insert(at);
    }
}

fn join(module: &[String], name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// A path in the repository.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The files below a folder whose names end in `.ending`, in order.
pub fn files_below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| match path.is_dir() {
            true => files_below(&path, ending),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == ending))
        .collect();
    found.sort();
    found
}

/// The paths that a file names: the leaves of its `use` trees, and paths within the code.
fn named(tokens: &Tokens) -> Vec<Named> {
    let list = &tokens.list;
    let text = |at: usize| list.get(at).map_or("", |token| token.text.as_str());
    let mut named = Vec::new();
    let mut at = 0;
    while at < list.len() {
        if text(at) == "use" {
            let statement = list[at].line;
            let first = named.len();
            at = tree(list, at + 1, &[], &mut named);
            for leaf in &mut named[first..] {
                leaf.is_excused |=
                    [leaf.line, statement, statement - 1].iter().any(|line| tokens.excused.contains(line));
            }
        } else if list[at].is_name() && text(at + 1) == "::" {
            let line = list[at].line;
            let is_absolute = at > 0 && text(at - 1) == "::";
            let mut path = vec![list[at].text.clone()];
            while text(at + 1) == "::" && list.get(at + 2).is_some_and(Token::is_name) {
                at += 2;
                path.push(list[at].text.clone());
            }
            at += 1;
            let is_excused = tokens.excused.contains(&line) || tokens.excused.contains(&(line - 1));
            named.push(Named { path, line, is_absolute, alias: None, is_excused });
        } else {
            at += 1;
        }
    }
    named
}

/// Reads one `use` tree from `at` and returns the position after it.
fn tree(list: &[Token], mut at: usize, prefix: &[String], named: &mut Vec<Named>) -> usize {
    let mut path = prefix.to_vec();
    let mut line = list[at].line;
    let is_absolute = path.is_empty() && list[at].text == "::";
    let first = named.len();
    loop {
        match list[at].text.as_str() {
            "{" => {
                at += 1;
                while list[at].text != "}" {
                    at = tree(list, at, &path, named);
                    if list[at].text == "," {
                        at += 1;
                    }
                }
                at += 1;
                break;
            }
            "as" => {
                named.last_mut().unwrap().alias = Some(list[at + 1].text.clone());
                at += 2;
                break;
            }
            "::" => {
                // What was read so far is no leaf.
                named.truncate(first);
                at += 1;
            }
            "," | ";" | "}" => break,
            name => {
                line = if prefix.is_empty() { line } else { list[at].line };
                if name != "*" && (name != "self" || path.is_empty()) {
                    path.push(name.to_owned());
                }
                let alias = path.last().filter(|_| name != "*").cloned();
                named.push(Named { path: path.clone(), line, is_absolute, alias, is_excused: false });
                at += 1;
            }
        }
    }
    for leaf in &mut named[first..] {
        leaf.is_absolute |= is_absolute;
    }
    at
}
