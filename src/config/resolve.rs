//! Names of backends -> addresses: the one step of a start or reload that needs a network.

use super::upstream::Unresolved;
use super::{Config, Errors};
use crate::resolver;

impl Config {
    /// Looks up the names of all backends, and checks again the relations between settings: two servers may turn out to
    /// have the same address.
    ///
    /// # Errors
    /// Every name that has no address, unless its upstream says `unresolved: wait`, and what [`Config::check`] finds.
    pub fn resolve(&mut self) -> Result<(), Errors> {
        let mut errors = Errors::default();
        for upstream in &mut self.upstreams {
            for (index, server) in upstream.servers.iter_mut().enumerate() {
                let Some(name) = &server.name else { continue };
                match resolver::addresses_now(name, &upstream.resolve.servers) {
                    Ok(addresses) => server.addresses = addresses,
                    Err(_) if upstream.resolve.unresolved == Unresolved::Wait => server.addresses.clear(),
                    Err(error) => {
                        let path = format!("upstreams.{}.servers[{index}].address", upstream.name);
                        errors.push(&path, format!("{name} cannot be resolved: {error}"));
                    }
                }
            }
        }
        if errors.0.is_empty() { self.check() } else { Err(errors) }
    }
}
