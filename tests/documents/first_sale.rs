//! The first sale of one's own in docs/start.md, with its settings as they stand there.

use std::process::{Command, Stdio};

use super::read;
use crate::harness::process::{Process, binary, free_address};
use crate::harness::{Connection, Request, eventually};

/// The settings that the page shows, and how many lines they have.
fn settings() -> (String, usize) {
    let page = read("docs/start.md");
    let block = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    (block.to_owned(), block.lines().count())
}

#[track_caller]
fn put(text: &str, written: &str, instead: &str) -> String {
    assert!(text.contains(written), "no {written} in:\n{text}");
    text.replace(written, instead)
}

#[test]
fn the_first_sale_has_15_lines_and_sells() {
    let (written, lines) = settings();
    assert_eq!(lines, 15);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("concert.yaml");
    let start = || {
        let [public, control, orders] = [(); 3].map(|()| free_address());
        let settings = put(&written, "127.0.0.1:8090", &public.to_string());
        let settings = put(&settings, "127.0.0.1:9190", &control.to_string());
        std::fs::write(&file, put(&settings, "127.0.0.1:3011", &orders.to_string())).unwrap();
        let mut edge = Command::new(binary("spikegate"));
        edge.args(["run", "--config"]).arg(&file).current_dir(folder.path()).stdout(Stdio::null());
        let mut service = Command::new(binary("spikegate-orders"));
        service.args(["--listen", &orders.to_string(), "--database", "sqlite:concert/orders.db"]);
        service.args(["--control", &format!("http://{control}"), "--secret-file", "concert/delivery.secret"]);
        service.current_dir(folder.path()).stdout(Stdio::null());
        let mut edge = Process::start("spikegate", &mut edge, folder.path());
        let is_ready = eventually("the edge is ready", || match edge.ended() {
            Some(_) => Some(false),
            None => {
                let answer = Connection::try_to(control).ok()?.try_ask(&Request::get("/readyz")).ok()?;
                (answer.status == 200).then_some(true)
            }
        });
        // The folder of the database is the edge's.
        is_ready.then(|| (edge, Process::start("spikegate-orders", &mut service, folder.path()), public))
    };
    // Another test run may have taken one of the ports.
    let (_edge, _service, public) = (0..5).find_map(|_| start()).expect("the edge starts");
    let ask = |request: &Request| Connection::to(public).ask(request);

    let buy = |quantity: u32| {
        let form = format!("quantity={quantity}");
        Request::post("/buy/concert").header("X-User-Id", "ann").body("application/x-www-form-urlencoded", form)
    };
    let bought = ask(&buy(2).header("Idempotency-Key", "\"k1\""));
    assert_eq!(bought.status, 201, "{bought:?}");
    assert_eq!(ask(&buy(3)).problem(), "buyer-limit");
    eventually("the sale shows what is left", || {
        (ask(&Request::get("/sales/concert")).json()["available"] == 98).then_some(())
    });
    let id = bought.json()["order_id"].as_str().unwrap().to_owned();
    eventually("the order service has the order", || {
        let answer = Connection::to(public).try_ask(&Request::get(&format!("/orders/{id}"))).ok()?;
        (answer.status == 200 && answer.json()["state"] == "HELD").then_some(())
    });
    let paid = ask(&Request::post(&format!("/orders/{id}/pay")));
    assert_eq!((paid.status, &paid.json()["state"]), (200, &"PAID".into()), "{paid:?}");
    assert_eq!(ask(&Request::get("/shop/concert")).status, 200);
}
