//! Reads `access_log`, `error_log` and `request_id`: what is written down, and where.

use std::fmt;
use std::path::PathBuf;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, DATE};
use log::LevelFilter;

use super::answers::header_name;
use super::field::Field;
use super::node::{Fields, Node};
use super::value::{file_path, share, text, word};
use crate::http::request_id::RequestIdHeader;

/// What is written down of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Where.
    pub place: LogDestination,
    /// How.
    pub format: LogFormat,
    /// The share of refusals that are written down, 0 to 1; default 0.01. They are a million in a minute, and one is
    /// like the other.
    pub refusals: f64,
}

/// Where a log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogDestination {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The end of this file, which is made if it is missing and opened again on SIGUSR1.
    File(PathBuf),
}

/// As in the file.
impl fmt::Display for LogDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// How a request is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFormat {
    /// Nginx's and Apache's `combined`.
    Combined,
    /// An object of JSON on a line, with these members in this order; what a request does not have is left out.
    Json(Vec<Field>),
}

/// What the edge says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorLog {
    /// Default standard error.
    pub place: LogDestination,
    /// The least important lines that are written; default `info`. RUST_LOG in the environment says it in the place of
    /// the file.
    pub level: LevelFilter,
}

impl Default for ErrorLog {
    fn default() -> Self {
        Self { place: LogDestination::Stderr, level: LevelFilter::Info }
    }
}

/// The three of them.
pub(super) fn logs(file: &mut Fields<'_>) -> (Option<AccessLog>, ErrorLog, Option<RequestIdHeader>) {
    let request_id = file.read("request_id", request_id);
    let access_log = file.read("access_log", |node| Some(access_log(node, request_id.is_some())));
    (access_log, file.group("error_log", error_log), request_id)
}

fn access_log(node: &Node<'_>, has_ids: bool) -> AccessLog {
    node.mapping(|log| {
        let place = log.require("path", place).unwrap_or(LogDestination::Stdout);
        let is_json = log.read("format", word(&[("combined", false), ("json", true)])).unwrap_or(false);
        let fields = log.read("fields", |node| Some(node.filled_list(field).into_iter().flatten().collect::<Vec<_>>()));
        if let Some(fields) = &fields {
            if !is_json {
                log.error("fields", "means nothing without `format: json`; the others have fields of their own");
            }
            if fields.contains(&Field::RequestId) && !has_ids {
                log.error(
                    "fields",
                    "has request_id, and no request has an id unless `request_id` names a header for it",
                );
            }
            if let Some(twice) = fields.iter().enumerate().find(|(at, field)| fields[..*at].contains(field)) {
                log.error("fields", format!("has {} twice", twice.1.name()));
            }
        }
        let fields = fields.unwrap_or_else(|| Field::USUAL.to_vec());
        AccessLog {
            place,
            format: if is_json { LogFormat::Json(fields) } else { LogFormat::Combined },
            refusals: log.read("refusals", share).unwrap_or(0.01),
        }
    })
}

fn field(node: &Node<'_>) -> Option<Field> {
    word(&Field::ALL.map(|field| (field.name(), field)))(node)
}

fn error_log(node: &Node<'_>) -> ErrorLog {
    const LEVELS: [(&str, LevelFilter); 4] = [
        ("error", LevelFilter::Error),
        ("warn", LevelFilter::Warn),
        ("info", LevelFilter::Info),
        ("debug", LevelFilter::Debug),
    ];
    node.mapping(|log| {
        let usual = ErrorLog::default();
        ErrorLog {
            place: log.read("path", place).unwrap_or(usual.place),
            level: log.read("level", word(&LEVELS)).unwrap_or(usual.level),
        }
    })
}

fn place(node: &Node<'_>) -> Option<LogDestination> {
    match node.value().as_str() {
        Some("stdout") => Some(LogDestination::Stdout),
        Some("stderr") => Some(LogDestination::Stderr),
        _ => file_path(node).map(LogDestination::File),
    }
}

/// A header that means nothing else to anybody on the way.
fn request_id(node: &Node<'_>) -> Option<RequestIdHeader> {
    let sent = text("must be the name of a header, such as X-Request-Id", |name| Some(name.to_owned()))(node)?;
    match header_name(&sent) {
        Ok(DATE | CONTENT_TYPE | CACHE_CONTROL) => node.refuse("must be a header that means nothing else"),
        Ok(name) => Some(RequestIdHeader { sent, name }),
        Err(why) => {
            node.error(why);
            None
        }
    }
}
