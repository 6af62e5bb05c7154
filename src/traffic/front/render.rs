//! Renders answers to the same bytes that Pingora would write.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Write;

use http::{HeaderValue, StatusCode};
use pingora::protocols::http::date::get_cached_date;

use crate::http::answer::Answer;
use crate::http::request_id::RequestId;

thread_local! {
    static PEN: RefCell<Pen> = RefCell::new(Pen::default());
}

/// The buffers of each thread.
#[derive(Default)]
struct Pen {
    /// The date of all answers in `constant`.
    date: Option<HeaderValue>,
    /// Frequent answers, rendered once a second because they contain the date.
    constant: Vec<Written>,
    buffer: Vec<u8>,
}

struct Written {
    answer: &'static Answer,
    keep_alive: bool,
    bytes: Vec<u8>,
}

/// The request ID and its header, as every answer carries them if request IDs are enabled.
pub type Id<'i> = (&'i str, &'i RequestId);

/// Passes the bytes of an answer to `send`, for a connection that is kept or closed.
pub fn render<T>(
    answer: Cow<'static, Answer>,
    id: Option<Id<'_>>,
    keep_alive: bool,
    send: impl FnOnce(&[u8]) -> T,
) -> T {
    PEN.with_borrow_mut(|pen| {
        let date = get_cached_date();
        match (answer, id) {
            (Cow::Borrowed(answer), None) => send(pen.constant(answer, keep_alive, date)),
            (answer, id) => {
                pen.buffer.clear();
                write(&mut pen.buffer, &answer, id, keep_alive, &date);
                send(&pen.buffer)
            }
        }
    })
}

impl Pen {
    fn constant(&mut self, answer: &'static Answer, keep_alive: bool, date: HeaderValue) -> &[u8] {
        if self.date.as_ref() != Some(&date) {
            self.date = Some(date.clone());
            self.constant.clear();
        }
        let is_it = |written: &Written| std::ptr::eq(written.answer, answer) && written.keep_alive == keep_alive;
        let at = self.constant.iter().position(is_it).unwrap_or_else(|| {
            let mut bytes = Vec::new();
            write(&mut bytes, answer, None, keep_alive, &date);
            self.constant.push(Written { answer, keep_alive, bytes });
            self.constant.len() - 1
        });
        &self.constant[at].bytes
    }
}

fn write(out: &mut Vec<u8>, answer: &Answer, id: Option<Id<'_>>, keep_alive: bool, date: &HeaderValue) {
    let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
    put("HTTP/1.1 ");
    put(&answer.status.to_string());
    put(" ");
    put(StatusCode::from_u16(answer.status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default());
    put("\r\n");
    answer.fields(|name, value| [name, ": ", value, "\r\n"].into_iter().for_each(&mut put));
    if let Some((name, id)) = id {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{name}: {id}\r\n");
    }
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(date.as_bytes());
    out.extend_from_slice(if keep_alive {
        b"\r\nConnection: keep-alive\r\n\r\n"
    } else {
        b"\r\nConnection: close\r\n\r\n"
    });
    out.extend_from_slice(&answer.body);
}
