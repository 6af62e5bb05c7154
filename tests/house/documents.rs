//! What contributors read (ARCHITECTURE.md, CONTRIBUTING.md, SECURITY.md, bench/README.md and docs/internals) names
//! what is really there: every file in backticks exists, and every word of the glossary occurs in the file that it
//! names.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::sources::{files_below, project};

const TOP: [&str; 4] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md"];

/// Folders of the repository; a token in backticks that begins with one of them is a path.
const FOLDERS: [&str; 11] =
    [".ci", "bench", "conf", "deploy", "docs", "fuzz", "lua", "scripts", "src", "tests", "upstreams"];

/// A token without a folder is a path if it ends like this, and is looked for beside its document, too.
const ENDINGS: [&str; 9] = ["js", "json", "lua", "md", "py", "rs", "svg", "toml", "yaml"];

fn documents() -> Vec<PathBuf> {
    TOP.iter().map(|path| project(path)).chain(files_below(&project("docs/internals"), "md")).collect()
}

/// The texts in backticks, without those in fenced blocks.
fn quoted(document: &str) -> Vec<&str> {
    let mut is_fenced = false;
    let mut quoted = Vec::new();
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced {
            quoted.extend(line.split('`').skip(1).step_by(2));
        }
    }
    quoted
}

/// Whether a text is the path of one file or folder of the repository. `fuzz/corpus/TARGET` and `tests/*.rs` stand for
/// many.
fn is_path(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./@-".contains(&byte);
    let is_placeholder = |part: &str| part.len() > 1 && part.bytes().all(|byte| byte.is_ascii_uppercase());
    if !text.bytes().all(is_plain) || text.split('/').any(is_placeholder) {
        return false;
    }
    match text.split_once('/') {
        Some((folder, _)) => FOLDERS.contains(&folder),
        None => text.rsplit_once('.').is_some_and(|(stem, ending)| !stem.is_empty() && ENDINGS.contains(&ending)),
    }
}

#[test]
fn every_file_that_a_contributor_is_sent_to_exists() {
    let mut missing = Vec::new();
    let mut found = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let beside = path.parent().unwrap();
        for named in quoted(&text).into_iter().filter(|text| is_path(text)) {
            match project(named).exists() || beside.join(named).exists() {
                true => found += 1,
                false => missing.push(format!("{}: `{named}`", path.display())),
            }
        }
    }
    assert!(missing.is_empty(), "documents name files that are not there:\n{}", missing.join("\n"));
    assert!(found > 100, "only {found} paths were found in the documents: are they still written in backticks?");
}

/// The words of a text, in lower case: `SaleGuard`, `sale_guard` and "sale guard" are the same two.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut before = ' ';
    for letter in text.chars() {
        let begins = letter.is_ascii_uppercase() && before.is_ascii_lowercase();
        if (begins || !letter.is_ascii_alphabetic()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if letter.is_ascii_alphabetic() {
            word.push(letter.to_ascii_lowercase());
        }
        before = letter;
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Whether a text uses a term, in the singular or the plural.
fn uses(text: &[String], term: &[String]) -> bool {
    let is_same = |(one, other): (&String, &String)| one == other || one.strip_suffix('s') == Some(other);
    text.windows(term.len()).any(|window| window.iter().zip(term).all(is_same))
}

#[test]
fn every_word_of_the_glossary_is_used_where_it_says() {
    let glossary = fs::read_to_string(project("docs/internals/glossary.md")).unwrap();
    let (mut faults, mut terms) = (Vec::new(), BTreeSet::new());
    for row in glossary.lines().filter(|line| line.starts_with("| **")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [term, meaning, place] = cells[..] else { panic!("not three cells: {row}") };
        let term = term.trim_matches('*');
        if meaning.is_empty() || !terms.insert(term) {
            faults.push(format!("{term}: has no meaning, or two"));
        }
        match fs::read_to_string(project(place.trim_matches('`'))) {
            Ok(text) if uses(&words(&format!("{place} {text}")), &words(term)) => {}
            Ok(_) => faults.push(format!("{term}: {place} does not use it")),
            Err(error) => faults.push(format!("{term}: {place}: {error}")),
        }
    }
    assert!(faults.is_empty(), "docs/internals/glossary.md:\n{}", faults.join("\n"));
    assert!(terms.len() > 100, "only {} terms were found in the glossary", terms.len());
}
