//! Reconciling a sale: everything that is written of it is compared with its log, and with what others know of it, and
//! what was lost is written again. What is compared and what follows from it is here, without I/O; [`Bookkeeper`] is
//! the store.
//!
//! An order only goes forward, HELD to RELEASED to PAID, so of two accounts of it the further one is true. Tickets are
//! never added: if more was sold than there is, that is told.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;

use super::model::{Holdings, SaleModel};
use super::{LedgerError, Order, OrderId, OrderState, ReleaseReason, SaleState, Terms};

/// How many differences of a kind are shown.
const EXAMPLES_MAX: usize = 5;

/// The most orders that one step writes, so that a Redis script stays short.
pub const RESTORE_MAX: usize = 256;

/// The most entries `lost`, deadlines or buyers that one step writes.
pub const FILL_MAX: u64 = 500;

/// The most entries that may have been lost. Whoever claims to have heard of more is not believed.
const LOST_MAX: u64 = 1_000_000;

/// After so many rounds of putting right there is something that cannot be.
const ROUNDS_MAX: usize = 8;

/// What a ledger has written of one sale.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// The newest entry's number when reading began.
    pub version: u64,
    /// All tickets, as the counters say.
    pub total: u64,
    /// Held and paid, as the counters say.
    pub sold: u64,
    /// Paid, as the counters say.
    pub paid: u64,
    /// The ledger's time, in ms since 1970.
    pub now_ms: u64,
    /// Why the sale is fenced, if it is.
    pub fence: Option<String>,
    /// Whether people let it sell.
    pub state: SaleState,
    /// Every order.
    pub orders: HashMap<OrderId, Order>,
    /// Buyers who have something.
    pub buyers: HashMap<Arc<str>, Holdings>,
    /// Orders that have a deadline.
    pub due: HashSet<OrderId>,
    /// What the log gives, replayed up to `version`.
    pub replayed: SaleModel,
    /// The last entry that was about each order.
    pub last_entries: HashMap<OrderId, u64>,
    /// Orders that changed while they were read, of which nothing can be said; none while the sale is fenced.
    pub changed: HashSet<OrderId>,
}

/// What somebody else knows of a sale.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    /// Who.
    pub name: &'static str,
    /// The newest entry that it has heard of.
    pub version: u64,
    /// Orders, and the entry of which it heard so.
    pub orders: HashMap<OrderId, (Order, u64)>,
    /// What people decided last, if it has heard of that.
    pub state: Option<SaleState>,
    /// Changes of the stock, by their ids.
    pub stock: Vec<(Arc<str>, i64)>,
}

/// Differences of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which kind; docs/operating/lost-data.md lists the kinds.
    pub kind: &'static str,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

/// What a comparison came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// By kind, in the order in which they were looked for.
    pub differences: Vec<Difference>,
    /// Orders that have to be written, as they have to stand.
    pub restore: BTreeMap<OrderId, Order>,
    /// The version that has to be reached before anything is sold.
    pub version: u64,
    /// A state that people decided and that was lost; only one that sells less.
    pub state: Option<SaleState>,
    /// Tickets sold beyond the total, once everything is written.
    pub excess: u64,
    /// Counters, deadlines and buyers that are not what the log gives.
    pub recount: Recount,
}

/// What stands beside the log and has to be set anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recount {
    /// Whether the counters have to be.
    pub counters: bool,
    /// Held and paid.
    pub sold: u64,
    /// Paid.
    pub paid: u64,
    /// Tickets that somebody added to the total by hand; the log has to hear of them.
    pub by_hand: i64,
    /// Orders without a deadline, and when their hold ends.
    pub deadlines: Vec<(OrderId, u64)>,
    /// Buyers, and what they have.
    pub buyers: Vec<(Arc<str>, Holdings)>,
}

impl Recount {
    /// Whether all is as it should be.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        !self.counters && self.by_hand == 0 && self.deadlines.is_empty() && self.buyers.is_empty()
    }
}

impl Findings {
    fn note(&mut self, kind: &'static str, example: impl Display) {
        let difference = match self.differences.iter_mut().find(|difference| difference.kind == kind) {
            Some(difference) => difference,
            None => {
                self.differences.push(Difference { kind, count: 0, examples: Vec::new() });
                // It was pushed just now.
                let last = self.differences.len() - 1;
                &mut self.differences[last]
            }
        };
        difference.count += 1;
        if difference.examples.len() < EXAMPLES_MAX {
            difference.examples.push(example.to_string());
        }
    }

    fn note_many(&mut self, kind: &'static str, count: u64, example: impl Display) {
        self.note(kind, example);
        if let Some(difference) = self.differences.iter_mut().find(|difference| difference.kind == kind) {
            difference.count += count.saturating_sub(1);
        }
    }
}

fn told(order: &Order) -> String {
    let state = match order.state {
        OrderState::Held => "HELD",
        OrderState::Paid => "PAID",
        OrderState::Released => "RELEASED",
    };
    format!("{} {state}", order.quantity)
}

/// Whether two accounts of an order say the same of its tickets.
fn same(one: &Order, other: &Order) -> bool {
    (one.state, one.quantity, &one.buyer, &one.payment) == (other.state, other.quantity, &other.buyer, &other.payment)
}

/// Compares the books with their own log, and with what others know.
#[must_use]
pub fn compare(books: &Books, witnesses: &[Witness]) -> Findings {
    let mut findings = Findings { version: books.version, ..Findings::default() };
    compare_orders(books, &mut findings);
    compare_counters(books, &mut findings);
    for witness in witnesses {
        compare_with(books, witness, &mut findings);
    }
    if books.fence.is_some() {
        end_holds(books, &mut findings);
    }
    let mut whole = books.replayed.clone();
    if !findings.restore.is_empty() {
        let orders = findings.restore.iter().map(|(id, order)| (*id, order.clone())).collect();
        let change = super::Change::Restored { orders };
        whole.apply(&super::LogEntry { seq: whole.version() + 1, at_ms: 0, change });
    }
    let sold = whole.view(0, &Terms::default()).sold;
    findings.excess = sold.saturating_sub(books.total);
    if findings.excess > 0 {
        let (excess, total) = (findings.excess, books.total);
        findings.note_many("excess", excess, format!("{sold} tickets are sold of {total}; {excess} were sold twice"));
    }
    findings
}

fn compare_orders(books: &Books, findings: &mut Findings) {
    for (id, logged) in books.replayed.orders().filter(|(id, _)| !books.changed.contains(*id)) {
        match books.orders.get(id) {
            None => {
                findings.note("entry-without-order", format!("{id}: {}", told(logged)));
                findings.restore.insert(*id, logged.clone());
            }
            Some(order) if !same(order, logged) => {
                findings.note("order-unlike-log", format!("{id}: {}, in the log {}", told(order), told(logged)));
                let further = if order.rank() > logged.rank() { order } else { logged };
                findings.restore.insert(*id, further.clone());
            }
            Some(_) => {}
        }
    }
    for (id, order) in &books.orders {
        if books.replayed.order(id).is_none() && !books.changed.contains(id) {
            findings.note("order-without-entry", format!("{id}: {}", told(order)));
            findings.restore.insert(*id, order.clone());
        }
    }
}

fn compare_counters(books: &Books, findings: &mut Findings) {
    let view = books.replayed.view(0, &Terms::default());
    let rows = [("sold", books.sold, view.sold), ("paid", books.paid, view.paid), ("total", books.total, view.total)];
    for (name, counter, logged) in rows {
        if counter != logged {
            findings.note("counter-unlike-log", format!("{name}: {counter}, in the log {logged}"));
        }
    }
    let recount = &mut findings.recount;
    (recount.sold, recount.paid) = (view.sold, view.paid);
    recount.counters = (books.sold, books.paid) != (view.sold, view.paid);
    recount.by_hand = books.total as i64 - view.total as i64;

    let is_changed = |buyer: &Arc<str>| {
        let of_buyer = |id: &OrderId| books.orders.get(id).is_some_and(|order| order.buyer.as_ref() == Some(buyer));
        !books.changed.is_empty() && books.changed.iter().any(of_buyer)
    };
    let mut names: Vec<&Arc<str>> = books.buyers.keys().collect();
    names.extend(books.replayed.buyers().map(|(name, _)| name).filter(|name| !books.buyers.contains_key(*name)));
    for name in names {
        let (has, logged) = (books.buyers.get(name).copied().unwrap_or_default(), books.replayed.held_by(name));
        if has != logged && !is_changed(name) {
            let (tickets, unpaid) = (has.tickets, has.unpaid);
            let text = format!("{name}: {tickets} tickets, {unpaid} unpaid, in the log {logged:?}");
            findings.note("buyer-unlike-log", text);
            findings.recount.buyers.push((Arc::clone(name), logged));
        }
    }
    for (id, order) in &books.orders {
        if order.state == OrderState::Held && !books.due.contains(id) && !books.changed.contains(id) {
            findings.note("order-without-deadline", id);
            findings.recount.deadlines.push((*id, order.expires_at_ms));
        }
    }
}

fn compare_with(books: &Books, witness: &Witness, findings: &mut Findings) {
    let name = witness.name;
    if witness.version > books.version {
        let (lost, last) = (witness.version - books.version, books.version);
        let text = format!("{name}: {} is the newest entry there, and {last} in the ledger", witness.version);
        findings.note_many("lost-entries", lost, text);
        findings.version = findings.version.max(witness.version);
    }
    for (id, (known, seq)) in &witness.orders {
        if books.changed.contains(id) {
            continue;
        }
        let order = findings.restore.get(id).or_else(|| books.orders.get(id)).cloned();
        match &order {
            None => {
                findings.note("lost-order", format!("{id}: {}, known to {name}", told(known)));
                findings.restore.insert(*id, known.clone());
            }
            Some(order) if order.rank() < known.rank() => {
                findings.note("lost-change", format!("{id}: {}, and {} to {name}", told(order), told(known)));
                findings.restore.insert(*id, known.clone());
            }
            // What it has heard of the entry that was lost keeps it from hearing of the one in its place.
            Some(order) if order.rank() > known.rank() && *seq >= books.last_entries.get(id).copied().unwrap_or(0) => {
                findings.note("unheard-change", format!("{id}: {}, and {} to {name}", told(order), told(known)));
                findings.restore.insert(*id, order.clone());
            }
            Some(order) if order.state != OrderState::Released && order.quantity != known.quantity => {
                findings.note("order-unlike-witness", format!("{id}: {}, and {} to {name}", told(order), told(known)));
            }
            Some(_) => {}
        }
    }
    for (change_id, delta) in &witness.stock {
        if !books.replayed.has_change(change_id) {
            findings.note("lost-stock-change", format!("{change_id}: {delta}, known to {name}; never made by itself"));
        }
    }
    let sells_less = |state: SaleState| match state {
        SaleState::Open => (0, "open"),
        SaleState::Paused => (1, "paused"),
        SaleState::Closed => (2, "closed"),
    };
    if let Some(state) = witness.state.filter(|state| sells_less(*state) > sells_less(books.state)) {
        findings.note("lost-state", format!("{}, known to {name}", sells_less(state).1));
        findings.state = Some(state);
    }
}

/// Releases what was not paid in time. It may have been released before, in an entry that is lost and that nobody read,
/// and its tickets sold to others whose orders are known.
fn end_holds(books: &Books, findings: &mut Findings) {
    let standing = books.orders.iter().filter(|(id, _)| !findings.restore.contains_key(*id)).chain(&findings.restore);
    let is_ended = |order: &Order| order.state == OrderState::Held && order.expires_at_ms <= books.now_ms;
    let ended: Vec<(OrderId, Order)> =
        standing.filter(|(_, order)| is_ended(order)).map(|(id, order)| (*id, order.clone())).collect();
    for (id, order) in ended {
        findings.note("ended-hold", format!("{id}: {}", told(&order)));
        let released = Order { state: OrderState::Released, reason: Some(ReleaseReason::Expired), ..order };
        findings.restore.insert(id, released);
    }
}

/// The store of a sale's books.
#[async_trait]
pub trait Bookkeeper: Send + Sync + 'static {
    /// Puts a fence up, so that nothing of the sale moves until it is taken down; one that stands keeps its reason.
    async fn fence(&self, sale: &str, epoch: u64, why: &str) -> Result<(), LedgerError>;

    /// Reads everything.
    async fn books(&self, sale: &str, epoch: u64) -> Result<Books, LedgerError>;

    /// What this edge remembers by itself.
    fn remembered(&self, sale: &str) -> Option<Witness>;

    /// Writes orders, at most [`RESTORE_MAX`], and `lost` entries, at most [`FILL_MAX`], behind `version`, in one
    /// atomic step of a fenced sale; gives the version after it. [`LedgerError::Changed`] if the version is another.
    async fn restore(
        &self,
        sale: &str,
        epoch: u64,
        version: u64,
        lost: u64,
        orders: &[(OrderId, Order)],
    ) -> Result<u64, LedgerError>;

    /// Sets counters, deadlines and buyers, together at most [`FILL_MAX`], likewise.
    async fn recount(&self, sale: &str, epoch: u64, version: u64, recount: &Recount) -> Result<u64, LedgerError>;

    /// Takes the fence down, likewise.
    async fn lift(&self, sale: &str, epoch: u64, version: u64) -> Result<(), LedgerError>;

    /// See [`super::Ledger::set_state`].
    async fn set_state(&self, sale: &str, state: SaleState) -> Result<(), LedgerError>;
}

/// Puts a sale right, and takes its fence down. Gives what was found when it began, and what is left.
///
/// # Errors
/// Those of the store; then the fence stands, and it may be begun again.
pub async fn apply(
    keeper: &dyn Bookkeeper,
    sale: &str,
    epoch: u64,
    witnesses: &[Witness],
) -> Result<(Findings, Findings), LedgerError> {
    keeper.fence(sale, epoch, "it is being reconciled").await?;
    let (mut first, mut begun_ms) = (None, None);
    for _ in 0..ROUNDS_MAX {
        let mut books = keeper.books(sale, epoch).await?;
        // Holds end all the time, and each of these rounds must find less than the one before.
        books.now_ms = *begun_ms.get_or_insert(books.now_ms);
        let findings = compare(&books, witnesses);
        let lost = findings.version - books.version;
        if lost > LOST_MAX {
            return Err(LedgerError::Damaged(format!("somebody has heard of {lost} entries more than there are")));
        }
        let found = first.get_or_insert_with(|| findings.clone());
        let mut version = books.version;
        if !findings.restore.is_empty() {
            let orders: Vec<_> = findings.restore.into_iter().collect();
            for page in orders.chunks(RESTORE_MAX) {
                version = keeper.restore(sale, epoch, version, 0, page).await?;
            }
        } else if version < findings.version {
            while version < findings.version {
                let lost = (findings.version - version).min(FILL_MAX);
                version = keeper.restore(sale, epoch, version, lost, &[]).await?;
            }
        } else if !findings.recount.is_nothing() {
            for page in pages(&findings.recount) {
                version = keeper.recount(sale, epoch, version, &page).await?;
            }
        } else if let Some(state) = findings.state {
            keeper.set_state(sale, state).await?;
        } else {
            keeper.lift(sale, epoch, version).await?;
            return Ok((found.clone(), findings));
        }
    }
    Err(LedgerError::Damaged("the books do not come to agree; the fence stands".into()))
}

/// Steps of a size that a store takes.
fn pages(recount: &Recount) -> Vec<Recount> {
    let counters = Recount { deadlines: Vec::new(), buyers: Vec::new(), ..recount.clone() };
    let mut pages = vec![counters.clone()];
    let more = Recount { by_hand: 0, ..counters };
    let size = FILL_MAX as usize;
    pages.extend(recount.deadlines.chunks(size).map(|part| Recount { deadlines: part.to_vec(), ..more.clone() }));
    pages.extend(recount.buyers.chunks(size).map(|part| Recount { buyers: part.to_vec(), ..more.clone() }));
    pages
}

#[cfg(test)]
mod tests;
