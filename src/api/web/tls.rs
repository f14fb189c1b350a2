//! The mapping `tls_server_config` of a web configuration.

use std::path::Path;

use super::config::WebDocumentError;
use crate::model::{Mapping, Scalar};
use crate::net::{ClientAuth, HttpsTls, PemSource, TlsCipher, TlsCurve, TlsError, TlsVersion};

/// Reads the mapping; `None` where it does not ask for TLS. Relative paths begin at `directory`.
pub(super) fn parse_tls(
    mut mapping: Mapping<'_>,
    directory: &Path,
    http2: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<HttpsTls>, WebDocumentError> {
    let here = Scalar {
        text: String::new(),
        key: "tls_server_config".to_owned(),
        line: mapping.line(),
    };
    let is_there = !mapping.is_empty();
    let mut pem = |mapping: &mut Mapping<'_>, inline, file| {
        pem_source(
            mapping.scalar(inline)?,
            mapping.scalar(file)?,
            directory,
            warnings,
        )
    };
    let cert = pem(&mut mapping, "cert", "cert_file")?;
    let key = pem(&mut mapping, "key", "key_file")?;
    let client_ca = pem(&mut mapping, "client_ca", "client_ca_file")?;
    let auth_type = mapping.scalar("client_auth_type")?;
    let client_auth = auth_type.as_ref().map(client_auth).transpose()?;
    let client_allowed_sans = mapping.scalars("client_allowed_sans")?;
    let min_version = mapping.scalar("min_version")?;
    let max_version = mapping.scalar("max_version")?;
    let ciphers = names(&mut mapping, "cipher_suites", TlsCipher::parse)?;
    let curves = names(&mut mapping, "curve_preferences", TlsCurve::parse)?;
    let prefer_server = mapping.boolean("prefer_server_cipher_suites")?;
    mapping.end()?;

    let is_asked_for = cert.is_some() || key.is_some() || client_ca.is_some();
    if !is_asked_for && auth_type.is_none() && client_allowed_sans.is_none() {
        if is_there {
            warnings.push(
                "`tls_server_config` has no cert_file: the HTTP server speaks plain text".into(),
            );
        }
        return Ok(None);
    }
    let lacks = |what: &str| {
        let reason = format!("{what} is missing");
        WebDocumentError::refused(&here, reason)
    };
    let tls = HttpsTls {
        cert: cert.ok_or_else(|| lacks("cert_file (or cert)"))?,
        key: key.ok_or_else(|| lacks("key_file (or key)"))?,
        client_auth: client_auth.unwrap_or_default(),
        client_ca,
        client_allowed_sans: client_allowed_sans
            .map(|names| names.into_iter().map(|name| name.text).collect()),
        min_version: version(min_version.as_ref(), TlsVersion::Tls12)?,
        max_version: version(max_version.as_ref(), TlsVersion::Tls13)?,
        ciphers,
        curves,
        prefer_server_ciphers: prefer_server.unwrap_or(true),
        http2,
    };
    if let (Some(min), TlsVersion::Tls13, TlsVersion::Tls12) =
        (&min_version, tls.min_version, tls.max_version)
    {
        return Err(WebDocumentError::refused(min, "newer than max_version"));
    }
    check_clients(&tls, auth_type.as_ref().unwrap_or(&here), warnings)?;
    Ok(Some(tls))
}

/// What must fit together about clients' certificates.
fn check_clients(
    tls: &HttpsTls,
    auth_type: &Scalar,
    warnings: &mut Vec<String>,
) -> Result<(), WebDocumentError> {
    let auth = tls.client_auth;
    if tls.client_ca.is_some() && auth == ClientAuth::NoClientCert {
        let reason = "a client CA is given and clients are not asked for a certificate, want \
                      client_auth_type: RequireAndVerifyClientCert";
        return Err(WebDocumentError::refused(auth_type, reason));
    }
    if tls.client_allowed_sans.is_some() && !auth.is_mandatory() {
        let reason = "client_allowed_sans is given and clients need not show a certificate, want \
                      client_auth_type: RequireAndVerifyClientCert or RequireAnyClientCert";
        return Err(WebDocumentError::refused(auth_type, reason));
    }
    if tls.client_ca.is_some() && !auth.is_verified() {
        let name = auth.name();
        warnings.push(format!(
            "`client_auth_type: {name}` does not check who signed a client's certificate, the \
             client CA has no effect; RequireAndVerifyClientCert does"
        ));
    }
    if tls.client_ca.is_none() && auth.is_verified() {
        warnings.push(
            "without client_ca_file every client is let in whose certificate was signed by a \
             root of this system"
                .to_owned(),
        );
    }
    Ok(())
}

fn client_auth(scalar: &Scalar) -> Result<ClientAuth, WebDocumentError> {
    ClientAuth::parse(&scalar.text).ok_or_else(|| {
        let names = ClientAuth::ALL.map(ClientAuth::name);
        WebDocumentError::not_allowed(scalar, &names)
    })
}

fn version(scalar: Option<&Scalar>, default: TlsVersion) -> Result<TlsVersion, WebDocumentError> {
    let Some(scalar) = scalar else {
        return Ok(default);
    };
    match scalar.text.as_str() {
        "TLS13" => Ok(TlsVersion::Tls13),
        "TLS12" => Ok(TlsVersion::Tls12),
        "TLS10" | "TLS11" => {
            let reason = "TLS 1.0 and 1.1 are broken and not spoken here, want TLS12 or TLS13";
            Err(WebDocumentError::refused(scalar, reason))
        }
        _ => Err(WebDocumentError::not_allowed(scalar, &["TLS12", "TLS13"])),
    }
}

fn names<T>(
    mapping: &mut Mapping<'_>,
    key: &'static str,
    parse: fn(&str) -> Result<T, TlsError>,
) -> Result<Vec<T>, WebDocumentError> {
    let parsed = |scalar: Scalar| {
        parse(&scalar.text).map_err(|source| WebDocumentError::Tls {
            key: scalar.key,
            line: scalar.line,
            source: Box::new(source),
        })
    };
    let scalars = mapping.scalars(key)?.unwrap_or_default();
    scalars.into_iter().map(parsed).collect()
}

/// The file wins over the text, as in the reference.
fn pem_source(
    inline: Option<Scalar>,
    file: Option<Scalar>,
    directory: &Path,
    warnings: &mut Vec<String>,
) -> Result<Option<PemSource>, WebDocumentError> {
    if let (Some(inline), Some(file)) = (&inline, &file) {
        warnings.push(format!(
            "both `{}` and `{}` are given, the file counts",
            inline.key, file.key
        ));
    }
    let file = file.map(|file| PemSource::File(directory.join(file.text)));
    let inline = inline.map(|inline| PemSource::Inline {
        name: format!("`{}` in line {}", inline.key, inline.line),
        text: inline.text,
    });
    Ok(file.or(inline))
}
