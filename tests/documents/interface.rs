//! What the documents list of the HTTP interface, beside the sources: problem types, codes of the article's dialect,
//! and paths.

use std::collections::BTreeSet;

use serde_yaml::Value;

use super::{nothing_is_wrong, read, root};

type Names = BTreeSet<String>;

/// The sources below a folder of src/, without their tests.
fn sources(folder: &str) -> String {
    let files = crate::harness::files_below(&root().join("src").join(folder));
    let is_source = |path: &std::path::PathBuf| !path.strip_prefix(root()).unwrap().to_str().unwrap().contains("tests");
    files.into_iter().filter(is_source).map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// The names of problems: strings in kebab case that are passed to a function `problem`, or that an arm of `match`
/// chooses, with a title after the comma.
fn problems(source: &str) -> Names {
    let is_name = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let is_title = |text: &str| text.starts_with(|first: char| first.is_ascii_uppercase());
    let is_status = |text: &str| text.trim().trim_end_matches(',').chars().all(char::is_alphanumeric);
    let name = |arguments: &str| {
        let mut parts = arguments.splitn(4, '"');
        let (status, name, comma, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_problem = is_status(status) && is_name(name) && comma.trim() == "," && is_title(rest);
        is_problem.then(|| name.to_owned())
    };
    let calls = source.split("problem(").skip(1).chain(source.split("=> (").skip(1));
    calls.filter_map(name).collect()
}

fn document(path: &str) -> Value {
    serde_yaml::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn strings(value: &Value) -> Names {
    value.as_sequence().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect()
}

/// The problem types that a document of OpenAPI has.
fn documented(path: &str) -> Names {
    let types = strings(&document(path)["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]);
    types.iter().map(|name| name.strip_prefix("urn:spikegate:problem:").unwrap().to_owned()).collect()
}

/// What one has and the other lacks, both ways.
fn compare(found: &mut Vec<String>, what: &str, one: (&str, &Names), other: (&str, &Names)) {
    for (has, lacks) in [(one, other), (other, one)] {
        found.extend(
            has.1.difference(lacks.1).map(|name| format!("{what} {name}: {} has it, {} lacks it", has.0, lacks.0)),
        );
    }
}

#[test]
fn every_problem_type_is_documented_and_no_other() {
    // What a ledger answers to an administrator is in reply.rs, too, beside what buyers are told.
    let administration: Names =
        ["below-sold", "above-maximum", "change-id-reused", "unsupported"].map(str::to_owned).into();
    let buying = problems(&(sources("sale") + &sources("traffic")));
    let buying: Names = buying.difference(&administration).cloned().collect();
    let shared: Names =
        ["ledger-lost-data", "ledger-unavailable", "outcome-unknown", "sale-missing"].map(str::to_owned).into();
    let control = problems(&(sources("control") + &read("src/control.rs")));
    let control: Names = control.union(&administration).chain(&shared).cloned().collect();
    assert!(buying.is_superset(&shared) && buying.len() > 25 && control.len() > 20, "{buying:?} {control:?}");

    let mut found = Vec::new();
    compare(&mut found, "the type", ("the code", &buying), ("docs/openapi.yaml", &documented("docs/openapi.yaml")));
    let listed = documented("docs/openapi-control.yaml");
    compare(&mut found, "the type", ("the code", &control), ("docs/openapi-control.yaml", &listed));
    let page = read("docs/buying.md");
    let missing = buying.iter().filter(|name| !page.contains(&format!("`{name}`")));
    found.extend(missing.map(|name| format!("docs/buying.md lacks `{name}`")));
    nothing_is_wrong(&found);
}

#[test]
fn every_code_of_the_articles_dialect_is_documented_and_no_other() {
    let reply = read("src/sale/reply.rs");
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let code: Names = reply.split("seed(-").skip(1).map(|rest| format!("-{}", digits(rest))).collect();
    assert!(code.len() > 20, "{code:?}");
    let listed = &document("docs/openapi.yaml")["components"]["schemas"]["SeedAnswer"]["properties"]["code"]["enum"];
    let listed = listed.as_sequence().unwrap().iter().map(|code| code.as_i64().unwrap());
    let listed: Names = listed.filter(|code| *code < 0).map(|code| code.to_string()).collect();
    let page = read("docs/buying.md");
    let cells = page.lines().filter(|line| line.starts_with('|')).filter_map(|line| line.rsplit('|').nth(1));
    let shown: Names =
        cells.map(str::trim).filter(|cell| cell.starts_with('-') && *cell != "---").map(str::to_owned).collect();
    let mut found = Vec::new();
    compare(&mut found, "the code", ("src/sale/reply.rs", &code), ("docs/openapi.yaml", &listed));
    compare(&mut found, "the code", ("src/sale/reply.rs", &code), ("docs/buying.md", &shown));
    nothing_is_wrong(&found);
}

#[test]
fn every_path_of_the_control_listener_is_documented_and_no_other() {
    let source = read("src/control.rs");
    let routes: Names = source
        .split(".route(\"")
        .skip(1)
        .map(|rest| {
            let (path, rest) = rest.split_once("\", ").unwrap();
            format!("{} {path}", rest.split('(').next().unwrap())
        })
        .collect();
    assert!(routes.len() > 15, "{routes:?}");
    let control = document("docs/openapi-control.yaml");
    let paths = control["paths"].as_mapping().unwrap().iter();
    let listed: Names = paths
        .flat_map(|(path, methods)| {
            let methods = methods.as_mapping().unwrap().keys().filter_map(Value::as_str);
            let methods = methods.filter(|method| ["get", "post", "put", "delete"].contains(method));
            methods.map(|method| format!("{method} {}", path.as_str().unwrap())).collect::<Vec<_>>()
        })
        .collect();
    let mut found = Vec::new();
    compare(&mut found, "the path", ("src/control.rs", &routes), ("docs/openapi-control.yaml", &listed));
    nothing_is_wrong(&found);
}
