//! The outbox in Redis; see `lua/outbox.lua`.

use std::time::Duration;

use ::redis::{Script, Value};
use async_trait::async_trait;

use super::keys::Keys;
use super::reply::{Reader, damaged, parse};
use super::scripts::{Call, SCRIPTS};
use super::{RedisLedger, made_but_unread};
use crate::ledger::{
    Claim, DeliveryStatus, EventId, Lease, Outbox, Progress, Record, Recorded, RefusedEvent, SET_ASIDE_MAX, SetAside,
    Taken, Work, brief,
};
use crate::ledger::{Ledger, LedgerError, LogEntry};

/// Entries that are read first, to see how long they are; each may list hundreds of orders.
const FIRST_PAGE: usize = 2;

/// The most entries of one command, so that it stays short.
const PAGE_MAX: usize = 512;

impl RedisLedger {
    /// Reads entries after `after` until they have `lines_max` lines together, in a few commands.
    async fn read(&self, sale: &str, after: u64, lines_max: usize) -> Result<Vec<LogEntry>, LedgerError> {
        let (mut entries, mut lines, mut page) = (Vec::<LogEntry>::new(), 0, FIRST_PAGE);
        while lines < lines_max {
            let after = entries.last().map_or(after, |entry| entry.seq);
            let some = self.log(sale, after, page).await?;
            let is_last = some.len() < page;
            for entry in some {
                if lines < lines_max {
                    lines += entry.lines();
                    entries.push(entry);
                }
            }
            if is_last {
                break;
            }
            // As many as fit, if they are as long as the previous ones.
            page = (lines_max.saturating_sub(lines) * entries.len() / lines.max(1)).clamp(1, PAGE_MAX);
        }
        Ok(entries)
    }
}

/// A call of an outbox script, with the keys and the argument that all of them have.
fn call(script: &Script, sale: &str, epoch: u64) -> Call {
    let keys = Keys::of(sale);
    let [delivery, aside, again] = keys.outbox(epoch);
    Call::new(script, &[keys.hash(), &keys.log(), &delivery, &aside, &again]).arg(format!("{epoch:016x}"))
}

#[async_trait]
impl Outbox for RedisLedger {
    async fn take(&self, sale: &str, epoch: u64, claim: &Claim, lines_max: usize) -> Result<Taken, LedgerError> {
        let lease_ms = u64::try_from(claim.lease.as_millis()).unwrap_or(u64::MAX);
        let call = call(&SCRIPTS.outbox_take, sale, epoch).arg(&*claim.edge).arg(lease_ms).command();
        let first = taken(&self.ask(&call).await?)?;
        if first.work.is_none() || lines_max == 0 || first.progress.delivered >= first.progress.version {
            return Ok(first);
        }
        let entries = self.read(sale, first.progress.delivered, lines_max).await?;
        // The log is read outside the script, because a script takes ten times as long. The script then confirms that
        // sale and lease are still the same.
        let mut last = taken(&self.ask(&call).await?)?;
        if let Some(work) = &mut last.work {
            work.entries = entries;
        }
        Ok(last)
    }

    async fn record(&self, sale: &str, epoch: u64, edge: &str, record: &Record) -> Result<Recorded, LedgerError> {
        let mut call = call(&SCRIPTS.outbox_record, sale, epoch).arg(edge).arg(record.delivered).arg(SET_ASIDE_MAX);
        call = match &record.refused {
            Some(RefusedEvent { event, order, why }) => {
                let order = order.map_or("-".to_owned(), |order| order.to_string());
                call.arg(field(event)).arg(format!("{order} {}", brief(why)))
            }
            None => call.arg("").arg(""),
        };
        for event in &record.settled {
            call = call.arg(field(event));
        }
        match self.ask(&call.command()).await? {
            Value::Int(1) => Ok(Recorded::Done),
            Value::Int(2) => Ok(Recorded::Lost),
            Value::Int(3) => Ok(Recorded::Full),
            other => Err(made_but_unread(damaged(&format!("outbox_record.lua replied {other:?}")))),
        }
    }

    async fn release(&self, sale: &str, epoch: u64, edge: &str) -> Result<(), LedgerError> {
        let call = call(&SCRIPTS.outbox_release, sale, epoch).arg(edge);
        self.ask(&call.command()).await.map(|_released| ())
    }

    async fn retry(&self, sale: &str, epoch: u64) -> Result<u64, LedgerError> {
        match self.ask(&call(&SCRIPTS.outbox_retry, sale, epoch).command()).await? {
            Value::Int(count) => u64::try_from(count).map_err(|_| made_but_unread(damaged("a count is below 0"))),
            other => Err(made_but_unread(damaged(&format!("outbox_retry.lua replied {other:?}")))),
        }
    }

    async fn delivery(&self, sale: &str, epoch: u64) -> Result<DeliveryStatus, LedgerError> {
        status(&self.ask(&call(&SCRIPTS.outbox_status, sale, epoch).command()).await?)
    }
}

pub(super) fn taken(value: &Value) -> Result<Taken, LedgerError> {
    let mut reader = Reader::of(value)?;
    let (progress, lease) = progress(&mut reader)?;
    let lease = lease.ok_or_else(|| damaged("outbox_take.lua replied that nobody has the delivery"))?;
    let work = if reader.natural()? == 1 {
        let mut again = Vec::new();
        let mut fields = Reader::of(reader.next()?)?;
        while !fields.is_empty() {
            again.push(event(fields.text()?)?);
        }
        again.sort_unstable();
        Some(Work { again, ..Work::default() })
    } else {
        None
    };
    Ok(Taken { progress, lease, work })
}

pub(super) fn status(value: &Value) -> Result<DeliveryStatus, LedgerError> {
    let mut reader = Reader::of(value)?;
    let (progress, lease) = progress(&mut reader)?;
    let mut all = Vec::new();
    for again in [false, true] {
        let mut fields = Reader::of(reader.next()?)?;
        while !fields.is_empty() {
            all.push(set_aside(fields.text()?, fields.text()?, again)?);
        }
    }
    all.sort_unstable_by_key(|aside: &SetAside| aside.refused.event);
    Ok(DeliveryStatus { progress, lease, set_aside: all })
}

/// Keep in step with `progress` in `lua/outbox.lua`.
fn progress(reader: &mut Reader) -> Result<(Progress, Option<Lease>), LedgerError> {
    let progress = Progress {
        version: reader.natural()?,
        delivered: reader.natural()?,
        oldest_at_ms: reader.time()?,
        now_ms: reader.natural()?,
        set_aside: reader.natural()?,
    };
    let (edge, left_ms) = (reader.text()?, reader.natural()?);
    let lease = (!edge.is_empty()).then(|| Lease { edge: edge.into(), left: Duration::from_millis(left_ms) });
    Ok((progress, lease))
}

/// "SEQ PART"
fn field(event: &EventId) -> String {
    format!("{} {}", event.seq, event.part)
}

fn event(field: &str) -> Result<EventId, LedgerError> {
    let (seq, part) = field.split_once(' ').ok_or_else(|| damaged(&format!("an event is \"{field}\"")))?;
    Ok(EventId { seq: parse(seq, "an event's number")?, part: parse(part, "an event's part")? })
}

/// "AT_MS ORDER WHY"
fn set_aside(field: &str, value: &str, again: bool) -> Result<SetAside, LedgerError> {
    let mut parts = value.splitn(3, ' ');
    let mut part = || parts.next().ok_or_else(|| damaged(&format!("event {field} is set aside as \"{value}\"")));
    let at_ms = parse(part()?, "at_ms")?;
    let order = match part()? {
        "-" => None,
        order => Some(parse(order, "order")?),
    };
    Ok(SetAside { refused: RefusedEvent { event: event(field)?, order, why: part()?.to_owned() }, at_ms, again })
}
