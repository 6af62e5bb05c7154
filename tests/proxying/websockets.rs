//! WebSockets through the edge, between an independent client and server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{scope, spawn};

use serde_json::json;
use tungstenite::{Message, WebSocket, accept, client};

use crate::harness::{Authority, Edge, PATIENCE};

const NAME: &str = "chat.example";

/// A server that greets each client, and echoes every message until the close.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        for stream in listener.incoming() {
            spawn(move || {
                let mut socket = accept(stream.unwrap()).unwrap();
                socket.send(Message::text("welcome")).unwrap();
                while let Ok(said) = socket.read() {
                    if (said.is_text() || said.is_binary()) && socket.send(said).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// Talks for a while, in messages of all sizes that the frame's length has a form for, and takes leave.
fn talk(mut socket: WebSocket<impl Read + Write>) {
    assert_eq!(socket.read().unwrap(), Message::text("welcome"), "the server speaks first");
    for length in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        let said = Message::binary((0..length).map(|at| (at * 31) as u8).collect::<Vec<_>>());
        socket.send(said.clone()).unwrap();
        assert!(socket.read().unwrap() == said, "{length} bytes came back as others");
    }
    for round in 0..200 {
        let said = Message::text(format!("round {round}"));
        socket.send(said.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), said);
    }
    socket.send(Message::Ping(b"still there?".to_vec().into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong(b"still there?".to_vec().into()));
    socket.close(None).unwrap();
    assert!(matches!(socket.read(), Ok(Message::Close(_))), "the server takes leave, too");
}

#[test]
fn many_connections_at_once_each_get_their_own_echo() {
    let edge = Edge::setup().proxies_to(json!({ "servers": [{ "address": server() }] })).start();
    let talk_plainly = || {
        let stream = TcpStream::connect(edge.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, answer) = client(format!("ws://{}/chat", edge.address()), stream).unwrap();
        assert_eq!(answer.status(), 101);
        talk(socket);
    };
    scope(|scope| (0..20).for_each(|_| drop(scope.spawn(talk_plainly))));
}

#[test]
fn over_tls_it_is_the_same() {
    let authority = Authority::new();
    let edge = Edge::setup()
        .listener(json!({ "tls": { "certificates": [authority.certificate("chat", &[NAME])] } }))
        .proxies_to(json!({ "servers": [{ "address": server() }] }))
        .start();
    let stream = authority.connect(edge.address(), NAME).into_stream();
    let (socket, answer) = client(format!("wss://{NAME}/chat"), stream).unwrap();
    assert_eq!(answer.status(), 101);
    talk(socket);
}
