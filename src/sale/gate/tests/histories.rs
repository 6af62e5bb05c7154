//! A real sale and two gates that hear of it late, out of order or not at all.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ledger::model::SaleModel;

const EDGES: usize = 2;
const IDS: u8 = 12;
const BUYERS: [Option<&str>; 3] = [None, Some("ann"), Some("bob")];

/// One event of a history.
#[derive(Debug, Clone)]
enum Event {
    /// An edge sends purchases to the ledger, which decides them at once.
    Step {
        edge: usize,
        batch: Vec<Purchase>,
        fate: Fate,
    },
    /// An edge reads the log.
    Sync {
        edge: usize,
        fate: Fate,
    },
    /// One of the answers that are under way arrives.
    Arrival(usize),
    /// An edge cannot reach the ledger.
    Outage {
        edge: usize,
    },
    /// An edge is told that there is no such sale, which passes.
    Missing {
        edge: usize,
    },
    State(SaleState),
    Stock(i64),
    Confirm(u8),
    Cancel(u8),
    Sweep,
    Tick,
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    IsLate,
    IsLost,
}

enum Answer {
    Step(Vec<Purchase>, Reserved),
    Sync(u64, Synced),
}

fn purchase() -> impl Strategy<Value = Purchase> {
    (0..IDS, 0..BUYERS.len(), 1u32..4).prop_map(|(n, buyer, quantity)| Purchase {
        id: id(n.into()),
        buyer: BUYERS[buyer].map(Into::into),
        quantity,
    })
}

fn event() -> impl Strategy<Value = Event> {
    let edge = || 0..EDGES;
    let fate = || prop_oneof![3 => Just(Fate::Arrives), 2 => Just(Fate::IsLate), 1 => Just(Fate::IsLost)];
    let state = prop_oneof![4 => Just(SaleState::Open), 1 => Just(SaleState::Paused), 1 => Just(SaleState::Closed)];
    prop_oneof![
        12 => (edge(), vec(purchase(), 1..4), fate()).prop_map(|(edge, batch, fate)| Event::Step { edge, batch, fate }),
        12 => (edge(), fate()).prop_map(|(edge, fate)| Event::Sync { edge, fate }),
        8 => (0usize..8).prop_map(Event::Arrival),
        2 => edge().prop_map(|edge| Event::Outage { edge }),
        1 => edge().prop_map(|edge| Event::Missing { edge }),
        1 => state.prop_map(Event::State),
        3 => (-2i64..3).prop_map(Event::Stock),
        3 => (0..IDS).prop_map(Event::Confirm),
        3 => (0..IDS).prop_map(Event::Cancel),
        3 => Just(Event::Sweep),
        6 => Just(Event::Tick),
    ]
}

struct World {
    terms: Terms,
    now_ms: u64,
    sale: SaleModel,
    log: Vec<LogEntry>,
    gates: [Gate; EDGES],
    under_way: Vec<(usize, Answer)>,
    changes: u64,
}

impl World {
    fn new(total: u64, per_buyer: u32, unpaid_per_buyer: u32) -> Self {
        let mut world = Self {
            terms: Terms { hold_ms: 3, per_buyer, unpaid_per_buyer, ..Terms::default() },
            now_ms: NOW_MS,
            sale: SaleModel::new(1),
            log: Vec::new(),
            gates: std::array::from_fn(|_| opened()),
            under_way: Vec::new(),
            changes: 0,
        };
        world.commit([world.sale.open(NOW_MS, total)]);
        world
    }

    fn commit(&mut self, entries: impl IntoIterator<Item = LogEntry>) {
        for entry in entries {
            self.sale.apply(&entry);
            self.log.push(entry);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Step { edge, batch, fate } => {
                let version_before = self.sale.version();
                let reservation = self.sale.reserve(self.now_ms, &self.terms, &batch);
                self.commit(reservation.entry);
                let view = self.sale.view(self.now_ms, &self.terms);
                let reserved = Reserved { decisions: reservation.decisions, view, version_before };
                self.send(edge, Answer::Step(batch, reserved), fate);
            }
            Event::Sync { edge, fate } => {
                let answer = self.sync(edge);
                self.send(edge, answer, fate);
            }
            Event::Arrival(at) if at < self.under_way.len() => {
                let (edge, answer) = self.under_way.remove(at);
                self.learn(edge, &answer);
            }
            Event::Arrival(_) => {}
            Event::Outage { edge } => self.gates[edge].forget(),
            Event::Missing { edge } => self.gates[edge].learn_missing(),
            Event::State(state) => self.commit(self.sale.set_state(self.now_ms, state)),
            Event::Stock(delta) => {
                self.changes += 1;
                let change = self.sale.add_stock(self.now_ms, &self.changes.to_string(), delta);
                self.commit(change.into_iter().flatten());
            }
            Event::Confirm(n) => {
                let payment = format!("payment-{n}").parse().expect("a payment's id");
                let (_, entry) = self.sale.confirm(self.now_ms, &self.terms, id(n.into()), &payment);
                self.commit(entry);
            }
            Event::Cancel(n) => self.commit(self.sale.cancel(self.now_ms, id(n.into())).1),
            Event::Sweep => {
                let sweep = self.sale.sweep(self.now_ms);
                self.commit(sweep.entry.clone());
                self.sale.end(&sweep);
            }
            Event::Tick => self.now_ms += 1,
        }
    }

    fn sync(&self, edge: usize) -> Answer {
        let asked_from = self.gates[edge].read_to();
        let unread = self.log.iter().filter(|entry| entry.seq > asked_from);
        let view = self.sale.view(self.now_ms, &self.terms);
        Answer::Sync(
            asked_from,
            Synced { view, next_due_ms: self.sale.next_due_ms(), entries: unread.cloned().collect() },
        )
    }

    fn send(&mut self, edge: usize, answer: Answer, fate: Fate) {
        match fate {
            Fate::Arrives => self.learn(edge, &answer),
            Fate::IsLate => self.under_way.push((edge, answer)),
            Fate::IsLost => {}
        }
    }

    fn learn(&self, edge: usize, answer: &Answer) {
        let now = Instant::now();
        match answer {
            Answer::Step(batch, reserved) => self.gates[edge].learn_step(batch, reserved, now..now),
            Answer::Sync(asked_from, synced) => {
                self.gates[edge].learn_sync(*asked_from, synced, now..now);
            }
        }
    }

    /// No order that was made by the version that a gate knows is refused there.
    fn deny_no_order(&self) -> Result<(), TestCaseError> {
        for gate in &self.gates {
            let Some(known) = gate.view() else { continue };
            for entry in self.log.iter().take_while(|entry| entry.seq <= known.version) {
                let Change::Held { orders, .. } = &entry.change else { continue };
                for OrderLine { order, quantity, buyer } in orders {
                    let visitor = Visitor { retry_of: Some(*order), buyer: buyer.as_deref(), quantity: *quantity };
                    let verdict = gate.judge(&visitor, Instant::now());
                    prop_assert!(!matches!(verdict, Verdict::Refuse(_)), "{verdict:?} for order {order} of {known:?}");
                }
            }
        }
        Ok(())
    }

    /// What a gate that has read everything says is what the ledger would decide.
    fn agrees(&self, gate: &Gate) -> Result<(), TestCaseError> {
        let view = self.sale.view(self.now_ms, &self.terms);
        prop_assert_eq!(gate.view(), Some(view.clone()));
        for (n, buyer, quantity) in
            (0..=IDS).flat_map(|n| BUYERS.into_iter().flat_map(move |buyer| (1..4).map(move |q| (n, buyer, q))))
        {
            let purchase = Purchase { id: id(n.into()), buyer: buyer.map(Into::into), quantity };
            let decision =
                self.sale.reserve(self.now_ms, &self.terms, std::slice::from_ref(&purchase)).decisions.remove(0);
            let visitor = Visitor { retry_of: Some(purchase.id), buyer, quantity };
            let verdict = gate.judge(&visitor, Instant::now());
            let right = match (&decision, &verdict) {
                (Decision::Ordered { .. } | Decision::KeyReused, Verdict::Ask) => true,
                (Decision::Closed, Verdict::Refuse(Refusal::Closed)) => true,
                (Decision::Paused, Verdict::Refuse(Refusal::Paused)) => true,
                (Decision::SoldOut, Verdict::Refuse(Refusal::SoldOut)) => true,
                (Decision::NotEnough { left }, Verdict::Refuse(Refusal::NotEnough { left: known })) => left == known,
                // Buyers are known to be at their limit only from the ledger's refusals; what they have since is more.
                (Decision::BuyerLimit { have }, Verdict::Refuse(Refusal::BuyerLimit { have: known, .. })) => {
                    known <= have
                }
                (Decision::UnpaidLimit { have }, Verdict::Refuse(Refusal::UnpaidLimit { have: known, .. })) => {
                    known <= have
                }
                (Decision::BuyerLimit { .. }, Verdict::Refuse(Refusal::UnpaidLimit { limit, .. })) => {
                    *limit == u64::from(self.terms.unpaid_per_buyer)
                }
                (Decision::BuyerLimit { .. } | Decision::UnpaidLimit { .. }, Verdict::Ask) => true,
                (
                    Decision::BuyerLimit { .. } | Decision::UnpaidLimit { .. },
                    Verdict::Refuse(Refusal::NotEnough { left }),
                ) => *left == view.available(),
                _ => false,
            };
            prop_assert!(right, "{:?} for {:?}, which the ledger answers with {:?}", verdict, purchase, decision);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_is_denied_and_all_is_known_in_the_end(
        total in 0u64..8,
        per_buyer in 0u32..4,
        unpaid_per_buyer in 0u32..3,
        events in vec(event(), 1..60),
    ) {
        let mut world = World::new(total, per_buyer, unpaid_per_buyer);
        for event in events {
            world.happen(event);
            world.deny_no_order()?;
        }
        for edge in 0..EDGES {
            // A gate that suspects the ledger of having gone back needs two.
            for _ in 0..2 {
                let answer = world.sync(edge);
                world.learn(edge, &answer);
            }
            world.deny_no_order()?;
            world.agrees(&world.gates[edge])?;
        }
    }
}
