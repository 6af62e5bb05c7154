//! Serves files of a folder, such as a maintenance page or a small site.

use std::fs::File;
use std::io::{self, Read};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER,
};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::compression::Encoder;
use super::reply::finish_request;
use super::{forward, reply};
use crate::config::{self, Compression, ErrorPage, HeaderRules};
use crate::http::answer::Answer;
use crate::traffic::files::{Entry, Folder, Found, file_name};

/// Read size in bytes.
const PIECE: usize = 64 * 1024;

/// Settings for an answer, besides the file.
pub struct ServeOptions<'r> {
    /// Compression, if enabled.
    pub compression: Option<&'r Compression>,
    /// Header changes of the route.
    pub rules: &'r HeaderRules,
    /// Error pages for missing files.
    pub pages: &'r [ErrorPage],
}

/// Answers a request for `path`, as sent by the client or rewritten by the route.
///
/// # Errors
///
/// If the client is gone, or a file shrinks while it is sent.
pub async fn serve(folder: &Folder, session: &mut Session, path: &str, options: ServeOptions<'_>) -> Result<()> {
    let method = &session.req_header().method;
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut answer = super::pages::answer(options.pages, StatusCode::METHOD_NOT_ALLOWED);
        answer.allow = Some("GET, HEAD");
        return reply::send_by(session, &answer, options.rules).await;
    }
    let name = file_name(path, &folder.settings.index);
    let place = match &name {
        Some(name) => folder.find(name.clone()).await,
        None => Ok(Entry::Nothing),
    };
    match place {
        Ok(Entry::File(found)) => send(session, found, None, options).await,
        Ok(Entry::Folder) => {
            let mut answer = Answer::bare(StatusCode::MOVED_PERMANENTLY);
            // The redirect uses the client's path, not the path as rewritten by the route.
            answer.location = Some(format!("{}/", session.req_header().uri.path()));
            reply::send_by(session, &answer, options.rules).await
        }
        Ok(Entry::Nothing) => match &folder.settings.fallback {
            Some(fallback) => match folder.find(fallback.file.clone()).await {
                Ok(Entry::File(found)) => send(session, found, Some(fallback), options).await,
                Ok(_) => {
                    log::error!("files: {} is not in {}", fallback.file, folder.settings.root.display());
                    refuse(session, StatusCode::NOT_FOUND, options).await
                }
                Err(error) => fail(folder, session, &fallback.file, &error, options).await,
            },
            None => refuse(session, StatusCode::NOT_FOUND, options).await,
        },
        Err(error) => fail(folder, session, name.as_deref().unwrap_or_default(), &error, options).await,
    }
}

async fn fail(
    folder: &Folder,
    session: &mut Session,
    name: &str,
    error: &io::Error,
    options: ServeOptions<'_>,
) -> Result<()> {
    let status = match error.kind() {
        io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        _ => {
            log::error!("files: {} in {}: {error}", name.escape_debug(), folder.settings.root.display());
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    refuse(session, status, options).await
}

async fn refuse(session: &mut Session, status: StatusCode, options: ServeOptions<'_>) -> Result<()> {
    reply::send_by(session, &super::pages::answer(options.pages, status), options.rules).await
}

/// Sends a file, or 304 if the client has it.
async fn send(
    session: &mut Session,
    found: Found,
    fallback: Option<&config::Fallback>,
    options: ServeOptions<'_>,
) -> Result<()> {
    let (mut head, has_body) = head(session.req_header(), &found, fallback)?;
    let mut encoder = match options.compression.filter(|_| has_body) {
        Some(compression) => Encoder::begin(compression, session.req_header(), &mut head)?,
        None => None,
    };
    forward::apply_to_answer(options.rules, &mut head)?;
    session.write_response_header(Box::new(head), !has_body).await?;
    if has_body {
        let mut left = found.length;
        let mut file = found.file;
        while left > 0 {
            let (back, piece) = read_piece(file, left).await?;
            file = back;
            left -= piece.len() as u64;
            let piece = match &mut encoder {
                Some(encoder) => encoder.encode(Some(&piece), left == 0)?,
                None => Some(piece),
            };
            if piece.is_some() || left == 0 {
                session.write_response_body(piece, left == 0).await?;
            }
        }
        if found.length == 0 {
            session.write_response_body(None, true).await?;
        }
    }
    finish_request(session).await
}

/// Reads the next at most `left` bytes.
async fn read_piece(mut file: File, left: u64) -> Result<(File, Bytes)> {
    let read = tokio::task::spawn_blocking(move || {
        let mut piece = Vec::with_capacity(PIECE.min(usize::try_from(left).unwrap_or(PIECE)));
        (&mut file).take(piece.capacity() as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            // The length was already sent; the client would take later bytes for the next answer.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((file, Bytes::from(piece)))
    });
    let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    read.map_err(|error| Error::because(ErrorType::FileReadError, "a file that is being sent", error))
}

/// The head of the answer, and whether a body follows.
fn head(request: &RequestHeader, found: &Found, fallback: Option<&config::Fallback>) -> Result<(ResponseHeader, bool)> {
    let status = fallback.map_or(200, |fallback| fallback.status);
    let since_1970 = found.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // As in nginx: modification time in seconds, and length.
    let tag = format!("\"{:x}-{:x}\"", since_1970.as_secs(), found.length);
    let modified = httpdate::fmt_http_date(found.modified);
    if status == 200 && is_known(&request.headers, &tag, &modified) {
        let mut head = ResponseHeader::build(304, Some(4))?;
        head.insert_header(ETAG, tag)?;
        head.insert_header(LAST_MODIFIED, modified)?;
        return Ok((head, false));
    }
    let mut head = ResponseHeader::build(status, Some(8))?;
    let kind = mime_guess::from_path(&found.name).first_or_octet_stream();
    let charset = if kind.type_() == "text" || kind.subtype() == "javascript" { "; charset=utf-8" } else { "" };
    head.insert_header(CONTENT_TYPE, format!("{kind}{charset}"))?;
    head.insert_header(CONTENT_LENGTH, found.length.to_string())?;
    if status == 200 {
        head.insert_header(ETAG, tag)?;
        head.insert_header(LAST_MODIFIED, modified)?;
    } else {
        head.insert_header(CACHE_CONTROL, "no-store")?;
    }
    if let Some(wait) = fallback.and_then(|fallback| fallback.retry_after) {
        head.insert_header(RETRY_AFTER, wait.as_secs().to_string())?;
    }
    Ok((head, request.method != Method::HEAD))
}

/// Whether the client has the current file (RFC 9110, 13.2.2: `If-None-Match` takes precedence).
fn is_known(headers: &HeaderMap, tag: &str, modified: &str) -> bool {
    let is_same = |known: &str| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag;
    match headers.get(IF_NONE_MATCH) {
        Some(known) => known.to_str().is_ok_and(|known| known.split(',').map(str::trim).any(is_same)),
        None => headers.get(IF_MODIFIED_SINCE).is_some_and(|known| known.as_bytes() == modified.as_bytes()),
    }
}
