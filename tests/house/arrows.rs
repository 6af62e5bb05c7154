//! Which family of src/ may use which, and that families of tests use only the harness.

use std::collections::BTreeSet;
use std::fs;

use super::sources::{Arrow, Crate, project};

/// The families of src/, words first and machines last, each with those that it may use. A family uses only families
/// above it in this list, so that no circle is possible. An entry that nothing uses any more fails the test.
const FAMILIES: [(&str, &[&str]); 15] = [
    // Words: what is sold and asked for.
    ("ledger", &[]),
    ("auth", &["ledger"]),
    ("http", &["ledger"]),
    ("resolver", &[]),
    // Settings.
    ("config", &["ledger", "auth", "http", "resolver"]),
    // Machines.
    ("observe", &["ledger", "http", "config"]),
    ("upstream", &["resolver", "config", "observe"]),
    ("limits", &["config", "observe"]),
    ("stores", &["ledger", "config"]),
    ("sale", &["ledger", "auth", "http", "config", "observe", "limits"]),
    ("delivery", &["ledger", "auth", "observe", "upstream", "sale"]),
    ("traffic", &["auth", "http", "config", "observe", "upstream", "limits", "sale"]),
    ("control", &["ledger", "http", "config", "observe", "upstream", "limits", "sale", "delivery", "traffic"]),
    (
        "server",
        &[
            "ledger", "auth", "config", "observe", "upstream", "limits", "stores", "sale", "delivery", "traffic",
            "control",
        ],
    ),
    ("cli", &["ledger", "auth", "config", "observe", "server"]),
];

#[test]
fn families_use_only_what_the_table_allows() {
    let tree = Crate::read("src", "spikegate", &[]);
    let arrows: Vec<_> = tree.arrows().into_iter().filter(|arrow| arrow.folder.is_empty()).collect();
    let mut faults = Vec::new();
    for (at, (family, allowed)) in FAMILIES.iter().enumerate() {
        for to in *allowed {
            if !FAMILIES[..at].iter().any(|(below, _)| below == to) {
                faults.push(format!(
                    "FAMILIES: {family} -> {to} points up; only families above it in the list are below it"
                ));
            }
            if !arrows.iter().any(|arrow| arrow.from == *family && arrow.to == *to) {
                faults.push(format!("FAMILIES: no file of {family} uses {to} any more: delete {to} from its row"));
            }
        }
    }
    for family in tree.children(&[]) {
        if !FAMILIES.iter().any(|(name, _)| *name == family) {
            faults.push(format!("src/{family}: not in FAMILIES: add it below all families that it uses"));
        }
    }
    for Arrow { from, to, file, line, path, .. } in &arrows {
        let allowed = FAMILIES.iter().find(|(family, _)| family == from).map_or(&[][..], |(_, allowed)| allowed);
        if !allowed.contains(&to.as_str()) {
            faults.push(format!(
                "{file}:{line}: {from} -> {to} ({path}) is not allowed; {from} may use {allowed:?}. Pass the value in, \
                 or move the type to the family that owns it"
            ));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_documents_have_the_same_table() {
    let page = fs::read_to_string(project("docs/internals/decisions/house.md")).unwrap();
    let (_, table) = page.split_once("| family | may use |\n|---|---|\n").expect("the page has the table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    // What stands between backquotes: the family first, then those that it may use.
    let named: BTreeSet<Vec<_>> = rows.map(|row| sorted(row.split('`').skip(1).step_by(2))).collect();
    let allowed = FAMILIES.iter().map(|(family, allowed)| sorted([*family].into_iter().chain(allowed.iter().copied())));
    assert_eq!(named, allowed.collect(), "docs/internals/decisions/house.md (left) and FAMILIES (right) must agree");
}

fn sorted<'a>(mut row: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut sorted = vec![row.next().unwrap_or_default()];
    sorted.extend(row.collect::<BTreeSet<_>>());
    sorted
}

#[test]
fn families_of_tests_use_only_the_harness() {
    let tree = Crate::read("tests", "tests", &["house"]);
    let arrows = tree.arrows();
    let wrong = arrows.iter().filter(|arrow| arrow.folder.is_empty() && arrow.to != "harness");
    let faults: BTreeSet<_> = wrong
        .map(|Arrow { from, to, file, line, path, .. }| {
            format!("{file}:{line}: {from} -> {to} ({path}) is not allowed: move what both use to the harness")
        })
        .collect();
    assert!(faults.is_empty(), "\n{}\n", faults.into_iter().collect::<Vec<_>>().join("\n"));
}
