//! The records of a sale in Redis: reads all of them, page by page, and repairs them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ::redis::Value;
use async_trait::async_trait;

use super::keys::Keys;
use super::reply::{self, Reader, damaged, parse};
use super::scripts::{Call, SCRIPTS};
use super::{RedisLedger, made_but_unread};
use crate::ledger::model::{Holdings, SaleModel};
use crate::ledger::reconcile::{Bookkeeper, Books, Recount, Witness};
use crate::ledger::{Change, Ledger, LedgerError, LogEntry, Order, OrderId, OrderState, SaleState, Terms};

/// Entries of one command; each may list hundreds of orders.
const LOG_PAGE: usize = 64;

/// How many elements Redis checks in one step of a scan.
const SCAN_PAGE: usize = 512;

impl RedisLedger {
    /// Every field and value of a hash. Concurrent writes may be included or not.
    async fn scan(
        &self,
        key: &str,
        mut take: impl FnMut(&str, &Value) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let mut cursor = "0".to_owned();
        loop {
            let mut command = ::redis::cmd("HSCAN");
            command.arg(key).arg(&cursor).arg("COUNT").arg(SCAN_PAGE);
            let page = self.ask(&command).await?;
            let mut reader = Reader::of(&page)?;
            cursor = reader.text()?.to_owned();
            let mut fields = Reader::of(reader.next()?)?;
            while !fields.is_empty() {
                take(fields.text()?, fields.next()?)?;
            }
            if cursor == "0" {
                return Ok(());
            }
        }
    }

    /// Orders with a deadline. They are read by rank, so a concurrent sweep may hide some; a fenced sale has no sweeps.
    async fn deadlines(&self, key: &str) -> Result<HashSet<OrderId>, LedgerError> {
        let mut due = HashSet::new();
        for from in (0..).step_by(SCAN_PAGE) {
            let mut command = ::redis::cmd("ZRANGE");
            command.arg(key).arg(from).arg(from + SCAN_PAGE - 1);
            let page = self.ask(&command).await?;
            let mut steps = Reader::of(&page)?;
            if steps.is_empty() {
                break;
            }
            while !steps.is_empty() {
                for id in steps.text()?.split(' ').skip(1) {
                    due.insert(parse(id, "an order's id")?);
                }
            }
        }
        Ok(due)
    }

    /// Every entry after `after`, up to `to` if that is not 0, without gaps.
    async fn every_entry(
        &self,
        sale: &str,
        after: u64,
        to: u64,
        mut take: impl FnMut(&LogEntry),
    ) -> Result<u64, LedgerError> {
        let mut last = after;
        while to == 0 || last < to {
            let page = self.log(sale, last, LOG_PAGE).await?;
            if page.is_empty() {
                break;
            }
            for entry in page {
                if to != 0 && entry.seq > to {
                    return Ok(last);
                }
                if entry.seq != last + 1 {
                    let (from, to) = (last + 1, entry.seq - 1);
                    return Err(damaged(&format!("entries {from} to {to} are gone from the log")));
                }
                last = entry.seq;
                take(&entry);
            }
        }
        if last < to {
            return Err(damaged(&format!("entries {} to {to} are gone from the log", last + 1)));
        }
        Ok(last)
    }

    async fn step_of_books(&self, call: Call) -> Result<u64, LedgerError> {
        match self.ask(&call.command()).await? {
            Value::Int(number) => u64::try_from(number).map_err(|_| made_but_unread(damaged("a number is below 0"))),
            other => Err(made_but_unread(damaged(&format!("a number was expected, not {other:?}")))),
        }
    }
}

/// The orders that an entry concerns.
fn orders_of(entry: &LogEntry) -> Vec<OrderId> {
    match &entry.change {
        Change::Held { orders, .. } | Change::Released { orders, .. } => orders.iter().map(|line| line.order).collect(),
        Change::Restored { orders } => orders.iter().map(|(id, _)| *id).collect(),
        Change::Paid { line, .. } => vec![line.order],
        Change::GivenUp { order } => vec![*order],
        Change::Opened { .. } | Change::State { .. } | Change::Stock { .. } | Change::Lost => Vec::new(),
    }
}

/// "STATE QUANTITY EXPIRES_AT_MS DETAIL BUYER"; see `lua/sale.lua`.
pub(super) fn record(order: &Order) -> String {
    let (state, detail) = match order.state {
        OrderState::Held => ("HELD", "-"),
        OrderState::Paid => ("PAID", order.payment.as_ref().map_or("-", |payment| payment.as_str())),
        OrderState::Released => ("RELEASED", order.reason.map_or("expired", reply::reason_name)),
    };
    let buyer = order.buyer.as_deref().unwrap_or_default();
    format!("{state} {} {} {detail} {buyer}", order.quantity, order.expires_at_ms)
}

#[async_trait]
impl Bookkeeper for RedisLedger {
    async fn fence(&self, sale: &str, epoch: u64, why: &str) -> Result<(), LedgerError> {
        let line = self.link.line().await?;
        self.fence_over(&line, sale, epoch, why).await
    }

    async fn books(&self, sale: &str, epoch: u64) -> Result<Books, LedgerError> {
        let keys = Keys::of(sale);
        // Counters and version at one moment. The log is replayed up to that version, so that both can be compared.
        let view = self.snapshot(sale, &Terms::default()).await?;
        if view.epoch != epoch {
            return Err(LedgerError::Changed);
        }
        let mut command = ::redis::cmd("HGET");
        let fence = match self.ask(command.arg(keys.hash()).arg("fence")).await? {
            Value::BulkString(why) => Some(String::from_utf8_lossy(&why).into_owned()),
            _ => None,
        };
        let mut replayed = SaleModel::new(epoch);
        let mut last_entries = HashMap::new();
        self.every_entry(sale, 0, view.version, |entry| {
            replayed.apply(entry);
            last_entries.extend(orders_of(entry).into_iter().map(|id| (id, entry.seq)));
        })
        .await?;

        let mut orders = HashMap::new();
        self.scan(&keys.orders(), |id, value| {
            orders.insert(parse(id, "an order's id")?, reply::order(value)?);
            Ok(())
        })
        .await?;
        let mut buyers = HashMap::new();
        self.scan(&keys.buyers(), |name, value| {
            let has = reply::holdings(value)?;
            buyers.insert(Arc::from(name), has);
            Ok(())
        })
        .await?;
        let due = self.deadlines(&keys.due()).await?;

        let mut changed = HashSet::new();
        self.every_entry(sale, view.version, 0, |entry| changed.extend(orders_of(entry))).await?;
        Ok(Books {
            version: view.version,
            total: view.total,
            sold: view.sold,
            paid: view.paid,
            now_ms: view.now_ms,
            fence,
            state: view.state,
            orders,
            buyers,
            due,
            replayed,
            last_entries,
            changed,
        })
    }

    fn remembered(&self, sale: &str) -> Option<Witness> {
        self.with(sale, |ward| {
            let (mut state, mut stock) = (None, Vec::new());
            for entry in ward.memory.entries() {
                match &entry.change {
                    Change::State { state: decided } => state = Some(*decided),
                    Change::Stock { change_id, delta } => stock.push((Arc::clone(change_id), *delta)),
                    _ => {}
                }
            }
            // A log that is read again reports all of them again.
            stock.sort();
            stock.dedup();
            let (version, orders) = (ward.memory.acknowledged_version(), ward.memory.orders());
            Witness { name: "this edge", version, orders, state, stock }
        })
    }

    async fn restore(
        &self,
        sale: &str,
        epoch: u64,
        version: u64,
        lost: u64,
        orders: &[(OrderId, Order)],
    ) -> Result<u64, LedgerError> {
        let keys = Keys::of(sale);
        let names = [keys.hash(), &keys.orders(), &keys.due(), &keys.buyers(), &keys.log()];
        let mut call = Call::new(&SCRIPTS.restore, &names).arg(format!("{epoch:016x}")).arg(version).arg(lost);
        for (id, order) in orders {
            call = call.arg(&id.hex()[..]).arg(record(order));
        }
        self.step_of_books(call).await
    }

    async fn recount(&self, sale: &str, epoch: u64, version: u64, recount: &Recount) -> Result<u64, LedgerError> {
        let keys = Keys::of(sale);
        let names = [keys.hash(), &keys.due(), &keys.buyers(), &keys.log()];
        let Recount { counters: _, sold, paid, by_hand, deadlines, buyers } = recount;
        let mut call = Call::new(&SCRIPTS.recount, &names).arg(format!("{epoch:016x}")).arg(version);
        call = call.arg(*sold).arg(*paid).arg(*by_hand).arg(deadlines.len());
        for (id, at_ms) in deadlines {
            call = call.arg(&id.hex()[..]).arg(*at_ms);
        }
        for (name, Holdings { tickets, unpaid }) in buyers {
            call = call.arg(&**name).arg(format!("{tickets} {unpaid}"));
        }
        self.step_of_books(call).await
    }

    async fn lift(&self, sale: &str, epoch: u64, version: u64) -> Result<(), LedgerError> {
        let call = Call::new(&SCRIPTS.lift, &[Keys::of(sale).hash()]).arg(format!("{epoch:016x}")).arg(version);
        self.step_of_books(call).await.map(|_generation| ())
    }

    async fn set_state(&self, sale: &str, state: SaleState) -> Result<(), LedgerError> {
        Ledger::set_state(self, sale, state).await
    }
}
