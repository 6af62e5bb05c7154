//! What a request is judged by, apart from the sales: everything of the configuration that a reload replaces as one.
//!
//! Whoever begins with a request reads it once and goes on with what was read: a request that began by old rules ends
//! by them. Reading takes no lock ([`ArcSwap`]). What the rules are made of is made before any of it is used, so that a
//! file that is wrong changes nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;

use crate::config::{self, BuyerSource, ClientTimeouts, Compression, Config, ErrorPage, Route, Target};
use crate::http::client::{Access, Clients};
use crate::limits::Quota;
use crate::traffic::door::Door;
use crate::traffic::files::Folder;
use crate::traffic::request_error::RequestErrorLog;
use crate::traffic::tls;
use crate::upstream::Upstream;

/// The longest that a connection on which nothing is under way is kept for one more request when the edge stops: many
/// times the way there and back. See [`Rules::farewell`].
const FAREWELL: Duration = Duration::from_secs(1);

/// The rules as of now.
pub type Current = Arc<ArcSwap<Rules>>;

/// The rules of one configuration.
pub struct Rules {
    /// Who asks.
    pub clients: Clients,
    /// Which clients are served at all.
    pub access: Access,
    /// Waits on the client's side.
    pub client: ClientTimeouts,
    /// How long a connection between two requests stays when the edge stops. A client that has sent its next request
    /// just now is answered, and told that it was the last; closing at once would lose that request. Half of the
    /// shutdown's grace at most, so that there is time for the answer.
    pub farewell: Duration,
    /// Where requests go; the first that matches is taken.
    pub routes: Vec<Route>,
    /// One for each route that serves files.
    pub folders: Vec<Option<Folder>>,
    /// What each client may take, in the order of `routes`.
    pub quotas: Vec<Arc<Quota>>,
    /// Headers in which our own proxies say who buys. Of anybody else they go no further.
    pub proxy_headers: Vec<String>,
    /// Groups of backends; routes refer to them by index.
    pub groups: Vec<Group>,
    /// How answers are compressed.
    pub compression: Option<Compression>,
    /// What clients get with an error.
    pub pages: Vec<ErrorPage>,
    /// How each listener takes connections in, in the order of the listeners.
    pub doors: Vec<Arc<Door>>,
    /// What the control listener asks for.
    pub token: Option<String>,
}

/// A group of backends and what the proxy keeps for it.
pub struct Group {
    /// The backends.
    pub upstream: Arc<Upstream>,
    /// What they see as `Host`, unless that is the client's.
    pub host: HeaderValue,
    /// Failures of requests.
    pub log: RequestErrorLog,
}

/// What cannot be made of the settings.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A group whose `Host` has characters that no header can carry.
    #[error("upstreams.{0}: host_header cannot be sent in a header")]
    Host(String),
    /// A route's folder, which was there when the settings were read.
    #[error("routes[{0}].files.root cannot be opened: {1}")]
    Folder(usize, io::Error),
    /// TLS cannot be offered.
    #[error("cannot enable TLS: {0}")]
    Tls(#[from] tls::Error),
}

impl Rules {
    /// The rules of `config` for requests to `upstreams`, which are its groups in the same order. Of what is as it was
    /// `before`, that goes on: what clients have taken of routes, and sessions of TLS.
    ///
    /// # Errors
    /// If a group's `Host` cannot be sent in a header, a folder is gone, or TLS cannot be offered.
    pub fn new(config: &Config, upstreams: &[Arc<Upstream>], before: Option<&Self>) -> Result<Self, BuildError> {
        let group = |(settings, upstream): (&config::Upstream, &Arc<Upstream>)| {
            let host =
                HeaderValue::from_str(settings.default_host()).map_err(|_| BuildError::Host(settings.name.clone()))?;
            Ok::<_, BuildError>(Group { upstream: Arc::clone(upstream), host, log: RequestErrorLog::default() })
        };
        let folder = |(index, route): (usize, &Route)| match &route.target {
            Target::Files(files) => Folder::open(files).map(Some).map_err(|error| BuildError::Folder(index, error)),
            Target::Upstream(_) => Ok(None),
        };
        let door = |(index, listener): (usize, &config::Listener)| {
            Door::new(listener, before.and_then(|before| before.doors.get(index)).map(|door| &**door)).map(Arc::new)
        };
        Ok(Self {
            clients: Clients::new(config.trusted_proxies.clone(), config.client_address),
            access: config.access.clone(),
            client: config.client.clone(),
            farewell: FAREWELL.min(config.shutdown_grace / 2),
            folders: config.routes.iter().enumerate().map(folder).collect::<Result<_, _>>()?,
            quotas: config.routes.iter().map(|route| quota(route, before)).collect(),
            routes: config.routes.clone(),
            proxy_headers: config.sales.iter().filter_map(proxy_header).collect(),
            groups: config.upstreams.iter().zip(upstreams).map(group).collect::<Result<_, _>>()?,
            compression: config.compression.clone(),
            pages: config.error_pages.clone(),
            doors: config.listen.iter().enumerate().map(door).collect::<Result<_, _>>()?,
            token: config.control.token.clone(),
        })
    }
}

/// What clients may take of a route: that of a route for the same requests with the same limits, if there was one.
fn quota(route: &Route, before: Option<&Rules>) -> Arc<Quota> {
    let is_the_same =
        |(old, _): &(&Route, _)| (&old.hosts, &old.path, old.limits) == (&route.hosts, &route.path, route.limits);
    let kept = before.and_then(|before| before.routes.iter().zip(&before.quotas).find(is_the_same));
    kept.map_or_else(|| Arc::new(Quota::new(&route.limits)), |(_, quota)| Arc::clone(quota))
}

fn proxy_header(sale: &config::Sale) -> Option<String> {
    match &sale.buyer {
        BuyerSource::ProxyHeader(name) => Some(name.clone()),
        _ => None,
    }
}
