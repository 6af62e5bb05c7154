//! Which texts may be a buyer's id. The ledger decides this, because a ledger record is one line of text.

/// The longest buyer's id, in bytes.
pub const BUYER_MAX: usize = 128;

/// Whether a text may be a buyer's id: 1 to [`BUYER_MAX`] bytes without control characters.
#[must_use]
pub fn is_buyer(text: &str) -> bool {
    (1..=BUYER_MAX).contains(&text.len()) && text.chars().all(may_be_in_buyer)
}

/// Whether a buyer's id may contain this character.
#[must_use]
pub fn may_be_in_buyer(character: char) -> bool {
    !character.is_control()
}
