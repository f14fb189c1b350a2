//! What is offered, what is trusted, and which file is at fault.

use rustls::pki_types::UnixTime;
use std::fs;

use super::*;

#[test]
fn aes_128_gcm_is_offered_first_in_both_versions() {
    let suites: Vec<_> = provider().cipher_suites.iter().map(|s| s.suite()).collect();
    assert_eq!(
        suites.first(),
        Some(&CipherSuite::TLS13_AES_128_GCM_SHA256),
        "{suites:?}"
    );
    let first_tls12 = provider()
        .cipher_suites
        .iter()
        .position(|s| s.tls13().is_none());
    let first = format!("{:?}", suites[first_tls12.unwrap()]);
    assert!(first.contains("AES_128_GCM"), "{first}");
}

#[test]
fn errors_name_the_file_at_fault() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent.pem");
    let error = ClientTls {
        ca_file: Some(absent.clone()),
        ..ClientTls::default()
    }
    .build()
    .unwrap_err();
    assert!(matches!(&error, TlsError::Read { path, .. } if *path == absent));
    assert!(error.to_string().contains("absent.pem"));

    let empty = directory.path().join("empty.pem");
    fs::write(&empty, "nothing here\n").unwrap();
    let error = ClientTls {
        ca_file: Some(empty.clone()),
        ..ClientTls::default()
    }
    .build()
    .unwrap_err();
    assert!(matches!(&error, TlsError::Empty { path, .. } if *path == empty));

    let signed = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
    let cert = directory.path().join("cert.pem");
    let key = directory.path().join("key.pem");
    fs::write(&cert, signed.cert.pem()).unwrap();
    fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    let pair = ClientTls {
        cert_file: Some(cert.clone()),
        key_file: Some(key.clone()),
        ..ClientTls::default()
    };
    assert!(matches!(
        pair.build().unwrap_err(),
        TlsError::Identity { .. }
    ));
    fs::write(&key, signed.cert.pem()).unwrap();
    let error = pair.build().unwrap_err();
    assert!(
        matches!(&error, TlsError::Empty { path, wanted: "private key" } if *path == key),
        "{error:?}"
    );
}

#[test]
fn half_an_identity_and_a_bad_server_name_are_refused() {
    let half = ClientTls {
        cert_file: Some(PathBuf::from("/c")),
        ..ClientTls::default()
    };
    assert!(matches!(
        half.build().unwrap_err(),
        TlsError::HalfIdentity {
            missing: "key_file"
        }
    ));
    let name = ClientTls {
        server_name: Some("not a name".to_owned()),
        ..ClientTls::default()
    };
    assert!(matches!(
        name.build().unwrap_err(),
        TlsError::ServerName { .. }
    ));
}

/// Verifies a self-signed certificate, marked as an authority, against itself.
fn verify_self_signed(name: &str, valid: bool, named: bool) -> Result<(), rustls::Error> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["peer.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    if !valid {
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    }
    let certificate = params.self_signed(&key).unwrap();
    let other = params
        .self_signed(&rcgen::KeyPair::generate().unwrap())
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    fs::write(
        &ca_file,
        if named {
            certificate.pem()
        } else {
            other.pem()
        },
    )
    .unwrap();
    let tls = ClientTls {
        ca_file: Some(ca_file),
        ..ClientTls::default()
    };
    let verifier = tls.verifier(&Arc::new(provider())).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_700_000_000));
    let outcome = verifier.verify_server_cert(certificate.der(), &[], &name, &[], now);
    outcome.map(|_| ())
}

#[test]
fn a_named_self_signed_certificate_is_trusted_under_its_name_and_in_its_time() {
    verify_self_signed("peer.example", true, true).unwrap();
    let error = verify_self_signed("other.example", true, true).unwrap_err();
    assert!(
        format!("{error:?}").contains("NotValidForName"),
        "{error:?}"
    );
    let error = verify_self_signed("peer.example", false, true).unwrap_err();
    assert!(format!("{error:?}").contains("Expired"), "{error:?}");
    assert!(verify_self_signed("peer.example", true, false).is_err());
}
