//! A payment provider without money, for demos and tests.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;

use super::{Charge, Provider, ProviderError, ReportReceiver, Verdict};

/// Maximum delay; it must be below the worker's timeout for providers.
const SLOW_MAX: Duration = Duration::from_secs(7);

/// The demo's provider. Its outcome depends only on its settings: retries get the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoProvider {
    /// Approves every payment.
    Approve,
    /// Declines every payment.
    Decline,
    /// Approves every payment after a delay.
    Slow(Duration),
    /// Approves every payment three times: in two concurrent reports and in its response.
    Twice,
}

impl FromStr for DemoProvider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "demo" | "demo:approve" => return Ok(Self::Approve),
            "demo:decline" => return Ok(Self::Decline),
            "demo:twice" => return Ok(Self::Twice),
            _ => {}
        }
        let slow = text
            .strip_prefix("demo:slow=")
            .ok_or("must be demo[:approve], demo:decline, demo:slow=2s or demo:twice")?;
        let seconds = slow.strip_suffix('s').and_then(|seconds| seconds.parse::<f64>().ok());
        let time =
            seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).filter(|time| *time <= SLOW_MAX);
        time.map(Self::Slow).ok_or_else(|| format!("demo:slow= must be 0s to {SLOW_MAX:?}, such as 2s or 0.5s"))
    }
}

#[async_trait]
impl Provider for DemoProvider {
    async fn charge(&self, charge: &Charge, reports: &dyn ReportReceiver) -> Result<Verdict, ProviderError> {
        match self {
            Self::Approve => Ok(Verdict::Paid),
            Self::Decline => Ok(Verdict::Declined),
            Self::Slow(time) => {
                tokio::time::sleep(*time).await;
                Ok(Verdict::Paid)
            }
            Self::Twice => {
                let report = || reports.report(&charge.payment, Verdict::Paid);
                let (first, second) = tokio::join!(report(), report());
                first.and(second)?;
                Ok(Verdict::Paid)
            }
        }
    }

    async fn refund(&self, payment: &str) -> Result<(), ProviderError> {
        log::info!("refunded payment {payment}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_parsed() {
        assert_eq!("demo".parse(), Ok(DemoProvider::Approve));
        assert_eq!("demo:approve".parse(), Ok(DemoProvider::Approve));
        assert_eq!("demo:decline".parse(), Ok(DemoProvider::Decline));
        assert_eq!("demo:twice".parse(), Ok(DemoProvider::Twice));
        assert_eq!("demo:slow=0.5s".parse(), Ok(DemoProvider::Slow(Duration::from_millis(500))));
        for wrong in [
            "",
            "stripe",
            "demo:",
            "demo-decline",
            "demo:slow",
            "demo:slow=",
            "demo:slow=2",
            "demo:slow=-1s",
            "demo:slow=8s",
            "demo:slow=NaNs",
            "demo:slow=infs",
        ] {
            assert!(wrong.parse::<DemoProvider>().is_err(), "{wrong}");
        }
    }
}
