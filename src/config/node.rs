//! A walk through the YAML tree that knows where it is, notes every fault and goes on.
//!
//! What cannot be read is noted and stands at a made-up value, so that the walk reaches the end of the file. One noted
//! fault is enough to keep the made-up values from ever being used.

use std::cell::RefCell;
use std::fmt::Display;

use serde_yaml::{Mapping, Value};

use super::errors::{Errors, did_you_mean};

static NOTHING: Value = Value::Null;

/// A value of the file and the way to it.
pub(super) struct Node<'a> {
    path: String,
    value: &'a Value,
    errors: &'a RefCell<Errors>,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value, errors: &'a RefCell<Errors>) -> Node<'a> {
        Node { path: String::new(), value, errors }
    }

    /// The value, for readers of single ones.
    ///
    /// Nothing if it has a tag: who writes `!env TOKEN` expects that something is done about it, and nothing would be.
    pub(super) fn value(&self) -> &'a Value {
        match self.value {
            Value::Tagged(_) => &NOTHING,
            value => value,
        }
    }

    /// Notes a fault of this value.
    pub(super) fn error(&self, message: impl Into<String>) {
        self.errors.borrow_mut().push(&self.path, message);
    }

    /// Notes that this value is not what it `must` be, and says what it is.
    pub(super) fn refuse<T>(&self, must: impl Display) -> Option<T> {
        self.error(format!("{must}, is {}", self.shown()));
        None
    }

    /// This value as an error message tells it: short, on one line.
    pub(super) fn shown(&self) -> String {
        shown(self.value)
    }

    /// Reads a group of settings, then notes every key in it that `read` did not ask for.
    ///
    /// A group without settings is an empty one, whether it is left out or all its lines are commented out.
    pub(super) fn mapping<T>(&self, read: impl FnOnce(&mut Fields<'_>) -> T) -> T {
        let empty = Mapping::new();
        let unheard = RefCell::default();
        let (mapping, errors) = match self.value {
            Value::Mapping(mapping) => (mapping, self.errors),
            Value::Null => (&empty, self.errors),
            _ => {
                self.refuse::<()>("must be a mapping of keys to values");
                // Nothing more is said of a group that is none, such as that something is missing in it.
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

/// The settings of one group; remembers which were asked for.
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

    /// The setting, if the file has it and it can be read.
    pub(super) fn read<T>(&mut self, key: &'static str, how: impl FnOnce(&Node<'_>) -> Option<T>) -> Option<T> {
        if self.has(key) { how(&self.node(key)) } else { None }
    }

    /// The setting; notes a fault if the file lacks it.
    pub(super) fn require<T>(&mut self, key: &'static str, how: impl FnOnce(&Node<'_>) -> Option<T>) -> Option<T> {
        if !self.has(key) {
            self.error(key, "is missing");
        }
        self.read(key, how)
    }

    /// A group or list that is read as an empty one if the file lacks it.
    pub(super) fn group<T>(&mut self, key: &'static str, how: impl FnOnce(&Node<'_>) -> T) -> T {
        self.ask(key);
        how(&self.node(key))
    }

    fn ask(&mut self, key: &'static str) {
        #[cfg(test)]
        super::tests::reference::asked::key(self.path, key);
        self.asked.push(key);
    }

    /// How many of `keys` the file has; from the second on each is a fault, and `why` says the reason.
    pub(super) fn alternatives(&mut self, keys: &[&'static str], why: &str) -> usize {
        let given: Vec<&'static str> = keys.iter().copied().filter(|key| self.has(key)).collect();
        for later in given.iter().skip(1) {
            self.error(later, format!("cannot be combined with {}: {why}", given[0]));
        }
        given.len()
    }

    /// Notes a fault of a setting.
    pub(super) fn error(&self, key: &'static str, message: impl Into<String>) {
        self.node(key).error(message);
    }

    /// Notes a fault of the group itself.
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

/// Whether a key looks like a name, and not like a secret that slipped into its place.
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
