//! Parses a purchase from a request's head and body.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use opentelemetry::trace::SpanContext;

use crate::auth::admission;
use crate::config::{self, BuyerSource, TokenLocation};
use crate::http::head::Head;
use crate::ledger::QUANTITY_MAX;
use crate::ledger::buyer::{BUYER_MAX, may_be_in_buyer};

/// Maximum body size of a purchase, in bytes.
pub const BODY_MAX: usize = 4096;
/// Maximum length of an Idempotency-Key, in characters.
pub const KEY_MAX: usize = 255;

const AUTHORIZATION: &str = "authorization";
const BEARER: &str = "Bearer ";
const KEY_HEADER: &str = "Idempotency-Key";
const KEY_NAME: &str = "idempotency_key";
const QUANTITY_NAME: &str = "quantity";

/// A valid purchase request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask<'a> {
    /// 1 to [`QUANTITY_MAX`].
    pub quantity: u32,
    /// 1 to [`BUYER_MAX`] bytes without control characters; `None` for an anonymous buyer.
    pub buyer: Option<Cow<'a, str>>,
    /// The Idempotency-Key, 1 to [`KEY_MAX`] characters.
    pub key: Option<Cow<'a, str>>,
    /// The buyer token, if the sale requires one; `buyer` is `None` then.
    pub token: Option<Cow<'a, str>>,
    /// The admission token, if the sale requires one.
    pub admission: Option<Cow<'a, str>>,
    /// The parent span, if a trusted proxy sent one and tracing is on.
    pub parent: Option<SpanContext>,
}

/// Why a request is not a valid purchase. The ledger was not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestRefusal {
    /// An input is wrong.
    Bad {
        /// The header, query parameter or body member.
        field: String,
        /// The fault, as the rest of a sentence that starts with the field.
        detail: String,
    },
    /// The method is neither `POST` nor, if the sale allows it, `GET`.
    Method,
    /// The body is neither JSON nor a form.
    MediaType,
    /// The body is longer than [`BODY_MAX`].
    TooLarge,
}

fn bad(field: &str, detail: impl Into<String>) -> RequestRefusal {
    RequestRefusal::Bad { field: field.to_owned(), detail: detail.into() }
}

/// The dialect of a purchase and of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `POST`: status codes, problems.
    Rest,
    /// The article's `GET`: always 200, a code in the body.
    Seed,
}

/// The dialect of a method at this sale.
///
/// # Errors
/// [`RequestRefusal::Method`].
pub fn dialect(method: &str, settings: &config::Sale) -> Result<Dialect, RequestRefusal> {
    match method {
        "POST" => Ok(Dialect::Rest),
        "GET" if settings.seed_dialect => Ok(Dialect::Seed),
        _ => Err(RequestRefusal::Method),
    }
}

/// Parses a purchase. `body` is the body of a `POST`; the body of a `GET` has no meaning (RFC 9110, 9.3.1) and must be
/// passed as empty. `by_proxy`: whether a trusted proxy sent the request.
///
/// # Errors
/// Every [`RequestRefusal`] but [`RequestRefusal::Method`].
pub fn read<'a>(
    head: &'a dyn Head,
    body: &'a [u8],
    settings: &config::Sale,
    by_proxy: bool,
) -> Result<Ask<'a>, RequestRefusal> {
    let mut inputs = Inputs::new(&settings.buyer, settings.admission.is_some());
    if let Some(query) = head.query() {
        inputs.read_pairs(query, Strange::Ignored)?;
    }
    match &settings.buyer {
        BuyerSource::Header(name) => each(head, name, |text| inputs.buyer.put(name, text))?,
        BuyerSource::ProxyHeader(name) if by_proxy => each(head, name, |text| inputs.buyer.put(name, text))?,
        BuyerSource::Token(token) => match &token.place {
            TokenLocation::Header(name) if name == AUTHORIZATION => each(head, name, |text| match bearer(text) {
                Some(token) => inputs.token.put(AUTHORIZATION, token),
                None => Ok(()),
            })?,
            TokenLocation::Header(name) => each(head, name, |text| inputs.token.put(name, text))?,
            TokenLocation::Cookie(name) => each(head, "Cookie", |text| inputs.read_cookies(name, text))?,
        },
        BuyerSource::ProxyHeader(_) | BuyerSource::Query(_) | BuyerSource::Body(_) | BuyerSource::Anonymous => {}
    }
    if inputs.takes_admission {
        each(head, admission::HEADER, |text| inputs.admission.put(admission::HEADER, text))?;
    }
    each(head, KEY_HEADER, |text| inputs.key.put(KEY_HEADER, unquoted(text)?))?;
    if !body.is_empty() {
        read_body(head, body, &mut inputs)?;
    }
    inputs.finish()
}

/// Passes every value of a header to `take`, up to the first error.
fn each<'a>(
    head: &'a dyn Head,
    name: &str,
    mut take: impl FnMut(Cow<'a, str>) -> Result<(), RequestRefusal>,
) -> Result<(), RequestRefusal> {
    let mut outcome = Ok(());
    head.headers(name, &mut |value| {
        if outcome.is_ok() {
            outcome = utf8(name, value).and_then(&mut take);
        }
    });
    outcome
}

/// The token after `Bearer` (RFC 6750, 2.1); `None` for another scheme.
fn bearer(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let scheme = text.get(..BEARER.len()).filter(|scheme| scheme.eq_ignore_ascii_case(BEARER))?;
    match text {
        Cow::Borrowed(text) => Some(Cow::Borrowed(text[scheme.len()..].trim_matches(' '))),
        Cow::Owned(ref text) => Some(Cow::Owned(text[scheme.len()..].trim_matches(' ').to_owned())),
    }
}

fn read_body<'a>(head: &'a dyn Head, body: &'a [u8], inputs: &mut Inputs<'a, '_>) -> Result<(), RequestRefusal> {
    if body.len() > BODY_MAX {
        return Err(RequestRefusal::TooLarge);
    }
    let (mut media_type, mut given): (&[u8], _) = (b"", 0);
    head.headers("Content-Type", &mut |value| (media_type, given) = (value, given + 1));
    if given > 1 {
        return Err(RequestRefusal::MediaType);
    }
    let media_type = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if media_type.eq_ignore_ascii_case(b"application/json") {
        inputs.read_json(body)
    } else if media_type.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
        inputs.read_pairs(body, Strange::Refused)
    } else {
        Err(RequestRefusal::MediaType)
    }
}

/// One input. It may be given in several places, but only with the same value.
#[derive(Default)]
struct Input<'a> {
    given: Option<(String, Cow<'a, str>)>,
}

impl<'a> Input<'a> {
    fn put(&mut self, field: &str, value: Cow<'a, str>) -> Result<(), RequestRefusal> {
        match &self.given {
            Some((_, before)) if *before != value => Err(bad(field, "is given twice, with different values")),
            _ => {
                self.given = Some((field.to_owned(), value));
                Ok(())
            }
        }
    }
}

/// What to do with an unknown name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strange {
    /// In a query: trackers, load testers and caches add parameters.
    Ignored,
    /// In a body: it is most likely a mistyped input.
    Refused,
}

struct Inputs<'a, 's> {
    source: &'s BuyerSource,
    takes_admission: bool,
    quantity: Input<'a>,
    buyer: Input<'a>,
    key: Input<'a>,
    token: Input<'a>,
    admission: Input<'a>,
}

impl<'a, 's> Inputs<'a, 's> {
    fn new(source: &'s BuyerSource, takes_admission: bool) -> Self {
        Self {
            source,
            takes_admission,
            quantity: Input::default(),
            buyer: Input::default(),
            key: Input::default(),
            token: Input::default(),
            admission: Input::default(),
        }
    }

    /// `a=1; b=2` (RFC 6265, 4.2.1); a value may be in quotes.
    fn read_cookies(&mut self, name: &str, cookies: Cow<'a, str>) -> Result<(), RequestRefusal> {
        // Headers are always borrowed from the request.
        let Cow::Borrowed(cookies) = cookies else { return Ok(()) };
        for cookie in cookies.split(';') {
            if let Some((own, value)) = cookie.split_once('=')
                && own.trim_ascii() == name
            {
                let value = value.trim_ascii();
                let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                self.token.put(name, Cow::Borrowed(inner.unwrap_or(value)))?;
            }
        }
        Ok(())
    }

    /// `a=1&b=2`, from a query or a form.
    fn read_pairs(&mut self, pairs: &'a [u8], strange: Strange) -> Result<(), RequestRefusal> {
        for pair in pairs.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &pair[..0]),
            };
            let Ok(name) = decoded(name) else {
                match strange {
                    Strange::Ignored => continue,
                    Strange::Refused => return Err(bad("body", "has a name that is not UTF-8")),
                }
            };
            let is_buyer = match self.source {
                BuyerSource::Query(parameter) => strange == Strange::Ignored && name == *parameter,
                BuyerSource::Body(member) => strange == Strange::Refused && name == *member,
                _ => false,
            };
            let input = match &*name {
                _ if is_buyer => &mut self.buyer,
                QUANTITY_NAME => &mut self.quantity,
                KEY_NAME => &mut self.key,
                admission::PARAMETER if self.takes_admission && strange == Strange::Ignored => &mut self.admission,
                _ if strange == Strange::Ignored => continue,
                _ => return Err(bad(&name, "is not an input of a purchase")),
            };
            let value = decoded(value).map_err(|()| bad(&name, "is not UTF-8"))?;
            input.put(&name, value)?;
        }
        Ok(())
    }

    fn read_json(&mut self, body: &[u8]) -> Result<(), RequestRefusal> {
        let Members(members) = serde_json::from_slice(body).map_err(|error| {
            let detail = if error.is_data() { "is not a JSON object".into() } else { format!("is not JSON: {error}") };
            bad("body", detail)
        })?;
        for (name, value) in members {
            let is_buyer = matches!(self.source, BuyerSource::Body(member) if *member == name);
            match (name.as_str(), value) {
                (_, Value::String(text)) if is_buyer => self.buyer.put(&name, text.into())?,
                (KEY_NAME, Value::String(text)) => self.key.put(&name, text.into())?,
                (QUANTITY_NAME, Value::Number(number)) => self.quantity.put(&name, number.to_string().into())?,
                (QUANTITY_NAME, _) => return Err(bad(&name, "must be a number")),
                (KEY_NAME, _) => return Err(bad(&name, "must be a string")),
                _ if is_buyer => return Err(bad(&name, "must be a string")),
                _ => return Err(bad(&name, "is not an input of a purchase")),
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Ask<'a>, RequestRefusal> {
        let quantity = match self.quantity.given {
            None => 1,
            Some((field, text)) => quantity(&text)
                .ok_or_else(|| bad(&field, format!("must be 1 to {QUANTITY_MAX}, is \"{}\"", shown(&text))))?,
        };
        let buyer = match self.buyer.given {
            Some((field, name)) => {
                check_text(&field, &name, BUYER_MAX, may_be_in_buyer)?;
                Some(name)
            }
            None => None,
        };
        let key = match self.key.given {
            Some((field, key)) => {
                check_text(&field, &key, KEY_MAX, |character| matches!(character, ' '..='~'))?;
                Some(key)
            }
            None => None,
        };
        let text = |input: Input<'a>| input.given.map(|(_, text)| text).filter(|text| !text.is_empty());
        Ok(Ask { quantity, buyer, key, token: text(self.token), admission: text(self.admission), parent: None })
    }
}

/// The members of a JSON object in their order. Keeps duplicates, which `serde_json::Map` would drop silently.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

fn quantity(text: &str) -> Option<u32> {
    // `parse` alone would accept a leading `+`.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|quantity| digits && (1..=QUANTITY_MAX).contains(quantity))
}

fn check_text(field: &str, text: &str, most: usize, allowed: impl Fn(char) -> bool) -> Result<(), RequestRefusal> {
    if text.is_empty() {
        return Err(bad(field, "is empty"));
    }
    if text.len() > most {
        return Err(bad(field, format!("must have at most {most} bytes, has {}", text.len())));
    }
    if !text.chars().all(allowed) {
        return Err(bad(field, "has a character that is not allowed"));
    }
    Ok(())
}

/// The first 40 characters of a wrong value.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

fn utf8<'a>(field: &str, value: &'a [u8]) -> Result<Cow<'a, str>, RequestRefusal> {
    std::str::from_utf8(value).map(Cow::Borrowed).map_err(|_| bad(field, "is not UTF-8"))
}

/// Form decoding: `+` is a space, `%41` is `A` (WHATWG URL, 5.1).
fn decoded(text: &[u8]) -> Result<Cow<'_, str>, ()> {
    if text.contains(&b'+') {
        let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        return percent_decode(&spaced).decode_utf8().map(|text| Cow::Owned(text.into_owned())).map_err(|_| ());
    }
    percent_decode(text).decode_utf8().map_err(|_| ())
}

/// A structured-field string (RFC 9651, 3.3.3) without its quotes; a bare token is taken as it is.
fn unquoted(text: Cow<'_, str>) -> Result<Cow<'_, str>, RequestRefusal> {
    let trimmed = text.trim_matches([' ', '\t']);
    let Some(inner) = trimmed.strip_prefix('"') else {
        return Ok(if trimmed.len() == text.len() { text } else { Cow::Owned(trimmed.to_owned()) });
    };
    let unfinished = || bad(KEY_HEADER, "has an unterminated quoted string");
    let mut value = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    loop {
        match characters.next().ok_or_else(unfinished)? {
            '"' if characters.as_str().is_empty() => return Ok(Cow::Owned(value)),
            '"' => return Err(bad(KEY_HEADER, "has characters after the closing quote")),
            '\\' => value.push(characters.next().filter(|next| matches!(next, '"' | '\\')).ok_or_else(unfinished)?),
            other => value.push(other),
        }
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
