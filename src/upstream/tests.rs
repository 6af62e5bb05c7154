use std::collections::BTreeMap;

use super::*;
use crate::config::{HostHeader, UpstreamTimeouts};

const SECOND: u64 = 1_000;

fn group(balance: Balance, weights: &[u32]) -> Upstream {
    let server = |(i, &weight)| config::Server {
        address: SocketAddr::from(([127, 0, 0, 1], 3001 + i as u16)),
        weight,
        max_fails: 1,
        fail_timeout: Duration::from_secs(10),
    };
    let minute = Duration::from_secs(60);
    Upstream::new(config::Upstream {
        name: "load_rule".to_owned(),
        balance,
        servers: weights.iter().enumerate().map(server).collect(),
        host_header: HostHeader::Upstream,
        timeouts: UpstreamTimeouts { connect: minute, read: minute, send: minute, idle: minute },
        tries: weights.len().min(16),
        health_check: None,
    })
}

fn client(n: u32) -> IpAddr {
    IpAddr::from(n.rotate_left(8).to_be_bytes())
}

/// Who gets `n` requests, when the clock is not read, as long as everybody is well.
fn picks(group: &Upstream, n: u32) -> Vec<usize> {
    (0..n).map(|n| group.pick_at(client(n), &[], || unreachable!()).expect("a backend").backend).collect()
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
    assert_eq!([0, 1, 2, 3].map(|i| group.counts(i).sent), [1_000, 2_000, 3_000, 4_000]);
}

#[test]
fn round_robin_ignores_weights() {
    assert_eq!(picks(&group(Balance::RoundRobin, &[1, 2, 3]), 6), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn nobody_is_tried_twice() {
    for balance in [Balance::Weighted, Balance::RoundRobin, Balance::IpHash] {
        let group = group(balance, &[1, 2, 3]);
        let mut tried = Vec::new();
        while let Some(pick) = group.pick_at(client(1), &tried, || unreachable!()) {
            assert!(!tried.contains(&pick.backend));
            tried.push(pick.backend);
        }
        assert_eq!(tried.len(), 3);
    }
}

#[test]
fn a_dead_backend_rests_and_is_tried_by_one_request_when_its_time_is_over() {
    let group = group(Balance::Weighted, &[1, 2, 3, 4]);
    group.failed_at(3, "test", 0);
    let mut served = Vec::new();
    for now in 0..600 {
        served.push(group.pick_at(client(0), &[], || now).expect("a backend"));
    }
    assert!(served.iter().all(|pick| !pick.trial));
    assert_eq!(
        counts(&served.iter().map(|pick| pick.backend).collect::<Vec<_>>()),
        [(0, 100), (1, 200), (2, 300)].into()
    );

    let at = |now| group.pick_at(client(0), &[], || now).expect("a backend");
    assert_eq!(at(10 * SECOND), Pick { backend: 3, trial: true });
    assert!((0..100).all(|_| !at(10 * SECOND).trial), "only one tries");

    group.failed_at(3, "test", 11 * SECOND);
    assert!(!at(20 * SECOND).trial, "a failed trial begins a new rest");
    assert_eq!(at(21 * SECOND), Pick { backend: 3, trial: true });
    assert_eq!(at(31 * SECOND), Pick { backend: 3, trial: true }, "a trial without an outcome is repeated");

    group.succeeded(3);
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
    let under_way = picks(&group, 100);
    for backend in under_way {
        if backend == 3 {
            group.failed_at(3, "test", 0);
            served.push(group.pick_at(client(0), &[3], || 1).expect("another").backend);
        } else {
            served.push(backend);
        }
    }
    served.extend((0..900).map(|_| group.pick_at(client(0), &[], || 1).expect("a backend").backend));
    for (backend, count) in counts(&served) {
        let due = 1_000.0 * (backend + 1) as f64 / 6.0;
        assert!((count as f64 - due).abs() < 1.0, "{backend}: {count}");
    }
}

#[test]
fn if_all_rest_none_is_left_alone() {
    let group = group(Balance::Weighted, &[1, 1]);
    group.failed_at(0, "test", 0);
    group.failed_at(1, "test", 0);
    let served: Vec<_> = (0..10).map(|_| group.pick_at(client(0), &[], || 1).expect("a backend")).collect();
    assert!(served.iter().all(|pick| pick.trial));
    assert_eq!(counts(&served.iter().map(|pick| pick.backend).collect::<Vec<_>>()), [(0, 5), (1, 5)].into());
    group.succeeded(1);
    assert_eq!(group.pick_at(client(0), &[], || 1), Some(Pick { backend: 1, trial: false }));
    assert!(!group.is_up(0) && group.is_up(1));
}

#[test]
fn the_only_backend_is_never_left_alone() {
    let group = group(Balance::Weighted, &[1]);
    group.failed_at(0, "test", 0);
    assert_eq!(picks(&group, 3), [0, 0, 0]);
    assert_eq!(group.counts(0), Counts { sent: 3, failed: 1 });
}

#[test]
fn nobody_is_chosen_when_the_checks_say_that_all_are_down() {
    for balance in [Balance::Weighted, Balance::IpHash] {
        let group = group(balance, &[1, 2]);
        group.checked(0, false, "test");
        assert_eq!(counts(&picks(&group, 10)), [(1, 10)].into());
        group.checked(1, false, "test");
        assert_eq!(group.pick_at(client(0), &[], || unreachable!()), None);
        group.failed_at(1, "test", 0);
        assert_eq!(group.pick_at(client(0), &[], || unreachable!()), None);
        group.checked(0, true, "test");
        assert_eq!(counts(&picks(&group, 10)), [(0, 10)].into());
    }
}

#[test]
fn ip_hash_moves_only_the_clients_of_a_resting_backend_and_lets_one_of_them_try_it() {
    let group = group(Balance::IpHash, &[1, 1, 1]);
    let at_first = picks(&group, 300);
    group.failed_at(2, "test", 0);
    for (n, &before) in (0..300).zip(&at_first) {
        let now = group.pick_at(client(n), &[], || 1).expect("a backend").backend;
        assert!(now == before || before == 2);
    }
    let trials: Vec<_> = (0..300)
        .filter(|&n| group.pick_at(client(n), &[], || 10 * SECOND).expect("a backend").trial)
        .map(|n| at_first[n as usize])
        .collect();
    assert_eq!(trials, [2]);
    group.succeeded(2);
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
                    let pick = group.pick_at(client(n), &[], || 1).expect("a backend");
                    if n % 50 == thread {
                        group.failed_at(pick.backend, "test", 1);
                    } else if pick.trial || n % 50 == 25 {
                        group.succeeded(pick.backend);
                    }
                }
            });
        }
    });
    (0..4).for_each(|backend| group.succeeded(backend));
    let counts = counts(&picks(&group, 1_000));
    assert!(counts.iter().all(|(&backend, &count)| count.abs_diff(100 * (backend as u64 + 1)) <= 2), "{counts:?}");
}
