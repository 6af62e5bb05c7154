//! Single values: each function parses one from the file, or records an error.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Timestamp};

use super::Quota;
use super::errors::did_you_mean;
use super::node::{Fields, Node};

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A whole number within `range`.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl FnOnce(&Node<'_>) -> Option<T>
where
    T: TryFrom<u64> + PartialOrd + Display,
{
    move |node| {
        let number = node.value().as_u64().and_then(|number| T::try_from(number).ok());
        number
            .filter(|number| range.contains(number))
            .or_else(|| node.refuse(format!("must be {} to {}", range.start(), range.end())))
    }
}

/// `true` or `false`.
pub(super) fn flag(node: &Node<'_>) -> Option<bool> {
    node.value().as_bool().or_else(|| node.refuse("must be true or false"))
}

/// A part of the whole: 0 to 1.
pub(super) fn share(node: &Node<'_>) -> Option<f64> {
    node.value().as_f64().filter(|share| (0.0..=1.0).contains(share)).or_else(|| node.refuse("must be 0 to 1"))
}

/// A length of time within `range`; a day is 24 hours.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl FnOnce(&Node<'_>) -> Option<Duration> {
    move |node| {
        let span = node.value().as_str().and_then(|text| text.parse::<Span>().ok());
        let Some(length) = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()) else {
            return node.refuse("must be a time with a unit, such as 5s, 100ms or 1m 30s");
        };
        Duration::try_from(length)
            .ok()
            .filter(|length| range.contains(length))
            .or_else(|| node.refuse(format!("must be {} to {}", briefly(*range.start()), briefly(*range.end()))))
    }
}

/// A length of time as one would write it in the file: in the largest unit that divides it.
pub(super) fn briefly(length: Duration) -> String {
    let units = [(DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s"), (MILLISECOND, "ms")];
    let whole = |unit: Duration| length.as_nanos().is_multiple_of(unit.as_nanos());
    match units.into_iter().find(|(unit, _)| whole(*unit)) {
        _ if length.is_zero() => "0s".to_owned(),
        Some((unit, name)) => format!("{}{name}", length.as_nanos() / unit.as_nanos()),
        None => format!("{length:?}"),
    }
}

/// A number of bytes within `range`; a unit is 1024 times the one before, and 0 needs none.
pub(super) fn size(range: RangeInclusive<u64>) -> impl FnOnce(&Node<'_>) -> Option<u64> {
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
    move |node| {
        let text = node.value().as_str().unwrap_or_default();
        let parts = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?.trim_end(), bytes)));
        let bytes = parts
            .filter(|(number, _)| is_digits(number))
            .and_then(|(number, bytes)| number.parse::<u64>().ok()?.checked_mul(*bytes));
        let Some(bytes) = bytes.or_else(|| node.value().as_u64().filter(|bytes| *bytes == 0)) else {
            return node.refuse("must be a size with a unit, such as 512B, 16KiB or 1MiB");
        };
        Some(bytes).filter(|bytes| range.contains(bytes)).or_else(|| {
            let briefly =
                |bytes: u64| match UNITS[..3].iter().rev().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
                    Some((name, unit)) => format!("{}{name}", bytes / unit),
                    None => format!("{bytes}B"),
                };
            node.refuse(format!("must be {} to {}", briefly(*range.start()), briefly(*range.end())))
        })
    }
}

/// A point in time, in milliseconds since 1970. The offset is required, because the time zone of an edge is not known.
pub(super) fn time_ms(node: &Node<'_>) -> Option<u64> {
    text("must be a time with an offset, such as 2026-12-01T20:00:00+08:00", |text| {
        u64::try_from(text.parse::<Timestamp>().ok()?.as_millisecond()).ok()
    })(node)
}

/// Text that `parse` accepts.
pub(super) fn text<T>(must: &str, parse: impl FnOnce(&str) -> Option<T>) -> impl FnOnce(&Node<'_>) -> Option<T> {
    move |node| node.value().as_str().and_then(parse).or_else(|| node.refuse(must))
}

/// Text that `parse` accepts and that no message may repeat.
pub(super) fn secret<T>(must: &str, parse: impl FnOnce(&str) -> Option<T>) -> impl FnOnce(&Node<'_>) -> Option<T> {
    move |node| {
        let parsed = node.value().as_str().and_then(parse);
        if parsed.is_none() {
            node.error(format!("{must} (its value is not shown because it may be a secret)"));
        }
        parsed
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl FnOnce(&Node<'_>) -> Option<T> {
    move |node| {
        let given = node.value().as_str().unwrap_or_default();
        let found = words.iter().find(|(word, _)| *word == given).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let hint = did_you_mean(given, names.iter().copied());
            node.error(format!("must be one of {}, is {}{hint}", names.join(", "), node.shown()));
        }
        found
    }
}

/// The path of a file or folder; relative to where the process was started.
pub(super) fn file_path(node: &Node<'_>) -> Option<PathBuf> {
    text("must be the path of a file or folder", |text| {
        (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
    })(node)
}

/// An address to listen on. Names are not taken: which of their addresses to bind would be a guess.
pub(super) fn listen_address(node: &Node<'_>) -> Option<SocketAddr> {
    text("must be an IP address and a port, such as 0.0.0.0:80 or \"[::1]:80\"", |text| {
        text.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
    })(node)
}

/// A path in its normal form.
///
/// `*` would be taken literally, but is meant as a pattern.
pub(super) fn is_url_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()+,;=:@%".contains(&byte);
    path.len() <= 1024
        && path.bytes().all(plain)
        && path.strip_prefix('/').is_some_and(|rest| {
            !rest.starts_with('/')
                && !path.contains("//")
                && !rest.split('/').any(|segment| matches!(segment, "." | ".."))
        })
}

/// A host as a `Host` header has it, without port: a name in ASCII, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    host.len() <= 253 && host.split('.').all(|label| !label.is_empty() && label.bytes().all(plain))
}

/// Splits `host:port`; the port is 1 to 65535.
pub(super) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|number| is_digits(port) && *number != 0)?;
    is_host(host).then_some((host, port))
}

/// Digits only; `parse` would also accept a sign.
pub(super) fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Requests per second, and how many of them at once.
pub(super) fn rate(limits: &mut Fields<'_>) -> (u32, u32) {
    let requests_per_second = limits.read("requests_per_second", number(0..=100_000));
    if limits.has("burst") && requests_per_second.is_none_or(|rate| rate == 0) {
        limits.error("burst", "has no effect without requests_per_second");
    }
    let requests_per_second = requests_per_second.unwrap_or(0);
    (requests_per_second, limits.read("burst", number(1..=1_000_000)).unwrap_or(requests_per_second.max(1)))
}

/// The quota of each key of a group.
pub(super) fn quota(node: &Node<'_>) -> Quota {
    node.mapping(|limits| {
        let (requests_per_second, burst) = rate(limits);
        let concurrent = limits.read("concurrent", number(0..=1_000_000)).unwrap_or(0);
        Quota { requests_per_second, burst, concurrent }
    })
}

/// The index of an upstream by its name.
pub(super) fn upstream_named(node: &Node<'_>, upstreams: &[&str]) -> Option<usize> {
    let name = text("must be the name of an upstream", |name| Some(name.to_owned()))(node)?;
    let index = upstreams.iter().position(|upstream| *upstream == name);
    if index.is_none() {
        let hint = did_you_mean(&name, upstreams.iter().copied());
        node.error(format!("there is no upstream {name:?}{hint}"));
    }
    index
}
