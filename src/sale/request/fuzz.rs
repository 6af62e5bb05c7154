//! Properties of the request parser that hold for all inputs.

use super::*;
use crate::sale::reply;

const JSON: &[u8] = b"application/json";
const FORM: &[u8] = b"application/x-www-form-urlencoded";
const BUYER_HEADER: &str = "X-User-Id";

/// A request is refused with an answer that names what is wrong, or is a purchase within bounds, which means the same
/// when it is asked in another form.
pub fn check(bytes: &[u8]) {
    thread_local! {
        static SALES: [config::Sale; 4] = [
            BuyerSource::Anonymous,
            BuyerSource::Header(BUYER_HEADER.into()),
            BuyerSource::Query("buyer".into()),
            BuyerSource::Body("buyer".into()),
        ]
        .map(|source| settings(&source, true));
    }
    let request = Request::new(bytes);
    SALES.with(|sales| {
        for sale in sales {
            match read(&request, &request.body, sale, false) {
                Ok(ask) => {
                    is_within_bounds(&ask);
                    means_the_same_in_json(&ask, &sales[3]);
                }
                Err(refusal) => is_told(&refusal),
            }
        }
        let [_, _, from_query, from_body] = sales;
        means_the_same_in_query_and_form(&request.body, from_query, from_body);
    });
}

/// Asserts that a purchase is what [`Ask`] says of one.
pub(super) fn is_within_bounds(ask: &Ask<'_>) {
    assert!((1..=QUANTITY_MAX).contains(&ask.quantity), "{ask:?}");
    if let Some(buyer) = &ask.buyer {
        assert!((1..=BUYER_MAX).contains(&buyer.len()) && !buyer.chars().any(char::is_control), "{ask:?}");
    }
    if let Some(key) = &ask.key {
        assert!((1..=KEY_MAX).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{ask:?}");
    }
}

fn is_told(refusal: &RequestRefusal) {
    let answer = reply::refusal(Dialect::Rest, refusal, true);
    let document: Value = serde_json::from_slice(&answer.body).expect("a problem is JSON");
    if let RequestRefusal::Bad { field, detail } = refusal {
        assert_eq!((answer.status, document["field"].as_str()), (400, Some(field.as_str())));
        assert!(!detail.is_empty());
    }
    answer.fields(|name, value| {
        assert!(value.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{name}: {value:?}");
    });
}

fn means_the_same_in_json(ask: &Ask<'_>, from_body: &config::Sale) {
    let mut document = serde_json::json!({ QUANTITY_NAME: ask.quantity });
    if let Some(buyer) = &ask.buyer {
        document["buyer"] = buyer.as_ref().into();
    }
    if let Some(key) = &ask.key {
        document[KEY_NAME] = key.as_ref().into();
    }
    let body = document.to_string().into_bytes();
    let headers = vec![(b"Content-Type".to_vec(), JSON.to_vec())];
    let request = Request { query: None, headers, body };
    // JSON escapes can make a valid input too long.
    if request.body.len() <= BODY_MAX {
        assert_eq!(read(&request, &request.body, from_body, false).as_ref(), Ok(ask), "{document}");
    }
}

/// A form takes less than a query, which may have parameters of others.
fn means_the_same_in_query_and_form(pairs: &[u8], from_query: &config::Sale, from_body: &config::Sale) {
    let headers = vec![(b"Content-Type".to_vec(), FORM.to_vec())];
    let form = Request { query: None, headers, body: pairs.to_vec() };
    if let Ok(ask) = read(&form, &form.body, from_body, false) {
        let query = Request { query: Some(pairs.to_vec()), headers: Vec::new(), body: Vec::new() };
        assert_eq!(read(&query, b"", from_query, false), Ok(ask), "{}", pairs.escape_ascii());
    }
}

/// A request as a text: the query (or nothing) on the first line, then the headers, an empty line and the body.
pub(super) struct Request {
    pub(super) query: Option<Vec<u8>>,
    pub(super) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn new(text: &[u8]) -> Self {
        let (head, body) = match text.windows(2).position(|two| two == b"\n\n") {
            Some(end) => (&text[..end], &text[end + 2..]),
            None => (text, &b""[..]),
        };
        let mut lines = head.split(|byte| *byte == b'\n');
        let query = lines.next().filter(|line| !line.is_empty()).map(Into::into);
        let header = |line: &[u8]| match line.windows(2).position(|two| two == b": ") {
            Some(colon) => (line[..colon].to_vec(), line[colon + 2..].to_vec()),
            None => (line.to_vec(), Vec::new()),
        };
        Self { query, headers: lines.map(header).collect(), body: body.to_vec() }
    }
}

impl Head for Request {
    fn method(&self) -> &str {
        "POST"
    }

    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref()
    }

    fn headers<'a>(&'a self, name: &str, each: &mut dyn FnMut(&'a [u8])) {
        let named = |(given, _): &&(Vec<u8>, Vec<u8>)| given.eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().filter(named).for_each(|(_, value)| each(value));
    }
}

pub(super) fn settings(buyer: &BuyerSource, seed_dialect: bool) -> config::Sale {
    let seed = if seed_dialect { "seed_dialect: true" } else { "" };
    let mut config = config::Config::from_yaml(&format!("sales: {{ ticket: {{ {seed} }} }}"))
        .unwrap_or_else(|errors| panic!("the smallest configuration is refused: {errors}"));
    let mut sale = config.sales.remove(0);
    sale.buyer = buyer.clone();
    sale
}
