//! Active health checks: every backend is probed at its interval, with or without requests.

use std::sync::Arc;
use std::time::Duration;

use pingora::{Error, ErrorType, Result};
use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Upstream;
use super::backend::Backend;
use super::health::Streak;
use crate::config::{self, Probe};

impl Upstream {
    /// Checks all backends, each in its own task so that a slow one delays no other, including those that are added
    /// later.
    pub(super) async fn check_all(self: &Arc<Self>) {
        let mut replaced = self.replaced.subscribe();
        loop {
            // The tasks end with the set.
            let mut tasks = JoinSet::new();
            self.begin_checks(&mut tasks);
            if replaced.changed().await.is_err() {
                return;
            }
        }
    }

    fn begin_checks(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        let settings = self.settings();
        let check = match http_or_tcp(&settings) {
            Ok(Some(check)) => Arc::<dyn HealthCheck + Send + Sync>::from(check),
            Ok(None) => return,
            // A path or host that no request can carry; the reader of the settings refuses those.
            Err(error) => return log::error!("upstream {}: cannot run health checks: {error}", settings.name),
        };
        let (state, now) = (self.state(), self.now.load());
        let members = now.members.iter().zip(&state.states);
        for (member, state) in members.filter(|(member, _)| !member.server.down) {
            let streak = Streak::new(!state.health.is_out());
            tasks.spawn(Arc::clone(self).check_backend(Arc::clone(&member.backend), streak, Arc::clone(&check)));
        }
    }

    async fn check_backend(
        self: Arc<Self>,
        backend: Arc<Backend>,
        mut streak: Streak,
        check: Arc<dyn HealthCheck + Send + Sync>,
    ) {
        let Some(settings) = self.settings().health_check.clone() else {
            return;
        };
        // An address in its own notation always parses.
        let Ok(target) = Target::new(&backend.address().to_string()) else {
            return;
        };
        loop {
            let outcome = match timeout(settings.timeout, check.check(&target)).await {
                Ok(outcome) => outcome.map_err(|error| reason(&error)),
                Err(_) => Err(format!("no answer within {:?}", settings.timeout)),
            };
            if let Some(good) = streak.checked(outcome.is_ok(), settings.rise, settings.fall) {
                self.checked(&backend, good, &outcome.err().unwrap_or_else(|| "checks succeed".to_owned()));
            }
            tokio::time::sleep(settings.interval).await;
        }
    }
}

/// The configured probe. `rise` and `fall` are applied here, not by the probe.
fn http_or_tcp(upstream: &config::Upstream) -> Result<Option<Box<dyn HealthCheck + Send + Sync>>> {
    let Some(settings) = &upstream.health_check else {
        return Ok(None);
    };
    Ok(Some(match &settings.probe {
        Probe::Tcp => {
            let mut check = TcpHealthCheck::new();
            check.peer_template.options.connection_timeout = Some(settings.timeout);
            check
        }
        Probe::Http { path } => Box::new(http_check(upstream, path, settings.timeout)?),
    }))
}

fn http_check(upstream: &config::Upstream, path: &str, timeout: Duration) -> Result<HttpHealthCheck> {
    // The constructor panics for an invalid host, so it gets a harmless one first.
    let mut check = HttpHealthCheck::new("localhost", false);
    check.req.insert_header(http::header::HOST, upstream.default_host())?;
    check.req.set_raw_path(path.as_bytes())?;
    check.peer_template.options.connection_timeout = Some(timeout);
    check.peer_template.options.read_timeout = Some(timeout);
    check.peer_template.options.write_timeout = Some(timeout);
    check.validator = Some(Box::new(|answer| match answer.status.as_u16() {
        200..=399 => Ok(()),
        status => Error::e_explain(ErrorType::CustomCode("status", status), "not 200 to 399"),
    }));
    Ok(check)
}

/// An error without the details of Pingora's layers.
fn reason(error: &Error) -> String {
    match error.etype() {
        ErrorType::CustomCode(what, code) => format!("{what} {code}"),
        other => other.as_str().to_owned(),
    }
}
