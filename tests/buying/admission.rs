//! Admission tokens, made with openssl as docs/integrating/admission.md describes, and with `spikegate admission`.

use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::process::binary;
use crate::harness::purchase::{buy, purchase, purchase_with_key};
use crate::harness::signer::{Signer, now_s, openssl};
use crate::harness::{Edge, Request, eventually};

const NEW: &str = "the-key-that-is-new-now";
const OLD: &str = "the-key-before-this-one";

/// Keys in files, and an edge whose sale needs tokens made with one of them.
struct Shop {
    edge: Edge,
    keys: TempDir,
}

impl Shop {
    fn with(settings: Value) -> Self {
        let keys = TempDir::with_prefix("spikegate-admission-").unwrap();
        let files = [("new", NEW), ("old", OLD)].map(|(name, key)| {
            std::fs::write(keys.path().join(name), format!("{key}\n")).unwrap();
            keys.path().join(name)
        });
        let mut sale = json!({ "total": 100, "seed_dialect": true, "admission": { "key_files": files } });
        sale.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        Self { edge: Edge::setup().ticket(sale).start(), keys }
    }

    #[track_caller]
    fn name(&self, request: &Request) -> String {
        buy(self.edge.address(), request).name().to_owned()
    }

    /// `spikegate admission ...` for the sale, with this key.
    fn command(&self, step: &str, key: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("spikegate"));
        command.args(["admission", step, "--sale", "ticket", "--key-file"]).arg(self.keys.path().join(key));
        command.args(arguments).output().unwrap()
    }
}

/// A token as a shop makes it.
fn token(key: &str, sale: &str, buyer: Option<&str>, from_s: u64, until_s: u64) -> String {
    let signed = format!("v1.{}.{from_s}.{until_s}", if buyer.is_some() { "own" } else { "any" });
    let buyer = buyer.map(|buyer| format!("\n{buyer}")).unwrap_or_default();
    let said = openssl(&["dgst", "-sha256", "-hmac", key, "-r"], format!("{signed}\n{sale}{buyer}").as_bytes());
    format!("{signed}.{}", &String::from_utf8(said).unwrap()[..64])
}

fn with(request: Request, token: &str) -> Request {
    request.header("X-Admission", token)
}

#[test]
fn only_admitted_buyers_may_buy() {
    let shop = Shop::with(json!({ "buyer": { "header": "X-User-Id" } }));
    let (now_s, hour) = (now_s(), 3600);
    let any = |key| token(key, "ticket", None, now_s - hour, now_s + hour);
    let unusual = |request: Request| (0..70).fold(request, |request, n| request.header(&format!("X-{n}"), "1"));
    for make in [|| purchase(), || Request::get("/buy/ticket")] {
        let both = [make(), unusual(make())];
        for request in both {
            assert_eq!(shop.name(&request), "admission-required");
            assert_eq!(shop.name(&with(request.clone(), "")), "admission-required");
            assert_eq!(shop.name(&with(request.clone(), "v1.any.1.2.3")), "admission-invalid");
            assert_eq!(shop.name(&with(request.clone(), &any(NEW))), "ordered");
            assert_eq!(shop.name(&with(request.clone(), &any(OLD))), "ordered", "while it is replaced");
            assert_eq!(shop.name(&with(request.clone(), &any("the-key-of-somebody-else"))), "admission-invalid");
            let other_sale = token(NEW, "concert", None, now_s - hour, now_s + hour);
            assert_eq!(shop.name(&with(request.clone(), &other_sale)), "admission-invalid");
            let over = token(NEW, "ticket", None, now_s - hour, now_s - 1);
            assert_eq!(shop.name(&with(request.clone(), &over)), "admission-expired");
            let own = token(NEW, "ticket", Some("ann"), now_s - hour, now_s + hour);
            assert_eq!(shop.name(&with(request.clone(), &own)), "admission-invalid", "nobody said to be ann");
            let of = |buyer: &str| shop.name(&with(request.clone(), &own).header("X-User-Id", buyer));
            assert_eq!([of("ann"), of("bob")], ["ordered", "admission-invalid"]);
        }
    }
    let early = shop.edge.ask(&with(purchase(), &token(NEW, "ticket", None, now_s + hour, now_s + 2 * hour)));
    assert_eq!((early.status, early.problem().as_str()), (403, "admission-early"), "{early:?}");
    let wait: u64 = early.header("retry-after").unwrap().parse().unwrap();
    assert!(wait <= hour && wait > hour - 600, "{wait}");

    let link = |token: &str| Request::post(&format!("/buy/ticket?admission={token}&from=mail"));
    assert_eq!(shop.name(&link(&any(NEW))), "ordered");
    assert_eq!(shop.name(&link("x")), "admission-invalid");
    assert_eq!(shop.name(&with(link(&any(NEW)), &any(OLD))), "bad-request", "which of the two?");
    assert_eq!(shop.edge.sold(), 13);
    assert_eq!(shop.edge.metric("spikegate_purchases_total", "not_admitted"), 4 * 8 + 2);
}

#[test]
fn sold_out_comes_first_and_a_made_order_is_never_denied() {
    let shop = Shop::with(json!({ "total": 2 }));
    let soon = token(NEW, "ticket", None, 0, now_s() + 6);
    let request = with(purchase_with_key("k"), &soon);
    let order = buy(shop.edge.address(), &request);
    assert!(order.is_order());
    eventually("its time is over", || (!shop.command("verify", "new", &[&soon]).status.success()).then_some(()));
    assert_eq!(shop.name(&with(purchase(), &soon)), "admission-expired");
    assert_eq!(shop.name(&with(purchase_with_key("other"), &soon)), "admission-expired");
    assert_eq!(buy(shop.edge.address(), &request).id(), order.id());
    assert_eq!(buy(shop.edge.address(), &purchase_with_key("k")).id(), order.id());
    while shop.edge.sold() < 2 {
        shop.name(&with(purchase(), &token(NEW, "ticket", None, 0, now_s() + 60)));
    }
    assert_eq!([shop.name(&purchase()), shop.name(&with(purchase(), &soon))], ["sold-out", "sold-out"]);
}

#[test]
fn an_admission_token_for_one_buyer_works_only_for_that_buyer() {
    let signer = Signer::hs256();
    let buyer = json!({
        "from": "jwt", "algorithms": ["HS256"], "audience": "tickets", "secret_file": signer.secret_file(),
    });
    let shop = Shop::with(json!({ "buyer": buyer }));
    let own = token(NEW, "ticket", Some("ann"), 0, now_s() + 3600);
    let of = |token: String| shop.name(&with(purchase(), &own).header("Authorization", &format!("Bearer {token}")));
    assert_eq!(of(signer.token_for("ann")), "ordered");
    assert_eq!(of(signer.token_for("bob")), "admission-invalid");
    assert_eq!(of(Signer::hs256().token_for("ann")), "token-invalid", "who only claims to be ann");
    assert_eq!(shop.name(&with(purchase(), &own)), "admission-invalid");
    assert_eq!(shop.edge.metric("spikegate_tokens_checked_total", ""), 2, "only of those who were admitted");
}

#[test]
fn spikegate_admission_signs_and_verifies_tokens() {
    let shop = Shop::with(json!({ "buyer": { "header": "X-User-Id" } }));
    let sign = |arguments: &[&str]| {
        let done = shop.command("sign", "new", arguments);
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    let verify = |key: &str, arguments: &[&str]| {
        let done = shop.command("verify", key, arguments);
        (done.status.code(), String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap())
    };
    let (any, own) = (sign(&[]), sign(&["--buyer", "ann", "--valid", "1h"]));
    assert_eq!(shop.name(&with(purchase(), &any)), "ordered");
    assert_eq!(shop.name(&with(purchase(), &own).header("X-User-Id", "ann")), "ordered");
    assert_eq!(verify("new", &[&any]).0, Some(0));
    assert_eq!(verify("new", &["--buyer", "ann", &own]).0, Some(0));
    assert_eq!(verify("new", &["--buyer", "bob", &own]).0, Some(1));
    let (code, text) = verify("old", &[&any]);
    assert!(code == Some(1) && text.contains("not valid for this sale and buyer"), "{text}");
    let past = sign(&["--from", "2020-01-01T00:00:00Z"]);
    assert!(past.starts_with("v1.any.1577836800.1577837400."), "{past}");
    let (code, text) = verify("new", &[&past]);
    assert!(code == Some(1) && text.contains("expired"), "{text}");
    let missing = shop.command("sign", "nowhere", &[]);
    assert!(missing.status.code() == Some(1) && String::from_utf8_lossy(&missing.stderr).contains("no such file"));
}
