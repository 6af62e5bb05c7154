//! What holds of every configuration file, whatever its bytes.

use serde_yaml::Value;

use super::node::is_word;
use super::{Config, Errors};

/// A file is read, and is sound then, or each of its faults is told in one line that names the setting.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let file: Option<Value> = serde_yaml::from_str(text).ok();
    if file.as_ref().is_some_and(leaves_the_process) {
        return;
    }
    match Config::from_yaml(text) {
        Ok(config) => assert_eq!(config.check(), Ok(()), "{text}"),
        Err(errors) => are_told(file, &errors),
    }
}

fn are_told(file: Option<Value>, errors: &Errors) {
    assert!(!errors.0.is_empty());
    let told = errors.to_string();
    assert!(!told.chars().any(|character| character.is_control() && character != '\n'), "{told:?}");
    assert_eq!(told.lines().count(), errors.0.len(), "{told:?}");
    // Only the file as a whole, or a key of it that is no name, has no name.
    let merged = file.and_then(|mut file| file.apply_merge().is_ok().then_some(file));
    let all_have_names = match &merged {
        Some(Value::Mapping(settings)) => settings.keys().all(|key| key.as_str().is_some_and(is_word)),
        _ => false,
    };
    for error in &errors.0 {
        assert!(!error.message.is_empty() && (!all_have_names || !error.path.is_empty()), "{told}");
    }
}

/// Whether reading it would open files other than its own.
fn leaves_the_process(value: &Value) -> bool {
    match value {
        Value::Sequence(items) => items.iter().any(leaves_the_process),
        Value::Mapping(mapping) => mapping
            .iter()
            .any(|(key, value)| key.as_str().is_some_and(|key| key.ends_with("_file")) || leaves_the_process(value)),
        Value::Tagged(tagged) => leaves_the_process(&tagged.value),
        _ => false,
    }
}
