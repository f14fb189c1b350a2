//! `/metrics` in the two formats scrapers ask for.
//!
//! The metrics crate writes OpenMetrics 1.0. What goes out differs from that in both formats where
//! the reference's does: help texts are as they were registered (the crate adds a full stop to
//! each), and bucket bounds are written as Go writes floats, since `le` is part of a series'
//! identity. The older text format is made from the same lines. A collector must end its help
//! texts with a full stop too, which is taken away again.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use bytes::Bytes;
use prometheus_client::registry::Registry;

/// A sidecar has a few hundred series; past this something is broken, and memory matters more.
const EXPOSITION_BYTES_MAX: usize = 16 << 20;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Text,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics1,
    /// The same lines under the draft's version, for scrapers that only know that one.
    OpenMetrics001,
}

/// A rendered exposition.
#[derive(Clone, Debug)]
pub struct Exposition {
    /// The lines.
    pub text: String,
    /// For the header.
    pub content_type: &'static str,
}

/// Why there is no exposition.
#[derive(Debug, thiserror::Error)]
pub enum ExpositionError {
    /// A collector failed, or the text would be longer than any sane one.
    #[error("metrics can't be written, or are larger than {EXPOSITION_BYTES_MAX} bytes")]
    Encode(#[source] fmt::Error),
    /// Compression failed.
    #[error("compressing metrics")]
    Compress(#[source] std::io::Error),
}

// === impl Format ===

impl Format {
    /// The format that an `Accept` header prefers: by quality, wildcards last among equals, the
    /// text format where nothing fits.
    pub fn negotiated(accept: &str) -> Self {
        let mut clauses: Vec<Clause<'_>> = accept.split(',').filter_map(Clause::parse).collect();
        clauses.sort_by(|a, b| {
            let quality = b.quality.total_cmp(&a.quality);
            quality.then(a.is_wildcard().cmp(&b.is_wildcard()))
        });
        clauses
            .iter()
            .find_map(Clause::format)
            .unwrap_or(Self::Text)
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics1 => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::OpenMetrics001 => "application/openmetrics-text; version=0.0.1; charset=utf-8",
        }
    }
}

/// One element of an `Accept` header.
struct Clause<'a> {
    media_type: &'a str,
    version: Option<&'a str>,
    quality: f32,
}

impl<'a> Clause<'a> {
    /// `None` for what is not acceptable (quality 0) or not understood.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().filter(|media_type| !media_type.is_empty())?;
        let (mut version, mut quality) = (None, 1.0);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => version = Some(value),
                "q" => quality = value.parse().ok()?,
                _ => {}
            }
        }
        let acceptable = quality > 0.0 && quality <= 1.0;
        acceptable.then_some(Self {
            media_type,
            version,
            quality,
        })
    }

    fn is_wildcard(&self) -> bool {
        self.media_type.contains('*')
    }

    fn format(&self) -> Option<Format> {
        let media_type = self.media_type.to_ascii_lowercase();
        match (media_type.as_str(), self.version) {
            ("application/openmetrics-text", Some("1.0.0")) => Some(Format::OpenMetrics1),
            ("application/openmetrics-text", Some("0.0.1") | None) => Some(Format::OpenMetrics001),
            ("text/plain", Some("0.0.4") | None) | ("text/*" | "*/*", _) => Some(Format::Text),
            _ => None,
        }
    }
}

/// Whether an `Accept-Encoding` header allows gzip.
pub(super) fn accepts_gzip(accept_encoding: &str) -> bool {
    let clauses = accept_encoding.split(',').filter_map(Clause::parse);
    let mut allowed = clauses.filter(|clause| matches!(clause.media_type, "gzip" | "x-gzip" | "*"));
    let refused = accept_encoding
        .split(',')
        .any(|text| text.trim().starts_with("gzip") && Clause::parse(text).is_none());
    !refused && allowed.next().is_some()
}

/// The text as gzip.
pub(super) fn compressed(text: &str) -> Result<Bytes, ExpositionError> {
    let level = flate2::Compression::fast();
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(text.len() / 8), level);
    let written = encoder.write_all(text.as_bytes());
    let bytes = written.and_then(|()| encoder.finish());
    Ok(Bytes::from(bytes.map_err(ExpositionError::Compress)?))
}

/// All metrics of the registry.
///
/// # Errors
/// See [`ExpositionError`].
pub fn render(registry: &Registry, format: Format) -> Result<Exposition, ExpositionError> {
    let mut encoded = LimitedText::default();
    prometheus_client::encoding::text::encode(&mut encoded, registry)
        .map_err(ExpositionError::Encode)?;
    let mut writer = Writer::new(format, encoded.0.len());
    for line in encoded.0.lines() {
        writer.line(line).map_err(ExpositionError::Encode)?;
    }
    Ok(Exposition {
        text: writer.text,
        content_type: format.content_type(),
    })
}

/// A string that refuses to grow past the limit.
#[derive(Default)]
struct LimitedText(String);

impl fmt::Write for LimitedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > EXPOSITION_BYTES_MAX {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// Takes the encoder's lines one by one and writes them as the format wants them.
struct Writer<'a> {
    format: Format,
    text: String,
    /// Name and text of a HELP line: its name depends on the TYPE line that follows.
    help: Option<(&'a str, &'a str)>,
    is_histogram: bool,
}

impl<'a> Writer<'a> {
    fn new(format: Format, capacity: usize) -> Self {
        Self {
            format,
            text: String::with_capacity(capacity),
            help: None,
            is_histogram: false,
        }
    }

    fn line(&mut self, line: &'a str) -> fmt::Result {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            self.help = Some((name, help.strip_suffix('.').unwrap_or(help)));
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            return self.family(name, kind);
        }
        if line.starts_with('#') {
            // UNIT and EOF, which the older format does not know.
            return match self.format {
                Format::Text => Ok(()),
                Format::OpenMetrics1 | Format::OpenMetrics001 => writeln!(self.text, "{line}"),
            };
        }
        self.sample(line)
    }

    fn family(&mut self, name: &str, kind: &str) -> fmt::Result {
        self.is_histogram = kind == "histogram";
        let (suffix, kind) = match (self.format, kind) {
            (Format::Text, "counter") => ("_total", "counter"),
            (Format::Text, "info") => ("_info", "gauge"),
            (Format::Text, "unknown") => ("", "untyped"),
            (_, kind) => ("", kind),
        };
        if let Some((_, help)) = self.help.take() {
            writeln!(self.text, "# HELP {name}{suffix} {help}")?;
        }
        writeln!(self.text, "# TYPE {name}{suffix} {kind}")
    }

    fn sample(&mut self, line: &str) -> fmt::Result {
        let name_end = line.find(['{', ' ']).unwrap_or(line.len());
        let (name, rest) = line.split_at(name_end);
        let (labels, rest) = rest.split_at(labels_end(rest));
        let rest = rest.trim_start();
        let (value, exemplar) = match rest.split_once(' ') {
            Some((value, exemplar)) => (value, Some(exemplar)),
            None => (rest, None),
        };
        self.text.push_str(name);
        match self.is_histogram && name.ends_with("_bucket") {
            true => self.bucket_labels(labels),
            false => self.text.push_str(labels),
        }
        let value = match value {
            "inf" => "+Inf",
            "-inf" => "-Inf",
            value => value,
        };
        write!(self.text, " {value}")?;
        match (self.format, exemplar) {
            (Format::Text, _) | (_, None) => {}
            (_, Some(exemplar)) => write!(self.text, " {exemplar}")?,
        }
        self.text.push('\n');
        Ok(())
    }

    /// Writes the labels with the value of `le` as Go writes that float.
    fn bucket_labels(&mut self, labels: &str) {
        let openmetrics = self.format != Format::Text;
        let mut rest = labels;
        while let Some(start) = rest.find("=\"") {
            let (name, value) = rest.split_at(start + 2);
            let end = quoted_end(value);
            let (value, after) = value.split_at(end);
            self.text.push_str(name);
            let bound = name.trim_start_matches(['{', ',']) == "le=\"";
            match bound.then(|| value.parse::<f64>()) {
                Some(Ok(bound)) => self.text.push_str(&go_float(bound, openmetrics)),
                _ => self.text.push_str(value),
            }
            rest = after;
        }
        self.text.push_str(rest);
    }
}

/// Where the labels `{…}` at the start of `text` end; 0 where there are none.
fn labels_end(text: &str) -> usize {
    if !text.starts_with('{') {
        return 0;
    }
    let (mut in_quotes, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_quotes => escaped = true,
            b'"' => in_quotes = !in_quotes,
            b'}' if !in_quotes => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Where the quote is that ends the value at the start of `text`.
fn quoted_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at,
            _ => {}
        }
    }
    text.len()
}

/// Go's `%g` in its shortest form: with an exponent of at least two digits below 1e-4 and from 1e6
/// on. OpenMetrics wants a point or an exponent.
fn go_float(value: f64, openmetrics: bool) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    let plain = format!("{value}");
    match openmetrics && !plain.contains('.') {
        true => format!("{plain}.0"),
        false => plain,
    }
}

#[cfg(test)]
mod tests;
