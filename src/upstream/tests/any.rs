//! Whatever the group and whatever happened to it: who may be picked, and which keys move.

use proptest::prelude::*;

use super::*;

/// A backend and what has happened to it.
#[derive(Debug, Clone)]
struct Case {
    server: config::Server,
    rests: bool,
    out: bool,
    held: usize,
    tried: bool,
}

fn any_case() -> impl Strategy<Value = Case> {
    let flags = prop::array::uniform5(prop::bool::weighted(0.3));
    (1..100_u32, 0..3_u32, 0..4_usize, flags).prop_map(
        |(weight, max_conns, held, [backup, down, rests, out, tried])| {
            let server =
                config::Server { weight, max_conns, backup, down, ..config::Server::at(([127, 0, 0, 1], 1).into()) };
            Case { server, rests, out, held, tried }
        },
    )
}

fn any_method() -> impl Strategy<Value = Balance> {
    prop::sample::select(EVERY.to_vec())
}

impl Case {
    fn is_up(&self) -> bool {
        !self.server.down && !self.rests && !self.out
    }

    /// Whether it may be picked at all, if those that rest are not left alone.
    fn may_be_asked(&self, none_left_alone: bool) -> bool {
        !self.server.down && !self.out && (none_left_alone || !self.rests)
    }

    fn has_room(&self) -> bool {
        self.server.max_conns == 0 || self.held < self.server.max_conns as usize
    }
}

proptest! {
    #[test]
    fn who_is_picked_is_up_and_untried_and_has_room_and_is_no_backup_without_need(
        mut cases in prop::collection::vec(any_case(), 2..7),
        method in any_method(),
        key in any::<u64>(),
    ) {
        for (i, case) in cases.iter_mut().enumerate() {
            case.server.addresses = vec![SocketAddr::from(([127, 0, 0, 1], 3001 + i as u16))];
            if case.server.max_conns > 0 {
                case.held = case.held.min(case.server.max_conns as usize);
            }
        }
        let servers = cases.iter().map(|case| case.server.clone()).collect();
        // One alone never rests.
        prop_assume!(cases.iter().filter(|case| !case.server.down).count() > 1);
        let group = Upstream::new(config::Upstream { servers, ..settings(method, &[]) });
        let backends: Vec<_> = group.now.load().members.iter().map(|member| Arc::clone(&member.backend)).collect();
        cases.iter().enumerate().filter(|(_, case)| case.rests).for_each(|(i, _)| fails(&group, i, 0));
        cases.iter().enumerate().filter(|(_, case)| case.out).for_each(|(i, _)| checked(&group, i, false));
        let mut held = Vec::new();
        for (backend, case) in backends.iter().zip(&cases) {
            held.extend((0..case.held).map(|_| backend.take(0).expect("room")));
        }
        let tried: Vec<usize> =
            backends.iter().zip(&cases).filter(|(_, case)| case.tried).map(|(backend, _)| backend.id()).collect();

        let none_left_alone = !cases.iter().any(Case::is_up);
        let open = |case: &&Case| case.may_be_asked(none_left_alone) && !case.tried && case.has_room();
        let others = cases.iter().filter(open).filter(|case| !case.server.backup).count();
        match group.pick_at(client(key as u32), |_| Some(key), &tried, || 1) {
            Ok(pick) => {
                let case = &cases[at(&pick)];
                prop_assert!(open(&case), "{case:?}");
                prop_assert!(!case.server.backup || others == 0, "{case:?}");
            }
            Err(none) => {
                prop_assert_eq!(cases.iter().filter(open).count(), 0);
                let full = cases.iter().any(|case| case.may_be_asked(none_left_alone) && !case.tried);
                prop_assert_eq!(none, if full { PickError::Full } else { PickError::Nobody });
            }
        }
    }

    #[test]
    fn a_weight_that_changes_moves_keys_to_or_from_its_backend_alone(
        weights in prop::collection::vec(1..100_u32, 2..7),
        changed in any::<prop::sample::Index>(),
        to in 1..100_u32,
    ) {
        let changed = changed.index(weights.len());
        let group = group(Balance::Hash(HashKey::Uri), &weights);
        let by = |key: u64| at(&group.pick_at(client(0), |_| Some(hash(&key.to_le_bytes())), &[], || 0).expect("one"));
        let before: Vec<usize> = (0..300).map(by).collect();
        let mut after = weights.clone();
        after[changed] = to;
        group.replace(settings(Balance::Hash(HashKey::Uri), &after));
        for (before, now) in before.into_iter().zip((0..300).map(by)) {
            let (grew, shrank) = (now == changed && to > weights[changed], before == changed && to < weights[changed]);
            prop_assert!(before == now || grew || shrank, "{before} {now}");
        }
    }

    #[test]
    fn least_conn_gives_an_idle_group_its_shares_exactly(weights in prop::collection::vec(1..20_u32, 1..6)) {
        let group = group(Balance::LeastConn, &weights);
        let shares = counts(&picks(&group, weights.iter().sum()));
        let weights: BTreeMap<usize, u64> = weights.iter().map(|&weight| u64::from(weight)).enumerate().collect();
        prop_assert_eq!(shares, weights);
    }

    #[test]
    fn random_two_never_takes_the_busiest_of_all(
        weights in prop::collection::vec(1..20_u32, 2..6),
        busiest in any::<prop::sample::Index>(),
    ) {
        let busiest = busiest.index(weights.len());
        let group = group(Balance::RandomTwo, &weights);
        let _busy = under_way(&group, busiest);
        prop_assert!(!picks(&group, 50).contains(&busiest));
    }
}
