//! How long a connection may wait for its client.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::sync::futures::Notified;
use tokio::time::{Instant, Sleep};

use crate::traffic::rules::Rules;

/// A wait that spans all requests of a connection.
///
/// Setting an alarm and registering for the end of the edge each take a lock that all connections share, so both happen
/// once for many requests: an alarm that rings too early is set anew, and nothing is asked again that has not changed.
pub struct Wait<'a, 'n> {
    stop: Pin<&'a mut Notified<'n>>,
    alarm: Pin<&'a mut Sleep>,
    due: Instant,
    phase: Phase,
    /// Whom `stop` and `alarm` wake.
    waker: Option<Waker>,
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first request of a connection.
    First,
    /// Nothing: a request was answered, and the wait for the next has yet to begin.
    None,
    /// The next request.
    Next,
    /// The rest of a head.
    Rest,
    /// The last request, since the edge stops.
    Last,
}

impl<'a, 'n> Wait<'a, 'n> {
    /// A wait for the first request, until `alarm`. `stop` tells of the end of the edge.
    pub fn new(stop: Pin<&'a mut Notified<'n>>, alarm: Pin<&'a mut Sleep>) -> Self {
        let due = alarm.deadline();
        Self { stop, alarm, due, phase: Phase::First, waker: None }
    }

    /// A request was answered.
    pub fn restart(&mut self) {
        self.phase = Phase::None;
    }

    /// Whether the client took too long, on a connection of which nothing is known yet (`is_idle`) or part of a head.
    /// The whole head has one deadline, however it trickles in. When the edge stops, little time is left for a head to
    /// begin. Asks `is_stopping` after it has registered, so that nothing can be missed in between.
    pub fn poll(
        &mut self,
        is_idle: bool,
        rules: &Rules,
        is_stopping: impl Fn() -> bool,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let is_known = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !is_known {
            self.waker = Some(cx.waker().clone());
            // Only to be woken; what has happened is asked below.
            let _ = self.stop.as_mut().poll(cx);
        }
        let phase = match self.phase {
            _ if !is_idle => Phase::Rest,
            _ if is_stopping() => Phase::Last,
            Phase::First => Phase::First,
            _ => Phase::Next,
        };
        if phase != self.phase {
            self.phase = phase;
            self.due = Instant::now()
                + match phase {
                    Phase::Rest => rules.client.read,
                    Phase::Last => rules.farewell,
                    _ => rules.client.keepalive,
                };
        }
        let is_too_late = self.due < self.alarm.deadline();
        if is_too_late {
            self.alarm.as_mut().reset(self.due);
        }
        if !is_known || is_too_late || self.alarm.is_elapsed() {
            while self.alarm.as_mut().poll(cx).is_ready() {
                if Instant::now() >= self.due {
                    return Poll::Ready(());
                }
                self.alarm.as_mut().reset(self.due);
            }
        }
        Poll::Pending
    }
}
