//! Responses in the form of the order service's.

use axum::Json;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A JSON document that must not be cached.
pub fn document(status: StatusCode, document: &Value) -> Response {
    let mut response = (status, Json(document)).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A problem document (RFC 9457).
pub fn problem(status: StatusCode, name: &str, title: &str, detail: &str, members: Value) -> Response {
    let mut body = json!({
        "type": format!("urn:spikegate:problem:{name}"), "title": title, "status": status.as_u16(), "detail": detail,
    });
    if let (Some(body), Value::Object(members)) = (body.as_object_mut(), members) {
        body.extend(members);
    }
    let mut response = document(status, &body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// 503; the error goes to standard error.
pub fn database_error(error: &sqlx::Error) -> Response {
    eprintln!("database error: {error}");
    let detail = "The database is unavailable.";
    problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable", detail, Value::Null)
}
