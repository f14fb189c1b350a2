//! `meta.json` both ways. The files under `tests/data/meta` were printed by Go's `encoding/json`.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests may panic"
)]

use proptest::prelude::*;

use super::*;

const ULID: &str = "01HZXW7J7T3Q9V8N2M4K6B5A0C";

const GOLDEN: [(&str, &str); 6] = [
    (
        "prometheus",
        include_str!("../../../tests/data/meta/prometheus.json"),
    ),
    (
        "no_series",
        include_str!("../../../tests/data/meta/no_series.json"),
    ),
    (
        "uploaded",
        include_str!("../../../tests/data/meta/uploaded.json"),
    ),
    ("full", include_str!("../../../tests/data/meta/full.json")),
    (
        "zero_time",
        include_str!("../../../tests/data/meta/zero_time.json"),
    ),
    (
        "unknown",
        include_str!("../../../tests/data/meta/unknown.json"),
    ),
];

fn golden(name: &str) -> &'static str {
    let found = GOLDEN.iter().find(|(golden, _)| *golden == name);
    found.expect("a golden file of that name").1
}

fn parse(text: &str) -> Result<BlockMeta, MetaError> {
    BlockMeta::parse(text.as_bytes())
}

fn printed(meta: &BlockMeta) -> String {
    String::from_utf8(meta.to_json()).unwrap()
}

#[test]
fn prints_what_go_prints() {
    for (name, text) in GOLDEN {
        let meta = parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(printed(&meta), text, "{name}");
    }
}

#[test]
fn white_space_and_key_order_of_the_input_do_not_matter() {
    for (name, text) in GOLDEN {
        let minified: String = text.replace(['\n', '\t'], "").replace("\": ", "\":");
        assert_eq!(parse(&minified), parse(text), "{name}");
        let spaced = text.replace('\t', "  ").replace('\n', " \r\n");
        assert_eq!(parse(&spaced), parse(text), "{name}");
    }
    let reordered = format!(
        r#"{{"version":1,"maxTime":2,"minTime":1,"compaction":{{"level":1}},"ulid":"{ULID}"}}"#
    );
    assert_eq!(parse(&reordered).unwrap().min_time, TimestampMs(1));
}

#[test]
fn reads_what_a_sidecar_uploads() {
    let meta = parse(golden("uploaded")).unwrap();
    assert_eq!(meta.ulid.to_string(), ULID);
    assert_eq!(meta.range().maxt, TimestampMs(1_700_007_200_000));
    assert_eq!(meta.stats.num_histogram_samples, 100);
    let thanos = meta.thanos.unwrap();
    assert_eq!(thanos.labels["cluster"], "eu<1>&\"x\"");
    assert_eq!(thanos.source, "sidecar");
    assert_eq!(thanos.files[2].size_bytes, 9_999_999_999);
    assert_eq!(
        thanos.upload_time.unwrap().as_nanosecond(),
        1_709_251_199_123_456_700
    );
}

#[test]
fn null_means_absent() {
    let text = format!(
        r#"{{"ulid":"{ULID}","minTime":1,"maxTime":2,"stats":null,"version":1,
            "compaction":{{"level":1,"sources":null,"parents":null,"hints":null}},
            "thanos":{{"labels":null,"downsample":null,"files":null,"rewrites":[],
                "extensions":null,"upload_time":null}},"future":null}}"#
    );
    let meta = parse(&text).unwrap();
    assert_eq!(meta.stats, BlockStats::default());
    assert_eq!(meta.thanos, Some(ThanosMeta::default()));
    assert_eq!(meta.unknown.iter().next().unwrap().1.text(), "null");
    let without = text.replace(r#""thanos":{"#, r#""thanos":null,"x":{"#);
    assert_eq!(parse(&without).unwrap().thanos, None);
}

#[test]
fn unknown_keys_stay_in_their_object() {
    let text = golden("full")
        .replace("\"numSeries\"", "\"later\": 1e400,\n\t\t\"numSeries\"")
        .replace(
            "\"resolution\"",
            "\"algorithm\": {\"x\": []},\n\"resolution\"",
        )
        .replace("\"hashFunc\"", "\"salt\": -0.50,\n\"hashFunc\"");
    let meta = parse(&text).unwrap();
    assert_eq!(meta.stats.unknown.iter().next().unwrap().1.text(), "1e400");
    let thanos = meta.thanos.as_ref().unwrap();
    assert!(!thanos.downsample.unknown.is_empty());
    assert!(!thanos.files[0].hash.as_ref().unwrap().unknown.is_empty());
    let out = printed(&meta);
    assert!(out.contains("\"resolution\": 300000,\n\t\t\t\"algorithm\": {\n\t\t\t\t\"x\": []\n"));
    assert_eq!(parse(&out), Ok(meta));
}

#[test]
fn later_versions_are_refused() {
    let text = golden("prometheus").replace("\"version\": 1", "\"version\": 2");
    let error = parse(&text).unwrap_err();
    assert_eq!(error.to_string(), "unexpected meta file version 2");
    // Also where the rest has a shape that version 1 does not have.
    let text = r#"{"version": 2, "ulid": {"new": true}}"#;
    assert_eq!(parse(text), Err(MetaError::Version { version: 2 }));
    let text = golden("full").replace(
        "\"thanos\": {\n\t\t\"version\": 1",
        "\"thanos\": {\"version\": 2",
    );
    assert_eq!(parse(&text), Err(MetaError::ThanosVersion { version: 2 }));
}

#[test]
fn errors_name_key_line_and_column() {
    let uploaded = golden("uploaded");
    let cases = [
        (
            uploaded.replace("1200", "-1"),
            "key `stats.numSamples` (line 6, column ",
        ),
        (
            uploaded.replace("1200", "12.5"),
            "key `stats.numSamples` (line 6, column ",
        ),
        (uploaded.replace(ULID, "x"), "key `ulid` (line 2, column "),
        (
            uploaded.replace("123\n", "\"big\"\n"),
            "key `thanos.files[0].size_bytes` (line 35, column 23)",
        ),
        (
            uploaded.replace("2024-02-29", "2023-02-29"),
            "key `thanos.upload_time` (line 50, column 18)",
        ),
        (
            uploaded.replace("\"minTime\"", "\"mint\""),
            "key `minTime` is missing",
        ),
        (
            uploaded.replace("\"maxTime\"", "\"minTime\""),
            "(line 4, column 13): the key appears twice",
        ),
        (
            uploaded.replace("\t\"version\": 1,\n", ""),
            "key `version` is missing",
        ),
        (
            "[]".to_owned(),
            "line 1, column 0: invalid type: sequence, expected an object",
        ),
        ("".to_owned(), "line 1, column 0: EOF"),
        (uploaded[..100].to_owned(), "line 5, column 5: EOF"),
        (
            format!("{uploaded}x"),
            "line 53, column 1: trailing characters",
        ),
    ];
    for (text, expected) in cases {
        let error = parse(&text).unwrap_err().to_string();
        assert!(
            error.contains(expected),
            "{error:?} should hold {expected:?}"
        );
    }
    let error = BlockMeta::parse(b"{\n \"a\xff\"").unwrap_err();
    assert_eq!(error.to_string(), "line 2, column 4: not UTF-8");
}

#[test]
fn kept_values_nest_only_so_deep() {
    let with = |depth: usize| {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let known = &golden("prometheus")[1..];
        parse(&format!("{{\"future\": {nested}, {known}"))
    };
    assert!(with(json::NESTING_MAX).is_ok());
    let error = with(json::NESTING_MAX + 1).unwrap_err().to_string();
    assert!(
        error.starts_with("key `future` (line 1, column 12): nests deeper than 64"),
        "{error}"
    );
    assert!(with(if cfg!(miri) { 300 } else { 200_000 }).is_err());
}

#[test]
fn times_print_as_go_prints_them() {
    let mut meta = parse(golden("uploaded")).unwrap();
    for text in [
        "2024-02-29T23:59:59Z",
        "2024-02-29T23:59:59.1Z",
        "2024-02-29T23:59:59.120003Z",
        "2024-02-29T23:59:59.000000001Z",
        "1969-12-31T23:59:59.5Z",
        "0001-01-01T00:00:00.5Z",
        "9999-12-30T00:00:00Z",
    ] {
        meta.thanos.as_mut().unwrap().upload_time = Some(text.parse().unwrap());
        let out = printed(&meta);
        assert!(
            out.contains(&format!("\"upload_time\": \"{text}\"\n")),
            "{out}"
        );
        assert_eq!(parse(&out).as_ref(), Ok(&meta));
    }
}

fn raw(text: &str) -> UnknownKeys {
    let document = format!(r#"{{"ulid":"{ULID}","minTime":1,"maxTime":2,"version":1,{text}}}"#);
    parse(&document).unwrap().unknown
}

fn unknown_keys() -> impl Strategy<Value = UnknownKeys> {
    prop_oneof![
        3 => Just(UnknownKeys::default()),
        1 => Just(raw(r#""ä<": {"b": [1, 2.50, "x\u2028", {}]}, "z": 123456789012345678901"#)),
    ]
}

fn block_ids() -> impl Strategy<Value = BlockId> {
    (0_u128..1 << 120).prop_map(BlockId::from_u128)
}

prop_compose! {
    fn stats()(counts in any::<[u64; 6]>(), unknown in unknown_keys()) -> BlockStats {
        let [num_samples, num_float_samples, num_histogram_samples, num_series, num_chunks,
            num_tombstones] = counts;
        BlockStats { num_samples, num_float_samples, num_histogram_samples, num_series, num_chunks,
            num_tombstones, unknown }
    }
}

prop_compose! {
    fn compaction()(
        level in any::<u32>(),
        sources in prop::collection::vec(block_ids(), 0..3),
        flags in any::<[bool; 2]>(),
        parents in prop::collection::vec((block_ids(), any::<[i64; 2]>(), unknown_keys()), 0..3),
        hints in prop::collection::vec(any::<String>(), 0..3),
        unknown in unknown_keys(),
    ) -> Compaction {
        let parents = parents.into_iter().map(|(ulid, [min, max], unknown)| ParentBlock {
            ulid, min_time: TimestampMs(min), max_time: TimestampMs(max), unknown,
        });
        Compaction {
            level, sources, deletable: flags[0], parents: parents.collect(), failed: flags[1],
            hints, unknown,
        }
    }
}

prop_compose! {
    fn file()(
        rel_path in any::<String>(),
        size_bytes in any::<u64>(),
        hash in prop::option::of((any::<String>(), any::<String>())),
        unknown in prop::collection::vec(unknown_keys(), 2),
    ) -> ThanosFile {
        let hash = hash.map(|(func, value)| FileHash { func, value, unknown: unknown[0].clone() });
        ThanosFile { rel_path, size_bytes, hash, unknown: unknown[1].clone() }
    }
}

prop_compose! {
    fn thanos()(
        version in 0_i64..2,
        labels in prop::collection::btree_map(any::<String>(), any::<String>(), 0..4),
        numbers in (any::<i64>(), any::<u64>(), any::<u64>()),
        source in any::<String>(),
        segment_files in prop::collection::vec(any::<String>(), 0..3),
        files in prop::collection::vec(file(), 0..3),
        kept in any::<[bool; 2]>(),
        upload_time in prop::option::of((0_i64..253_370_764_800, 0_i32..1_000_000_000)),
        unknown in prop::collection::vec(unknown_keys(), 3),
    ) -> ThanosMeta {
        let some = raw(r#""x":[{"request_id":"a&b"}]"#).iter().next().unwrap().1.clone();
        let (resolution, series_max_size, chunk_max_size) = numbers;
        ThanosMeta {
            version, labels, source, segment_files, files,
            downsample: Downsample { resolution, unknown: unknown[0].clone() },
            rewrites: kept[0].then(|| some.clone()),
            index_stats: IndexStats {
                series_max_size, chunk_max_size, unknown: unknown[1].clone(),
            },
            extensions: kept[1].then_some(some),
            upload_time: upload_time.map(|(s, ns)| jiff::Timestamp::new(s, ns).unwrap()),
            unknown: unknown[2].clone(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

    #[test]
    fn what_is_printed_parses_back(
        ulid in block_ids(),
        times in any::<[i64; 2]>(),
        stats in stats(),
        compaction in compaction(),
        thanos in prop::option::of(thanos()),
        unknown in unknown_keys(),
    ) {
        let meta = BlockMeta {
            ulid, min_time: TimestampMs(times[0]), max_time: TimestampMs(times[1]), stats,
            compaction, version: META_VERSION, thanos, unknown,
        };
        prop_assert_eq!(BlockMeta::parse(&meta.to_json()), Ok(meta));
    }

    #[test]
    fn any_damage_is_an_error_or_a_meta(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        which in 0_usize..6,
    ) {
        let mut bytes = GOLDEN[which].1.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(meta) = BlockMeta::parse(&bytes) {
            prop_assert_eq!(BlockMeta::parse(&meta.to_json()), Ok(meta));
        }
    }
}
