//! Commands that the documents show: subcommands and options have to be those of the programs' own help.

use std::collections::HashMap;
use std::process::Command;

use super::{nothing_is_wrong, pages};
use crate::harness::process::binary;

const PROGRAMS: [&str; 2] = ["spikegate", "spikegate-orders"];

/// Filters that examples use. Other words after `|` are alternatives of a synopsis.
const PIPED: [&str; 6] = ["grep", "jq", "head", "tail", "sed", "less"];

/// What `--help` lists for a program or a subcommand.
struct Help {
    subcommands: Vec<String>,
    options: Vec<String>,
}

/// The help of every level that was asked for.
#[derive(Default)]
struct Helps(HashMap<Vec<String>, Help>);

impl Helps {
    /// The help of a program and its subcommands so far.
    fn of(&mut self, words: &[String]) -> &Help {
        self.0.entry(words.to_owned()).or_insert_with(|| {
            let output = Command::new(binary(&words[0])).args(&words[1..]).arg("--help").output().unwrap();
            assert!(output.status.success(), "{words:?} --help: {}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).unwrap();
            let (_, commands) = text.split_once("Commands:\n").unwrap_or_default();
            let commands = commands.lines().take_while(|line| line.starts_with("  "));
            // Descriptions of commands may go on in lines that are indented further.
            let names =
                commands.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
            let is_option = |word: &&str| word.starts_with('-') && word.len() > 1;
            let words = text.lines().filter(|line| line.trim_start().starts_with('-')).flat_map(str::split_whitespace);
            Help {
                subcommands: names.map(str::to_owned).collect(),
                options: words.filter(is_option).map(|word| word.trim_end_matches(',').to_owned()).collect(),
            }
        })
    }

    /// What is wrong with a command, its program in front.
    fn check(&mut self, words: &[&str]) -> Result<(), String> {
        let mut level = vec![words[0].to_owned()];
        for word in &words[1..] {
            let help = self.of(&level);
            if word.starts_with('-') {
                let option = word.split('=').next().unwrap_or(word);
                if !help.options.iter().any(|own| own == option) {
                    return Err(format!("`{}` has no option {option}", level.join(" ")));
                }
            } else if help.subcommands.iter().any(|own| own == word) {
                level.push((*word).to_owned());
            } else if !help.subcommands.is_empty() && !word.chars().any(|c| c.is_ascii_uppercase() || "./:".contains(c))
            {
                return Err(format!("`{}` has no subcommand {word}", level.join(" ")));
            }
        }
        Ok(())
    }
}

/// The commands of a line, without pipes, redirections and comments. Optional words of a synopsis (`[--total N]`) count
/// as typed, and each of its alternatives (`list | show ID`) becomes a command of its own.
fn commands(line: &str) -> Vec<Vec<&str>> {
    let line = line.trim_start_matches("$ ").split(" #").next().unwrap_or_default();
    let mut commands = Vec::new();
    for part in line.split(';').flat_map(|part| part.split("&&")) {
        let words = part.split_whitespace().map(|word| word.trim_matches(|c| "[]()".contains(c)));
        let words: Vec<&str> = words.take_while(|word| !matches!(*word, ">" | "2>" | "&" | "\\")).collect();
        let is_program = |word: &&str| PROGRAMS.contains(&word.rsplit('/').next().unwrap_or(word));
        // `sudo`, `docker exec` and variables can precede the program.
        let begins = words.iter().position(is_program).filter(|begin| {
            let wrappers = ["sudo", "docker", "exec", "compose", "edge"];
            words[..*begin].iter().all(|word| wrappers.contains(word) || word.contains('='))
        });
        let Some(begin) = begins else { continue };
        let mut alternatives = words[begin..].split(|word| *word == "|");
        let mut first: Vec<&str> = alternatives.next().unwrap_or_default().to_vec();
        first[0] = first[0].rsplit('/').next().unwrap_or(first[0]);
        let shared: Vec<&str> = first.iter().take(2).copied().collect();
        let is_synopsis = shared.len() == 2 && ["sale", "admission"].contains(&shared[1]);
        commands.push(first);
        let alternatives = alternatives.filter(|words| words.first().is_some_and(|word| !PIPED.contains(word)));
        if is_synopsis {
            commands.extend(alternatives.map(|words| [shared.as_slice(), words].concat()));
        }
    }
    commands
}

#[test]
fn commands_can_be_typed_as_they_stand() {
    let mut helps = Helps::default();
    let mut found = Vec::new();
    let mut checked = 0;
    for page in pages().iter().filter(|page| !page.path.ends_with("CHANGELOG.md")) {
        for (line, text) in page.code.iter().chain(&page.inline_code) {
            for command in commands(text) {
                // A program alone is a name like any other.
                if command.len() < 2 {
                    continue;
                }
                checked += 1;
                if let Err(fault) = helps.check(&command) {
                    found.push(format!("{}: {fault}", page.at(*line)));
                }
            }
        }
    }
    nothing_is_wrong(&found);
    assert!(checked > 20, "only {checked} commands were found");
}

#[test]
fn a_command_that_does_not_exist_is_noticed() {
    let mut helps = Helps::default();
    let mut faults = |line: &str| commands(line).iter().filter(|command| helps.check(command).is_err()).count();
    assert_eq!(faults("$ target/release/spikegate sale show ticket | grep total"), 0);
    assert_eq!(faults("spikegate sale list | show ID | open ID [--total N]"), 0);
    assert_eq!(faults("spikegate sale list | shw ID | open ID [--totl N]"), 2);
    assert_eq!(faults("spikegate run --config a.yaml; spikegate chek"), 1);
    assert_eq!(faults("sudo spikegate reload --now"), 1);
}
