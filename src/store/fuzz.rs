//! What the fuzz targets run, here so that a plain `cargo test` replays their corpora.

use prost::Message;

use super::{Parsed, SeriesQuery};
use crate::model::Pattern;
use crate::model::{ExternalLabels, Labels, TimestampMs};
use crate::proto::thanos::SeriesRequest;

/// The input as a Series request: whatever is understood is sound.
pub fn fuzz_series_request(data: &[u8]) {
    let Ok(request) = SeriesRequest::decode(data) else {
        return;
    };
    let labels = [("cluster", "eu-1"), ("replica", "a")];
    let owned = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let external = ExternalLabels(owned.into_iter().collect::<Labels>());
    let min_time = TimestampMs(1000);
    if let Ok(Parsed::Query(query)) = SeriesQuery::parse(request, &external, min_time) {
        assert!(!query.matchers.is_empty());
        let kept = |name: &str| external.0.value(name).is_none();
        assert!(query.matchers.iter().all(|matcher| kept(&matcher.name)));
        assert!(min_time <= query.range.mint && query.range.mint <= query.range.maxt);
        assert!(query.batch_series >= 1);
        assert_ne!(query.limit, Some(0));
    }
}

/// The input as a pattern: what is accepted is written so that the regex crate can read it.
pub fn fuzz_regex(data: &[u8]) {
    let Ok(pattern) = Pattern::parse(data) else {
        return;
    };
    // Nesting is the one thing that the crate may still refuse.
    let mut parser = regex_syntax::ParserBuilder::new()
        .nest_limit(10_000)
        .utf8(false)
        .build();
    let parsed = parser.parse(&pattern.anchored());
    assert!(parsed.is_ok(), "{pattern:?}: {parsed:?}");
    if let Ok(regex) = pattern.compile() {
        let text = String::from_utf8_lossy(data);
        let prefix: String = text.chars().take(50).collect();
        assert_eq!(regex.is_match(&prefix), regex.clone().is_match(&prefix));
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::proto::thanos::{LabelMatcher, ShardInfo};

    fn corpus(target: &str) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        root.join("fuzz/corpus").join(target)
    }

    fn replay(target: &str, run: fn(&[u8])) {
        let mut seeds = 0;
        for entry in std::fs::read_dir(corpus(target)).unwrap() {
            run(&std::fs::read(entry.unwrap().path()).unwrap());
            seeds += 1;
        }
        assert!(seeds > 0, "the corpus of {target} is empty");
    }

    #[test]
    fn the_fuzz_corpora_replay() {
        replay("series_request", fuzz_series_request);
        replay("regex", fuzz_regex);
    }

    /// Writes the seeds anew.
    #[test]
    #[ignore = "writes into fuzz/corpus"]
    fn regenerate_fuzz_seeds() {
        let put = |target: &str, name: &str, bytes: &[u8]| {
            std::fs::create_dir_all(corpus(target)).unwrap();
            std::fs::write(corpus(target).join(name), bytes).unwrap();
        };
        for (at, pattern) in [
            r"a.*|\Qb.c\E|[^\d[:alpha:]\pL-]{2,7}?",
            r"(?i-s:x)(?P<a>y)\b$^\x{1F600}\101",
            r"((a{10}){100}|b*)+?(?U)[]&&~-]{,}",
            r"\C[b-a](?x)a**",
        ]
        .iter()
        .enumerate()
        {
            put("regex", &at.to_string(), pattern.as_bytes());
        }
        put("regex", "not-utf8", b"a\xff[\xfe-\xff]");
        let matcher = |op, name: &str, value: &str| LabelMatcher {
            r#type: op,
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let request = SeriesRequest {
            min_time: -5,
            max_time: 1 << 41,
            matchers: vec![
                matcher(0, "job", "x"),
                matcher(2, "cluster", "eu-.|us"),
                matcher(3, "pod", "a{2}"),
            ],
            shard_info: Some(ShardInfo {
                shard_index: 1,
                total_shards: 3,
                by: true,
                labels: vec!["pod".to_owned()],
            }),
            without_replica_labels: vec!["replica".to_owned()],
            limit: 5,
            response_batch_size: 64,
            ..SeriesRequest::default()
        };
        put("series_request", "sharded", &request.encode_to_vec());
        let odd = SeriesRequest {
            matchers: vec![matcher(7, "", "("), matcher(2, "replica", "(")],
            response_batch_size: -1,
            skip_chunks: true,
            ..request
        };
        put("series_request", "odd", &odd.encode_to_vec());
    }
}
