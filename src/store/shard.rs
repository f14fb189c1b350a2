//! Which part of the series a sharded query wants (contract `grpc.md` §3.5).

use xxhash_rust::xxh64::xxh64;

use super::StoreError;
use super::request::check_names;
use crate::proto::thanos::ShardInfo;

/// Between and behind names and values in what is hashed.
const SEPARATOR: u8 = 0xFF;

/// One of several parts that the series are divided into by the hash of some of their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    total: u64,
    /// Whether `labels` are those to hash, rather than those to leave out.
    by: bool,
    labels: Vec<Vec<u8>>,
}

impl Shard {
    /// The shard of a request; `None` where it asks for everything.
    ///
    /// # Errors
    /// Where the list of labels is longer than any real one.
    pub fn parse(info: ShardInfo) -> Result<Option<Self>, StoreError> {
        let Some(total) = u64::try_from(info.total_shards).ok().filter(|t| *t > 0) else {
            return Ok(None);
        };
        check_names(&info.labels)?;
        let mut labels: Vec<_> = info.labels.into_iter().map(String::into_bytes).collect();
        labels.sort_unstable();
        Ok(Some(Self {
            index: info.shard_index.cast_unsigned(),
            total,
            by: info.by,
            labels,
        }))
    }

    /// Whether the series with these labels, all that it is sent with, belongs to the shard.
    /// `scratch` is only there to be used again.
    pub(super) fn contains<'a>(
        &self,
        labels: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        scratch: &mut Vec<u8>,
    ) -> bool {
        scratch.clear();
        for (name, value) in labels {
            let listed = self.labels.binary_search_by(|l| l.as_slice().cmp(name));
            if listed.is_ok() == self.by {
                scratch.extend_from_slice(name);
                scratch.push(SEPARATOR);
                scratch.extend_from_slice(value);
                scratch.push(SEPARATOR);
            }
        }
        xxh64(scratch, 0) % self.total == self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(index: i64, total: i64, by: bool, labels: &[&str]) -> Shard {
        let info = ShardInfo {
            shard_index: index,
            total_shards: total,
            by,
            labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        };
        Shard::parse(info).unwrap().unwrap()
    }

    fn contains(shard: &Shard, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        shard.contains(labels, &mut vec![1, 2, 3])
    }

    #[test]
    fn the_hash_is_over_the_selected_labels() {
        let labels = [("__name__", "up"), ("job", "x"), ("pod", "p-1")];
        let hashed = xxh64(b"job\xFFx\xFF", 0) % 7;
        for index in 0..7 {
            let expected = u64::try_from(index).unwrap() == hashed;
            let by = shard(index, 7, true, &["zone", "job"]);
            assert_eq!(contains(&by, &labels), expected);
            let without = shard(index, 7, false, &["pod", "__name__"]);
            assert_eq!(contains(&without, &labels), expected);
        }
    }

    #[test]
    fn an_empty_selection_has_the_empty_hash() {
        assert_eq!(xxh64(b"", 0), 0xEF46_DB37_51D8_E999);
        let index = i64::try_from(0xEF46_DB37_51D8_E999_u64 % 5).unwrap();
        assert!(contains(&shard(index, 5, true, &["zone"]), &[("a", "b")]));
        assert!(!contains(&shard(-1, 5, true, &[]), &[("a", "b")]));
    }

    #[test]
    fn shards_are_disjoint_and_whole() {
        for i in 0..100 {
            let value = i.to_string();
            let labels = [("a", value.as_str()), ("b", "x")];
            let members = (0..4).filter(|s| contains(&shard(*s, 4, false, &[]), &labels));
            assert_eq!(members.count(), 1);
        }
    }
}
