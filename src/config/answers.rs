//! What becomes of requests and answers on their way: header rules, files, compression and error pages.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use super::node::Node;
use super::value::{DAY, SECOND, duration, file_path, is_url_path, number, size, text, word};

/// A folder whose files are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// There when the configuration was read.
    pub root: PathBuf,
    /// What is served for a path that ends with `/`; default `index.html`.
    pub index: String,
    /// What is served if there is no such file; by default 404.
    pub fallback: Option<Fallback>,
}

/// A file in the place of files that are not there: the page of a maintenance, or of an application in the browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// Below the root.
    pub file: String,
    /// 200 to 599; default 200.
    pub status: u16,
    /// When the client may come again, 1 s to 7 days.
    pub retry_after: Option<Duration>,
}

/// What becomes of a header: first some fields are removed, then others are set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderRules {
    /// Each in the place of whatever had its name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// All fields of these names.
    pub remove: Vec<HeaderName>,
}

/// How answers are compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// In the order of preference, each with its level.
    pub codings: Vec<(Coding, u32)>,
    /// Shorter answers are left as they are, in bytes; default 1 KiB, at most 1 MiB.
    pub min_length: u64,
    /// Media types in lower case; `text/*` is all of a kind.
    pub types: Vec<String>,
}

/// A content coding (RFC 9110, 8.4.1). As a number, the place of its level in the file's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878; levels 1 to 19, default 3.
    Zstd,
    /// RFC 7932; levels 1 to 11, default 4.
    Brotli,
    /// RFC 1952; levels 1 to 9, default 5.
    Gzip,
}

/// What clients get with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// 400 to 599; at least one.
    pub statuses: Vec<u16>,
    /// By the file's ending.
    pub content_type: &'static str,
    /// The file as it was when the configuration was read, at most 1 MiB.
    pub body: Bytes,
    /// Whether it also takes the place of what backends answer with such a status; default false.
    pub intercept: bool,
}

/// What one answer of the edge itself may weigh: pages are kept in memory.
const PAGE_MAX: u64 = 1024 * 1024;

const KIBIBYTE: u64 = 1024;

/// What is worth compressing; events are not, since an encoder holds them back until it has more.
const TYPES: [&str; 12] = [
    "text/html",
    "text/css",
    "text/plain",
    "text/xml",
    "text/javascript",
    "application/javascript",
    "application/json",
    "application/problem+json",
    "application/manifest+json",
    "application/xml",
    "application/wasm",
    "image/svg+xml",
];

pub(super) fn header_rules(node: &Node<'_>) -> HeaderRules {
    node.mapping(|rules| HeaderRules {
        set: rules.group("set", |node| node.entries(set)).into_iter().flatten().collect(),
        remove: rules.group("remove", |node| node.list(name)).into_iter().flatten().collect(),
    })
}

fn set(key: &str, node: &Node<'_>) -> Option<(HeaderName, HeaderValue)> {
    let name = header_name(key).map_err(|why| node.error(why)).ok();
    let must = "must be text that a header can carry, without control characters";
    let value = text(must, |value| HeaderValue::from_str(value).ok())(node);
    name.zip(value)
}

fn name(node: &Node<'_>) -> Option<HeaderName> {
    let given = text("must be the name of a header", |name| Some(name.to_owned()))(node)?;
    header_name(&given).map_err(|why| node.error(why)).ok()
}

/// Who sets one of the refused ones would tear requests and answers apart, or knows a better place.
pub(super) fn header_name(name: &str) -> Result<HeaderName, &'static str> {
    let name: HeaderName = name.parse().map_err(|_| "is not the name of a header")?;
    match name {
        HOST => Err("is set by upstreams.NAME.host_header"),
        CONTENT_LENGTH | TRANSFER_ENCODING | CONNECTION | UPGRADE | TE | TRAILER => {
            Err("says how a message is sent, and is the connection's own")
        }
        name => Ok(name),
    }
}

/// What stands in the place of a route's path.
pub(super) fn rewrite(node: &Node<'_>) -> Option<String> {
    text("must be / or a path such as /v2, without query and without / at its end", |path| {
        (is_url_path(path) && (path == "/" || !path.ends_with('/'))).then(|| path.to_owned())
    })(node)
}

pub(super) fn files(node: &Node<'_>) -> Files {
    node.mapping(|files| Files {
        root: files.require("root", folder).unwrap_or_default(),
        index: files.read("index", file_name).unwrap_or_else(|| "index.html".to_owned()),
        fallback: files.read("fallback", |node| Some(fallback(node))),
    })
}

fn folder(node: &Node<'_>) -> Option<PathBuf> {
    let path = file_path(node)?;
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => return Some(path),
        Ok(_) => node.error("must be a folder"),
        Err(error) => node.error(format!("cannot be read: {error}")),
    }
    None
}

/// A file in the folder itself, or below it.
fn file_name(node: &Node<'_>) -> Option<String> {
    text("must be the name of a file below the root, such as index.html", |name| {
        let is_one = !name.is_empty() && !name.ends_with('/') && !name.contains('%');
        (is_one && is_url_path(&format!("/{name}"))).then(|| name.to_owned())
    })(node)
}

fn fallback(node: &Node<'_>) -> Fallback {
    node.mapping(|fallback| Fallback {
        file: fallback.require("file", file_name).unwrap_or_default(),
        status: fallback.read("status", number(200..=599)).unwrap_or(200),
        retry_after: fallback.read("retry_after", duration(SECOND..=7 * DAY)),
    })
}

pub(super) fn compression(node: &Node<'_>) -> Compression {
    node.mapping(|compression| {
        let codings = compression.read("algorithms", |node| Some(node.filled_list(coding)));
        let level = |key, range, usual| (key, range, usual);
        let levels = compression.group("levels", |node| {
            node.mapping(|levels| {
                let mut read = |(key, range, usual)| levels.read(key, number(range)).unwrap_or(usual);
                [read(level("zstd", 1..=19, 3)), read(level("br", 1..=11, 4)), read(level("gzip", 1..=9, 5))]
            })
        });
        let codings = codings.unwrap_or_else(|| vec![Some(Coding::Zstd), Some(Coding::Brotli), Some(Coding::Gzip)]);
        let codings: Vec<Coding> = codings.into_iter().flatten().collect();
        let types = compression.read("types", |node| Some(node.filled_list(media_type)));
        Compression {
            codings: codings.into_iter().map(|coding| (coding, levels[coding as usize])).collect(),
            min_length: compression.read("min_length", size(0..=1024 * KIBIBYTE)).unwrap_or(KIBIBYTE),
            types: types.unwrap_or_else(|| TYPES.map(str::to_owned).to_vec()),
        }
    })
}

fn coding(node: &Node<'_>) -> Option<Coding> {
    word(&[("zstd", Coding::Zstd), ("br", Coding::Brotli), ("gzip", Coding::Gzip)])(node)
}

fn media_type(node: &Node<'_>) -> String {
    let must = "must be a media type such as text/html, or text/* for all of a kind";
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.+_".contains(&byte))
    };
    text(must, |name| {
        let (kind, rest) = name.split_once('/')?;
        (part(kind) && (rest == "*" || part(rest))).then(|| name.to_ascii_lowercase())
    })(node)
    .unwrap_or_default()
}

pub(super) fn error_page(node: &Node<'_>) -> ErrorPage {
    node.mapping(|page| {
        let statuses = page.group("status", |node| node.filled_list(|node| number(400..=599)(node).unwrap_or(500)));
        let (content_type, body) = page.require("file", page_file).unwrap_or_default();
        ErrorPage {
            statuses,
            content_type,
            body,
            intercept: page.read("intercept", super::value::flag).unwrap_or(false),
        }
    })
}

/// What is in a page's file, and what kind of file it is by its name.
fn page_file(node: &Node<'_>) -> Option<(&'static str, Bytes)> {
    let path = file_path(node)?;
    let content_type = match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => crate::http::answer::JSON,
        Some("txt") => "text/plain; charset=utf-8",
        _ => return node.refuse("must be a file that ends with .html, .htm, .json or .txt"),
    };
    match std::fs::metadata(&path).and_then(|found| Ok((found.len(), std::fs::read(&path)?))) {
        Ok((length, _)) if length > PAGE_MAX => node.refuse(format!("must be at most {PAGE_MAX} bytes; has {length}")),
        Ok((_, body)) => Some((content_type, body.into())),
        Err(error) => {
            node.error(format!("cannot be read: {error}"));
            None
        }
    }
}
