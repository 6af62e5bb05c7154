//! What a value may be, in the words of docs/reference/configuration.md and in those of JSON Schema.

use serde_json::json;
use serde_yaml::Value;

/// The column `value`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// One of these.
    Words(Vec<Value>),
    Number(u64, u64),
    /// A number from 0 to 1.
    Share,
    /// With its shortest and its longest, as they are written.
    Time(String, String),
    /// With its smallest and its largest, as they are written.
    Size(String, String),
    /// Keys that have rows of their own.
    Group(Size),
    /// Groups by a name that is the operator's; the pattern of names.
    Groups(&'static str),
    /// Texts by the names of headers.
    Texts,
    /// A text of a certain form.
    Text(&'static str),
    List {
        of: Box<Shape>,
        filled: bool,
    },
    Either(Vec<Shape>),
}

/// How much has to be in a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Size {
    /// What is needed in it; if nothing is, it may be left empty.
    Any,
    /// One key at least.
    Filled,
    /// What is needed in it, unless it is left empty.
    OrNothing,
}

/// Characters of a segment of a path.
macro_rules! segment {
    () => {
        "[A-Za-z0-9._~!$&'()+,;=:@%-]+"
    };
}

const UPSTREAM_NAME: &str = r"^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])$";
const SALE_ID: &str = "^[a-z0-9_-]{1,64}$";
const TOKEN: &str = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";
const HEADER_VALUE: &str = r"^[^\u0000-\u0008\u000a-\u001f\u007f]*$";
const TIME: &str = r"^(?=[0-9])(?!.* $)([0-9.]+d ?)?([0-9.]+h ?)?([0-9.]+m ?)?([0-9.]+s ?)?([0-9.]+ms)?$";
const SIZE: &str = "^[0-9]+ *(B|KiB|MiB|GiB)$";

/// Forms of texts, each with its pattern. What a pattern cannot say is left to the reader.
const TEXTS: &[(&str, &str)] = &[
    ("instant", r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}.*([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)$"),
    ("address", r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.]+(%[0-9]+)?\]):[0-9]{1,5}$"),
    ("server", r"^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"),
    ("DNS server", r"^([0-9.]+(:[0-9]{1,5})?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*|\[[0-9A-Fa-f:.]+\]:[0-9]{1,5})$"),
    ("network", r"^[0-9A-Fa-f:.]*[.:][0-9A-Fa-f:.]*(/[0-9]{1,3})?$"),
    ("client network", r"^(all|[0-9A-Fa-f:.]*[.:][0-9A-Fa-f:.]*(/[0-9]{1,3})?)$"),
    ("host", UPSTREAM_NAME),
    ("Host header", r"^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$"),
    ("route path", concat!("^/(", segment!(), "(/", segment!(), ")*)?$")),
    ("exact path", concat!("^/(", segment!(), "(/", segment!(), ")*/?)?$")),
    ("probe path", concat!("^/(", segment!(), "(/", segment!(), r")*/?)?(\?[!-~]*)?$")),
    ("hash key", r"^(client_address|uri|path|(query|header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]+)$"),
    ("Redis URL", r"^(redis://|redis\+unix:///).+$"),
    ("Redis key", "^[!-z|~]{1,200}$"),
    ("Redis name", "^[!-~]{1,100}$"),
    ("token", "^[!-~]{16,256}$"),
    ("file", r"^[^\u0000]+$"),
    ("folder", r"^[^\u0000]+$"),
    ("log", r"^[^\u0000]+$"),
    ("page", r"^[^\u0000]+\.(html|htm|json|txt)$"),
    ("name below", concat!("^", segment!(), "(/", segment!(), ")*$")),
    ("media type", r"^[A-Za-z0-9.+_-]+/(\*|[A-Za-z0-9.+_-]+)$"),
    ("header", TOKEN),
    ("cookie", TOKEN),
    ("member", "^[A-Za-z0-9_.-]{1,64}$"),
    ("name", r"^(.|\n|\r){1,1024}$"),
    ("claim", r"^[^\u0000-\u001f\u007f]{1,256}$"),
    ("service name", r"^[^\u0000-\u001f\u007f]{1,128}$"),
    ("URL", r"^http://.+:[0-9]{1,5}(/.*)?$"),
    ("text", ""),
    ("upstream", ""),
];

impl Shape {
    /// Reads the column `value`.
    pub fn parse(text: &str) -> Result<Shape, String> {
        if let Some(items) = text.strip_prefix("list of ") {
            let (items, filled) = without(items, ", one at least");
            return Ok(Self::List { of: Box::new(Self::parse(&singular(items))?), filled });
        }
        if let Some((first, others)) = text.split_once(" / ") {
            return Ok(Self::parse(first)?.or(Self::parse(others)?));
        }
        if let Some(word) = text.strip_prefix('`').and_then(|word| word.strip_suffix('`')) {
            return serde_yaml::from_str(word).map(|word| Self::Words(vec![word])).map_err(|error| error.to_string());
        }
        let (name, range) = match text.split_once(", ") {
            Some((name, rest)) => (name, rest.split_once(" to ")),
            None => (text, None),
        };
        match (name, range) {
            ("number", Some((from, to))) => match (from.parse(), to.parse()) {
                (Ok(from), Ok(to)) => Ok(Self::Number(from, to)),
                _ => Err(format!("{text} has no numbers")),
            },
            ("time", Some((from, to))) => Ok(Self::Time(from.to_owned(), to.to_owned())),
            ("size", Some((from, to))) => Ok(Self::Size(from.to_owned(), to.to_owned())),
            ("share", None) => Ok(Self::Share),
            ("group", None) => match text {
                "group" => Ok(Self::Group(Size::Any)),
                "group, one key at least" => Ok(Self::Group(Size::Filled)),
                "group, or nothing" => Ok(Self::Group(Size::OrNothing)),
                _ => Err(format!("{text} is no kind of group")),
            },
            ("groups by name", None) => Ok(Self::Groups(UPSTREAM_NAME)),
            ("groups by id", None) => Ok(Self::Groups(SALE_ID)),
            ("texts by header", None) => Ok(Self::Texts),
            _ => {
                let known = TEXTS.iter().find(|(name, _)| *name == text);
                let unknown =
                    || format!("its value is {text:?}, of which src/config/tests/reference/shape.rs knows no meaning");
                known.map(|(_, pattern)| Self::Text(pattern)).ok_or_else(unknown)
            }
        }
    }

    fn or(self, other: Shape) -> Shape {
        match (self, other) {
            (Self::Words(mut words), Self::Words(more)) => {
                words.extend(more);
                Self::Words(words)
            }
            (Self::Words(mut words), Self::Either(mut shapes)) if matches!(shapes[0], Self::Words(_)) => {
                if let Self::Words(more) = &mut shapes[0] {
                    words.append(more);
                    *more = words;
                }
                Self::Either(shapes)
            }
            (one, Self::Either(mut shapes)) => {
                shapes.insert(0, one);
                Self::Either(shapes)
            }
            (one, other) => Self::Either(vec![one, other]),
        }
    }

    /// The schema of a value that is no group and holds none.
    pub fn schema(&self) -> serde_json::Value {
        match self {
            Self::Words(words) if words.iter().all(Value::is_bool) => json!({ "type": "boolean" }),
            Self::Words(words) => json!({ "enum": words.iter().flat_map(word).collect::<Vec<_>>() }),
            Self::Number(from, to) => json!({ "type": "integer", "minimum": from, "maximum": to }),
            Self::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
            Self::Time(..) => json!({ "type": "string", "pattern": TIME }),
            Self::Size(..) => json!({ "anyOf": [{ "const": 0 }, { "type": "string", "pattern": SIZE }] }),
            Self::Texts => json!({
                "type": ["object", "null"],
                "propertyNames": { "pattern": TOKEN },
                "additionalProperties": { "type": "string", "pattern": HEADER_VALUE },
            }),
            Self::Text("") => json!({ "type": "string" }),
            Self::Text(pattern) => json!({ "type": "string", "pattern": pattern }),
            Self::Group(_) | Self::Groups(_) | Self::List { .. } | Self::Either(_) => {
                unreachable!("they hold others, of which the table knows")
            }
        }
    }

    /// What the reader has to say of a value that is out of range, if there is a range.
    pub fn range(&self) -> Option<(Value, String)> {
        let out_of = |value: &str, from: &str, to: &str| Some((value.into(), format!("{from} to {to}")));
        match self {
            // YAML has no number of which the reader would think that it is nearly one.
            Self::Number(from, to) => Some((Value::from(-1), format!("{from} to {to}"))),
            Self::Time(from, to) => out_of("99999h", from, to),
            Self::Size(from, to) => out_of("99999GiB", from, to),
            Self::List { of, .. } => of.range().map(|(value, said)| (Value::Sequence(vec![value]), said)),
            Self::Either(shapes) => shapes.iter().find_map(Self::range),
            _ => None,
        }
    }

    /// The words, if it may be one of some.
    pub fn words(&self) -> Option<&[Value]> {
        match self {
            Self::Words(words) => Some(words),
            Self::List { of, .. } => of.words(),
            Self::Either(shapes) => shapes.iter().find_map(Self::words),
            _ => None,
        }
    }
}

fn without<'a>(text: &'a str, end: &str) -> (&'a str, bool) {
    text.strip_suffix(end).map_or((text, false), |text| (text, true))
}

/// `networks` is `network`, `numbers, 1 to 5` is `number, 1 to 5`.
fn singular(plural: &str) -> String {
    let (name, rest) = plural.split_at(plural.find(',').unwrap_or(plural.len()));
    format!("{}{rest}", name.strip_suffix('s').unwrap_or(name))
}

/// A word that YAML takes for a number with a fraction may also be a text.
fn word(word: &Value) -> Vec<serde_json::Value> {
    match word {
        Value::Number(number) if number.is_f64() => vec![json!(number.as_f64()), json!(number.to_string())],
        word => vec![json!(word)],
    }
}
