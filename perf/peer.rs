//! A scripted Prometheus: answers what a sidecar asks one, and costs nothing beside it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

/// Listens on a port of the kernel's choice until the process ends.
pub(crate) fn start() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => drop(std::thread::spawn(move || serve(stream))),
                Err(error) => eprintln!("perf: scripted Prometheus: {error}"),
            }
        }
    });
    Ok(address)
}

fn serve(stream: TcpStream) {
    // A sidecar that ends or hangs up in the middle of an answer is no concern of ours.
    if let Err(error) = answer_all(stream)
        && !matches!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
        )
    {
        eprintln!("perf: scripted Prometheus: {error}");
    }
}

/// Answers the requests of a connection, none of which has a body.
fn answer_all(stream: TcpStream) -> std::io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut answers = stream;
    loop {
        let mut path = None;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim_end().is_empty() {
                break;
            }
            path = path.or_else(|| line.split(' ').nth(1).map(str::to_owned));
        }
        let path = path.unwrap_or_default();
        let (status, kind, body) = answer(path.split('?').next().unwrap_or_default());
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        answers.write_all((head + &body).as_bytes())?;
    }
}

fn answer(path: &str) -> (&'static str, &'static str, String) {
    let data = match path {
        "/api/v1/status/flags" => {
            r#"{"storage.tsdb.min-block-duration":"2h","storage.tsdb.max-block-duration":"2h"}"#
        }
        "/api/v1/status/buildinfo" => r#"{"version":"3.5.0"}"#,
        "/api/v1/status/config" => {
            r#"{"yaml":"global:\n  external_labels:\n    cluster: perf\n    replica: \"0\"\n"}"#
        }
        "/metrics" => {
            let gauge = "prometheus_tsdb_lowest_timestamp_seconds";
            let text = format!("# TYPE {gauge} gauge\n{gauge} 1.6999992e+09\n");
            return ("200 OK", "text/plain; version=0.0.4", text);
        }
        _ => {
            return (
                "404 Not Found",
                "text/plain",
                "404 page not found\n".to_owned(),
            );
        }
    };
    let body = format!(r#"{{"status":"success","data":{data}}}"#);
    ("200 OK", "application/json", body)
}
