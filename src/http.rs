//! Words of HTTP that have no connection: answers, hosts, request ids, and which client a request comes from.

pub mod answer;
pub mod client;
pub mod head;
pub mod host;
pub mod request_id;
