//! What becomes of the head of a request that Pingora reads: whether the proxy ever saw it, and a deadline. Pingora has
//! none of its own: it waits for each next piece anew.

use std::cell::Cell;
use std::pin::pin;

tokio::task_local! {
    static HAS_HEAD: Cell<bool>;
}

/// Runs `serve`, which reads a request and has it answered by the proxy; `None` if its head is not whole when it is
/// `late`.
pub async fn with_head_deadline<T>(late: impl Future<Output = ()>, serve: impl Future<Output = T>) -> Option<T> {
    let watched = async {
        let mut serve = pin!(serve);
        let has_head = tokio::select! {
            biased;
            served = &mut serve => return Some(served),
            () = late => HAS_HEAD.with(Cell::get),
        };
        if has_head { Some(serve.await) } else { None }
    };
    HAS_HEAD.scope(Cell::new(false), watched).await
}

/// Runs `serve`, which reads a request and has it answered by the proxy. Says whether the proxy was asked: what Pingora
/// does not take for a request, it refuses by itself.
pub async fn and_whether_asked<T>(serve: impl Future<Output = T>) -> (T, bool) {
    let watched = async { (serve.await, HAS_HEAD.with(Cell::get)) };
    HAS_HEAD.scope(Cell::new(false), watched).await
}

/// The head is whole. Means nothing to a request without a deadline.
pub(super) fn head_is_whole() {
    let _ = HAS_HEAD.try_with(|has_head| has_head.set(true));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    const MOST: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn whether_the_proxy_was_asked_is_known() {
        assert_eq!(and_whether_asked(async { 1 }).await, (1, false));
        assert_eq!(and_whether_asked(async { head_is_whole() }).await, ((), true));
    }

    #[tokio::test]
    async fn only_the_head_has_a_deadline() {
        assert_eq!(with_head_deadline(sleep(MOST), std::future::pending::<()>()).await, None);
        assert_eq!(with_head_deadline(sleep(MOST), async { 1 }).await, Some(1));
        let slow = async {
            head_is_whole();
            sleep(4 * MOST).await;
            2
        };
        assert_eq!(with_head_deadline(sleep(MOST), slow).await, Some(2));
        head_is_whole();
    }
}
