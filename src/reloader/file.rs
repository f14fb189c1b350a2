//! Opening and reading what flags name: only plain files, and no more of them than a limit.

use std::fs::File;
use std::io;
use std::path::Path;

use super::error::ReloaderError;
use crate::lifecycle::{OpenFileError, open_plain, read_at_most};

/// Opens a plain file to read. Anything else would block, or have no end.
pub(super) fn open(path: &Path, flag: &'static str) -> Result<File, ReloaderError> {
    open_plain(path).map_err(|error| match error {
        OpenFileError::Io(source) => unreadable("read", path, flag, source),
        OpenFileError::NotAFile(kind) => ReloaderError::NotAFile {
            path: path.to_owned(),
            flag,
            kind,
        },
    })
}

/// A whole file of at most `bytes_max`.
pub(super) fn read(
    path: &Path,
    flag: &'static str,
    bytes_max: u64,
) -> Result<Vec<u8>, ReloaderError> {
    let file = open(path, flag)?;
    let content = read_at_most(file, bytes_max);
    let content = content.map_err(|source| unreadable("read", path, flag, source))?;
    content.ok_or_else(|| ReloaderError::TooLarge {
        path: path.to_owned(),
        flag,
        bytes_max,
    })
}

pub(super) fn unreadable(
    op: &'static str,
    path: &Path,
    flag: &'static str,
    source: io::Error,
) -> ReloaderError {
    ReloaderError::Unreadable {
        op,
        path: path.to_owned(),
        flag,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reloader::error::CONFIG_FLAG;
    use std::fs;

    #[test]
    fn a_file_is_read_up_to_the_limit() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("f");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, CONFIG_FLAG, 5).unwrap(), b"12345");
        let error = read(&path, CONFIG_FLAG, 4).unwrap_err().to_string();
        let expected = "/f of --reloader.config-file is more than the 4 bytes that are read";
        assert!(error.ends_with(expected), "{error}");
    }

    #[test]
    fn what_is_no_file_is_named_and_not_waited_for() {
        let scratch = tempfile::tempdir().unwrap();
        let pipe = scratch.path().join("pipe");
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        for (path, kind) in [
            (scratch.path(), "a directory"),
            (&pipe, "a named pipe"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            let error = read(path, CONFIG_FLAG, 4).unwrap_err().to_string();
            let path = path.display();
            assert_eq!(
                error,
                format!("{path} of --reloader.config-file is {kind}, not a file")
            );
        }
        let error = read(&scratch.path().join("none"), CONFIG_FLAG, 4).unwrap_err();
        assert!(error.missing().is_some(), "{error}");
        assert!(
            error
                .to_string()
                .contains("/none, of --reloader.config-file")
        );
    }
}
