//! `--http.config`: the HTTP port behind TLS, client certificates and passwords, by clients that
//! no one here wrote; files that change under the running server, and files that can't be used.

use std::net::SocketAddr;
use std::path::PathBuf;

use outrigger::api::WebAccess;

use crate::support::{
    Answer, Ca, HttpsClient, Outrigger, Site, get, get_plain, promtool_accepts, replace, run_to_end,
};

mod bad_input;
mod differential;
mod reload;

/// A sidecar whose Prometheus never comes: its HTTP port needs none.
struct Web {
    outrigger: Outrigger,
    ca: Ca,
    site: Site,
}

const NOBODY: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    9, // discard, where nobody listens
);

impl Web {
    /// Starts with this document; `{cert}`, `{key}` and `{ca}` stand for files.
    fn start(document: &str) -> Self {
        let (ca, site) = (Ca::new(), Site::new());
        ca.sign("localhost").write(site.scratch(), "server");
        replace(&site.scratch().join("ca.pem"), ca.pem());
        replace(&file(&site), &filled(document));
        let outrigger = Outrigger::start(&arguments(&site, &[]));
        Self {
            outrigger,
            ca,
            site,
        }
    }

    fn address(&self) -> SocketAddr {
        self.outrigger.address()
    }

    fn client(&self) -> HttpsClient {
        HttpsClient::new(&self.ca)
    }

    fn write(&self, document: &str) {
        replace(&file(&self.site), &filled(document));
    }

    async fn get(&self, client: &HttpsClient) -> Result<Answer, String> {
        client.get(self.address(), "/-/healthy").await
    }

    async fn status(&self, client: &HttpsClient) -> u16 {
        self.get(client).await.unwrap().status
    }
}

fn file(site: &Site) -> PathBuf {
    site.scratch().join("web.yml")
}

fn arguments(site: &Site, more: &[&str]) -> Vec<String> {
    let config = format!("--http.config={}", file(site).display());
    let flags = [&[config.as_str()], more].concat();
    site.arguments(NOBODY, &flags)
}

/// Relative paths: they begin where the document is.
fn filled(document: &str) -> String {
    document
        .replace("{cert}", "server.pem")
        .replace("{key}", "server.key")
        .replace("{ca}", "ca.pem")
}

fn users(named: &[(&str, &str)]) -> String {
    let mut text = "basic_auth_users:\n".to_owned();
    for (name, password) in named {
        let hash = bcrypt::hash(password, 4).unwrap();
        text.push_str(&format!("  {name}: {hash}\n"));
    }
    text
}

const TLS: &str = "tls_server_config: {cert_file: '{cert}', key_file: '{key}'}\n";
const MUTUAL: &str = "tls_server_config:\n  cert_file: '{cert}'\n  key_file: '{key}'\n  \
                      client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: '{ca}'\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn everything_is_behind_tls_and_speaks_http_2() {
    let web = Web::start(TLS);
    for path in ["/-/healthy", "/-/ready", "/metrics", "/nothing"] {
        let answer = web.client().get(web.address(), path).await.unwrap();
        assert_eq!(answer.version, http::Version::HTTP_2, "{path}");
        let expected = match path {
            "/-/ready" => 503,
            "/nothing" => 404,
            _ => 200,
        };
        assert_eq!(answer.status, expected, "{path}");
    }
    let metrics = web.client().get(web.address(), "/metrics").await.unwrap();
    assert!(metrics.body.contains("thanos_sidecar_prometheus_up 0"));
    let (status, body) = get(web.address(), "/-/healthy").unwrap();
    assert_eq!(status, 400, "{body}");
    let error = web.get(&HttpsClient::new(&Ca::new())).await.unwrap_err();
    assert!(error.contains("InvalidCertificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn versions_http_2_and_headers_are_as_asked_for() {
    let web = Web::start(
        "tls_server_config:\n  cert_file: '{cert}'\n  key_file: '{key}'\n  max_version: TLS12\n  \
         cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n  \
         curve_preferences: [CurveP384]\n\
         http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: sameorigin\n    \
         Strict-Transport-Security: max-age=31536000\n",
    );
    let answer = web.get(&web.client()).await.unwrap();
    assert_eq!(answer.version, http::Version::HTTP_11);
    assert_eq!(answer.headers["x-frame-options"], "sameorigin");
    assert_eq!(
        answer.headers["strict-transport-security"],
        "max-age=31536000"
    );
    let new = web.client().with_version(&rustls::version::TLS13);
    let error = web.get(&new).await.unwrap_err();
    assert!(error.contains("ProtocolVersion"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn clients_show_a_certificate_of_the_authority() {
    let web = Web::start(MUTUAL);
    let known = web.client().showing(&web.ca.sign("scraper"));
    assert_eq!(web.status(&known).await, 200);
    assert!(web.get(&web.client()).await.is_err());
    let unknown = web.client().showing(&Ca::new().sign("scraper"));
    assert!(web.get(&unknown).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn clients_show_a_certificate_under_an_allowed_name() {
    let sans = "  client_allowed_sans: [scraper.example, 10.1.2.3]\n";
    let web = Web::start(&format!("{MUTUAL}{sans}"));
    for (name, is_let_in) in [
        ("scraper.example", true),
        ("10.1.2.3", true),
        ("other.example", false),
        ("a.scraper.example", false),
        ("10.1.2.4", false),
    ] {
        let client = web.client().showing(&web.ca.sign(name));
        assert_eq!(web.get(&client).await.is_ok(), is_let_in, "{name}");
    }
    // Known to bear the name, and signed by someone else.
    let stranger = web.client().showing(&Ca::new().sign("scraper.example"));
    assert!(web.get(&stranger).await.is_err());
}

/// As in Go, no CA means the roots of the system, which a variable names here.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_a_ca_clients_are_signed_by_a_root_of_the_system() {
    let (ca, site) = (Ca::new(), Site::new());
    ca.sign("localhost").write(site.scratch(), "server");
    let root = site.scratch().join("root.pem");
    replace(&root, ca.pem());
    let document = MUTUAL.replace("  client_ca_file: '{ca}'\n", "");
    replace(&file(&site), &filled(&document));
    let variables = [("SSL_CERT_FILE", root.to_str().unwrap())];
    let outrigger = Outrigger::start_with_environment(&variables, &arguments(&site, &[]));
    let client = HttpsClient::new(&ca);
    let known = client.showing(&ca.sign("scraper"));
    let answer = known.get(outrigger.address(), "/-/healthy").await.unwrap();
    assert_eq!(answer.status, 200);
    let unknown = client.showing(&Ca::new().sign("scraper"));
    assert!(
        unknown
            .get(outrigger.address(), "/-/healthy")
            .await
            .is_err()
    );
    outrigger.process.wait_for_line("a warning", |line| {
        line.contains("level=warn") && line.contains("root of this system")
    });
}

/// What Prometheus' own tool says of a document, the same is said here.
#[test]
fn promtool_and_outrigger_agree_on_documents() {
    let (ca, site) = (Ca::new(), Site::new());
    ca.sign("localhost").write(site.scratch(), "server");
    replace(&site.scratch().join("ca.pem"), ca.pem());
    let hash = bcrypt::hash("secret", 4).unwrap();
    let tls = |more: &str| format!("{}{more}", MUTUAL.replace("  client_ca_file: '{ca}'\n", ""));
    for (document, is_good) in [
        (TLS.to_owned(), true),
        (MUTUAL.to_owned(), true),
        (
            tls("  min_version: TLS13\n  prefer_server_cipher_suites: false\n"),
            true,
        ),
        (
            tls("  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n"),
            true,
        ),
        (
            tls("  curve_preferences: [X25519, CurveP256, CurveP384]\n"),
            true,
        ),
        (
            format!("basic_auth_users: {{a: {hash}, b: '{hash}'}}\n"),
            true,
        ),
        (
            "http_server_config: {http2: false, headers: {X-Frame-Options: deny}}\n".into(),
            true,
        ),
        (
            "http_server_config: {headers: {X-XSS-Protection: '1'}}\n".into(),
            true,
        ),
        (tls("  min_versions: TLS13\n"), false),
        (tls("  min_version: TLS14\n"), false),
        (tls("  cipher_suites: [TLS_X]\n"), false),
        (tls("  curve_preferences: [P256]\n"), false),
        (TLS.replace(", key_file: '{key}'", ""), false),
        (TLS.replace("{key}", "none.key"), false),
        (TLS.replace("{key}", "ca.pem"), false),
        (TLS.replace("'}\n", "', client_ca_file: ca.pem}\n"), false),
        (MUTUAL.replace("RequireAnd", "And"), false),
        ("basic_auth_users: {a: secret}\n".into(), false),
        (
            "http_server_config: {headers: {X-Frame-Options: DENY}}\n".into(),
            false,
        ),
        (
            "http_server_config: {headers: {X-Powered-By: x}}\n".into(),
            false,
        ),
        ("http_server_config: {http2: 7}\n".into(), false),
        ("tls_config: {}\n".into(), false),
    ] {
        replace(&file(&site), &filled(&document));
        let checked = promtool_accepts(&["check", "web-config", file(&site).to_str().unwrap()]);
        assert_eq!(checked, is_good, "promtool: {document}");
        let taken = WebAccess::from_file(&file(&site));
        assert_eq!(taken.is_ok(), is_good, "{document}: {taken:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn everything_is_behind_the_password() {
    let web = Web::start(&users(&[("alice", "secret"), ("bob", "b")]));
    for path in ["/-/healthy", "/-/ready", "/metrics", "/nothing"] {
        for credentials in [None, Some(("alice", "wrong")), Some(("mallory", "secret"))] {
            let answer = get_plain(web.address(), path, credentials).await.unwrap();
            assert_eq!(answer.status, 401, "{path} {credentials:?}");
            assert_eq!(answer.headers["www-authenticate"], "Basic");
            assert_eq!(answer.body, "Unauthorized\n");
        }
    }
    for _ in 0..3 {
        let alice = Some(("alice", "secret"));
        let answer = get_plain(web.address(), "/-/healthy", alice).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "OK"));
    }
    let bob = get_plain(web.address(), "/metrics", Some(("bob", "b")))
        .await
        .unwrap();
    assert_eq!(bob.status, 200);
    // Nothing of it stands in the log.
    let (status, log) = web.outrigger.stop();
    assert!(status.success(), "{log}");
    assert!(!log.contains("secret") && !log.contains("$2b$"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn passwords_and_tls_go_together() {
    let web = Web::start(&format!("{TLS}{}", users(&[("alice", "secret")])));
    assert_eq!(web.status(&web.client()).await, 401);
    assert_eq!(
        web.status(&web.client().with_password("alice", "no")).await,
        401
    );
    assert_eq!(
        web.status(&web.client().with_password("alice", "secret"))
            .await,
        200
    );
}

/// A burst passes; the interval is longer than any test.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn past_the_rate_limit_requests_are_refused() {
    let web = Web::start("rate_limit: {interval: 24h, burst: 3}\n");
    let mut seen = Vec::new();
    for _ in 0..5 {
        let answer = get_plain(web.address(), "/-/healthy", None).await.unwrap();
        seen.push(answer.status);
    }
    assert_eq!(seen, [200, 200, 200, 429, 429]);
}

/// Checks of passwords are slow on purpose, and what needs none of them goes on beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_wrong_passwords_do_not_hold_up_those_who_are_known() {
    let hash = bcrypt::hash("secret", 8).unwrap();
    let mut web = Web::start(&format!("basic_auth_users: {{alice: {hash}}}\n"));
    let address = web.address();
    let alice = Some(("alice", "secret"));
    let known = get_plain(address, "/-/healthy", alice).await.unwrap();
    assert_eq!(known.status, 200);
    let guessing: Vec<_> = (0..100)
        .map(|_| tokio::spawn(get_plain(address, "/-/healthy", Some(("alice", "guess")))))
        .collect();
    let known = get_plain(address, "/-/healthy", alice).await.unwrap();
    assert_eq!(known.status, 200);
    let mut seen = Vec::new();
    for guess in guessing {
        seen.push(guess.await.unwrap().unwrap().status);
    }
    assert!(
        seen.iter().all(|status| [401, 503].contains(status)),
        "{seen:?}"
    );
    assert!(seen.contains(&401), "{seen:?}");
    assert!(web.outrigger.process.is_running());
}
