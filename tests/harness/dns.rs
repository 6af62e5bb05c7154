//! A DNS server in this process: it answers questions for IPv4 addresses over UDP, and nothing else.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

const A: u16 = 1;

#[derive(Default)]
struct Shared {
    names: BTreeMap<String, Vec<Ipv4Addr>>,
    /// Questions for IPv4 addresses, answered or not.
    questions: usize,
}

pub struct Dns {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Dns {
    /// Starts a server without names. It runs until the process ends.
    pub fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let shared = Arc::<Mutex<Shared>>::default();
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut question = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut question) {
                if let Some(answer) = answer(&question[..length], &mut own.lock().unwrap()) {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on a name has these addresses; without any, it does not exist.
    pub fn set(&self, name: &str, addresses: &[[u8; 4]]) {
        let addresses = addresses.iter().copied().map(Ipv4Addr::from).collect();
        self.shared.lock().unwrap().names.insert(name.to_owned(), addresses);
    }

    pub fn questions(&self) -> usize {
        self.shared.lock().unwrap().questions
    }
}

/// RFC 1035, 4: a head of twelve bytes, the question as it came, and the answers.
fn answer(question: &[u8], shared: &mut Shared) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    while *question.get(at)? > 0 {
        let length = usize::from(question[at]);
        labels.push(String::from_utf8_lossy(question.get(at + 1..=at + length)?).to_lowercase());
        at += length + 1;
    }
    let end = at + 5;
    let kind = u16::from_be_bytes(question.get(at + 1..at + 3)?.try_into().ok()?);
    let known = shared.names.get(&labels.join(".")).filter(|addresses| !addresses.is_empty());
    let addresses = known.filter(|_| kind == A).cloned().unwrap_or_default();
    shared.questions += usize::from(kind == A);
    // An answer, recursion available, and whether the name exists.
    let code = if known.is_some() { 0 } else { 3 };
    let mut answer = [&question[..2], &[0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]].concat();
    answer.extend_from_slice(question.get(12..end)?);
    for address in addresses {
        // The name of the question, an address, valid for an hour: whoever asks again does so by its own settings.
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4]);
        answer.extend_from_slice(&address.octets());
    }
    Some(answer)
}
