//! Golden lines with a fixed clock, and that every line can be read back.

use std::error::Error;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::Value as Json;
use tracing::{Level, debug, error, error_span, info, info_span, warn};

use super::record::{Record, Value};
use super::*;

/// 2026-11-23T01:52:27.123456789Z.
const NOW_NS: i128 = 1_795_398_747_123_456_789;

/// What was written, one entry per write.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<Vec<u8>>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn config(level: LogLevel) -> Config {
    Config {
        level,
        format: LogFormat::Logfmt,
        name: String::new(),
    }
}

fn logged(config: &Config, format: LineFormat, clock: Clock, events: impl FnOnce()) -> Vec<String> {
    let written = Written::default();
    let dispatch = lines(config, format, clock, written.clone());
    dispatcher::with_default(&dispatch, events);
    let lines = written.0.lock().unwrap().clone();
    lines
        .into_iter()
        .map(|line| String::from_utf8(line).unwrap())
        .collect()
}

fn logfmt(events: impl FnOnce()) -> Vec<String> {
    logged(
        &config(LogLevel::Info),
        LineFormat::Logfmt,
        Clock::fixed(NOW_NS),
        events,
    )
}

/// The lines from their level on.
fn tails(lines: &[String]) -> Vec<&str> {
    let tails = lines.iter().map(|line| line.split_once(" level="));
    tails.map(|split| split.unwrap().1).collect()
}

fn json(events: impl FnOnce()) -> Vec<Json> {
    let lines = logged(
        &config(LogLevel::Info),
        LineFormat::Json,
        Clock::fixed(NOW_NS),
        events,
    );
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_line_has_the_references_keys_in_its_order() {
    let line = line!() + 2;
    let lines = logfmt(|| {
        info!(
            component = "shipper",
            size = 7_u64,
            ratio = 0.5,
            is_last = true,
            "upload done"
        );
    });
    let expected = format!(
        "ts=2026-11-23T01:52:27.123456789Z caller=tests.rs:{line} level=info component=shipper \
         msg=\"upload done\" size=7 ratio=0.5 is_last=true\n"
    );
    assert_eq!(lines, [expected]);
}

#[test]
fn a_line_without_a_message_has_no_msg() {
    let lines = logfmt(|| error!(err = "x", delta = -3));
    let (_, fields) = lines[0].split_once("level=").unwrap();
    assert_eq!(fields, "error err=x delta=-3\n");
}

#[test]
fn the_debug_name_is_on_every_line() {
    let named = Config {
        name: "my sidecar".to_owned(),
        ..config(LogLevel::Info)
    };
    let lines = logged(&named, LineFormat::Logfmt, Clock::fixed(0), || warn!("x"));
    assert!(
        lines[0].starts_with("ts=1970-01-01T00:00:00Z caller="),
        "{}",
        lines[0]
    );
    assert!(
        lines[0].ends_with(" level=warn name=\"my sidecar\" msg=x\n"),
        "{}",
        lines[0]
    );
}

#[test]
fn times_have_no_more_digits_than_they_need() {
    for (now_ns, ts) in [
        (0, "1970-01-01T00:00:00Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (-1_000_000_000, "1969-12-31T23:59:59Z"),
        (i128::MAX, "9999-12-30T22:00:00.999999999Z"),
        (i128::MIN, "-009999-01-02T01:59:59Z"),
    ] {
        let lines = logged(
            &config(LogLevel::Info),
            LineFormat::Logfmt,
            Clock::fixed(now_ns),
            || {
                info!("x");
            },
        );
        assert!(lines[0].starts_with(&format!("ts={ts} ")), "{}", lines[0]);
    }
}

#[test]
fn fields_of_spans_are_inherited_and_overridden() {
    let lines = logfmt(|| {
        let outer = info_span!("sync", component = "shipper", block = "A", attempt = 1);
        outer.in_scope(|| {
            let inner = info_span!("upload", attempt = 2, file = tracing::field::Empty);
            inner.record("file", "index");
            inner.in_scope(|| info!(block = "B", "uploading"));
            info!("scanned");
        });
    });
    assert_eq!(
        tails(&lines),
        [
            "info component=shipper attempt=2 file=index msg=uploading block=B\n",
            "info component=shipper block=A attempt=1 msg=scanned\n",
        ]
    );
}

#[test]
fn a_field_with_a_taken_name_is_kept_under_another() {
    let lines = logfmt(|| info!(level = 3, caller = "x", msg = "y", r#type = "S3", "text"));
    let (_, tail) = lines[0].split_once(" level=").unwrap();
    assert_eq!(tail, "info msg=text level_=3 caller_=x msg_=y type=S3\n");
    let objects = json(|| info!(level = 3, ts = "x", "text"));
    assert_eq!(objects[0]["level"], "info");
    assert_eq!(objects[0]["level_"], 3);
    assert_eq!(objects[0]["ts_"], "x");
}

#[test]
fn json_lines_have_typed_values() {
    let objects = json(|| {
        let span = info_span!("sync", component = "shipper", block = "A");
        span.in_scope(|| {
            warn!(
                size = u64::MAX,
                delta = -3,
                ratio = 0.25,
                odd = f64::NAN,
                is_last = false,
                err = "a\"b\n\u{1}é",
                "done"
            );
        });
    });
    let caller = objects[0]["caller"].as_str().unwrap().to_owned();
    assert!(caller.starts_with("tests.rs:"), "{caller}");
    let expected = serde_json::json!({
        "ts": "2026-11-23T01:52:27.123456789Z", "caller": caller, "level": "warn",
        "component": "shipper", "block": "A", "msg": "done", "size": u64::MAX, "delta": -3,
        "ratio": 0.25, "odd": "NaN", "is_last": false, "err": "a\"b\n\u{1}é",
    });
    assert_eq!(objects[0], expected);
    let keys: Vec<&String> = objects[0].as_object().unwrap().keys().collect();
    assert_eq!(keys[..5], ["ts", "caller", "level", "component", "block"]);
}

#[test]
fn an_error_recorded_as_such_is_told_with_its_causes() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot read meta.json")]
    struct Unreadable(#[source] io::Error);
    let error = Unreadable(io::Error::other("disk on fire"));
    let lines = logfmt(|| error!(err = &error as &(dyn Error + 'static), "block skipped"));
    let end = "msg=\"block skipped\" err=\"cannot read meta.json: disk on fire\"\n";
    assert!(lines[0].ends_with(end), "{}", lines[0]);
}

#[test]
fn levels_filter_ours_and_hush_libraries() {
    let levels = |level: LogLevel, ours: bool| {
        let lines = logged(&config(level), LineFormat::Logfmt, Clock::fixed(0), || {
            if ours {
                error!("e");
                warn!("w");
                info!("i");
                debug!("d");
                tracing::trace!("t");
            } else {
                error!(target: "h2::proto", "e");
                warn!(target: "rustls", "w");
                info!(target: "hyper_util::client", "i");
                debug!(target: "outrigger_fan", "d");
                tracing::trace!(target: "h2", "t");
            }
        });
        let letters = lines
            .iter()
            .map(|line| line.trim_end().rsplit('=').next().unwrap());
        letters.collect::<String>()
    };
    for (level, ours, libraries) in [
        (LogLevel::Error, "e", "e"),
        (LogLevel::Warn, "ew", "ew"),
        (LogLevel::Info, "ewi", "ew"),
        (LogLevel::Debug, "ewid", "ewid"),
    ] {
        assert_eq!(levels(level, true), ours, "{level:?}");
        assert_eq!(levels(level, false), libraries, "{level:?}");
    }
}

#[test]
fn a_block_is_named_even_if_only_errors_are_logged() {
    let lines = logged(
        &config(LogLevel::Error),
        LineFormat::Logfmt,
        Clock::fixed(0),
        || {
            let library = tracing::span!(target: "h2", Level::ERROR, "frame", stream = 1);
            let _library = library.enter();
            info_span!("upload", block = "A").in_scope(|| error!("failed"));
            error_span!("upload", block = "B").in_scope(|| error!("failed"));
        },
    );
    assert_eq!(
        tails(&lines),
        ["error block=A msg=failed\n", "error block=B msg=failed\n"]
    );
}

#[test]
fn a_line_is_one_write_whoever_writes() {
    let written = Written::default();
    let dispatch = lines(
        &config(LogLevel::Info),
        LineFormat::Logfmt,
        Clock::fixed(0),
        written.clone(),
    );
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dispatch = dispatch.clone();
            scope.spawn(move || {
                dispatcher::with_default(&dispatch, || {
                    for at in 0..100 {
                        info!(thread, at, "x y");
                    }
                });
            });
        }
    });
    let writes = written.0.lock().unwrap();
    assert_eq!(writes.len(), 400);
    for line in writes.iter() {
        assert_eq!(parse_logfmt(std::str::from_utf8(line).unwrap()).len(), 6);
    }
}

#[test]
fn a_writer_that_fails_does_not_end_the_process() {
    struct Gone;
    impl io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let dispatch = lines(
        &config(LogLevel::Info),
        LineFormat::Json,
        Clock::fixed(0),
        Gone,
    );
    let mut is_past = false;
    dispatcher::with_default(&dispatch, || {
        info!("into the void");
        is_past = true;
    });
    assert!(is_past);
}

#[test]
fn values_are_quoted_as_go_kit_does() {
    let table = include_str!("../../../tests/golden/logfmt_values.tsv");
    let rows: Vec<&str> = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert!(rows.len() > 30);
    for row in rows {
        let (value, pair) = row.split_once('\t').unwrap();
        let value: String = serde_json::from_str(value).unwrap();
        let pair: String = serde_json::from_str(pair).unwrap();
        assert_eq!(line_of(&[("k", value)]), format!("{pair}\n"), "{row}");
    }
}

fn line_of(pairs: &[(&str, String)]) -> String {
    let mut record = Record::default();
    for (key, value) in pairs {
        record.push_text(key, value.clone());
    }
    let mut line = String::new();
    logfmt::write_line(&record, &mut line);
    line
}

/// Reads a line back, by the rules of the format and nothing else.
fn parse_logfmt(line: &str) -> Vec<(String, String)> {
    let mut rest = line.strip_suffix('\n').unwrap();
    assert!(!rest.contains('\n'), "{line}");
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').unwrap();
        let (value, after) = if after.starts_with('"') {
            let mut strings = serde_json::Deserializer::from_str(after).into_iter::<String>();
            let value = strings.next().unwrap().unwrap();
            (value, &after[strings.byte_offset()..])
        } else {
            let end = after.find(' ').unwrap_or(after.len());
            (after[..end].to_owned(), &after[end..])
        };
        pairs.push((key.to_owned(), value));
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    pairs
}

proptest! {
    #[test]
    fn logfmt_reads_back(
        values in proptest::collection::vec("\\PC*|[\\x00-\\x7f]{0,12}|null", 1..6),
    ) {
        let keys = ["a", "b", "c", "d", "e"];
        let pairs: Vec<(&str, String)> = keys.into_iter().zip(values).collect();
        let read = parse_logfmt(&line_of(&pairs));
        let expected: Vec<(String, String)> =
            pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn json_reads_back(text in "\\PC*|[\\x00-\\x7f]{0,12}", number: i64, ratio in -1e9..1e9_f64) {
        let mut record = Record::default();
        record.push_text("text", text.clone());
        record.push("number", std::borrow::Cow::Owned(Value::Signed(number.into())));
        record.push("ratio", std::borrow::Cow::Owned(Value::Float(ratio)));
        let mut line = Vec::new();
        json::write_line(&record, &mut line);
        prop_assert_eq!(line.pop(), Some(b'\n'));
        prop_assert!(!line.contains(&b'\n'));
        let object: Json = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(object["text"].as_str(), Some(text.as_str()));
        prop_assert_eq!(object["number"].as_i64(), Some(number));
        let read = object["ratio"].as_f64().unwrap();
        prop_assert!((read - ratio).abs() <= ratio.abs() * 1e-15, "{} {}", read, ratio);
    }
}
