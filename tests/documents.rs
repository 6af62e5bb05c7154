//! The documents: what they link to exists, the commands that they show can be typed, and what they list is what the
//! code has.

mod commands;
mod first_sale;
mod interface;
mod links;
mod markdown;

use std::path::{Path, PathBuf};

use markdown::Page;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file's text, its path given from the root of the repository.
#[track_caller]
fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every page, by its path from the root of the repository.
fn pages() -> Vec<Page> {
    let below = |folder: &str| {
        let files = crate::harness::files_below(&root().join(folder)).into_iter();
        files.map(|file| file.strip_prefix(root()).unwrap().to_owned())
    };
    let at_root = std::fs::read_dir(root()).unwrap().map(|entry| PathBuf::from(entry.unwrap().file_name()));
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let mut paths: Vec<_> = at_root.chain(below("docs")).chain(["bench/README.md".into()]).filter(is_page).collect();
    paths.sort();
    paths.iter().map(|path| Page::new(path, &read(path.to_str().unwrap()))).collect()
}

/// Fails with all that was found at once.
#[track_caller]
fn nothing_is_wrong(found: &[String]) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}
