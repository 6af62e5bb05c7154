//! Purchases: who may buy, how many tickets, with which key, and what becomes of the order.

mod admission;
mod article;
mod exactness;
mod holds;
mod odd_requests;
mod purchase;
mod retries;
mod tokens;
