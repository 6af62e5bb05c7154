//! docs/reference/spikegate.schema.json, made of the tables of docs/reference/configuration.md.

use serde_json::{Map, Value, json};

use super::shape::{Shape, Size};
use super::table::{Default, Setting};

/// What keys of one group have to do with each other; the path of the group, and a schema that it has to satisfy, too.
const RELATIONS: &[(&str, &str)] = &[
    ("", r#"{ "anyOf": [{ "required": ["routes"] }, { "required": ["sales"] }] }"#),
    ("", r#"{ "dependencies": { "client_address": ["trusted_proxies"], "delivery": ["sales"] } }"#),
    ("listen[]", r#"{ "dependencies": { "http2": ["tls"] } }"#),
    (
        "listen[]",
        r#"{ "if": { "required": ["tls"] },
        "then": { "not": { "required": ["h2c"] }, "properties": { "redirect_https": { "const": false } } } }"#,
    ),
    ("limits", r#"{ "dependencies": { "burst": ["requests_per_second"] } }"#),
    ("routes[].limits", r#"{ "dependencies": { "burst": ["requests_per_second"] } }"#),
    ("sales.*.buyer_limits", r#"{ "dependencies": { "burst": ["requests_per_second"] } }"#),
    (
        "access_log",
        r#"{ "if": { "required": ["fields"] },
        "then": { "properties": { "format": { "const": "json" } }, "required": ["format"] } }"#,
    ),
    ("control", r#"{ "not": { "required": ["token", "token_file"] } }"#),
    ("ledger", r#"{ "not": { "required": ["embedded", "redis"] } }"#),
    (
        "ledger.redis",
        r#"{ "if": { "required": ["sentinels"] },
        "then": { "required": ["master"], "not": { "required": ["url"] } },
        "else": { "required": ["url"], "not": { "anyOf": [{ "required": ["master"] }, { "required": ["user"] },
            { "required": ["password"] }, { "required": ["db"] }, { "required": ["sentinel_user"] },
            { "required": ["sentinel_password"] }] } } }"#,
    ),
    (
        "upstreams.*",
        r#"{ "if": { "properties": { "balance": { "const": "hash" } }, "required": ["balance"] },
        "then": { "required": ["hash"] }, "else": { "not": { "required": ["hash"] } } }"#,
    ),
    (
        "upstreams.*.health_check",
        r#"{ "if": { "properties": { "type": { "const": "http" } } },
        "then": { "required": ["path"] }, "else": { "not": { "required": ["path"] } } }"#,
    ),
    ("routes[]", r#"{ "oneOf": [{ "required": ["upstream"] }, { "required": ["files"] }] }"#),
    (
        "sales.*.buyer",
        r#"{ "if": { "properties": { "from": { "const": "jwt" } }, "required": ["from"] },
        "then": { "required": ["algorithms", "audience"], "not": { "anyOf": [{ "required": ["query"] },
            { "required": ["body"] }, { "required": ["header", "cookie"] }] } },
        "else": { "not": { "anyOf": [{ "required": ["algorithms"] }, { "required": ["cookie"] },
            { "required": ["secret_file"] }, { "required": ["public_key_files"] }, { "required": ["jwks_file"] },
            { "required": ["audience"] }, { "required": ["issuer"] }, { "required": ["leeway"] }, { "required": ["claim"] }] },
          "oneOf": [{ "required": ["header"] }, { "required": ["query"] }, { "required": ["body"] }] } }"#,
    ),
    (
        "sales.*.buyer",
        r#"{ "if": { "properties": { "from": { "const": "trusted_proxies" } }, "required": ["from"] },
        "then": { "required": ["header"] } }"#,
    ),
];

/// The schema of a whole file, of draft 7: what editors know best.
pub(super) fn of(settings: &[Setting]) -> Value {
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Spikegate",
        "description": "Settings of a Spikegate edge. This file is made of the tables in configuration.md, and has their words.",
    });
    merge(&mut schema, group(settings, "", Size::Any));
    // A file without settings says nothing, and is none.
    schema["type"] = json!("object");
    schema
}

/// The keys below `path`; the path of the whole file is empty.
fn group(settings: &[Setting], path: &str, size: Size) -> Value {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
    let own = || settings.iter().filter_map(|setting| Some((setting.key.strip_prefix(&prefix)?, setting)));
    let own = || own().filter(|(name, _)| !name.contains(['.', '*', '[']));
    let properties: Map<String, Value> =
        own().map(|(name, setting)| (name.to_owned(), property(settings, setting))).collect();
    assert!(
        !properties.is_empty(),
        "docs/reference/configuration.md has a group `{path}`, but no row of what is in it"
    );
    let needed: Vec<&str> =
        own().filter(|(_, setting)| matches!(setting.default, Default::Needed)).map(|(name, _)| name).collect();
    let is_needed = |setting: &Setting| matches!(setting.default, Default::Needed | Default::NeededAtTimes);
    let may_be_empty = match size {
        Size::OrNothing => true,
        Size::Any => !own().any(|(_, setting)| is_needed(setting)),
        Size::Filled => false,
    };
    let mut schema = json!({ "type": if may_be_empty { json!(["object", "null"]) } else { json!("object") } });
    schema["properties"] = Value::Object(properties);
    schema["additionalProperties"] = json!(false);
    if !needed.is_empty() {
        schema["required"] = json!(needed);
    }
    if size == Size::Filled {
        schema["minProperties"] = json!(1);
    }
    let relations: Vec<Value> = RELATIONS
        .iter()
        .filter(|(group, _)| *group == path)
        .map(|(_, relation)| serde_json::from_str(relation).expect("JSON"))
        .collect();
    if !relations.is_empty() {
        let of_group = |relation: Value| json!({ "if": { "type": "object" }, "then": relation });
        schema["allOf"] =
            relations.into_iter().map(|relation| if may_be_empty { of_group(relation) } else { relation }).collect();
    }
    schema
}

fn property(settings: &[Setting], setting: &Setting) -> Value {
    let mut schema = json!({ "description": plain(&description(setting)) });
    if let Default::Value(default) = &setting.default {
        schema["default"] = json!(default);
    }
    merge(&mut schema, value(settings, &setting.key, &setting.shape));
    schema
}

/// What editors show; patterns cannot say how long a time may be.
fn description(setting: &Setting) -> String {
    match &setting.shape {
        Shape::Time(from, to) | Shape::Size(from, to) => format!("{} {from} to {to}.", setting.meaning),
        _ => setting.meaning.clone(),
    }
}

/// Without the marks of Markdown.
fn plain(text: &str) -> String {
    let mut plain = text.replace('`', "");
    while let Some(link) = plain.find("](") {
        let (Some(begin), Some(end)) = (plain[..link].rfind('['), plain[link..].find(')')) else { break };
        plain.replace_range(link..=link + end, "");
        plain.remove(begin);
    }
    plain
}

fn value(settings: &[Setting], path: &str, shape: &Shape) -> Value {
    match shape {
        Shape::Group(size) => group(settings, path, *size),
        Shape::Groups(names) => json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": names },
            "additionalProperties": group(settings, &format!("{path}.*"), Size::Any),
        }),
        Shape::List { of, filled } => {
            let items = value(settings, &format!("{path}[]"), of);
            if *filled {
                json!({ "type": "array", "minItems": 1, "items": items })
            } else {
                json!({ "type": ["array", "null"], "items": items })
            }
        }
        Shape::Either(shapes) => {
            let mut schemas: Vec<Value> = shapes.iter().map(|shape| value(settings, path, shape)).collect();
            for schema in &mut schemas {
                // Of several possibilities none is chosen by saying nothing.
                if schema["type"] == json!(["object", "null"]) {
                    schema["type"] = json!("object");
                }
            }
            json!({ "anyOf": schemas })
        }
        single => single.schema(),
    }
}

fn merge(schema: &mut Value, more: Value) {
    if let (Some(schema), Value::Object(more)) = (schema.as_object_mut(), more) {
        schema.extend(more);
    }
}
