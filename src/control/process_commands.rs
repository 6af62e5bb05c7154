//! What an operator does to the process: has it read its configuration again, and be followed by another.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{Shared, json_response, problem, response};
use crate::config::reload::Report;
use crate::http::answer::Answer;

/// What is done in between requests, one after the other. Whoever asked is told what became of it.
#[derive(Debug)]
pub enum ProcessCommand {
    /// Work by the configuration as it is now.
    Reload(Option<oneshot::Sender<Result<Report, String>>>),
    /// Start the program again, and let that process go on; its number is told.
    Upgrade(Option<oneshot::Sender<Result<u32, String>>>),
}

/// Reads the configuration again.
pub async fn reload(State(control): Shared) -> Response {
    match run(&control.process_commands, ProcessCommand::Reload).await {
        Ok(Ok(report)) => json_response(&json!(report)),
        Ok(Err(errors)) => {
            let list: Vec<&str> = errors.lines().collect();
            let detail = format!("Nothing has changed. {errors}");
            let errors = json!({ "errors": list });
            response(Answer::problem(422, "configuration-refused", "Configuration refused", &detail, errors))
        }
        Err(refused) => refused,
    }
}

/// Has another process follow this one.
pub async fn upgrade(State(control): Shared) -> Response {
    match run(&control.process_commands, ProcessCommand::Upgrade).await {
        Ok(Ok(process)) => json_response(&json!({ "process": process })),
        Ok(Err(why)) => {
            let detail = format!("This process goes on. {why}");
            response(Answer::problem(409, "upgrade-failed", "Upgrade failed", &detail, Value::Null))
        }
        Err(refused) => refused,
    }
}

/// Has it done, and waits for what became of it.
async fn run<T>(
    process_commands: &mpsc::Sender<ProcessCommand>,
    command: impl FnOnce(Option<oneshot::Sender<T>>) -> ProcessCommand,
) -> Result<T, Response> {
    let (asked, outcome) = oneshot::channel();
    if process_commands.try_send(command(Some(asked))).is_err() {
        return Err(problem(503, "busy", "Busy", "Too many reloads and upgrades are waiting already."));
    }
    outcome.await.map_err(|_| problem(503, "stopping", "Stopping", "The edge stops."))
}
