//! docs/reference/command-line.md is what `--help` of every command prints.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::harness::process::binary;

const HEAD: &str = "<!-- Generated from the command line. Do not edit. After a change of the command line, run:
     cargo build --workspace && cargo test --test integration -- command_line
     The first run writes this page and fails; the second one passes. -->

# Command line

This page contains the output of `--help` for every command of `spikegate`, and for `spikegate-orders`, the demo order service. The
manual pages have the same text: `man spikegate`.
";

/// The output of `--help`, without values that come from the environment of this test.
fn help(program: &str, words: &[String]) -> String {
    let mut command = Command::new(binary(program));
    let output = command.args(words).arg("--help").env_clear().output().unwrap();
    assert!(output.status.success(), "{program} {words:?} --help: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// The names in the list of subcommands.
fn subcommands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let entries = list.take_while(|line| !line.is_empty() && !line.starts_with(|first: char| !first.is_whitespace()));
    let is_entry = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let names = entries.filter(is_entry).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn describe(page: &mut String, program: &str, words: &[String]) {
    let help = help(program, words);
    let name = [&[program.to_owned()], words].concat().join(" ");
    write!(page, "\n## {name}\n\n```text\n{}\n```\n", help.trim_end()).unwrap();
    for subcommand in subcommands(&help) {
        describe(page, program, &[words, &[subcommand]].concat());
    }
}

#[test]
fn the_reference_is_what_help_prints() {
    let mut page = HEAD.to_owned();
    describe(&mut page, "spikegate", &[]);
    describe(&mut page, "spikegate-orders", &[]);
    assert!(page.contains("\n## spikegate sale add-stock\n"), "subcommands of subcommands are not found");

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/command-line.md");
    let is_current = std::fs::read_to_string(&file).is_ok_and(|written| written == page);
    if !is_current {
        std::fs::write(&file, &page).unwrap();
    }
    assert!(is_current, "docs/reference/command-line.md differed from --help and has been written again");
}
