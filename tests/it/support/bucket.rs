//! Readers of what outrigger leaves behind: a FILESYSTEM bucket and the ledger.
//!
//! Written from the contract (`shipper.md` §3, §5, §6, §8) and not with the product's own code, so
//! that both would have to be wrong in the same way.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::eventually;

/// A FILESYSTEM bucket.
pub(crate) struct Bucket {
    root: PathBuf,
}

impl Bucket {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Every object's name, sorted.
    pub(crate) fn objects(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut waiting = vec![self.root.clone()];
        while let Some(directory) = waiting.pop() {
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for path in entries.map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    waiting.push(path);
                } else {
                    let name = path.strip_prefix(&self.root).unwrap();
                    found.push(name.to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }

    /// The blocks that count as present: those with a `meta.json`.
    pub(crate) fn published(&self) -> BTreeSet<String> {
        let objects = self.objects().into_iter();
        objects
            .filter_map(|name| Some(name.strip_suffix("/meta.json")?.to_owned()))
            .collect()
    }

    pub(crate) fn has(&self, block: &Path) -> bool {
        self.root.join(name_of(block)).join("meta.json").is_file()
    }

    /// Waits until the block is published.
    pub(crate) fn wait_for(&self, block: &Path) {
        let what = format!("{} is in the bucket", name_of(block));
        eventually(&what, || self.has(block).then_some(()));
    }

    pub(crate) fn meta_text(&self, block: &Path) -> String {
        fs::read_to_string(self.root.join(name_of(block)).join("meta.json")).unwrap()
    }

    pub(crate) fn meta(&self, block: &Path) -> Value {
        serde_json::from_str(&self.meta_text(block)).unwrap()
    }
}

/// Fails unless the bucket's copy of `block` is whole: chunks and index equal byte for byte,
/// nothing else there, and `meta.json` exactly the source's with the thanos section behind it.
pub(crate) fn assert_whole(bucket: &Bucket, block: &Path, labels: &[(&str, &str)]) {
    let name = name_of(block);
    let mut objects = vec![format!("{name}/index"), format!("{name}/meta.json")];
    objects.extend(
        segments(block)
            .iter()
            .map(|segment| format!("{name}/chunks/{segment}")),
    );
    objects.sort();
    let published: Vec<String> = bucket
        .objects()
        .into_iter()
        .filter(|object| object.starts_with(name))
        .collect();
    assert_eq!(published, objects);
    for object in objects
        .iter()
        .filter(|object| !object.ends_with("/meta.json"))
    {
        let source = fs::read(block.parent().unwrap().join(object)).unwrap();
        let copy = fs::read(bucket.root().join(object)).unwrap();
        assert!(source == copy, "{object} differs from its source");
    }
    let text = bucket.meta_text(block);
    let uploaded: Value = serde_json::from_str(&text).unwrap();
    let upload_time = uploaded["thanos"]["upload_time"]
        .as_str()
        .expect("upload_time");
    assert!(is_utc_time(upload_time), "upload_time {upload_time}");
    let has_hashes = uploaded["thanos"]["files"][0].get("hash").is_some();
    assert_eq!(
        text,
        tab_indented(&expected_meta(block, labels, upload_time, has_hashes)) + "\n"
    );
}

/// `meta.json` as contract `shipper.md` §6 has it, keys in its order.
fn expected_meta(block: &Path, labels: &[(&str, &str)], upload_time: &str, hashes: bool) -> Value {
    let segments = segments(block);
    let mut paths: Vec<String> = segments
        .iter()
        .map(|name| format!("chunks/{name}"))
        .collect();
    paths.push("index".to_owned());
    let mut files: Vec<Value> = Vec::new();
    for path in &paths {
        let mut file = json!({
            "rel_path": path,
            "size_bytes": fs::metadata(block.join(path)).unwrap().len(),
        });
        if hashes {
            file["hash"] = json!({ "hashFunc": "SHA256", "value": sha256(&block.join(path)) });
        }
        files.push(file);
    }
    files.push(json!({ "rel_path": "meta.json" }));
    let mut labels: Vec<_> = labels.to_vec();
    labels.sort_unstable();
    let labels: serde_json::Map<String, Value> = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    let mut meta = super::block::meta(block);
    meta["thanos"] = json!({
        "labels": labels,
        "downsample": { "resolution": 0 },
        "source": "sidecar",
        "segment_files": segments,
        "files": files,
        "index_stats": {},
        "upload_time": upload_time,
    });
    meta
}

fn sha256(path: &Path) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(fs::read(path).unwrap()))
}

/// RFC 3339 in UTC, and not the zero time.
fn is_utc_time(text: &str) -> bool {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    text.ends_with('Z') && parsed.is_ok_and(|time| time.as_second() > 0)
}

fn segments(block: &Path) -> Vec<String> {
    let entries = fs::read_dir(block.join("chunks")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// JSON as Go's encoder writes it with a tab as indent.
pub(crate) fn tab_indented(value: &Value) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    value
        .serialize(&mut serde_json::Serializer::with_formatter(
            &mut text, formatter,
        ))
        .unwrap();
    String::from_utf8(text).unwrap()
}

/// The ledger's text for these blocks (contract `shipper.md` §3).
pub(crate) fn ledger_text(blocks: &[PathBuf]) -> String {
    let names: Vec<&str> = blocks.iter().map(|block| name_of(block)).collect();
    let uploaded = if names.is_empty() {
        Value::Null
    } else {
        json!(names)
    };
    tab_indented(&json!({ "version": 1, "uploaded": uploaded })) + "\n"
}

/// What Prometheus reads of the ledger (contract `shipper.md` §8): the list at `uploaded`. An error
/// says what Prometheus would warn of, going on as if there were no ledger.
pub(crate) fn ledger_ulids(path: &Path) -> Result<Vec<String>, String> {
    #[derive(serde::Deserialize)]
    struct Ledger {
        version: u32,
        uploaded: Option<Vec<String>>,
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let ledger: Ledger = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{error} in {:?}", String::from_utf8_lossy(&bytes)))?;
    if ledger.version != 1 {
        return Err(format!("version {}", ledger.version));
    }
    Ok(ledger.uploaded.unwrap_or_default())
}

/// Directories below `data` whose name is a ULID, by name.
pub(crate) fn ulid_directories(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let is_ulid = name.len() == 26 && name.bytes().all(|b| b.is_ascii_alphanumeric());
            is_ulid && path.is_dir()
        })
        .collect();
    found.sort();
    found
}

fn name_of(block: &Path) -> &str {
    block.file_name().unwrap().to_str().unwrap()
}
