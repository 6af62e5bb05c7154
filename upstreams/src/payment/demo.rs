//! A provider without money, that does what it is told to.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;

use super::{Charge, NoAnswer, Provider, Reports, Verdict};

/// The longest delay; a provider that takes longer is taken to have given no answer.
const SLOW_MAX: Duration = Duration::from_secs(7);

/// The demo's provider. Its verdict depends on nothing but its settings, so it is the same however often it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demo {
    /// Takes every payment.
    Approve,
    /// Takes none.
    Decline,
    /// Takes every payment after a while.
    Slow(Duration),
    /// Takes every payment, and says so three times: in two reports at once, and in its answer.
    Twice,
}

impl FromStr for Demo {
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
impl Provider for Demo {
    async fn charge(&self, charge: &Charge, reports: &dyn Reports) -> Result<Verdict, NoAnswer> {
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

    async fn refund(&self, payment: &str) -> Result<(), NoAnswer> {
        log::info!("payment {payment} was given back");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_what_to_do_by_a_word() {
        assert_eq!("demo".parse(), Ok(Demo::Approve));
        assert_eq!("demo:approve".parse(), Ok(Demo::Approve));
        assert_eq!("demo:decline".parse(), Ok(Demo::Decline));
        assert_eq!("demo:twice".parse(), Ok(Demo::Twice));
        assert_eq!("demo:slow=0.5s".parse(), Ok(Demo::Slow(Duration::from_millis(500))));
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
            assert!(wrong.parse::<Demo>().is_err(), "{wrong}");
        }
    }
}
