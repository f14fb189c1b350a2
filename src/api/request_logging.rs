//! The document of `--request.logging-config` (contract `cli.md` §3.7): which calls are logged.
//!
//! Strict. Its part about HTTP is read and has no effect, as in the reference's sidecar.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ulid::Ulid;

use super::grpc::is_served;
use crate::model::{Clock, DocumentError, Mapping, Scalar};
use crate::net::grpc::{CallSeverity, RequestLog, RequestLogRules};

const LEVELS: [(&str, CallSeverity); 4] = [
    ("DEBUG", CallSeverity::Debug),
    ("INFO", CallSeverity::Info),
    ("WARNING", CallSeverity::Warning),
    ("ERROR", CallSeverity::Error),
];

/// Why the document can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RequestLoggingError {
    /// Not YAML, an unknown key, or a value of the wrong kind.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A decision to log, and no level.
    #[error("level field is empty: `{key}` in line {line} has a decision and needs a level")]
    LevelEmpty {
        /// The options.
        key: String,
        /// Their line, from 1.
        line: u64,
    },
    /// A level of another name.
    #[error(
        "`{key}` in line {line}: the level is {given:?} and must be DEBUG, INFO, WARNING or ERROR"
    )]
    Level {
        /// The options.
        key: String,
        /// Their line, from 1.
        line: u64,
        /// As given.
        given: String,
    },
    /// The start alone.
    #[error(
        "log decision combination is not supported: `{key}` in line {line} has log_start without \
         log_end, which belongs to it"
    )]
    Decision {
        /// The options.
        key: String,
        /// Their line, from 1.
        line: u64,
    },
}

/// `options`, of all protocols or of one.
struct Options {
    key: String,
    line: u64,
    level: Option<Scalar>,
    start: bool,
    end: bool,
}

/// Reads the document, an empty one included; also returns what is odd about it and yet no error.
/// Calls whose clients gave no id get one with `clock`'s time in it.
///
/// # Errors
/// See [`RequestLoggingError`].
pub fn request_log(
    yaml: &str,
    clock: &Clock,
) -> Result<(RequestLog, Vec<String>), RequestLoggingError> {
    let mut warnings = Vec::new();
    let mut root = Mapping::parse(yaml)?;
    let overall = Options::parse("options", root.mapping("options")?)?;
    let http = root.mapping("http")?;
    if !http.is_empty() {
        warnings.push(format!(
            "`http` in line {} has no effect in the sidecar, only calls over gRPC are logged",
            http.line()
        ));
    }
    check_http(http)?;
    let mut grpc = root.mapping("grpc")?;
    let own = Options::parse("grpc.options", grpc.mapping("options")?)?;
    let methods = methods(grpc.mappings("config")?, &mut warnings)?;
    grpc.end()?;
    root.end()?;
    overall.check_level()?;
    own.check_level()?;
    let options = if own.is_empty() { overall } else { own };
    let Some(severity_min) = options.severity_min()? else {
        return Ok((RequestLog::Off, warnings));
    };
    if options.start && !options.end {
        let Options { key, line, .. } = options;
        return Err(RequestLoggingError::Decision { key, line });
    }
    if !options.end {
        return Ok((RequestLog::Off, warnings));
    }
    let rules = RequestLogRules {
        start: options.start,
        severity_min,
        methods,
        new_id: new_id(clock.clone()),
    };
    Ok((RequestLog::On(Arc::new(rules)), warnings))
}

// === impl Options ===

impl Options {
    fn parse(key: &str, mut mapping: Mapping<'_>) -> Result<Self, DocumentError> {
        let mut decision = mapping.mapping("decision")?;
        let options = Self {
            key: key.to_owned(),
            line: mapping.line(),
            level: mapping.scalar("level")?,
            start: decision.boolean("log_start")?.unwrap_or(false),
            end: decision.boolean("log_end")?.unwrap_or(false),
        };
        decision.end()?;
        mapping.end()?;
        Ok(options)
    }

    fn is_empty(&self) -> bool {
        self.level.is_none() && !self.start && !self.end
    }

    fn check_level(&self) -> Result<(), RequestLoggingError> {
        match self.level {
            None if self.start || self.end => Err(RequestLoggingError::LevelEmpty {
                key: self.key.clone(),
                line: self.line,
            }),
            _ => Ok(()),
        }
    }

    /// `None` without a level.
    fn severity_min(&self) -> Result<Option<CallSeverity>, RequestLoggingError> {
        let Some(level) = &self.level else {
            return Ok(None);
        };
        match LEVELS.iter().find(|(name, _)| *name == level.text) {
            Some((_, severity)) => Ok(Some(*severity)),
            None => Err(RequestLoggingError::Level {
                key: level.key.clone(),
                line: level.line,
                given: level.text.clone(),
            }),
        }
    }
}

fn check_http(mut http: Mapping<'_>) -> Result<(), DocumentError> {
    Options::parse("http.options", http.mapping("options")?)?;
    for mut entry in http.mappings("config")? {
        entry.scalar("path")?;
        entry.integer("port", "a port")?;
        entry.end()?;
    }
    http.end()
}

/// `grpc.config`: the methods that are logged.
fn methods(
    entries: Vec<Mapping<'_>>,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, DocumentError> {
    let mut methods = Vec::new();
    for mut entry in entries {
        let line = entry.line();
        let service = entry.text("service")?.unwrap_or_default();
        let name = entry.text("method")?.unwrap_or_default();
        entry.end()?;
        let path = format!("/{service}/{name}");
        if !is_served(&path) {
            warnings.push(format!(
                "`grpc.config` in line {line}: there is no method {path} here"
            ));
        }
        methods.push(path);
    }
    Ok(methods)
}

/// ULIDs: the time, and bits that nobody can foresee.
fn new_id(clock: Clock) -> Box<dyn Fn() -> String + Send + Sync> {
    let (state, count) = (RandomState::new(), AtomicU64::new(0));
    Box::new(move || {
        let ms = u64::try_from(clock.now().0).unwrap_or_default();
        let number = count.fetch_add(1, Ordering::Relaxed);
        let [high, low] = [(number, 0_u8), (number, 1)].map(|n| u128::from(state.hash_one(n)));
        Ulid::from_parts(ms, (high << 64) | low).to_string()
    })
}

#[cfg(test)]
mod tests;
