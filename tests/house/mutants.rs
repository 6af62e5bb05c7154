//! The faults of `make mutants` fit the code as it is, and the tests that catch them exist. Building each of them in
//! takes far longer than a test may.

use std::process::{Command, Stdio};

use super::sources::{files_below, project};

#[test]
fn every_fault_can_be_built_in() {
    let mutants = files_below(&project("tests/mutants"), "patch");
    assert!(mutants.len() >= 9, "{mutants:?}");
    for mutant in mutants {
        let mut apply = Command::new("git");
        apply.args(["apply", "--check"]).arg(&mutant).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        let output = apply.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_fault_names_tests_that_exist() {
    let sources = |folder| {
        files_below(&project(folder), "rs")
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect::<String>()
    };
    let (tests, program) = (sources("tests"), sources("src"));
    for mutant in files_below(&project("tests/mutants"), "patch") {
        let text = std::fs::read_to_string(&mutant).unwrap();
        let catchers: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("Caught by: ")).collect();
        assert!(!catchers.is_empty(), "{} names no test", mutant.display());
        for catcher in catchers {
            let (kind, name) = catcher.split_once(' ').unwrap();
            let function = name.rsplit("::").next().unwrap();
            let source = if kind == "lib" { &program } else { &tests };
            assert!(source.contains(&format!("fn {function}(")), "{}: there is no {catcher}", mutant.display());
        }
    }
}
