//! Commands to the process: reload and upgrade.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{Shared, json_response, problem, response};
use crate::config::reload::Report;
use crate::http::answer::Answer;

/// A command that the server runs between requests, one at a time. It sends the result to the caller, if there is one.
#[derive(Debug)]
pub enum ProcessCommand {
    /// Reload the configuration file.
    Reload(Option<oneshot::Sender<Result<Report, String>>>),
    /// Start the program again and hand over to the new process; the result is its process id.
    Upgrade(Option<oneshot::Sender<Result<u32, String>>>),
}

/// Reloads the configuration.
pub async fn reload(State(control): Shared) -> Response {
    match run(&control.process_commands, ProcessCommand::Reload).await {
        Ok(Ok(report)) => json_response(&json!(report)),
        Ok(Err(errors)) => {
            let list: Vec<&str> = errors.lines().collect();
            let detail = format!("Nothing was changed. {errors}");
            let errors = json!({ "errors": list });
            response(Answer::problem(422, "configuration-refused", "Configuration refused", &detail, errors))
        }
        Err(refused) => refused,
    }
}

/// Starts a new process and hands over to it.
pub async fn upgrade(State(control): Shared) -> Response {
    match run(&control.process_commands, ProcessCommand::Upgrade).await {
        Ok(Ok(process)) => json_response(&json!({ "process": process })),
        Ok(Err(why)) => {
            let detail = format!("This process continues. {why}");
            response(Answer::problem(409, "upgrade-failed", "Upgrade failed", &detail, Value::Null))
        }
        Err(refused) => refused,
    }
}

/// Queues the command and waits for its result.
async fn run<T>(
    process_commands: &mpsc::Sender<ProcessCommand>,
    command: impl FnOnce(Option<oneshot::Sender<T>>) -> ProcessCommand,
) -> Result<T, Response> {
    let (asked, outcome) = oneshot::channel();
    if process_commands.try_send(command(Some(asked))).is_err() {
        return Err(problem(503, "busy", "Busy", "Too many reloads and upgrades are waiting."));
    }
    outcome.await.map_err(|_| problem(503, "stopping", "Stopping", "The edge is stopping."))
}
