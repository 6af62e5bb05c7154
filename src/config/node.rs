//! A walk through the YAML tree that knows where it is, notes every fault and goes on.
//!
//! What cannot be read is noted and stands at a made-up value, so that the walk reaches the end of the file. One noted
//! fault is enough to keep the made-up values from ever being used.

use std::cell::RefCell;
use std::fmt::Display;

use serde_yaml::{Mapping, Value};

use super::errors::{Errors, did_you_mean};

static NOTHING: Value = Value::Null;

/// A value of the file and its path.
pub(super) struct Node<'a> {
    path: String,
    value: &'a Value,
    errors: &'a RefCell<Errors>,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value, errors: &'a RefCell<Errors>) -> Node<'a> {
        Node { path: String::new(), value, errors }
    }

    /// The value, for readers of single values.
    ///
    /// None if it has a tag: an operator who writes `!env TOKEN` expects it to have an effect, which it has not.
    pub(super) fn value(&self) -> &'a Value {
        match self.value {
            Value::Tagged(_) => &NOTHING,
            value => value,
        }
    }

    /// Records an error of this value.
    pub(super) fn error(&self, message: impl Into<String>) {
        self.errors.borrow_mut().push(&self.path, message);
    }

    /// Records that this value is not what it `must` be, and what it is.
    pub(super) fn refuse<T>(&self, must: impl Display) -> Option<T> {
        self.error(format!("{must}, is {}", self.shown()));
        None
    }

    /// This value for an error message: short, on one line.
    pub(super) fn shown(&self) -> String {
        shown(self.value)
    }

    /// Reads a group of settings, then records every key that `read` did not ask for.
    ///
    /// An empty group is valid, whether it is absent or all its lines are commented out.
    pub(super) fn mapping<T>(&self, read: impl FnOnce(&mut Fields<'_>) -> T) -> T {
        let empty = Mapping::new();
        let unheard = RefCell::default();
        let (mapping, errors) = match self.value {
            Value::Mapping(mapping) => (mapping, self.errors),
            Value::Null => (&empty, self.errors),
            _ => {
                self.refuse::<()>("must be a mapping of keys to values");
                // Something that is not a group gets no further errors, such as missing keys.
                (&empty, &unheard)
            }
        };
        let mut fields = Fields { path: &self.path, mapping, errors, asked: Vec::new() };
        let result = read(&mut fields);
        fields.refuse_unknown();
        result
    }

    /// Reads a group whose keys are names that the operator chose.
    pub(super) fn entries<T>(&self, read: impl Fn(&str, &Node<'_>) -> T) -> Vec<T> {
        match self.value {
            Value::Mapping(mapping) => mapping
                .iter()
                .filter_map(|(key, value)| {
                    let Some(name) = key.as_str() else {
                        self.error(unquoted_key(key));
                        return None;
                    };
                    let path = join(&self.path, name);
                    #[cfg(test)]
                    super::tests::reference::asked::name(&self.path, &path);
                    Some(read(name, &Node { path, value, errors: self.errors }))
                })
                .collect(),
            Value::Null => Vec::new(),
            _ => self.refuse("must be a mapping of names to settings").unwrap_or_default(),
        }
    }

    /// Reads every item of a list.
    pub(super) fn list<T>(&self, read: impl Fn(&Node<'_>) -> T) -> Vec<T> {
        match self.value {
            Value::Sequence(items) => items
                .iter()
                .enumerate()
                .map(|(i, value)| read(&Node { path: format!("{}[{i}]", self.path), value, errors: self.errors }))
                .collect(),
            Value::Null => Vec::new(),
            _ => self.refuse("must be a list").unwrap_or_default(),
        }
    }

    /// Reads a list that makes no sense when it is empty.
    pub(super) fn filled_list<T>(&self, read: impl Fn(&Node<'_>) -> T) -> Vec<T> {
        let items = self.list(read);
        if matches!(self.value, Value::Null) || self.value.as_sequence().is_some_and(Vec::is_empty) {
            self.error("must have at least one entry");
        }
        items
    }
}

/// The settings of one group; tracks which keys were read.
pub(super) struct Fields<'a> {
    path: &'a str,
    mapping: &'a Mapping,
    errors: &'a RefCell<Errors>,
    asked: Vec<&'static str>,
}

impl Fields<'_> {
    /// Whether the file has this setting.
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.ask(key);
        self.mapping.contains_key(key)
    }

    /// The setting, if it is present and valid.
    pub(super) fn read<T>(&mut self, key: &'static str, how: impl FnOnce(&Node<'_>) -> Option<T>) -> Option<T> {
        if self.has(key) { how(&self.node(key)) } else { None }
    }

    /// The setting; records an error if it is missing.
    pub(super) fn require<T>(&mut self, key: &'static str, how: impl FnOnce(&Node<'_>) -> Option<T>) -> Option<T> {
        if !self.has(key) {
            self.error(key, "is missing");
        }
        self.read(key, how)
    }

    /// A group or list that defaults to an empty one.
    pub(super) fn group<T>(&mut self, key: &'static str, how: impl FnOnce(&Node<'_>) -> T) -> T {
        self.ask(key);
        how(&self.node(key))
    }

    fn ask(&mut self, key: &'static str) {
        #[cfg(test)]
        super::tests::reference::asked::key(self.path, key);
        self.asked.push(key);
    }

    /// How many of `keys` are present; every one after the first is an error, for the reason `why`.
    pub(super) fn alternatives(&mut self, keys: &[&'static str], why: &str) -> usize {
        let given: Vec<&'static str> = keys.iter().copied().filter(|key| self.has(key)).collect();
        for later in given.iter().skip(1) {
            self.error(later, format!("cannot be combined with {}: {why}", given[0]));
        }
        given.len()
    }

    /// Records an error of a setting.
    pub(super) fn error(&self, key: &'static str, message: impl Into<String>) {
        self.node(key).error(message);
    }

    /// Records an error of the group itself.
    pub(super) fn error_here(&self, message: impl Into<String>) {
        self.errors.borrow_mut().push(self.path, message);
    }

    fn node(&self, key: &str) -> Node<'_> {
        let value = self.mapping.get(key).unwrap_or(&NOTHING);
        Node { path: join(self.path, key), value, errors: self.errors }
    }

    fn refuse_unknown(&self) {
        let mut errors = self.errors.borrow_mut();
        for key in self.mapping.keys() {
            match key.as_str() {
                Some(name) if self.asked.contains(&name) => {}
                Some(name) if is_word(name) => {
                    let hint = did_you_mean(name, self.asked.iter().copied());
                    errors.push(&join(self.path, name), format!("unknown key{hint}"));
                }
                // `redis: {redis://:password@host}` is valid YAML: a mapping with that address as a key.
                Some(_) => errors.push(
                    self.path,
                    "has a key that is not the name of a setting (not shown because it may be a secret)",
                ),
                None => errors.push(self.path, unquoted_key(key)),
            }
        }
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Whether a key looks like a name, and not like a secret in the wrong place.
pub(super) fn is_word(name: &str) -> bool {
    (1..=40).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

fn unquoted_key(key: &Value) -> String {
    format!("has a key that is not text but {}; put it in quotes", shown(key))
}

fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.chars().count() > LONGEST => {
            format!("{:?}...", text.chars().take(LONGEST).collect::<String>())
        }
        Value::String(text) => format!("{text:?}"),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Tagged(_) => "a value with a YAML tag".to_owned(),
    }
}
