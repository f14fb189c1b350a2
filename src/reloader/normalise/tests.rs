//! Configurations that are right, packed, broken, too large; outputs that can't be written.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use std::os::unix::fs::{PermissionsExt as _, symlink};

fn variable(name: &str) -> Option<OsString> {
    match name {
        "REPLICA" => Some("replica-0".into()),
        "LONG" => Some("x".repeat(1 << 20).into()),
        _ => None,
    }
}

fn packed(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn expanded_text(content: impl Into<Vec<u8>>) -> Result<String, ReloaderError> {
    expanded(Path::new("/p.yml"), content.into(), &variable)
}

fn error_of(content: impl Into<Vec<u8>>) -> String {
    let error = expanded_text(content).unwrap_err();
    assert!(!error.remedy().is_empty());
    crate::model::ErrorChain(&error).to_string()
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("out.yml");
    (scratch, output)
}

fn normalised(content: &str, output: &Path) -> Result<Output, ReloaderError> {
    normalise(Path::new("/p.yml"), content.into(), output, &variable)
}

#[test]
fn plain_and_packed_come_out_the_same() {
    let content = "replica: $(REPLICA) # ${REPLICA} $REPLICA\n";
    let expected = "replica: replica-0 # ${REPLICA} $REPLICA\n";
    assert_eq!(expanded_text(content).unwrap(), expected);
    assert_eq!(expanded_text(packed(content.as_bytes())).unwrap(), expected);
    let (one, two) = content.split_at(9);
    let members = [packed(one.as_bytes()), packed(two.as_bytes())].concat();
    assert_eq!(expanded_text(members).unwrap(), expected);
}

#[test]
fn short_contents_are_taken_as_they_are() {
    for content in ["{", "{}", "#\n\n", "\x1f", "\u{1f}\u{b}"] {
        assert_eq!(expanded_text(content).unwrap(), content);
    }
    assert_eq!(error_of(""), "/p.yml of --reloader.config-file is empty");
    assert_eq!(
        error_of(packed(b"")),
        "/p.yml of --reloader.config-file is empty"
    );
}

#[test]
fn broken_contents_are_told_with_file_and_line() {
    assert_eq!(
        error_of("a: 1\nb: $(NOT_SET)\n"),
        "expand environment variables: /p.yml, line 2: found reference to unset environment \
         variable \"NOT_SET\""
    );
    let error = error_of(b"a: 1\nb: 2\nc: \xff\n".to_vec());
    let expected = "/p.yml of --reloader.config-file is not text, in line 3: invalid utf-8";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn gzip_that_is_cut_off_or_followed_by_something_else_is_an_error_at_each_length() {
    let whole = packed("scrape_configs: []\n".repeat(20).as_bytes());
    for length in GZIP_START.len()..whole.len() {
        let error = error_of(&whole[..length]);
        let expected = "gunzip /p.yml of --reloader.config-file: ";
        assert!(error.starts_with(expected), "{length}: {error}");
    }
    assert!(error_of([whole.as_slice(), b"garbage"].concat()).starts_with("gunzip "));
}

#[test]
fn what_grows_beyond_the_limit_is_refused() {
    let limit = usize::try_from(CONFIG_BYTES_MAX).unwrap();
    let bomb = packed(&vec![b'a'; limit + 1]);
    assert!(bomb.len() < limit / 100);
    assert!(error_of(bomb).contains("is more than the 33554432 bytes that are read"));
    assert_eq!(
        expanded_text(packed(&vec![b'a'; limit])).unwrap().len(),
        limit
    );
    assert_eq!(expanded_text("$(LONG)".repeat(32)).unwrap().len(), limit);
    let error = error_of(format!("\n{}", "$(LONG)".repeat(32)));
    assert!(
        error.contains("line 2: larger than 33554432 bytes once"),
        "{error}"
    );
}

#[test]
fn the_output_is_written_once_and_readable_for_others() {
    let (scratch, output) = place();
    assert_eq!(normalised("$(REPLICA)", &output).unwrap(), Output::Written);
    assert_eq!(fs::read_to_string(&output).unwrap(), "replica-0");
    let metadata = fs::metadata(&output).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o644);
    assert_eq!(
        normalised("$(REPLICA)", &output).unwrap(),
        Output::Unchanged
    );
    assert_eq!(normalised("replica-1", &output).unwrap(), Output::Written);
    assert_eq!(fs::read_to_string(&output).unwrap(), "replica-1");
    fs::write(&output, "tampered!").unwrap();
    assert_eq!(normalised("replica-1", &output).unwrap(), Output::Written);
    let names: Vec<_> = fs::read_dir(scratch.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing else is left: {names:?}");
}

#[test]
fn what_is_in_the_way_is_replaced_and_not_followed() {
    let (scratch, output) = place();
    let precious = scratch.path().join("precious");
    fs::write(&precious, "untouched").unwrap();
    symlink(&precious, partial_path(&output)).unwrap();
    symlink(&precious, &output).unwrap();
    normalised("new", &output).unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "untouched");
    assert!(fs::symlink_metadata(&output).unwrap().is_file());
    assert_eq!(fs::read_to_string(&output).unwrap(), "new");
}

#[test]
fn an_output_that_cannot_be_written_is_named_with_its_remedy() {
    let (scratch, output) = place();
    let missing = scratch.path().join("none/out.yml");
    let error = normalised("x", &missing).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("/none/out.yml.tmp, for --reloader.config-envsubst-file"),
        "{text}"
    );
    assert!(error.remedy().starts_with("make the output's directory"));

    fs::create_dir_all(output.join("full")).unwrap();
    let error = normalised("x", &output).unwrap_err();
    assert_eq!(error.remedy(), "name a file, not a directory");
    assert!(!partial_path(&output).exists(), "nothing is left behind");

    let error = normalised("x", Path::new("/proc/out.yml")).unwrap_err();
    assert!(
        error.to_string().starts_with("write /proc/out.yml.tmp"),
        "{error}"
    );
}

#[test]
fn what_fails_leaves_the_output_alone() {
    let (_scratch, output) = place();
    normalised("good", &output).unwrap();
    for bad in ["$(NOT_SET)", ""] {
        normalised(bad, &output).unwrap_err();
        assert_eq!(fs::read_to_string(&output).unwrap(), "good");
    }
}

proptest! {
    #[test]
    fn any_content_is_expanded_or_refused(content in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(text) = expanded_text(content.clone()) {
            prop_assert!(text.as_bytes() == content || content.windows(2).any(|w| w == b"$("));
        }
    }

    #[test]
    fn packing_makes_no_difference(text in "([a-z \n]|\\$\\(REPLICA\\)|\\$\\(NOT\\)){1,60}") {
        let packed = expanded_text(packed(text.as_bytes()));
        let plain = expanded_text(text.as_str());
        prop_assert_eq!(plain.map_err(|e| e.to_string()), packed.map_err(|e| e.to_string()));
    }

    #[test]
    fn anything_that_begins_as_gzip_is_unpacked_or_refused(
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let content = [&GZIP_START[..], &rest].concat();
        if let Err(error) = expanded_text(content) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
