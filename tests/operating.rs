//! What operators do: start, stop, reload, upgrade, install, change a sale, and read logs, metrics and traces.

mod command_line;
mod demo;
mod logs;
mod metrics;
mod packaging;
mod reload;
mod sales;
mod starting_and_stopping;
mod tracing;
mod upgrade;
