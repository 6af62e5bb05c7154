//! No two modules of one folder use each other, directly or through others. What a module takes from its parent is not
//! counted. A `use` that closes a circle for a good reason carries the comment `// circle: why`.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{Arrow, Crate};

#[test]
fn no_folder_has_an_import_circle() {
    let crates = [
        Crate::read("src", "spikegate", &[]),
        Crate::read("upstreams/src", "spikegate_orders", &[]),
        Crate::read("bench/suite/src", "suite", &[]),
        Crate::read("bench/designs/src", "designs", &[]),
        Crate::read("bench/stores/src", "stores", &[]),
        Crate::read("tests", "tests", &["house"]),
    ];
    let mut faults = Vec::new();
    for tree in &crates {
        let arrows = tree.arrows();
        let folders: BTreeSet<_> = arrows.iter().map(|arrow| &arrow.folder).collect();
        // The families of src/ have a table of their own, which allows no circle.
        for folder in folders.into_iter().filter(|folder| tree.root != "src" || !folder.is_empty()) {
            let place = [tree.root.as_str()].into_iter().chain(folder.iter().map(String::as_str));
            let place = place.collect::<Vec<_>>().join("/");
            let inside: Vec<_> = arrows.iter().filter(|arrow| arrow.folder == *folder).collect();
            for circle in circles(inside.iter().copied().filter(|arrow| !arrow.is_excused)) {
                let title = format!("{place}: {}", circle.iter().copied().collect::<Vec<_>>().join(", "));
                faults.push(describe(&title, &circle, &inside));
            }
            let all = circles(inside.iter().copied());
            for arrow in inside.iter().filter(|arrow| arrow.is_excused) {
                if !all.iter().any(|circle| closes(circle, arrow)) {
                    let Arrow { file, line, .. } = arrow;
                    faults.push(format!("{file}:{line}: no circle goes through this line: delete `// circle:`"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn describe(title: &str, circle: &BTreeSet<&str>, inside: &[&Arrow]) -> String {
    let mut lines = vec![format!(
        "{title} use each other. Move what they share to a file below both, or write `// circle: why` beside one `use`:"
    )];
    for arrow in inside.iter().filter(|arrow| !arrow.is_excused && closes(circle, arrow)) {
        let Arrow { from, to, file, line, path, .. } = arrow;
        lines.push(format!("    {file}:{line}: {from} -> {to} ({path})"));
    }
    lines.join("\n")
}

fn closes(circle: &BTreeSet<&str>, arrow: &Arrow) -> bool {
    circle.contains(arrow.from.as_str()) && circle.contains(arrow.to.as_str())
}

/// The sets of modules that reach each other.
fn circles<'a>(arrows: impl Iterator<Item = &'a Arrow>) -> Vec<BTreeSet<&'a str>> {
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrow in arrows {
        uses.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    let reach = |from: &'a str| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(module) = next.pop() {
            next.extend(uses.get(module).into_iter().flatten().copied().filter(|to| seen.insert(*to)));
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = uses.keys().map(|module| (*module, reach(module))).collect();
    let mut found: Vec<BTreeSet<&str>> = Vec::new();
    for (module, reaches) in &reached {
        if reaches.contains(module) && !found.iter().any(|circle| circle.contains(module)) {
            found.push(
                reaches
                    .iter()
                    .copied()
                    .filter(|other| reached.get(other).is_some_and(|back| back.contains(module)))
                    .collect(),
            );
        }
    }
    found
}
