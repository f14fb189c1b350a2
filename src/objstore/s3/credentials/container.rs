//! Credentials of a container's role: ECS, Greengrass, EKS Pod Identity.
//!
//! By hand, because the provider of the AWS crates reads only the process's own environment and
//! takes no token file that ends with a line end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::uri::{InvalidUri, Scheme};
use http::{HeaderValue, Request, StatusCode, Uri};
use serde::Deserialize;

use super::sdk::{ExchangeError, SdkClient};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries of the service, with a pause in between.
const ATTEMPTS: u32 = 3;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(200);
/// A service account token is one or two KiB.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

const RELATIVE_URI: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL_URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
pub(super) const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
const ECS_BASE: &str = "http://169.254.170.2";

/// Besides loopback the hosts that may be asked without TLS: ECS, and EKS Pod Identity.
const PLAIN_HOSTS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// The service that the environment names.
#[derive(Debug)]
pub(super) struct Container {
    uri: Uri,
    token: Option<Token>,
}

enum Token {
    Inline(String),
    /// Read each time: it is renewed under the process.
    File(PathBuf),
}

/// Why the service gave no credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContainerError {
    #[error("{variable} is no URI")]
    Uri {
        variable: &'static str,
        source: InvalidUri,
    },
    #[error("{FULL_URI} is not an absolute http or https URI")]
    NotAbsolute,
    #[error(
        "{FULL_URI} names {host}, to which the token may not go: without TLS only loopback, \
         169.254.170.2, 169.254.170.23 and fd00:ec2::23 are allowed"
    )]
    HostNotAllowed { host: String },
    #[error("looking up {host}")]
    Lookup { host: String, source: io::Error },
    #[error("reading the token file {}", path.display())]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("the authorization token has characters that can't be sent in a header")]
    TokenText,
    #[error("asking {uri}")]
    Exchange {
        uri: Box<Uri>,
        source: Box<ExchangeError>,
    },
    #[error("{uri} answered with status {status}{}", in_words(.code, .message))]
    Status {
        uri: Box<Uri>,
        status: StatusCode,
        code: String,
        message: String,
    },
    #[error("{uri} answered with something that is not credentials: {missing}")]
    Answer {
        uri: Box<Uri>,
        missing: &'static str,
    },
}

/// What the service answers. No `Debug` form: it holds secrets.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    #[serde(rename = "AccessKeyId")]
    access_key: Option<String>,
    #[serde(rename = "SecretAccessKey")]
    secret_key: Option<String>,
    #[serde(rename = "Token")]
    token: Option<String>,
    #[serde(rename = "Expiration")]
    expiration: Option<String>,
    #[serde(alias = "Code")]
    code: Option<String>,
    #[serde(alias = "Message")]
    message: Option<String>,
}

// === impl Container ===

impl Container {
    /// The service, where the environment names one. `endpoint` replaces ECS' own address.
    pub(super) fn new(
        endpoint: Option<&Uri>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ContainerError> {
        let token = match (variable(TOKEN_FILE), variable(TOKEN)) {
            (Some(path), _) => Some(Token::File(PathBuf::from(path))),
            (None, Some(token)) => Some(Token::Inline(token)),
            (None, None) => None,
        };
        let parse = |variable, text: &str| {
            text.parse()
                .map_err(|source| ContainerError::Uri { variable, source })
        };
        let uri = match (variable(RELATIVE_URI), variable(FULL_URI)) {
            (Some(relative), _) => match endpoint {
                Some(endpoint) => endpoint.clone(),
                None => parse(RELATIVE_URI, &format!("{ECS_BASE}{relative}"))?,
            },
            (None, Some(full)) => parse(FULL_URI, &full)?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Self { uri, token }))
    }

    /// Asks the service.
    pub(super) async fn fetch(&self, client: &SdkClient) -> Result<Credentials, ContainerError> {
        self.check_host().await?;
        let mut attempt = 1;
        loop {
            match self.ask(client).await {
                Err(error) if attempt < ATTEMPTS && error.is_transient() => {
                    attempt += 1;
                    tokio::time::sleep(ATTEMPT_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn ask(&self, client: &SdkClient) -> Result<Credentials, ContainerError> {
        let mut request = Request::get(self.uri.clone())
            .header(ACCEPT, "application/json")
            .body(Bytes::new())
            .expect("a parsed URI and a constant header make a request");
        if let Some(token) = &self.token {
            let value = token.header()?;
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let response = client
            .exchange(request, CONNECT_TIMEOUT, READ_TIMEOUT)
            .await;
        let uri = || Box::new(self.uri.clone());
        let response = response.map_err(|source| ContainerError::Exchange {
            uri: uri(),
            source: Box::new(source),
        })?;
        let status = response.status();
        let answer: Option<Answer> = serde_json::from_slice(response.body()).ok();
        if status != StatusCode::OK {
            let answer = answer.unwrap_or_default();
            return Err(ContainerError::Status {
                uri: uri(),
                status,
                code: answer.code.unwrap_or_default(),
                message: answer.message.unwrap_or_default(),
            });
        }
        let credentials = match answer {
            None => Err("it is not the JSON that was expected"),
            Some(answer) => answer.credentials(),
        };
        credentials.map_err(|missing| ContainerError::Answer {
            uri: uri(),
            missing,
        })
    }

    /// The token goes over TLS, or to hosts that are this machine's own.
    async fn check_host(&self) -> Result<(), ContainerError> {
        let (Some(scheme), Some(host)) = (self.uri.scheme(), self.uri.host()) else {
            return Err(ContainerError::NotAbsolute);
        };
        if *scheme == Scheme::HTTPS {
            return Ok(());
        }
        if *scheme != Scheme::HTTP {
            return Err(ContainerError::NotAbsolute);
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.uri.port_u16().unwrap_or(80);
        let addresses = tokio::net::lookup_host((bare, port)).await;
        let addresses = addresses.map_err(|source| ContainerError::Lookup {
            host: host.to_owned(),
            source,
        })?;
        let mut addresses = addresses.map(|address| address.ip().to_canonical());
        let is_allowed = |address: IpAddr| address.is_loopback() || PLAIN_HOSTS.contains(&address);
        match addresses.all(is_allowed) {
            true => Ok(()),
            false => Err(ContainerError::HostNotAllowed {
                host: host.to_owned(),
            }),
        }
    }
}

impl ContainerError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Exchange { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }
}

fn in_words(code: &str, message: &str) -> String {
    match (code, message) {
        ("", "") => String::new(),
        (code, "") => format!(": {code}"),
        ("", message) => format!(": {message}"),
        (code, message) => format!(": {code}: {message}"),
    }
}

// === impl Token ===

impl Token {
    fn header(&self) -> Result<HeaderValue, ContainerError> {
        let text = match self {
            Self::Inline(text) => text.clone(),
            Self::File(path) => read_token(path).map_err(|source| ContainerError::TokenFile {
                path: path.clone(),
                source,
            })?,
        };
        let mut value =
            HeaderValue::from_str(text.trim()).map_err(|_| ContainerError::TokenText)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn read_token(path: &PathBuf) -> io::Result<String> {
    use io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

// === impl Answer ===

impl Answer {
    fn credentials(self) -> Result<Credentials, &'static str> {
        let expiration = match self.expiration.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| "Expiration is no time")?),
        };
        let expiration = expiration.map(|at: jiff::Timestamp| SystemTime::from(at));
        Ok(Credentials::new(
            self.access_key.ok_or("AccessKeyId is missing")?,
            self.secret_key.ok_or("SecretAccessKey is missing")?,
            self.token,
            expiration,
            "container",
        ))
    }
}
