//! Responses of the API: documents and problems.

use axum::Json;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

pub(crate) fn document(status: StatusCode, document: &impl serde::Serialize) -> Response {
    let mut answer = (status, Json(document)).into_response();
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

pub(crate) fn retry_soon(mut answer: Response) -> Response {
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

pub(crate) fn bad_request(detail: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "bad-request", "Bad request", detail, Value::Null)
}

pub(crate) fn unavailable(detail: &str) -> Response {
    retry_soon(problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable", detail, Value::Null))
}

pub(crate) fn boxed_error(error: sqlx::Error) -> Box<Response> {
    Box::new(database_error(&error))
}

/// The log has the details; clients do not get them.
pub(crate) fn database_error(error: &sqlx::Error) -> Response {
    log::error!("database error: {error}");
    unavailable("The database is unavailable.")
}

/// A problem document (RFC 9457) in the same form as the edge's.
pub(crate) fn problem(status: StatusCode, name: &str, title: &str, detail: &str, members: Value) -> Response {
    let mut body = json!({
        "type": format!("urn:spikegate:problem:{name}"), "title": title, "status": status.as_u16(), "detail": detail,
    });
    if let (Some(body), Value::Object(members)) = (body.as_object_mut(), members) {
        body.extend(members);
    }
    let mut answer = document(status, &body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}
