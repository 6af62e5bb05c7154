//! Compares the running configuration with a new one: what can change at run time, and what needs a restart. Pure.
//!
//! Destructures the new [`Config`] exhaustively (no `..`), so that a new field fails to compile until its author
//! decides whether a reload can change it.

use serde::Serialize;

use crate::config::{self, Config, Errors, Listener, Route, Sale, Target, Upstream};

/// The result of comparing with a new configuration.
#[derive(Debug)]
pub struct Plan {
    /// The configuration to run with: the new settings, except those that need a restart.
    pub config: Config,
    /// What is reported.
    pub report: Report,
}

/// The result of a reload, as names of settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Settings that have changed.
    pub changed: Vec<String>,
    /// Settings that stay as they are until a restart or an upgrade.
    pub needs_restart: Vec<String>,
}

impl Report {
    /// Adds a name to one of the two lists.
    fn tell(list: &mut Vec<String>, setting: impl Into<String>) {
        let setting = setting.into();
        if !list.contains(&setting) {
            list.push(setting);
        }
    }

    /// Records a change.
    pub fn changed(&mut self, setting: impl Into<String>) {
        Self::tell(&mut self.changed, setting);
    }

    /// Applies a setting.
    fn take<T: PartialEq>(&mut self, setting: impl Into<String>, now: &T, wanted: T) -> T {
        if *now != wanted {
            self.changed(setting);
        }
        wanted
    }

    /// Keeps a setting.
    fn keep<T: PartialEq + Clone>(&mut self, setting: impl Into<String>, now: &T, wanted: &T) -> T {
        if now != wanted {
            Self::tell(&mut self.needs_restart, setting);
        }
        now.clone()
    }

    fn needs_restart(&mut self, setting: impl Into<String>) {
        Self::tell(&mut self.needs_restart, setting);
    }
}

/// In words, for the log.
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.changed.as_slice() {
            [] => f.write_str("nothing has changed")?,
            changed => write!(f, "changed: {}", changed.join(", "))?,
        }
        match self.needs_restart.as_slice() {
            [] => Ok(()),
            waiting => write!(f, "; needs a restart or an upgrade: {}", waiting.join(", ")),
        }
    }
}

/// Compares `wanted` with the running configuration `now`.
///
/// # Errors
/// If the combination of both is invalid; then nothing must change.
pub fn plan(now: &Config, wanted: Config) -> Result<Plan, Errors> {
    let mut report = Report::default();
    let Config {
        listen,
        threads,
        shutdown_grace,
        shutdown_delay,
        client,
        trusted_proxies,
        client_address,
        access,
        limits,
        control,
        ledger,
        upstreams,
        routes,
        compression,
        error_pages,
        sales,
        delivery,
        tracing,
        access_log,
        error_log,
        request_id,
    } = wanted;
    let delivery = kept_delivery(&mut report, now, delivery, &upstreams)?;
    let config = Config {
        listen: listeners(&mut report, &now.listen, listen),
        threads: report.keep("threads", &now.threads, &threads),
        shutdown_grace: report.take("shutdown.grace", &now.shutdown_grace, shutdown_grace),
        shutdown_delay: report.take("shutdown.delay", &now.shutdown_delay, shutdown_delay),
        client: report.take("client", &now.client, client),
        trusted_proxies: report.take("trusted_proxies", &now.trusted_proxies, trusted_proxies),
        client_address: report.take("client_address", &now.client_address, client_address),
        access: config_access(&mut report, &now.access, access),
        limits: report.take("limits", &now.limits, limits),
        control: config::Control {
            listen: report.keep("control.listen", &now.control.listen, &control.listen),
            token: report.take("control.token", &now.control.token, control.token),
        },
        ledger: config::Ledger {
            store: report.keep("ledger", &now.ledger.store, &ledger.store),
            sync: report.keep("ledger.sync", &now.ledger.sync, &ledger.sync),
        },
        routes: self::routes(&mut report, now, routes, &upstreams),
        upstreams: groups(&mut report, &now.upstreams, upstreams),
        compression: report.take("compression", &now.compression, compression),
        error_pages: report.take("error_pages", &now.error_pages, error_pages),
        sales: self::sales(&mut report, &now.sales, sales),
        delivery,
        tracing: report.keep("tracing", &now.tracing, &tracing),
        access_log: report.keep("access_log", &now.access_log, &access_log),
        error_log: report.keep("error_log", &now.error_log, &error_log),
        request_id: report.keep("request_id", &now.request_id, &request_id),
    };
    // Kept settings are combined with new ones.
    config.check()?;
    Ok(Plan { config, report })
}

fn config_access(
    report: &mut Report,
    now: &crate::http::client::Access,
    wanted: crate::http::client::Access,
) -> crate::http::client::Access {
    crate::http::client::Access {
        allow: report.take("allow", &now.allow, wanted.allow),
        deny: report.take("deny", &now.deny, wanted.deny),
    }
}

/// Addresses stay; the options of each are applied.
fn listeners(report: &mut Report, now: &[Listener], wanted: Vec<Listener>) -> Vec<Listener> {
    let name = |listener: &Listener| format!("listen[{}]", listener.address);
    for new in wanted.iter().filter(|new| now.iter().all(|old| old.address != new.address)) {
        report.needs_restart(name(new));
    }
    let mut kept = |old: &Listener| match wanted.iter().find(|new| new.address == old.address) {
        Some(new) => report.take(name(old), old, new.clone()),
        None => {
            report.needs_restart(name(old));
            old.clone()
        }
    };
    now.iter().map(&mut kept).collect()
}

/// Deliveries continue unchanged. Their upstream keeps its name, but may have another position in the file.
fn kept_delivery(
    report: &mut Report,
    now: &Config,
    wanted: Option<config::Delivery>,
    groups: &[Upstream],
) -> Result<Option<config::Delivery>, Errors> {
    let named = |delivery: &config::Delivery, groups: &[Upstream]| groups[delivery.upstream].name.clone();
    let by_name = |delivery: &config::Delivery, groups: &[Upstream]| {
        (named(delivery, groups), config::Delivery { upstream: 0, ..delivery.clone() })
    };
    let old = now.delivery.as_ref().map(|delivery| by_name(delivery, &now.upstreams));
    if old != wanted.as_ref().map(|delivery| by_name(delivery, groups)) {
        report.needs_restart("delivery");
    }
    let Some((name, settings)) = old else { return Ok(None) };
    let Some(upstream) = groups.iter().position(|group| group.name == name) else {
        let why = format!("deliveries use the upstream {name} until the edge restarts, so the file must keep it");
        return Err(Errors::one("upstreams", why));
    };
    Ok(Some(config::Delivery { upstream, ..settings }))
}

fn groups(report: &mut Report, now: &[Upstream], wanted: Vec<Upstream>) -> Vec<Upstream> {
    let name = |group: &Upstream| format!("upstreams.{}", group.name);
    for gone in now.iter().filter(|old| wanted.iter().all(|new| new.name != old.name)) {
        report.changed(name(gone));
    }
    for new in &wanted {
        if !now.iter().any(|old| is_the_same_group(old, new)) {
            report.changed(name(new));
        }
    }
    wanted
}

/// Whether two upstreams have the same settings. The addresses of names do not count: they are looked up at run time.
#[must_use]
pub fn is_the_same_group(one: &Upstream, other: &Upstream) -> bool {
    let unresolved = |group: &Upstream| {
        let mut group = group.clone();
        group.servers.iter_mut().filter(|server| server.name.is_some()).for_each(|server| server.addresses.clear());
        group
    };
    unresolved(one) == unresolved(other)
}

/// Routes refer to upstreams by index, which may have changed.
fn routes(report: &mut Report, now: &Config, wanted: Vec<Route>, groups: &[Upstream]) -> Vec<Route> {
    let by_name = |route: &Route, groups: &[Upstream]| {
        let group = match &route.target {
            Target::Upstream(group) => groups.get(*group).map(|group| group.name.clone()),
            Target::Files(_) => None,
        };
        let target = if group.is_some() { Target::Upstream(0) } else { route.target.clone() };
        (group, Route { target, ..route.clone() })
    };
    if now.routes.len() == wanted.len() {
        for (index, (old, new)) in now.routes.iter().zip(&wanted).enumerate() {
            if by_name(old, &now.upstreams) != by_name(new, groups) {
                report.changed(format!("routes[{index}]"));
            }
        }
    } else {
        report.changed("routes");
    }
    wanted
}

/// Sales are neither added nor removed; each applies the settings that its purchases are judged by.
fn sales(report: &mut Report, now: &[Sale], wanted: Vec<Sale>) -> Vec<Sale> {
    for new in wanted.iter().filter(|new| now.iter().all(|old| old.id != new.id)) {
        report.needs_restart(format!("sales.{}", new.id));
    }
    let mut kept = |old: &Sale| match wanted.iter().find(|new| new.id == old.id) {
        Some(new) => sale(report, old, new.clone()),
        None => {
            report.needs_restart(format!("sales.{}", old.id));
            old.clone()
        }
    };
    now.iter().map(&mut kept).collect()
}

fn sale(report: &mut Report, now: &Sale, wanted: Sale) -> Sale {
    let name = |setting: &str| format!("sales.{}.{setting}", now.id);
    let Sale {
        id,
        path,
        key,
        total,
        local_stock,
        queue,
        deadline,
        hold,
        per_buyer,
        unpaid_per_buyer,
        buyer,
        buyer_limits,
        admission,
        opens_at_ms,
        closes_at_ms,
        seed_dialect,
        stat_log,
    } = wanted;
    Sale {
        id,
        path: report.keep(name("path"), &now.path, &path),
        key: report.keep(name("key"), &now.key, &key),
        total: report.take(name("total"), &now.total, total),
        local_stock: report.take(name("local_stock"), &now.local_stock, local_stock),
        queue: report.keep(name("queue"), &now.queue, &queue),
        deadline: report.take(name("deadline"), &now.deadline, deadline),
        hold: report.take(name("hold"), &now.hold, hold),
        per_buyer: report.take(name("per_buyer"), &now.per_buyer, per_buyer),
        unpaid_per_buyer: report.take(name("unpaid_per_buyer"), &now.unpaid_per_buyer, unpaid_per_buyer),
        buyer: report.take(name("buyer"), &now.buyer, buyer),
        buyer_limits: report.take(name("buyer_limits"), &now.buyer_limits, buyer_limits),
        admission: report.take(name("admission"), &now.admission, admission),
        opens_at_ms: report.take(name("opens_at"), &now.opens_at_ms, opens_at_ms),
        closes_at_ms: report.take(name("closes_at"), &now.closes_at_ms, closes_at_ms),
        seed_dialect: report.take(name("seed_dialect"), &now.seed_dialect, seed_dialect),
        stat_log: report.keep(name("stat_log"), &now.stat_log, &stat_log),
    }
}

#[cfg(test)]
mod tests;
