//! The rule for buyer IDs. It is part of the ledger, because a ledger record is one line of text.

/// Maximum length of a buyer ID, in bytes.
pub const BUYER_MAX: usize = 128;

/// Whether a text is a valid buyer ID: 1 to [`BUYER_MAX`] bytes without control characters.
#[must_use]
pub fn is_buyer(text: &str) -> bool {
    (1..=BUYER_MAX).contains(&text.len()) && text.chars().all(may_be_in_buyer)
}

/// Whether a buyer ID may contain this character.
#[must_use]
pub fn may_be_in_buyer(character: char) -> bool {
    !character.is_control()
}
