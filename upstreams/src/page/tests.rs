use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;

/// The texts of a language, those with forms as `name:form`.
fn texts(name: &str) -> BTreeMap<String, String> {
    let file = ASSETS.iter().find(|asset| asset.name == name).expect("the file of a language").text;
    let json = file.trim().strip_prefix("export default ").and_then(|rest| rest.strip_suffix(';')).expect("one object");
    let Value::Object(texts) = serde_json::from_str(json).expect("JSON") else { panic!("{name} is no object") };
    let mut flat = BTreeMap::new();
    for (key, value) in texts {
        match value {
            Value::String(text) => drop(flat.insert(key, text)),
            Value::Object(forms) => {
                for (form, text) in forms {
                    flat.insert(format!("{key}:{form}"), text.as_str().expect("a text").to_owned());
                }
            }
            other => panic!("{key} is {other}"),
        }
    }
    flat
}

/// The places of a text: `{word}`.
fn places(text: &str) -> BTreeSet<&str> {
    text.split('{').skip(1).map(|rest| rest.split_once('}').expect("a closed place").0).collect()
}

/// What stands between these quotes in a script, for every pair of them on one line.
fn literals(script: &str, quote: char) -> impl Iterator<Item = &str> {
    let code =
        script.lines().filter(|line| !line.trim_start().starts_with("//") && !line.trim_start().starts_with('*'));
    code.flat_map(move |line| line.split(quote).skip(1).step_by(2))
}

fn scripts() -> impl Iterator<Item = &'static Asset> {
    ASSETS.iter().filter(|asset| asset.content_type == SCRIPT && !["en.js", "zh.js"].contains(&asset.name))
}

#[test]
fn both_languages_say_the_same() {
    let (en, zh) = (texts("en.js"), texts("zh.js"));
    assert_eq!(en.keys().collect::<Vec<_>>(), zh.keys().collect::<Vec<_>>());
    for (key, text) in &en {
        assert!(!text.trim().is_empty() && !zh[key].trim().is_empty(), "{key} is empty");
        // A form for one need not say the number.
        let optional = key.ends_with(":one").then_some("count");
        let named = |text| places(text).into_iter().filter(|place| Some(*place) != optional).collect::<Vec<_>>();
        assert_eq!(named(text), named(&zh[key]), "{key}");
    }
    for key in en.keys().filter(|key| key.ends_with(":one")) {
        assert!(en.contains_key(&key.replace(":one", ":other")), "{key} needs its form for others");
    }
}

#[test]
fn every_text_that_is_named_is_there_and_every_text_that_is_there_is_named() {
    let keys: BTreeSet<String> =
        texts("en.js").into_keys().map(|key| key.split(':').next().unwrap_or_default().to_owned()).collect();
    let families: BTreeSet<&str> = keys.iter().filter_map(|key| Some(key.split_once('.')?.0)).collect();

    let mut named = BTreeSet::new();
    for attribute in ["data-text=\"", "data-label=\""] {
        named.extend(PAGE.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()));
    }
    let mut beginnings = BTreeSet::new();
    for script in scripts() {
        named.extend(literals(script.text, '"').filter(|word| {
            let has_family = word.split_once('.').is_some_and(|(family, _)| families.contains(family));
            has_family && !word.contains(['/', ' ']) && !word.ends_with(".js")
        }));
        beginnings.extend(literals(script.text, '`').filter_map(|word| {
            let (beginning, rest) = word.split_once("${")?;
            (rest.ends_with('}') && beginning.ends_with(['.', '_'])).then_some(beginning)
        }));
    }
    for key in &named {
        assert!(keys.contains(*key), "{key} is named and missing");
    }
    for key in &keys {
        let is_named = named.contains(key.as_str()) || beginnings.iter().any(|beginning| key.starts_with(beginning));
        assert!(is_named, "{key} is there and never named");
    }
}

#[test]
fn the_page_asks_nobody_else_and_runs_nothing_that_came_from_outside() {
    for (name, text) in ASSETS.iter().map(|asset| (asset.name, asset.text)).chain([("shop.html", PAGE)]) {
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for forbidden in [
            "http:",
            "https:",
            "//cdn",
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "eval(",
            "Function(",
            "style=",
            " onclick",
        ] {
            assert!(!text.contains(forbidden), "{name} has {forbidden}");
        }
    }
}

#[test]
fn the_hash_is_fnv_1a() {
    // From the authors' own test vectors.
    assert_eq!(fnv1a(FNV_OFFSET, ""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv1a(FNV_OFFSET, "a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fnv1a(FNV_OFFSET, "foobar"), 0x8594_4171_f739_67e8);
}
