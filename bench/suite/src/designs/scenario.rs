//! What each design goes through: a sale to its end under full load, and a population of which some never pay.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::designs::shop::{Bought, Cpu, Design, Shop, Until};
use crate::testbed::Places;

/// Orders that are made before anything is measured, so that connections are there and caches are warm.
const WARM_UP: usize = 500;
/// How long refusals are measured.
const REFUSE: Duration = Duration::from_secs(2);
/// Longer than a sale under load takes.
const LONG_HOLD: Duration = Duration::from_secs(600);
/// Of ten orders so many are never paid.
const NEVER_PAID_OF_10: usize = 3;
/// Buyers for each ticket of the population.
const BUYERS_PER_TICKET: usize = 3;
/// Buyers who come once those have paid who do, and before the holds end.
const NEWCOMERS: usize = 200;
/// How much later than the end of a hold its ticket must be for sale.
const SWEEP: Duration = Duration::from_secs(1);

/// What is measured under load, in the order in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    SellRate,
    SellP50,
    SellP99,
    EdgeCpu,
    RedisCpu,
    OrdersCpu,
    PostgresCpu,
    AllCpu,
    SellBusy,
    Lag,
    RefuseRate,
    RefuseP50,
    RefuseP99,
    RefuseCpu,
    RefuseBusy,
}

/// One run, or the medians of several. Rates are per second, latencies in ms, processor times in µs, and how
/// busy the servers' core is in %.
pub type Load = BTreeMap<Measure, f64>;

/// One sale: so many tickets are sold as fast as can be, then everybody is refused.
pub fn load(places: &Places, design: Design, tickets: usize) -> Result<Load, String> {
    let mut shop = Shop::open(places, design, tickets + WARM_UP, LONG_HOLD)?;
    let warm = all_ordered(shop.buy(Until::Buyers(WARM_UP))?)?;
    shop.await_rows("HELD", WARM_UP)?;

    let before = shop.cpu();
    let bought = all_ordered(shop.buy(Until::Buyers(tickets))?)?;
    let sold = shop.cpu();
    let lag = shop.await_rows("HELD", tickets + WARM_UP)?;
    let after = shop.cpu();
    let mut load = Load::new();
    load.insert(Measure::SellRate, tickets as f64 / bought.timing.wall.as_secs_f64());
    load.insert(Measure::SellP50, bought.timing.latency(0.5) / 1e3);
    load.insert(Measure::SellP99, bought.timing.latency(0.99) / 1e3);
    let each = |from: fn(&Cpu) -> Duration| (from(&after) - from(&before)).as_secs_f64() * 1e6 / tickets as f64;
    load.insert(Measure::OrdersCpu, each(|cpu| cpu.orders));
    load.insert(Measure::PostgresCpu, each(|cpu| cpu.postgres));
    if design.has_edge() {
        load.insert(Measure::EdgeCpu, each(|cpu| cpu.edge));
        load.insert(Measure::RedisCpu, each(|cpu| cpu.redis));
        load.insert(Measure::Lag, lag.as_secs_f64() * 1e3);
    }
    load.insert(Measure::AllCpu, each(Cpu::all));
    load.insert(Measure::SellBusy, busy(before, sold, bought.timing.wall));

    if design == Design::PayFirst {
        // Before everything is paid it refuses nobody.
        for orders in [&warm.orders, &bought.orders] {
            let paid = shop.pay(orders)?;
            if (paid.paid, paid.refunds) != (orders.len(), 0) {
                return Err(format!("of {} payments {} had a ticket", orders.len(), paid.paid));
            }
        }
    }
    let before = shop.cpu();
    let bought = shop.buy(Until::Time(REFUSE))?;
    let after = shop.cpu();
    if !bought.orders.is_empty() || shop.sold()? != (tickets + WARM_UP) as u64 {
        return Err(format!("it sold {} more than there was", bought.orders.len()));
    }
    load.insert(Measure::RefuseRate, bought.refused as f64 / bought.timing.wall.as_secs_f64());
    load.insert(Measure::RefuseP50, bought.timing.latency(0.5) / 1e3);
    load.insert(Measure::RefuseP99, bought.timing.latency(0.99) / 1e3);
    load.insert(Measure::RefuseCpu, (after.all() - before.all()).as_secs_f64() * 1e6 / bought.refused as f64);
    load.insert(Measure::RefuseBusy, busy(before, after, bought.timing.wall));
    Ok(load)
}

/// How much of its core the servers had, in %.
fn busy(before: Cpu, after: Cpu, wall: Duration) -> f64 {
    (after.all() - before.all()).as_secs_f64() * 100.0 / wall.as_secs_f64()
}

fn all_ordered(bought: Bought) -> Result<Bought, String> {
    if bought.refused == 0 { Ok(bought) } else { Err(format!("{} were refused too early", bought.refused)) }
}

/// What became of a population's orders.
#[derive(Debug)]
pub struct PopulationResult {
    /// Orders that were made before anybody paid.
    pub orders: usize,
    /// Those of them for which there is no ticket.
    pub beyond: usize,
    /// Paid, and there was a ticket.
    pub paid: usize,
    /// Paid for nothing.
    pub refunds: usize,
    /// Payments answered per second.
    pub pay_rate: f64,
    /// Processor time of all servers for each of them, in µs.
    pub pay_cpu: f64,
    /// Tickets that nobody could buy when all had paid who did, although nobody had paid for them.
    pub abandoned: usize,
    /// Of these, those that were sold and paid after the holds had ended.
    pub returned: usize,
    /// Tickets that are paid in the end.
    pub paid_in_the_end: u64,
}

/// Three buyers for each ticket come, and of ten orders three are never paid. After the holds others come.
pub fn population(places: &Places, design: Design, tickets: usize, hold: Duration) -> Result<PopulationResult, String> {
    let mut shop = Shop::open(places, design, tickets, hold)?;
    let begun = Instant::now();
    let first = shop.buy(Until::Buyers(BUYERS_PER_TICKET * tickets))?;
    let sold_out = Instant::now();
    shop.await_rows("HELD", first.orders.len())?;
    let payers: Vec<String> =
        first.orders.iter().enumerate().filter(|(n, _)| n % 10 >= NEVER_PAID_OF_10).map(|(_, id)| id.clone()).collect();
    let before = shop.cpu();
    let paid = shop.pay(&payers)?;
    let after = shop.cpu();
    let abandoned = (shop.sold()? as usize).checked_sub(paid.paid).ok_or("more is paid than sold")?;
    let newcomers = shop.buy(Until::Buyers(NEWCOMERS))?;
    if begun.elapsed() >= hold {
        return Err(format!("the machine is too slow for holds of {hold:?}: {:?} have passed", begun.elapsed()));
    }
    if !newcomers.orders.is_empty() {
        return Err(format!("{} newcomers bought what was sold out", newcomers.orders.len()));
    }
    sleep((hold + SWEEP).saturating_sub(sold_out.elapsed()));
    let second = shop.buy(Until::Buyers(tickets))?;
    if design.has_edge() {
        // The first wave's unpaid ones have been released by now.
        shop.await_rows("HELD", second.orders.len())?;
    }
    let returned = shop.pay(&second.orders)?;
    let paid_in_the_end = shop.rows("PAID")?;
    if paid_in_the_end != (paid.paid + returned.paid) as u64 || paid_in_the_end > tickets as u64 {
        return Err(format!(
            "the database has {paid_in_the_end} paid orders, and buyers {}",
            paid.paid + returned.paid
        ));
    }
    Ok(PopulationResult {
        orders: first.orders.len(),
        beyond: first.orders.len().saturating_sub(tickets),
        paid: paid.paid,
        refunds: paid.refunds,
        pay_cpu: (after.all() - before.all()).as_secs_f64() * 1e6 / payers.len() as f64,
        pay_rate: payers.len() as f64 / paid.timing.wall.as_secs_f64(),
        abandoned,
        returned: returned.paid,
        paid_in_the_end,
    })
}
