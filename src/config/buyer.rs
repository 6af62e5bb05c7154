//! `buyer`: where the id of a sale's buyer comes from, and what has to prove it; and `admission`.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use super::node::{Fields, Node};
use super::value::{MINUTE, SECOND, duration, file_path, text, word};
use crate::auth::admission;
use crate::auth::jwt::{self, Algorithm, Key, KeyError, TokenRules};
use crate::auth::secret::Secret;

/// Where the buyer's id comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuyerSource {
    /// Nobody is told apart.
    Anonymous,
    /// A request header, lower case.
    Header(String),
    /// A query parameter.
    Query(String),
    /// A member of the JSON body.
    Body(String),
    /// A request header, lower case, of one of our own proxies. Without it nothing is sold.
    ProxyHeader(String),
    /// A token that proves it. Without it nothing is sold.
    Token(Token),
}

/// A token that proves who buys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Where it stands.
    pub place: TokenLocation,
    /// What it has to be.
    pub rules: jwt::TokenRules,
}

/// Where a token stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenLocation {
    /// A request header, lower case; `authorization` has it behind `Bearer`.
    Header(String),
    /// A cookie.
    Cookie(String),
}

/// More keys are not tried for one token.
const KEYS_MAX: usize = 16;

/// Whose word the id is.
#[derive(Clone, Copy)]
enum From {
    Client,
    TrustedProxies,
    Jwt,
}

const FROM: [(&str, From); 3] =
    [("client", From::Client), ("trusted_proxies", From::TrustedProxies), ("jwt", From::Jwt)];

pub(super) fn buyer(node: &Node<'_>) -> Option<BuyerSource> {
    node.mapping(|buyer| match buyer.read("from", word(&FROM)).unwrap_or(From::Client) {
        From::Client => said(buyer),
        From::TrustedProxies => buyer.require("header", header_name).map(BuyerSource::ProxyHeader),
        From::Jwt => token(buyer).map(BuyerSource::Token),
    })
}

/// The id as anybody may say it.
fn said(buyer: &mut Fields<'_>) -> Option<BuyerSource> {
    if buyer.alternatives(&["header", "query", "body"], "they could name two buyers") == 0 {
        buyer.error_here("must have one of header, query and body");
    }
    let header = buyer.read("header", header_name).map(BuyerSource::Header);
    let query = buyer.read("query", member_name).map(BuyerSource::Query);
    let body = buyer.read("body", member_name).map(BuyerSource::Body);
    header.or(query).or(body)
}

/// The id as a token proves it.
fn token(buyer: &mut Fields<'_>) -> Option<Token> {
    let algorithms =
        buyer.require("algorithms", |node| Some(node.filled_list(|node| word(&ALGORITHMS)(node)))).unwrap_or_default();
    let algorithms: Vec<Algorithm> = algorithms.into_iter().flatten().collect();
    buyer.alternatives(&["header", "cookie"], "the token stands in one place");
    let header = buyer.read("header", token_header).map(TokenLocation::Header);
    let cookie = buyer.read("cookie", cookie_name).map(TokenLocation::Cookie);
    let place = header.or(cookie).unwrap_or_else(|| TokenLocation::Header("authorization".to_owned()));
    let keys = keys(buyer, &algorithms);
    let audiences = buyer.require("audience", names).unwrap_or_default();
    let rules = TokenRules {
        keys,
        issuers: buyer.read("issuer", names).unwrap_or_default(),
        audiences,
        leeway: buyer.read("leeway", duration(Duration::ZERO..=5 * MINUTE)).unwrap_or(30 * SECOND),
        claim: buyer.read("claim", claim_name).unwrap_or_else(|| "sub".to_owned()),
    };
    Some(Token { place, rules })
}

const ALGORITHMS: [(&str, Algorithm); 3] =
    [("HS256", Algorithm::Hs256), ("EdDSA", Algorithm::EdDsa), ("RS256", Algorithm::Rs256)];

/// Keys for every one of `algorithms`, and for no other.
fn keys(buyer: &mut Fields<'_>, algorithms: &[Algorithm]) -> Vec<Key> {
    let secret = buyer.read("secret_file", |node| {
        key(
            node,
            |bytes| {
                // What is not text is no secret of visible characters either.
                Key::secret(str::from_utf8(bytes).unwrap_or_default())
            },
            algorithms,
        )
    });
    let public = buyer.group("public_key_files", |node| node.list(|node| key(node, Key::public, algorithms)));
    let set = buyer.read("jwks_file", |node| read(node, |bytes| Key::set(bytes, algorithms)));
    let files_are_well = buyer.has("secret_file") == secret.is_some()
        && public.iter().all(Option::is_some)
        && buyer.has("jwks_file") == set.is_some();
    let keys: Vec<Key> =
        secret.into_iter().chain(public.into_iter().flatten()).chain(set.into_iter().flatten()).collect();
    for algorithm in algorithms.iter().filter(|_| files_are_well) {
        if !keys.iter().any(|key| key.algorithm() == *algorithm) {
            let file = if *algorithm == Algorithm::Hs256 { "secret_file" } else { "public_key_files" };
            buyer.error("algorithms", format!("has {}, but {file} and jwks_file have no key for it", algorithm.name()));
        }
    }
    if keys.len() > KEYS_MAX {
        buyer.error_here(format!("has {} keys; the maximum is {KEYS_MAX}", keys.len()));
    }
    keys
}

/// One key from a file, for one of `algorithms`.
fn key(node: &Node<'_>, parse: impl Fn(&[u8]) -> Result<Key, KeyError>, algorithms: &[Algorithm]) -> Option<Key> {
    let key = read(node, parse)?;
    if !algorithms.is_empty() && !algorithms.contains(&key.algorithm()) {
        let name = key.algorithm().name();
        node.error(format!("is a key for {name}, which is not in algorithms"));
    }
    Some(key)
}

fn read<T>(node: &Node<'_>, parse: impl Fn(&[u8]) -> Result<T, KeyError>) -> Option<T> {
    let path = file_path(node)?;
    match std::fs::read(path).map(|bytes| parse(&bytes)) {
        Ok(Ok(parsed)) => return Some(parsed),
        Ok(Err(error)) => node.error(error.to_string()),
        Err(error) => node.error(format!("cannot be read: {error}")),
    }
    None
}

/// One name, or a list of them.
fn names(node: &Node<'_>) -> Option<Vec<String>> {
    let name = |node: &Node<'_>| {
        text("must be a name, or a list of names", |name| {
            (!name.is_empty() && name.len() <= 1024).then(|| name.to_owned())
        })(node)
    };
    match node.value().as_sequence() {
        Some(_) => Some(node.filled_list(name).into_iter().flatten().collect()),
        None => name(node).map(|name| vec![name]),
    }
}

fn claim_name(node: &Node<'_>) -> Option<String> {
    let name = text("must be the name of a claim", |name| {
        ((1..=256).contains(&name.len()) && !name.chars().any(char::is_control)).then(|| name.to_owned())
    })(node)?;
    if ["iss", "aud", "exp", "nbf", "iat", "jti"].contains(&name.as_str()) {
        node.error(format!("{name} describes the token, not the buyer"));
        return None;
    }
    Some(name)
}

/// RFC 6265, 4.1.1: a token.
fn cookie_name(node: &Node<'_>) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    text("must be the name of a cookie", |name| {
        ((1..=128).contains(&name.len()) && name.bytes().all(plain)).then(|| name.to_owned())
    })(node)
}

fn any_header(node: &Node<'_>) -> Option<HeaderName> {
    text("must be the name of a header", |name| name.parse::<HeaderName>().ok())(node)
}

/// Where a token may stand. A whole `Cookie` is none.
fn token_header(node: &Node<'_>) -> Option<String> {
    let name = any_header(node)?;
    let why_not = match name.as_str() {
        "cookie" => "holds many cookies; say which: cookie: NAME",
        name => match not_of_a_buyer(name) {
            Some(why_not) => why_not,
            None => return Some(name.to_owned()),
        },
    };
    node.error(format!("{name} {why_not}"));
    None
}

fn header_name(node: &Node<'_>) -> Option<String> {
    let name = any_header(node)?;
    let why_not = match name.as_str() {
        "authorization" | "proxy-authorization" | "cookie" => {
            "holds credentials, and the buyer's id is kept in the ledger and its log"
        }
        name => match not_of_a_buyer(name) {
            Some(why_not) => why_not,
            None => return Some(name.to_owned()),
        },
    };
    node.error(format!("{name} {why_not}"));
    None
}

fn not_of_a_buyer(header: &str) -> Option<&'static str> {
    match header {
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade" => {
            Some("belongs to one connection, not to a buyer")
        }
        "host" | "content-length" | "content-type" | "content-encoding" | "expect" | "accept" | "user-agent" => {
            Some("says something of the request, not of its buyer")
        }
        "x-forwarded-for" | "x-real-ip" | "forwarded" | "x-forwarded-host" | "x-forwarded-proto" => {
            Some("is set by the edge and identifies an address, not a buyer")
        }
        "idempotency-key" => Some("names one purchase, not its buyer"),
        "x-admission" => Some("holds an admission token"),
        _ => None,
    }
}

/// The name of a query parameter or of a member of a JSON body.
fn member_name(node: &Node<'_>) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let name = text("must be a name of 1 to 64 letters, digits, -, _ and .", |name| {
        ((1..=64).contains(&name.len()) && name.bytes().all(plain)).then(|| name.to_owned())
    })(node)?;
    let why_not = match name.as_str() {
        "quantity" => "says how many, not who",
        "idempotency_key" => "names one purchase, not its buyer",
        admission::PARAMETER => "holds an admission token",
        _ => return Some(name),
    };
    node.error(format!("{name} {why_not}"));
    None
}

/// The keys that admission tokens of a sale are made with.
pub(super) fn admission(node: &Node<'_>) -> Option<admission::Keys> {
    let keys = node.mapping(|admission| {
        admission.require("key_files", |node| Some(node.filled_list(admission_key))).unwrap_or_default()
    });
    Some(admission::Keys(keys.into_iter().flatten().collect()))
}

fn admission_key(node: &Node<'_>) -> Option<Secret> {
    let path: PathBuf = file_path(node)?;
    match Secret::read(&path) {
        Ok(Some(key)) => return Some(key),
        Ok(None) => node.error("cannot be read: there is no such file"),
        Err(error) => node.error(error.to_string()),
    }
    None
}
