//! Blocks made by promtool from text, and blocks made from those by hand.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{promtool, ulid_directories};

/// Start of the first backfilled block: a multiple of two hours, 2023-11-14T22:00:00Z.
pub(crate) const BACKFILL_START_S: i64 = 1_699_999_200;

const BLOCK_S: i64 = 7200;
const SCRAPE_S: i64 = 60;

/// Writes `blocks` two-hour blocks of `series` series, one sample a minute, the first of them
/// starting at `start_s`, and returns their directories, oldest first. They are made elsewhere and
/// renamed into `data`, as Prometheus does.
pub(crate) fn backfill(data: &Path, start_s: i64, blocks: i64, series: u32) -> Vec<PathBuf> {
    let text = exposition(start_s, start_s + blocks * BLOCK_S, series);
    let found = backfill_text(data, &text);
    assert_eq!(
        i64::try_from(found.len()).unwrap(),
        blocks,
        "promtool cut other blocks"
    );
    found
}

/// Writes what an exposition in the OpenMetrics format says as blocks, and returns their
/// directories, oldest first.
pub(crate) fn backfill_text(data: &Path, exposition: &str) -> Vec<PathBuf> {
    fs::create_dir_all(data).unwrap();
    let scratch = tempfile::tempdir_in(data.parent().unwrap()).unwrap();
    let text = scratch.path().join("backfill.om");
    fs::write(&text, exposition).unwrap();
    let made = scratch.path().join("blocks");
    let (text, made) = (text.to_str().unwrap(), made.to_str().unwrap());
    promtool(&["tsdb", "create-blocks-from", "openmetrics", text, made]);
    let mut found: Vec<(i64, PathBuf)> = Vec::new();
    for block in ulid_directories(Path::new(made)) {
        let target = data.join(block.file_name().unwrap());
        fs::rename(&block, &target).unwrap();
        found.push((meta(&target)["minTime"].as_i64().unwrap(), target));
    }
    found.sort();
    found.into_iter().map(|(_, block)| block).collect()
}

fn exposition(start_s: i64, end_s: i64, series: u32) -> String {
    let mut text = "# TYPE http_requests counter\n".to_owned();
    for number in 0..series {
        for (step, time) in (start_s..end_s)
            .step_by(usize::try_from(SCRAPE_S).unwrap())
            .enumerate()
        {
            let value = step as u64 * u64::from(number % 97 + 1);
            writeln!(
                text,
                "http_requests_total{{instance=\"10.0.{}.{}:9100\",job=\"node\"}} {value} {time}",
                number / 250,
                number % 250,
            )
            .unwrap();
        }
    }
    text.push_str("# EOF\n");
    text
}

/// The block's `meta.json`.
pub(crate) fn meta(block: &Path) -> Value {
    serde_json::from_slice(&fs::read(block.join("meta.json")).unwrap()).unwrap()
}

/// A copy of `block` under another identity beside it, with what `edit` changes in its meta.
pub(crate) fn copy_block(block: &Path, ulid: &str, edit: impl FnOnce(&mut Value)) -> PathBuf {
    let target = block.parent().unwrap().join(ulid);
    let building = target.with_extension("tmp-for-creation");
    fs::create_dir_all(building.join("chunks")).unwrap();
    for entry in fs::read_dir(block.join("chunks")).unwrap() {
        let name = entry.unwrap().file_name();
        let segment = Path::new("chunks").join(name);
        fs::copy(block.join(&segment), building.join(&segment)).unwrap();
    }
    fs::copy(block.join("index"), building.join("index")).unwrap();
    fs::copy(block.join("meta.json"), building.join("meta.json")).unwrap();
    edit_meta(&building, |meta| {
        meta["ulid"] = ulid.into();
        edit(meta);
    });
    fs::rename(&building, &target).unwrap();
    target
}

/// Changes the block's `meta.json`.
pub(crate) fn edit_meta(block: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = meta(block);
    edit(&mut value);
    fs::write(block.join("meta.json"), super::bucket::tab_indented(&value)).unwrap();
}
