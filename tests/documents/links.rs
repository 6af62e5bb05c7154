//! Links, the table of contents, and the length of the README.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{nothing_is_wrong, pages, read, root};

/// The README has to be read within a few minutes.
const README_MAX: usize = 7 * 1024;

/// `docs/../README.md` is `README.md`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
        plain
    })
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut found = Vec::new();
    let mut checked = 0;
    for page in &pages {
        for (line, target) in &page.links {
            if target.starts_with("https://") || target.starts_with("http://") {
                continue;
            }
            checked += 1;
            let (file, anchor) = target.split_once('#').map_or((target.as_str(), None), |(file, at)| (file, Some(at)));
            let path = match file {
                "" => page.path.clone(),
                file => plain(&page.path.parent().unwrap().join(file)),
            };
            if !root().join(&path).exists() {
                found.push(format!("{}: there is no {}", page.at(*line), path.display()));
                continue;
            }
            if let Some(anchor) = anchor {
                let has = pages.iter().any(|page| page.path == path && page.anchors.iter().any(|own| own == anchor));
                if !has {
                    found.push(format!("{}: {} has no heading for #{anchor}", page.at(*line), path.display()));
                }
            }
        }
    }
    nothing_is_wrong(&found);
    assert!(checked > 50, "only {checked} links were found");
}

#[test]
fn the_table_of_contents_has_every_page_once() {
    let pages = pages();
    let summary = pages.iter().find(|page| page.path == Path::new("docs/SUMMARY.md")).unwrap();
    let mut listed = BTreeSet::new();
    let mut found = Vec::new();
    for (line, target) in &summary.links {
        if !listed.insert(Path::new("docs").join(target)) {
            found.push(format!("{}: {target} is listed before", summary.at(*line)));
        }
    }
    let is_of_book = |path: &&PathBuf| path.starts_with("docs") && *path != &summary.path;
    for page in pages.iter().map(|page| &page.path).filter(is_of_book) {
        if !listed.contains(page) {
            found.push(format!("docs/SUMMARY.md lacks {}", page.display()));
        }
    }
    nothing_is_wrong(&found);
}

#[test]
fn the_readme_is_short() {
    let length = read("README.md").len();
    assert!(length <= README_MAX, "README.md has {length} bytes; at most {README_MAX} are wanted");
}
