//! `access_log`, `error_log` and `request_id`.

use super::*;
use crate::config::Field;

#[test]
fn logs_are_read() {
    let all = read(
        "{sales: {t: }, request_id: X-Request-ID, error_log: {path: /var/log/e.log, level: warn},
          access_log: {path: stdout, format: json, fields: [status, request_id, time], refusals: 1}}",
    );
    let fields = vec![Field::Status, Field::RequestId, Field::Time];
    let (place, format) = (LogDestination::Stdout, LogFormat::Json(fields));
    assert_eq!(all.access_log, Some(AccessLog { place, format, refusals: 1.0 }));
    let place = LogDestination::File("/var/log/e.log".into());
    assert_eq!(all.error_log, ErrorLog { place, level: log::LevelFilter::Warn });
    assert_eq!(all.request_id.map(|header| header.sent).as_deref(), Some("X-Request-ID"));

    let least = read("{sales: {t: }, access_log: {path: /var/log/a.log}}");
    let place = LogDestination::File("/var/log/a.log".into());
    assert_eq!(least.access_log, Some(AccessLog { place, format: LogFormat::Combined, refusals: 0.01 }));
    let usual = read("{sales: {t: }, access_log: {path: stderr, format: json}}").access_log;
    let format = LogFormat::Json(Field::USUAL.to_vec());
    assert_eq!(usual, Some(AccessLog { place: LogDestination::Stderr, format, refusals: 0.01 }));
}

#[test]
fn logs_that_are_wrong() {
    each(
        TOP,
        &[
            ("access_log: {}", "access_log.path: is missing"),
            ("access_log: {path: 7}", "access_log.path: must be the path of a file or folder, is 7"),
            (
                "access_log: {path: a, format: apache}",
                "access_log.format: must be one of combined, json, is \"apache\"",
            ),
            (
                "access_log: {path: a, fields: [time]}",
                "access_log.fields: means nothing without `format: json`; the others have fields of their own",
            ),
            (
                "access_log: {path: a, format: json, fields: [time, request_id]}",
                "access_log.fields: has request_id, and no request has an id unless `request_id` names a header for it",
            ),
            ("access_log: {path: a, format: json, fields: [time, bytes, time]}", "access_log.fields: has time twice"),
            ("access_log: {path: a, format: json, fields: []}", "access_log.fields: must have at least one entry"),
            ("access_log: {path: a, refusals: 1.5}", "access_log.refusals: must be 0 to 1, is 1.5"),
            ("error_log: {level: loud}", "error_log.level: must be one of error, warn, info, debug, is \"loud\""),
            ("request_id: a b", "request_id: is not the name of a header"),
            ("request_id: Date", "request_id: must be a header that means nothing else, is \"Date\""),
            ("request_id: Content-Length", "request_id: says how a message is sent, and is the connection's own"),
            ("access_log: {path: a}, error_log: {path: a}", "access_log.path: is also the file of error_log.path"),
        ],
    );
    let errors = Config::from_yaml("{sales: {t: }, access_log: {path: a, format: json, fields: [stauts]}}");
    let text = errors.expect_err("it is wrong").to_string();
    assert!(text.starts_with("access_log.fields[0]: must be one of time, client, "), "{text}");
    assert!(text.ends_with("is \"stauts\"; did you mean `status`?"), "{text}");
    check(
        "{sales: {t: {stat_log: l}}, error_log: {path: l}}",
        &["error_log.path: is also the file of sales.t.stat_log"],
    );
}
