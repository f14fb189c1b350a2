//! Request logging: a line for each call that somebody asked to see, at its start and its end.
//!
//! Unlike the log of failures it leaves out none of them, since whoever turned it on wants them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::call::CallHead;
use super::status::{Code, Status};

/// Most bytes of a caller's request id that are logged.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Which calls are told in the log.
#[derive(Clone, Debug, Default)]
pub enum RequestLog {
    /// None.
    #[default]
    Off,
    /// Those that the rules name.
    On(Arc<RequestLogRules>),
}

/// What to tell.
pub struct RequestLogRules {
    /// Whether the start of a call is told beside its end.
    pub start: bool,
    /// Calls that ended less badly are not told.
    pub severity_min: CallSeverity,
    /// `/service/method` of those to tell; empty for all.
    pub methods: Vec<String>,
    /// Makes the id of a call whose client gave none.
    pub new_id: Box<dyn Fn() -> String + Send + Sync>,
}

/// How bad the end of a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallSeverity {
    /// Nothing is less.
    Debug,
    /// It went well, or the client asked for what can't be.
    Info,
    /// It may go better another time, or for another client.
    Warning,
    /// Something is wrong on this side.
    Error,
}

/// A call that the rules name.
pub(super) struct LoggedCall<'a> {
    rules: &'a RequestLogRules,
    request_id: String,
    trace_id: Option<&'a str>,
}

// === impl RequestLog ===

impl RequestLog {
    /// Tells the start, if that is wanted; `None` where the end is not to be told.
    /// `trace_id` stands in both lines.
    pub(super) fn start<'a>(
        &'a self,
        head: &CallHead,
        trace_id: Option<&'a str>,
    ) -> Option<LoggedCall<'a>> {
        let Self::On(rules) = self else {
            return None;
        };
        let method = format!("/{}/{}", head.method.service, head.method.name);
        if !rules.methods.is_empty() && !rules.methods.contains(&method) {
            return None;
        }
        let request_id = match head.request_id() {
            Some(id) => shortened(id).to_owned(),
            None => (rules.new_id)(),
        };
        // Nothing has gone wrong yet.
        if rules.start && rules.severity_min <= CallSeverity::Info {
            let (kind, peer) = (head.method.kind.name(), head.peer);
            tracing::debug!(
                method, kind, request_id, traceID = trace_id, %peer, "started call"
            );
        }
        Some(LoggedCall {
            rules,
            request_id,
            trace_id,
        })
    }
}

/// A caller's id as it is logged: its metadata may be as long as all headers together.
fn shortened(id: &str) -> &str {
    id.get(..id.floor_char_boundary(REQUEST_ID_BYTES_MAX))
        .unwrap_or(id)
}

impl LoggedCall<'_> {
    /// Tells the end; false where it is not bad enough.
    pub(super) fn finish(self, head: &CallHead, status: &Status, duration: Duration) -> bool {
        let Self {
            rules,
            request_id,
            trace_id,
        } = self;
        let severity = CallSeverity::of(status.code);
        if severity < rules.severity_min {
            return false;
        }
        let method = format_args!("/{}/{}", head.method.service, head.method.name);
        let (kind, peer) = (head.method.kind.name(), head.peer);
        let (code, err) = (status.code.name(), &status.message);
        if severity == CallSeverity::Error {
            tracing::error!(
                %method, kind, code, ?duration, request_id, traceID = trace_id, %peer, %err,
                "finished call"
            );
        } else if status.code == Code::Ok {
            tracing::debug!(
                %method, kind, code, ?duration, request_id, traceID = trace_id, %peer,
                "finished call"
            );
        } else {
            tracing::debug!(
                %method, kind, code, ?duration, request_id, traceID = trace_id, %peer, %err,
                "finished call"
            );
        }
        true
    }
}

// === impl CallSeverity ===

impl CallSeverity {
    /// As Go's middleware ranks the codes.
    pub const fn of(code: Code) -> Self {
        match code {
            Code::Ok
            | Code::Canceled
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Unauthenticated => Self::Info,
            Code::DeadlineExceeded
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable => Self::Warning,
            Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => Self::Error,
        }
    }
}

impl fmt::Debug for RequestLogRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestLogRules")
            .field("start", &self.start)
            .field("severity_min", &self.severity_min)
            .field("methods", &self.methods)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::net::grpc::{Method, MethodKind};

    fn head(name: &'static str) -> CallHead {
        CallHead {
            method: Method {
                service: "t.Trial",
                name,
                kind: MethodKind::Unary,
            },
            metadata: HeaderMap::new(),
            peer: std::net::SocketAddr::from(([127, 0, 0, 1], 1)),
            deadline: None,
            request_id: None,
        }
    }

    fn log(severity_min: CallSeverity, methods: &[&str]) -> RequestLog {
        RequestLog::On(Arc::new(RequestLogRules {
            start: true,
            severity_min,
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            new_id: Box::new(|| "made".to_owned()),
        }))
    }

    #[test]
    fn ends_are_told_from_the_severity_on() {
        use CallSeverity::{Debug, Error, Info, Warning};
        for (severity_min, told) in [
            (Debug, [true; 3]),
            (Info, [true; 3]),
            (Warning, [false, true, true]),
            (Error, [false, false, true]),
        ] {
            let log = log(severity_min, &[]);
            let codes = [Code::Ok, Code::Unavailable, Code::Internal];
            for (code, is_told) in codes.into_iter().zip(told) {
                let (head, status) = (head("One"), Status::new(code, "why"));
                let logged = log.start(&head, None).unwrap();
                assert_eq!(logged.request_id, "made");
                let found = logged.finish(&head, &status, Duration::ZERO);
                assert_eq!(found, is_told, "{severity_min:?} {code}");
            }
        }
    }

    #[test]
    fn only_the_named_methods_are_told() {
        assert!(RequestLog::Off.start(&head("One"), None).is_none());
        let log = log(CallSeverity::Info, &["/t.Trial/One"]);
        assert!(log.start(&head("One"), None).is_some());
        assert!(log.start(&head("Other"), None).is_none());
        let named = CallHead {
            request_id: Some("given".to_owned()),
            ..head("One")
        };
        assert_eq!(log.start(&named, None).unwrap().request_id, "given");
    }

    #[test]
    fn codes_rank_as_in_gos_middleware() {
        let of = |severity| {
            Code::ALL
                .into_iter()
                .filter(move |code| CallSeverity::of(*code) == severity)
        };
        let errors: Vec<Code> = of(CallSeverity::Error).collect();
        let expected = [
            Code::Unknown,
            Code::Unimplemented,
            Code::Internal,
            Code::DataLoss,
        ];
        assert_eq!(errors, expected);
        assert_eq!(of(CallSeverity::Info).count(), 6);
        assert_eq!(of(CallSeverity::Warning).count(), 7);
    }
}
