//! What no promtool makes: stale markers, deletions, series without a name.

use std::fs;

use super::*;
use crate::app::commands::block::files::BlockDir;
use crate::disk::{Containment, Dir};
use crate::model::{BlockId, TimeRange, TimestampMs};
use crate::tsdb::testing::{BlockLayout, Chunk, MemoryBlock, Series, put_uvarint, put_varint};

const STALE: u64 = 0x7ff0_0000_0000_0002;

/// A block on disk; its last series has a chunk of its own for each sample.
fn written(directory: &std::path::Path, index_version: u8) -> BlockDir {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let stale = f64::from_bits(STALE);
    let series = [
        Series {
            labels: vec![label("__name__", "a"), label("x", "1")],
            chunks: vec![Chunk::xor(&[(0, 1.0), (10, 2.0), (20, 3.0), (30, stale)])],
        },
        Series {
            labels: vec![label("__name__", "b")],
            chunks: (0..4).map(|n| Chunk::xor(&[(n * 10, n as f64)])).collect(),
        },
        Series {
            labels: vec![label("nameless", "c")],
            chunks: vec![Chunk::xor(&[(5, f64::NAN)])],
        },
    ];
    let layout = BlockLayout {
        index_version,
        ..BlockLayout::default()
    };
    let range = TimeRange {
        mint: TimestampMs(0),
        maxt: TimestampMs(100),
    };
    let ulid: BlockId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
    let block = MemoryBlock::write(layout, ulid, range, series);
    fs::create_dir_all(directory.join("chunks")).unwrap();
    for (file, bytes) in &block.files {
        fs::write(directory.join(file.path()), bytes).unwrap();
    }
    BlockDir {
        dir: Dir::open_blocking(directory, Containment::Unconfined).unwrap(),
        path: directory.to_owned(),
    }
}

fn dumped(
    block: &BlockDir,
    output: DumpOutput,
    (mint_ms, maxt_ms): (i64, i64),
    selectors: &[&str],
) -> (String, LeftOut) {
    let open = block.open().unwrap();
    let selectors: Vec<_> = selectors
        .iter()
        .map(|text| compiled(text).unwrap())
        .collect();
    let mut dump = Dump {
        open: &open,
        mint_ms,
        maxt_ms,
        output,
        text: String::new(),
        out: Vec::new(),
        left_out: LeftOut::default(),
    };
    dump.all(&selectors).unwrap();
    (String::from_utf8(dump.out).unwrap(), dump.left_out)
}

const ALL: (i64, i64) = (i64::MIN, i64::MAX);

#[test]
fn stale_markers_are_no_samples_and_times_are_closed() {
    let directory = tempfile::tempdir().unwrap();
    let block = written(directory.path(), 2);
    let (text, left_out) = dumped(&block, DumpOutput::OpenMetrics, ALL, &[]);
    assert_eq!(
        text,
        "a{x=\"1\"} 1 0\na{x=\"1\"} 2 0.010\na{x=\"1\"} 3 0.020\nb 0 0\nb 1 0.010\nb 2 0.020\n\
         b 3 0.030\n# EOF\n"
    );
    assert_eq!(left_out.without_name, 1);
    let (text, _) = dumped(&block, DumpOutput::OpenMetrics, (10, 20), &["b"]);
    assert_eq!(text, "b 1 0.010\nb 2 0.020\n# EOF\n");
    let (text, _) = dumped(&block, DumpOutput::Json, (30, 30), &[]);
    assert_eq!(
        text,
        "{\"labels\":{\"__name__\":\"a\",\"x\":\"1\"},\"samples\":[[30,null]]}\n\
         {\"labels\":{\"__name__\":\"b\"},\"samples\":[[30,\"3\"]]}\n"
    );
    let (text, _) = dumped(
        &block,
        DumpOutput::Json,
        ALL,
        &["{nameless!=\"\"}", "{nameless=\"c\"}"],
    );
    assert_eq!(
        text,
        "{\"labels\":{\"nameless\":\"c\"},\"samples\":[[5,\"NaN\"]]}\n"
    );
}

#[test]
fn what_was_deleted_is_not_dumped() {
    for version in [1, 2] {
        let directory = tempfile::tempdir().unwrap();
        let block = written(directory.path(), version);
        let open = block.open().unwrap();
        let view = open.view();
        let mut ids = view.postings(view.all()).unwrap();
        let (first, second) = (ids.next(view).unwrap(), ids.next(view).unwrap());
        drop(open);
        let mut entries = Vec::new();
        for (id, mint, maxt) in [(first, 10, 10), (second, 0, 15), (second, 25, 1000)] {
            put_uvarint(&mut entries, u64::from(id));
            put_varint(&mut entries, mint);
            put_varint(&mut entries, maxt);
        }
        let mut file = vec![0x01, 0x30, 0xba, 0x30, 1];
        file.extend_from_slice(&entries);
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &entries);
        file.extend(u32::try_from(crc).unwrap().to_be_bytes());
        fs::write(directory.path().join("tombstones"), file).unwrap();
        let (text, _) = dumped(&block, DumpOutput::OpenMetrics, ALL, &[]);
        assert_eq!(
            text,
            "a{x=\"1\"} 1 0\na{x=\"1\"} 3 0.020\nb 2 0.020\n# EOF\n"
        );
    }
}

#[test]
fn a_selector_that_is_none_is_refused() {
    assert!(compiled("rate(x[5m])").is_err());
    let error = compiled("{a=~\"(\"}").unwrap_err();
    assert!(error.to_string().contains("illegal regex"), "{error:#}");
}
