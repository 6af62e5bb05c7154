//! Every outcome and every refusal, in both dialects: status, headers, and the document.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::*;
use crate::config::Config;
use crate::ledger::model::in_memory::InMemoryLedger;
use crate::sale::{SaleContext, sync};

const ID: OrderId = OrderId([0xAB; 16]);
const ID_TEXT: &str = "abababababababababababababababab";

fn sale(yaml: &str) -> (Arc<Sale>, Arc<SaleContext>) {
    let settings = Config::from_yaml(yaml).expect("the test's configuration is right").sales.remove(0);
    let ledger = Arc::new(InMemoryLedger::default());
    let shared = Arc::new(SaleContext {
        ledger,
        sync_now: Notify::new(),
        synced: Notify::new(),
        memory: Duration::from_secs(60),
    });
    (Sale::new(settings, Arc::clone(&shared), None).0, shared)
}

/// Answers with nothing but a document are compared whole; so a header that does not belong there is seen.
#[track_caller]
fn check(answer: &Answer, expected: Answer, document: &Value) {
    let body: Value = serde_json::from_slice(&answer.body).expect("every answer is JSON");
    assert_eq!(&body, document);
    assert_eq!(*answer, Answer { body: answer.body.clone(), label: answer.label, ..expected });
}

fn plain(status: u16, content_type: &'static str) -> Answer {
    Answer::new(status, content_type, "")
}

fn order(state: OrderState, buyer: Option<&str>) -> Order {
    // 2026-12-01, 12:00 UTC, and a little.
    Order { state, ..Order::held(2, buyer.map(Into::into), 1_796_126_400_250) }
}

#[test]
fn an_order_is_the_same_document_in_both_dialects_and_at_every_retry() {
    let (sale, _) = sale("sales: { ticket: }");
    for (state, word) in [(OrderState::Held, "HELD"), (OrderState::Paid, "PAID")] {
        for buyer in [None, Some("ann \"张\"")] {
            let document = json!({
                "order_id": ID_TEXT,
                "sale": "ticket",
                "buyer": buyer,
                "quantity": 2,
                "state": word,
                "expires_at": "2026-12-01T12:00:00.250Z",
            });
            let [first, again] =
                [false, true].map(|again| Outcome::Ordered { id: ID, order: order(state, buyer), again });
            let rest = answer(Dialect::Rest, &sale, &first);
            let location = Some(format!("/sales/ticket/orders/{ID_TEXT}"));
            check(&rest, Answer { location, ..plain(201, "application/json") }, &document);
            let seed = answer(Dialect::Seed, &sale, &first);
            check(&seed, plain(200, "application/json"), &json!({ "code": 1, "msg": "抢票成功", "data": document }));

            // Only for those who count it is another one.
            for (dialect, first) in [(Dialect::Rest, rest), (Dialect::Seed, seed)] {
                let retried = answer(dialect, &sale, &again).into_owned();
                assert_eq!(first.label, PurchaseLabel::Ended("ordered", Some(ID)));
                assert_eq!(retried.label, PurchaseLabel::Ended("repeated", Some(ID)));
                assert_eq!(retried.label(first.label), *first);
            }
        }
    }
}

#[test]
fn an_order_that_was_released_is_no_success() {
    let (sale, _) = sale("sales: { ticket: }");
    let outcome = Outcome::Ordered { id: ID, order: order(OrderState::Released, None), again: true };
    let document = json!({
        "type": "urn:spikegate:problem:order-released",
        "title": "Order released",
        "status": 409,
        "detail": "The order with this Idempotency-Key was not paid in time or was cancelled. Its tickets returned to sale.",
        "order_id": ID_TEXT,
    });
    check(&answer(Dialect::Rest, &sale, &outcome), plain(409, "application/problem+json"), &document);
    let document = json!({ "code": -13, "msg": "订单已失效", "data": { "order_id": ID_TEXT } });
    check(&answer(Dialect::Seed, &sale, &outcome), plain(200, "application/json"), &document);
}

#[test]
fn refusals() {
    let wait = |ms| Refusal::NotYet { wait: Duration::from_millis(ms) };
    let limit = Refusal::BuyerLimit { limit: 4, have: 3 };
    let none = || json!({});
    // The refusal; status, name, Retry-After and own members of the problem; code and data of the article's dialect.
    type Row = (Refusal, u16, &'static str, Option<u64>, Value, i32, Option<Value>);
    let rows: [Row; 13] = [
        (Refusal::SoldOut, 409, "sold-out", None, none(), -1, None),
        (
            Refusal::NotEnough { left: 3 },
            409,
            "not-enough-left",
            None,
            json!({"left": 3}),
            -2,
            Some(json!({"left": 3})),
        ),
        (limit, 409, "buyer-limit", None, json!({"limit": 4, "have": 3}), -3, Some(json!({"limit": 4, "have": 3}))),
        // Whole seconds, never too early.
        (wait(61_000), 403, "sale-not-open", Some(61), none(), -4, Some(json!({"retry_after": 61}))),
        (wait(61_001), 403, "sale-not-open", Some(62), none(), -4, Some(json!({"retry_after": 62}))),
        (wait(1), 403, "sale-not-open", Some(1), none(), -4, Some(json!({"retry_after": 1}))),
        (wait(0), 403, "sale-not-open", Some(0), none(), -4, Some(json!({"retry_after": 0}))),
        (Refusal::Closed, 410, "sale-closed", None, none(), -5, None),
        (Refusal::Paused, 403, "sale-paused", Some(5), none(), -6, None),
        (Refusal::KeyReused, 422, "key-reused", None, none(), -8, None),
        (Refusal::Busy, 503, "busy", Some(1), none(), -9, None),
        (Refusal::Unavailable, 503, "ledger-unavailable", Some(1), none(), -11, None),
        (Refusal::Missing, 503, "sale-missing", Some(5), none(), -12, None),
    ];
    let (sale, _) = sale("sales: { ticket: }");
    for (refusal, status, name, retry_after_s, members, code, data) in rows {
        let outcome = Outcome::Refused(refusal.clone());
        let rest = answer(Dialect::Rest, &sale, &outcome);
        let spread = [Refusal::Busy, Refusal::Unavailable].contains(&refusal).then(|| rest.retry_after_s.unwrap_or(0));
        assert!(spread.is_none_or(|seconds| (1..=3).contains(&seconds)), "{rest:?}");
        let retry_after_s = spread.or(retry_after_s);
        check_problem(&rest, Answer { retry_after_s, ..plain(status, "application/problem+json") }, name, &members);

        let seed = answer(Dialect::Seed, &sale, &outcome);
        let said: Value = serde_json::from_slice(&seed.body).expect("every answer is JSON");
        assert_eq!((&said["code"], said.get("data")), (&json!(code), data.as_ref()), "{outcome:?}");
        // The article's word for sold out is said of nothing else.
        assert_eq!(said["msg"] == "已售罄", code == -1, "{outcome:?}");
        assert_eq!((seed.status, seed.content_type, seed.retry_after_s), (200, "application/json", None));
    }
    let seed = answer(Dialect::Seed, &sale, &Outcome::Refused(Refusal::SoldOut));
    assert_eq!(seed.body, r#"{"code":-1,"msg":"已售罄"}"#.as_bytes(), "to the byte, as the article has it");
}

/// A problem: title and detail are words, all else is exact.
#[track_caller]
fn check_problem(answer: &Answer, expected: Answer, name: &str, members: &Value) {
    let said: Value = serde_json::from_slice(&answer.body).expect("every answer is JSON");
    assert!(said["title"].is_string() && said["detail"].as_str().is_some_and(|detail| detail.ends_with('.')), "{said}");
    let mut document = json!({
        "type": format!("urn:spikegate:problem:{name}"),
        "title": said["title"],
        "status": expected.status,
        "detail": said["detail"],
    });
    for (member, value) in members.as_object().expect("the row has an object") {
        document[member] = value.clone();
    }
    check(answer, expected, &document);
}

#[test]
fn those_who_are_too_many_come_again_one_after_the_other() {
    let (sale, _) = sale("sales: { ticket: }");
    let waits = |give: &dyn Fn() -> Option<u64>| {
        (0..300).fold([0; 4], |mut waits, _| {
            waits[give().expect("a wait") as usize] += 1;
            waits
        })
    };
    let busy = || answer(Dialect::Rest, &sale, &Outcome::Refused(Refusal::Busy)).retry_after_s;
    assert_eq!(waits(&busy), [0, 100, 100, 100]);
    assert_eq!(waits(&|| too_many_requests(Dialect::Rest).retry_after_s), [0, 100, 100, 100]);
    let rest = too_many_requests(Dialect::Rest);
    let retry_after_s = rest.retry_after_s;
    check_problem(
        rest,
        Answer { retry_after_s, ..plain(429, "application/problem+json") },
        "too-many-requests",
        &json!({}),
    );
    let seed = too_many_requests(Dialect::Seed);
    assert_eq!((seed.status, &*seed.body), (200, r#"{"code":-16,"msg":"请求过于频繁，请稍后再试"}"#.as_bytes()));
}

#[test]
fn an_unknown_outcome_names_the_order_that_there_may_be() {
    let (sale, _) = sale("sales: { ticket: }");
    let outcome = Outcome::Unknown { id: ID };
    let members = json!({ "order_id": ID_TEXT });
    let expected = plain(503, "application/problem+json").retry_after(1);
    check_problem(&answer(Dialect::Rest, &sale, &outcome), expected, "outcome-unknown", &members);
    let document = json!({ "code": -10, "msg": "结果未知，请稍后查询订单", "data": members });
    check(&answer(Dialect::Seed, &sale, &outcome), plain(200, "application/json"), &document);
}

#[test]
fn rejections() {
    let problem = |status| plain(status, "application/problem+json");
    // Wrong input is the only one that knows its dialect: the others come before it, or with a body.
    let bad = RequestRefusal::Bad { field: "X-\"User\"".into(), detail: "is empty.".into() };
    let field = json!({ "field": "X-\"User\"" });
    check_problem(&refusal(Dialect::Rest, &bad, true), problem(400), "bad-request", &field);
    let document = json!({ "code": -7, "msg": "请求有误", "data": field });
    check(&refusal(Dialect::Seed, &bad, true), plain(200, "application/json"), &document);

    let none = json!({});
    for dialect in [Dialect::Rest, Dialect::Seed] {
        for (allows_get, allow) in [(true, "GET, POST"), (false, "POST")] {
            let expected = Answer { allow: Some(allow), ..problem(405) };
            let said = refusal(dialect, &RequestRefusal::Method, allows_get);
            check_problem(&said, expected, "method-not-allowed", &none);
        }
        let accept_post = Some("application/json, application/x-www-form-urlencoded");
        let said = refusal(dialect, &RequestRefusal::MediaType, true);
        check_problem(&said, Answer { accept_post, ..problem(415) }, "unsupported-media-type", &none);
        check_problem(&refusal(dialect, &RequestRefusal::TooLarge, true), problem(413), "body-too-large", &none);
    }
}

#[tokio::test]
async fn what_is_left_is_shown_as_the_gate_knows_it() {
    // The clock of this ledger is a few ms after 1970, so the times below are far ahead of it or behind it.
    let (past, future) = ("1970-01-01T00:00:00.000Z", "2026-12-01T20:00:00+08:00");
    let shown = "2026-12-01T12:00:00.000Z";
    let rows = [
        ("{}", 3, SaleState::Open, json!({ "state": "open" })),
        ("{}", 0, SaleState::Open, json!({ "state": "sold_out" })),
        ("{}", 0, SaleState::Paused, json!({ "state": "paused" })),
        ("{}", 3, SaleState::Closed, json!({ "state": "closed" })),
        (&format!("{{ opens_at: {future} }}"), 0, SaleState::Paused, json!({ "state": "pending", "opens_at": shown })),
        (&format!("{{ opens_at: {future} }}"), 3, SaleState::Closed, json!({ "state": "closed", "opens_at": shown })),
        (&format!("{{ opens_at: {past} }}"), 3, SaleState::Open, json!({ "state": "open", "opens_at": past })),
        (&format!("{{ closes_at: {future} }}"), 3, SaleState::Open, json!({ "state": "open", "closes_at": shown })),
        (&format!("{{ closes_at: {past} }}"), 3, SaleState::Paused, json!({ "state": "closed", "closes_at": past })),
    ];
    for (settings, total, state, mut expected) in rows {
        let (sale, shared) = sale(&format!("sales: {{ ticket: {settings} }}"));
        assert_eq!(sale_document(&sale), None, "nothing is known yet");
        sale.open(Some(total)).await.expect("this ledger opens every sale");
        sale.shared.ledger.set_state("", state).await.expect("and does all");
        tokio::spawn(sync::run(vec![Arc::clone(&sale)], shared, Duration::from_secs(3600)));
        while !sale.hears() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        expected["sale"] = "ticket".into();
        expected["total"] = total.into();
        expected["available"] = total.into();
        assert_eq!(sale_document(&sale), Some(expected), "{settings} {total} {state:?}");
    }
}

#[test]
fn times_are_told_in_utc_and_never_panic() {
    for (at_ms, expected) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_796_126_400_000, "2026-12-01T12:00:00.000Z"),
        (1_796_126_400_001, "2026-12-01T12:00:00.001Z"),
        (u64::MAX, "18446744073709551615"),
        (i64::MAX as u64, "9223372036854775807"),
    ] {
        assert_eq!(time(at_ms), expected);
    }
}
