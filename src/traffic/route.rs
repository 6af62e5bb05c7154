//! Which route a request takes: pure, and without an allocation.

use crate::config::Route;
use crate::http::host;

/// The first of `routes` that takes a request for `path` on `host`, as an index into `routes`.
///
/// `host` is the `Host` field as the client sent it, port and case included; without one, only routes for any host
/// match. `path` is the target's path without its query, compared as it was sent: nothing is decoded or resolved, so
/// that a backend sees what was matched.
pub fn find(routes: &[Route], host: Option<&str>, path: &str) -> Option<usize> {
    let name = host.map(host::name);
    routes.iter().position(|route| takes_host(&route.hosts, name) && takes_path(&route.path, path))
}

fn takes_host(hosts: &[String], name: Option<&str>) -> bool {
    hosts.is_empty() || name.is_some_and(|name| hosts.iter().any(|host| host.eq_ignore_ascii_case(name)))
}

/// A prefix ends where a segment ends: `/a` takes `/a` and `/a/b`, not `/ab`.
fn takes_path(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(hosts: &[&str], path: &str) -> Route {
        Route { hosts: hosts.iter().map(|host| host.to_string()).collect(), path: path.to_string(), ..Route::default() }
    }

    #[test]
    fn the_first_route_that_takes_host_and_path_wins() {
        let routes = [
            route(&["load_balance.com", "www.load_balance.com"], "/"),
            route(&["shop.example"], "/api"),
            route(&["[::1]"], "/"),
            route(&[], "/static/"),
            route(&[], "/open"),
        ];
        let table = [
            (Some("load_balance.com"), "/", Some(0)),
            (Some("load_balance.com"), "/any/thing", Some(0)),
            (Some("LOAD_Balance.COM"), "/", Some(0)),
            (Some("load_balance.com:8080"), "/", Some(0)),
            (Some("load_balance.com."), "/", Some(0)),
            (Some("load_balance.com.:80"), "/", Some(0)),
            (Some("www.load_balance.com"), "/", Some(0)),
            (Some("x.load_balance.com"), "/", None),
            (Some("shop.example"), "/api", Some(1)),
            (Some("shop.example"), "/api/", Some(1)),
            (Some("shop.example"), "/api/v1", Some(1)),
            (Some("shop.example"), "/apiary", None),
            (Some("shop.example"), "/", None),
            (Some("[::1]"), "/", Some(2)),
            (Some("[::1]:80"), "/", Some(2)),
            (Some("[::2]:80"), "/", None),
            (Some("shop.example"), "/static/a.css", Some(3)),
            (Some("shop.example"), "/static/", Some(3)),
            (Some("shop.example"), "/static", None),
            (None, "/static/a.css", Some(3)),
            (None, "/open", Some(4)),
            (None, "/", None),
            (Some(""), "/", None),
            (Some(""), "/open", Some(4)),
            (None, "*", None),
        ];
        for (host, path, expected) in table {
            assert_eq!(find(&routes, host, path), expected, "{host:?} {path}");
        }
    }

    #[test]
    fn a_slash_takes_every_path_and_no_route_takes_nothing() {
        assert_eq!(find(&[route(&[], "/")], None, "/a/b"), Some(0));
        assert_eq!(find(&[], Some("a"), "/"), None);
    }
}
