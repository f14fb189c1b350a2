//! A fault of old versions of Prometheus that would make answers wrong without a word.
//!
//! Before 2.44 `label_replace` gives the number 0 in place of a native histogram, which Prometheus
//! knows since 2.40, as a feature. Where labels have to be put in there, nothing is asked.

use super::{QueryError, Rewritten};
use crate::prometheus::{Client, PeerError};

const FIRST_WITH_HISTOGRAMS: (u32, u32) = (2, 40);
const FIRST_THAT_KEEPS_THEM: (u32, u32) = (2, 44);
const FEATURE: &str = "native-histograms";

/// An error where the rewritten expression could lose native histograms.
pub(super) async fn check(
    client: &Client,
    build_version: &str,
    rewritten: &Rewritten,
) -> Result<(), QueryError> {
    if rewritten.is_relabelled && is_lossy(build_version) && has_histograms(client).await? {
        let what = format!(
            "expression: external labels have to be put into its series, and Prometheus \
             {build_version} loses native histograms there; 2.44 does not"
        );
        return Err(QueryError::Unsupported { what });
    }
    Ok(())
}

fn is_lossy(build_version: &str) -> bool {
    let mut numbers = build_version.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => {
            (FIRST_WITH_HISTOGRAMS..FIRST_THAT_KEEPS_THEM).contains(&(major, minor))
        }
        _ => false,
    }
}

/// Whether the feature is on; where Prometheus does not tell, it may be.
async fn has_histograms(client: &Client) -> Result<bool, PeerError> {
    let flags = client.flags().await?;
    Ok(flags.is_none_or(|flags| {
        let features = flags.get("enable-feature").map_or("", String::as_str);
        features.split(',').any(|feature| feature.trim() == FEATURE)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_know_histograms_can_lose_them() {
        for lossy in ["2.40.0", "2.42.0+ds", "2.43.1"] {
            assert!(is_lossy(lossy), "{lossy}");
        }
        for sound in [
            "2.39.2",
            "2.44.0-rc.0",
            "2.53.1",
            "3.0.0",
            "3.14.0",
            "0",
            "",
            "x.42",
            "2",
        ] {
            assert!(!is_lossy(sound), "{sound}");
        }
    }
}
