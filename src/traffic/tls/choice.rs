//! Which certificate a client is shown: pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;

use crate::auth::certificate::Certificate;

/// Certificates by their names.
#[derive(Debug)]
pub struct Choice {
    certificates: Vec<Arc<CertifiedKey>>,
    /// By name, as it stands in the certificate; several may have one, with keys of different kinds.
    by_name: HashMap<String, Vec<usize>>,
    /// For names that none has, and for clients that give none: the first, and all with a name of its.
    otherwise: Vec<usize>,
    /// Until when the first of them to end is valid; of no certificates none.
    pub first_end: Option<SystemTime>,
}

impl Choice {
    /// A choice between these, of which the first is for all names that none has.
    pub fn new(certificates: Vec<Certificate>) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, certificate) in certificates.iter().enumerate() {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_default().push(index);
            }
        }
        let first_names = certificates.first().map_or(&[][..], |first| &first.names);
        let shares_a_name = |certificate: &Certificate| certificate.names.iter().any(|name| first_names.contains(name));
        let otherwise = (0..certificates.len()).filter(|index| *index == 0 || shares_a_name(&certificates[*index]));
        Self {
            otherwise: otherwise.collect(),
            by_name,
            first_end: certificates.iter().map(|certificate| certificate.not_after).min(),
            certificates: certificates.into_iter().map(|certificate| certificate.shown).collect(),
        }
    }

    /// Whether it is one between the same certificates, in the same order.
    pub fn is_of_the_same(&self, other: &Self) -> bool {
        let chains = |choice: &Self| choice.certificates.iter().map(|shown| shown.cert.clone()).collect::<Vec<_>>();
        chains(self) == chains(other)
    }

    /// The certificate for a name: that of this very name, else of the wildcard that it falls under, else the first. Of
    /// several, the first whose key the client can check.
    pub fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let of_name = |name: &str| self.by_name.get(name);
        let candidates = name.map(str::to_ascii_lowercase).and_then(|name| {
            let wildcard = || name.split_once('.').and_then(|(_, parent)| of_name(&format!("*.{parent}")));
            of_name(&name).or_else(wildcard)
        });
        let candidates = candidates.unwrap_or(&self.otherwise);
        let can_be_checked = |index: &&usize| self.certificates[**index].key.choose_scheme(schemes).is_some();
        let chosen = candidates.iter().find(can_be_checked).or_else(|| candidates.first());
        chosen.map(|index| Arc::clone(&self.certificates[*index]))
    }
}
