//! One JSON object per line, with the configured members.

use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, SystemTime};

use super::record::{CLIENT_LEFT, Record, header};
use super::{escape, stamp};
use crate::config::Field;

/// Writes those of `fields` that the request has, in order.
pub fn write(out: &mut Vec<u8>, fields: &[Field], record: &Record<'_>, now: SystemTime) {
    let mut object = Object { out, is_empty: true };
    fields.iter().for_each(|field| object.member(*field, record, now));
    let is_empty = object.is_empty;
    out.extend_from_slice(if is_empty { b"{}\n" } else { b"}\n" });
}

struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl Object<'_> {
    fn member(&mut self, field: Field, record: &Record<'_>, now: SystemTime) {
        let target = &record.target;
        let head = |name| header(record.head, name);
        let known = |bytes: &'_ [u8]| !bytes.is_empty();
        match field {
            Field::Time => {
                self.name(field);
                self.out.push(b'"');
                stamp::json(self.out, now);
                self.out.push(b'"');
            }
            Field::Client => self.plain(field, Some(record.client)),
            Field::Peer => self.plain(field, Some(record.peer)),
            Field::Method => self.text(field, Some(target.method).filter(|method| known(method))),
            Field::Path => self.text(field, Some(target.parts().0).filter(|path| known(path))),
            Field::Query => self.text(field, target.parts().1),
            Field::Target => self.text(field, Some(target.target).filter(|target| known(target))),
            Field::Protocol => self.plain(field, Some(target.protocol).filter(|protocol| !protocol.is_empty())),
            Field::Host => self.text(field, head("host")),
            Field::Referer => self.text(field, head("referer")),
            Field::UserAgent => self.text(field, head("user-agent")),
            Field::Tls => self.text(field, record.tls.map(str::as_bytes)),
            Field::Status => self.number(field, Some(record.status.unwrap_or(CLIENT_LEFT))),
            Field::Bytes => self.number(field, Some(record.bytes)),
            Field::Duration => self.seconds(field, Some(record.duration.unwrap_or_default())),
            Field::RequestId => self.plain(field, record.id),
            Field::Route => self.text(field, record.route.map(str::as_bytes)),
            Field::Upstream => self.text(field, record.upstream.map(str::as_bytes)),
            Field::Backend => self.plain(field, record.backend),
            Field::BackendDuration => self.seconds(field, record.backend_duration),
            Field::Tries => self.number(field, Some(record.tries).filter(|tries| *tries > 0)),
            Field::Sale => self.text(field, record.sale.map(str::as_bytes)),
            Field::Outcome => self.plain(field, record.outcome),
            Field::OrderId => self.plain(field, record.order),
        }
    }

    fn name(&mut self, field: Field) {
        self.out.extend_from_slice(if self.is_empty { b"{\"" } else { b",\"" });
        self.is_empty = false;
        self.out.extend_from_slice(field.name().as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, field: Field, value: Option<&[u8]>) {
        let Some(value) = value else { return };
        self.name(field);
        self.out.push(b'"');
        escape::json(self.out, value);
        self.out.push(b'"');
    }

    /// Text in which there is nothing to escape.
    fn plain(&mut self, field: Field, value: Option<impl Display>) {
        let Some(value) = value else { return };
        self.name(field);
        // Writing to a Vec does not fail.
        let _ = write!(self.out, "\"{value}\"");
    }

    fn number(&mut self, field: Field, value: Option<impl Display>) {
        let Some(value) = value else { return };
        self.name(field);
        let _ = write!(self.out, "{value}");
    }

    fn seconds(&mut self, field: Field, value: Option<Duration>) {
        let Some(value) = value else { return };
        self.name(field);
        let _ = write!(self.out, "{}.{:06}", value.as_secs(), value.subsec_micros());
    }
}
