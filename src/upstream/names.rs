//! Backends by name, which are looked up again at an interval.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::sleep;

use super::Upstream;
use crate::config::{self, Server};
use crate::resolver::Resolver;

impl Upstream {
    /// Looks up the names of the group at their interval. A name that cannot be resolved keeps its addresses.
    pub(super) async fn look_up_names(&self) {
        let mut replaced = self.replaced.subscribe();
        let mut unresolved = BTreeSet::new();
        loop {
            let settings = Arc::clone(&self.now.load().settings);
            let follow = async {
                if settings.servers.iter().all(|server| server.name.is_none()) {
                    std::future::pending::<()>().await;
                }
                sleep(settings.resolve.every).await;
                self.look_up(&settings, &mut unresolved).await;
            };
            tokio::select! {
                () = follow => {}
                // A lookup by older settings is discarded.
                gone = replaced.changed() => if gone.is_err() { return },
            }
        }
    }

    async fn look_up(&self, settings: &Arc<config::Upstream>, unresolved: &mut BTreeSet<String>) {
        let resolver = match Resolver::new(&settings.resolve.servers) {
            Ok(resolver) => resolver,
            Err(error) => return log::error!("upstream {}: cannot look up names: {error}", settings.name),
        };
        let mut servers = settings.servers.clone();
        for server in &mut servers {
            let Some(name) = &server.name else { continue };
            match resolver.addresses(name).await {
                Ok(found) => {
                    if unresolved.remove(name) {
                        log::info!("upstream {}: {name} resolves again", settings.name);
                    }
                    server.addresses = followed(&server.addresses, &found);
                }
                // Logged once per failure period.
                Err(error) if unresolved.insert(name.clone()) => {
                    log::warn!("upstream {}: {name} cannot be resolved, its addresses stay: {error}", settings.name);
                }
                Err(_) => {}
            }
        }
        if servers != settings.servers {
            self.tell_moves(settings, &servers);
            self.replace_servers(settings, servers);
        }
    }

    fn tell_moves(&self, settings: &config::Upstream, servers: &[Server]) {
        for (before, after) in settings.servers.iter().zip(servers).filter(|(before, after)| before != after) {
            let name = after.name.as_deref().unwrap_or_default();
            log::info!(
                "upstream {}: {name} now resolves to {:?}, before {:?}",
                settings.name,
                after.addresses,
                before.addresses
            );
        }
    }
}

/// The addresses `found`, those that were there `before` first and in their order. DNS servers rotate their answers,
/// which is no change.
fn followed(before: &[SocketAddr], found: &[SocketAddr]) -> Vec<SocketAddr> {
    let stay = before.iter().filter(|address| found.contains(address));
    let mut come: Vec<SocketAddr> = found.iter().filter(|address| !before.contains(address)).copied().collect();
    come.sort_unstable();
    stay.copied().chain(come).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_stay_keep_their_order_and_the_others_follow() {
        let all = |ports: &[u16]| -> Vec<SocketAddr> {
            ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
        };
        assert_eq!(followed(&all(&[3, 1, 2]), &all(&[2, 5, 1, 4])), all(&[1, 2, 4, 5]));
        assert_eq!(followed(&all(&[3, 1, 2]), &all(&[2, 3, 1])), all(&[3, 1, 2]));
        assert_eq!(followed(&[], &all(&[2, 1])), all(&[1, 2]));
    }
}
