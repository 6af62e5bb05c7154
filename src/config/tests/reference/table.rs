//! The tables of docs/reference/configuration.md.

use serde_yaml::Value;

use super::shape::Shape;

/// A row: what the document says of one key.
pub(super) struct Setting {
    /// As it is written there: `upstreams.NAME.servers[].weight`.
    pub written: String,
    /// With a `*` for each name that is the operator's: `upstreams.*.servers[].weight`.
    pub key: String,
    pub shape: Shape,
    pub default: Default,
    pub meaning: String,
}

/// What a key is that is left out.
pub(super) enum Default {
    /// As if this had been written.
    Value(Value),
    /// A fault.
    Needed,
    /// A fault in some cases.
    NeededAtTimes,
    /// Something that has no value of its own.
    Words,
}

const HEAD: [&str; 4] = ["key", "value", "default", "meaning"];

/// All rows, in their order.
pub(super) fn settings(document: &str) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut in_table = false;
    for line in document.lines() {
        let Some(cells) = cells(line) else {
            in_table = false;
            continue;
        };
        if cells == HEAD {
            in_table = true;
        } else if in_table && !cells[0].starts_with("---") {
            let [written, shape, default, meaning] = cells[..] else {
                panic!("this row of docs/reference/configuration.md has not four cells: {line}");
            };
            settings.push(setting(written, shape, default, meaning));
        }
    }
    settings
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

fn setting(written: &str, shape: &str, default: &str, meaning: &str) -> Setting {
    let written = written.trim_matches('`').to_owned();
    let is_name = |segment: &&str| segment.bytes().all(|byte| byte.is_ascii_uppercase());
    let key: Vec<&str> = written.split('.').map(|segment| if is_name(&segment) { "*" } else { segment }).collect();
    let key = key.join(".");
    match (Shape::parse(shape), default_value(default)) {
        (Ok(shape), Ok(default)) => Setting { written, key, shape, default, meaning: meaning.to_owned() },
        (Err(fault), _) | (_, Err(fault)) => panic!("docs/reference/configuration.md, `{written}`: {fault}"),
    }
}

fn default_value(cell: &str) -> Result<Default, String> {
    match cell.strip_prefix('`').and_then(|value| value.strip_suffix('`')).filter(|value| !value.contains('`')) {
        Some(value) => {
            let value = serde_yaml::from_str(value).map_err(|error| format!("its default is no YAML: {error}"))?;
            Ok(Default::Value(value))
        }
        None if cell == "needed" => Ok(Default::Needed),
        None if cell.starts_with("needed ") => Ok(Default::NeededAtTimes),
        None if cell.is_empty() => Err("it has no default".to_owned()),
        None => Ok(Default::Words),
    }
}
