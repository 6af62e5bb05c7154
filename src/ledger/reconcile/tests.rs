use super::*;
use crate::ledger::{Change, LogEntry, OrderLine, PaymentId};

fn id(n: u8) -> OrderId {
    OrderId([n; 16])
}

fn held(quantity: u32) -> Order {
    Order::held(quantity, Some("ann".into()), 1_000)
}

fn paid(quantity: u32) -> Order {
    let payment: PaymentId = "p".parse().expect("a payment's id");
    Order { state: OrderState::Paid, payment: Some(payment), ..held(quantity) }
}

/// The books of a sale of ten tickets with these orders, each with an entry of its own.
fn books(orders: &[(u8, u32)]) -> Books {
    let mut replayed = SaleModel::new(1);
    replayed.apply(&LogEntry { seq: 1, at_ms: 1, change: Change::Opened { total: 10, sold: 0 } });
    let mut last_entries = HashMap::new();
    for (n, quantity) in orders {
        let line = OrderLine { order: id(*n), quantity: *quantity, buyer: Some("ann".into()) };
        let seq = replayed.version() + 1;
        replayed.apply(&LogEntry { seq, at_ms: 1, change: Change::Held { expires_at_ms: 1_000, orders: vec![line] } });
        last_entries.insert(id(*n), seq);
    }
    let view = replayed.view(1, &Terms::default());
    Books {
        version: view.version,
        total: view.total,
        sold: view.sold,
        orders: replayed.orders().map(|(id, order)| (*id, order.clone())).collect(),
        buyers: replayed.buyers().map(|(name, has)| (Arc::clone(name), has)).collect(),
        due: replayed.orders().map(|(id, _)| *id).collect(),
        last_entries,
        replayed,
        ..Books::default()
    }
}

/// How many differences of each kind, by the kinds' names.
fn kinds(findings: &Findings) -> Vec<(&'static str, u64)> {
    let mut kinds: Vec<_> = findings.differences.iter().map(|found| (found.kind, found.count)).collect();
    kinds.sort_unstable();
    kinds
}

fn witness(version: u64, orders: &[(u8, Order, u64)]) -> Witness {
    let orders = orders.iter().map(|(n, order, seq)| (id(*n), (order.clone(), *seq))).collect();
    Witness { name: "a witness", version, orders, ..Witness::default() }
}

#[test]
fn books_that_agree_have_no_differences() {
    let books = books(&[(1, 2), (2, 1)]);
    let known = witness(3, &[(1, held(2), 2)]);
    let findings = compare(&books, &[known]);
    assert_eq!(kinds(&findings), []);
    assert!(findings.restore.is_empty() && findings.recount.is_nothing());
    assert_eq!((findings.version, findings.excess), (3, 0));
}

#[test]
fn what_others_know_better_is_restored_and_what_they_know_less_of_is_not() {
    let books = books(&[(1, 2), (2, 1)]);
    let known = witness(9, &[(1, paid(2), 5), (2, held(1), 3), (3, held(1), 6), (4, paid(1), 7)]);
    let findings = compare(&books, &[known]);
    assert_eq!(kinds(&findings), [("lost-change", 1), ("lost-entries", 6), ("lost-order", 2)]);
    assert_eq!(findings.restore.keys().copied().collect::<Vec<_>>(), [id(1), id(3), id(4)]);
    assert_eq!((findings.version, findings.excess), (9, 0));
}

#[test]
fn what_was_sold_twice_is_told_and_the_total_stays() {
    let books = books(&[(1, 9)]);
    let findings = compare(&books, &[witness(5, &[(2, held(3), 4)])]);
    assert_eq!(findings.excess, 2);
    assert!(kinds(&findings).contains(&("excess", 2)));
}

#[test]
fn a_witness_that_will_not_hear_of_a_change_is_told_again() {
    let mut books = books(&[(1, 1)]);
    books.replayed.apply(&LogEntry {
        seq: 3,
        at_ms: 2,
        change: Change::Paid {
            line: OrderLine { order: id(1), quantity: 1, buyer: Some("ann".into()) },
            payment: "p".parse().expect("a payment's id"),
            retaken: false,
        },
    });
    books.orders.insert(id(1), paid(1));
    (books.version, books.paid) = (3, 1);
    books.buyers.insert("ann".into(), Holdings { tickets: 1, unpaid: 0 });
    books.last_entries.insert(id(1), 3);
    let deaf = compare(&books, &[witness(3, &[(1, held(1), 3)])]);
    assert_eq!(kinds(&deaf), [("unheard-change", 1)]);
    assert_eq!(deaf.restore[&id(1)], paid(1));
    let behind = compare(&books, &[witness(2, &[(1, held(1), 2)])]);
    assert_eq!(kinds(&behind), [], "its delivery is still to come");
}

#[test]
fn each_way_in_which_the_books_differ_from_their_log_is_told() {
    let mut wrong = books(&[(1, 1), (2, 1), (3, 1)]);
    wrong.orders.remove(&id(1));
    wrong.due.remove(&id(3));
    wrong.orders.insert(id(2), paid(1));
    wrong.orders.insert(id(7), held(2));
    wrong.due.insert(id(7));
    wrong.sold = 99;
    wrong.total = 12;
    wrong.buyers.insert("bob".into(), Holdings { tickets: 1, unpaid: 1 });
    let findings = compare(&wrong, &[]);
    let expected = [
        ("entry-without-order", 1),
        ("order-unlike-log", 1),
        ("order-without-entry", 1),
        ("counter-unlike-log", 2),
        ("buyer-unlike-log", 1),
        ("order-without-deadline", 1),
    ];
    assert_eq!(HashSet::from_iter(kinds(&findings)), HashSet::from(expected));
    assert_eq!(findings.restore[&id(2)], paid(1), "the further of the two");
    assert_eq!((findings.recount.sold, findings.recount.by_hand), (3, 2));

    wrong.changed.extend([id(1), id(2), id(3), id(7)]);
    (wrong.sold, wrong.total) = (3, 10);
    wrong.buyers.remove("bob");
    assert_eq!(kinds(&compare(&wrong, &[])), [], "of what changes meanwhile nothing is said");
}

#[test]
fn lost_decisions_of_people_are_told_and_only_those_that_sell_less_are_made_again() {
    let books = books(&[]);
    let known = |state| Witness { state: Some(state), stock: vec![("lot-2".into(), 5)], ..witness(1, &[]) };
    let closed = compare(&books, &[known(SaleState::Closed)]);
    assert_eq!(kinds(&closed), [("lost-state", 1), ("lost-stock-change", 1)]);
    assert_eq!(closed.state, Some(SaleState::Closed));
    assert_eq!(compare(&Books { state: SaleState::Paused, ..books }, &[known(SaleState::Open)]).state, None);
}

#[test]
fn of_a_fenced_sale_holds_that_have_ended_are_released() {
    let books = Books { now_ms: 1_000, ..books(&[(1, 6), (2, 2)]) };
    // Order 1 was released, which nobody knows, and its tickets went to order 3.
    let known = [witness(4, &[(2, paid(2), 4), (3, Order { expires_at_ms: 2_000, ..held(6) }, 5)])];
    let sold = compare(&books, &known);
    assert_eq!(
        (sold.excess, kinds(&sold)),
        (4, vec![("excess", 4), ("lost-change", 1), ("lost-entries", 1), ("lost-order", 1)])
    );
    let fenced = Books { fence: Some("why".into()), ..books };
    let findings = compare(&fenced, &known);
    let released = &findings.restore[&id(1)];
    assert_eq!((released.state, released.reason), (OrderState::Released, Some(ReleaseReason::Expired)));
    assert_eq!((findings.excess, findings.restore[&id(2)].state), (0, OrderState::Paid));
    assert!(kinds(&findings).contains(&("ended-hold", 1)), "{:?}", kinds(&findings));
    assert_eq!(compare(&Books { now_ms: 999, ..fenced }, &known).excess, 4, "it may be paid yet");
}
