//! Clients that mean harm: what they send reaches nobody who was not meant to have it, and what they hold costs little.

mod crowds;
mod injection;
mod limits;
mod overload;
mod recorder;
mod smuggling;
mod targets;
mod waits;
