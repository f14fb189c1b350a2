//! Go's words for TLS: what is taken, left out, refused.

use super::*;
use crate::net::http::TestCa;

fn with_files(ca: &TestCa) -> ServerTls {
    let (cert, key) = ca.issue("localhost");
    ServerTls {
        cert: Some(cert),
        key: Some(key),
        ..ServerTls::default()
    }
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn half_an_identity_is_refused_in_the_references_words_and_none_is_no_tls() {
    assert!(ServerTls::default().build().unwrap().is_none());
    let half = ServerTls {
        cert: Some(PathBuf::from("/c")),
        ..ServerTls::default()
    };
    let error = half.build().unwrap_err().to_string();
    assert_eq!(error, "both server key and certificate must be provided");
    let alone = ServerTls {
        client_ca: Some(PathBuf::from("/c")),
        ..ServerTls::default()
    };
    let error = alone.build().unwrap_err().to_string();
    let wanted = "when a client CA is used a server key and certificate must also be provided";
    assert_eq!(error, wanted);
}

#[test]
fn a_client_ca_file_without_a_certificate_is_an_error_that_names_it() {
    let ca = TestCa::new();
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty-ca.pem");
    std::fs::write(&empty, "").unwrap();
    let tls = ServerTls {
        client_ca: Some(empty.clone()),
        ..with_files(&ca)
    };
    let error = tls.build().unwrap_err();
    assert!(
        matches!(&error, TlsError::Empty { path, .. } if *path == empty),
        "{error:?}"
    );
}

#[test]
fn every_name_of_go_is_taken_and_what_is_lacking_is_left_out_with_a_warning() {
    let ca = TestCa::new();
    let tls = ServerTls {
        ciphers: CIPHERS.iter().map(|(name, _)| (*name).to_owned()).collect(),
        curves: list(&["CurveP256, CurveP384,CurveP521", "X25519", "X25519MLKEM768"]),
        min_version: TlsVersion::parse("1.1").unwrap(),
        ..with_files(&ca)
    };
    let warnings: Vec<String> = tls
        .build()
        .unwrap()
        .unwrap()
        .warnings()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(warnings.len(), 1 + 4 + 1, "{warnings:?}");
    assert!(warnings[0].contains("TLS 1.1"), "{warnings:?}");
    assert!(
        warnings
            .iter()
            .any(|w| w.contains("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"))
    );
    assert!(warnings.iter().any(|w| w.contains("CurveP521")));
    for version in ["1.0", "1.1", "1.2", "1.3"] {
        assert_eq!(TlsVersion::parse(version).unwrap().name(), version);
    }
    assert_eq!(TlsVersion::parse("1.4"), None);
    let plain = with_files(&ca).build().unwrap().unwrap();
    assert!(plain.warnings().is_empty());
}

#[test]
fn unknown_names_are_refused_with_those_allowed_and_so_is_an_empty_rest() {
    let ca = TestCa::new();
    let ciphers = |names: &[&str]| {
        let ciphers = list(names);
        ServerTls {
            ciphers,
            ..with_files(&ca)
        }
        .build()
    };
    let curves = |names: &[&str]| {
        let curves = list(names);
        ServerTls {
            curves,
            ..with_files(&ca)
        }
        .build()
    };
    let error = ciphers(&["TLS_RSA_WITH_RC4_128_SHA"])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("invalid cipher suite: TLS_RSA_WITH_RC4_128_SHA, valid"),
        "{error}"
    );
    assert!(error.contains("TLS_AES_128_GCM_SHA256"), "{error}");
    let error = curves(&["P256"]).unwrap_err().to_string();
    assert!(
        error.starts_with("invalid curve: P256") && error.contains("CurveP256"),
        "{error}"
    );
    let none = ciphers(&["TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"]).unwrap_err();
    assert!(matches!(none, TlsError::NoCipherLeft));
    assert!(matches!(
        curves(&["CurveP521"]).unwrap_err(),
        TlsError::NoCurveLeft
    ));
}

#[test]
fn chosen_suites_bind_tls_1_2_alone_as_in_go() {
    let tls = ServerTls {
        ciphers: list(&["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]),
        ..ServerTls::default()
    };
    let suites = tls.cipher_suites(&mut Vec::new()).unwrap();
    let (tls13, tls12): (Vec<_>, Vec<&SupportedCipherSuite>) =
        suites.iter().partition(|s| s.tls13().is_some());
    assert_eq!(tls13.len(), 3);
    let tls12: Vec<_> = tls12.iter().map(|s| s.suite()).collect();
    assert_eq!(tls12, [CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]);
}
