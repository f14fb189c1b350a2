//! Small files that hold credentials or tokens, read whole.

use std::io;
use std::path::{Path, PathBuf};

use crate::lifecycle::{OpenFileError, open_plain, read_at_most};

/// The content of a file of at most `bytes_max`; a device or a data file named by mistake must not
/// fill the memory.
pub(super) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open_plain(path).map_err(|error| match error {
        OpenFileError::Io(error) => error,
        error @ OpenFileError::NotAFile(_) => io::Error::other(error),
    })?;
    let bytes = read_at_most(file, bytes_max)?;
    bytes.ok_or_else(|| io::Error::other(format!("larger than {bytes_max} bytes")))
}

/// As [`read`], off the threads that serve.
pub(super) async fn read_beside(path: PathBuf, bytes_max: u64) -> io::Result<Vec<u8>> {
    let reading = tokio::task::spawn_blocking(move || read(&path, bytes_max));
    reading.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_up_to_its_limit() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, b"12345").unwrap();
        let path = file.path().to_owned();
        assert_eq!(read_beside(path.clone(), 5).await.unwrap(), b"12345");
        let error = read_beside(path, 4).await.unwrap_err();
        assert!(error.to_string().contains("larger than 4 bytes"), "{error}");
        assert!(read(Path::new("/dev/zero"), 10).is_err());
        assert!(read(Path::new("/nonexistent"), 10).is_err());
    }
}
