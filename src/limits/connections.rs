//! Counts open connections, in total and per address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;

use super::at_once::{AtOnce, ConcurrencyGuard};

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReached {
    /// The total limit is reached.
    InAll,
    /// The limit of this address is reached.
    OfAddress,
}

/// The open connections.
#[derive(Debug)]
pub struct Connections {
    open: AtomicUsize,
    /// Changes only at a reload.
    most: AtomicUsize,
    /// Present if addresses are counted.
    by_address: ArcSwapOption<AtOnce>,
}

/// An open connection, counted for as long as this lives.
#[derive(Debug)]
pub struct ConnectionGuard {
    connections: Arc<Connections>,
    /// The count of its address, if the address is known and counted.
    held: Option<ConcurrencyGuard>,
}

impl Connections {
    /// At most `most` in total, and `most_of_address` per address; 0 means no limit per address.
    pub fn new(most: usize, most_of_address: u32) -> Self {
        let connections =
            Self { open: AtomicUsize::new(0), most: AtomicUsize::new(most), by_address: ArcSwapOption::empty() };
        connections.count_addresses(most_of_address);
        connections
    }

    /// Changes the total limit; open connections stay.
    pub fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Changes the limit per address for new connections; 0 means no limit.
    pub fn count_addresses(&self, most: u32) {
        self.by_address.store((most > 0).then(|| Arc::new(AtOnce::new(most))));
    }

    /// Counts one more connection if there is room; of this address, unless it is not known yet or not counted.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<ConnectionGuard, LimitReached> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most.load(Ordering::Relaxed) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(LimitReached::InAll);
        }
        let mut admitted = ConnectionGuard { connections: Arc::clone(self), held: None };
        if let Some(address) = address {
            admitted.count_for(address)?;
        }
        Ok(admitted)
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl ConnectionGuard {
    /// Counts it for its address, if there is room.
    pub fn count_for(&mut self, address: IpAddr) -> Result<(), LimitReached> {
        if let Some(by_address) = self.connections.by_address.load().as_ref() {
            self.held = Some(by_address.hold(super::key(address)).ok_or(LimitReached::OfAddress)?);
        }
        Ok(())
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn what_is_dropped_makes_room() {
        let connections = Arc::new(Connections::new(3, 2));
        let mut open: Vec<_> = (0..2).map(|_| connections.admit(address(1)).expect("room")).collect();
        assert_eq!(connections.admit(address(1)).err(), Some(LimitReached::OfAddress));
        open.push(connections.admit(address(2)).expect("room"));
        assert_eq!(connections.admit(address(3)).err(), Some(LimitReached::InAll));
        assert_eq!(connections.open(), 3);
        drop(open.remove(0));
        assert!(connections.admit(address(1)).is_ok());
        drop(open);
        assert_eq!(connections.open(), 0);
        let addresses = connections.by_address.load_full().expect("they are counted");
        assert!(addresses.is_empty(), "nothing is left behind");
    }

    #[test]
    fn whose_address_is_learnt_later_counts_for_it_then() {
        let connections = Arc::new(Connections::new(2, 1));
        let mut admitted = connections.admit(None).expect("room");
        assert!(admitted.count_for(address(1).expect("one")).is_ok());
        let mut other = connections.admit(None).expect("room");
        assert_eq!(other.count_for(address(1).expect("one")), Err(LimitReached::OfAddress));
        assert!(other.count_for(address(2).expect("one")).is_ok());
        assert_eq!(connections.admit(None).err(), Some(LimitReached::InAll));
        drop(admitted);
        assert!(connections.admit(address(1)).is_ok());
        assert_eq!(connections.admit(address(2)).err(), Some(LimitReached::OfAddress));
        drop(other);
        assert_eq!(connections.open(), 0);
    }

    #[test]
    fn threads_agree_on_how_many_there_are() {
        let connections = Arc::new(Connections::new(50, 20));
        let most = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (connections, most) = (&connections, &most);
                scope.spawn(move || {
                    for round in 0..2_000 {
                        let open: Vec<_> =
                            (0..10).filter_map(|_| connections.admit(address(thread % 4)).ok()).collect();
                        if round % 7 == 0 {
                            most.fetch_max(connections.open(), Ordering::Relaxed);
                        }
                        assert!(open.len() <= 10);
                    }
                });
            }
        });
        // A connection that is being refused counts for an instant, at most one per thread.
        assert!(most.into_inner() <= 50 + 8);
        assert_eq!(connections.open(), 0);
    }
}
