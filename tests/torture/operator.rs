//! The operator: when a sale is fenced, it runs the reconciliation at one edge after the other until the sale goes on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::redis::KEY;
use crate::harness::{Edge, Redis};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Default)]
pub struct Operator {
    looked: Option<Instant>,
    /// How often the sale was reconciled, and how many differences of each kind were found.
    pub reconciled: usize,
    pub found: BTreeMap<String, u64>,
}

impl Operator {
    /// Looks whether the sale is fenced, and puts it right at these edges.
    pub fn look<'a>(&mut self, redis: &Redis, edges: impl Iterator<Item = &'a Edge>) {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        for edge in edges {
            // What an edge remembers that was not asked puts the fence up again, and then it is asked.
            if is_fenced(redis) {
                self.reconcile(edge);
            }
        }
    }

    fn reconcile(&mut self, edge: &Edge) {
        let output = edge.sale_command(&["reconcile", "ticket", "--apply"]);
        // An edge that cannot be asked now is asked again later.
        let Ok(report) = serde_json::from_slice::<Value>(&output.stdout) else { return };
        self.reconciled += usize::from(report["applied"] == true);
        for difference in report["differences"].as_array().into_iter().flatten() {
            let kind = difference["kind"].as_str().unwrap_or_default().to_owned();
            *self.found.entry(kind).or_default() += difference["count"].as_u64().unwrap_or_default();
        }
    }
}

fn is_fenced(redis: &Redis) -> bool {
    let fence = redis
        .try_connection(Duration::from_secs(1))
        .and_then(|mut connection| ::redis::cmd("HGET").arg(KEY).arg("fence").query::<Option<String>>(&mut connection));
    fence.is_ok_and(|fence| fence.is_some())
}
