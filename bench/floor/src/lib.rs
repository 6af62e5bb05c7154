//! The bare epoll loop's only part: epoll itself.

pub mod poll;
