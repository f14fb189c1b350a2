//! The subject alternative names of a certificate, as texts: DNS names, mail and IP addresses, URIs
//! (RFC 5280 §4.2.1.6).
//!
//! The certificate library compares a name with them and does not list them; what is wanted here
//! is an exact match with one of a list, so that `*.example.com` is not `a.example.com`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
/// `[3]` of `TBSCertificate`.
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.17.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
const RFC822_NAME: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const IP_ADDRESS: u8 = 0x87;

/// The names in a certificate in DER; none where it has none. `None` where it is malformed.
pub(super) fn subject_alternative_names(certificate: &[u8]) -> Option<Vec<String>> {
    let mut certificate = only(certificate, SEQUENCE)?;
    let (tag, to_be_signed) = element(&mut certificate)?;
    let mut rest = (tag == SEQUENCE).then_some(to_be_signed)?;
    let mut names = Vec::new();
    while !rest.is_empty() {
        let (tag, contents) = element(&mut rest)?;
        if tag == EXTENSIONS {
            let mut extensions = only(contents, SEQUENCE)?;
            while !extensions.is_empty() {
                let (tag, mut extension) = element(&mut extensions)?;
                let (kind, identifier) = element(&mut extension)?;
                if (tag, kind) != (SEQUENCE, OBJECT_IDENTIFIER) {
                    return None;
                }
                if identifier == SUBJECT_ALT_NAME {
                    add_names(extension, &mut names)?;
                }
            }
        }
    }
    Some(names)
}

/// `rest` is what follows the identifier of the extension: whether it is critical, if told, and
/// the value.
fn add_names(mut rest: &[u8], names: &mut Vec<String>) -> Option<()> {
    loop {
        let (tag, contents) = element(&mut rest)?;
        if tag != OCTET_STRING {
            continue;
        }
        let mut values = only(contents, SEQUENCE)?;
        while !values.is_empty() {
            let (tag, value) = element(&mut values)?;
            match tag {
                RFC822_NAME | DNS_NAME | URI => {
                    names.push(std::str::from_utf8(value).ok()?.to_owned());
                }
                IP_ADDRESS => names.push(ip_address(value)?.to_canonical().to_string()),
                _ => {}
            }
        }
        return rest.is_empty().then_some(());
    }
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// The contents of the one element that `bytes` must be.
fn only(mut bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let (found, contents) = element(&mut bytes)?;
    (found == tag && bytes.is_empty()).then_some(contents)
}

/// Takes one element off the front: its tag and contents.
fn element<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    // Tags of several bytes do not occur in certificates.
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The length in so many bytes; a certificate is no longer than three of them tell.
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = length
                .iter()
                .fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some((tag, contents))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        let certificate = params.self_signed(&KeyPair::generate().unwrap());
        certificate.unwrap().der().to_vec()
    }

    fn every_kind() -> Vec<u8> {
        certificate(vec![
            SanType::DnsName("a.example.com".try_into().unwrap()),
            SanType::DnsName("*.example.com".try_into().unwrap()),
            SanType::Rfc822Name("ops@example.com".try_into().unwrap()),
            SanType::URI("spiffe://example.com/scraper".try_into().unwrap()),
            SanType::IpAddress("10.1.2.3".parse().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
            SanType::IpAddress("::ffff:10.9.8.7".parse().unwrap()),
        ])
    }

    #[test]
    fn every_kind_of_name_is_read() {
        let names = subject_alternative_names(&every_kind()).unwrap();
        assert_eq!(
            names,
            [
                "a.example.com",
                "*.example.com",
                "ops@example.com",
                "spiffe://example.com/scraper",
                "10.1.2.3",
                "2001:db8::1",
                "10.9.8.7",
            ]
        );
        assert_eq!(
            subject_alternative_names(&certificate(Vec::new())),
            Some(Vec::new())
        );
    }

    #[test]
    fn a_certificate_cut_short_anywhere_has_no_names() {
        let whole = every_kind();
        for length in 0..whole.len() {
            assert_eq!(
                subject_alternative_names(&whole[..length]),
                None,
                "{length}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_names_or_nothing(at: prop::sample::Index, byte: u8, noise: Vec<u8>) {
            let mut changed = every_kind();
            let at = at.index(changed.len());
            changed[at] = byte;
            drop(subject_alternative_names(&changed));
            drop(subject_alternative_names(&noise));
        }
    }
}
