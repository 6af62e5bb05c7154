//! Every key that the reader asks for, whether the file has it or not.
//!
//! Kept for each thread, as each test has one of its own.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
struct Asked {
    keys: BTreeSet<String>,
    /// Paths of groups whose names are the operator's, with a `*` for the name.
    named: BTreeMap<String, String>,
}

thread_local! {
    static ASKED: RefCell<Asked> = RefCell::default();
}

/// The reader asks for `key` of the group at `group`.
pub(in crate::config) fn key(group: &str, key: &str) {
    ASKED.with_borrow_mut(|asked| {
        let group = asked.general(group);
        asked.keys.insert(super::super::super::node::join(&group, key));
    });
}

/// The reader reads a group at `path`, in `parent`, by a name of the operator's.
pub(in crate::config) fn name(parent: &str, path: &str) {
    ASKED.with_borrow_mut(|asked| {
        let parent = asked.general(parent);
        asked.named.insert(path.to_owned(), format!("{parent}.*"));
    });
}

/// What `read` made the reader ask for: `upstreams.*.servers[].weight` for any name and any place in the list.
pub(super) fn while_reading(read: impl FnOnce()) -> BTreeSet<String> {
    ASKED.take();
    read();
    ASKED.take().keys
}

impl Asked {
    /// The path without names and without numbers.
    fn general(&self, path: &str) -> String {
        let is_in =
            |named: &str| path.strip_prefix(named).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let longest = self.named.iter().filter_map(|(named, general)| Some((general, is_in(named)?)));
        let path = longest
            .min_by_key(|(_, rest)| rest.len())
            .map_or_else(|| path.to_owned(), |(general, rest)| format!("{general}{rest}"));
        let without_number = |piece: &str| match piece.split_once(']') {
            Some((_, rest)) => format!("[]{rest}"),
            None => piece.to_owned(),
        };
        path.split('[').map(without_number).collect()
    }
}
