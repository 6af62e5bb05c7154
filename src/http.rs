//! HTTP without connections: answers, hosts, request ids, and the client address of a request.

pub mod answer;
pub mod client;
pub mod head;
pub mod host;
pub mod request_id;
