//! What a backend is told about the client.

use std::fmt::Write;
use std::net::IpAddr;

use http::HeaderValue;
use http::header::{HOST, InvalidHeaderValue};
use pingora::Result;
use pingora::http::RequestHeader;

use crate::config::{self, HostHeader};

/// The `Host` for a group's backends, or for those of their clients that sent none.
///
/// # Errors
///
/// If it has characters that no header can carry.
pub fn default_host(upstream: &config::Upstream) -> Result<HeaderValue, InvalidHeaderValue> {
    match &upstream.host_header {
        HostHeader::Upstream | HostHeader::Client => HeaderValue::from_str(&upstream.name),
        HostHeader::Literal(host) => HeaderValue::from_str(host),
    }
}

/// Sets `Host` as Nginx would, and what Nginx configurations commonly add. Whatever the client itself said under these
/// names is replaced; only `X-Forwarded-For` keeps it, in front, so a backend trusts the last address alone.
pub fn describe_client(
    request: &mut RequestHeader,
    client: IpAddr,
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
    // The listeners speak plain HTTP.
    request.insert_header("X-Forwarded-Proto", "http")?;

    let mut forwarded_for = String::new();
    for before in request.headers.get_all("x-forwarded-for") {
        forwarded_for.push_str(&String::from_utf8_lossy(before.as_bytes()));
        forwarded_for.push_str(", ");
    }
    let so_far = forwarded_for.len();
    // Writing to a String does not fail.
    let _ = write!(forwarded_for, "{client}");
    request.insert_header("X-Real-IP", &forwarded_for[so_far..])?;
    request.insert_header("X-Forwarded-For", forwarded_for)?;
    origin_form(request)
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

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "192.0.2.7";

    fn described(headers: &[(&'static str, &str)], target: &str, host_header: HostHeader) -> RequestHeader {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).expect("a request");
        for (name, value) in headers {
            request.append_header(*name, *value).expect("a header");
        }
        let client = CLIENT.parse().expect("an address");
        describe_client(&mut request, client, &host_header, &HeaderValue::from_static("load_rule")).expect("described");
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
    fn what_the_client_says_of_itself_is_replaced_or_comes_first() {
        let forged = [
            ("Host", "shop.example"),
            ("X-Real-IP", "10.0.0.1"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil.example"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("X-Forwarded-For", "10.0.0.2, 10.0.0.3"),
        ];
        let request = described(&forged, "/", HostHeader::Upstream);
        assert_eq!(values(&request, "x-real-ip"), [CLIENT]);
        assert_eq!(values(&request, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["shop.example"]);
        assert_eq!(values(&request, "x-forwarded-for"), ["10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.7"]);
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
    fn a_target_in_absolute_form_becomes_a_path() {
        let request = described(&[("Host", "shop.example")], "http://shop.example/a?b=c", HostHeader::Upstream);
        assert_eq!(request.raw_path(), b"/a?b=c");
        assert_eq!(described(&[], "/a?b=c", HostHeader::Upstream).raw_path(), b"/a?b=c");
        assert_eq!(described(&[], "*", HostHeader::Upstream).raw_path(), b"*");
    }
}
