//! Reading small files that flags and documents name: only plain ones, and no more of them than a
//! limit. A directory, device or data file named by mistake must neither block nor fill the memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// Why a file can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFileError {
    /// The file system refuses it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What has the name is no plain file.
    #[error("it is {0} and no file")]
    NotAFile(&'static str),
}

/// Opens a plain file to read. Anything else would block, or have no end.
///
/// # Errors
/// Where it can't be opened, or is no plain file.
pub fn open_plain(path: &Path) -> Result<File, OpenFileError> {
    // Without NONBLOCK the opening of a named pipe would wait for its writer.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    #[expect(clippy::cast_possible_wrap, reason = "the flags lie in the lower bits")]
    let flags = flags.bits() as i32;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened?;
    let kind = file.metadata()?.file_type();
    Err(OpenFileError::NotAFile(match kind {
        kind if kind.is_file() => return Ok(file),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a named pipe",
        _ => "a device",
    }))
}

/// All of a source; `None` where that is more than `bytes_max`.
///
/// # Errors
/// Where it can't be read.
pub fn read_at_most(source: impl Read, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    source.take(bytes_max + 1).read_to_end(&mut content)?;
    let is_whole = content.len() as u64 <= bytes_max;
    Ok(is_whole.then_some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_are_opened_and_nothing_waits() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        let read = |max| read_at_most(open_plain(&path).unwrap(), max).unwrap();
        assert_eq!(read(5).as_deref(), Some(&b"12345"[..]));
        assert_eq!(read(4), None);
        let pipe = scratch.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        for (path, kind) in [
            (scratch.path(), "a directory"),
            (&pipe, "a named pipe"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            let error = open_plain(path).unwrap_err().to_string();
            assert_eq!(error, format!("it is {kind} and no file"));
        }
        assert!(open_plain(&scratch.path().join("none")).is_err());
    }
}
