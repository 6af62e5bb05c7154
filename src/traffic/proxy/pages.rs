//! Error pages: the operator's page, or the name of the status.

use http::StatusCode;

use crate::config::ErrorPage;
use crate::http::answer::Answer;

/// The answer with this status.
pub fn answer(pages: &[ErrorPage], status: StatusCode) -> Answer {
    match pages.iter().find(|page| page.statuses.contains(&status.as_u16())) {
        Some(page) => Answer::new(status.as_u16(), page.content_type, page.body.clone()),
        None => Answer::bare(status),
    }
}

/// Whether an error page replaces a backend's answer with this status.
pub fn takes_the_place(pages: &[ErrorPage], status: StatusCode) -> bool {
    let page = pages.iter().find(|page| page.statuses.contains(&status.as_u16()));
    page.is_some_and(|page| page.intercept)
}
