//! Settings that documents show, and places in them.

use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};

/// Settings out of a document.
#[derive(Clone)]
pub(super) struct Example {
    /// The document and the line, for whoever has to find it.
    pub place: String,
    /// What stands there, and what it leaves out to be a whole file.
    pub settings: Value,
}

/// A step on the way to a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Key(String),
    Item(usize),
}

pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Every example of every document; `is_setting` says what the first word of one may be.
pub(super) fn all(is_setting: impl Fn(&str) -> bool) -> Vec<Example> {
    let mut documents = Vec::new();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of documents") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(path);
            }
        }
    }
    documents.push(root().join("README.md"));
    documents.sort();
    documents.iter().flat_map(|document| of_document(document, &is_setting)).collect()
}

/// Blocks of YAML that have a setting, and indented ones that begin with one.
fn of_document(document: &Path, is_setting: &impl Fn(&str) -> bool) -> Vec<Example> {
    let text = std::fs::read_to_string(document).expect("a document");
    let name = document.strip_prefix(root()).unwrap_or(document).display();
    let lines: Vec<&str> = text.lines().collect();
    let mut examples = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let begin = at;
        let is_fenced = lines[at] == "```yaml";
        let indented = || lines[at].strip_prefix("    ").and_then(|line| line.split_once(':'));
        let block: Vec<&str> = if is_fenced {
            at += 1;
            lines[at..].iter().take_while(|line| **line != "```").copied().collect()
        } else if indented().is_some_and(|(key, _)| is_setting(key)) {
            let is_of_it = |line: &&&str| line.starts_with("    ") || line.is_empty();
            lines[at..].iter().take_while(is_of_it).map(|line| line.get(4..).unwrap_or("")).collect()
        } else {
            at += 1;
            continue;
        };
        at += block.len() + usize::from(is_fenced);
        // Other programs' files are YAML, too.
        if !block.iter().filter_map(|line| line.split_once(':')).any(|(key, _)| is_setting(key)) {
            continue;
        }
        let place = format!("{name}:{}", begin + 1);
        let settings: Value =
            serde_yaml::from_str(&block.join("\n")).unwrap_or_else(|error| panic!("{place} is no YAML: {error}"));
        examples.push(Example { settings: whole(settings), place });
    }
    examples
}

/// With something to do, where an example shows one group alone.
fn whole(settings: Value) -> Value {
    let Value::Mapping(mut settings) = settings else { return settings };
    let mut add = |key: &str, yaml: &str| {
        if !settings.contains_key(key) {
            settings.insert(key.into(), serde_yaml::from_str(yaml).expect("YAML"));
        }
    };
    add("sales", "{ ticket: }");
    Value::Mapping(settings)
}

/// The ways to every value of `key`, which has a `*` for names and `[]` for items.
pub(super) fn places(settings: &Value, key: &str) -> Vec<Vec<Step>> {
    let mut found = vec![(settings, Vec::new())];
    for segment in key.split('.') {
        let (name, is_list) = segment.strip_suffix("[]").map_or((segment, false), |name| (name, true));
        found = found.into_iter().flat_map(|(value, way)| under(value, &way, name)).collect();
        if is_list {
            found = found.into_iter().flat_map(|(value, way)| items(value, &way)).collect();
        }
    }
    found.into_iter().map(|(_, way)| way).collect()
}

fn under<'v>(value: &'v Value, way: &[Step], name: &str) -> Vec<(&'v Value, Vec<Step>)> {
    let entries = value.as_mapping().into_iter().flat_map(Mapping::iter);
    entries
        .filter_map(|(key, value)| Some((key.as_str()?, value)))
        .filter(|(key, _)| name == "*" || *key == name)
        .map(|(key, value)| (value, [way, &[Step::Key(key.to_owned())]].concat()))
        .collect()
}

fn items<'v>(value: &'v Value, way: &[Step]) -> Vec<(&'v Value, Vec<Step>)> {
    let items = value.as_sequence().into_iter().flatten().enumerate();
    items.map(|(index, value)| (value, [way, &[Step::Item(index)]].concat())).collect()
}

/// The same settings with `value` at the end of `way`, or with nothing there.
pub(super) fn with(settings: &Value, way: &[Step], value: Option<Value>) -> Value {
    let mut changed = settings.clone();
    let Some((Step::Key(last), way)) = way.split_last() else { panic!("{way:?} leads to no key") };
    let mut group = &mut changed;
    for step in way {
        group = match step {
            Step::Key(key) => group.get_mut(key.as_str()),
            Step::Item(index) => group.get_mut(*index),
        }
        .expect("the way was found in these settings");
    }
    let group = group.as_mapping_mut().expect("a group");
    match value {
        Some(value) => drop(group.insert(last.as_str().into(), value)),
        None => drop(group.shift_remove(last.as_str())),
    }
    changed
}

/// The way as errors tell it.
pub(super) fn path(way: &[Step]) -> String {
    way.iter().fold(String::new(), |path, step| match step {
        Step::Key(key) if path.is_empty() => key.clone(),
        Step::Key(key) => format!("{path}.{key}"),
        Step::Item(index) => format!("{path}[{index}]"),
    })
}
