//! Two edges, Redis, an order service and a crowd, while everything fails: processes are killed and frozen, the network
//! loses and delays, clocks jump, disks are full. No ticket may be oversold, undersold or lost.
//!
//! Each test is a schedule of faults drawn from a seed. `make torture` runs them longer and with other seeds;
//! docs/internals/torture.md describes the faults and the checks.

mod buyers;
mod by_hand;
mod checker;
mod client;
mod clock;
mod disk;
mod embedded;
mod fault;
mod history;
mod observer;
mod operator;
mod report;
mod schedule;
mod site;
mod story;

use std::time::Duration;

use self::disk::Disk;
use self::fault::{Fault, Weather};
use self::history::Said;
use self::schedule::Plan;
use self::site::Replica;
use self::story::{Loss, Story};
use crate::harness::redis::Durability;

/// Everything on disk before the answer: not one answered order may be missing.
#[test]
fn k1_redis_is_killed_again_and_again() {
    Story::of("k1 redis is killed again and again").tell(redis_dies);
}

/// On disk within a second. What a dead process has written, the kernel still brings to the disk.
#[test]
fn k2_redis_is_killed_again_and_again_and_syncs_every_second() {
    Story::of("k2 redis is killed, and syncs every second")
        .site(|site| site.redis = Some(Durability::EverySecond))
        .tell(redis_dies);
}

fn redis_dies(plan: &mut Plan) {
    plan.after(200..900).suffers(Fault::KillRedis, 50..600);
}

/// The writes of the last second or two are lost. Edges and order service have them, the sale stops, and it is
/// repaired.
#[test]
fn k3_redis_loses_its_power() {
    Story::of("k3 redis loses its power")
        .site(|site| site.redis = Some(Durability::EverySecond))
        .loses(Loss::Certain)
        .tell(|plan| {
            plan.after(2000..2700).suffers(Fault::LosePower { seconds: 2 }, 50..600).after(0..4000);
        });
}

/// Only the order service remembers: orders that were not delivered yet are lost, and none that is older.
#[test]
fn k5_redis_and_all_edges_lose_their_power() {
    Story::of("k5 redis and all edges lose their power")
        .site(|site| site.redis = Some(Durability::EverySecond))
        .loses(Loss::Certain)
        .tell(|plan| {
            plan.after(2000..2700).suffers(Fault::LoseAllPower { seconds: 2 }, 50..600);
            // The delivery is a dead edge's for 3 s, in which the order service hears of nothing.
            plan.after(4000..7000);
        });
}

/// With WAIT, nothing that was answered is lost, and the sale goes on by itself.
#[test]
fn f1_redis_fails_over() {
    Story::of("f1 redis fails over")
        .site(|site| {
            site.redis = Some(Durability::EverySecond);
            site.replica = Some(Replica::Watched { acknowledge: 1 });
        })
        .tell(|plan| {
            plan.after(300..1500).suffers(Fault::FailOver, 50..1000);
        });
}

/// Without it, what the replica lacked is lost, and the edges notice it.
#[test]
fn f2_redis_fails_over_to_a_replica_that_lags() {
    Story::of("f2 redis fails over to a replica that lags")
        .site(|site| {
            site.redis = Some(Durability::EverySecond);
            site.replica = Some(Replica::Watched { acknowledge: 0 });
        })
        .loses(Loss::Possible)
        .tell(|plan| {
            let lags = plan.fate.ms(200..600);
            plan.after(300..1500).suffers(Fault::FailOverBehind(lags), 50..1000);
        });
}

/// Whoever has seen the new primary does not believe the old one.
#[test]
fn f3_an_old_primary_comes_back_alone() {
    Story::of("f3 an old primary comes back alone")
        .site(|site| site.replica = Some(Replica::Unwatched))
        // The replica is a moment behind when it is made the primary.
        .loses(Loss::Possible)
        .tell(|plan| {
            let edge = plan.fate.either();
            plan.after(300..1500).suffers(Fault::OldPrimary(edge), 300..1500);
        });
}

// K4 (no persistence at all) is in `by_hand`.

/// Before its batch is sent, after that, and before the reply has come.
#[test]
fn e1_edges_are_killed_in_the_middle_of_their_batches() {
    Story::of("e1 edges are killed in the middle of their batches").tell(|plan| {
        let edge = plan.fate.either();
        plan.after(100..500);
        match plan.fate.number(0..3) {
            0 => drop(plan.begins(Fault::Network(edge, Weather::RequestsLate), 300..400)),
            1 => drop(plan.begins(Fault::Network(edge, Weather::RepliesLate), 300..400)),
            _ => {}
        }
        plan.after(50..200).suffers(Fault::KillEdge(edge), 50..700);
    });
}

/// Longer than a hold: what it still has under way when it wakes up is of the past.
#[test]
fn e2_edges_are_frozen_for_longer_than_a_hold() {
    Story::of("e2 edges are frozen for longer than a hold")
        // What it says at the moment in which it wakes up is as old as its sleep.
        .rules(|rules| rules.memory = Some(Duration::from_secs(8)))
        .tell(|plan| {
            let edge = plan.fate.either();
            plan.after(100..400).suffers(Fault::FreezeEdge(edge), 100..4000);
        });
}

/// Shorter and longer than an answer is waited for.
#[test]
fn p1_redis_is_frozen() {
    Story::of("p1 redis is frozen").tell(|plan| {
        let longest = if plan.fate.chance(30) { 5000 } else { 900 };
        plan.after(200..800).suffers(Fault::FreezeRedis, 50..longest);
    });
}

/// The ledger executes steps whose replies are lost: none may be executed twice.
#[test]
fn n1_replies_are_lost() {
    Story::of("n1 replies are lost").tell(|plan| {
        let edge = plan.fate.either();
        let weather = plan.fate.one_of(&[Weather::RepliesLost, Weather::RepliesLate]);
        plan.after(50..400).suffers(Fault::Network(edge, weather), 100..900);
    });
}

/// Black holes, delays, single bytes, resets, connections of which only one end knows that they have ended.
#[test]
fn n2_the_network_is_bad_in_every_way() {
    Story::of("n2 the network is bad in every way").tell(|plan| {
        let edge = plan.fate.either();
        let (weather, tear) = (plan.fate.weather(), plan.fate.tear());
        plan.after(50..300);
        if plan.fate.chance(30) {
            plan.meets(Fault::Tear(edge, tear));
        } else {
            plan.suffers(Fault::Network(edge, weather), 100..900);
        }
    });
}

/// What an edge gave up and asked again over another connection must not be done after all.
#[test]
fn n4_requests_are_overtaken() {
    Story::of("n4 requests are overtaken").tell(|plan| {
        let edge = plan.fate.either();
        plan.after(50..300).suffers(Fault::Network(edge, Weather::Overtaken), 350..1500);
    });
}

/// The edge that is cut off says neither yes nor no. The other one goes on selling.
#[test]
fn n3_one_edge_is_cut_off_and_the_other_sells() {
    let story = Story::of("n3 one edge is cut off and the other sells");
    let cut_us = 200_000..story.time().as_micros() as u64;
    story.tell_and(
        |plan| {
            plan.after(200..201).suffers(Fault::Network(0, Weather::Cut), 600_000..600_001);
        },
        |calls, verdict| {
            // What it heard before is forgotten after a while.
            let deaf = cut_us.start + 2_500_000..cut_us.end;
            let asked = |at: &'static str| calls.iter().filter(move |call| call.at == at);
            for call in asked("edge a").filter(|call| deaf.contains(&call.invoked.us)) {
                let Some((ended, said)) = &call.ended else { continue };
                let says_nothing = said.is_unknown() || matches!(said, Said::No { why, .. } if !checker::denies(why));
                if ended.us < deaf.end {
                    verdict.expect("an edge that hears nothing says nothing", says_nothing, || format!("{call:?}"));
                }
            }
            let sold = asked("edge b").filter(|call| cut_us.contains(&call.invoked.us) && call.is_ok()).count();
            verdict.expect("the other edge goes on", sold > 0, || "it sold nothing".to_owned());
        },
    );
}

/// All of it passes, and at none of it anybody is told a wrong count.
#[test]
fn c1_redis_forgets_scripts_ends_clients_and_has_no_memory() {
    Story::of("c1 redis forgets scripts, ends clients and has no memory").tell(|plan| {
        let fault = plan.fate.one_of(&[Fault::ForgetScripts, Fault::EndClients, Fault::NoMemory]);
        plan.after(50..300);
        if fault == Fault::NoMemory {
            plan.suffers(fault, 100..600)
        } else {
            plan.meets(fault)
        };
    });
}

/// An hour forth, and back. A sale's time never goes back: while the clock is behind where it was, no hold ends, and so
/// it is brought there again before all is sold.
#[test]
fn t1_the_clock_of_redis_jumps() {
    const HOUR: i64 = 3600;
    Story::of("t1 the clock of redis jumps")
        .site(|site| site.clock = true)
        // Its times are not ours.
        .rules(|rules| rules.memory = None)
        .tell(|plan| {
            let seconds = plan.fate.one_of(&[-HOUR, -10, 0, 1, 10, HOUR]);
            plan.after(100..700).meets(Fault::SetClock(seconds));
        });
}

/// The ledger's clock decides, whatever the edges' clocks say. (Deliveries are signed by the edge's clock, and one that
/// is wrong by more than five minutes is refused by the order service, so these are not.)
#[test]
fn t2_the_clocks_of_the_edges_differ() {
    Story::of("t2 the clocks of the edges differ").site(|site| site.edge_clocks_s = [-240, 240]).tell(|plan| {
        let edge = plan.fate.either();
        plan.after(300..900).suffers(Fault::FreezeEdge(edge), 50..500);
    });
}

/// Between the write and the answer, between the answer and the cursor; two of them on one database, one delivery at a
/// time.
#[test]
fn w1_order_services_are_killed_and_frozen() {
    Story::of("w1 order services are killed and frozen").site(|site| site.orders = 2).tell(|plan| {
        let one = plan.fate.either();
        plan.after(50..400);
        if plan.fate.chance(60) {
            plan.suffers(Fault::KillOrders(one), 50..600);
        } else {
            plan.suffers(Fault::FreezeOrders(one), 100..1500);
        }
        if plan.fate.chance(30) {
            let edge = plan.fate.either();
            plan.suffers(Fault::KillEdge(edge), 50..300);
        }
    });
}

/// One after the other and at the same time.
#[test]
fn x1_everything_fails() {
    Story::of("x1 everything fails")
        .site(|site| site.orders = 2)
        .rules(|rules| rules.memory = Some(Duration::from_secs(8)))
        .tell(|plan| {
            let (edge, one) = (plan.fate.either(), plan.fate.either());
            let (weather, tear) = (plan.fate.weather(), plan.fate.tear());
            let fault = plan.fate.one_of(&[
                Fault::KillRedis,
                Fault::FreezeRedis,
                Fault::KillEdge(edge),
                Fault::FreezeEdge(edge),
                Fault::KillOrders(one),
                Fault::FreezeOrders(one),
                Fault::Network(edge, weather),
                Fault::Network(edge, weather),
                Fault::Tear(edge, tear),
                Fault::ForgetScripts,
                Fault::EndClients,
                Fault::NoMemory,
            ]);
            plan.after(50..500).begins(fault, 50..1200);
        });
}

/// One edge, its ledger on its own disk: every order that it answered is there when it comes back.
#[test]
fn l1_the_edge_of_an_embedded_ledger_is_killed_again_and_again() {
    Story::of("l1 the edge of an embedded ledger is killed").site(|site| site.redis = None).tell(|plan| {
        plan.after(100..700).suffers(Fault::KillEdge(0), 20..300);
    });
}

#[test]
fn l2_the_edge_of_an_embedded_ledger_dies_in_the_middle_of_a_record() {
    Story::of("l2 the edge of an embedded ledger dies in the middle of a record").site(|site| site.redis = None).tell(
        |plan| {
            plan.after(100..700).suffers(Fault::TearRecord, 20..300);
        },
    );
}

/// Nothing is sold that cannot be written down, and sales go on when there is room.
#[test]
fn l3_the_disk_of_an_embedded_ledger_is_full() {
    if !Disk::may_be_mounted() {
        println!("l3 is left out: only root may mount a disk that is small enough to be filled");
        return;
    }
    Story::of("l3 the disk of an embedded ledger is full")
        .site(|site| (site.redis, site.small_disk) = (None, true))
        .tell(|plan| {
            plan.after(200..700).begins(Fault::FillDisk, 200..900);
            if plan.fate.chance(30) {
                plan.after(50..150).suffers(Fault::KillEdge(0), 20..300);
            }
            plan.after(500..900);
        });
}
