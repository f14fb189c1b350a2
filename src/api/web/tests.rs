//! The way in as a whole: files that change under a running server.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;

use super::*;
use crate::model::ErrorChain;
use crate::net::http::TestCa;
use crate::net::{ClientAuth, TlsVersion};

struct Scene {
    directory: tempfile::TempDir,
    handled: Arc<AtomicUsize>,
}

impl Scene {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            handled: Arc::default(),
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("web.yml")
    }

    fn write(&self, text: &str) {
        let beside = self.directory.path().join("beside");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, self.file()).unwrap();
    }

    fn open(&self, text: &str) -> WebAccess {
        self.write(text);
        WebAccess::from_file(&self.file()).unwrap()
    }

    fn problem(&self, text: &[u8]) -> String {
        fs::write(self.file(), text).unwrap();
        let error = WebAccess::from_file(&self.file()).unwrap_err();
        ErrorChain(&error).to_string()
    }

    /// The answer to a request with these credentials.
    async fn ask(&self, access: &WebAccess, shown: Option<&str>) -> Response<Bytes> {
        let handled = Arc::clone(&self.handled);
        let handler = access.clone().guarded(move |_: Request<()>| {
            handled.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Response::new(Bytes::from_static(b"inside")))
        });
        let mut request = Request::new(());
        if let Some(shown) = shown {
            let value = format!("Basic {}", BASE64_STANDARD.encode(shown));
            request
                .headers_mut()
                .insert(AUTHORIZATION, value.parse().unwrap());
        }
        handler(request).await
    }

    async fn status(&self, access: &WebAccess, shown: &str) -> u16 {
        self.ask(access, Some(shown)).await.status().as_u16()
    }
}

fn users(named: &[(&str, &str)]) -> String {
    let mut text = "basic_auth_users:\n".to_owned();
    for (name, password) in named {
        let hash = bcrypt::hash(password, 4).unwrap();
        text.push_str(&format!("  {name}: {hash}\n"));
    }
    text
}

fn tls(ca: &TestCa, more: &str) -> String {
    let (cert, key) = ca.issue("localhost");
    let (cert, key) = (cert.display(), key.display());
    format!("tls_server_config:\n  cert_file: {cert}\n  key_file: {key}\n{more}")
}

#[tokio::test]
async fn without_a_file_everyone_may_come_in() {
    let scene = Scene::new();
    let access = WebAccess::open();
    assert_eq!(scene.ask(&access, None).await.body(), "inside");
    let transport = access.transport();
    assert!(transport.tls.is_none() && transport.http2);
}

#[tokio::test]
async fn who_is_not_let_in_gets_the_references_answer_and_reaches_nothing() {
    let scene = Scene::new();
    let headers = "http_server_config: {headers: {X-Frame-Options: deny}}\n";
    let access = scene.open(&format!("{headers}{}", users(&[("alice", "secret")])));
    for shown in [
        None,
        Some("alice:wrong"),
        Some("mallory:secret"),
        Some("alice"),
    ] {
        let response = scene.ask(&access, shown).await;
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Basic");
        assert_eq!(response.headers()["x-frame-options"], "deny");
        assert_eq!(response.body(), "Unauthorized\n");
    }
    assert_eq!(scene.handled.load(Ordering::Relaxed), 0);
    let response = scene.ask(&access, Some("alice:secret")).await;
    assert_eq!(
        (response.status().as_u16(), &response.body()[..]),
        (200, &b"inside"[..])
    );
    assert_eq!(response.headers()["x-frame-options"], "deny");
}

#[tokio::test(start_paused = true)]
async fn past_the_rate_limit_requests_are_refused_before_their_passwords_are_looked_at() {
    let scene = Scene::new();
    let access = scene.open(&format!(
        "rate_limit: {{interval: 1m, burst: 2}}\n{}",
        users(&[("alice", "secret")])
    ));
    assert_eq!(scene.status(&access, "alice:wrong").await, 401);
    assert_eq!(scene.status(&access, "alice:secret").await, 200);
    let response = scene.ask(&access, Some("alice:secret")).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.body(), "Too Many Requests\n");
}

#[tokio::test]
async fn users_that_change_count_at_once() {
    let scene = Scene::new();
    let access = scene.open(&users(&[("alice", "old"), ("bob", "b")]));
    assert_eq!(scene.status(&access, "alice:old").await, 200);
    scene.write(&users(&[("alice", "new")]));
    assert_eq!(scene.status(&access, "alice:old").await, 401);
    assert_eq!(scene.status(&access, "alice:new").await, 200);
    assert_eq!(scene.status(&access, "bob:b").await, 401);
}

#[tokio::test]
async fn a_bad_new_file_leaves_the_old_one_in_force_until_it_is_good_again() {
    let scene = Scene::new();
    let access = scene.open(&users(&[("alice", "old")]));
    for bad in [
        "basic_auth_user: {}\n",
        "basic_auth_users: {alice: x}\n",
        "\t",
        "",
    ] {
        scene.write(bad);
        assert_eq!(scene.status(&access, "alice:old").await, 200, "{bad:?}");
        assert_eq!(scene.ask(&access, None).await.status(), 401, "{bad:?}");
    }
    fs::remove_file(scene.file()).unwrap();
    assert_eq!(scene.status(&access, "alice:old").await, 200);
    assert_eq!(scene.ask(&access, None).await.status(), 401);
    scene.write(&users(&[("alice", "new")]));
    assert_eq!(scene.status(&access, "alice:new").await, 200);
    assert_eq!(scene.status(&access, "alice:old").await, 401);
}

/// What a file looks like that is half written.
#[tokio::test]
async fn no_protection_is_lost_by_a_change() {
    let (scene, ca) = (Scene::new(), TestCa::new());
    let ca_file = ca.ca_file();
    let clients = format!(
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {}\n  \
         min_version: TLS13\n",
        ca_file.display()
    );
    let sans = "  client_allowed_sans: [a]\n";
    let alice = users(&[("alice", "secret")]);
    let whole = format!("{}{alice}", tls(&ca, &format!("{clients}{sans}")));
    let access = scene.open(&whole);
    let Way::Guarded(guard) = &access.0 else {
        panic!("not guarded");
    };
    let secured = tls(&ca, &clients);
    let lines: Vec<_> = whole.split_inclusive('\n').collect();
    let beginnings = (0..lines.len()).map(|end| lines[..end].concat());
    let changed = [
        ("RequireAndVerifyClientCert", "RequireAnyClientCert"),
        ("RequireAndVerifyClientCert", "VerifyClientCertIfGiven"),
        ("TLS13", "TLS12"),
    ];
    let changed = changed.map(|(from, to)| whole.replace(from, to));
    let ca_line = format!("  client_ca_file: {}\n", ca_file.display());
    let without_ca = whole.replace(&ca_line, "");
    assert_ne!(without_ca, whole);
    for less in [
        String::new(),
        alice.clone(),
        format!("{}{alice}", tls(&ca, "")),
        format!("{secured}{alice}"),
        tls(&ca, &format!("{clients}{sans}")),
        without_ca,
    ]
    .into_iter()
    .chain(beginnings)
    .chain(changed)
    {
        scene.write(&less);
        let current = guard.config.current();
        let config = &current.config;
        assert!(access.transport().tls.is_some(), "{less}");
        assert!(!config.users.is_empty(), "{less}");
        let tls = config.tls.as_ref().unwrap();
        assert_eq!(
            tls.client_auth,
            ClientAuth::RequireAndVerifyClientCert,
            "{less}"
        );
        assert!(tls.client_ca.is_some(), "{less}");
        assert_eq!(tls.min_version, TlsVersion::Tls13, "{less}");
        assert!(tls.client_allowed_sans.is_some(), "{less}");
    }
}

#[tokio::test]
async fn more_protection_counts_at_once_and_stays() {
    let (scene, ca) = (Scene::new(), TestCa::new());
    let access = scene.open("");
    assert_eq!(scene.ask(&access, None).await.status(), 200);
    scene.write(&users(&[("alice", "secret")]));
    assert_eq!(scene.ask(&access, None).await.status(), 401);
    scene.write(&format!(
        "{}{}",
        tls(&ca, ""),
        users(&[("alice", "secret")])
    ));
    assert!(access.transport().tls.is_some());
    scene.write(&users(&[("alice", "secret")]));
    assert!(access.transport().tls.is_some());
}

#[test]
fn certificates_that_change_are_read_again_also_while_the_document_is_bad() {
    let (scene, ca) = (Scene::new(), TestCa::new());
    let access = scene.open(&tls(&ca, ""));
    let Way::Guarded(guard) = &access.0 else {
        panic!("not guarded");
    };
    let current = || {
        let config = guard.config.current();
        config.acceptor.as_ref().unwrap().current()
    };
    let first = current();
    assert!(Arc::ptr_eq(&first, &current()), "read once");
    let (cert, _) = ca.issue("localhost");
    let second = current();
    assert!(!Arc::ptr_eq(&first, &second));
    fs::write(&cert, "no certificate").unwrap();
    assert!(Arc::ptr_eq(&second, &current()));
    scene.write("bad");
    assert!(Arc::ptr_eq(&second, &current()));
    ca.issue("localhost");
    assert!(!Arc::ptr_eq(&second, &current()));
}

/// The document comes first, and the files that it names after it.
#[test]
fn a_document_whose_files_come_later_counts_from_then_on() {
    let (scene, ca) = (Scene::new(), TestCa::new());
    let access = scene.open(&tls(&ca, ""));
    let Way::Guarded(guard) = &access.0 else {
        panic!("not guarded");
    };
    scene.write("tls_server_config: {cert_file: later.pem, key_file: later.key}\n");
    let before = guard.config.current();
    let (cert, key) = ca.issue("localhost");
    fs::copy(cert, scene.directory.path().join("later.pem")).unwrap();
    assert!(Arc::ptr_eq(&before, &guard.config.current()));
    fs::copy(key, scene.directory.path().join("later.key")).unwrap();
    assert!(!Arc::ptr_eq(&before, &guard.config.current()));
}

#[test]
fn a_file_that_can_not_be_used_is_named() {
    let (scene, ca) = (Scene::new(), TestCa::new());
    for (text, said) in [
        (&b"\xff"[..], &["invalid utf-8"][..]),
        (
            b"basic_auth_user: {}\n",
            &["`basic_auth_user` in line 1", "basic_auth_users"],
        ),
        (
            b"tls_server_config: {cert_file: no.pem, key_file: no.key}\n",
            &["reading", "no.pem", "No such file"],
        ),
        (
            b"tls_server_config: {cert: x, key: y}\n",
            &["`tls_server_config.cert` in line 1 holds no usable certificate"],
        ),
        (
            tls(
                &ca,
                "  client_auth_type: RequireAndVerifyClientCert\n  client_ca: x\n",
            )
            .as_bytes(),
            &["`tls_server_config.client_ca` in line 5 holds no usable certificate"],
        ),
        (&[b'#'; (1 << 20) + 1], &["larger than 1048576 bytes"]),
    ] {
        let problem = scene.problem(text);
        assert!(problem.contains("web.yml"), "{problem}");
        for part in said {
            assert!(problem.contains(part), "did not say {part:?}: {problem}");
        }
    }
    let directory = WebAccess::from_file(scene.directory.path()).unwrap_err();
    let problem = ErrorChain(&directory).to_string();
    assert!(problem.contains("it is a directory"), "{problem}");
    // A file at the limit is read.
    fs::write(scene.file(), [b'#'; 1 << 20]).unwrap();
    WebAccess::from_file(&scene.file()).unwrap();
}
