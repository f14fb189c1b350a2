//! Clients that go away, and a Prometheus that does: in the middle of an answer.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Ask, TIMEOUT};
use crate::support::{Outrigger, Prometheus, Site, eventually, get};

const BEGIN: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                     Transfer-Encoding: chunked\r\n\r\n";
const HEAD: &str = "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[";

/// What becomes of a query.
#[derive(Clone, Copy, PartialEq)]
enum Evaluates {
    /// It is never answered.
    Never,
    /// With series without end.
    Endless,
    /// With some series, after which the connection is gone.
    BreaksOff,
}

/// A port that evaluates queries so, and hands everything else on.
struct Evaluator {
    address: SocketAddr,
    /// Queries whose connection is there.
    open: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
}

impl Evaluator {
    fn start(prometheus: SocketAddr, how: Evaluates) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (open, begun) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counts = (Arc::clone(&open), Arc::clone(&begun));
        // Ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (open, begun) = counts.clone();
                thread::spawn(move || {
                    let stream = stream.unwrap();
                    let Some(path) = request(&stream) else { return };
                    if !path.starts_with("/api/v1/query") {
                        return hand_on(stream, prometheus, &path);
                    }
                    begun.fetch_add(1, Ordering::SeqCst);
                    open.fetch_add(1, Ordering::SeqCst);
                    evaluate(stream, how);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            address,
            open,
            begun,
        }
    }

    fn wait_for_begin(&self) {
        eventually("the query has reached Prometheus", || {
            (self.begun.load(Ordering::SeqCst) > 0).then_some(())
        });
    }

    fn wait_for_end(&self) {
        eventually("the query is cancelled at Prometheus", || {
            (self.open.load(Ordering::SeqCst) == 0).then_some(())
        });
    }
}

/// The path of a request, which is read to the end of its body.
fn request(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let (mut path, mut length) = (None, 0_u64);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if path.is_none() {
            path = Some(line.split(' ').nth(1)?.to_owned());
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    path
}

fn hand_on(mut stream: TcpStream, prometheus: SocketAddr, path: &str) {
    let (status, body) = get(prometheus, path).unwrap();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\
         Content-Type: application/json\r\n\r\n",
        body.len()
    );
    // outrigger may have ended meanwhile.
    drop(stream.write_all(head.as_bytes()));
    drop(stream.write_all(body.as_bytes()));
}

fn evaluate(mut stream: TcpStream, how: Evaluates) {
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    if how == Evaluates::Never {
        // Until it is closed.
        drop(stream.read(&mut [0]));
        return;
    }
    let begin = format!("{BEGIN}{}", chunk(HEAD));
    let mut written = stream.write_all(begin.as_bytes());
    for number in 0.. {
        let comma = if number == 0 { "" } else { "," };
        // Sorted, as a matrix is.
        let element = format!(
            "{comma}{{\"metric\":{{\"a\":\"{number:09}\"}},\"values\":[[1,\"{}\"]]}}",
            "1".repeat(1000)
        );
        if written.is_err() || how == Evaluates::BreaksOff && number > 1000 {
            return;
        }
        written = stream.write_all(chunk(&element).as_bytes());
    }
}

fn beside(how: Evaluates) -> (Site, Prometheus, Evaluator, Outrigger) {
    let site = Site::new();
    let prometheus = site.prometheus_elsewhere();
    let evaluator = Evaluator::start(prometheus.address(), how);
    let flags = ["--query.enable", "--query.max-concurrent=1"];
    let arguments = site.arguments_without_bucket(evaluator.address, &flags);
    let outrigger = Outrigger::start(&arguments);
    outrigger.wait_for_metric("thanos_sidecar_prometheus_up", |up| up == 1.0);
    (site, prometheus, evaluator, outrigger)
}

/// Sends a range query over HTTP/1.1.
fn begin(outrigger: &Outrigger) -> TcpStream {
    let mut stream = TcpStream::connect(outrigger.address()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let line = "GET /api/v1/query_range?query=up&start=1&end=2&step=1 HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(line.as_bytes()).unwrap();
    stream
}

#[test]
fn a_client_that_is_gone_before_the_answer_cancels_the_query() {
    let (_site, _prometheus, evaluator, outrigger) = beside(Evaluates::Never);
    let client = begin(&outrigger);
    evaluator.wait_for_begin();
    assert_eq!(outrigger.metric("outrigger_query_in_flight"), Some(1.0));
    drop(client);
    evaluator.wait_for_end();
    outrigger.wait_for_metric("outrigger_query_in_flight", |count| count == 0.0);
}

#[test]
fn a_client_that_is_gone_in_the_middle_cancels_the_query() {
    let (_site, _prometheus, evaluator, outrigger) = beside(Evaluates::Endless);
    let mut client = begin(&outrigger);
    let mut some = vec![0; 1 << 20];
    client.read_exact(&mut some).unwrap();
    assert!(some.starts_with(b"HTTP/1.1 200 OK\r\n"));
    // One that does not read on holds nothing but its turn.
    let resident = outrigger.proc_status("VmRSS");
    assert!(resident < 200 << 10, "{resident} KiB");
    drop(client);
    evaluator.wait_for_end();
    outrigger.wait_for_metric("outrigger_query_in_flight", |count| count == 0.0);
}

#[test]
fn an_answer_that_breaks_off_has_no_end() {
    let (_site, _prometheus, evaluator, outrigger) = beside(Evaluates::BreaksOff);
    let mut client = begin(&outrigger);
    let mut answer = Vec::new();
    // The end may come as a reset.
    drop(client.read_to_end(&mut answer));
    evaluator.wait_for_end();
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("chunked"),
        "{head}"
    );
    assert!(body.len() > 100_000, "{}", body.len());
    assert!(
        !body.ends_with("\r\n0\r\n\r\n") && !body.contains("]}"),
        "it looks whole"
    );
    let line = outrigger.process.wait_for_line("what happened", |line| {
        line.contains("the answer to a query broke off")
    });
    assert!(line.contains("level=warn"), "{line}");
}

#[test]
fn a_prometheus_that_is_gone_is_told_by_a_status() {
    let site = Site::new();
    let mut prometheus = site.prometheus_elsewhere();
    let flags = ["--query.enable"];
    let arguments = site.arguments_without_bucket(prometheus.address(), &flags);
    let outrigger = Outrigger::start(&arguments);
    outrigger.wait_for_metric("thanos_sidecar_prometheus_up", |up| up == 1.0);
    prometheus.stop();
    for path in [
        "query?query=1",
        "labels",
        "series?match[]=up",
        "rules",
        "label/a/values",
    ] {
        let answered = Ask::get(format!("/api/v1/{path}")).of(outrigger.address());
        assert_eq!(answered.status, 503, "{path}: {answered:?}");
        assert_eq!(answered.json()["errorType"], "unavailable", "{path}");
    }
}
