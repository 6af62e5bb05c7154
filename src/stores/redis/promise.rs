//! Compares the settings of Redis with the durability that the configuration promises.

use ::redis::Value;

use crate::config::{self, Durability};
use crate::ledger::LedgerError;

/// The settings to read with CONFIG GET, in the order of [`ServerSettings::read`].
pub(super) const QUESTIONS: [&str; 5] =
    ["appendonly", "appendfsync", "maxmemory-policy", "maxmemory", "min-replicas-to-write"];

/// The answer of Redis; none where CONFIG GET is not allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ServerSettings {
    appendonly: Option<String>,
    appendfsync: Option<String>,
    policy: Option<String>,
    maxmemory: Option<String>,
    min_replicas: Option<u32>,
}

/// Compares, and logs the result.
///
/// # Errors
/// [`LedgerError::Unavailable`] if Redis is weaker than promised.
pub(super) fn check(
    settings: &config::Redis,
    address: &str,
    answers: &[Value],
    replicas: Option<&str>,
) -> Result<(), LedgerError> {
    let found = ServerSettings::read(answers);
    if let Some(weaker) = found.weaker(settings) {
        return Err(LedgerError::Unavailable(format!("Redis at {address} is weaker than ledger.redis says: {weaker}")));
    }
    log::info!("Redis at {address}: {}", found.loses());
    for warning in found.warnings(settings, replicas) {
        log::warn!("Redis at {address}: {warning}");
    }
    Ok(())
}

impl ServerSettings {
    fn read(answers: &[Value]) -> Self {
        let answer = |at: usize| {
            let value = match answers.get(at) {
                Some(Value::Array(pair)) => pair.get(1),
                Some(Value::Map(pairs)) => pairs.first().map(|(_, value)| value),
                _ => None,
            };
            match value {
                Some(Value::BulkString(text)) => Some(String::from_utf8_lossy(text).into_owned()),
                Some(Value::SimpleString(text)) => Some(text.clone()),
                _ => None,
            }
        };
        Self {
            appendonly: answer(0),
            appendfsync: answer(1),
            policy: answer(2),
            maxmemory: answer(3),
            min_replicas: answer(4).and_then(|count| count.parse().ok()),
        }
    }

    /// `None` if Redis does not allow it.
    fn durability(&self) -> Option<Durability> {
        Some(match (self.appendonly.as_deref()?, self.appendfsync.as_deref()) {
            ("yes", Some("always")) => Durability::Always,
            ("yes", Some("everysec")) => Durability::Everysec,
            _ => Durability::None,
        })
    }

    /// Sales have no TTL, so only these policies can evict one, and only if memory is limited.
    fn evicts(&self) -> Option<&str> {
        let has_limit = self.maxmemory.as_deref().is_some_and(|limit| limit != "0");
        self.policy.as_deref().filter(|policy| has_limit && policy.starts_with("allkeys"))
    }

    fn weaker(&self, settings: &config::Redis) -> Option<String> {
        let promised = settings.durability?;
        if self.durability().is_some_and(|found| found < promised) {
            let (appendonly, appendfsync) = (shown(&self.appendonly), shown(&self.appendfsync));
            let wants = if promised == Durability::Always { "always" } else { "everysec" };
            return Some(format!("durability: {wants}, but appendonly is {appendonly} and appendfsync {appendfsync}"));
        }
        let policy = self.evicts().filter(|_| promised > Durability::None)?;
        Some(format!("maxmemory-policy is {policy}, which may throw sales away; it has to be noeviction"))
    }

    fn loses(&self) -> String {
        let (appendonly, appendfsync) = (shown(&self.appendonly), shown(&self.appendfsync));
        let loses = match self.durability() {
            None => return "it may not be asked what it keeps on disk".to_owned(),
            Some(Durability::None) => "a crash of it may lose every order",
            Some(Durability::Everysec) => "a crash of its machine may lose about a second of orders",
            Some(Durability::Always) => "a crash loses no order that was answered, if its disk keeps its word",
        };
        format!("appendonly {appendonly}, appendfsync {appendfsync}: {loses}")
    }

    fn warnings(&self, settings: &config::Redis, replicas: Option<&str>) -> Vec<String> {
        let mut warnings = Vec::new();
        if settings.durability.is_some() && self.durability().is_none() {
            warnings.push("CONFIG GET is not allowed, so ledger.redis.durability cannot be checked".to_owned());
        }
        if let Some(policy) = self.evicts() {
            warnings.push(format!("maxmemory-policy is {policy}, which may throw sales away; set it to noeviction"));
        }
        if let Some(config::Replicas { acknowledge, .. }) = &settings.replicas {
            if self.min_replicas.is_some_and(|least| least < *acknowledge) {
                warnings.push(format!(
                    "min-replicas-to-write is below {acknowledge}: a primary that is cut off goes on taking writes"
                ));
            }
            let there = replicas.and_then(|count| count.parse::<u32>().ok());
            if let Some(there) = there.filter(|there| there < acknowledge) {
                warnings.push(format!("it has {there} replicas, and {acknowledge} have to acknowledge each step"));
            }
        }
        warnings
    }
}

fn shown(setting: &Option<String>) -> &str {
    setting.as_deref().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn found(appendonly: &str, appendfsync: &str, policy: &str, maxmemory: &str) -> ServerSettings {
        let pair = |value: &str| {
            let text = |text: &str| Value::BulkString(text.into());
            Value::Array(vec![text("name"), text(value)])
        };
        ServerSettings::read(&[pair(appendonly), pair(appendfsync), pair(policy), pair(maxmemory), pair("0")])
    }

    fn promising(durability: Option<Durability>) -> config::Redis {
        config::Redis { durability, ..config::Redis::at(String::new(), Duration::ZERO, Duration::ZERO) }
    }

    #[test]
    fn what_is_weaker_is_told_with_its_reason() {
        use Durability::{Always, Everysec};
        let all = [found("no", "always", "noeviction", "0"), found("yes", "no", "noeviction", "0")];
        let everysec = found("yes", "everysec", "noeviction", "1000");
        let always = found("yes", "always", "volatile-lru", "1000");
        for none in &all {
            assert!(none.weaker(&promising(Some(Everysec))).is_some_and(|why| why.contains("durability: everysec")));
            assert_eq!(none.weaker(&promising(Some(Durability::None))), None);
            assert_eq!(none.weaker(&promising(None)), None);
        }
        assert!(everysec.weaker(&promising(Some(Always))).is_some_and(|why| why.contains("appendfsync everysec")));
        assert_eq!(everysec.weaker(&promising(Some(Everysec))), None);
        assert_eq!(always.weaker(&promising(Some(Always))), None);
    }

    #[test]
    fn a_policy_that_throws_sales_away_is_refused_under_a_promise_and_warned_of_without() {
        let evicting = found("yes", "always", "allkeys-lru", "1000");
        let why = evicting.weaker(&promising(Some(Durability::Everysec)));
        assert!(why.is_some_and(|why| why.contains("allkeys-lru")));
        assert_eq!(evicting.weaker(&promising(None)), None);
        assert!(evicting.warnings(&promising(None), None)[0].contains("allkeys-lru"));
        let unlimited = found("yes", "always", "allkeys-lru", "0");
        assert_eq!(unlimited.weaker(&promising(Some(Durability::Always))), None);
        assert!(unlimited.warnings(&promising(None), None).is_empty());
    }

    #[test]
    fn what_may_not_be_asked_is_a_warning() {
        let silent = ServerSettings::read(&[]);
        assert_eq!(silent.weaker(&promising(Some(Durability::Always))), None);
        assert!(silent.warnings(&promising(Some(Durability::Always)), None)[0].contains("CONFIG GET"));
        assert!(silent.warnings(&promising(None), None).is_empty());
    }
}
