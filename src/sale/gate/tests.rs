//! Every rule of the gate, with answers of the ledger written by hand; what it keeps of a real sale is in
//! [`histories`].

mod histories;

use super::*;
use crate::ledger::{LogEntry, Order, OrderLine, ReleaseReason, Terms};

/// The ledger's clock in answers that say nothing else.
const NOW_MS: u64 = 1_000_000;

fn id(n: u128) -> OrderId {
    OrderId(n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).to_be_bytes())
}

/// How old what it knows may be.
const MEMORY: Duration = Duration::from_secs(2);

/// The gate of a sale of which nothing was heard yet.
fn opened() -> Gate {
    let gate = Gate::new(MEMORY);
    gate.learn_new_sale(1);
    gate
}

fn anonymous(quantity: u32) -> Visitor<'static> {
    Visitor { retry_of: None, buyer: None, quantity }
}

fn keyed(n: u128) -> Visitor<'static> {
    Visitor { retry_of: Some(id(n)), buyer: None, quantity: 1 }
}

fn by(buyer: &str, quantity: u32) -> Visitor<'_> {
    Visitor { retry_of: None, buyer: Some(buyer), quantity }
}

/// An open sale of ten tickets, `sold` of them sold.
fn view(version: u64, sold: u64) -> View {
    View {
        epoch: 1,
        version,
        now_ms: NOW_MS,
        total: 10,
        sold,
        paid: 0,
        state: SaleState::Open,
        terms: Terms { hold_ms: 60_000, ..Terms::default() },
    }
}

fn held(seq: u64) -> LogEntry {
    let line = OrderLine { order: id(seq.into()), quantity: 1, buyer: None };
    let change = Change::Held { expires_at_ms: NOW_MS, orders: vec![line] };
    LogEntry { seq, at_ms: NOW_MS, change }
}

/// How many entries a sync brings at most.
const CHUNK: u64 = 2_000;

/// A sync that goes on from what the gate has read; `orders` are the entries that name the order of their number, the
/// others are of no matter.
fn sync(gate: &Gate, view: View, orders: impl IntoIterator<Item = u64>) {
    let now = Instant::now();
    let (from, orders) = (gate.read_to(), orders.into_iter().collect::<Vec<_>>());
    let other = |seq| LogEntry { seq, at_ms: NOW_MS, change: Change::State { state: SaleState::Open } };
    let entry = |seq| if orders.contains(&seq) { held(seq) } else { other(seq) };
    let entries = (from + 1..=view.version).take(CHUNK as usize).map(entry).collect();
    gate.learn_sync(from, &Synced { view, next_due_ms: None, entries }, now..now);
}

/// A step of one purchase of order `n`.
fn step(gate: &Gate, n: u128, buyer: Option<&str>, decision: Decision, version_before: u64, view: View) {
    let batch = [Purchase { id: id(n), buyer: buyer.map(Into::into), quantity: 1 }];
    let now = Instant::now();
    gate.learn_step(&batch, &Reserved { decisions: vec![decision], view, version_before }, now..now);
}

fn ordered() -> Decision {
    let order = Order::held(1, None, NOW_MS);
    Decision::Ordered { order, again: false }
}

#[track_caller]
fn check(gate: &Gate, visitor: Visitor, expected: Verdict) {
    assert_eq!(gate.judge(&visitor, Instant::now()), expected, "for {visitor:?}");
}

fn refuse(refusal: Refusal) -> Verdict {
    Verdict::Refuse(refusal)
}

/// A gate that has read all of a sale's log, none of it orders.
fn gate(view: View) -> Gate {
    let gate = opened();
    sync(&gate, view, []);
    gate
}

#[test]
fn what_is_unknown_or_missing_is_never_called_sold_out() {
    let gate = opened();
    assert!(!gate.hears() && !gate.is_missing() && gate.view().is_none());
    check(&gate, anonymous(1), refuse(Refusal::Unavailable));
    check(&gate, keyed(1), refuse(Refusal::Unavailable));

    gate.learn_missing();
    assert!(gate.hears() && gate.is_missing() && gate.view().is_none());
    check(&gate, anonymous(1), refuse(Refusal::Missing));
    check(&gate, keyed(1), refuse(Refusal::Missing));

    // An outage does not unsay it, and a sale that comes does.
    gate.forget();
    assert!(gate.is_missing());
    sync(&gate, view(1, 0), []);
    assert!(gate.hears() && !gate.is_missing() && gate.view() == Some(view(1, 0)));
    check(&gate, anonymous(1), Verdict::Ask);
}

#[test]
fn what_is_known_is_not_used_for_ever() {
    let gate = gate(view(3, 10));
    let asked = Instant::now();
    for visitor in [anonymous(1), keyed(1)] {
        assert_eq!(gate.judge(&visitor, asked + MEMORY / 2), refuse(Refusal::SoldOut));
        assert_eq!(gate.judge(&visitor, asked + 2 * MEMORY), Verdict::Ask, "the ledger decides");
    }
    sync(&gate, view(3, 10), []);
    check(&gate, anonymous(1), refuse(Refusal::SoldOut));
}

#[test]
fn refusals_come_in_the_ledger_s_order() {
    let limit = |view: &mut View| view.terms.per_buyer = 2;
    let sold = |left: u64| move |view: &mut View| view.sold = view.total - left;
    let paused = |view: &mut View| view.state = SaleState::Paused;
    let pending = |view: &mut View| view.terms.opens_at_ms = Some(NOW_MS + 3_600_000);
    let ended = |view: &mut View| view.terms.closes_at_ms = Some(NOW_MS);
    let closed = |view: &mut View| view.state = SaleState::Closed;
    let over_limit = Refusal::BuyerLimit { limit: 2, have: 1 };
    // Every row has all the reasons of the rows above it, and one more that goes before them.
    type Reason<'a> = &'a dyn Fn(&mut View);
    let rows: [(&str, Reason, Refusal); 7] = [
        ("less is left", &sold(1), Refusal::NotEnough { left: 1 }),
        ("the buyer has a ticket", &limit, over_limit),
        ("nothing is left", &sold(0), Refusal::SoldOut),
        ("paused", &paused, Refusal::Paused),
        ("before its time", &pending, Refusal::NotYet { wait: Duration::ZERO }),
        ("after its time", &ended, Refusal::Closed),
        ("closed", &closed, Refusal::Closed),
    ];
    let mut now = view(1, 0);
    for (what, reason, expected) in rows {
        reason(&mut now);
        let gate = gate(now.clone());
        step(&gate, 1, Some("ann"), Decision::BuyerLimit { have: 1 }, 1, now.clone());
        let mut verdict = gate.judge(&by("ann", 2), Instant::now());
        if let Verdict::Refuse(Refusal::NotYet { wait }) = &mut verdict {
            *wait = Duration::ZERO;
        }
        assert_eq!(verdict, refuse(expected), "{what}");
    }
}

#[test]
fn whoever_might_get_tickets_is_let_through() {
    let gate = gate(view(1, 7));
    for quantity in 1..=3 {
        check(&gate, anonymous(quantity), Verdict::Ask);
    }
    check(&gate, anonymous(4), refuse(Refusal::NotEnough { left: 3 }));
    check(&gate, by("ann", 3), Verdict::Ask);
    check(&gate, keyed(1), Verdict::Ask);
    // A hash that was edited to more sold than there is has nothing left.
    let oversold = opened();
    sync(&oversold, view(1, 11), []);
    check(&oversold, anonymous(1), refuse(Refusal::SoldOut));
}

#[test]
fn sold_out_is_taken_back_by_newer_news_of_any_kind() {
    let gate = gate(view(5, 10));
    check(&gate, anonymous(1), refuse(Refusal::SoldOut));
    sync(&gate, View { total: 11, ..view(6, 10) }, []);
    check(&gate, anonymous(1), Verdict::Ask);

    step(&gate, 7, None, ordered(), 6, View { total: 11, ..view(7, 11) });
    check(&gate, anonymous(1), refuse(Refusal::SoldOut));
    step(&gate, 8, None, Decision::SoldOut, 8, View { total: 12, ..view(8, 11) });
    check(&gate, anonymous(1), Verdict::Ask);

    sync(&gate, view(9, 10), []);
    check(&gate, anonymous(1), refuse(Refusal::SoldOut));
    gate.forget();
    check(&gate, anonymous(1), refuse(Refusal::Unavailable));
}

#[test]
fn an_equal_version_counts_from_a_later_hour_only() {
    let at = |now_ms: u64, sold: u64| View { now_ms, ..view(5, sold) };
    // Somebody edited the hash: the log does not know of it.
    let gate = gate(at(NOW_MS, 10));
    sync(&gate, at(NOW_MS + 1, 9), []);
    check(&gate, anonymous(1), Verdict::Ask);
    sync(&gate, at(NOW_MS, 10), []);
    check(&gate, anonymous(1), Verdict::Ask);
    sync(&gate, at(NOW_MS + 2, 10), []);
    check(&gate, anonymous(1), refuse(Refusal::SoldOut));
}

#[test]
fn older_answers_never_overwrite_newer_ones() {
    let gate = gate(view(5, 10));
    let older = View { now_ms: NOW_MS - 1, ..view(4, 3) };
    sync(&gate, older.clone(), []);
    step(&gate, 1, None, Decision::SoldOut, 4, older);
    // The same hour, and the ledger did both in it.
    sync(&gate, view(4, 3), []);
    assert_eq!((gate.view(), gate.read_to()), (Some(view(5, 10)), 5));
    check(&gate, anonymous(1), refuse(Refusal::SoldOut));
}

#[test]
fn an_older_answer_may_bring_the_log_that_is_missing() {
    let gate = opened();
    step(&gate, 5, None, ordered(), 4, view(5, 10));
    check(&gate, keyed(4), Verdict::Wait);
    // The sync was asked before the step and comes after it: now the log is read to 4, and still not to 5.
    sync(&gate, View { now_ms: NOW_MS - 1, ..view(4, 9) }, 2..=4);
    assert_eq!((gate.view(), gate.read_to()), (Some(view(5, 10)), 4));
    check(&gate, keyed(4), Verdict::Wait);
    sync(&gate, view(5, 10), [5]);
    check(&gate, keyed(4), Verdict::Ask);
    check(&gate, keyed(6), refuse(Refusal::SoldOut));
}

#[test]
fn a_ledger_that_has_gone_back_is_forgotten_and_read_anew() {
    let back = View { now_ms: NOW_MS + 1, ..view(3, 10) };
    type Learn<'a> = &'a dyn Fn(&Gate);
    let by_sync: Learn = &|gate| sync(gate, back.clone(), []);
    let by_step: Learn = &|gate| step(gate, 9, None, ordered(), 2, back.clone());
    for (how, learn) in [("sync", by_sync), ("step", by_step)] {
        // Whether the gate still knew the counters, or had just lost sight of the ledger.
        for forgets in [false, true] {
            let gate = opened();
            sync(&gate, view(5, 10), 2..=5);
            if forgets {
                gate.forget();
            }
            learn(&gate);
            check(&gate, keyed(5), refuse(Refusal::Unavailable));
            assert_eq!((gate.read_to(), gate.hears()), (0, false), "{how}, {forgets}");
            // Orders that were lost are no longer named; the others are again.
            sync(&gate, back.clone(), 2..=3);
            check(&gate, keyed(3), Verdict::Ask);
            check(&gate, keyed(5), refuse(Refusal::SoldOut));
        }
    }
}

#[test]
fn an_answer_that_goes_on_from_a_forgotten_log_is_not_taken() {
    let forgetful: [fn(&Gate); 2] = [Gate::learn_missing, |gate| gate.learn_new_sale(1)];
    for forget_all in forgetful {
        let gate = opened();
        sync(&gate, view(5, 10), 2..=5);
        let (asked_from, now) = (gate.read_to(), Instant::now());
        forget_all(&gate);
        // It names only what came after entry 5; taken over, it would deny orders 2 to 5.
        gate.learn_sync(asked_from, &Synced { view: view(6, 10), next_due_ms: None, entries: vec![held(6)] }, now..now);
        assert_eq!((gate.view(), gate.read_to()), (None, 0));
        sync(&gate, view(6, 10), 2..=6);
        check(&gate, keyed(2), Verdict::Ask);
    }
}

#[test]
fn times_are_reckoned_on_the_monotonic_clock() {
    let second = Duration::from_secs(1);
    let sent = Instant::now();
    let came = sent + second;
    let mut scheduled = view(1, 0);
    scheduled.terms.opens_at_ms = Some(NOW_MS + 10_000);
    scheduled.terms.closes_at_ms = Some(NOW_MS + 20_000);
    // Nothing is heard of it meanwhile.
    let gate = Gate::new(60 * second);
    gate.learn_new_sale(1);
    gate.learn_sync(0, &Synced { view: scheduled.clone(), next_due_ms: None, entries: vec![held(1)] }, sent..came);
    let at = |instant| gate.judge(&anonymous(1), instant);

    assert_eq!(at(came), refuse(Refusal::NotYet { wait: 9 * second }));
    assert_eq!(at(sent + Duration::from_millis(9_999)), refuse(Refusal::NotYet { wait: Duration::from_millis(1) }));
    // When exactly the ledger read its clock is not known: the gate opens at the earliest and closes at the latest.
    assert_eq!(at(sent + 10 * second), Verdict::Ask);
    assert_eq!(at(came + 20 * second - Duration::from_nanos(1)), Verdict::Ask);
    assert_eq!(at(came + 20 * second), refuse(Refusal::Closed));

    // Times in the past, and times that no clock reaches.
    scheduled.terms.opens_at_ms = Some(0);
    scheduled.terms.closes_at_ms = Some(u64::MAX);
    scheduled.now_ms += 1;
    gate.learn_sync(1, &Synced { view: scheduled.clone(), next_due_ms: None, entries: vec![] }, sent..came);
    assert_eq!(gate.judge(&anonymous(1), sent), Verdict::Ask);
    scheduled.terms.closes_at_ms = Some(NOW_MS);
    scheduled.now_ms += 1;
    gate.learn_sync(1, &Synced { view: scheduled, next_due_ms: None, entries: vec![] }, sent..came);
    assert_eq!(gate.judge(&anonymous(1), came), refuse(Refusal::Closed));
}

#[test]
fn a_key_waits_for_the_log_is_asked_when_named_and_refused_when_not() {
    type Edit = fn(&mut View);
    let reasons: [(Edit, Refusal); 4] = [
        (|_| {}, Refusal::SoldOut),
        (|view| view.state = SaleState::Paused, Refusal::Paused),
        (|view| view.state = SaleState::Closed, Refusal::Closed),
        (|view| view.terms.closes_at_ms = Some(0), Refusal::Closed),
    ];
    for (edit, refusal) in reasons {
        let mut now = view(3, 10);
        edit(&mut now);
        let gate = opened();
        step(&gate, 9, None, Decision::SoldOut, 3, now.clone());
        check(&gate, keyed(2), Verdict::Wait);
        check(&gate, keyed(4), Verdict::Wait);
        check(&gate, anonymous(1), refuse(refusal.clone()));

        sync(&gate, now, 2..=3);
        check(&gate, keyed(2), Verdict::Ask);
        check(&gate, keyed(4), refuse(refusal));
    }
}

#[test]
fn own_batches_are_read_only_where_they_continue_the_log() {
    let gate = gate(view(3, 8));
    step(&gate, 4, None, ordered(), 3, view(4, 9));
    assert_eq!(gate.read_to(), 4, "the step continued the log");
    check(&gate, keyed(4), Verdict::Ask);

    // Another edge made order 5 in between.
    step(&gate, 6, None, ordered(), 5, View { total: 11, ..view(6, 11) });
    assert_eq!(gate.read_to(), 4, "the step left a gap");
    check(&gate, keyed(6), Verdict::Wait);
    check(&gate, keyed(5), Verdict::Wait);
    sync(&gate, View { total: 11, ..view(6, 11) }, 5..=6);
    check(&gate, keyed(6), Verdict::Ask);
    check(&gate, keyed(5), Verdict::Ask);
    check(&gate, keyed(7), refuse(Refusal::SoldOut));

    // An order that was there before the step is remembered as well.
    let Decision::Ordered { order, .. } = ordered() else { unreachable!() };
    step(&gate, 8, None, Decision::Ordered { order, again: true }, 6, View { total: 11, ..view(6, 11) });
    check(&gate, keyed(8), Verdict::Ask);
}

#[test]
fn a_long_log_is_read_in_chunks() {
    let chunk = CHUNK;
    let last = 2 * chunk + 7;
    let all_sold = || View { total: last, ..view(last, last) };
    let gate = opened();
    for (entries, read_to) in [(1..=chunk, chunk), (chunk + 1..=2 * chunk, 2 * chunk)] {
        sync(&gate, all_sold(), entries);
        assert_eq!(gate.read_to(), read_to);
        check(&gate, keyed(1), Verdict::Wait);
        check(&gate, anonymous(1), refuse(Refusal::SoldOut));
    }
    sync(&gate, all_sold(), 2 * chunk + 1..=last);
    assert_eq!(gate.read_to(), last);
    for n in [1, chunk, chunk + 1, 2 * chunk, last] {
        check(&gate, keyed(n.into()), Verdict::Ask);
    }
    check(&gate, keyed(u128::from(last) + 1), refuse(Refusal::SoldOut));
}

#[test]
fn a_log_that_ends_with_a_full_chunk_is_read() {
    let chunk = CHUNK;
    let gate = opened();
    sync(&gate, View { total: chunk, ..view(chunk, chunk) }, 1..=chunk);
    check(&gate, keyed(chunk.into()), Verdict::Ask);
    check(&gate, keyed(u128::from(chunk) + 1), refuse(Refusal::SoldOut));
}

#[test]
fn an_outage_forgets_counters_and_keeps_orders() {
    let gate = opened();
    sync(&gate, view(5, 10), 2..=5);
    gate.forget();
    assert_eq!((gate.hears(), gate.view(), gate.read_to()), (false, None, 5));
    check(&gate, keyed(5), refuse(Refusal::Unavailable));
    // Back again, nothing has to be read twice.
    sync(&gate, view(5, 10), []);
    check(&gate, keyed(5), Verdict::Ask);
    check(&gate, keyed(6), refuse(Refusal::SoldOut));
}

#[test]
fn another_sale_of_the_same_name_starts_with_nothing() {
    let with_limit = |version, sold| {
        let mut view = view(version, sold);
        view.terms.per_buyer = 1;
        view
    };
    let gate = opened();
    sync(&gate, with_limit(5, 9), 2..=5);
    step(&gate, 6, Some("ann"), Decision::BuyerLimit { have: 1 }, 5, with_limit(5, 9));
    check(&gate, by("ann", 1), refuse(Refusal::BuyerLimit { limit: 1, have: 1 }));
    gate.learn_new_sale(1);
    assert_eq!((gate.hears(), gate.read_to()), (false, 0));
    sync(&gate, with_limit(1, 0), []);
    check(&gate, by("ann", 1), Verdict::Ask);
    sync(&gate, View { now_ms: NOW_MS + 1, ..with_limit(2, 10) }, []);
    check(&gate, keyed(5), refuse(Refusal::SoldOut));
}

#[test]
fn a_log_with_a_gap_is_never_taken_for_read() {
    for entries in [vec![], vec![held(2), held(3), held(5)], vec![held(3), held(4), held(5)], vec![held(1), held(2)]] {
        let gate = opened();
        let now = Instant::now();
        gate.learn_sync(0, &Synced { view: view(5, 10), next_due_ms: None, entries }, now..now);
        // What is missing at the end shows when nothing more comes.
        gate.learn_sync(gate.read_to(), &Synced { view: view(5, 10), next_due_ms: None, entries: vec![] }, now..now);
        check(&gate, keyed(4), Verdict::Ask);
        check(&gate, anonymous(1), refuse(Refusal::SoldOut));
    }
}

#[test]
fn what_is_heard_of_another_sale_is_not_taken() {
    let gate = gate(view(5, 3));
    gate.learn_new_sale(2);
    sync(&gate, view(6, 10), 1..=6);
    step(&gate, 7, None, ordered(), 6, view(7, 10));
    assert_eq!((gate.view(), gate.read_to()), (None, 0));
    sync(&gate, View { epoch: 2, ..view(1, 0) }, []);
    check(&gate, anonymous(1), Verdict::Ask);
}

#[test]
fn a_buyer_s_limit_is_trusted_while_the_log_is_read() {
    let with_limit = |version, per_buyer| {
        let mut view = view(version, 0);
        view.terms.per_buyer = per_buyer;
        view
    };
    let over = |limit| refuse(Refusal::BuyerLimit { limit, have: 2 });
    let refused = || Decision::BuyerLimit { have: 2 };
    let gate = gate(with_limit(5, 3));
    step(&gate, 1, Some("ann"), refused(), 5, with_limit(5, 3));
    check(&gate, by("ann", 2), over(3));
    check(&gate, by("ann", 1), Verdict::Ask);
    check(&gate, by("bob", 3), Verdict::Ask);
    check(&gate, anonymous(3), Verdict::Ask);

    // Something that is not read has changed.
    step(&gate, 7, None, ordered(), 6, with_limit(7, 3));
    check(&gate, by("ann", 2), Verdict::Ask);
    sync(&gate, with_limit(7, 3), 6..=7);
    check(&gate, by("ann", 2), over(3));

    // The limit is the ledger's, and may change under the same version.
    for (hour, limit, expected) in [(1, 4, Verdict::Ask), (2, 2, over(2)), (3, 0, Verdict::Ask)] {
        sync(&gate, View { now_ms: NOW_MS + hour, ..with_limit(7, limit) }, []);
        check(&gate, by("ann", 2), expected);
    }
}

#[test]
fn a_buyer_s_limit_from_before_what_is_read_is_not_remembered() {
    let mut now = view(5, 0);
    now.terms.per_buyer = 2;
    let gate = gate(now.clone());
    let old = View { version: 4, now_ms: NOW_MS - 1, ..now };
    step(&gate, 1, Some("ann"), Decision::BuyerLimit { have: 2 }, 4, old);
    check(&gate, by("ann", 1), Verdict::Ask);
}

#[test]
fn a_limit_is_forgotten_when_an_order_of_its_buyer_is_released_or_paid() {
    let with_limits = |version| {
        let mut view = view(version, 0);
        view.terms.per_buyer = 2;
        view.terms.unpaid_per_buyer = 1;
        view
    };
    let line = |buyer: &str| OrderLine { order: id(9), quantity: 1, buyer: Some(buyer.into()) };
    let released = Change::Released { reason: ReleaseReason::Expired, orders: vec![line("ann"), line("eve")] };
    let paid = Change::Paid { line: line("ann"), payment: "p1".parse().expect("a payment's id"), retaken: false };
    let of_tickets = (Decision::BuyerLimit { have: 2 }, Refusal::BuyerLimit { limit: 2, have: 2 });
    let of_unpaid = (Decision::UnpaidLimit { have: 1 }, Refusal::UnpaidLimit { limit: 1, have: 1 });
    for ((decision, refusal), change) in
        [(of_tickets, released.clone()), (of_unpaid.clone(), released), (of_unpaid, paid)]
    {
        let gate = gate(with_limits(5));
        step(&gate, 1, Some("ann"), decision.clone(), 5, with_limits(5));
        step(&gate, 2, Some("bob"), decision, 5, with_limits(5));
        check(&gate, by("ann", 1), refuse(refusal.clone()));
        let entries = vec![LogEntry { seq: 6, at_ms: NOW_MS, change }];
        let now = Instant::now();
        gate.learn_sync(5, &Synced { view: with_limits(6), next_due_ms: None, entries }, now..now);
        check(&gate, by("ann", 1), Verdict::Ask);
        check(&gate, by("bob", 1), refuse(refusal));
    }
}
