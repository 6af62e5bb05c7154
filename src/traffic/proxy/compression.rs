//! Compresses answers as they pass (RFC 9110, 8.4 and 12.5.3).
//!
//! Pingora's compression module is not used: it treats `gzip;q=0` as acceptable, has no minimum length, and does not
//! terminate Brotli streams (0.9.1 flushes the encoder but never finishes it).

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    TRANSFER_ENCODING, VARY,
};
use http::{HeaderMap, Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};

use crate::config::{Coding, Compression};

/// The encoder of one answer. It writes into a `Vec`, which is emptied after every piece.
pub enum Encoder {
    /// RFC 8878.
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    /// RFC 7932.
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    /// RFC 1952.
    Gzip(GzEncoder<Vec<u8>>),
    /// The encoder is finished.
    Finished,
}

/// Brotli window as a power of 2: 512 KiB, which a browser must keep in memory.
const BROTLI_WINDOW: u32 = 19;
/// Size of Brotli's internal buffer in bytes.
const BROTLI_BUFFER: usize = 4096;

impl Encoder {
    /// Decides whether to compress the answer with this head, and changes the head accordingly.
    ///
    /// # Errors
    ///
    /// If the header takes no more fields, or there is no memory for an encoder.
    pub fn begin(settings: &Compression, request: &RequestHeader, answer: &mut ResponseHeader) -> Result<Option<Self>> {
        if !may_be_smaller(settings, request, answer) {
            return Ok(None);
        }
        // Needed even if this answer is not compressed: another client may get a compressed one.
        if !has_word(&answer.headers, VARY.as_str(), "accept-encoding") {
            answer.append_header(VARY, "Accept-Encoding")?;
        }
        let Some((coding, level)) = chosen(&settings.codings, &request.headers) else {
            return Ok(None);
        };
        let (encoder, name) = Self::new(coding, level).map_err(fault)?;
        answer.remove_header(&CONTENT_LENGTH);
        // Ranges are not possible in a body that is compressed again for each request.
        answer.remove_header(&ACCEPT_RANGES);
        answer.insert_header(CONTENT_ENCODING, name)?;
        answer.insert_header(TRANSFER_ENCODING, "chunked")?;
        // Semantically equal, but not byte for byte (RFC 9110, 8.8.1).
        if let Some(tag) = answer.headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")).cloned() {
            answer.insert_header(ETAG, [b"W/", tag.as_bytes()].concat())?;
        }
        Ok(Some(encoder))
    }

    fn new(coding: Coding, level: u32) -> io::Result<(Self, &'static str)> {
        Ok(match coding {
            // The configuration allows only small levels.
            Coding::Zstd => (Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), level as i32)?), "zstd"),
            Coding::Brotli => {
                let encoder = brotli::CompressorWriter::new(Vec::new(), BROTLI_BUFFER, level, BROTLI_WINDOW);
                (Self::Brotli(Box::new(encoder)), "br")
            }
            Coding::Gzip => (Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(level))), "gzip"),
        })
    }

    /// Encodes the next piece of the answer and returns the bytes to send; `end` is set with or after the last piece.
    ///
    /// # Errors
    ///
    /// If the encoder fails; the answer sent so far is then incomplete.
    pub fn encode(&mut self, piece: Option<&Bytes>, end: bool) -> Result<Option<Bytes>> {
        let piece = piece.map_or(&[][..], |piece| piece);
        let sent = self.write(piece, end).map_err(fault)?;
        // An empty chunk would end the body.
        Ok((!sent.is_empty()).then(|| sent.into()))
    }

    fn write(&mut self, piece: &[u8], end: bool) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd(encoder) => encoder.write_all(piece)?,
            Self::Brotli(encoder) => encoder.write_all(piece)?,
            Self::Gzip(encoder) => encoder.write_all(piece)?,
            Self::Finished => return Ok(Vec::new()),
        }
        if end {
            return match std::mem::replace(self, Self::Finished) {
                Self::Zstd(encoder) => encoder.finish(),
                Self::Brotli(encoder) => Ok(encoder.into_inner()),
                Self::Gzip(encoder) => encoder.finish(),
                Self::Finished => Ok(Vec::new()),
            };
        }
        Ok(match self {
            Self::Zstd(encoder) => std::mem::take(encoder.get_mut()),
            Self::Brotli(encoder) => std::mem::take(encoder.get_mut()),
            Self::Gzip(encoder) => std::mem::take(encoder.get_mut()),
            Self::Finished => Vec::new(),
        })
    }
}

fn fault(error: io::Error) -> Box<Error> {
    Error::because(ErrorType::InternalError, "an answer cannot be compressed", error)
}

fn may_be_smaller(settings: &Compression, request: &RequestHeader, answer: &ResponseHeader) -> bool {
    let has_body = request.method != Method::HEAD
        && !answer.status.is_informational()
        && !matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT);
    let length = answer.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    has_body
        // An HTTP/1.0 client could not detect the end of the answer; see nginx's `gzip_http_version`.
        && request.version >= Version::HTTP_11
        && length.is_none_or(|length| length >= settings.min_length)
        && !answer.headers.contains_key(CONTENT_ENCODING)
        && !answer.headers.contains_key(CONTENT_RANGE)
        && !has_word(&answer.headers, CACHE_CONTROL.as_str(), "no-transform")
        && media_type(&answer.headers).is_some_and(|name| settings.types.iter().any(|kind| is_of_kind(name, kind)))
}

/// Whether a list in a header contains this token.
fn has_word(headers: &HeaderMap, name: &str, word: &str) -> bool {
    words(headers, name).any(|given| given.eq_ignore_ascii_case(word))
}

fn words<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    Some(headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim())
}

fn is_of_kind(name: &str, kind: &str) -> bool {
    match kind.strip_suffix('*') {
        Some(prefix) => name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix)),
        None => name.eq_ignore_ascii_case(kind),
    }
}

/// The coding with the client's highest weight, the first of `codings` on a tie. None if the client prefers identity.
fn chosen(codings: &[(Coding, u32)], headers: &HeaderMap) -> Option<(Coding, u32)> {
    let wishes = |names: &[&str]| {
        let found = |name: &&str| words(headers, ACCEPT_ENCODING.as_str()).find_map(|wish| quality(wish, name));
        names.iter().find_map(found)
    };
    let plain = wishes(&["identity"]).unwrap_or(0);
    let mut best = None;
    for (coding, level) in codings {
        let quality = match coding {
            Coding::Zstd => wishes(&["zstd", "*"]),
            Coding::Brotli => wishes(&["br", "*"]),
            // `x-gzip` is an alias (RFC 9110, 8.4.1.3).
            Coding::Gzip => wishes(&["gzip", "x-gzip", "*"]),
        };
        let quality = quality.unwrap_or(0);
        if quality > 0 && quality >= plain && best.is_none_or(|(most, _)| quality > most) {
            best = Some((quality, (*coding, *level)));
        }
    }
    best.map(|(_, chosen)| chosen)
}

/// The weight in thousandths, if the element is for `name`. An invalid weight counts as 0, because an uncompressed
/// answer is always acceptable.
fn quality(wish: &str, name: &str) -> Option<u32> {
    let mut parts = wish.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(name) {
        return None;
    }
    let Some((key, weight)) = parts.next().map(|part| part.split_once('=').unwrap_or((part, ""))) else {
        return Some(1000);
    };
    let weight = weight.trim().parse::<f32>().ok().filter(|_| key.trim().eq_ignore_ascii_case("q"));
    Some(weight.filter(|weight| (0.0..=1.0).contains(weight)).map_or(0, |weight| (weight * 1000.0).round() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(Coding, u32); 3] = [(Coding::Zstd, 3), (Coding::Brotli, 4), (Coding::Gzip, 5)];

    fn settings() -> Compression {
        Compression { codings: ALL.to_vec(), min_length: 100, types: vec!["text/*".into(), "application/json".into()] }
    }

    fn request(method: &str, accept: &str) -> RequestHeader {
        let mut request = RequestHeader::build(method, b"/", None).expect("a request");
        request.insert_header(ACCEPT_ENCODING, accept).expect("a header");
        request
    }

    fn answer(fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut answer = ResponseHeader::build(200, None).expect("an answer");
        for (name, value) in fields {
            answer.append_header(*name, *value).expect("a header");
        }
        answer
    }

    #[test]
    fn the_client_chooses_and_then_we_do() {
        let table = [
            ("", None),
            ("identity", None),
            ("gzip", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, br", Some(Coding::Brotli)),
            ("gzip;q=1.0, br;q=0.9", Some(Coding::Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=0, *", Some(Coding::Zstd)),
            ("*;q=0", None),
            ("*", Some(Coding::Zstd)),
            ("br;q=0.001", Some(Coding::Brotli)),
            ("br;q=0.5, identity", None),
            ("br;q=nonsense", None),
            ("br;q=2", None),
            ("br;q=-1", None),
            ("br;q=NaN", None),
            ("br;level=4", None),
            (";;,,;q", None),
        ];
        for (accept, expected) in table {
            let chosen = chosen(&ALL, &request("GET", accept).headers).map(|(coding, _)| coding);
            assert_eq!(chosen, expected, "{accept:?}");
        }
        assert_eq!(chosen(&ALL, &HeaderMap::new()), None);
    }

    #[test]
    fn only_what_gains_by_it_is_compressed() {
        let begins = |method: &str, fields: &[(&'static str, &str)]| {
            let mut answer = answer(fields);
            let begun = Encoder::begin(&settings(), &request(method, "gzip"), &mut answer).expect("no fault");
            assert_eq!(answer.headers.contains_key(TRANSFER_ENCODING), begun.is_some());
            begun.is_some()
        };
        let html = ("Content-Type", "Text/HTML; charset=utf-8");
        assert!(begins("GET", &[html]));
        assert!(begins("GET", &[html, ("Content-Length", "100")]));
        assert!(!begins("GET", &[html, ("Content-Length", "99")]));
        assert!(!begins("HEAD", &[html]));
        assert!(!begins("GET", &[("Content-Type", "image/png")]));
        assert!(!begins("GET", &[]));
        assert!(!begins("GET", &[html, ("Content-Encoding", "br")]));
        assert!(!begins("GET", &[html, ("Content-Range", "bytes 0-1/2")]));
        assert!(!begins("GET", &[html, ("Cache-Control", "public, No-Transform")]));
    }

    #[test]
    fn the_header_says_what_was_done() {
        let fields = [
            ("Content-Type", "application/json"),
            ("Content-Length", "1000"),
            ("Accept-Ranges", "bytes"),
            ("ETag", "\"a\""),
            ("Vary", "Origin"),
        ];
        let mut compressed = answer(&fields);
        let mut encoder =
            Encoder::begin(&settings(), &request("GET", "br"), &mut compressed).expect("no fault").expect("one");
        let get = |name: &str| compressed.headers.get(name).map(|value| value.to_str().expect("text"));
        assert_eq!((get("content-length"), get("accept-ranges")), (None, None));
        assert_eq!((get("content-encoding"), get("transfer-encoding")), (Some("br"), Some("chunked")));
        assert_eq!(get("etag"), Some("W/\"a\""));
        assert_eq!(words(&compressed.headers, "vary").collect::<Vec<_>>(), ["Origin", "Accept-Encoding"]);
        let sent = encoder.encode(Some(&Bytes::from(vec![b'a'; 1000])), true).expect("no fault").expect("bytes");
        assert!(sent.len() < 100, "{}", sent.len());

        // A client that accepts no coding gets an uncompressed answer, with `Vary` for caches.
        let mut plain = answer(&fields);
        assert!(Encoder::begin(&settings(), &request("GET", ""), &mut plain).expect("no fault").is_none());
        assert_eq!(plain.headers.get("content-length").map(|value| value.as_bytes()), Some(&b"1000"[..]));
        assert_eq!(words(&plain.headers, "vary").collect::<Vec<_>>(), ["Origin", "Accept-Encoding"]);
    }
}
