//! A bare epoll loop: one thread, one read and one write a request, no parsing, always the same answer.
//!
//!     floor ADDRESS [--close]
//!
//! With `--close` a connection ends after its first answer. What arrives in one read is taken for one whole request,
//! which is true of the load generators that it serves.

use std::env;
use std::io::{Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use floor::poll::Poll;

/// What Spikegate answers when a sale is sold out, byte for byte as long, with a date that stands still.
const SOLD_OUT: &str = "HTTP/1.1 200 OK\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 29\r\n\
    Cache-Control: no-store\r\n\
    Date: Sun, 22 Nov 2026 12:00:00 GMT\r\n\
    Connection: keep-alive\r\n\
    \r\n\
    {\"code\":-1,\"msg\":\"已售罄\"}";

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:21080".to_string());
    let close = arguments.next().is_some_and(|argument| argument == "--close");
    serve(&TcpListener::bind(address)?, close)
}

fn serve(listener: &TcpListener, close: bool) -> Result<()> {
    let listening = listener.as_raw_fd() as usize;
    let mut poll = Poll::new(1024)?;
    poll.add(listener, listening)?;
    // By file descriptor, which the kernel keeps small.
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    let mut request = [0; 4096];
    loop {
        let mut arrived = false;
        for token in poll.wait(None)? {
            if token == listening {
                arrived = true;
            } else if let Some(stream) = &mut connections[token] {
                let answered =
                    matches!(stream.read(&mut request), Ok(1..)) && stream.write_all(SOLD_OUT.as_bytes()).is_ok();
                if !answered || close {
                    connections[token] = None;
                }
            }
        }
        // One at a time, so that there is no second accept that finds nothing and could block.
        if arrived {
            let (stream, _) = listener.accept()?;
            let token = stream.as_raw_fd() as usize;
            poll.add(&stream, token)?;
            if connections.len() <= token {
                connections.resize_with(token + 1, || None);
            }
            connections[token] = Some(stream);
        }
    }
}
