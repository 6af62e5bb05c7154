//! The page that lists all sales, each with a link to its shop page: `GET /shop`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::edge::EdgeClient;
use crate::page::{HTML, POLICY, is_sale_id, version};

/// Where it is served.
pub const PATH: &str = "/shop";

const PAGE: &str = include_str!("../page/sales.html");

/// The page. It lists the sales of this edge.
pub fn routes(edge: Arc<EdgeClient>) -> Router {
    Router::new().route(PATH, get(page)).with_state(edge)
}

async fn page(State(edge): State<Arc<EdgeClient>>) -> Response {
    let (status, content) = match edge.sales().await {
        Ok(sales) => (StatusCode::OK, list(&sales)),
        Err(error) => {
            log::warn!("the sales cannot be listed: {error}");
            (StatusCode::SERVICE_UNAVAILABLE, "<p>The edge does not answer. Reload this page.</p>".to_owned())
        }
    };
    let html = PAGE.replace("{{version}}", &version()).replace("{{sales}}", &content);
    let headers = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_TYPE, HTML),
    ];
    (status, headers, html).into_response()
}

/// Ids of sales contain no characters that have a meaning in HTML.
fn list(sales: &[String]) -> String {
    if sales.is_empty() {
        return "<p>There is no sale.</p>".to_owned();
    }
    let links = sales.iter().filter(|sale| is_sale_id(sale));
    let items: String = links.map(|sale| format!("<li><a href=\"/shop/{sale}\">{sale}</a></li>")).collect();
    format!("<ol>{items}</ol>")
}
