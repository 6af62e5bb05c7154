//! Leads requests to HTTPS. The request itself is never done: who bought a ticket over plain HTTP would have shown it
//! to everybody on the way.

use std::fmt::Write;

use http::StatusCode;

use crate::config::Redirect;
use crate::http::answer::{Answer, TEXT};
use crate::http::host::is_host;

/// The most header fields among which `Host` is looked for.
const FIELDS_MAX: usize = 128;

/// The answer to the request with this head, whether or not it is clear where the request ends: 308 or 301, or 400 if
/// it does not say which host it means.
pub fn answer(redirect: Redirect, head: &[u8]) -> Answer {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let location = match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => location(redirect.port, request.path, request.headers),
        _ => None,
    };
    let Some(location) = location else { return Answer::bare(StatusCode::BAD_REQUEST) };
    // After 301 clients may make a GET of a POST (RFC 9110, 15.4.2), and a purchase would silently be none.
    let is_safe = matches!(request.method, Some("GET" | "HEAD"));
    let mut answer = Answer::new(if is_safe { redirect.code } else { 308 }, TEXT, "");
    answer.location = Some(location);
    answer
}

/// `https://`, the host without its port, the port unless it is the usual one, and the target.
fn location(port: u16, target: Option<&str>, fields: &[httparse::Header<'_>]) -> Option<String> {
    let mut hosts = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    let host = hosts.next().map(|field| field.value).filter(|host| is_host(host))?;
    let host = without_port(std::str::from_utf8(host).ok()?);
    let target = target.and_then(in_origin_form)?;
    if hosts.next().is_some() || host.is_empty() {
        return None;
    }
    let mut location = format!("https://{host}");
    // Writing to a String does not fail.
    if port != 443 {
        let _ = write!(location, ":{port}");
    }
    for byte in target.bytes() {
        match byte {
            b'!'..=b'~' => location.push(char::from(byte)),
            _ => drop(write!(location, "%{byte:02X}")),
        }
    }
    Some(location)
}

/// The colons of an IPv6 address are within brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

/// The path and the query; a target in absolute form has them behind its host.
fn in_origin_form(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return Some(target);
    }
    let (_, rest) = target.split_once("://")?;
    Some(rest.find('/').map_or("/", |path| &rest[path..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(redirect: Redirect, head: &str) -> (u16, String) {
        let answer = answer(redirect, format!("{head}\r\n\r\n").replace('\n', "\r\n").replace("\r\r", "\r").as_bytes());
        (answer.status, answer.location.unwrap_or_default())
    }

    #[test]
    fn requests_are_led_to_the_same_place_over_https() {
        let by_default = |head| led(Redirect::default(), head);
        let to = |location: &str| (308, location.to_owned());
        assert_eq!(by_default("GET /a?b=c HTTP/1.1\nHost: a.example"), to("https://a.example/a?b=c"));
        assert_eq!(by_default("POST /buy/ticket HTTP/1.1\nhost: a.example:80"), to("https://a.example/buy/ticket"));
        assert_eq!(by_default("GET / HTTP/1.1\nHost: [::1]:8080"), to("https://[::1]/"));
        assert_eq!(by_default("GET / HTTP/1.1\nHost: [::1]"), to("https://[::1]/"));
        assert_eq!(by_default("GET //evil.example HTTP/1.1\nHost: a"), to("https://a//evil.example"));
        assert_eq!(by_default("GET http://b.example/x HTTP/1.1\nHost: a"), to("https://a/x"));
        assert_eq!(by_default("GET http://b.example HTTP/1.1\nHost: a"), to("https://a/"));
        assert_eq!(by_default("GET /\u{fc} HTTP/1.1\nHost: a"), to("https://a/%C3%BC"));
        let other = Redirect { code: 301, port: 8443 };
        assert_eq!(led(other, "GET / HTTP/1.1\nHost: a:80"), (301, "https://a:8443/".to_owned()));
        assert_eq!(led(other, "HEAD / HTTP/1.1\nHost: a:80"), (301, "https://a:8443/".to_owned()));
        assert_eq!(led(other, "POST / HTTP/1.1\nHost: a:80"), (308, "https://a:8443/".to_owned()));
    }

    #[test]
    fn nobody_is_led_to_where_nothing_says() {
        for head in [
            "GET / HTTP/1.0",
            "GET / HTTP/1.1\nHost: ",
            "GET / HTTP/1.1\nHost: :80",
            "GET / HTTP/1.1\nHost: a\nHost: b",
            "GET / HTTP/1.1\nHost: a@b",
            "GET / HTTP/1.1\nHost: a/b",
            "OPTIONS * HTTP/1.1\nHost: a",
            "CONNECT a:80 HTTP/1.1\nHost: a",
            "PRI * HTTP/2.0",
        ] {
            assert_eq!(led(Redirect::default(), head), (400, String::new()), "{head}");
        }
    }
}
