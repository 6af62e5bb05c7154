//! What is wrong with a configuration file: all of it, each fault with the path of its setting.

use std::fmt;

/// One fault of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The setting, such as `upstreams.load_rule.servers[2].weight`; empty if the file as a whole is at fault.
    pub path: String,
    /// What it must be and what it is, without its name, and never with a secret in it.
    pub message: String,
}

/// Every fault of a file, in about the order of the file; relations between settings come last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors(pub Vec<Error>);

impl Errors {
    /// A list of one fault.
    pub(crate) fn one(path: &str, message: impl Into<String>) -> Errors {
        let mut errors = Errors::default();
        errors.push(path, message);
        errors
    }

    /// Adds a fault. Names out of the file are part of paths, so what a terminal would obey is escaped here.
    pub(super) fn push(&mut self, path: &str, message: impl Into<String>) {
        self.0.push(Error { path: path.escape_debug().to_string(), message: message.into() });
    }

    /// Adds a fault between several settings, told at `path`.
    ///
    /// What could not be read stands at a made-up value, so nothing is said if one of `settings` is at fault already,
    /// or something in it, or a group that holds it.
    pub(super) fn push_relation(&mut self, path: &str, settings: &[&str], message: impl Into<String>) {
        if settings.iter().all(|setting| self.is_sound(setting)) {
            self.push(path, message);
        }
    }

    fn is_sound(&self, setting: &str) -> bool {
        let setting = setting.escape_debug().to_string();
        !self.0.iter().any(|error| holds(&error.path, &setting) || holds(&setting, &error.path))
    }
}

/// Whether `path` is the setting `group` or is somewhere in it; the empty path is the whole file.
pub(super) fn holds(group: &str, path: &str) -> bool {
    let rest = path.strip_prefix(group);
    group.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the file" } else { &self.path };
        write!(f, "{path}: {}", self.message)
    }
}

/// One fault per line.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// `; did you mean ...?` if one of `words` is near enough to `word`, else nothing.
pub(super) fn did_you_mean<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    let distance = |candidate: &str| strsim::osa_distance(word, candidate);
    words
        .into_iter()
        .filter(|candidate| distance(candidate) <= (candidate.len() / 3).max(1))
        .min_by_key(|candidate| distance(candidate))
        .map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}
