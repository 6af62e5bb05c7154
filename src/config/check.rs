//! What settings must satisfy together. Each rule says why it holds, here to the reader and there to the operator.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::errors::Errors;
use super::value::briefly;
use super::{BuyerSource, Config, LogDestination, Redis, Route, Sale, Store};

/// Notes every relation that does not hold between settings that could be read.
pub(super) fn relations(config: &Config, errors: &mut Errors) {
    listeners(config, errors);
    control(config, errors);
    backends(config, errors);
    routes(config, errors);
    sales(config, errors);
    delivery(config, errors);
    replicas(config, errors);
    logs(config, errors);
}

/// Two that write to one file would not know of each other when it is full, or moved.
fn logs(config: &Config, errors: &mut Errors) {
    let stat_log = |sale: &Sale| Some((format!("sales.{}.stat_log", sale.id), sale.stat_log.clone()?));
    let mut files: Vec<(String, PathBuf)> = config.sales.iter().filter_map(stat_log).collect();
    let places = [("error_log.path", Some(&config.error_log.place))];
    let access_log = config.access_log.as_ref().map(|log| &log.place);
    for (path, place) in places.into_iter().chain([("access_log.path", access_log)]) {
        let Some(LogDestination::File(file)) = place else { continue };
        if let Some((other, _)) = files.iter().find(|(_, taken)| taken == file) {
            errors.push_relation(path, &[path, other], format!("is also the file of {other}"));
        }
        files.push((path.to_owned(), file.clone()));
    }
}

/// An answer comes behind the replicas', in the same round trip.
fn replicas(config: &Config, errors: &mut Errors) {
    if let Store::Redis(Redis { response_timeout, replicas: Some(replicas), .. }) = &config.ledger.store
        && replicas.timeout >= *response_timeout
    {
        let (path, other) = ("ledger.redis.replicas.timeout", "ledger.redis.response_timeout");
        let message = format!("must be less than {other} ({}), which includes it", briefly(*response_timeout));
        errors.push_relation(path, &[path, other], message);
    }
}

/// Every listener needs an address of its own, or the second to be bound fails.
fn listeners(config: &Config, errors: &mut Errors) {
    let own = own_addresses(config);
    for (index, (path, address)) in own.iter().enumerate() {
        for (other_path, other) in own[..index].iter().filter(|(_, other)| overlap(*address, *other)) {
            let message = format!("{address} is already used by {other_path} ({other})");
            errors.push_relation(path, &[path, other_path], message);
        }
    }
}

/// Every address that this edge listens on, and the setting that says so.
fn own_addresses(config: &Config) -> Vec<(String, SocketAddr)> {
    let public = config.listen.iter().enumerate();
    let public = public.map(|(index, listener)| (format!("listen[{index}].address"), listener.address));
    [("control.listen".to_owned(), config.control.listen)].into_iter().chain(public).collect()
}

/// Two sockets cannot be bound to the same port if one of them has all addresses. IPv4 and IPv6 are told apart, since
/// a listener on `[::]` can be had for IPv6 alone.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// Who reaches the control listener can give all tickets away.
fn control(config: &Config, errors: &mut Errors) {
    let control = &config.control;
    if !control.listen.ip().to_canonical().is_loopback() && control.token.is_none() {
        errors.push_relation(
            "control.listen",
            &["control.listen", "control.token", "control.token_file"],
            "is off loopback, so control.token or control.token_file is needed: \
             whoever reaches it can close sales and give tickets away",
        );
    }
}

fn backends(config: &Config, errors: &mut Errors) {
    let own = own_addresses(config);
    for upstream in &config.upstreams {
        let path = format!("upstreams.{}.servers", upstream.name);
        if !upstream.servers.is_empty() && upstream.servers.iter().all(|server| server.backup) {
            errors.push_relation(&path, &[&path], "must have at least one server that is not a backup");
        }
        let addresses: Vec<SocketAddr> =
            upstream.servers.iter().flat_map(|server| server.addresses.iter().copied()).collect();
        for (index, &address) in addresses.iter().enumerate() {
            // A request would come back as a new one, and go round until there are no ports left.
            let is_own = |own: SocketAddr| overlap(address, own) && (address == own || address.ip().is_loopback());
            if let Some((own_path, _)) = own.iter().find(|(_, own)| is_own(*own)) {
                errors.push_relation(&path, &[own_path], format!("{address} is this edge itself ({own_path})"));
            }
            // A request is not tried twice at one backend, which two servers with one address would make it.
            if addresses[..index].contains(&address) {
                errors.push(&path, format!("{address} is listed twice; raise its weight instead"));
            }
        }
    }
}

fn routes(config: &Config, errors: &mut Errors) {
    if config.routes.is_empty() && config.sales.is_empty() {
        let message = "must have an entry unless sales has one";
        errors.push_relation("routes", &["routes", "sales"], message);
    }
    for (index, route) in config.routes.iter().enumerate() {
        let Some(takers) = takers_of(route, &config.routes[..index]) else { continue };
        let path = |route: &usize| format!("routes[{route}]");
        let matched_by = |route: &usize| [format!("{}.hosts", path(route)), format!("{}.path", path(route))];
        let settings: Vec<String> = takers.iter().chain([&index]).flat_map(matched_by).collect();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let message = format!(
            "is never reached: the first route that matches is used, and {} {} all of its requests; move it up",
            takers.iter().map(path).collect::<Vec<_>>().join(" and "),
            if takers.len() == 1 { "matches" } else { "match" },
        );
        errors.push_relation(&path(&index), &settings, message);
    }
}

/// Which of the `earlier` routes leave nothing for this one; none if something is left.
fn takers_of(route: &Route, earlier: &[Route]) -> Option<BTreeSet<usize>> {
    let taker_of = |host| earlier.iter().position(|earlier| takes(earlier, host, &route.path));
    if route.hosts.is_empty() {
        taker_of(None).map(|taker| BTreeSet::from([taker]))
    } else {
        route.hosts.iter().map(|host| taker_of(Some(host.as_str()))).collect()
    }
}

/// Whether `route` takes every request for this host, or any host, and for all paths below this one.
fn takes(route: &Route, host: Option<&str>, path: &str) -> bool {
    let has_host = route.hosts.is_empty() || host.is_some_and(|host| route.hosts.iter().any(|own| own == host));
    let has_path = route.path == "/"
        || path.strip_prefix(&route.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    has_host && has_path
}

fn sales(config: &Config, errors: &mut Errors) {
    let sales = &config.sales;
    no_two_share(sales, "path", |sale| Some(&sale.path), "a purchase must name one sale", errors);
    no_two_share(sales, "key", |sale| Some(&sale.key), "two sales cannot share one stock", errors);
    no_two_share(sales, "stat_log", |sale| sale.stat_log.as_ref(), "its lines do not name the sale", errors);
    for sale in sales {
        let of_sale = |setting: &str| format!("sales.{}.{setting}", sale.id);
        path_is_free(sale, &of_sale("path"), errors);
        times_fit(config, sale, of_sale, errors);
        buyer_can_be_told(sale, of_sale, errors);
        proxies_can_be_told(config, sale, of_sale, errors);
    }
}

fn no_two_share<'a, T: PartialEq + 'a>(
    sales: &'a [Sale],
    setting: &str,
    value: impl Fn(&'a Sale) -> Option<&'a T>,
    why: &str,
    errors: &mut Errors,
) {
    for (index, sale) in sales.iter().enumerate() {
        let same = |earlier: &&'a Sale| value(sale).is_some() && value(earlier) == value(sale);
        if let Some(earlier) = sales[..index].iter().find(same) {
            let (path, other_path) =
                (format!("sales.{}.{setting}", sale.id), format!("sales.{}.{setting}", earlier.id));
            errors.push_relation(&path, &[&path, &other_path], format!("is the same as {other_path}, but {why}"));
        }
    }
}

/// `/sales/{id}` tells what is left, at every edge and for every sale.
fn path_is_free(sale: &Sale, path: &str, errors: &mut Errors) {
    if sale.path == "/sales" || sale.path.starts_with("/sales/") {
        errors.push_relation(path, &[path], "must not be below /sales/, which the edge answers itself");
    }
}

fn times_fit(config: &Config, sale: &Sale, of_sale: impl Fn(&str) -> String, errors: &mut Errors) {
    let (opens_path, closes_path) = (of_sale("opens_at"), of_sale("closes_at"));
    if let (Some(opens), Some(closes)) = (sale.opens_at_ms, sale.closes_at_ms)
        && closes <= opens
    {
        let message = "must be after opens_at, or nothing could be sold";
        errors.push_relation(&closes_path, &[&closes_path, &opens_path], message);
    }
    let (hold_path, deadline_path, deadline) = (of_sale("hold"), of_sale("deadline"), briefly(sale.deadline));
    if sale.hold <= sale.deadline {
        let message = format!(
            "must be longer than deadline ({deadline}), or an order could expire before its buyer gets the answer"
        );
        errors.push_relation(&hold_path, &[&hold_path, &deadline_path], message);
    }
    if let Store::Redis(Redis { response_timeout, .. }) = &config.ledger.store
        && *response_timeout >= sale.deadline
    {
        let path = "ledger.redis.response_timeout";
        let message = format!(
            "must be less than {deadline_path} ({deadline}), or a purchase would time out before the ledger does"
        );
        errors.push_relation(path, &[path, &deadline_path], message);
    }
}

/// A limit for each buyer needs buyers that can be told apart, in every way of buying.
fn buyer_can_be_told(sale: &Sale, of_sale: impl Fn(&str) -> String, errors: &mut Errors) {
    let (buyer, dialect) = (of_sale("buyer"), of_sale("seed_dialect"));
    let quota = sale.buyer_limits.requests_per_second.max(sale.buyer_limits.concurrent);
    let limits = [("per_buyer", sale.per_buyer), ("unpaid_per_buyer", sale.unpaid_per_buyer), ("buyer_limits", quota)];
    for (name, limit) in limits {
        let path = of_sale(name);
        match sale.buyer {
            _ if limit == 0 => {}
            BuyerSource::Anonymous => errors.push_relation(
                &path,
                &[&path, &buyer],
                "requires a buyer id: set `buyer`, or set this limit to 0",
            ),
            BuyerSource::Body(_) if sale.seed_dialect => errors.push_relation(
                &buyer,
                &[&buyer, &path, &dialect],
                format!("cannot be in the body with seed_dialect, because a GET has no body: {name} would not hold"),
            ),
            _ => {}
        }
    }
}

/// A header of our own proxies needs proxies of our own.
fn proxies_can_be_told(config: &Config, sale: &Sale, of_sale: impl Fn(&str) -> String, errors: &mut Errors) {
    if matches!(sale.buyer, BuyerSource::ProxyHeader(_)) && config.trusted_proxies.is_empty() {
        let path = of_sale("buyer");
        let message = "comes from trusted_proxies, but trusted_proxies is empty, so no purchase would succeed";
        errors.push_relation(&path, &[&path, "trusted_proxies"], message);
    }
}

fn delivery(config: &Config, errors: &mut Errors) {
    if config.delivery.is_some() && config.sales.is_empty() {
        errors.push_relation("delivery", &["delivery", "sales"], "requires a sale: there is nothing to deliver");
    }
}
