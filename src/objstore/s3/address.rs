//! Where a bucket is: host, path and region, from the endpoint and the ways S3 has to address
//! (contract `objstore.md` §2: `bucket_lookup_type`, `disable_dualstack`, `region`).

use super::{Addressing, S3Config};

/// The region that is signed for where nobody says another.
pub(super) const REGION_DEFAULT: &str = "us-east-1";

/// Requests of one bucket, all but the region they are signed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) tls: bool,
    /// `host[:port]`, as the endpoint has it.
    endpoint: String,
    bucket: String,
    dualstack: bool,
    virtual_hosted: bool,
}

// === impl Address ===

impl Address {
    pub(super) fn new(config: &S3Config) -> Self {
        let tls = !config.insecure;
        let endpoint = config.endpoint.trim_end_matches('/').to_ascii_lowercase();
        // Host headers don't bear the scheme's own port, and signatures cover that header.
        let default_port = if tls { ":443" } else { ":80" };
        let endpoint = endpoint
            .strip_suffix(default_port)
            .unwrap_or(&endpoint)
            .to_owned();
        let host = host_of(&endpoint);
        let virtual_hosted = match config.addressing {
            Addressing::VirtualHosted => true,
            Addressing::Path => false,
            // A wildcard certificate covers one label only.
            Addressing::Auto => wants_virtual_hosts(host) && !(tls && config.bucket.contains('.')),
        };
        Self {
            tls,
            bucket: config.bucket.clone(),
            dualstack: config.dualstack,
            virtual_hosted,
            endpoint,
        }
    }

    /// The region that the host's name tells.
    pub(super) fn region(&self) -> Option<String> {
        region_of(host_of(&self.endpoint))
    }

    /// The URL of an object, or of the bucket, in `region`. `query` is encoded already.
    pub(super) fn url(&self, region: &str, key: Option<&str>, query: &str) -> String {
        self.styled(region, self.virtual_hosted, key, query)
    }

    /// The URL for asking where the bucket is: always path style, since a virtual host may lead
    /// to the wrong region.
    pub(super) fn location_url(&self) -> String {
        self.styled(REGION_DEFAULT, false, None, "location=")
    }

    /// Endpoint, bucket and object: what an upload is for.
    pub(super) fn destination(&self, key: &str) -> String {
        format!("{}/{}/{key}", self.endpoint, self.bucket)
    }

    /// The object's name in a [`destination`](Self::destination) of this bucket.
    pub(super) fn key_at<'a>(&self, destination: &'a str) -> Option<&'a str> {
        destination.strip_prefix(&self.destination(""))
    }

    fn styled(&self, region: &str, virtual_hosted: bool, key: Option<&str>, query: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let host = self.host(region);
        let bucket = uri_encoded(&self.bucket, false);
        let key = key.map_or_else(String::new, |key| uri_encoded(key, true));
        let mark = if query.is_empty() { "" } else { "?" };
        if virtual_hosted {
            format!("{scheme}://{}.{host}/{key}{mark}{query}", self.bucket)
        } else if key.is_empty() {
            format!("{scheme}://{host}/{bucket}/{mark}{query}")
        } else {
            format!("{scheme}://{host}/{bucket}/{key}{mark}{query}")
        }
    }

    /// The host to talk to: for the general hosts of AWS the one of the region.
    fn host(&self, region: &str) -> String {
        let host = host_of(&self.endpoint);
        let general = !self.endpoint.contains(':') && is_general_aws(host);
        if !general || region.is_empty() {
            return self.endpoint.clone();
        }
        let china = host.ends_with(".cn") || region.starts_with("cn-");
        let domain = if china {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        match self.dualstack {
            true => format!("s3.dualstack.{region}.{domain}"),
            false => format!("s3.{region}.{domain}"),
        }
    }
}

/// The host without its port.
fn host_of(endpoint: &str) -> &str {
    if endpoint.starts_with('[') {
        return endpoint.split_inclusive(']').next().unwrap_or(endpoint);
    }
    endpoint.split(':').next().unwrap_or(endpoint)
}

/// The part of an amazonaws.com host before the domain.
fn aws_labels(host: &str) -> Option<&str> {
    host.strip_suffix(".amazonaws.com")
        .or_else(|| host.strip_suffix(".amazonaws.com.cn"))
}

/// Whether the host is one of S3 itself, not an access point, accelerator or private link.
fn is_general_aws(host: &str) -> bool {
    let Some(labels) = aws_labels(host) else {
        return false;
    };
    labels == "s3"
        || labels == "s3-external-1"
        || region_label(labels).is_some_and(|region| !region.contains('.'))
}

/// The region in `s3.<region>`, `s3-<region>` or `s3.dualstack.<region>`.
fn region_label(labels: &str) -> Option<&str> {
    if labels.starts_with("s3-fips") || labels.starts_with("s3-accelerate") {
        return None;
    }
    let rest = labels
        .strip_prefix("s3.dualstack.")
        .or_else(|| labels.strip_prefix("s3."))
        .or_else(|| labels.strip_prefix("s3-"))?;
    // Every region has a number at its end: eu-west-1, us-gov-east-1, us-iso-b-1.
    rest.ends_with(|last: char| last.is_ascii_digit())
        .then_some(rest)
}

/// The region that a known host tells; `None` where it tells none.
fn region_of(host: &str) -> Option<String> {
    let labels = aws_labels(host)?;
    if labels == "s3-external-1" {
        return Some(REGION_DEFAULT.to_owned());
    }
    let fips = labels
        .strip_prefix("s3-fips.dualstack.")
        .or_else(|| labels.strip_prefix("s3-fips."));
    // Private link: bucket.vpce-….s3.<region>.vpce
    let private = labels
        .strip_suffix(".vpce")
        .and_then(|labels| labels.rsplit_once(".s3.").map(|(_, region)| region));
    let region = fips.or(private).or_else(|| region_label(labels))?;
    (!region.contains('.')).then(|| region.to_owned())
}

/// Hosts that want, or understand best, the bucket in the host's name: AWS, Google, Aliyun (which
/// refuses path style: `SecondLevelDomainForbidden`).
fn wants_virtual_hosts(host: &str) -> bool {
    aws_labels(host).is_some()
        || host == "storage.googleapis.com"
        || (host.ends_with(".aliyuncs.com") && host.starts_with("oss-"))
}

/// Percent-encodes all but unreserved bytes (SigV4, "UriEncode"); `/` too, unless it stays.
pub(in crate::objstore) fn uri_encoded(text: &str, keep_slash: bool) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            b'/' if keep_slash => encoded.push('/'),
            _ => {
                encoded.push('%');
                for digit in [byte >> 4, byte & 15] {
                    encoded.push(char::from(HEX[usize::from(digit)]));
                }
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objstore::s3::tests::config;

    fn address(endpoint: &str, change: impl FnOnce(&mut S3Config)) -> Address {
        let mut config = config(endpoint);
        config.insecure = false;
        config.dualstack = true;
        change(&mut config);
        Address::new(&config)
    }

    fn url(endpoint: &str, change: impl FnOnce(&mut S3Config)) -> String {
        address(endpoint, change).url("eu-west-1", Some("a b/c"), "")
    }

    #[test]
    fn pitfall_05_addressing_follows_the_host() {
        for (endpoint, expected) in [
            ("minio:9000", "https://minio:9000/bucket/a%20b/c"),
            ("10.0.0.1:9000", "https://10.0.0.1:9000/bucket/a%20b/c"),
            ("[::1]:9000", "https://[::1]:9000/bucket/a%20b/c"),
            (
                "storage.googleapis.com",
                "https://bucket.storage.googleapis.com/a%20b/c",
            ),
            (
                "oss-cn-hangzhou.aliyuncs.com",
                "https://bucket.oss-cn-hangzhou.aliyuncs.com/a%20b/c",
            ),
            (
                "S3.amazonaws.com:443",
                "https://bucket.s3.dualstack.eu-west-1.amazonaws.com/a%20b/c",
            ),
        ] {
            assert_eq!(url(endpoint, |_| {}), expected);
        }
        let path = url("cos.ap-x.myqcloud.com", |c| c.addressing = Addressing::Path);
        assert_eq!(path, "https://cos.ap-x.myqcloud.com/bucket/a%20b/c");
        let hosted = url("cos.ap-x.myqcloud.com", |c| {
            c.addressing = Addressing::VirtualHosted;
        });
        assert_eq!(hosted, "https://bucket.cos.ap-x.myqcloud.com/a%20b/c");
    }

    #[test]
    fn pitfall_05_a_bucket_with_dots_has_no_certificate() {
        let dotted = |config: &mut S3Config| config.bucket = "a.b".to_owned();
        assert_eq!(
            url("s3.amazonaws.com", dotted),
            "https://s3.dualstack.eu-west-1.amazonaws.com/a.b/a%20b/c"
        );
        let plain = url("s3.amazonaws.com", |config| {
            dotted(config);
            config.insecure = true;
        });
        assert_eq!(
            plain,
            "http://a.b.s3.dualstack.eu-west-1.amazonaws.com/a%20b/c"
        );
    }

    #[test]
    fn pitfall_13_dual_stack_can_be_turned_off() {
        let single = |config: &mut S3Config| config.dualstack = false;
        for (endpoint, expected) in [
            ("s3.amazonaws.com", "bucket.s3.eu-west-1.amazonaws.com"),
            (
                "s3.us-east-2.amazonaws.com",
                "bucket.s3.eu-west-1.amazonaws.com",
            ),
            (
                "bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com",
                "bucket.bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com",
            ),
            (
                "s3-accelerate.amazonaws.com",
                "bucket.s3-accelerate.amazonaws.com",
            ),
        ] {
            assert_eq!(url(endpoint, single), format!("https://{expected}/a%20b/c"));
        }
        assert_eq!(
            url("s3.cn-north-1.amazonaws.com.cn", |_| {}),
            "https://bucket.s3.dualstack.eu-west-1.amazonaws.com.cn/a%20b/c"
        );
        // Only the hosts of S3 itself are rewritten.
        assert_eq!(
            url("s3-accelerate.amazonaws.com", |_| {}),
            "https://bucket.s3-accelerate.amazonaws.com/a%20b/c"
        );
    }

    #[test]
    fn a_known_host_tells_the_region() {
        for (endpoint, region) in [
            ("s3.amazonaws.com", None),
            ("s3.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
            ("s3-eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("s3.dualstack.eu-north-1.amazonaws.com", Some("eu-north-1")),
            ("s3-fips.us-east-2.amazonaws.com", Some("us-east-2")),
            ("s3.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            (
                "bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com",
                Some("us-east-1"),
            ),
            ("s3-accelerate.amazonaws.com", None),
            ("minio.example.com", None),
            ("s3.eu-west-1.example.com", None),
        ] {
            assert_eq!(
                address(endpoint, |_| {}).region().as_deref(),
                region,
                "{endpoint}"
            );
        }
    }

    #[test]
    fn the_region_is_asked_for_in_path_style() {
        assert_eq!(
            address("s3.amazonaws.com", |c| c.dualstack = false).location_url(),
            "https://s3.us-east-1.amazonaws.com/bucket/?location="
        );
        assert_eq!(
            address("h:9", |c| c.insecure = true).url("r", None, "list-type=2"),
            "http://h:9/bucket/?list-type=2"
        );
    }

    #[test]
    fn keys_are_encoded_as_signatures_want_them() {
        assert_eq!(
            uri_encoded("a b+c/ü~*'(", true),
            "a%20b%2Bc/%C3%BC~%2A%27%28"
        );
        assert_eq!(uri_encoded("a/b", false), "a%2Fb");
    }
}
