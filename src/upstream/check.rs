//! Active health checks: every backend is asked at its interval, whether it has requests or not.

use std::sync::Arc;
use std::time::Duration;

use pingora::{Error, ErrorType, Result};
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Upstream;
use super::health::Streak;
use crate::config::{HostHeader, Probe};

impl Upstream {
    /// Checks all backends, each by itself so that a slow one delays no other, until `shutdown` turns true or its
    /// sender is gone. Returns at once if the group has no checks.
    ///
    /// # Errors
    ///
    /// If the check cannot be made from the settings: a path or host that no request can carry.
    pub async fn run_checks(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) -> Result<()> {
        let Some(check) = self.check()? else {
            return Ok(());
        };
        let check: Arc<dyn HealthCheck + Send + Sync> = Arc::from(check);
        // The tasks end with the set.
        let mut tasks = JoinSet::new();
        for backend in 0..self.backends.len() {
            tasks.spawn(self.clone().check_backend(backend, check.clone()));
        }
        // An error is a sender that is gone, which ends the checks too.
        let _ = shutdown.wait_for(|&stop| stop).await;
        Ok(())
    }

    async fn check_backend(self: Arc<Self>, backend: usize, check: Arc<dyn HealthCheck + Send + Sync>) {
        let Some(settings) = &self.settings.health_check else {
            return;
        };
        // An address in its own notation always parses.
        let Ok(target) = Backend::new(&self.address(backend).to_string()) else {
            return;
        };
        let mut streak = Streak::new();
        loop {
            let outcome = match timeout(settings.timeout, check.check(&target)).await {
                Ok(outcome) => outcome.map_err(|error| reason(&error)),
                Err(_) => Err(format!("no answer within {:?}", settings.timeout)),
            };
            if let Some(good) = streak.checked(outcome.is_ok(), settings.rise, settings.fall) {
                self.checked(backend, good, &outcome.err().unwrap_or_else(|| "checks succeed".to_owned()));
            }
            tokio::time::sleep(settings.interval).await;
        }
    }

    /// The check that the settings ask for. How often it must agree is our business, not the check's.
    fn check(&self) -> Result<Option<Box<dyn HealthCheck + Send + Sync>>> {
        let Some(settings) = &self.settings.health_check else {
            return Ok(None);
        };
        Ok(Some(match &settings.probe {
            Probe::Tcp => {
                let mut check = TcpHealthCheck::new();
                check.peer_template.options.connection_timeout = Some(settings.timeout);
                check
            }
            Probe::Http { path } => Box::new(self.http_check(path, settings.timeout)?),
        }))
    }

    fn http_check(&self, path: &str, timeout: Duration) -> Result<HttpHealthCheck> {
        let host = match &self.settings.host_header {
            HostHeader::Upstream | HostHeader::Client => &self.settings.name,
            HostHeader::Literal(host) => host,
        };
        // The constructor panics if it cannot use the host, so it is given a harmless one first.
        let mut check = HttpHealthCheck::new("localhost", false);
        check.req.insert_header(http::header::HOST, host)?;
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
}

/// An error without the details that Pingora adds for each layer.
fn reason(error: &Error) -> String {
    match error.etype() {
        ErrorType::CustomCode(what, code) => format!("{what} {code}"),
        other => other.as_str().to_owned(),
    }
}
