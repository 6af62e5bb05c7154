//! What a backend is told about the client, and what a route does to headers and paths.

use http::HeaderValue;
use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use crate::config::{HeaderRules, HostHeader};
use crate::http::client::Client;
use crate::observe::trace::{self, TRACEPARENT, TRACESTATE};

/// Sets `Host` as Nginx would, and what Nginx configurations commonly add. Whatever was sent under these names is
/// replaced, and `Forwarded` taken away, so that a backend may believe all of them. A proxy of ours alone may say that
/// its client came by https.
pub fn describe_client(
    request: &mut RequestHeader,
    client: Client,
    is_encrypted: bool,
    host_header: &HostHeader,
    default_host: &HeaderValue,
) -> Result<()> {
    let target_host = request.headers.get(HOST).cloned();
    if target_host.is_none() || *host_header != HostHeader::Client {
        request.insert_header(HOST, default_host.clone())?;
    }
    match target_host {
        Some(host) => request.insert_header("X-Forwarded-Host", host)?,
        None => drop(request.remove_header("x-forwarded-host")),
    }
    let mut said = request.headers.get_all("x-forwarded-proto").iter();
    let by_https = client.by_proxy && said.next().is_some_and(|proto| proto == "https") && said.next().is_none();
    request.insert_header("X-Forwarded-Proto", if by_https || is_encrypted { "https" } else { "http" })?;
    let address = client.address.to_string();
    request.insert_header("X-Real-IP", &address)?;
    request.insert_header("X-Forwarded-For", address)?;
    drop(request.remove_header("forwarded"));
    one_cookie(request)?;
    origin_form(request)
}

/// HTTP/2 may send a cookie's parts apart; HTTP/1 knows one field of them (RFC 9113, 8.2.3).
fn one_cookie(request: &mut RequestHeader) -> Result<()> {
    let parts: Vec<&[u8]> = request.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if parts.len() < 2 {
        return Ok(());
    }
    let cookie = parts.join(&b"; "[..]);
    request.insert_header(COOKIE, cookie)
}

/// Puts `rewrite` in the place of `prefix`, which the path begins with. Backends learn of the prefix
/// (`X-Forwarded-Prefix`), so that they can write links.
pub fn replace_prefix(request: &mut RequestHeader, prefix: &str, rewrite: &str) -> Result<()> {
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = rewritten(path, prefix, rewrite);
    request.set_raw_path(path.as_bytes())?;
    request.insert_header("X-Forwarded-Prefix", prefix)
}

/// The path with `rewrite` in the place of `prefix`; a query stays.
pub fn rewritten(path: &str, prefix: &str, rewrite: &str) -> String {
    let rest = path.strip_prefix(prefix.trim_end_matches('/')).unwrap_or(path);
    // What begins with two slashes names a host to some, and the client must not be the one who says which.
    let tail = rest.trim_start_matches('/');
    let slash = if tail.len() < rest.len() { "/" } else { "" };
    let path = format!("{}{slash}{tail}", rewrite.trim_end_matches('/'));
    if path.starts_with('/') { path } else { format!("/{path}") }
}

/// What a route does to the header of a request.
pub fn apply_to_request(rules: &HeaderRules, request: &mut RequestHeader) -> Result<()> {
    for name in &rules.remove {
        request.remove_header(name);
    }
    rules.set.iter().try_for_each(|(name, value)| request.insert_header(name.clone(), value.clone()))
}

/// Keeps one of several equal lengths. Pingora refuses unequal ones, and passes equal ones on as they came (RFC 9110,
/// 8.6).
pub fn keep_one_length(answer: &mut ResponseHeader) -> Result<()> {
    let mut lengths = answer.headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(()) };
    if lengths.next().is_none() && first.as_bytes().iter().all(u8::is_ascii_digit) {
        return Ok(());
    }
    let length: Vec<u8> = first.as_bytes().iter().copied().take_while(u8::is_ascii_digit).collect();
    answer.insert_header(CONTENT_LENGTH, length)
}

/// What a route does to the header of an answer.
pub fn apply_to_answer(rules: &HeaderRules, answer: &mut ResponseHeader) -> Result<()> {
    for name in &rules.remove {
        answer.remove_header(name);
    }
    rules.set.iter().try_for_each(|(name, value)| answer.insert_header(name.clone(), value.clone()))
}

/// A target in absolute form (`GET http://host/path`) becomes the path alone, as Nginx sends it: servers must
/// understand both (RFC 9112, 3.2.2), but not all do.
fn origin_form(request: &mut RequestHeader) -> Result<()> {
    let target = request.raw_path();
    if target.starts_with(b"/") || target == b"*" || !request.raw_path_is_utf8() {
        return Ok(());
    }
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    request.set_raw_path(path.as_bytes())
}

/// Names the trace that the request belongs to, in the place of whatever its client said.
pub fn say_trace(request: &mut RequestHeader, trace: &trace::Request) -> Result<()> {
    request.remove_header(TRACEPARENT);
    request.remove_header(TRACESTATE);
    if let Some(parent) = trace.traceparent() {
        request.insert_header(TRACEPARENT, parent)?;
    }
    if let Some(state) = trace.tracestate() {
        request.insert_header(TRACESTATE, state)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "192.0.2.7";

    fn described(headers: &[(&'static str, &str)], target: &str, host_header: HostHeader) -> RequestHeader {
        described_by(false, headers, target, host_header)
    }

    fn described_by(
        by_proxy: bool,
        headers: &[(&'static str, &str)],
        target: &str,
        host_header: HostHeader,
    ) -> RequestHeader {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).expect("a request");
        for (name, value) in headers {
            request.append_header(*name, *value).expect("a header");
        }
        let client = Client { address: CLIENT.parse().expect("an address"), by_proxy };
        describe_client(&mut request, client, false, &host_header, &HeaderValue::from_static("load_rule"))
            .expect("described");
        request
    }

    fn values<'a>(request: &'a RequestHeader, name: &str) -> Vec<&'a str> {
        request.headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
    }

    #[test]
    fn a_backend_learns_who_asked_for_what() {
        let request = described(&[("Host", "shop.example:8080")], "/", HostHeader::Upstream);
        assert_eq!(values(&request, "host"), ["load_rule"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["shop.example:8080"]);
        assert_eq!(values(&request, "x-real-ip"), [CLIENT]);
        assert_eq!(values(&request, "x-forwarded-for"), [CLIENT]);
        assert_eq!(values(&request, "x-forwarded-proto"), ["http"]);
    }

    #[test]
    fn what_the_client_says_of_itself_is_replaced() {
        let forged = [
            ("Host", "shop.example"),
            ("X-Real-IP", "10.0.0.1"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil.example"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("X-Forwarded-For", "10.0.0.2, 10.0.0.3"),
            ("Forwarded", "for=10.0.0.1;proto=https"),
        ];
        let request = described(&forged, "/", HostHeader::Upstream);
        assert_eq!(values(&request, "x-real-ip"), [CLIENT]);
        assert_eq!(values(&request, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["shop.example"]);
        assert_eq!(values(&request, "x-forwarded-for"), [CLIENT]);
        assert!(values(&request, "forwarded").is_empty());
        // Of a proxy of ours, one thing is believed besides the address.
        let request = described_by(true, &forged, "/", HostHeader::Upstream);
        assert_eq!(values(&request, "x-forwarded-proto"), ["https"]);
        assert_eq!(values(&request, "x-forwarded-for"), [CLIENT]);
        for proto in [&["ftp"][..], &["HTTPS"], &["https", "http"], &["https", "https"], &["https, http"]] {
            let sent: Vec<_> = proto.iter().map(|proto| ("X-Forwarded-Proto", *proto)).collect();
            let request = described_by(true, &sent, "/", HostHeader::Upstream);
            assert_eq!(values(&request, "x-forwarded-proto"), ["http"], "{proto:?}");
        }
    }

    #[test]
    fn host_is_as_the_settings_say() {
        let host = |headers: &[(&'static str, &str)], host_header| {
            values(&described(headers, "/", host_header), "host").join("|")
        };
        let sent = [("Host", "shop.example")];
        assert_eq!(host(&sent, HostHeader::Client), "shop.example");
        assert_eq!(host(&[], HostHeader::Client), "load_rule");
        assert_eq!(host(&[], HostHeader::Upstream), "load_rule");
        assert_eq!(host(&sent, HostHeader::Literal("load_rule".into())), "load_rule");
        let forged = described(&[("X-Forwarded-Host", "evil.example")], "/", HostHeader::Upstream);
        assert!(values(&forged, "x-forwarded-host").is_empty());
    }

    #[test]
    fn cookies_in_parts_are_put_together() {
        let parts = [("Host", "a"), ("Cookie", "a=1"), ("X-Other", "b"), ("cookie", "b=2; c=3")];
        assert_eq!(values(&described(&parts, "/", HostHeader::Client), "cookie"), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn a_prefix_is_replaced_and_told() {
        let rewritten = |target: &str, prefix: &str, rewrite: &str| {
            let mut request = RequestHeader::build("GET", target.as_bytes(), None).expect("a request");
            replace_prefix(&mut request, prefix, rewrite).expect("a path");
            assert_eq!(values(&request, "x-forwarded-prefix"), [prefix]);
            String::from_utf8(request.raw_path().to_vec()).expect("text")
        };
        assert_eq!(rewritten("/api/a/b?c=d", "/api", "/"), "/a/b?c=d");
        assert_eq!(rewritten("/api/", "/api", "/"), "/");
        assert_eq!(rewritten("/api", "/api", "/"), "/");
        assert_eq!(rewritten("/api?c=d", "/api", "/"), "/?c=d");
        assert_eq!(rewritten("/api?c=d", "/api", "/v2"), "/v2?c=d");
        assert_eq!(rewritten("/api/a", "/api", "/v2/x"), "/v2/x/a");
        assert_eq!(rewritten("/a", "/", "/v2"), "/v2/a");
        assert_eq!(rewritten("/", "/", "/v2"), "/v2/");
        assert_eq!(rewritten("/api//host/a", "/api", "/"), "/host/a");
        assert_eq!(rewritten("/api//a", "/api", "/v2"), "/v2/a");
        assert_eq!(rewritten("/api/%2e%2e/a", "/api", "/v2"), "/v2/%2e%2e/a");
    }

    #[test]
    fn a_target_in_absolute_form_becomes_a_path() {
        let request = described(&[("Host", "shop.example")], "http://shop.example/a?b=c", HostHeader::Upstream);
        assert_eq!(request.raw_path(), b"/a?b=c");
        assert_eq!(described(&[], "/a?b=c", HostHeader::Upstream).raw_path(), b"/a?b=c");
        assert_eq!(described(&[], "*", HostHeader::Upstream).raw_path(), b"*");
    }
}
