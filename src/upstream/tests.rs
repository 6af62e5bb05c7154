mod any;

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::config::{HealthCheck, HostHeader, Probe, UpstreamTimeouts};

const SECOND: u64 = 1_000;
const EVERY: [Balance; 6] = [
    Balance::Weighted,
    Balance::RoundRobin,
    Balance::LeastConn,
    Balance::RandomTwo,
    Balance::IpHash,
    Balance::Hash(HashKey::Uri),
];
const MINUTE: Duration = Duration::from_secs(60);

fn group(balance: Balance, weights: &[u32]) -> Upstream {
    Upstream::new(settings(balance, weights))
}

fn settings(balance: Balance, weights: &[u32]) -> config::Upstream {
    let server = |(i, &weight)| {
        let address = SocketAddr::from(([127, 0, 0, 1], 3001 + i as u16));
        config::Server { weight, ..config::Server::at(address) }
    };
    config::Upstream {
        name: "load_rule".to_owned(),
        balance,
        servers: weights.iter().enumerate().map(server).collect(),
        host_header: HostHeader::Upstream,
        timeouts: UpstreamTimeouts { connect: MINUTE, read: MINUTE, send: MINUTE, idle: MINUTE },
        tries: weights.len().min(16),
        health_check: None,
        resolve: config::Resolve::default(),
    }
}

/// Where a pick goes, told by the position in the file at which all backends stand that have ever been there.
fn at(pick: &Pick) -> usize {
    usize::from(pick.address().port()) - 3001
}

/// One request, which ends at once: where it went, and whether as a trial.
fn one(group: &Upstream, client: IpAddr, now: u64) -> (usize, bool) {
    let pick = group.pick_at(client, no_key, &[], || now).expect("a backend");
    (at(&pick), pick.is_trial())
}

/// A request that is under way at this backend.
fn under_way(group: &Upstream, backend: usize) -> Pick {
    let now = group.now.load();
    now.members[backend].backend.take(0).expect("room")
}

fn fails(group: &Upstream, backend: usize, now: u64) {
    group.failed_at(&under_way(group, backend), "test", now);
}

fn succeeds(group: &Upstream, backend: usize) {
    group.succeeded(&under_way(group, backend));
}

fn checked(group: &Upstream, backend: usize, good: bool) {
    let backend = Arc::clone(&group.now.load().members[backend].backend);
    group.checked(&backend, good, "test");
}

fn no_key(_: &HashKey) -> Option<u64> {
    None
}

fn client(n: u32) -> IpAddr {
    IpAddr::from(n.rotate_left(8).to_be_bytes())
}

/// Who gets `n` requests, when the clock is not read, as long as everybody is well.
fn picks(group: &Upstream, n: u32) -> Vec<usize> {
    (0..n).map(|n| at(&group.pick_at(client(n), no_key, &[], || unreachable!()).expect("a backend"))).collect()
}

fn counts(picks: &[usize]) -> BTreeMap<usize, u64> {
    let mut counts = BTreeMap::new();
    picks.iter().for_each(|&pick| *counts.entry(pick).or_default() += 1);
    counts
}

#[test]
fn weights_are_kept_exactly_whatever_the_number_of_threads() {
    let group = group(Balance::Weighted, &[1, 2, 3, 4]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| picks(&group, 2_500));
        }
    });
    let sent: Vec<u64> = group.status().iter().map(|backend| backend.counts.sent).collect();
    assert_eq!(sent, [1_000, 2_000, 3_000, 4_000]);
}

#[test]
fn round_robin_ignores_weights() {
    assert_eq!(picks(&group(Balance::RoundRobin, &[1, 2, 3]), 6), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn nobody_is_tried_twice() {
    let key = |_: &HashKey| Some(7);
    for balance in EVERY {
        let group = group(balance, &[1, 2, 3]);
        let mut tried = Vec::new();
        while let Ok(pick) = group.pick_at(client(1), key, &tried, || unreachable!()) {
            assert!(!tried.contains(&pick.id()));
            tried.push(pick.id());
        }
        assert_eq!(tried.len(), 3);
    }
}

#[test]
fn a_dead_backend_rests_and_is_tried_by_one_request_when_its_time_is_over() {
    let group = group(Balance::Weighted, &[1, 2, 3, 4]);
    fails(&group, 3, 0);
    let mut served = Vec::new();
    for now in 0..600 {
        served.push(one(&group, client(0), now));
    }
    assert!(served.iter().all(|(_, is_trial)| !is_trial));
    let served: Vec<_> = served.into_iter().map(|(backend, _)| backend).collect();
    assert_eq!(counts(&served), [(0, 100), (1, 200), (2, 300)].into());

    let at = |now| one(&group, client(0), now);
    assert_eq!(at(10 * SECOND), (3, true));
    assert!((0..100).all(|_| !at(10 * SECOND).1), "only one tries");

    fails(&group, 3, 11 * SECOND);
    assert!(!at(20 * SECOND).1, "a failed trial begins a new rest");
    assert_eq!(at(21 * SECOND), (3, true));
    assert_eq!(at(31 * SECOND), (3, true), "a trial without an outcome is repeated");

    succeeds(&group, 3);
    let back = picks(&group, 1_000);
    for (backend, count) in counts(&back) {
        assert!(count.abs_diff(100 * (backend as u64 + 1)) <= 1, "{backend}: {count}");
    }
}

#[test]
fn failures_under_way_do_not_disturb_the_others_shares() {
    // All of 100 requests under way meet the dead backend before anyone knows, and go elsewhere.
    let group = group(Balance::Weighted, &[1, 2, 3, 4]);
    let mut served = Vec::new();
    let dead = group.now.load().members[3].backend.id();
    for backend in picks(&group, 100) {
        if backend == 3 {
            fails(&group, 3, 0);
            served.push(at(&group.pick_at(client(0), no_key, &[dead], || 1).expect("another")));
        } else {
            served.push(backend);
        }
    }
    served.extend((0..900).map(|_| one(&group, client(0), 1).0));
    for (backend, count) in counts(&served) {
        let due = 1_000.0 * (backend + 1) as f64 / 6.0;
        assert!((count as f64 - due).abs() < 1.0, "{backend}: {count}");
    }
}

#[test]
fn if_all_rest_none_is_left_alone() {
    let group = group(Balance::Weighted, &[1, 1]);
    fails(&group, 0, 0);
    fails(&group, 1, 0);
    let (served, trials): (Vec<_>, Vec<_>) = (0..10).map(|_| one(&group, client(0), 1)).unzip();
    assert!(trials.iter().all(|is_trial| *is_trial));
    assert_eq!(counts(&served), [(0, 5), (1, 5)].into());
    succeeds(&group, 1);
    assert_eq!(one(&group, client(0), 1), (1, false));
    assert_eq!(group.status().iter().map(|backend| backend.is_up).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn the_only_backend_is_never_left_alone() {
    let group = group(Balance::Weighted, &[1]);
    fails(&group, 0, 0);
    assert_eq!(picks(&group, 3), [0, 0, 0]);
    assert_eq!(group.status()[0].counts, RequestCounters { sent: 4, failed: 1, under_way: 0 });
}

#[test]
fn nobody_is_chosen_when_the_checks_say_that_all_are_down() {
    for balance in EVERY {
        let group = group(balance, &[1, 2]);
        checked(&group, 0, false);
        assert_eq!(counts(&picks(&group, 10)), [(1, 10)].into());
        checked(&group, 1, false);
        assert_eq!(group.pick_at(client(0), no_key, &[], || unreachable!()).err(), Some(PickError::Nobody));
        fails(&group, 1, 0);
        assert_eq!(group.pick_at(client(0), no_key, &[], || unreachable!()).err(), Some(PickError::Nobody));
        checked(&group, 0, true);
        assert_eq!(counts(&picks(&group, 10)), [(0, 10)].into());
    }
}

#[test]
fn ip_hash_moves_only_the_clients_of_a_resting_backend_and_lets_one_of_them_try_it() {
    let group = group(Balance::IpHash, &[1, 1, 1]);
    let at_first = picks(&group, 300);
    fails(&group, 2, 0);
    for (n, &before) in (0..300).zip(&at_first) {
        let now = one(&group, client(n), 1).0;
        assert!(now == before || before == 2);
    }
    let trials: Vec<_> =
        (0..300).filter(|&n| one(&group, client(n), 10 * SECOND).1).map(|n| at_first[n as usize]).collect();
    assert_eq!(trials, [2]);
    succeeds(&group, 2);
    assert_eq!(picks(&group, 300), at_first);
}

#[test]
fn health_may_change_while_others_pick() {
    let group = group(Balance::Weighted, &[1, 2, 3, 4]);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let group = &group;
            scope.spawn(move || {
                for n in 0..20_000 {
                    let pick = group.pick_at(client(n), no_key, &[], || 1).expect("a backend");
                    if n % 50 == thread {
                        group.failed_at(&pick, "test", 1);
                    } else if pick.is_trial() || n % 50 == 25 {
                        group.succeeded(&pick);
                    }
                }
            });
        }
    });
    (0..4).for_each(|backend| succeeds(&group, backend));
    let counts = counts(&picks(&group, 1_000));
    assert!(counts.iter().all(|(&backend, &count)| count.abs_diff(100 * (backend as u64 + 1)) <= 2), "{counts:?}");
}

/// As [`settings`], of these backends only.
fn some(balance: Balance, weights: &[u32], backends: &[usize]) -> config::Upstream {
    let all = settings(balance, weights);
    config::Upstream { servers: backends.iter().map(|&backend| all.servers[backend].clone()).collect(), ..all }
}

#[test]
fn a_backend_that_stays_keeps_its_health_its_counts_and_its_requests() {
    let group = Upstream::new(some(Balance::Weighted, &[1; 4], &[0, 1, 2]));
    assert_eq!(picks(&group, 6), [0, 1, 2, 0, 1, 2]);
    fails(&group, 1, 0);
    let under_way = under_way(&group, 0);

    group.replace(some(Balance::Weighted, &[2, 1, 1, 1], &[3, 1, 0]));
    let status = group.status();
    assert_eq!(status.iter().map(|backend| backend.is_up).collect::<Vec<_>>(), [true, false, true]);
    let (came, rests, stayed) = (status[0].counts, status[1].counts, status[2].counts);
    assert_eq!(came, RequestCounters { sent: 0, failed: 0, under_way: 0 });
    assert_eq!(rests, RequestCounters { sent: 3, failed: 1, under_way: 0 });
    assert_eq!(stayed, RequestCounters { sent: 3, failed: 0, under_way: 1 });
    let served: Vec<_> = (0..300).map(|_| one(&group, client(0), 1).0).collect();
    assert_eq!(counts(&served), [(0, 200), (3, 100)].into(), "by the new weights, and the resting one still rests");
    assert_eq!(one(&group, client(0), 10 * SECOND), (1, true), "until its time is over");
    drop(under_way);
    assert_eq!(group.status()[2].counts.under_way, 0);
}

#[test]
fn requests_of_a_backend_that_went_end_without_a_trace() {
    let group = group(Balance::Weighted, &[1, 1]);
    let under_way = under_way(&group, 1);
    group.replace(some(Balance::Weighted, &[1, 1], &[0]));
    group.failed_at(&under_way, "test", 0);
    group.succeeded(&under_way);
    assert_eq!(picks(&group, 10), [0; 10]);
    drop(under_way);
    group.replace(settings(Balance::Weighted, &[1, 1]));
    assert_eq!(
        group.status()[1].counts,
        RequestCounters { sent: 0, failed: 0, under_way: 0 },
        "it comes back as a new one"
    );
}

#[test]
fn what_checks_took_out_is_back_when_there_are_no_checks_any_more() {
    let check = HealthCheck { probe: Probe::Tcp, interval: MINUTE, timeout: MINUTE, rise: 1, fall: 1 };
    let checks = || config::Upstream { health_check: Some(check.clone()), ..settings(Balance::Weighted, &[1, 1]) };
    let group = Upstream::new(checks());
    checked(&group, 0, false);
    group.replace(checks());
    assert_eq!(counts(&picks(&group, 10)), [(1, 10)].into());
    group.replace(settings(Balance::Weighted, &[1, 1]));
    assert_eq!(counts(&picks(&group, 10)), [(0, 5), (1, 5)].into());
}

#[test]
fn backends_may_be_replaced_while_others_pick() {
    let group = Upstream::new(some(Balance::Weighted, &[1; 4], &[0, 1]));
    std::thread::scope(|scope| {
        let pickers: Vec<_> = (0..2)
            .map(|_| {
                scope
                    .spawn(|| (0..50_000).for_each(|n| drop(group.pick_at(client(n), no_key, &[], || 1).expect("one"))))
            })
            .collect();
        let mut turn = 0;
        while pickers.iter().any(|picker| !picker.is_finished()) {
            turn += 1;
            group.replace(some(Balance::Weighted, &[1; 4], &[turn % 4, (turn + 1) % 4, (turn + 2) % 4]));
        }
    });
    group.replace(settings(Balance::Weighted, &[1; 4]));
    assert!(group.status().iter().all(|backend| backend.counts.under_way == 0));
    assert_eq!(counts(&picks(&group, 400)).values().filter(|count| count.abs_diff(100) > 2).count(), 0);
}

/// The same settings with a change at each server.
fn with(mut settings: config::Upstream, change: impl Fn(usize, &mut config::Server)) -> config::Upstream {
    settings.servers.iter_mut().enumerate().for_each(|(i, server)| change(i, server));
    settings
}

#[test]
fn least_conn_shares_an_idle_group_by_weight() {
    assert_eq!(picks(&group(Balance::LeastConn, &[1, 2, 3, 4]), 10), [3, 2, 1, 3, 0, 2, 3, 1, 2, 3]);
}

#[test]
fn least_conn_keeps_the_requests_under_way_in_proportion_to_the_weights() {
    let group = group(Balance::LeastConn, &[1, 2, 3, 4]);
    let mut held: Vec<Pick> = Vec::new();
    for n in 0..1_000_u32 {
        held.push(group.pick_at(client(n), no_key, &[], || unreachable!()).expect("a backend"));
        if held.len() > 100 {
            // They end in another order than they came.
            drop(held.swap_remove(n as usize * 7 % held.len()));
        }
        let held: Vec<f64> = (0..4).map(|i| group.status()[i].counts.under_way as f64 / (i + 1) as f64).collect();
        let (least, most) = (held.iter().copied().fold(f64::MAX, f64::min), held.iter().copied().fold(0.0, f64::max));
        // One request weighs most at the first; those that ended by chance make the rest.
        assert!(n > 100 || most - least <= 1.0, "{held:?}");
    }
    drop(held);
    assert!(group.status().iter().all(|backend| backend.counts.under_way == 0));
}

#[test]
fn least_conn_prefers_whoever_is_idle() {
    let group = group(Balance::LeastConn, &[1, 1]);
    let _busy = under_way(&group, 0);
    assert_eq!(picks(&group, 10), [1; 10]);
}

#[test]
fn random_two_draws_by_weight_and_takes_the_less_loaded() {
    let settings = settings(Balance::RandomTwo, &[1, 2, 3, 4]);
    let group = Upstream::new(settings.clone());
    // Of two idle ones the first drawn is taken, so shares are the weights'.
    let shares = counts(&picks(&group, 20_000));
    for (&backend, &count) in &shares {
        let due = 2_000.0 * (backend + 1) as f64;
        assert!((count as f64 - due).abs() < due * 0.1, "{shares:?}");
    }
    // The busiest for its weight loses against every other, so it is never taken.
    let _busy = [under_way(&group, 0)];
    assert!(!counts(&picks(&group, 1_000)).contains_key(&0));
    // With one left there is nothing to draw.
    (1..4).for_each(|backend| checked(&group, backend, false));
    assert_eq!(picks(&group, 3), [0; 3]);
}

#[test]
fn random_two_keeps_loads_closer_than_chance() {
    let group = group(Balance::RandomTwo, &[1; 10]);
    let held: Vec<Pick> =
        (0..1_000).map(|n| group.pick_at(client(n), no_key, &[], || unreachable!()).expect("a backend")).collect();
    let most = group.status().iter().map(|backend| backend.counts.under_way).max().expect("somebody");
    // Chance alone would give 116 in the mean; two choices leave ln ln 10 / ln 2 above the mean, some 101 to 103.
    assert!(most <= 108, "{most}");
    drop(held);
}

#[test]
fn a_hash_gives_a_key_its_backend_and_shares_the_rest_in_turn() {
    let group = group(Balance::Hash(HashKey::Path), &[1, 2, 3, 4]);
    let by = |key: u64| at(&group.pick_at(client(0), |_| Some(hash(&key.to_le_bytes())), &[], || 0).expect("one"));
    let before: Vec<usize> = (0..10_000).map(by).collect();
    for (backend, count) in counts(&before) {
        let due = 1_000.0 * (backend + 1) as f64;
        assert!((count as f64 - due).abs() < due * 0.1, "{backend}: {count}");
    }
    fails(&group, 2, 0);
    let now: Vec<usize> = (0..10_000).map(by).collect();
    assert!(before.iter().zip(&now).all(|(before, now)| before == now || *before == 2), "only its own keys move");
    assert!(now.iter().all(|backend| *backend != 2));
    succeeds(&group, 2);
    assert_eq!((0..10_000).map(by).collect::<Vec<_>>(), before);
    assert_eq!(counts(&picks(&group, 10)), [(0, 1), (1, 2), (2, 3), (3, 4)].into(), "those without a key");
}

#[test]
fn a_server_that_is_down_keeps_its_keys_for_when_it_is_back() {
    let whole = settings(Balance::Hash(HashKey::Path), &[1; 4]);
    let down = with(whole.clone(), |i, server| server.down = i == 1);
    let group = Upstream::new(down);
    let by = |key: u64| at(&group.pick_at(client(0), |_| Some(hash(&key.to_le_bytes())), &[], || 0).expect("one"));
    let without: Vec<usize> = (0..1_000).map(by).collect();
    assert!(!without.contains(&1) && !group.status()[1].is_up);
    group.replace(whole);
    let moved = (0..1_000).map(by).zip(&without).filter(|(now, without)| now != *without);
    assert!(moved.map(|(now, _)| now).all(|now| now == 1));
}

#[test]
fn down_is_never_picked() {
    for balance in EVERY {
        let group = Upstream::new(with(settings(balance, &[1, 1]), |_, server| server.down = true));
        assert_eq!(group.pick_at(client(0), |_| Some(1), &[], || 0).err(), Some(PickError::Nobody));
    }
}

#[test]
fn backups_have_their_turn_when_no_other_can_be_asked() {
    for balance in EVERY {
        let group = Upstream::new(with(settings(balance, &[1, 1, 1]), |i, server| server.backup = i == 2));
        assert!(!picks(&group, 100).contains(&2));
        // One that was tried at all others goes there.
        let others: Vec<usize> = [0, 1].map(|backend| under_way(&group, backend).id()).into();
        assert_eq!(at(&group.pick_at(client(0), no_key, &others, || 0).expect("the backup")), 2);
        fails(&group, 0, 0);
        assert!((0..100).all(|n| one(&group, client(n), 1).0 == 1));
        fails(&group, 1, 0);
        assert!((0..100).all(|n| one(&group, client(n), 1) == (2, false)));
        // Even the backup rests: none is left alone, and it is again the last.
        fails(&group, 2, 0);
        assert!((0..100).all(|n| one(&group, client(n), 1).0 != 2));
        succeeds(&group, 0);
        assert_eq!(counts(&(0..10).map(|n| one(&group, client(n), 1).0).collect::<Vec<_>>()), [(0, 10)].into());
    }
}

#[test]
fn a_resting_backup_is_not_tried_while_others_are_well() {
    let group = Upstream::new(with(settings(Balance::Weighted, &[1, 1, 1]), |i, server| server.backup = i == 2));
    fails(&group, 2, 0);
    assert!((0..100).all(|n| one(&group, client(n), 60 * SECOND).0 != 2));
}

#[test]
fn max_conns_is_never_exceeded_and_full_is_told_from_down() {
    for balance in EVERY {
        let group = Upstream::new(with(settings(balance, &[1, 9, 1]), |i, server| {
            server.max_conns = [3, 5, 0][i];
            server.down = i == 2;
        }));
        let ask = |n| group.pick_at(client(n), |_| Some(hash(&n.to_le_bytes())), &[], || 0);
        let held: Vec<Pick> = (0..8).map(|n| ask(n).expect("room")).collect();
        assert_eq!(group.status().iter().map(|backend| backend.counts.under_way).collect::<Vec<_>>(), [3, 5, 0]);
        assert_eq!(ask(9).err(), Some(PickError::Full));
        drop(held);
        assert!(ask(9).is_ok());
        [0, 1].iter().for_each(|backend| checked(&group, *backend, false));
        assert_eq!(ask(9).err(), Some(PickError::Nobody));
    }
}

#[test]
fn max_conns_holds_whatever_the_number_of_threads() {
    for balance in EVERY {
        let group = Upstream::new(with(settings(balance, &[1, 2]), |_, server| server.max_conns = 2));
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let group = &group;
                scope.spawn(move || {
                    for n in 0..5_000 {
                        let key = |_: &HashKey| Some(hash(&(n + thread).to_le_bytes()));
                        let pick = group.pick_at(client(n), key, &[], || 0);
                        assert!(group.status().iter().all(|backend| backend.counts.under_way <= 2));
                        drop(pick);
                    }
                });
            }
        });
        assert!(group.status().iter().all(|backend| backend.counts.under_way == 0));
    }
}

#[test]
fn the_weight_of_a_backend_that_came_back_grows() {
    let group = Upstream::new(with(settings(Balance::Weighted, &[1, 1]), |_, server| {
        server.slow_start = Duration::from_secs(20)
    }));
    assert_eq!(counts(&picks(&group, 100)), [(0, 50), (1, 50)].into(), "at the start everybody is warm");
    fails(&group, 1, 0);
    let pick = under_way(&group, 1);
    group.succeeded_at(&pick, 10 * SECOND);
    let shares: Vec<u64> = (0..=21)
        .map(|second| {
            group.grow_at((10 + second) * SECOND);
            counts(&picks(&group, 420)).get(&1).copied().unwrap_or_default()
        })
        .collect();
    for (second, share) in shares.iter().enumerate() {
        let part = second.clamp(1, 20) as f64;
        let due = 420.0 * part / (part + 20.0);
        assert!((*share as f64 - due).abs() <= 2.0, "{second}: {share} of {due}, {shares:?}");
    }
    assert_eq!(group.grow_at(31 * SECOND), None, "it has grown");
}

#[test]
fn a_backend_that_is_added_starts_slowly_and_one_that_is_reweighted_does_not() {
    let slow = |backends: &[usize], weights: &[u32]| {
        with(some(Balance::Weighted, weights, backends), |_, server| server.slow_start = Duration::from_secs(20))
    };
    let group = Upstream::new(slow(&[0, 1], &[1, 1, 1]));
    group.replace_at(slow(&[0, 1, 2], &[1, 2, 3]), 0);
    assert_eq!(counts(&picks(&group, 630)), [(0, 200), (1, 400), (2, 30)].into());
    group.grow_at(20 * SECOND);
    assert_eq!(counts(&picks(&group, 600)), [(0, 100), (1, 200), (2, 300)].into());
}
