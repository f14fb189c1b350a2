//! The end of an answer, and the statuses of failures.

use super::*;
use crate::prometheus::PeerError;
use crate::query::RewriteError;

fn ended(trailer: &Trailer) -> Vec<Message> {
    let messages = ending(trailer).unwrap();
    messages.map(|message| message.result.unwrap()).collect()
}

fn stats(samples_total: i64, peak_samples: i64) -> Message {
    Message::Stats(QueryStats {
        samples_total,
        peak_samples,
    })
}

#[test]
fn warnings_and_infos_come_in_one_message_before_the_statistics() {
    let json = br#"{"timings":{"evalTotalTime":0.1},
        "samples":{"totalQueryableSamples":12,"peakSamples":3}}"#;
    let mut trailer = Trailer {
        stats: Some(json.as_slice().into()),
        warnings: vec!["a".to_owned(), "b".to_owned()],
        infos: vec!["c".to_owned()],
    };
    let told = Message::Warnings("a, b, c".to_owned());
    assert_eq!(ended(&trailer), [told, stats(12, 3)]);
    trailer.warnings.clear();
    trailer.infos.clear();
    assert_eq!(ended(&trailer), [stats(12, 3)]);
}

#[test]
fn statistics_are_sent_also_where_there_are_none() {
    assert_eq!(ended(&Trailer::default()), [stats(0, 0)]);
    for (json, expected) in [
        ("{}", stats(0, 0)),
        (r#"{"samples":{"peakSamples":1}}"#, stats(0, 1)),
    ] {
        let trailer = Trailer {
            stats: Some(json.into()),
            ..Trailer::default()
        };
        assert_eq!(ended(&trailer), [expected], "{json}");
    }
    let trailer = Trailer {
        stats: Some("[".into()),
        ..Trailer::default()
    };
    assert_eq!(ending(&trailer).err().unwrap().code, Code::Internal);
}

fn refused(status: u16, error_type: &str) -> QueryError {
    QueryError::Refused {
        status: StatusCode::from_u16(status).unwrap(),
        error_type: error_type.to_owned(),
        message: "its words".to_owned(),
    }
}

#[test]
fn every_failure_has_its_code() {
    let peer = |status| PeerError::Status {
        url: "http://p/api".to_owned(),
        status: StatusCode::from_u16(status).unwrap(),
        message: String::new(),
        body: String::new(),
        starting: false,
    };
    let after = std::time::Duration::from_secs(1);
    for (error, code) in [
        (refused(422, "execution"), Code::Aborted),
        (refused(400, "bad_data"), Code::InvalidArgument),
        (refused(503, "timeout"), Code::DeadlineExceeded),
        (refused(499, "canceled"), Code::Unavailable),
        (refused(503, "canceled"), Code::Unavailable),
        (refused(503, "unavailable"), Code::Unavailable),
        (refused(404, "not_found"), Code::NotFound),
        (refused(500, "internal"), Code::Internal),
        (refused(429, "too_many"), Code::ResourceExhausted),
        (
            RewriteError::Syntax("no".to_owned()).into(),
            Code::InvalidArgument,
        ),
        (
            RewriteError::Unsupported {
                what: "x".to_owned(),
            }
            .into(),
            Code::Aborted,
        ),
        (
            QueryError::Parameter("bad".to_owned()),
            Code::InvalidArgument,
        ),
        (
            QueryError::Unavailable("full".to_owned()),
            Code::Unavailable,
        ),
        (
            QueryError::Unsupported {
                what: "x".to_owned(),
            },
            Code::Aborted,
        ),
        (QueryError::TimedOut, Code::DeadlineExceeded),
        (peer(503).into(), Code::Unavailable),
        (peer(500).into(), Code::Internal),
        (PeerError::TimedOut { after }.into(), Code::Unavailable),
    ] {
        let shown = format!("{error:?}");
        let status = query_status(error);
        assert_eq!(status.code, code, "{shown}");
    }
    assert_eq!(query_status(refused(422, "execution")).message, "its words");
    let unsupported = RewriteError::Unsupported {
        what: "info()".to_owned(),
    };
    assert_eq!(
        query_status(unsupported.into()).message,
        "unsupported info()"
    );
}
