//! docs/reference/configuration.md says what the reader does, docs/reference/spikegate.schema.json says what
//! docs/reference/configuration.md does, and every example in a document can be used as it stands.
//!
//! Whoever adds a key to the reader adds a row to a table of docs/reference/configuration.md and the key to an example
//! there, and runs these tests: they write the schema, and say what else is missing where.

pub(in crate::config) mod asked;
mod example;
mod schema;
mod shape;
mod site;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_yaml::{Mapping, Value};

use super::super::errors::holds;
use super::*;
use example::{Example, Step, path, places, with};
use site::Site;
use table::{Default, Setting};

const REFERENCE: &str = include_str!("../../../docs/reference/configuration.md");

static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| table::settings(REFERENCE));
static EXAMPLES: LazyLock<Vec<Example>> =
    LazyLock::new(|| example::all(|word| SETTINGS.iter().any(|setting| setting.key == word)));
static SCHEMA: LazyLock<Validator> =
    LazyLock::new(|| jsonschema::validator_for(&schema::of(&SETTINGS)).expect("a schema of draft 7"));

/// Asserts that an editor finds no fault in a file that the reader takes.
#[track_caller]
pub(super) fn schema_takes(yaml: &str) {
    let mut file: Value = serde_yaml::from_str(yaml).expect("the reader has read it");
    file.apply_merge().expect("the reader has read it");
    let faults = faults(&file).join("\n");
    assert!(
        faults.is_empty(),
        "the schema, made of docs/reference/configuration.md, refuses what the reader takes:\n{faults}"
    );
}

/// What the schema finds wrong.
fn faults(settings: &Value) -> Vec<String> {
    let settings = serde_json::to_value(settings).expect("keys that are texts");
    SCHEMA.iter_errors(&settings).map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
}

/// Gives the settings to the reader, with files that are there.
fn try_read(site: &Site, settings: &Value) -> Result<Config, Errors> {
    Config::from_yaml(&serde_yaml::to_string(&site.with_files(settings)).expect("YAML"))
}

/// What the reader finds wrong with the value at `path`, or in it.
fn faults_at<'r>(result: &'r Result<Config, Errors>, path: &str) -> Vec<&'r str> {
    let errors = result.as_ref().err().map(|errors| errors.0.as_slice()).unwrap_or_default();
    errors.iter().filter(|error| holds(path, &error.path)).map(|error| error.message.as_str()).collect()
}

/// Fails with all that was found at once.
#[track_caller]
fn nothing_is_wrong(found: &[String]) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Looks at each key at every place where an example has it, and collects what is wrong.
fn wherever_a_key_stands(look: impl Fn(&Setting, &Example, &[Step]) -> Vec<String>) -> Vec<String> {
    let examples_of = |setting: &'static Setting| {
        EXAMPLES
            .iter()
            .flat_map(|example| places(&example.settings, &setting.key).into_iter().map(move |way| (example, way)))
    };
    SETTINGS
        .iter()
        .flat_map(|setting| examples_of(setting).map(move |(example, way)| (setting, example, way)))
        .flat_map(|(setting, example, way)| look(setting, example, &way))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

#[test]
fn the_reference_has_every_key_that_the_reader_asks_for_and_no_other() {
    let site = Site::new();
    let asked = asked::while_reading(|| {
        for example in EXAMPLES.iter() {
            let _ = try_read(&site, &example.settings);
        }
    });
    let mut found = Vec::new();
    let mut rows = BTreeMap::<&str, usize>::new();
    for setting in SETTINGS.iter() {
        *rows.entry(&setting.key).or_default() += 1;
        let written = &setting.written;
        if !asked.contains(&setting.key) {
            found.push(format!(
                "docs/reference/configuration.md has a row `{written}`, which the reader never asks for"
            ));
        }
        if !EXAMPLES.iter().any(|example| !places(&example.settings, &setting.key).is_empty()) {
            found.push(format!("docs/reference/configuration.md shows no example with `{written}`"));
        }
        let name = setting.key.trim_end_matches(".*").rsplit('.').next().unwrap_or_default();
        if !SHIPPED.contains(&format!("{name}:")) {
            found.push(format!("conf/spikegate.yaml, which has every setting, lacks `{written}`"));
        }
    }
    for key in asked.iter().filter(|key| !rows.contains_key(key.as_str())) {
        found.push(format!(
            "docs/reference/configuration.md lacks a row `{key}` (with NAME or ID for *), which the reader asks for"
        ));
    }
    found.extend(
        rows.iter()
            .filter(|(_, rows)| **rows > 1)
            .map(|(key, _)| format!("docs/reference/configuration.md has more than one row for `{key}`")),
    );
    nothing_is_wrong(&found);
}

#[test]
fn every_example_can_be_used_as_it_stands() {
    let site = Site::new();
    let mut found = Vec::new();
    for Example { place, settings } in EXAMPLES.iter() {
        if let Err(errors) = try_read(&site, settings) {
            found.push(format!("{place}: the reader says {errors}"));
        }
        found.extend(faults(settings).into_iter().map(|fault| format!("{place}: the schema says {fault}")));
    }
    nothing_is_wrong(&found);
    let start = EXAMPLES.iter().filter(|example| example.place.starts_with("docs/start.md")).count();
    assert!(start > 0, "the example of docs/start.md was not found");
}

#[test]
fn what_is_left_out_is_what_the_reference_says() {
    let site = Site::new();
    let found = wherever_a_key_stands(|setting, example, way| {
        let written = &setting.written;
        let left_out = try_read(&site, &with(&example.settings, way, None));
        match &setting.default {
            Default::Needed if faults_at(&left_out, &path(way)).is_empty() => {
                vec![format!(
                    "docs/reference/configuration.md says that `{written}` is needed; the reader does without ({})",
                    example.place
                )]
            }
            Default::Words if !faults_at(&left_out, &path(way)).is_empty() => {
                vec![format!(
                    "docs/reference/configuration.md says that `{written}` may be left out; the reader needs it in {}",
                    example.place
                )]
            }
            Default::Value(value) => {
                let said = try_read(&site, &with(&example.settings, way, Some(value.clone())));
                if said == left_out {
                    return Vec::new();
                }
                let value = serde_yaml::to_string(value).unwrap_or_default();
                vec![format!(
                    "docs/reference/configuration.md says that `{written}` is `{}` by default; left out of {} it is something else",
                    value.trim(),
                    example.place
                )]
            }
            _ => Vec::new(),
        }
    });
    nothing_is_wrong(&found);
}

#[test]
fn ranges_and_words_are_those_of_the_reader() {
    let site = Site::new();
    let found = wherever_a_key_stands(|setting, example, way| {
        let says = |value: Value| {
            let result = try_read(&site, &with(&example.settings, way, Some(value)));
            faults_at(&result, &path(way)).join("; ")
        };
        let mut found = Vec::new();
        let mut differs = |said: &str| {
            found.push(format!(
                "docs/reference/configuration.md, `{}`: the reader says that it {said}",
                setting.written
            ));
        };
        if let Some((wrong, range)) = setting.shape.range() {
            let said = says(wrong);
            if !said.contains(&format!(" {range}, is")) {
                differs(&said);
            }
        }
        if let Some(words) = setting.shape.words() {
            let wrong = "no such word";
            let is_list = matches!(setting.shape, shape::Shape::List { .. });
            let said = says(if is_list { Value::Sequence(vec![wrong.into()]) } else { wrong.into() });
            let words: BTreeSet<String> =
                words.iter().map(|word| serde_yaml::to_string(word).unwrap_or_default().trim().to_owned()).collect();
            let of_reader = said.strip_prefix("must be one of ").and_then(|said| said.split(", is").next());
            let same = match of_reader {
                Some(list) => list.split(", ").map(str::to_owned).collect::<BTreeSet<_>>() == words,
                None => words.iter().all(|word| said.contains(word.as_str())),
            };
            if !same {
                differs(&said);
            }
        }
        found
    });
    nothing_is_wrong(&found);
}

#[test]
fn the_schema_is_that_of_the_reference() {
    let file: PathBuf = example::root().join("docs/reference/spikegate.schema.json");
    let schema = serde_json::to_string_pretty(&schema::of(&SETTINGS)).expect("JSON") + "\n";
    let is_the_same = std::fs::read_to_string(&file).is_ok_and(|written| written == schema);
    if !is_the_same {
        std::fs::write(&file, &schema).expect("docs/reference/spikegate.schema.json is written");
    }
    assert!(
        is_the_same,
        "docs/reference/spikegate.schema.json was not that of docs/reference/configuration.md, and has been written anew"
    );
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let wrong = || {
        let entry = |value: Value| Value::Mapping(Mapping::from_iter([("swordfish".into(), value)]));
        [
            Value::Null,
            true.into(),
            Value::from(-1),
            1.5.into(),
            4_000_000_000_u64.into(),
            "".into(),
            "\u{1}".into(),
            "sword fish".into(),
            "301".into(),
            Value::Sequence(Vec::new()),
            Value::Sequence(vec![Value::Sequence(Vec::new())]),
            Value::Mapping(Mapping::new()),
            entry(1.into()),
            entry("fish".into()),
        ]
    };
    // What the reader says of a value's form; there is more that it finds out by looking at files and at other groups.
    let is_of_form = |said: &&str| {
        ["must be ", "must have ", "unknown key", "is missing", "is not the name"]
            .iter()
            .any(|form| said.starts_with(form))
    };
    let site = Site::new();
    let found = wherever_a_key_stands(|setting, example, way| {
        let mut found = Vec::new();
        for value in wrong() {
            let shown = serde_yaml::to_string(&value).unwrap_or_default();
            let settings = with(&example.settings, way, Some(value));
            let result = try_read(&site, &settings);
            let said = faults_at(&result, &path(way));
            let faults = faults(&settings);
            if faults.is_empty() && said.iter().any(is_of_form) {
                let said = said.join("; ");
                found.push(format!("`{}: {}`: the schema takes it; the reader: {said}", setting.written, shown.trim()));
            }
            if !faults.is_empty() && result.is_ok() {
                let faults = faults.join("; ");
                found.push(format!(
                    "`{}: {}`: the reader takes it; the schema: {faults}",
                    setting.written,
                    shown.trim()
                ));
            }
        }
        found
    });
    nothing_is_wrong(&found);
}

#[test]
fn the_schema_refuses_what_does_not_go_together() {
    for yaml in [
        "{}",
        "{sales: {t: }, thread: 4}",
        "{sales: {T: }}",
        "{sales: {t: {buyer: {}}}}",
        "{sales: {t: {buyer: {header: X-User, query: user}}}}",
        "{sales: {t: {buyer: {header: X-User, algorithms: [HS256]}}}}",
        "{sales: {t: {buyer: {from: jwt, header: X-Token}}}}",
        "{sales: {t: {buyer_limits: {burst: 5}}}}",
        "{sales: {t: }, ledger: {embedded: {path: data}, redis: {url: 'redis://db'}}}",
        "{sales: {t: }, ledger: {redis: {url: 'redis://db', master: m}}}",
        "{sales: {t: }, ledger: {redis: {sentinels: ['10.0.0.1:26379']}}}",
        "{sales: {t: }, control: {token: 0123456789abcdef, token_file: /nowhere}}",
        "{sales: {t: }, listen: [{address: '127.0.0.1:80', http2: true}]}",
        "{sales: {t: }, client_address: forwarded}",
        "{sales: {t: }, access_log: {path: a, fields: [time]}}",
        "{sales: {t: }, upstreams: {u: {servers: [{address: '127.0.0.1:1'}], balance: hash}}}",
        "{sales: {t: }, upstreams: {u: {servers: [{address: '127.0.0.1:1'}], hash: {key: uri}}}}",
        "{sales: {t: }, upstreams: {u: {servers: [{address: '127.0.0.1:1'}], health_check: {type: tcp, path: /}}}}",
        "{upstreams: {u: {servers: [{address: '127.0.0.1:1'}]}}, routes: [{path: /}]}",
        "{upstreams: {u: {servers: [{address: '127.0.0.1:1'}]}}, delivery: {upstream: u}, routes: [{path: /, upstream: u}]}",
    ] {
        let file: Value = serde_yaml::from_str(yaml).expect("YAML");
        assert!(Config::from_yaml(yaml).is_err(), "the reader takes {yaml}");
        assert!(!faults(&file).is_empty(), "the schema takes {yaml}");
    }
}

#[test]
fn the_schema_takes_what_is_shipped() {
    for file in ["conf/spikegate.yaml", "deploy/compose.spikegate.yaml"] {
        schema_takes(&std::fs::read_to_string(example::root().join(file)).expect(file));
    }
    schema_takes(&uncomment(SHIPPED, "#"));
    schema_takes(&uncomment(SHIPPED, "##"));
    assert!(SHIPPED.starts_with("# yaml-language-server: $schema=../docs/reference/spikegate.schema.json\n"));
}
