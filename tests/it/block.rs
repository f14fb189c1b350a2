//! `outrigger block` on blocks that promtool and Prometheus made, and on what damage makes of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{
    BACKFILL_START_S, Prometheus, PrometheusSetup, backfill, backfill_text, copy_block, edit_meta,
    eventually, post, promtool, ulid_directories,
};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/blocks");

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command.env_clear().arg("block").args(words);
    command
}

fn run(words: &[&str]) -> Output {
    command(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard output of a run that ends with this code.
fn told(code: i32, words: &[&str]) -> String {
    let output = run(words);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
    text(&output.stdout)
}

fn json(code: i32, words: &[&str]) -> Vec<Value> {
    let lines = told(code, &[words, &["--output=json"]].concat());
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn name(block: &Path) -> &str {
    block.file_name().unwrap().to_str().unwrap()
}

/// A data directory that ends with its test.
fn data_directory() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    fs::create_dir(&data).unwrap();
    (scratch, data)
}

#[test]
fn a_directory_is_listed_oldest_first_and_the_unreadable_last() {
    let (_scratch, data) = data_directory();
    let blocks = backfill(&data, BACKFILL_START_S, 3, 4);
    fs::create_dir(data.join("wal")).unwrap();
    fs::create_dir(data.join("01ARZ3NDEKTSV4RRFFQ69G5FAV.tmp-for-creation")).unwrap();
    edit_meta(&blocks[1], |meta| {
        meta["compaction"]["hints"] = serde_json::json!(["from-out-of-order"]);
        meta["thanos"] =
            serde_json::json!({ "labels": { "cluster": "eu-1" }, "source": "sidecar" });
    });
    let listed = json(0, &["ls", path(&data)]);
    let ulids: Vec<&str> = listed
        .iter()
        .map(|row| row["ulid"].as_str().unwrap())
        .collect();
    assert_eq!(
        ulids,
        blocks.iter().map(|block| name(block)).collect::<Vec<_>>()
    );
    assert_eq!(listed[0]["min_time_ms"], BACKFILL_START_S * 1000);
    assert_eq!(
        (&listed[0]["series"], &listed[0]["samples"]),
        (&4.into(), &480.into())
    );
    assert_eq!(listed[1]["labels"]["cluster"], "eu-1");
    assert_eq!(listed[1]["hints"][0], "from-out-of-order");
    let files = ["index", "meta.json", "tombstones", "chunks/000001"];
    let sizes = files.map(|file| fs::metadata(blocks[0].join(file)).map_or(0, |m| m.len()));
    assert_eq!(listed[0]["size_bytes"], sizes.iter().sum::<u64>());

    fs::write(blocks[0].join("meta.json"), "{\"version\": 1,").unwrap();
    fs::remove_file(blocks[2].join("index")).unwrap();
    let table = told(1, &["ls", path(&data)]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("ULID ") && lines[1].starts_with(name(&blocks[1])),
        "{table}"
    );
    assert!(
        lines[1].contains("cluster=\"eu-1\"") && lines[1].contains(" 1h59m1ms "),
        "{table}"
    );
    let unreadable = |block: &Path, what: &str| {
        let start = format!("{}  unreadable: ", name(block));
        let line = lines.iter().find(|line| line.starts_with(&start));
        assert!(line.is_some_and(|line| line.contains(what)), "{table}");
    };
    unreadable(&blocks[0], "meta.json: line 1, column");
    unreadable(&blocks[2], "index: No such file or directory");
    assert_eq!(json(1, &["ls", path(&data)]).len(), 3);

    let missing = run(&["ls", path(&data.join("none"))]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("No such file or directory"));
}

#[test]
fn a_block_is_inspected() {
    let (_scratch, data) = data_directory();
    let mut exposition = String::new();
    for minute in 0..120 {
        let time = BACKFILL_START_S + minute * 60;
        for number in 0..20 {
            // The upper half comes in the middle.
            if number < 10 || minute >= 60 {
                writeln!(
                    exposition,
                    "many{{n=\"{number}\",job=\"a\"}} {minute} {time}"
                )
                .unwrap();
            }
        }
        writeln!(exposition, "one{{job=\"b\"}} {minute} {time}").unwrap();
    }
    exposition.push_str("# EOF\n");
    let block = backfill_text(&data, &exposition).remove(0);
    let found = &json(0, &["inspect", path(&block), "--limit=2"])[0];
    let meta: Value = serde_json::from_slice(&fs::read(block.join("meta.json")).unwrap()).unwrap();
    for (key, stat) in [
        ("series", "numSeries"),
        ("chunks", "numChunks"),
        ("samples", "numSamples"),
    ] {
        assert_eq!(found[key], meta["stats"][stat], "{key}");
    }
    assert_eq!(found["series"], 21);
    assert_eq!(found["encodings"]["xor"]["samples"], found["samples"]);
    let rows = |key: &str| -> Vec<(String, u64)> {
        let rows = found[key].as_array().unwrap().iter();
        let row = |row: &Value| {
            (
                row["name"].as_str().unwrap().to_owned(),
                row["count"].as_u64().unwrap(),
            )
        };
        rows.map(row).collect()
    };
    let expected = |rows: &[(&str, u64)]| -> Vec<(String, u64)> {
        rows.iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    };
    assert_eq!(
        rows("label_names_by_values"),
        expected(&[("n", 20), ("__name__", 2)])
    );
    assert_eq!(
        rows("metrics_by_series"),
        expected(&[("many", 20), ("one", 1)])
    );
    let pairs = expected(&[("__name__=\"many\"", 20), ("job=\"a\"", 20)]);
    assert_eq!(rows("label_pairs_by_series"), pairs);
    let churn = expected(&[("__name__=\"many\"", 10), ("job=\"a\"", 10)]);
    assert_eq!(rows("label_pairs_by_churn"), churn);
    assert_eq!(found["churn"]["begin_late"], 10);
    assert_eq!(found["churn"]["end_early"], 0);
    let sections = found["index_sections_bytes"].as_object().unwrap();
    let sum: u64 = sections.values().map(|bytes| bytes.as_u64().unwrap()).sum();
    // All but the magic number with version, and the table of contents.
    assert_eq!(found["index_bytes"], sum + 5 + 52);

    let table = told(0, &["inspect", path(&block)]);
    assert!(
        table.contains("churn        10 series come or go"),
        "{table}"
    );
    let refused = run(&["inspect", path(&data)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("a directory with 1 blocks: name one of them"));
}

#[test]
fn blocks_of_every_version_are_verified_and_decoded() {
    let blocks = [
        "prometheus-2.42",
        "prometheus-3.16-histograms",
        "prometheus-3.16-xor2",
    ];
    let paths = blocks.map(|block| format!("{FIXTURES}/{block}"));
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let rows = json(0, &[&["verify", "--deep"], paths.as_slice()].concat());
    for (row, block) in rows.iter().zip(blocks) {
        assert_eq!(row["block"], block);
        assert_eq!(row["ok"], true);
        assert_eq!(row["decoded_samples"], row["samples"]);
    }
    let table = told(0, &["verify", paths[0]]);
    assert!(table.lines().nth(1).unwrap().contains(" ok "), "{table}");
}

/// Each file with a byte flipped, or cut, at places all over it; one command looks at all.
#[test]
fn every_damage_is_found_with_its_place() {
    let (scratch, data) = data_directory();
    let block = backfill(&data, BACKFILL_START_S, 1, 2).remove(0);
    let damaged = scratch.path().join("damaged");
    fs::create_dir(&damaged).unwrap();
    let mut expected = Vec::new();
    let mut number = 0;
    for file in ["index", "chunks/000001"] {
        let bytes = fs::read(block.join(file)).unwrap();
        for step in 0..12 {
            let at = step * (bytes.len() - 1) / 11;
            // The three bytes behind the version mean nothing.
            let is_meaningless = file.starts_with("chunks") && (5..8).contains(&at);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (step % 8);
            let cut = bytes[..at].to_vec();
            let cases = [(!is_meaningless).then_some(flipped), Some(cut)];
            for content in cases.into_iter().flatten() {
                number += 1;
                let ulid = format!("01ARZ3NDEKTSV4RRFFQ69G5{number:03}");
                let copy = copy_block(&block, &ulid, |_| {});
                let target = damaged.join(&ulid);
                fs::rename(&copy, &target).unwrap();
                fs::write(target.join(file), content).unwrap();
                expected.push((ulid, file, at));
            }
        }
    }
    let rows = json(1, &["verify", path(&damaged)]);
    assert_eq!(rows.len(), expected.len());
    for (row, (ulid, file, at)) in rows.iter().zip(&expected) {
        assert_eq!(row["block"], ulid.as_str());
        assert_eq!(row["ok"], false, "{file} at {at}");
        let error = row["error"].as_str().unwrap();
        assert!(error.contains(&format!("{ulid}/{file}")), "{error}");
        assert!(error.contains("offset "), "{error}");
    }
}

#[test]
fn the_others_are_verified_when_one_is_bad() {
    let (_scratch, data) = data_directory();
    let blocks = backfill(&data, BACKFILL_START_S, 4, 2);
    edit_meta(&blocks[0], |meta| meta["stats"]["numSamples"] = 7.into());
    fs::write(
        blocks[1].join("tombstones"),
        [1, 0x30, 0xba, 0x30, 1, 0, 0, 0, 9],
    )
    .unwrap();
    fs::remove_file(blocks[2].join("chunks/000001")).unwrap();
    let table = told(1, &["verify", path(&data)]);
    for (block, what) in [
        (
            &blocks[0],
            "stats.numSamples is 7 in meta.json, the block holds 240",
        ),
        (
            &blocks[1],
            "tombstones: tombstones section, offset 5: checksum mismatch",
        ),
        (
            &blocks[2],
            "refers to chunk segment number 1, but there are only 0",
        ),
    ] {
        let start = format!("{}: ", name(block));
        let line = table.lines().find(|line| line.starts_with(&start));
        assert!(
            line.is_some_and(|line| line.contains(what)),
            "{what}: {table}"
        );
    }
    let sound = table
        .lines()
        .find(|line| line.starts_with(name(&blocks[3])));
    assert!(sound.unwrap().contains(" ok "), "{table}");
}

/// Values and labels that are rare, at times in milliseconds.
fn rare_exposition() -> String {
    let values = [
        "0",
        "-0",
        "1.5",
        "NaN",
        "+Inf",
        "-Inf",
        "1e300",
        "5e-324",
        "123456789.125",
        "-1e-7",
    ];
    let mut text = String::new();
    for (series, labels) in [
        "a{x=\"1\"}",
        "a{x=\"ü \\\"q\\\" \\\\ \\n\"}",
        "b_total",
        "c:d{Upper=\"1\",a=\"b\"}",
    ]
    .iter()
    .enumerate()
    {
        for step in 0..200_i64 {
            let ms = BACKFILL_START_S * 1000 + step * 15_001 + i64::try_from(series).unwrap();
            let value = values[usize::try_from(step).unwrap() % values.len()];
            writeln!(text, "{labels} {value} {}.{:03}", ms / 1000, ms % 1000).unwrap();
        }
    }
    text.push_str("# EOF\n");
    text
}

#[test]
fn a_dump_makes_the_same_block_again() {
    let (scratch, data) = data_directory();
    let block = backfill_text(&data, &rare_exposition()).remove(0);
    let dump = told(0, &["dump", path(&block)]);
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(lines(&dump).len(), 801);
    assert!(dump.ends_with("\n# EOF\n"));
    let again = backfill_text(&scratch.path().join("again"), &dump);
    assert_eq!(again.len(), 1);
    assert_eq!(told(0, &["dump", path(&again[0])]), dump);
    let chunks = |block: &Path| fs::read(block.join("chunks/000001")).unwrap();
    assert_eq!(chunks(&again[0]), chunks(&block));
    // As many as promtool's own dump has, which wants a log.
    fs::create_dir(data.join("wal")).unwrap();
    let promtool = promtool(&["tsdb", "dump", path(&data)]);
    assert_eq!(promtool.lines().count(), 800);
}

#[test]
fn a_dump_is_narrowed_by_selectors_and_times() {
    let (_scratch, data) = data_directory();
    let block = backfill(&data, BACKFILL_START_S, 1, 5).remove(0);
    let samples = |words: &[&str]| {
        let dump = told(0, &[&["dump", path(&block)], words].concat());
        dump.lines().count() - 1
    };
    assert_eq!(samples(&[]), 600);
    assert_eq!(
        samples(&["--match=http_requests_total{instance=~\"10.0.0.[12]:.*\"}"]),
        240
    );
    assert_eq!(
        samples(&["--match=http_requests_total{instance!~\"10.0.0.[12]:.*\"}"]),
        360
    );
    let both = [
        "--match={instance=\"10.0.0.1:9100\"}",
        "--match={instance=~\"10.0.0.[13].*\"}",
    ];
    assert_eq!(samples(&both), 240);
    assert_eq!(samples(&["--match=none"]), 0);
    let times = [
        "--min-time=2023-11-14T22:01:00Z",
        "--max-time=2023-11-14T22:03:00Z",
    ];
    assert_eq!(samples(&times), 15);
    let rows = json(
        0,
        &["dump", path(&block), "--max-time=2023-11-14T22:00:00Z"],
    );
    assert_eq!(rows.len(), 5);
    assert_eq!(
        rows[0]["samples"][0],
        serde_json::json!([BACKFILL_START_S * 1000, "0"])
    );
    let refused = run(&["dump", path(&block), "--match=rate(x[5m])"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("is more than a selector"));
}

#[test]
fn histograms_are_left_out_of_text_and_told_in_json() {
    let block = format!("{FIXTURES}/prometheus-3.16-histograms");
    let output = run(&["dump", &block]);
    assert!(output.status.success());
    let stderr = text(&output.stderr);
    assert!(stderr.contains("series=6 samples=720"), "{stderr}");
    assert_eq!(text(&output.stdout).lines().count(), 361);
    let rows = json(0, &["dump", &block]);
    let samples = rows
        .iter()
        .map(|row| row["samples"].as_array().unwrap().len());
    assert_eq!(samples.sum::<usize>(), 1080);
    let histogram = rows
        .iter()
        .find(|row| row["labels"]["__name__"] == "h")
        .unwrap();
    assert!(
        histogram["samples"][0][1]["positive_buckets"].is_array(),
        "{histogram}"
    );
}

#[test]
fn damage_ends_a_dump_with_its_place() {
    let (_scratch, data) = data_directory();
    let block = backfill(&data, BACKFILL_START_S, 1, 3).remove(0);
    let segment = block.join("chunks/000001");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&segment, bytes).unwrap();
    let output = run(&["dump", path(&block)]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("chunks/000001: ") && stderr.contains("offset "),
        "{stderr}"
    );
    assert!(!text(&output.stdout).contains("# EOF"));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let (_scratch, data) = data_directory();
    let block = backfill(&data, BACKFILL_START_S, 1, 200).remove(0);
    let mut command = command(&["dump", path(&block)]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

/// What a real Prometheus was told to delete, which stands in the chunks still.
#[test]
fn deletions_are_applied() {
    let (_scratch, data) = data_directory();
    let block = backfill(&data, BACKFILL_START_S, 1, 4).remove(0);
    let setup = PrometheusSetup {
        flags: vec!["--web.enable-admin-api".to_owned()],
        ..PrometheusSetup::default()
    };
    let mut prometheus = Prometheus::start(&data, &setup);
    let delete = |query: &str| {
        let path = format!("/api/v1/admin/tsdb/delete_series?{query}");
        assert_eq!(post(prometheus.address(), &path).unwrap().0, 204, "{query}");
    };
    let until = BACKFILL_START_S + 600;
    delete("match[]=http_requests_total{instance=\"10.0.0.1:9100\"}");
    let part = "match[]=http_requests_total{instance=\"10.0.0.2:9100\"}";
    delete(&format!("{part}&start={BACKFILL_START_S}&end={until}"));
    prometheus.stop();
    let dump = told(0, &["dump", path(&block)]);
    let samples = |instance: &str| dump.lines().filter(|line| line.contains(instance)).count();
    assert_eq!(
        ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"].map(samples),
        [120, 0, 109, 120]
    );
    assert!(
        !dump.contains(&format!("10.0.0.2:9100\",job=\"node\"}} 30 {until}\n")),
        "{dump}"
    );
    assert_eq!(json(0, &["ls", path(&data)])[0]["has_tombstones"], true);
    assert_eq!(
        json(0, &["verify", "--deep", path(&block)])[0]["samples"],
        480
    );
}

/// Blocks that a real Prometheus cut, with stale markers and series that come and go.
#[test]
fn blocks_that_prometheus_cut_are_verified_and_dumped() {
    let (scratch, data) = data_directory();
    let setup = PrometheusSetup::cutting_blocks();
    let mut prometheus = Prometheus::start(&data, &setup);
    eventually("two blocks", || {
        (ulid_directories(&data).len() >= 2).then_some(())
    });
    prometheus.stop();
    for row in json(0, &["verify", "--deep", path(&data)]) {
        assert_eq!(row["decoded_samples"], row["samples"], "{row}");
    }
    let listed = json(0, &["ls", path(&data)]);
    for (block, row) in ulid_directories(&data).iter().zip(&listed) {
        let dump = told(0, &["dump", path(block)]);
        let again = backfill_text(&scratch.path().join("again"), &dump);
        let dumps: Vec<String> = again.iter().map(|b| told(0, &["dump", path(b)])).collect();
        let samples = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let found: BTreeSet<String> = dumps.iter().flat_map(|dump| samples(dump)).collect();
        assert_eq!(found, samples(&dump));
        let counted = row["samples"].as_u64().unwrap();
        assert!(found.len() as u64 <= counted && !found.is_empty());
    }
}
