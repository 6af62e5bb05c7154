//! Switches a running edge to another configuration: everything that can change, or nothing.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::config::reload::{Report, is_the_same_group, plan};
use crate::config::{self, Config};
use crate::limits::{self, Limits};
use crate::sale::shop::Shop;
use crate::traffic::rules::{Current, Rules};
use crate::upstream::Upstream;

/// Reads the configuration file, or returns all of its errors.
pub type Read = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// What a reload replaces, and what it needs for that.
pub struct Reloader {
    read: Read,
    config: Config,
    rules: Current,
    limits: Arc<Limits>,
    shop: Arc<Shop>,
    groups: Vec<Group>,
    /// Runs the background work of upstreams.
    background: Handle,
    shutdown: watch::Receiver<bool>,
}

/// A running upstream.
struct Group {
    upstream: Arc<Upstream>,
    task: AbortHandle,
}

impl Reloader {
    /// Starts the background work of `upstreams`, which are those of `config` in the same order, until `shutdown`.
    #[expect(clippy::too_many_arguments, reason = "it is made once, of what there is")]
    pub fn new(
        read: Read,
        config: Config,
        upstreams: Vec<Arc<Upstream>>,
        rules: Current,
        limits: Arc<Limits>,
        shop: Arc<Shop>,
        background: Handle,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let begin = |upstream| Group::begin(upstream, &background, &shutdown);
        let groups = upstreams.into_iter().map(begin).collect();
        Self { read, config, rules, limits, shop, groups, background, shutdown }
    }

    /// The present configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the configuration again and applies what can change at run time. Everything that can fail comes first;
    /// until then nothing changes.
    ///
    /// # Errors
    /// All errors of the configuration; nothing has changed.
    pub async fn reload(&mut self) -> Result<Report, String> {
        let read = Arc::clone(&self.read);
        let wanted = tokio::task::spawn_blocking(move || read()).await.map_err(|error| error.to_string())??;
        let plan = plan(&self.config, wanted).map_err(|errors| errors.to_string())?;
        let (config, mut report) = (plan.config, plan.report);

        let upstream_of = |settings: &config::Upstream| match self.group(&settings.name) {
            Some(group) => Arc::clone(&group.upstream),
            None => Arc::new(Upstream::new(settings.clone())),
        };
        let upstreams: Vec<_> = config.upstreams.iter().map(upstream_of).collect();
        let before = self.rules.load_full();
        let rules = Rules::new(&config, &upstreams, Some(&before)).map_err(|error| error.to_string())?;
        for (old, new) in before.doors.iter().zip(&rules.doors) {
            if let (Some(old), Some(new_tls)) = (&old.tls, &new.tls)
                && !old.shows_the_same(new_tls)
            {
                report.changed(format!("listen[{}].tls.certificates", new.address));
            }
        }
        self.take_on(config, upstreams, rules);
        Ok(report)
    }

    /// Applies the new configuration; cannot fail.
    fn take_on(&mut self, config: Config, upstreams: Vec<Arc<Upstream>>, rules: Rules) {
        for settings in &config.upstreams {
            let before = self.config.upstreams.iter().find(|before| before.name == settings.name);
            if before.is_some_and(|before| !is_the_same_group(before, settings))
                && let Some(group) = self.group(&settings.name)
            {
                group.upstream.replace(settings.clone());
            }
        }
        self.limits.replace(&allowed(&self.config.limits), &allowed(&config.limits));
        for settings in &config.sales {
            let before = self.config.sales.iter().find(|before| before.id == settings.id);
            if before != Some(settings)
                && let Some(sale) = self.shop.sale(&settings.id)
            {
                sale.replace(settings.clone());
            }
        }
        self.rules.store(Arc::new(rules));
        // Requests under way still reach the upstreams that they were routed to; only the background work of removed
        // upstreams ends.
        let mut before = std::mem::take(&mut self.groups);
        for upstream in upstreams {
            let at = before.iter().position(|group| Arc::ptr_eq(&group.upstream, &upstream));
            self.groups.push(match at {
                Some(at) => before.swap_remove(at),
                None => Group::begin(upstream, &self.background, &self.shutdown),
            });
        }
        before.iter().for_each(|gone| gone.task.abort());
        self.config = config;
    }

    fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.upstream.settings().name == name)
    }
}

impl Group {
    fn begin(upstream: Arc<Upstream>, background: &Handle, shutdown: &watch::Receiver<bool>) -> Self {
        let task = background.spawn(Arc::clone(&upstream).run(shutdown.clone())).abort_handle();
        Self { upstream, task }
    }
}

/// The limits, reduced to what the system allows.
pub fn allowed(limits: &config::Limits) -> config::Limits {
    config::Limits { connections: limits::most_connections(limits.connections), ..limits.clone() }
}
