//! The order service is down, slow, wrong, or cannot store an event.

use std::time::Duration;

use serde_json::{Value, json};

use super::{AMPLE, all_is_delivered, buy_many, gauge, known, status, tickets, told, with_both_ledgers};
use crate::harness::purchase::purchase;
use crate::harness::receiver::Mood;
use crate::harness::{Edge, Receiver, becomes, buy, eventually};

/// How often a line of the edge's log has this text.
fn lines(edge: &Edge, text: &str) -> usize {
    edge.log().lines().filter(|line| line.contains(text)).count()
}

fn ask_for(edge: &Edge, arguments: &[&str]) -> Value {
    let output = edge.sale_command(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn while_the_order_service_is_down_the_lag_grows_and_then_all_arrives() {
    with_both_ledgers(|start| {
        let mut receiver = Receiver::start();
        let edge = start(&receiver);
        all_is_delivered(&edge);
        receiver.stop();
        let mut ids = buy_many(&edge, 50);
        eventually("the lag is seen", || (gauge(&edge, "lag_entries") > 0).then_some(()));
        let lag = gauge(&edge, "lag_entries");
        ids.extend(buy_many(&edge, 50));
        eventually("it grows", || (gauge(&edge, "lag_entries") > lag).then_some(()));
        eventually("it ages", || (gauge(&edge, "oldest_seconds") >= 1).then_some(()));
        assert!(status(&edge)["oldest_at"].is_string());
        eventually("it is tried again and again", || {
            (edge.metric("spikegate_delivery_posts_total", "failed") >= 4).then_some(())
        });
        becomes("lines of one outage", 1, || lines(&edge, "cannot deliver the log"));
        assert!(buy(edge.address(), &purchase()).is_order(), "purchases do not wait for it");

        receiver.start_again();
        all_is_delivered(&edge);
        eventually("the gauges follow", || {
            (gauge(&edge, "lag_entries") == 0 && gauge(&edge, "oldest_seconds") == 0).then_some(())
        });
        assert_eq!(known(&receiver).len(), 101);
        assert!(known(&receiver).is_superset(&ids));
        eventually("it is told", || (lines(&edge, "delivery resumed after") == 1).then_some(()));
        assert_eq!(lines(&edge, "cannot deliver the log"), 1);
        assert!(edge.metric("spikegate_upstream_failures_total", "orders") >= 4, "its health hears of it");
    });
}

#[test]
fn whatever_is_not_2xx_is_tried_again_until_it_is() {
    let receiver = Receiver::start();
    let edge = told(Edge::setup(), &[&receiver]).ticket(tickets(1_000)).start();
    all_is_delivered(&edge);
    for mood in [
        Mood::Answers(500),
        Mood::Answers(503),
        Mood::Answers(401),
        Mood::Answers(403),
        Mood::Answers(408),
        Mood::Answers(429),
        Mood::Answers(302),
        Mood::Hangs,
        Mood::KeepsInSilence,
    ] {
        let before = receiver.posts();
        receiver.is(mood.clone());
        let ids = buy_many(&edge, 20);
        eventually("it is tried again", || (receiver.posts() >= before + 2).then_some(()));
        let status = status(&edge);
        assert_ne!(status["lag_entries"], 0, "{mood:?}: {status}");
        assert_eq!(status["set_aside"], json!([]), "{mood:?}");
        receiver.is(Mood::Well);
        all_is_delivered(&edge);
        assert!(known(&receiver).is_superset(&ids), "{mood:?}");
        assert!(receiver.orders().values().all(|kinds| *kinds == ["held"]), "{mood:?}");
    }
}

#[test]
fn an_event_that_is_refused_is_set_aside_and_delivered_on_command() {
    with_both_ledgers(|start| {
        let receiver = Receiver::start();
        receiver.is(Mood::Answers(503));
        let edge = start(&receiver);
        let ids = buy_many(&edge, 300);
        let poison: Vec<String> = ids.iter().take(2).cloned().collect();
        let refuses = |ids: &[String]| {
            // Whatever the entry of the order is.
            Mood::Refuses((1..400).flat_map(|seq| ids.iter().map(move |id| (seq, Some(id.clone())))).collect())
        };
        receiver.is(refuses(&poison));
        let told = all_is_delivered(&edge);
        let aside = told["set_aside"].as_array().unwrap();
        assert_eq!(aside.len(), 2, "{told}");
        assert!(aside.iter().all(|event| event["why"] == "400 this event cannot be stored"), "{told}");
        assert!(aside.iter().all(|event| poison.contains(&event["order_id"].as_str().unwrap().to_owned())), "{told}");
        assert_eq!(known(&receiver), ids.iter().filter(|id| !poison.contains(id)).cloned().collect());
        becomes("events set aside", 2, || gauge(&edge, "set_aside"));
        let once = receiver.events();
        assert_eq!(once.iter().filter(|event| event["kind"] == "held").count(), 298, "halving delivers nothing twice");
        becomes("lines about events set aside", 2, || lines(&edge, "is set aside"));

        receiver.is(refuses(&poison[..1]));
        assert_eq!(ask_for(&edge, &["redeliver", "ticket"])["retrying"], 2);
        let left = eventually("one of them is delivered", || {
            let status = ask_for(&edge, &["delivery", "ticket"]);
            (status["set_aside"].as_array().unwrap().len() == 1).then(|| status["set_aside"][0].clone())
        });
        assert_eq!(left["order_id"], *poison[0]);
        assert!(known(&receiver).contains(&poison[1]));
        eventually("the other waits again", || (status(&edge)["set_aside"][0]["retrying"] == false).then_some(()));

        receiver.is(Mood::Well);
        ask_for(&edge, &["redeliver", "ticket"]);
        eventually("nothing is left", || (status(&edge)["set_aside"] == json!([])).then_some(()));
        assert_eq!(known(&receiver), ids);
        becomes("events set aside", 0, || gauge(&edge, "set_aside"));
    });
}

#[test]
fn the_last_event_of_all_is_set_aside_too_and_the_next_arrive() {
    let receiver = Receiver::start();
    let edge = told(Edge::setup(), &[&receiver]).ticket(tickets(100)).start();
    all_is_delivered(&edge);
    receiver.is(Mood::Refuses(vec![(2, None)]));
    let first = buy(edge.address(), &purchase());
    let told = all_is_delivered(&edge);
    assert_eq!(told["set_aside"][0]["order_id"], *first.id(), "{told}");
    let second = buy(edge.address(), &purchase());
    all_is_delivered(&edge);
    assert_eq!(known(&receiver), [second.id().to_owned()].into());
}

#[test]
fn a_receiver_that_refuses_everything_is_itself_at_fault_and_nothing_is_set_aside() {
    for status_code in [400, 404, 413, 422] {
        let receiver = Receiver::start();
        receiver.is(Mood::Answers(status_code));
        let edge = told(Edge::setup(), &[&receiver]).ticket(tickets(100)).start();
        let ids = buy_many(&edge, 20);
        eventually("it is tried again", || (receiver.posts() >= 6).then_some(()));
        let stuck = status(&edge);
        assert_eq!((&stuck["delivered"], &stuck["set_aside"]), (&json!(0), &json!([])), "{stuck}");
        becomes("lines about the receiver", 1, || lines(&edge, "it refuses even a batch without events"));
        receiver.is(Mood::Well);
        all_is_delivered(&edge);
        assert_eq!(known(&receiver), ids);
    }
}

#[test]
fn a_backend_that_is_gone_is_left_alone_and_the_others_take_the_deliveries() {
    let (mut gone, well) = (Receiver::start(), Receiver::start());
    gone.stop();
    let edge = told(Edge::setup(), &[&gone, &well]).delivers_within(AMPLE).ticket(tickets(100)).start();
    let ids = buy_many(&edge, 20);
    all_is_delivered(&edge);
    assert_eq!(known(&well), ids);
    assert_eq!(edge.metric("spikegate_delivery_posts_total", "failed"), 0, "one POST tries both");
    assert_eq!(edge.metric("spikegate_upstream_failures_total", &gone.address().to_string()), 1);
    assert_eq!(edge.metric("spikegate_upstream_up", &gone.address().to_string()), 0);
    gone.start_again();
}

#[test]
fn an_edge_that_is_told_to_stop_ends_the_post_under_way() {
    let receiver = Receiver::start();
    // `wait` gives up after 20 s: before it, the POST is answered, or its timeout ends.
    let mut edge = told(Edge::setup(), &[&receiver]).delivers_within("5s").ticket(tickets(100)).start();
    all_is_delivered(&edge);
    receiver.takes(Duration::from_millis(300));
    let before = receiver.posts();
    let order = buy(edge.address(), &purchase());
    eventually("a post is under way", || (receiver.posts() > before).then_some(()));
    edge.signal("TERM");
    let (status, _) = edge.wait();
    assert!(status.success(), "{status}");
    assert!(known(&receiver).contains(order.id()));
    edge.start_again();
    assert_eq!(all_is_delivered(&edge)["delivered"], 2);
    assert_eq!(receiver.events().len(), 2, "what was delivered was also written down");

    receiver.is(Mood::Hangs);
    buy(edge.address(), &purchase());
    eventually("a post hangs", || (receiver.posts() > before + 1).then_some(()));
    edge.signal("TERM");
    let (status, _) = edge.wait();
    assert!(status.success(), "{status}");
}
