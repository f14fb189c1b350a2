//! The YAML documents of the flags: each a file or a text, some with `$(VAR)` in them.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::ConfigError;
use crate::app::cli::{GlobalArgs, InlineYaml, ObjstoreArgs, OptionalPath, SidecarArgs};
use crate::model::expand;

/// Most bytes that a configuration file may have; a device or a data file named by mistake must
/// not fill the memory.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// Two flags for one document: `--<flag>-file` with a path, `--<flag>` with the text.
#[derive(Clone, Copy, Debug)]
pub struct PathOrContent<'a> {
    flag: &'static str,
    file: Option<&'a Path>,
    content: &'a str,
    expansion: Expansion,
}

/// Whether `$(VAR)` means something in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expansion {
    Variables,
    None,
}

/// What the documents of the sidecar say, read once at start (contract `cli.md` §4). The empty
/// text is a document that was not given.
///
/// No `Debug` form: they hold keys and passwords.
#[expect(missing_debug_implementations, reason = "the documents hold secrets")]
#[derive(Clone)]
pub struct Documents {
    /// `--objstore.config`.
    pub objstore: String,
    /// `--prometheus.http-client`.
    pub prometheus_http_client: String,
    /// `--request.logging-config`.
    pub request_logging: String,
    /// `--tracing.config`.
    pub tracing: String,
}

// === impl PathOrContent ===

impl<'a> PathOrContent<'a> {
    fn new(
        flag: &'static str,
        file: &'a OptionalPath,
        content: &'a InlineYaml,
        expansion: Expansion,
    ) -> Self {
        Self {
            flag,
            file: file.as_deref(),
            content: content.as_str(),
            expansion,
        }
    }

    /// `--tracing.config(-file)`.
    pub fn tracing(global: &'a GlobalArgs) -> Self {
        let args = &global.tracing;
        Self::new(
            "tracing.config",
            &args.config_file,
            &args.config,
            Expansion::Variables,
        )
    }

    /// `--objstore.config(-file)`.
    pub fn objstore(args: &'a ObjstoreArgs) -> Self {
        Self::new(
            "objstore.config",
            &args.config_file,
            &args.config,
            Expansion::Variables,
        )
    }

    /// `--prometheus.http-client(-file)`, the one pair in which `$(VAR)` is plain text.
    pub fn prometheus_http_client(sidecar: &'a SidecarArgs) -> Self {
        let args = &sidecar.prometheus;
        let (file, content) = (&args.http_client_file, &args.http_client);
        Self::new("prometheus.http-client", file, content, Expansion::None)
    }

    /// `--request.logging-config(-file)`.
    pub fn request_logging(sidecar: &'a SidecarArgs) -> Self {
        let args = &sidecar.request_logging;
        let (file, content) = (&args.config_file, &args.config);
        Self::new(
            "request.logging-config",
            file,
            content,
            Expansion::Variables,
        )
    }

    /// The document, from wherever it was given; empty where it was not.
    ///
    /// # Errors
    /// Where both flags are set, the file is not readable text, or a variable can't be put in.
    pub fn load(&self, variable: &dyn Fn(&str) -> Option<OsString>) -> Result<String, ConfigError> {
        let flag = self.flag;
        let text = match self.file {
            Some(_) if !self.content.is_empty() => {
                return Err(ConfigError::FileAndContent { flag });
            }
            Some(path) => self.read(path)?,
            None => self.content.to_owned(),
        };
        match self.expansion {
            Expansion::None => Ok(text),
            Expansion::Variables => {
                let bytes_max = usize::try_from(DOCUMENT_BYTES_MAX).unwrap_or(usize::MAX);
                expand(&text, variable, bytes_max)
                    .map_err(|source| ConfigError::Expand { flag, source })
            }
        }
    }

    fn read(&self, path: &Path) -> Result<String, ConfigError> {
        let (flag, name) = (self.flag, || path.to_owned());
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|source| ConfigError::Unreadable {
                flag,
                path: name(),
                source,
            })?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            let bytes_max = DOCUMENT_BYTES_MAX;
            return Err(ConfigError::TooLarge {
                flag,
                path: name(),
                bytes_max,
            });
        }
        String::from_utf8(bytes).map_err(|source| ConfigError::NotText {
            flag,
            path: name(),
            source,
        })
    }
}

// === impl Documents ===

impl Documents {
    /// Reads all documents of the sidecar; those of parts that do not exist yet as well, so that a
    /// missing file is not discovered by a later version.
    ///
    /// # Errors
    /// The first document's that can't be had; see [`PathOrContent::load`].
    pub fn load(
        global: &GlobalArgs,
        sidecar: &SidecarArgs,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            tracing: PathOrContent::tracing(global).load(variable)?,
            request_logging: PathOrContent::request_logging(sidecar).load(variable)?,
            prometheus_http_client: PathOrContent::prometheus_http_client(sidecar)
                .load(variable)?,
            objstore: PathOrContent::objstore(&sidecar.objstore).load(variable)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::sidecar_args;
    use crate::model::ErrorChain;
    use std::io::Write as _;

    const PAIRS: [&str; 4] = [
        "tracing.config",
        "request.logging-config",
        "prometheus.http-client",
        "objstore.config",
    ];

    fn environment(name: &str) -> Option<OsString> {
        (name == "KEY").then(|| "secret".into())
    }

    /// The document of `pair`, or the error with its causes.
    fn load(pair: &str, flags: &[String]) -> Result<String, String> {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let (global, sidecar) = sidecar_args(&flags);
        let documents = Documents::load(&global, &sidecar, &environment);
        let documents = documents.map_err(|error| ErrorChain(&error).to_string())?;
        Ok(match pair {
            "tracing.config" => documents.tracing,
            "request.logging-config" => documents.request_logging,
            "prometheus.http-client" => documents.prometheus_http_client,
            "objstore.config" => documents.objstore,
            _ => unreachable!("{pair}"),
        })
    }

    #[test]
    fn a_document_is_a_file_or_a_text() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"key: $(KEY)\n").unwrap();
        let path = file.path().display().to_string();
        for pair in PAIRS {
            let value = if pair == "prometheus.http-client" {
                "$(KEY)"
            } else {
                "secret"
            };
            let text = load(pair, &[format!("--{pair}-file={path}")]).unwrap();
            assert_eq!(text, format!("key: {value}\n"));
            let text = load(pair, &[format!("--{pair}=key: $(KEY)")]).unwrap();
            assert_eq!(text, format!("key: {value}"));
            assert_eq!(load(pair, &[]).unwrap(), "");
            let empty = [format!("--{pair}="), format!("--{pair}-file=")];
            assert_eq!(load(pair, &empty).unwrap(), "");
        }
    }

    #[test]
    fn each_way_to_fail_names_the_flag() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"\xff").unwrap();
        let path = file.path().display().to_string();
        for pair in PAIRS {
            let both = [format!("--{pair}=x"), format!("--{pair}-file={path}")];
            let error = load(pair, &both).unwrap_err();
            assert_eq!(error, format!("both {pair}-file and {pair} flags set."));

            let error = load(pair, &[format!("--{pair}-file=/nonexistent")]).unwrap_err();
            let begin = format!("loading file /nonexistent for {pair}-file: ");
            assert!(
                error.starts_with(&begin) && error.contains("No such file"),
                "{error}"
            );

            let error = load(pair, &[format!("--{pair}-file={path}")]).unwrap_err();
            let begin = format!("loading file {path} for {pair}-file: ");
            assert!(
                error.starts_with(&begin) && error.contains("utf-8"),
                "{error}"
            );

            let result = load(pair, &[format!("--{pair}=$(NOT_SET)")]);
            if pair == "prometheus.http-client" {
                assert_eq!(result.unwrap(), "$(NOT_SET)");
            } else {
                let error = result.unwrap_err();
                let end = "found reference to unset environment variable \"NOT_SET\"";
                assert!(error.contains(pair) && error.ends_with(end), "{error}");
            }
        }
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let error = load(
            "objstore.config",
            &["--objstore.config-file=/dev/zero".to_owned()],
        );
        let error = error.unwrap_err();
        assert!(error.ends_with("larger than 16777216 bytes"), "{error}");
    }
}
