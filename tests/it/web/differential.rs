//! The same file for a real Prometheus and for outrigger: who is let in, and what the others hear,
//! must be the same.

use super::*;
use crate::support::{Prometheus, PrometheusSetup};

/// Both behind the file of one site.
struct Both {
    web: Web,
    prometheus: Prometheus,
}

impl Both {
    fn start(document: &str) -> Self {
        let web = Web::start(document);
        let setup = PrometheusSetup {
            flags: vec![format!("--web.config.file={}", file(&web.site).display())],
            ..PrometheusSetup::default()
        };
        let data = web.site.scratch().join("prometheus-data");
        let prometheus = Prometheus::spawn(&data, &setup);
        Self { web, prometheus }
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        [self.web.address(), self.prometheus.address()]
    }

    /// What both answer, found to be the same; the status, or none where nobody is let in.
    async fn status(&self, client: &HttpsClient) -> Option<u16> {
        let mut told = Vec::new();
        for address in self.addresses() {
            let answer = client.get(address, "/-/healthy").await;
            told.push(answer.ok().map(|answer| essence(&answer)));
        }
        assert_eq!(told[0], told[1]);
        told.remove(0).map(|(status, ..)| status)
    }
}

type Essence = (u16, http::Version, Vec<Option<String>>, Option<String>);

/// What must be the same: all but the text of a good answer.
fn essence(answer: &Answer) -> Essence {
    let header = |name: &str| {
        let value = answer.headers.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let headers = [
        "content-type",
        "www-authenticate",
        "x-content-type-options",
        "x-frame-options",
        "content-security-policy",
    ];
    let body = (answer.status != 200).then(|| answer.body.clone());
    let headers = headers.into_iter().map(header).collect();
    (answer.status, answer.version, headers, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn passwords_and_headers_over_tls() {
    let headers = "http_server_config: {headers: {X-Frame-Options: deny, \
                   Content-Security-Policy: \"default-src 'self'\"}}\n";
    let with = |named: &[(&str, &str)]| format!("{TLS}{headers}{}", users(named));
    let both = Both::start(&with(&[("alice", "secret"), ("bob", "")]));
    let client = || both.web.client();
    assert_eq!(both.status(&client()).await, Some(401));
    for (user, password, expected) in [
        ("alice", "secret", 200),
        ("alice", "Secret", 401),
        ("bob", "", 200),
        ("bob", "secret", 401),
        ("mallory", "secret", 401),
        ("", "", 401),
    ] {
        let client = client().with_password(user, password);
        assert_eq!(
            both.status(&client).await,
            Some(expected),
            "{user}:{password}"
        );
    }
    let stranger = HttpsClient::new(&Ca::new());
    assert_eq!(both.status(&stranger).await, None);
    // Both see the new file at once.
    both.web.write(&with(&[("alice", "new")]));
    for (password, expected) in [("secret", 401), ("new", 200)] {
        let client = client().with_password("alice", password);
        assert_eq!(both.status(&client).await, Some(expected), "{password}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_way_to_ask_for_client_certificates() {
    let stranger = Ca::new();
    for (client_auth, without, known, unknown) in [
        ("NoClientCert", true, true, true),
        ("RequestClientCert", true, true, true),
        ("RequireAnyClientCert", false, true, true),
        ("RequireClientCert", false, true, true),
        ("VerifyClientCertIfGiven", true, true, false),
        ("RequireAndVerifyClientCert", false, true, false),
    ] {
        let document = MUTUAL.replace("RequireAndVerifyClientCert", client_auth);
        let document = match client_auth {
            "NoClientCert" => document.replace("  client_ca_file: '{ca}'\n", ""),
            _ => document,
        };
        let both = Both::start(&document);
        let client = both.web.client();
        for (client, is_let_in) in [
            (client.showing(&both.web.ca.sign("scraper")), known),
            (client.showing(&stranger.sign("scraper")), unknown),
            (client, without),
        ] {
            let expected = is_let_in.then_some(200);
            assert_eq!(both.status(&client).await, expected, "{client_auth}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn versions_and_protocols() {
    let (tls12, tls13) = (&rustls::version::TLS12, &rustls::version::TLS13);
    for (more, with_12, with_13) in [
        ("", true, true),
        ("  max_version: TLS12\n", true, false),
        ("  min_version: TLS13\n", false, true),
        ("http_server_config: {http2: false}\n", true, true),
    ] {
        let document = MUTUAL.split_once("  client_auth_type").unwrap().0;
        let both = Both::start(&format!("{document}{more}"));
        for (version, is_spoken) in [(tls12, with_12), (tls13, with_13)] {
            let client = both.web.client().with_version(version);
            let expected = is_spoken.then_some(200);
            assert_eq!(both.status(&client).await, expected, "{more} {version:?}");
        }
    }
}
