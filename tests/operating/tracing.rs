//! Traces, as a collector receives them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use serde_json::{Value, json};

use crate::harness::backend::After;
use crate::harness::edge::Setup;
use crate::harness::process::free_address;
use crate::harness::purchase::purchase;
use crate::harness::{Backend, Connection, Edge, Request, buy, crowd, eventually, wait_until};

/// The example of the W3C's document.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// What takes spans.
struct Collector {
    backend: Backend,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Self {
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let taken = Arc::clone(&spans);
        let backend = Backend::start(move |request| {
            assert_eq!(request.line, "POST /v1/traces HTTP/1.1");
            assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
            let length = request.header("content-length").unwrap().parse().unwrap();
            let body = request.body(length);
            for spans in ExportTraceServiceRequest::decode(&body[..]).unwrap().resource_spans {
                let service = spans.resource.unwrap().attributes;
                assert!(service.iter().any(|pair| pair.key == "service.name"));
                taken.lock().unwrap().extend(spans.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
            request.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n");
            After::KeepOpen
        });
        Self { backend, spans }
    }

    /// The spans whose names begin with `name`, once there are at least `count`.
    fn spans(&self, name: &str, count: usize) -> Vec<Span> {
        let all = || self.spans.lock().unwrap().iter().filter(|span| span.name.starts_with(name)).cloned().collect();
        eventually(&format!("{count} spans of {name}"), || {
            let found: Vec<Span> = all();
            (found.len() >= count).then_some(found)
        })
    }
}

fn traced(collector: SocketAddr, sample: Value) -> Setup {
    let settings = json!({ "endpoint": format!("http://{collector}/v1/traces"), "sample": sample });
    Edge::setup().set("tracing", settings).set("trusted_proxies", json!(["127.0.0.2/32"]))
}

/// A backend that answers with the `traceparent` that it got.
fn echo() -> Backend {
    Backend::start(|request| {
        let told = request.header("traceparent").unwrap_or("none").to_owned();
        request.answer(&told);
        After::KeepOpen
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An attribute, whatever its kind.
fn attribute(span: &Span, key: &str) -> Value {
    let found = span.attributes.iter().find(|pair| pair.key == key);
    match found.and_then(|pair| pair.value.clone()?.value) {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::IntValue(number)) => json!(number),
        other => panic!("{key} of {}: {other:?}", span.name),
    }
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

#[test]
fn a_proxied_request_is_a_trace_with_every_backend_that_it_was_tried_at() {
    let (collector, backend, gone) = (Collector::start(), echo(), free_address());
    let servers = json!([{ "address": gone, "weight": 1000 }, { "address": backend.address() }]);
    let edge = traced(collector.backend.address(), json!(1))
        .upstream("shop", json!({ "servers": servers }))
        .route(json!({ "path": "/api", "upstream": "shop" }))
        .start();
    let told = edge.connect().ask(&Request::get("/api/orders?secret=1")).text().to_owned();

    let request = collector.spans("GET /api", 1).remove(0);
    assert_eq!(request.kind(), SpanKind::Server);
    assert_eq!(attribute(&request, "http.request.method"), "GET");
    assert_eq!(attribute(&request, "url.path"), "/api/orders");
    assert_eq!(attribute(&request, "http.route"), "/api");
    assert_eq!(attribute(&request, "http.response.status_code"), 200);
    assert_eq!(attribute(&request, "client.address"), "127.0.0.1");
    assert!(!is_error(&request) && request.parent_span_id.is_empty());

    let attempts = collector.spans("upstream shop", 2);
    let [failed, answered] = &attempts[..] else { panic!("{attempts:?}") };
    for attempt in &attempts {
        assert_eq!(attempt.kind(), SpanKind::Client);
        assert_eq!((&attempt.trace_id, &attempt.parent_span_id), (&request.trace_id, &request.span_id));
        assert!(attempt.start_time_unix_nano >= request.start_time_unix_nano);
        assert!(attempt.end_time_unix_nano <= request.end_time_unix_nano);
    }
    assert_eq!(attribute(failed, "server.port"), json!(gone.port()));
    assert_eq!(attribute(answered, "server.port"), json!(backend.address().port()));
    assert!(is_error(failed) && !is_error(answered));
    assert_eq!(told, format!("00-{}-{}-01", hex(&request.trace_id), hex(&answered.span_id)));
}

#[test]
fn only_trusted_proxies_name_the_trace_of_a_request() {
    let (collector, backend) = (Collector::start(), echo());
    // Nothing that begins here is traced.
    let edge = traced(collector.backend.address(), json!(0))
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .ticket(json!({ "total": 1 }))
        .start();
    let ask = |from: &str, flags: &str| {
        let request = Request::get("/").header("traceparent", &traceparent(flags)).header("tracestate", "vendor=1");
        Connection::from(from.parse().unwrap(), edge.address()).ask(&request).text().to_owned()
    };
    let strange = ask("127.0.0.1", "01");
    assert!(strange.ends_with("-00") && !strange.contains(TRACE), "a stranger has it traced: {strange}");
    let ours = ask("127.0.0.2", "01");
    assert!(ours.starts_with(&format!("00-{TRACE}-")) && ours.ends_with("-01") && !ours.contains(PARENT), "{ours}");
    let quiet = ask("127.0.0.2", "00");
    assert!(quiet.starts_with(&format!("00-{TRACE}-")) && quiet.ends_with("-00"), "{quiet}");

    let requests = collector.spans("GET /", 1);
    assert_eq!(requests.len(), 1);
    assert_eq!((hex(&requests[0].trace_id).as_str(), hex(&requests[0].parent_span_id).as_str()), (TRACE, PARENT));

    let bought = purchase().header("traceparent", &traceparent("01"));
    assert_eq!(Connection::from("127.0.0.2".parse().unwrap(), edge.address()).ask(&bought).status, 201);
    let purchases = collector.spans("purchase", 1);
    assert_eq!((hex(&purchases[0].trace_id).as_str(), hex(&purchases[0].parent_span_id).as_str()), (TRACE, PARENT));
}

#[test]
fn purchases_that_need_the_ledger_are_traced_with_their_batch() {
    let collector = Collector::start();
    let edge = traced(collector.backend.address(), json!(1.0)).ticket(json!({ "total": 40 })).start();
    let answers = crowd(8, 40, &[edge.address()], |_| purchase());
    assert!(answers.iter().all(|answer| answer.status == 201));
    for _ in 0..50 {
        assert_eq!(buy(edge.address(), &purchase()).name(), "sold-out");
    }
    let purchases = collector.spans("purchase", 40);
    let size = |batch: &Span| attribute(batch, "spikegate.batch.size").as_u64().unwrap();
    let all = || collector.spans("ledger reserve", 1);
    let batches = wait_until("the batches of 40 purchases", all, |all| all.iter().map(size).sum::<u64>() >= 40);
    assert_eq!(purchases.len(), 40, "refusals from memory are not traced");
    for purchase in &purchases {
        assert_eq!(
            (attribute(purchase, "spikegate.sale"), attribute(purchase, "spikegate.outcome")),
            (json!("ticket"), json!("ordered"))
        );
        let id = |span: &[u8]| span == purchase.span_id;
        let of = |batch: &&Span| id(&batch.parent_span_id) || batch.links.iter().any(|link| id(&link.span_id));
        assert_eq!(batches.iter().filter(of).count(), 1, "every purchase is in one batch");
    }
    assert_eq!(batches.iter().map(size).sum::<u64>(), 40);
    eventually("all are counted", || (edge.metric("spikegate_trace_spans_total", "sent") >= 40).then_some(()));
}

#[test]
fn a_collector_that_is_not_there_harms_nobody() {
    let backend = echo();
    let mut edge = traced(free_address(), json!(1))
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .ticket(json!({ "total": 1 }))
        .start();
    assert_eq!(buy(edge.address(), &purchase()).name(), "ordered");
    for _ in 0..20 {
        assert_eq!(edge.connect().ask(&Request::get("/")).status, 200);
    }
    eventually("it is counted", || (edge.metric("spikegate_trace_spans_total", "failed") >= 40).then_some(()));
    edge.wait_for_log("tracing.endpoint");
    edge.signal("TERM");
    assert!(edge.wait().0.success());
}

#[test]
fn what_is_left_is_sent_when_the_edge_stops() {
    let (collector, backend) = (Collector::start(), echo());
    let mut edge = traced(collector.backend.address(), json!(1))
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .start();
    edge.connect().ask(&Request::get("/last"));
    edge.signal("TERM");
    assert!(edge.wait().0.success());
    assert_eq!(collector.spans.lock().unwrap().iter().filter(|span| span.name == "GET /").count(), 1);
}
