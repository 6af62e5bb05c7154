//! A whole site of real processes: edges, a network for each, Redis, order services. It is their supervisor, too: it
//! causes faults, restarts what it ended, and notices processes that end by themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::clock::Clock;
use super::disk::Disk;
use super::fault::{Fault, Weather, edge_name};
use super::operator::Operator;
use super::schedule::Schedule;
use crate::harness::edge::Setup;
use crate::harness::process::free_address;
use crate::harness::redis::{Durability, KEY, Sentinels};
use crate::harness::{Edge, Network, OrderService, Redis, Shelf, Tear};

/// How long everything may take to be well again after the last fault. Far more than it takes on a machine of its own.
pub const RECOVERY: Duration = Duration::from_secs(60);

/// How often the supervisor looks.
const LOOK: Duration = Duration::from_millis(20);

/// What a site is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// None is one edge with its embedded ledger.
    pub redis: Option<Durability>,
    /// Whether Redis has a replica, and who makes it the primary.
    pub replica: Option<Replica>,
    pub orders: usize,
    /// Whether Redis' clock can be set.
    pub clock: bool,
    /// How far each edge's clock is from the true time, in s.
    pub edge_clocks_s: [i64; 2],
    /// Whether the embedded ledger is on a disk that can be filled.
    pub small_disk: bool,
    /// Of the sale `ticket`.
    pub sale: Value,
}

/// Who makes the replica the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replica {
    /// Three Sentinels, whom the edges ask. So many replicas have to have each step before it is answered.
    Watched { acknowledge: u32 },
    /// The story, which leads the edges' networks to it.
    Unwatched,
}

impl Plan {
    /// Two edges, Redis with everything on disk before it answers, and one order service.
    pub fn of(sale: Value) -> Self {
        Self {
            redis: Some(Durability::Always),
            replica: None,
            orders: 1,
            clock: false,
            edge_clocks_s: [0, 0],
            small_disk: false,
            sale,
        }
    }
}

/// Where clients come in; it does not change.
#[derive(Debug, Clone)]
pub struct Doors {
    pub public: Vec<SocketAddr>,
    pub control: Vec<SocketAddr>,
    pub orders: Vec<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Up,
    /// It may end if it does not find its ledger, and is started again then.
    Starting,
    Down,
}

pub struct Site {
    // Edges end before what they talk to.
    pub edges: Vec<Edge>,
    lives: Vec<Life>,
    frozen: Vec<bool>,
    orders: Vec<Option<OrderService>>,
    pub shelf: Shelf,
    networks: Vec<Network>,
    /// The primary.
    pub redis: Option<Redis>,
    redis_is_up: bool,
    replica: Option<Redis>,
    sentinels: Option<Sentinels>,
    /// The URL of the primary, for other threads.
    pub ledger_at: Arc<Mutex<String>>,
    pub operator: Operator,
    /// When everything lost its power, in ms since 1970.
    pub cuts_ms: Vec<u64>,
    /// When the ledger lost something, in ms since 1970.
    pub losses_ms: Vec<u64>,
    /// The edge that is led to an old primary.
    led_away: Option<usize>,
    /// Tickets that an old primary takes for sold.
    sold_by_old: u64,
    doors: Doors,
    clock: Option<Clock>,
    /// The latest time that Redis' clock was set to.
    latest_s: i64,
    disk: Option<Disk>,
    _edge_clocks: Vec<Clock>,
    /// What was done, by kind.
    pub injected: BTreeMap<String, usize>,
    /// What no process may do.
    pub faults: Vec<String>,
}

impl Site {
    pub fn start(plan: &Plan) -> Self {
        let clock = plan.clock.then(|| Clock::off_by(0));
        let redis = plan.redis.map(|durability| {
            let environment = clock.as_ref().map_or_else(Vec::new, Clock::environment);
            Redis::start_in(durability, &environment)
        });
        let replica = plan.replica.map(|_| Redis::start_replica_of(redis.as_ref().expect("a primary")));
        let sentinels = match plan.replica {
            Some(Replica::Watched { .. }) => {
                // A busy machine may keep one of them waiting for longer than half a second.
                let patience = "sentinel down-after-milliseconds mymaster 1500\n";
                Some(Sentinels::with_settings(redis.as_ref().expect("a primary"), 1, patience))
            }
            _ => None,
        };
        let count = if redis.is_some() { 2 } else { 1 };
        let networks: Vec<Network> =
            redis.iter().flat_map(|redis| (0..count).map(|_| Network::to(redis.address()))).collect();
        let disk = plan.small_disk.then(Disk::mount);
        let orders: Vec<SocketAddr> = (0..plan.orders).map(|_| free_address()).collect();
        let mut edges: Vec<Edge> = Vec::new();
        let shelf = Shelf::sqlite();
        let mut edge_clocks = Vec::new();
        for number in 0..count {
            let mut setup = Edge::setup().ticket(plan.sale.clone());
            if let Some(network) = networks.get(number) {
                setup = setup.redis_at(&network.redis_url(), "300ms");
            }
            if let (Some(sentinels), Some(Replica::Watched { acknowledge })) = (&sentinels, plan.replica) {
                let replicas = json!({ "replicas": { "acknowledge": acknowledge, "timeout": "200ms" } });
                setup = setup.sentinels(sentinels, if acknowledge > 0 { replicas } else { json!({}) });
                setup = setup.with_redis("response_timeout", json!("600ms"));
            }
            if let Some(disk) = &disk {
                setup = setup.set("ledger", json!({ "embedded": { "path": disk.folder() } }));
            }
            if plan.edge_clocks_s[number] != 0 {
                let clock = Clock::off_by(plan.edge_clocks_s[number]);
                setup = setup.environment(&clock.environment());
                edge_clocks.push(clock);
            }
            edges.push(delivers_to(setup, &orders, &shelf).start());
        }
        let shelf = shelf.with_control(edges[0].control_address());
        let doors = Doors {
            public: edges.iter().map(Edge::address).collect(),
            control: edges.iter().map(Edge::control_address).collect(),
            orders: orders.clone(),
        };
        let orders = orders.iter().map(|address| Some(shelf.service_at(*address, "demo:approve"))).collect();
        Self {
            lives: vec![Life::Up; count],
            frozen: vec![false; count],
            edges,
            orders,
            shelf,
            networks,
            redis_is_up: redis.is_some(),
            ledger_at: Arc::new(Mutex::new(redis.as_ref().map(Redis::url).unwrap_or_default())),
            redis,
            replica,
            sentinels,
            operator: Operator::default(),
            cuts_ms: Vec::new(),
            losses_ms: Vec::new(),
            led_away: None,
            sold_by_old: 0,
            doors,
            clock,
            latest_s: 0,
            disk,
            _edge_clocks: edge_clocks,
            injected: BTreeMap::new(),
            faults: Vec::new(),
        }
    }

    /// Where the embedded ledger is.
    pub fn ledger_folder(&self) -> PathBuf {
        self.disk.as_ref().map_or_else(|| self.edges[0].folder().join("data"), |disk| disk.folder().to_path_buf())
    }

    pub fn doors(&self) -> Doors {
        self.doors.clone()
    }

    /// Brings every fault at its time, and ends it at its time. Others may begin in between.
    pub fn suffer(&mut self, schedule: &Schedule) {
        let mut steps: Vec<(Duration, bool, &Fault)> = Vec::new();
        for planned in &schedule.faults {
            steps.push((planned.at, true, &planned.fault));
            steps.push((planned.at + planned.lasts, false, &planned.fault));
        }
        // What ends goes before what begins at the same time.
        steps.sort_by_key(|(at, begins, _)| (*at, *begins));
        let begun = Instant::now();
        let wait_until = |site: &mut Self, at: Duration| {
            while let Some(left) = at.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
                site.tend();
                std::thread::sleep(left.min(LOOK));
            }
        };
        for (at, begins, fault) in steps {
            wait_until(self, at);
            if begins {
                *self.injected.entry(fault.kind()).or_default() += 1;
                self.begin(fault);
            } else {
                self.end(fault);
            }
        }
        wait_until(self, schedule.time);
    }

    fn begin(&mut self, fault: &Fault) {
        match *fault {
            Fault::KillRedis => {
                self.redis_is_up = false;
                self.redis().kill9();
            }
            Fault::FreezeRedis if self.redis_is_up => self.redis().freeze(),
            Fault::KillEdge(edge) => self.kill_edge(edge),
            Fault::FreezeEdge(edge) if self.lives[edge] != Life::Down && !self.edges[edge].has_ended() => {
                self.edges[edge].signal("STOP");
                self.frozen[edge] = true;
            }
            Fault::KillOrders(one) => self.kill_orders(one),
            Fault::FreezeOrders(one) => {
                if let Some(orders) = &self.orders[one] {
                    orders.signal("STOP");
                }
            }
            Fault::Network(edge, weather) => {
                let (requests, replies) = weather.passages();
                self.networks[edge].passes(requests, replies);
                if weather == Weather::Overtaken {
                    self.networks[edge].stall();
                }
                if weather == Weather::Cut {
                    self.networks[edge].refuse(true);
                    self.networks[edge].tear(Tear::Reset);
                }
            }
            Fault::Tear(edge, how) => self.networks[edge].tear(how),
            Fault::ForgetScripts => self.tell_redis("SCRIPT FLUSH"),
            Fault::EndClients => self.tell_redis("CLIENT KILL TYPE normal SKIPME yes"),
            Fault::NoMemory => self.tell_redis("CONFIG SET maxmemory 1"),
            Fault::SetClock(seconds) => self.set_clock(seconds),
            Fault::FillDisk => self.disk.as_ref().expect("a small disk").fill(),
            Fault::TearRecord => {
                self.kill_edge(0);
                tear_record(&self.ledger_folder());
            }
            Fault::LosePower { seconds } => self.lose_power(seconds),
            Fault::LoseAllPower { seconds } => {
                self.redis().kill9();
                (0..self.edges.len()).for_each(|edge| self.kill_edge(edge));
                self.cuts_ms.push(unix_ms());
                self.lose_power(seconds);
            }
            Fault::FailOver => self.fail_over(Duration::ZERO),
            Fault::FailOverBehind(time) => self.fail_over(time),
            Fault::OldPrimary(edge) => self.lead_to_old_primary(edge),
            Fault::FreezeRedis | Fault::FreezeEdge(_) => {}
        }
    }

    fn end(&mut self, fault: &Fault) {
        match *fault {
            Fault::KillRedis | Fault::LosePower { .. } if !self.redis_is_up => {
                self.redis().start_again();
                self.redis_is_up = true;
            }
            Fault::LoseAllPower { .. } => {
                self.end(&Fault::KillRedis);
                (0..self.edges.len()).for_each(|edge| self.start_edge(edge));
            }
            Fault::FailOver | Fault::FailOverBehind(_) => {
                let (primary, old) =
                    (self.redis.as_ref().expect("a primary"), self.replica.as_mut().expect("a replica"));
                old.start_again();
                old.follow(primary);
            }
            Fault::OldPrimary(edge) => self.lead_back(edge),
            Fault::FreezeRedis if self.redis_is_up => self.redis().thaw(),
            Fault::KillEdge(edge) => self.start_edge(edge),
            Fault::TearRecord => self.start_edge(0),
            Fault::FreezeEdge(edge) => self.thaw_edge(edge),
            Fault::KillOrders(one) => self.start_orders(one),
            Fault::FreezeOrders(one) => {
                if let Some(orders) = &self.orders[one] {
                    orders.signal("CONT");
                }
            }
            Fault::Network(edge, _) => self.networks[edge].release(),
            Fault::NoMemory => self.tell_redis("CONFIG SET maxmemory 0"),
            Fault::FillDisk => self.disk.as_ref().expect("a small disk").clear(),
            _ => {}
        }
    }

    /// Ends every fault, and waits until all are well.
    pub fn heal(&mut self) {
        for network in &self.networks {
            network.release();
        }
        if self.redis.is_some() {
            self.end(&Fault::KillRedis);
            self.end(&Fault::FreezeRedis);
            self.end(&Fault::NoMemory);
        }
        if let Some(disk) = &self.disk {
            disk.clear();
        }
        if self.clock.is_some() {
            // A sale's time never goes back, and no hold ends before the clock is where it was.
            self.set_clock(self.latest_s);
        }
        for edge in 0..self.edges.len() {
            self.thaw_edge(edge);
            self.start_edge(edge);
        }
        for one in 0..self.orders.len() {
            self.end(&Fault::FreezeOrders(one));
            self.start_orders(one);
        }
        let are_well = in_time(|| {
            self.tend();
            let are_up = self.lives.iter().all(|life| *life == Life::Up);
            (are_up && self.edges.iter().all(Edge::is_ready)).then_some(())
        });
        if are_well.is_none() {
            self.faults.push(format!("after {RECOVERY:?} not all edges were ready: {:?}", self.lives));
        }
    }

    fn lose_power(&mut self, seconds: u64) {
        self.redis_is_up = false;
        let redis = self.redis();
        redis.kill9();
        redis.forget_since(unix_ms() / 1000 - seconds);
        self.losses_ms.push(unix_ms());
    }

    /// The primary dies, and its replica takes over, which may lag.
    fn fail_over(&mut self, lags: Duration) {
        let replica = self.replica.as_ref().expect("a replica");
        if !lags.is_zero() {
            // What is in its socket it would read when it goes on, so the link is torn besides.
            replica.freeze();
            self.tell_redis("CLIENT KILL TYPE replica");
            std::thread::sleep(lags);
        }
        self.redis().kill9();
        let (replica, sentinels) = (self.replica.as_ref().expect("a replica"), &self.sentinels);
        if !lags.is_zero() {
            replica.thaw();
        }
        sentinels.as_ref().expect("Sentinels").agree_on(replica);
        self.replica_is_primary();
    }

    fn replica_is_primary(&mut self) {
        self.losses_ms.push(unix_ms());
        std::mem::swap(&mut self.redis, &mut self.replica);
        *self.ledger_at.lock().unwrap() = self.redis().url();
    }

    /// Waits until the edge has sold from the new primary. Only then can it distinguish the two.
    fn lead_to_old_primary(&mut self, edge: usize) {
        self.redis().kill9();
        let new = self.replica.as_ref().expect("a replica");
        new.command::<()>("REPLICAOF NO ONE");
        self.networks.iter().for_each(|network| network.lead_to(new.address()));
        self.replica_is_primary();
        self.replica.as_mut().expect("the old one").start_again();
        let version =
            |redis: &Option<Redis>| -> u64 { redis.as_ref().expect("a Redis").command(&format!("HGET {KEY} version")) };
        let was = version(&self.replica);
        let ordered = |site: &Self| site.edges[edge].metric("spikegate_purchases_total", "\"ordered\"");
        let mut before = None;
        in_time(|| {
            self.tend();
            match before {
                None => before = (version(&self.redis) > was).then(|| ordered(self)),
                Some(before) => return (ordered(self) > before).then_some(()),
            }
            None
        });
        self.sold_by_old = self.replica.as_ref().expect("the old one").sold();
        let old = self.replica.as_ref().expect("the old one").address();
        self.networks[edge].lead_to(old);
        self.led_away = Some(edge);
    }

    fn lead_back(&mut self, edge: usize) {
        let (new, old) = (self.redis.as_ref().expect("a primary"), self.replica.as_ref().expect("the old one"));
        self.networks[edge].lead_to(new.address());
        self.led_away = None;
        let (before, after) = (self.sold_by_old, old.sold());
        if before != after {
            self.faults.push(format!("the old primary was sold from: {after} tickets after {before}"));
        }
        old.follow(new);
    }

    /// Starts again what ended while it was starting, and notices what ended after that.
    fn tend(&mut self) {
        if let Some(redis) = self.redis.as_ref().filter(|_| self.redis_is_up) {
            let asked = self.edges.iter().enumerate();
            let asked = asked.filter(|(edge, _)| self.lives[*edge] != Life::Down && !self.frozen[*edge]);
            // Whoever is led to an old primary would put that one right.
            let asked = asked.filter(|(edge, _)| Some(*edge) != self.led_away);
            self.operator.look(redis, asked.map(|(_, edge)| edge));
        }
        for edge in 0..self.edges.len() {
            if self.frozen[edge] || self.lives[edge] == Life::Down {
                continue;
            }
            if self.edges[edge].has_ended() {
                self.look_into_log(edge);
                if self.lives[edge] == Life::Up {
                    self.faults.push(format!("{} ended by itself: {}", edge_name(edge), self.edges[edge].log()));
                }
                self.edges[edge].run_again();
                self.lives[edge] = Life::Starting;
            } else if self.lives[edge] == Life::Starting && self.edges[edge].is_ready() {
                self.lives[edge] = Life::Up;
            }
        }
    }

    fn kill_edge(&mut self, edge: usize) {
        self.look_into_log(edge);
        self.edges[edge].kill9();
        self.lives[edge] = Life::Down;
        self.frozen[edge] = false;
    }

    fn start_edge(&mut self, edge: usize) {
        if self.lives[edge] == Life::Down {
            self.edges[edge].run_again();
            self.lives[edge] = Life::Starting;
        }
    }

    fn thaw_edge(&mut self, edge: usize) {
        if std::mem::take(&mut self.frozen[edge]) && !self.edges[edge].has_ended() {
            self.edges[edge].signal("CONT");
        }
    }

    fn kill_orders(&mut self, one: usize) {
        if let Some(mut orders) = self.orders[one].take() {
            let log = orders.log();
            if log.contains("panicked") {
                self.faults.push(format!("orders {one} panicked: {log}"));
            }
            orders.kill();
        }
    }

    fn start_orders(&mut self, one: usize) {
        if self.orders[one].is_none() {
            self.orders[one] = Some(self.shelf.service_at(self.doors.orders[one], "demo:approve"));
        }
    }

    /// A panic is a fault, whatever came of it.
    fn look_into_log(&mut self, edge: usize) {
        let log = self.edges[edge].log();
        for line in log.lines().filter(|line| line.contains("panicked")) {
            self.faults.push(format!("{} panicked: {line}", edge_name(edge)));
        }
    }

    /// What the processes did that they may not do; asked at the end.
    pub fn look_into_logs(&mut self) {
        (0..self.edges.len()).for_each(|edge| self.look_into_log(edge));
        for one in 0..self.orders.len() {
            let log = self.orders[one].as_ref().map(OrderService::log).unwrap_or_default();
            if log.contains("panicked") {
                self.faults.push(format!("orders {one} panicked: {log}"));
            }
        }
    }

    fn redis(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("a site with Redis")
    }

    fn set_clock(&mut self, seconds: i64) {
        self.latest_s = self.latest_s.max(seconds);
        self.clock.as_ref().expect("a clock that can be set").set(seconds);
    }

    /// A command that Redis may not be able to take now.
    fn tell_redis(&mut self, words: &str) {
        if !self.redis_is_up {
            return;
        }
        let mut words = words.split(' ');
        let mut command = ::redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        if let Ok(mut connection) = self.redis().try_connection(Duration::from_secs(2)) {
            let _ = command.query::<::redis::Value>(&mut connection);
        }
    }
}

/// Calls `look` until it returns a value or the time is over. The checker judges the latter.
pub fn in_time<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    while begun.elapsed() < RECOVERY {
        if let Some(seen) = look() {
            return Some(seen);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// With deliveries to these order services, which share the shelf's secret.
fn delivers_to(setup: Setup, orders: &[SocketAddr], shelf: &Shelf) -> Setup {
    if orders.is_empty() {
        return setup;
    }
    let servers: Vec<Value> = orders.iter().map(|address| json!({ "address": address, "max_fails": 0 })).collect();
    let delivery = json!({ "upstream": "orders", "secret_file": shelf.secret_file(), "timeout": "500ms" });
    setup.upstream("orders", json!({ "servers": servers })).set("delivery", delivery)
}

/// Puts half a frame behind the last whole one of the write-ahead log, as an edge leaves it that dies while it writes.
fn tear_record(folder: &std::path::Path) {
    let wal = folder.join("ledger.db-wal");
    let Ok(mut bytes) = std::fs::read(&wal) else { return };
    // A frame is its head of 24 bytes and a page; the log's own head has 32 bytes.
    let half_a_frame: Vec<u8> = bytes.iter().skip(32).take(24 + 1000).copied().collect();
    bytes.extend(half_a_frame);
    std::fs::write(&wal, bytes).unwrap();
}
