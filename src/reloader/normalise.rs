//! The configuration as Prometheus is to read it: unpacked, with the environment's values put in,
//! written whole or not at all (contract `prometheus.md` §7.3–7.4).

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::error::{CONFIG_FLAG, ReloaderError};
use super::file;
use crate::lifecycle::read_at_most;
use crate::model::expand;

/// Most bytes of a configuration, as it lies there and once it is unpacked and expanded. A larger
/// one could be loaded, but Prometheus' answer about it would be more than the heartbeat takes.
pub(super) const CONFIG_BYTES_MAX: u64 = 32 << 20;

/// How gzip begins: its magic, and deflate as the method.
const GZIP_START: [u8; 3] = [0x1f, 0x8b, 0x08];

/// Asks for the value of an environment variable.
pub type Variables = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// What became of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Written,
    /// It says already what it should.
    Unchanged,
}

/// Writes the content of the configuration at `path` to `output` with each `$(VAR)` replaced.
/// Where anything fails, what stood there still does.
pub(super) fn normalise(
    path: &Path,
    content: Vec<u8>,
    output: &Path,
    variable: &Variables,
) -> Result<Output, ReloaderError> {
    let expanded = expanded(path, content, variable)?;
    if is_already(output, expanded.as_bytes()) {
        return Ok(Output::Unchanged);
    }
    replace(output, expanded.as_bytes())?;
    Ok(Output::Written)
}

fn expanded(path: &Path, content: Vec<u8>, variable: &Variables) -> Result<String, ReloaderError> {
    let content = match content.starts_with(&GZIP_START) {
        true => unpacked(path, &content)?,
        false => content,
    };
    // Most likely somebody is about to write it. Prometheus would take it, and forget everything.
    if content.is_empty() {
        return Err(ReloaderError::Empty {
            path: path.to_owned(),
        });
    }
    let text = match String::from_utf8(content) {
        Ok(text) => text,
        Err(error) => {
            let valid = error.as_bytes().get(..error.utf8_error().valid_up_to());
            let lines = valid.unwrap_or_default().split(|byte| *byte == b'\n');
            return Err(ReloaderError::NotText {
                path: path.to_owned(),
                line: lines.count(),
                source: error.utf8_error(),
            });
        }
    };
    let bytes_max = usize::try_from(CONFIG_BYTES_MAX).unwrap_or(usize::MAX);
    expand(&text, &|name| variable(name), bytes_max).map_err(|source| ReloaderError::Expand {
        path: path.to_owned(),
        source,
    })
}

/// All members of the gzip file, as Go's reader does it.
fn unpacked(path: &Path, content: &[u8]) -> Result<Vec<u8>, ReloaderError> {
    let unpacked = read_at_most(MultiGzDecoder::new(content), CONFIG_BYTES_MAX);
    let unpacked = unpacked.map_err(|source| ReloaderError::Gzip {
        path: path.to_owned(),
        source,
    })?;
    unpacked.ok_or_else(|| ReloaderError::TooLarge {
        path: path.to_owned(),
        flag: CONFIG_FLAG,
        bytes_max: CONFIG_BYTES_MAX,
    })
}

/// Whether the output is a file with this content. Where it can't be told, it is not.
fn is_already(output: &Path, content: &[u8]) -> bool {
    let metadata = fs::symlink_metadata(output);
    let may_be = metadata.is_ok_and(|m| m.is_file() && m.len() == content.len() as u64);
    may_be && fs::read(output).is_ok_and(|known| known == content)
}

/// `<output>.tmp`, then a rename, so that Prometheus finds the old file or the new one.
fn replace(output: &Path, content: &[u8]) -> Result<(), ReloaderError> {
    let partial = partial_path(output);
    let failed = |op, path: &Path, source| ReloaderError::Output {
        op,
        path: path.to_owned(),
        source,
    };
    // What is left of one that was interrupted may have another mode, or be a symlink.
    match fs::remove_file(&partial) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &partial, source));
        }
        _ => {}
    }
    let written = write(&partial, content).map_err(|source| failed("write", &partial, source));
    let replaced = written.and_then(|()| {
        fs::rename(&partial, output)
            .map_err(|source| failed("rename the new file to", output, source))
    });
    if replaced.is_err() {
        // The error tells more than one of this would.
        drop(fs::remove_file(&partial));
    }
    replaced
}

fn write(partial: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o644);
    let mut file: File = options.open(partial)?;
    file.write_all(content)?;
    // Else a power cut after the rename could leave an empty configuration.
    file.sync_all()
}

/// Beside the output, as the reference names it.
pub(super) fn partial_path(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(OsStr::new(".tmp"));
    PathBuf::from(name)
}

/// The content of the configuration.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, ReloaderError> {
    file::read(path, CONFIG_FLAG, CONFIG_BYTES_MAX)
}

#[cfg(test)]
mod tests;
