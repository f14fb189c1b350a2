//! What `@file` stands for.

use super::*;

fn arguments_file(text: &[u8]) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("args");
    std::fs::write(&path, text).unwrap();
    (dir, format!("@{}", path.display()))
}

#[test]
fn an_arguments_file_stands_for_its_lines() {
    let (_dir, file) =
        arguments_file(b"sidecar\n# comment\n\n--http-address=a b\r\n--tsdb.path\n/data\n");
    for flags in [&[file.as_str()][..], &["--log.level=warn", &file]] {
        let Ok(Invocation::Run(cli)) = run(flags) else {
            panic!("{flags:?}");
        };
        let Command::Sidecar(args) = cli.command else {
            panic!("the words name the sidecar");
        };
        assert_eq!(args.http.address, "a b");
        assert_eq!(args.tsdb.path, PathBuf::from("/data"));
    }
    // A file within a file, as a separate value, and the lines before what follows.
    let (_inner, inner) = arguments_file(b"inner\n--tsdb.path=x");
    let (_outer, outer) = arguments_file(format!("--http-address\n{inner}\n").as_bytes());
    let (_, args) = sidecar(&[&outer, "--hash-func=SHA256"]);
    assert_eq!(args.http.address, "inner");
    assert_eq!(args.shipper.hash_func, HashFunc::Sha256);
    // Not after `--`, and not within a value.
    assert_eq!(
        problem(&["sidecar", "--", &file]),
        format!("unexpected {file}")
    );
    let (_, args) = sidecar(&[&format!("--http-address={file}")]);
    assert_eq!(args.http.address, file);
}

#[test]
fn a_bad_arguments_file_is_named() {
    let text = problem(&["sidecar", "@/nonexistent"]);
    assert!(
        text.starts_with("failed to open arguments file \"/nonexistent\": No such file"),
        "{text}"
    );
    let text = problem(&["sidecar", "@/"]);
    assert!(
        text.starts_with("failed to read arguments from \"/\": "),
        "{text}"
    );
    let text = problem(&["sidecar", "@/dev/zero"]);
    assert_eq!(
        text,
        "arguments file \"/dev/zero\" is larger than 1048576 bytes"
    );
}

#[test]
fn a_file_that_names_itself_ends() {
    let (dir, file) = arguments_file(b"");
    std::fs::write(dir.path().join("args"), &file).unwrap();
    let text = problem(&["sidecar", &file]);
    assert!(text.starts_with("more than 4096 arguments"), "{text}");
}

#[test]
fn as_many_words_as_the_limit_allows() {
    let rules = |count: usize| {
        let mut words = vec!["sidecar".to_owned()];
        words.extend((1..count).map(|at| format!("--reloader.rule-dir={at}")));
        parse(
            std::iter::once("outrigger".to_owned())
                .chain(words)
                .map(OsString::from),
        )
    };
    assert!(matches!(rules(4096), Ok(Invocation::Run(_))));
    let error = rules(4097).unwrap_err();
    assert!(
        ErrorChain(&error)
            .to_string()
            .contains("more than 4096 arguments")
    );
}
