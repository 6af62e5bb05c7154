//! Who may do what: shared secrets, tokens of buyers, admission tokens and certificates.

pub mod admission;
pub mod certificate;
pub mod jwt;
pub mod secret;
