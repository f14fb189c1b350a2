//! Prometheus' query API over connections that are kept, and its answers in a form that can be
//! compared.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A series' labels by name.
pub(super) type LabelSet = BTreeMap<String, String>;

/// When an expression is evaluated: the parameters beside `query`.
#[derive(Clone, Debug)]
pub(super) enum When {
    At(String),
    Over {
        start: String,
        end: String,
        step: String,
    },
}

impl When {
    fn path(&self) -> &'static str {
        match self {
            Self::At(_) => "/api/v1/query",
            Self::Over { .. } => "/api/v1/query_range",
        }
    }

    fn parameters(&self) -> Vec<(&str, &str)> {
        match self {
            Self::At(time) => vec![("time", time)],
            Self::Over { start, end, step } => {
                vec![("start", start), ("end", end), ("step", step)]
            }
        }
    }
}

/// One connection to one server.
pub(super) struct Api {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Api {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
        }
    }

    pub(super) fn query(&mut self, when: &When, query: &str, more: &[(&str, &str)]) -> Answer {
        let mut form = when.parameters();
        form.push(("query", query));
        form.extend(more);
        let (status, body) = self.post(when.path(), &form);
        Answer::read(status, &body)
    }

    /// Status and body of a form that is posted. A connection that was closed while idle is made
    /// anew, once.
    pub(super) fn post(&mut self, path: &str, form: &[(&str, &str)]) -> (u16, Vec<u8>) {
        if let Some(mut stream) = self.stream.take()
            && let Ok(answer) = exchange(&mut stream, self.address, path, form)
        {
            self.stream = Some(stream);
            return answer;
        }
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut stream = BufReader::new(stream);
        let answer = exchange(&mut stream, self.address, path, form).unwrap();
        self.stream = Some(stream);
        answer
    }
}

fn exchange(
    stream: &mut BufReader<TcpStream>,
    address: SocketAddr,
    path: &str,
    form: &[(&str, &str)],
) -> io::Result<(u16, Vec<u8>)> {
    let pairs = form
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
    let body = pairs.collect::<Vec<_>>().join("&");
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.get_mut().write_all(request.as_bytes())?;
    let head = read_head(stream)?;
    let status = head[0].split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no status"))?;
    let value = |name: &str| {
        head.iter().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    if let Some(length) = value("content-length") {
        let mut body = vec![0; length.parse().map_err(io::Error::other)?];
        stream.read_exact(&mut body)?;
        return Ok((status, body));
    }
    assert_eq!(value("transfer-encoding"), Some("chunked"), "{head:?}");
    Ok((status, read_chunks(stream)?))
}

fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() && !lines.is_empty() {
            return Ok(lines);
        }
        lines.push(line);
    }
}

fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn read_chunks(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = read_line(stream)?;
        let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
        let start = body.len();
        body.resize(start + size, 0);
        stream.read_exact(&mut body[start..])?;
        read_line(stream)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").unwrap();
        }
    }
    escaped
}

/// What the query API answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// `resultType`, or how it failed.
    pub(super) kind: Result<String, Failure>,
    /// In the order of the answer.
    pub(super) elements: Vec<Element>,
    pub(super) warnings: Vec<String>,
    pub(super) infos: Vec<String>,
}

/// An error of the query API.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) status: u16,
    /// `errorType`
    pub(super) class: String,
    /// `error`
    pub(super) message: String,
}

/// One element of a result; a scalar or string is one without labels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Element {
    pub(super) labels: LabelSet,
    pub(super) samples: Value,
}

impl Answer {
    fn read(status: u16, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)));
        let texts = |name: &str| {
            let texts = body[name].as_array().into_iter().flatten();
            texts.map(|t| t.as_str().unwrap().to_owned()).collect()
        };
        let (kind, elements) = if body["status"] == "success" {
            let kind = body["data"]["resultType"].as_str().unwrap();
            (Ok(kind.to_owned()), elements(&body["data"]["result"], kind))
        } else {
            let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
            let (class, message) = (text("errorType"), text("error"));
            let failure = Failure {
                status,
                class,
                message,
            };
            (Err(failure), Vec::new())
        };
        Self {
            kind,
            elements,
            warnings: texts("warnings"),
            infos: texts("infos"),
        }
    }

    /// Puts on the labels that an answer still has to get; none of them may be there.
    pub(super) fn with_labels(mut self, added: &[(String, String)]) -> Self {
        let has_labels = self
            .kind
            .as_ref()
            .is_ok_and(|kind| kind != "scalar" && kind != "string");
        for element in self.elements.iter_mut().filter(|_| has_labels) {
            for (name, value) in added {
                let previous = element.labels.insert(name.clone(), value.clone());
                assert_eq!(previous, None, "{name} is there already: {added:?}");
            }
        }
        self
    }
}

fn elements(result: &Value, kind: &str) -> Vec<Element> {
    if kind == "scalar" || kind == "string" {
        return vec![Element {
            labels: LabelSet::new(),
            samples: result.clone(),
        }];
    }
    let elements = result.as_array().unwrap().iter().map(|element| {
        let mut samples = element.as_object().unwrap().clone();
        let metric = samples.remove("metric").unwrap();
        let labels = metric.as_object().unwrap().iter();
        let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        Element {
            labels: labels.collect(),
            samples: Value::Object(samples),
        }
    });
    elements.collect()
}
