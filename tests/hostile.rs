//! Hostile clients: their requests reach nothing that they should not reach, and the resources that they hold are few.

mod crowds;
mod injection;
mod limits;
mod overload;
mod smuggling;
mod targets;
mod waits;
