//! Handshakes with clients of every kind.

use std::path::PathBuf;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;

use super::*;
use crate::net::http::TestCa;

/// What a client brings: certificate, key, and the versions it speaks.
struct Client<'a> {
    trusted: &'a TestCa,
    identity: Option<(PathBuf, PathBuf)>,
    versions: &'a [&'static SupportedProtocolVersion],
    alpn: &'a [&'a [u8]],
}

/// What came of a handshake.
#[derive(Debug)]
struct Agreed {
    alpn: Option<Vec<u8>>,
    version: ProtocolVersion,
    suite: CipherSuite,
}

fn server(ca: &TestCa) -> HttpsTls {
    let (cert, key) = ca.issue("localhost");
    HttpsTls {
        cert: PemSource::File(cert),
        key: PemSource::File(key),
        client_auth: ClientAuth::NoClientCert,
        client_ca: None,
        client_allowed_sans: None,
        min_version: TlsVersion::Tls12,
        max_version: TlsVersion::Tls13,
        ciphers: Vec::new(),
        curves: Vec::new(),
        prefer_server_ciphers: true,
        http2: true,
    }
}

fn client(trusted: &TestCa) -> Client<'_> {
    Client {
        trusted,
        identity: None,
        versions: rustls::ALL_VERSIONS,
        alpn: &[],
    }
}

/// As the server sees it: with TLS 1.3 a client learns of its refusal only later.
async fn handshake(tls: &HttpsTls, client: &Client<'_>) -> Result<Agreed, String> {
    let acceptor = tls.build().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(client.trusted.ca_file()).unwrap();
    roots.add(ca).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(client.versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match &client.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = client.alpn.iter().map(|alpn| alpn.to_vec()).collect();
    let connector = TlsConnector::from(Arc::new(config));
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").unwrap();
    let (accepted, _) = tokio::join!(acceptor.accept(ours), connector.connect(name, theirs));
    let stream = accepted.map_err(|error| error.to_string())?;
    let connection = stream.get_ref().1;
    Ok(Agreed {
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        version: connection.protocol_version().unwrap(),
        suite: connection.negotiated_cipher_suite().unwrap().suite(),
    })
}

#[tokio::test]
async fn each_way_to_ask_for_certificates_lets_in_whom_it_should() {
    use ClientAuth::*;
    let (ca, stranger) = (TestCa::new(), TestCa::new());
    for (client_auth, without, with_known, with_unknown) in [
        (NoClientCert, true, true, true),
        (RequestClientCert, true, true, true),
        (RequireAnyClientCert, false, true, true),
        (VerifyClientCertIfGiven, true, true, false),
        (RequireAndVerifyClientCert, false, true, false),
    ] {
        let tls = HttpsTls {
            client_auth,
            client_ca: client_auth
                .is_verified()
                .then(|| PemSource::File(ca.ca_file())),
            ..server(&ca)
        };
        for (identity, is_let_in) in [
            (None, without),
            (Some(ca.issue("known")), with_known),
            (Some(stranger.issue("unknown")), with_unknown),
        ] {
            for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
                let client = Client {
                    identity: identity.clone(),
                    versions: &[version],
                    ..client(&ca)
                };
                let outcome = handshake(&tls, &client).await;
                assert_eq!(
                    outcome.is_ok(),
                    is_let_in,
                    "{client_auth:?} {identity:?} {version:?}: {outcome:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn one_of_the_names_must_be_in_the_certificate_to_the_letter() {
    let ca = TestCa::new();
    for (allowed, is_let_in) in [
        (&["scraper.example"][..], true),
        (&["other", "scraper.example"], true),
        (&["example"], false),
        (&["*.example"], false),
        (&["SCRAPER.example"], false),
        (&[], false),
    ] {
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        for client_auth in [
            ClientAuth::RequireAndVerifyClientCert,
            ClientAuth::RequireAnyClientCert,
        ] {
            let tls = HttpsTls {
                client_auth,
                client_ca: Some(PemSource::File(ca.ca_file())),
                client_allowed_sans: Some(allowed.clone()),
                ..server(&ca)
            };
            let client = Client {
                identity: Some(ca.issue("scraper.example")),
                ..client(&ca)
            };
            let outcome = handshake(&tls, &client).await;
            assert_eq!(outcome.is_ok(), is_let_in, "{allowed:?}: {outcome:?}");
        }
    }
    let tls = HttpsTls {
        client_auth: ClientAuth::RequireAndVerifyClientCert,
        client_ca: Some(PemSource::File(ca.ca_file())),
        client_allowed_sans: Some(vec!["10.1.2.3".to_owned()]),
        ..server(&ca)
    };
    let by_address = Client {
        identity: Some(ca.issue("10.1.2.3")),
        ..client(&ca)
    };
    handshake(&tls, &by_address).await.unwrap();
}

#[tokio::test]
async fn only_the_versions_asked_for_are_spoken() {
    use TlsVersion::{Tls12, Tls13};
    let ca = TestCa::new();
    for (min_version, max_version, spoken) in [
        (Tls12, Tls13, [true, true]),
        (Tls12, Tls12, [true, false]),
        (Tls13, Tls13, [false, true]),
    ] {
        let tls = HttpsTls {
            min_version,
            max_version,
            ..server(&ca)
        };
        let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
        for (version, is_spoken) in versions.into_iter().zip(spoken) {
            let client = Client {
                versions: &[version],
                ..client(&ca)
            };
            let outcome = handshake(&tls, &client).await;
            assert_eq!(outcome.is_ok(), is_spoken, "{min_version:?} {version:?}");
            assert!(outcome.is_err() || outcome.unwrap().version == version.version);
        }
    }
}

#[tokio::test]
async fn cipher_suites_bind_tls_1_2_in_the_order_of_the_document() {
    let ca = TestCa::new();
    let first = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    let second = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    let ciphers = [first, second].map(|name| TlsCipher::parse(name).unwrap());
    for (prefer_server_ciphers, expected) in [
        (
            true,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
        // The client's own order begins with AES.
        (false, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ] {
        let tls = HttpsTls {
            ciphers: ciphers.to_vec(),
            prefer_server_ciphers,
            ..server(&ca)
        };
        let old = Client {
            versions: &[&rustls::version::TLS12],
            ..client(&ca)
        };
        assert_eq!(handshake(&tls, &old).await.unwrap().suite, expected);
        let new = handshake(&tls, &client(&ca)).await.unwrap();
        assert_eq!(new.version, ProtocolVersion::TLSv1_3);
    }
}

#[tokio::test]
async fn http2_is_offered_first_unless_it_is_off() {
    let ca = TestCa::new();
    let both: &[&[u8]] = &[b"http/1.1", b"h2"];
    for (http2, alpn, expected) in [
        (true, both, Some(&b"h2"[..])),
        (false, both, Some(b"http/1.1")),
        (true, &[b"http/1.1"], Some(b"http/1.1")),
        (true, &[], None),
    ] {
        let tls = HttpsTls {
            http2,
            ..server(&ca)
        };
        let client = Client {
            alpn,
            ..client(&ca)
        };
        let agreed = handshake(&tls, &client).await.unwrap();
        assert_eq!(agreed.alpn.as_deref(), expected);
    }
}

#[tokio::test]
async fn pem_may_stand_in_the_document() {
    let ca = TestCa::new();
    let (cert, key) = ca.issue("localhost");
    let inline = |path: PathBuf, name: &str| PemSource::Inline {
        text: std::fs::read_to_string(path).unwrap(),
        name: name.to_owned(),
    };
    let tls = HttpsTls {
        cert: inline(cert, "`cert`"),
        key: inline(key, "`key`"),
        client_auth: ClientAuth::RequireAndVerifyClientCert,
        client_ca: Some(inline(ca.ca_file(), "`client_ca`")),
        ..server(&ca)
    };
    let known = Client {
        identity: Some(ca.issue("known")),
        ..client(&ca)
    };
    handshake(&tls, &known).await.unwrap();
    assert!(!format!("{tls:?}").contains("PRIVATE KEY"));
    let broken = HttpsTls {
        key: PemSource::Inline {
            text: "no key".to_owned(),
            name: "`key`".to_owned(),
        },
        ..tls
    };
    let error = broken.build().unwrap_err().to_string();
    assert_eq!(error, "`key` holds no usable private key");
}

#[test]
fn every_name_of_go_is_known_and_what_is_lacking_is_told() {
    for (name, suite) in CIPHERS {
        assert_eq!(TlsCipher::parse(name).is_ok(), suite.is_some(), "{name}");
    }
    for (name, group) in CURVES {
        assert_eq!(TlsCurve::parse(name).is_ok(), group.is_some(), "{name}");
    }
    for name in ClientAuth::ALL.map(ClientAuth::name) {
        assert_eq!(ClientAuth::parse(name).unwrap().name(), name);
    }
    assert_eq!(ClientAuth::parse("noclientcert"), None);
}
