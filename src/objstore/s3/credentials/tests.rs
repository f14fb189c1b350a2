//! Each source against a server that answers as told, and how long what it gave is kept.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use super::*;
use crate::net::ClientTls;
use crate::net::http::{ClientConfig, Proxy, Reply, ScriptedServer, response};

/// 2026-01-01T00:00:00Z.
const NOW_S: i64 = 1_767_225_600;

/// A clock that stands where it is set.
#[derive(Clone)]
struct Hand(Arc<AtomicI64>);

impl Hand {
    fn at(seconds: i64) -> Self {
        Self(Arc::new(AtomicI64::new(seconds)))
    }

    fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let seconds = Arc::clone(&self.0);
        Clock::new(move || i128::from(seconds.load(Ordering::SeqCst)) * 1_000_000_000)
    }
}

fn http(proxy: Option<Proxy>) -> ClientConfig {
    ClientConfig {
        tls: ClientTls::default().build().unwrap(),
        proxy,
        connect_timeout: None,
        tls_handshake_timeout: None,
        response_header_timeout: None,
        idle_timeout: None,
        idle_per_host_max: 0,
        connections_per_host_max: None,
    }
}

/// Settings with these variables and no instance metadata, unless a variable says where it is.
fn settings(variables: &[(&str, &str)]) -> ChainSettings {
    let pairs = variables.iter();
    let mut map: BTreeMap<String, OsString> = pairs
        .map(|(name, value)| ((*name).to_owned(), OsString::from(*value)))
        .collect();
    if !map.contains_key("AWS_EC2_METADATA_SERVICE_ENDPOINT") {
        map.insert("AWS_EC2_METADATA_DISABLED".to_owned(), "true".into());
    }
    ChainSettings {
        sts_endpoint: None,
        required: false,
        signature_version2: false,
        variable: Arc::new(move |name| map.get(name).cloned()),
        clock: Hand::at(NOW_S).clock(),
        http: http(None),
    }
}

fn chain(variables: &[(&str, &str)]) -> S3Credentials {
    S3Credentials::chain(settings(variables))
}

async fn found(credentials: &S3Credentials) -> Credentials {
    credentials.current().await.unwrap().unwrap()
}

/// Access key, secret and token of what is found.
async fn keys(credentials: &S3Credentials) -> (String, String, Option<String>) {
    let found = found(credentials).await;
    (
        found.access_key_id().to_owned(),
        found.secret_access_key().to_owned(),
        found.session_token().map(str::to_owned),
    )
}

async fn failure(credentials: &S3Credentials) -> String {
    let error = credentials.current().await.unwrap_err();
    let text = ErrorChain(&error).to_string();
    let debug = format!("{error:?} {credentials:?}");
    assert!(
        !text.contains("hidden") && !debug.contains("hidden"),
        "{text} {debug}"
    );
    text
}

/// RFC 3339 of so many seconds after [`NOW_S`].
fn later(seconds: i64) -> String {
    jiff::Timestamp::from_second(NOW_S + seconds)
        .unwrap()
        .to_string()
}

fn json(number: usize, expires_in_s: i64) -> String {
    format!(
        r#"{{"Code":"Success","AccessKeyId":"AK{number}","SecretAccessKey":"hidden",
            "Token":"hidden","Expiration":"{}"}}"#,
        later(expires_in_s)
    )
}

fn ok(body: impl AsRef<[u8]>) -> Reply {
    Reply::Bytes(response("200 OK", &[], body))
}

// === environment ===

#[tokio::test]
async fn the_environment_comes_first_under_either_name() {
    for (access, secret) in [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_ACCESS_KEY", "AWS_SECRET_KEY"),
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_KEY"),
    ] {
        let of_role = ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent");
        let plain = chain(&[(access, "AK"), (secret, "hidden"), of_role]);
        assert_eq!(
            keys(&plain).await,
            ("AK".to_owned(), "hidden".to_owned(), None)
        );
        let shown = format!("{plain:?}");
        assert!(shown.contains("AK") && !shown.contains("hidden"), "{shown}");
        let token = ("AWS_SESSION_TOKEN", "hidden too");
        let with_token = chain(&[(access, "AK"), (secret, "hidden"), token]);
        assert_eq!(keys(&with_token).await.2.as_deref(), Some("hidden too"));
    }
}

#[tokio::test]
async fn nothing_found_is_anonymous_or_an_error_that_names_what_was_tried() {
    let half = [("AWS_ACCESS_KEY_ID", "AK")];
    let credentials = chain(&half);
    assert_eq!(credentials.current().await.unwrap(), None);
    let required = S3Credentials::chain(ChainSettings {
        required: true,
        ..settings(&half)
    });
    let text = failure(&required).await;
    for said in [
        "aws_sdk_auth",
        "environment (AWS_SECRET_ACCESS_KEY is not set)",
        "shared file (there is none)",
        "web identity (AWS_WEB_IDENTITY_TOKEN_FILE is not set)",
        "container (",
        "instance metadata (AWS_EC2_METADATA_DISABLED is true)",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[tokio::test]
async fn signature_version_2_is_refused_once_there_is_something_to_sign_with() {
    let old = |variables| {
        S3Credentials::chain(ChainSettings {
            signature_version2: true,
            ..settings(variables)
        })
    };
    assert_eq!(old(&[]).current().await.unwrap(), None);
    let text = failure(&old(&[
        ("AWS_ACCESS_KEY", "AK"),
        ("AWS_SECRET_KEY", "hidden"),
    ]))
    .await;
    assert!(text.contains("remove `signature_version2`"), "{text}");
}

#[tokio::test]
async fn fixed_and_anonymous_stay_what_they_are() {
    assert_eq!(S3Credentials::anonymous().current().await.unwrap(), None);
    assert!(S3Credentials::anonymous().is_anonymous());
    let fixed = S3Credentials::fixed("AK", "hidden", Some("hidden".to_owned()));
    let before = found(&fixed).await;
    fixed.invalidate(&before);
    assert_eq!(found(&fixed).await, before);
    let shown = format!("{fixed:?}");
    assert!(shown.contains("AK") && !shown.contains("hidden"), "{shown}");
}

// === shared file ===

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn shared_files_are_read_by_profile() {
    let home = tempfile::tempdir().unwrap();
    let home_text = home.path().display().to_string();
    let text = "[default]\naws_access_key_id = AKD\naws_secret_access_key = hidden\n\
                [other]\naws_access_key_id = AKO\naws_secret_access_key = hidden\n\
                aws_session_token = t\n";
    write(home.path(), ".aws/credentials", text);
    let config = "[profile third]\naws_access_key_id = AKT\naws_secret_access_key = hidden\n";
    write(home.path(), ".aws/config", config);
    let of = |more: &[(&str, &str)]| {
        let variables = [&[("HOME", home_text.as_str())], more].concat();
        chain(&variables)
    };
    assert_eq!(keys(&of(&[])).await.0, "AKD");
    let other = keys(&of(&[("AWS_PROFILE", "other")])).await;
    assert_eq!((other.0.as_str(), other.2.as_deref()), ("AKO", Some("t")));
    assert_eq!(keys(&of(&[("AWS_PROFILE", "third")])).await.0, "AKT");
    let none = of(&[("AWS_PROFILE", "fourth")]);
    assert_eq!(none.current().await.unwrap(), None);
    let elsewhere = "[default]\naws_access_key_id = AKE\naws_secret_access_key = hidden\n";
    let path = write(home.path(), "elsewhere", elsewhere);
    for path in [path.as_str(), "~/elsewhere"] {
        let named = of(&[("AWS_SHARED_CREDENTIALS_FILE", path)]);
        assert_eq!(keys(&named).await.0, "AKE", "{path}");
    }
}

#[tokio::test]
async fn a_shared_file_is_read_again_once_its_keys_were_refused() {
    let directory = tempfile::tempdir().unwrap();
    let text = |key: &str| {
        format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = hidden\n")
    };
    let path = write(directory.path(), "credentials", &text("AK1"));
    let credentials = chain(&[("AWS_SHARED_CREDENTIALS_FILE", &path)]);
    let first = found(&credentials).await;
    write(directory.path(), "credentials", &text("AK2"));
    assert_eq!(found(&credentials).await, first, "kept");
    credentials.invalidate(&first);
    let second = found(&credentials).await;
    assert_eq!(second.access_key_id(), "AK2");
    credentials.invalidate(&first);
    write(directory.path(), "credentials", &text("AK3"));
    assert_eq!(
        found(&credentials).await,
        second,
        "the first were refused, not these"
    );
}

#[tokio::test]
async fn a_credential_process_is_run_and_its_failure_told() {
    let directory = tempfile::tempdir().unwrap();
    let answer = r#"{"Version": 1, "AccessKeyId": "AKP", "SecretAccessKey": "hidden"}"#;
    let answer = write(directory.path(), "answer", answer);
    let text = format!("[default]\ncredential_process = cat {answer}\n");
    let path = write(directory.path(), "credentials", &text);
    let variables = [("AWS_SHARED_CREDENTIALS_FILE", path.as_str())];
    assert_eq!(keys(&chain(&variables)).await.0, "AKP");
    std::fs::remove_file(&answer).unwrap();
    let text = failure(&chain(&variables)).await;
    assert!(text.contains("credentials of shared file"), "{text}");
}

#[tokio::test]
async fn a_shared_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    let text = failure(&chain(&[("AWS_SHARED_CREDENTIALS_FILE", &path)])).await;
    assert!(
        text.contains("shared file") && text.contains(&path),
        "{text}"
    );
}

// === web identity ===

fn sts_answer(number: usize, expires_in_s: i64) -> String {
    format!(
        "<AssumeRoleWithWebIdentityResponse \
         xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult>\
         <Credentials><AccessKeyId>AK{number}</AccessKeyId><SecretAccessKey>hidden\
         </SecretAccessKey><SessionToken>hidden</SessionToken><Expiration>{}</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
        later(expires_in_s)
    )
}

fn web_identity(server: &ScriptedServer, token_file: &str, hand: &Hand) -> S3Credentials {
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token_file),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ("AWS_ROLE_SESSION_NAME", "session"),
        ("AWS_REGION", "eu-west-1"),
    ];
    S3Credentials::chain(ChainSettings {
        sts_endpoint: Some(server.url("/sts").parse().unwrap()),
        clock: hand.clock(),
        ..settings(&variables)
    })
}

#[tokio::test]
async fn a_web_identity_token_is_read_again_at_each_renewal() {
    let count = AtomicUsize::new(0);
    let server = ScriptedServer::start(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let expires_in_s = if number == 1 { 3600 } else { 7200 };
        ok(sts_answer(number, expires_in_s))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let token_file = write(directory.path(), "token", "first");
    let hand = Hand::at(NOW_S);
    let credentials = web_identity(&server, &token_file, &hand);
    assert_eq!(keys(&credentials).await.0, "AK1");
    write(directory.path(), "token", "second");
    hand.advance(3600 - 301);
    assert_eq!(keys(&credentials).await.0, "AK1", "not due yet");
    hand.advance(1);
    assert_eq!(
        keys(&credentials).await.0,
        "AK2",
        "five minutes before they expire"
    );
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    for (seen, token) in seen.iter().zip(["first", "second"]) {
        assert!(seen.line.starts_with("POST /sts/ "), "{}", seen.line);
        let body = String::from_utf8(seen.body.clone()).unwrap();
        for field in [
            "Action=AssumeRoleWithWebIdentity",
            "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr",
            "RoleSessionName=session",
            &format!("WebIdentityToken={token}"),
        ] {
            assert!(body.contains(field), "{field}: {body}");
        }
        assert_eq!(seen.header("authorization"), None);
    }
}

#[tokio::test]
async fn a_refusal_of_sts_is_told_and_not_hidden_behind_anonymous_requests() {
    let server = ScriptedServer::start(|_| {
        let text = "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>\
                    <Message>no provider</Message></Error></ErrorResponse>";
        Reply::Bytes(response("400 Bad Request", &[], text))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let token_file = write(directory.path(), "token", "hidden");
    let credentials = web_identity(&server, &token_file, &Hand::at(NOW_S));
    let text = failure(&credentials).await;
    assert!(
        text.contains("credentials of web identity") && text.contains("InvalidIdentityToken"),
        "{text}"
    );
    let absent = web_identity(&server, "/nonexistent/token", &Hand::at(NOW_S));
    let text = failure(&absent).await;
    assert!(
        text.contains("web identity") && text.contains("No such file"),
        "{text}"
    );
}

#[tokio::test]
async fn sts_is_that_of_the_region() {
    for (region, endpoint) in [
        (None, "https://sts.amazonaws.com/"),
        (Some("eu-west-1"), "https://sts.eu-west-1.amazonaws.com/"),
        (
            Some("cn-north-1"),
            "https://sts.cn-north-1.amazonaws.com.cn/",
        ),
    ] {
        let variables = region.map(|region| ("AWS_REGION", region));
        let sources = Sources::new(settings(variables.as_slice()));
        assert_eq!(sources.sts_endpoint().unwrap().to_string(), endpoint);
    }
}

// === container ===

#[tokio::test]
async fn a_container_names_its_service_by_a_full_uri_and_a_token() {
    let server = ScriptedServer::start(|_| ok(json(1, 3600))).await;
    let uri = server.url("/role?x=y");
    let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str());
    let inline = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "inline");
    let credentials = chain(&[full, inline]);
    assert_eq!(keys(&credentials).await.0, "AK1");
    assert!(found(&credentials).await.expiry().is_some());

    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "token", "from file\n");
    let file = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path.as_str());
    let credentials = chain(&[full, inline, file]);
    let first = found(&credentials).await;
    write(directory.path(), "token", "renewed\n");
    credentials.invalidate(&first);
    found(&credentials).await;
    let seen = server.seen();
    let tokens: Vec<_> = seen
        .iter()
        .map(|seen| seen.header("authorization"))
        .collect();
    assert_eq!(tokens, [Some("inline"), Some("from file"), Some("renewed")]);
    assert!(
        seen[0].line.starts_with("GET /role?x=y "),
        "{}",
        seen[0].line
    );
}

#[tokio::test]
async fn a_container_names_its_service_by_a_relative_uri() {
    let server = ScriptedServer::start(|_| ok(json(1, 3600))).await;
    let relative = (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "/v2/credentials/id",
    );
    let credentials = S3Credentials::chain(ChainSettings {
        sts_endpoint: Some(server.url("/instead").parse().unwrap()),
        ..settings(&[relative])
    });
    assert_eq!(keys(&credentials).await.0, "AK1");
    assert!(server.seen()[0].line.starts_with("GET /instead "));
    let variable = |name: &str| (name == relative.0).then(|| relative.1.to_owned());
    let container = container::Container::new(None, &variable).unwrap().unwrap();
    let shown = format!("{container:?}");
    assert!(
        shown.contains("http://169.254.170.2/v2/credentials/id"),
        "{shown}"
    );
}

#[tokio::test]
async fn the_token_goes_to_no_other_host_in_plain_text() {
    for uri in [
        "http://192.0.2.1/role",
        "http://169.254.169.254/role",
        "http://[fd00:ec2::24]/role",
        "ftp://127.0.0.1/",
        "/role",
    ] {
        let credentials = chain(&[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hidden"),
        ]);
        let text = failure(&credentials).await;
        assert!(
            text.contains("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
            "{uri}: {text}"
        );
    }
}

#[tokio::test]
async fn a_container_service_is_asked_again_after_a_fault_and_its_refusal_told() {
    let count = AtomicUsize::new(0);
    let server = ScriptedServer::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Bytes(response("500 Internal Server Error", &[], "")),
        1 => Reply::Close(Vec::new()),
        2 => ok(json(1, 3600)),
        3 => {
            let body = r#"{"code":"Denied","message":"no such role"}"#;
            Reply::Bytes(response("400 Bad Request", &[], body))
        }
        4 => ok(r#"{"AccessKeyId":"AK","SecretAccessKey":null}"#),
        _ => ok("hidden"),
    })
    .await;
    let uri = server.url("/");
    let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str());
    assert_eq!(keys(&chain(&[full])).await.0, "AK1");
    for said in [
        "400 Bad Request: Denied: no such role",
        "SecretAccessKey is missing",
        "not the JSON",
    ] {
        let text = failure(&chain(&[full])).await;
        assert!(text.contains(said) && text.contains("container"), "{text}");
    }
}

// === instance metadata ===

async fn metadata_server(role: Reply) -> ScriptedServer {
    ScriptedServer::start(move |seen| match seen.path() {
        "/latest/api/token" if seen.line.starts_with("PUT ") => {
            let ttl = &[("x-aws-ec2-metadata-token-ttl-seconds", "21600")];
            Reply::Bytes(response("200 OK", ttl, "session"))
        }
        _ if seen.header("x-aws-ec2-metadata-token") != Some("session") => {
            Reply::Bytes(response("401 Unauthorized", &[], ""))
        }
        "/latest/meta-data/iam/security-credentials/" => role.clone(),
        "/latest/meta-data/iam/security-credentials/role" => ok(json(1, 3600)),
        _ => Reply::Bytes(response("404 Not Found", &[], "")),
    })
    .await
}

#[tokio::test]
async fn instance_metadata_is_asked_with_a_session_token() {
    let server = metadata_server(ok("role")).await;
    let endpoint = server.url("");
    let credentials = chain(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)]);
    let (access, secret, token) = keys(&credentials).await;
    assert_eq!(
        (access.as_str(), secret.as_str(), token.as_deref()),
        ("AK1", "hidden", Some("hidden"))
    );
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    let ttl = seen[0].header("x-aws-ec2-metadata-token-ttl-seconds");
    assert_eq!(ttl, Some("21600"));
}

#[tokio::test]
async fn an_instance_without_a_role_or_no_instance_at_all_is_anonymous() {
    let server = metadata_server(Reply::Bytes(response("404 Not Found", &[], ""))).await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone_url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    for endpoint in [server.url(""), gone_url] {
        let credentials = chain(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)]);
        assert_eq!(credentials.current().await.unwrap(), None, "{endpoint}");
    }
}

#[tokio::test]
async fn a_metadata_service_that_says_nothing_is_not_waited_for_long() {
    let server = ScriptedServer::start(|_| Reply::Hang).await;
    let endpoint = server.url("");
    let credentials = chain(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)]);
    let started = tokio::time::Instant::now();
    assert_eq!(credentials.current().await.unwrap(), None);
    assert!(started.elapsed() < SEARCH_TIMEOUT);
}

// === keeping ===

/// Credentials for an hour, one after the other, until `broken`.
async fn hourly(broken: Arc<AtomicUsize>, hand: &Hand) -> (ScriptedServer, S3Credentials) {
    let count = AtomicUsize::new(0);
    let server = ScriptedServer::start(move |_| {
        if broken.load(Ordering::SeqCst) > 0 {
            return Reply::Bytes(response("400 Bad Request", &[], ""));
        }
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        ok(json(number, 3600 * i64::try_from(number).unwrap()))
    })
    .await;
    let uri = server.url("/");
    let credentials = S3Credentials::chain(ChainSettings {
        clock: hand.clock(),
        ..settings(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)])
    });
    (server, credentials)
}

#[tokio::test]
async fn what_cannot_be_renewed_is_used_until_it_expires_and_no_longer() {
    let (broken, hand) = (Arc::new(AtomicUsize::new(0)), Hand::at(NOW_S));
    let (server, credentials) = hourly(Arc::clone(&broken), &hand).await;
    assert_eq!(keys(&credentials).await.0, "AK1");
    broken.store(1, Ordering::SeqCst);
    hand.advance(3600 - 200);
    assert_eq!(keys(&credentials).await.0, "AK1");
    assert_eq!(keys(&credentials).await.0, "AK1");
    assert_eq!(
        server.seen().len(),
        2,
        "the service is not asked at each request"
    );
    hand.advance(11);
    assert_eq!(keys(&credentials).await.0, "AK1");
    assert_eq!(server.seen().len(), 3);
    hand.advance(200);
    let text = failure(&credentials).await;
    assert!(text.contains("400 Bad Request"), "{text}");
    broken.store(0, Ordering::SeqCst);
    assert_eq!(keys(&credentials).await.0, "AK2");
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_search() {
    let (broken, hand) = (Arc::new(AtomicUsize::new(0)), Hand::at(NOW_S));
    let (server, credentials) = hourly(Arc::clone(&broken), &hand).await;
    let all = futures_util::future::join_all((0..20).map(|_| credentials.current())).await;
    for one in all {
        assert_eq!(one.unwrap().unwrap().access_key_id(), "AK1");
    }
    assert_eq!(server.seen().len(), 1);
    broken.store(1, Ordering::SeqCst);
    credentials.invalidate(&found(&credentials).await);
    let all = futures_util::future::join_all((0..20).map(|_| credentials.current())).await;
    assert!(all.iter().all(Result::is_err));
    assert_eq!(server.seen().len(), 2, "and its failure");
}

#[tokio::test]
async fn a_search_that_was_given_up_is_done_by_the_next() {
    let (broken, hand) = (Arc::new(AtomicUsize::new(0)), Hand::at(NOW_S));
    let (_server, credentials) = hourly(broken, &hand).await;
    let mut given_up = Box::pin(credentials.current());
    assert!(futures_util::poll!(&mut given_up).is_pending());
    drop(given_up);
    assert!(credentials.current().await.unwrap().is_some());
}

#[tokio::test]
async fn a_source_that_only_has_old_ones_is_not_asked_at_each_request() {
    let server = ScriptedServer::start(|_| ok(json(1, 4))).await;
    let uri = server.url("/");
    let hand = Hand::at(NOW_S);
    let credentials = S3Credentials::chain(ChainSettings {
        clock: hand.clock(),
        ..settings(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)])
    });
    for (advance_s, asked) in [(0, 1), (9, 1), (1, 2), (9, 2)] {
        hand.advance(advance_s);
        found(&credentials).await;
        assert_eq!(server.seen().len(), asked);
    }
}

#[tokio::test]
async fn nothing_is_looked_for_again_after_a_minute() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("credentials").display().to_string();
    let hand = Hand::at(NOW_S);
    let credentials = S3Credentials::chain(ChainSettings {
        clock: hand.clock(),
        ..settings(&[("AWS_SHARED_CREDENTIALS_FILE", &path)])
    });
    assert_eq!(credentials.current().await.unwrap(), None);
    let text = "[default]\naws_access_key_id = AK\naws_secret_access_key = hidden\n";
    write(directory.path(), "credentials", text);
    hand.advance(59);
    assert_eq!(credentials.current().await.unwrap(), None);
    hand.advance(1);
    let first = found(&credentials).await;
    assert_eq!(first.access_key_id(), "AK");
}

// === proxies ===

#[tokio::test]
async fn sts_is_asked_through_the_proxy_and_loopback_is_not() {
    let proxy = ScriptedServer::start(|_| ok(sts_answer(1, 3600))).await;
    let proxy_url = proxy.url("");
    let variable = |name: &str| (name == "HTTP_PROXY").then(|| OsString::from(&proxy_url));
    let through = Proxy::from_environment(&variable).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let token_file = write(directory.path(), "token", "t");
    let credentials = S3Credentials::chain(ChainSettings {
        sts_endpoint: Some("http://sts.invalid".parse().unwrap()),
        http: http(through.clone()),
        ..settings(&[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", &token_file),
            ("AWS_ROLE_ARN", "r"),
        ])
    });
    assert_eq!(keys(&credentials).await.0, "AK1");
    let line = &proxy.seen()[0].line;
    assert!(line.starts_with("POST http://sts.invalid/ "), "{line}");

    let server = ScriptedServer::start(|_| ok(json(2, 3600))).await;
    let uri = server.url("/");
    let credentials = S3Credentials::chain(ChainSettings {
        http: http(through),
        ..settings(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)])
    });
    assert_eq!(keys(&credentials).await.0, "AK2");
    assert_eq!(proxy.seen().len(), 1);
}
