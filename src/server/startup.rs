//! Opens the ledger, its sales and their deliveries, and starts their background work.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, mpsc, watch};

use super::StartError;
use crate::auth::secret::Secret;
use crate::config::{self, Config, Store};
use crate::delivery::{Delivery, KnownError, Poster};
use crate::ledger::reconcile::Bookkeeper;
use crate::ledger::{Ledger, LedgerError, Outbox};
use crate::observe::error_log;
use crate::sale::shop::Shop;
use crate::sale::stat_log::StatLog;
use crate::sale::{Sale, SaleContext, batch, sync};
use crate::stores::embedded::EmbeddedLedger;
use crate::stores::redis::RedisLedger;
use crate::upstream::Upstream;

/// How often, and after which pause, a starting edge repeats its question to the order service: an order service that
/// is starting too answers a moment later.
const QUESTIONS_AGAIN: usize = 2;
const QUESTION_PAUSE: Duration = Duration::from_millis(200);

/// How long an edge that panicked waits for its last log lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The sales, the records of their ledger, and a delivery for each sale if there is an order service.
pub struct Opened {
    pub shop: Arc<Shop>,
    /// A proxy without sales has none.
    pub keeper: Option<Arc<dyn Bookkeeper>>,
    /// Set if only this edge can open the store.
    pub embedded: Option<Arc<EmbeddedLedger>>,
    /// One for each sale, if there is an order service.
    pub deliveries: Vec<Arc<Delivery>>,
}

/// Opens the ledger and every sale, and starts their background work on the present runtime.
pub async fn open_shop(config: &Config, poster: Option<Arc<Poster>>) -> Result<Opened, StartError> {
    if config.sales.is_empty() {
        return Ok(Opened {
            shop: Arc::new(Shop::new(Vec::new())),
            keeper: None,
            embedded: None,
            deliveries: Vec::new(),
        });
    }
    let mut embedded = None;
    let (ledger, outbox, keeper): (Arc<dyn Ledger>, Arc<dyn Outbox>, Arc<dyn Bookkeeper>) = match &config.ledger.store {
        Store::Embedded { path } => {
            let ledger = Arc::new(EmbeddedLedger::open(path, now_ms)?);
            embedded = Some(ledger.clone());
            (ledger.clone(), ledger.clone(), ledger)
        }
        Store::Redis(settings) => {
            let ledger = Arc::new(RedisLedger::open(settings).await?);
            (ledger.clone(), ledger.clone(), ledger)
        }
    };
    let memory = config.ledger.sync + sync::PATIENCE;
    let shared = Arc::new(SaleContext { ledger, sync_now: Notify::new(), synced: Notify::new(), memory });
    let mut sales = Vec::with_capacity(config.sales.len());
    for settings in &config.sales {
        let id = settings.id.clone();
        let stat_log = match &settings.stat_log {
            Some(path) => Some(StatLog::open(path).map_err(|source| StartError::StatLog {
                sale: id.clone(),
                path: path.clone(),
                source,
            })?),
            None => None,
        };
        let (sale, queue) = Sale::new(settings.clone(), Arc::clone(&shared), stat_log);
        open_sale(&sale, poster.as_deref()).await.map_err(|source| StartError::Sale { sale: id.clone(), source })?;
        tokio::spawn(essential(format!("sale {id}: its batches"), batch::run(Arc::clone(&sale), queue)));
        sales.push(sale);
    }
    let deliveries = deliveries(&sales, poster.as_ref(), &outbox, &keeper);
    compare(&deliveries).await?;
    sync::catch_up(&sales, &shared).await?;
    tokio::spawn(essential("the sync".to_owned(), sync::run(sales.clone(), shared, config.ledger.sync)));
    Ok(Opened { shop: Arc::new(Shop::new(sales)), keeper: Some(keeper), embedded, deliveries })
}

/// Opens a sale in the ledger, or creates it if a total is configured. A sale that the order service has orders of is
/// never created: the ledger has lost it, and its tickets would be sold twice.
async fn open_sale(sale: &Sale, order_service: Option<&Poster>) -> Result<(), LedgerError> {
    open_surely(sale, None).await?;
    if !sale.is_missing() {
        return Ok(());
    }
    let (id, rules) = (sale.id(), sale.rules());
    let settings = &rules.settings;
    let Some(total) = settings.total else {
        log::warn!("sale {id}: the ledger has no {}, and the configuration has no total to create it", settings.key);
        return Ok(());
    };
    if let Some(order_service) = order_service {
        match order_service.newest_of_any(id).await {
            Ok(0) | Err(KnownError::Unsupported(_)) => {}
            Ok(_) => {
                log::error!(
                    "sale {id}: the ledger has no {}, but the order service has orders of it; nothing is sold. \
                     To sell anew: spikegate sale open {id} --total {total}",
                    settings.key
                );
                return Ok(());
            }
            Err(KnownError::Failed(why)) => {
                log::warn!("sale {id}: creating the sale without knowing whether it was sold before: {why}");
            }
        }
    }
    open_surely(sale, Some(total)).await
}

/// Retries a call without an answer: machines that have just started are busy, and opening a sale twice is harmless.
async fn open_surely(sale: &Sale, total: Option<u64>) -> Result<(), LedgerError> {
    const TRIES: u32 = 5;
    for _ in 1..TRIES {
        match sale.open(total).await {
            Err(error @ LedgerError::Unknown(_)) => log::warn!("sale {}: {error}; retrying", sale.id()),
            outcome => return outcome,
        }
    }
    sale.open(total).await
}

/// Runs before anything is sold, because an edge that has just started remembers nothing itself.
async fn compare(deliveries: &[Arc<Delivery>]) -> Result<(), LedgerError> {
    for delivery in deliveries {
        let mut compared = delivery.compare().await;
        for _ in 0..QUESTIONS_AGAIN {
            if !matches!(compared, Ok(false)) {
                break;
            }
            tokio::time::sleep(QUESTION_PAUSE).await;
            compared = delivery.compare().await;
        }
        match compared {
            Ok(true) => {}
            // The delivery asks again.
            Ok(false) => {
                let sale = delivery.sale_id();
                log::warn!("sale {sale}: the order service did not answer whether the ledger has lost orders");
                break;
            }
            // The sync logs this, and sales whose data is damaged.
            Err(LedgerError::Fenced(_) | LedgerError::Damaged(_) | LedgerError::Missing) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The key that signs deliveries.
pub fn secret_of(delivery: &config::Delivery) -> Result<Secret, StartError> {
    let path = &delivery.secret_file;
    Secret::read_or_make(path).map_err(|source| StartError::Secret { path: path.clone(), source })
}

/// Posts to the order service, if there is one.
pub fn poster(config: &Config, secret: Option<Secret>, upstreams: &[Arc<Upstream>]) -> Option<Arc<Poster>> {
    let settings = config.delivery.as_ref()?;
    let upstream = Arc::clone(&upstreams[settings.upstream]);
    Some(Arc::new(Poster::new(upstream, settings.path.clone(), secret?, settings.timeout, now_ms)))
}

/// One for each sale, if there is an order service.
fn deliveries(
    sales: &[Arc<Sale>],
    poster: Option<&Arc<Poster>>,
    outbox: &Arc<dyn Outbox>,
    keeper: &Arc<dyn Bookkeeper>,
) -> Vec<Arc<Delivery>> {
    let Some(poster) = poster else { return Vec::new() };
    let edge: Arc<str> = edge_name().into();
    let delivery = |sale: &Arc<Sale>| {
        let (outbox, keeper, poster) = (Arc::clone(outbox), Arc::clone(keeper), Arc::clone(poster));
        Arc::new(Delivery::new(Arc::clone(sale), outbox, keeper, poster, Arc::clone(&edge)))
    };
    sales.iter().map(delivery).collect()
}

/// A unique name of this edge that operators can recognize: host name, process id and a random part.
fn edge_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
    format!("{host}:{}:{:08x}", std::process::id(), rand::random::<u32>())
}

/// Delivers until told to stop. `_alive` is dropped at the end.
pub async fn deliver(delivery: Arc<Delivery>, shutdown: watch::Receiver<bool>, _alive: mpsc::Sender<Infallible>) {
    delivery.run(shutdown).await;
}

/// The wall clock, for the embedded ledger. Times before 1970 count as 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A task without which the edge would answer from stale memory. If it panics, the process ends, which is safe at any
/// moment: every answered order is in the ledger, and the supervisor starts a working edge.
async fn essential(name: String, task: impl Future<Output = ()> + Send + 'static) {
    if let Err(end) = tokio::spawn(task).await
        && end.is_panic()
    {
        log::error!("{name} panicked, the edge stops: {end}");
        error_log::flush(LAST_LINES);
        std::process::exit(1);
    }
}
