//! `NO_PROXY`: which targets are reached without a proxy, read as Go's `httpproxy` reads it.
//!
//! A comma list of `*`, host names (the domain and all below it), names with a leading `.` or `*.`
//! (only what is below), addresses and address ranges in CIDR form, each but the ranges with an
//! optional port. Loopback never goes through a proxy.

use std::net::IpAddr;

/// The parsed list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NoProxy {
    all: bool,
    domains: Vec<Domain>,
    addresses: Vec<(IpAddr, Option<u16>)>,
    ranges: Vec<(IpAddr, u8)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Domain {
    /// With a leading dot.
    suffix: String,
    /// Whether the name itself counts, too.
    is_whole: bool,
    port: Option<u16>,
}

// === impl NoProxy ===

impl NoProxy {
    /// Reads the list; what is none of the forms is left out, as in Go.
    pub(super) fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for item in text.split(',') {
            let item = item.trim().to_ascii_lowercase();
            match item.as_str() {
                "" => {}
                "*" => list.all = true,
                item => list.add(item),
            }
        }
        list
    }

    fn add(&mut self, item: &str) {
        if let Some(range) = parse_range(item) {
            self.ranges.push(range);
            return;
        }
        let (host, port) = match split_port(item) {
            Some((host, port)) => match port.parse() {
                Ok(port) => (host, Some(port)),
                // A port that is none matches no target.
                Err(_) => return,
            },
            None => (item, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return;
        }
        if let Ok(address) = host.parse() {
            self.addresses.push((address, port));
            return;
        }
        let name = host.strip_prefix('*').filter(|rest| rest.starts_with('.'));
        let name = name.unwrap_or(host);
        self.domains.push(match name.starts_with('.') {
            true => Domain {
                suffix: name.to_owned(),
                is_whole: false,
                port,
            },
            false => Domain {
                suffix: format!(".{name}"),
                is_whole: true,
                port,
            },
        });
    }

    /// Whether `host` (a name or an address without brackets) is reached directly.
    pub(super) fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.trim().to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let fits = |wanted: Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        let is_address = |address: IpAddr| {
            let single = |(listed, wanted): &(IpAddr, Option<u16>)| {
                *listed == address.to_canonical() && fits(*wanted)
            };
            let within = |(network, bits): &(IpAddr, u8)| is_within(address, *network, *bits);
            self.addresses.iter().any(single) || self.ranges.iter().any(within)
        };
        let is_domain = |domain: &Domain| {
            let name = domain.suffix.strip_prefix('.').unwrap_or_default();
            let is_below = host.ends_with(&domain.suffix);
            (is_below || (domain.is_whole && host == name)) && fits(domain.port)
        };
        self.all || address.is_some_and(is_address) || self.domains.iter().any(is_domain)
    }
}

/// `host:port`, `[v6]:port`; not a bare IPv6 address.
fn split_port(item: &str) -> Option<(&str, &str)> {
    let (host, port) = item.rsplit_once(':')?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    (is_bracketed || !host.contains(':')).then_some((host, port))
}

fn parse_range(item: &str) -> Option<(IpAddr, u8)> {
    let (network, bits) = item.split_once('/')?;
    let network: IpAddr = network.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    let bits_max = if network.is_ipv4() { 32 } else { 128 };
    (bits <= bits_max).then_some((network, bits))
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let prefix = |value: u128, width: u32| match bits {
        0 => 0,
        bits => value >> (width - u32::from(bits)),
    };
    match (address.to_canonical(), network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let (address, network) = (address.to_bits(), network.to_bits());
            prefix(u128::from(address), 32) == prefix(u128::from(network), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            prefix(address.to_bits(), 128) == prefix(network.to_bits(), 128)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets_are_matched_as_go_matches_them() {
        for (list, host, port, direct) in [
            ("", "s3.example", 443, false),
            ("", "localhost", 80, true),
            ("", "LOCALHOST", 80, true),
            ("", "127.3.2.1", 80, true),
            ("", "::1", 80, true),
            ("*", "s3.example", 443, true),
            ("a,*", "10.0.0.1", 443, true),
            ("example", "s3.example", 443, true),
            ("example", "example", 443, true),
            ("example", "notexample", 443, false),
            (".example", "s3.example", 443, true),
            (".example", "example", 443, false),
            ("*.example", "a.s3.example", 443, true),
            ("*.example", "example", 443, false),
            ("S3.Example", "s3.eXample", 443, true),
            (" a , s3.example ", "s3.example", 443, true),
            ("s3.example:443", "s3.example", 443, true),
            ("s3.example:443", "s3.example", 9000, false),
            (".example:9000", "s3.example", 9000, true),
            ("s3.example:https", "s3.example", 443, false),
            (":443", "s3.example", 443, false),
            ("10.0.0.1", "10.0.0.1", 443, true),
            ("10.0.0.1", "10.0.0.10", 443, false),
            ("10.0.0.1:80", "10.0.0.1", 443, false),
            ("10.0.0.1:443", "10.0.0.1", 443, true),
            ("10.0.0.0/8", "10.255.0.1", 443, true),
            ("10.0.0.0/8", "11.0.0.1", 443, false),
            ("10.0.0.0/8", "name.10", 443, false),
            ("0.0.0.0/0", "11.0.0.1", 443, true),
            ("0.0.0.0/0", "fd00::1", 443, false),
            ("10.0.0.0/33", "10.0.0.0", 443, false),
            ("fd00:ec2::/32", "fd00:ec2::254", 80, true),
            ("fd00::1", "fd00::1", 80, true),
            ("[fd00::1]:80", "fd00::1", 80, true),
            ("[fd00::1]:80", "fd00::1", 81, false),
            ("::/0", "fd00::1", 81, true),
            ("169.254.169.254,.internal", "metadata.internal", 80, true),
        ] {
            let covers = NoProxy::parse(list).covers(host, port);
            assert_eq!(covers, direct, "{list:?} {host} {port}");
        }
    }

    proptest! {
        #[test]
        fn any_list_is_read(list in "[a-z0-9.,:*/\\[\\] ]{0,60}", host in "[a-z0-9.:]{0,20}") {
            NoProxy::parse(&list).covers(&host, 443);
        }

        #[test]
        fn a_range_covers_what_shares_its_first_bits(
            address: u32, bits in 0u8..=32, flipped in 0u32..32,
        ) {
            let network = std::net::Ipv4Addr::from_bits(address);
            prop_assume!(!network.is_loopback());
            let other = std::net::Ipv4Addr::from_bits(address ^ (1 << flipped));
            prop_assume!(!other.is_loopback());
            let list = NoProxy::parse(&format!("{network}/{bits}"));
            prop_assert!(list.covers(&network.to_string(), 1));
            // Bit `flipped` counts from the right, the range's bits from the left.
            let shared = 32 - u32::from(bits) > flipped;
            prop_assert_eq!(list.covers(&other.to_string(), 1), shared);
        }
    }
}
