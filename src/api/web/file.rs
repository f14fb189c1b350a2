//! The web configuration file and the TLS files that it names, as they are now.

use std::io;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;
use std::sync::{Mutex, PoisonError};

use super::config::{WebConfig, WebDocumentError};
use crate::lifecycle::{OpenFileError, ReadFiles, Reloading, open_plain, read_at_most};
use crate::model::ErrorChain;
use crate::net::{HttpsAcceptor, HttpsTls, PemSource, TlsError, TlsVersion};

/// Most bytes that the file may have; certificates may stand in it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why the HTTP server can't be set up as its file wants it.
#[derive(Debug, thiserror::Error)]
pub enum WebConfigError {
    /// The file can't be opened.
    #[error("reading web configuration file {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: OpenFileError,
    },
    /// The file can't be read.
    #[error("reading web configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("web configuration file {} is larger than {bytes_max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// The file is no text.
    #[error("web configuration file {}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Where the bytes stop being UTF-8.
        source: FromUtf8Error,
    },
    /// The file does not say what it should.
    #[error("web configuration file {}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<WebDocumentError>,
    },
    /// The certificates and keys that the file names can't be used.
    #[error("web configuration file {}: `tls_server_config`", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<TlsError>,
    },
    /// The file has changed and protects less than before; half a file looks so.
    #[error(
        "web configuration file {} no longer asks for {lost}; that takes effect with a restart \
         only, as a file that is half written looks the same",
        path.display()
    )]
    LessProtected {
        /// The file.
        path: PathBuf,
        /// What there was before.
        lost: &'static str,
    },
}

/// A configuration whose TLS files were read, and are again when they change: also while the
/// configuration itself is bad, as certificates run out.
#[derive(Debug)]
pub(super) struct LoadedConfig {
    path: PathBuf,
    pub(super) config: WebConfig,
    pub(super) acceptor: Option<Reloading<HttpsAcceptor, TlsError>>,
}

/// What a configuration protects by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Protections([bool; 7]);

const PROTECTIONS: [&str; 7] = [
    "TLS",
    "TLS 1.3 as the least version",
    "client certificates",
    "a look at who signed client certificates",
    "a CA of its own for client certificates",
    "names in client certificates",
    "basic authentication",
];

/// Reads the file, now and whenever it has changed. Where it is bad by then the configuration
/// before it stays in force.
pub(super) fn follow(
    path: &Path,
) -> Result<Reloading<LoadedConfig, WebConfigError>, WebConfigError> {
    let path = path.to_owned();
    let before = Mutex::new(Protections::default());
    let load = move |files: &mut ReadFiles| {
        let loaded = load(&path, files)?;
        let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
        let protections = Protections::of(&loaded.config);
        if let Some(lost) = before.lost_in(protections) {
            let path = path.clone();
            return Err(WebConfigError::LessProtected { path, lost });
        }
        *before = protections;
        for warning in &loaded.config.warnings {
            tracing::warn!(component = "http", flag = "http.config", "{warning}");
        }
        tracing::info!(
            component = "http", file = %path.display(),
            tls = loaded.acceptor.is_some(), basic_auth = !loaded.config.users.is_empty(),
            "web configuration read"
        );
        Ok(loaded)
    };
    Reloading::new(load, |error| {
        tracing::error!(
            component = "http", flag = "http.config", err = %ErrorChain(error),
            "the changed web configuration can't be used, the one before stays in force"
        );
    })
}

fn load(path: &Path, files: &mut ReadFiles) -> Result<LoadedConfig, WebConfigError> {
    files.add(path);
    let text = read(path)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let config = WebConfig::parse(&text, directory).map_err(|source| {
        let (path, source) = (path.to_owned(), Box::new(source));
        WebConfigError::Document { path, source }
    })?;
    let acceptor = match config.tls.clone() {
        None => None,
        Some(tls) => {
            let mut read = ReadFiles::default();
            add(&mut read, &tls);
            let acceptor = follow_tls(tls).map_err(|source| {
                // They may be put right while the configuration stays as it is.
                files.append(read);
                let (path, source) = (path.to_owned(), Box::new(source));
                WebConfigError::Tls { path, source }
            })?;
            Some(acceptor)
        }
    };
    Ok(LoadedConfig {
        path: path.to_owned(),
        config,
        acceptor,
    })
}

impl LoadedConfig {
    /// The file itself and those that it names.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let named = self.config.tls.iter().flat_map(tls_files);
        let files = std::iter::once(self.path.as_path()).chain(named);
        files.map(Path::to_owned).collect()
    }
}

fn follow_tls(tls: HttpsTls) -> Result<Reloading<HttpsAcceptor, TlsError>, TlsError> {
    let load = move |files: &mut ReadFiles| {
        add(files, &tls);
        tls.build()
    };
    Reloading::new(load, |error| {
        tracing::error!(
            component = "http", flag = "http.config", err = %ErrorChain(error),
            "the changed TLS files can't be used, those before stay in force"
        );
    })
}

fn add(files: &mut ReadFiles, tls: &HttpsTls) {
    files.add_all(tls_files(tls));
}

fn tls_files(tls: &HttpsTls) -> impl Iterator<Item = &Path> {
    let sources = [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()];
    sources.into_iter().flatten().filter_map(PemSource::file)
}

fn read(path: &Path) -> Result<String, WebConfigError> {
    let named = || path.to_owned();
    let file = open_plain(path).map_err(|source| WebConfigError::Open {
        path: named(),
        source,
    })?;
    let bytes = read_at_most(file, FILE_BYTES_MAX).map_err(|source| WebConfigError::Read {
        path: named(),
        source,
    })?;
    let bytes = bytes.ok_or_else(|| WebConfigError::TooLarge {
        path: named(),
        bytes_max: FILE_BYTES_MAX,
    })?;
    String::from_utf8(bytes).map_err(|source| WebConfigError::NotText {
        path: named(),
        source,
    })
}

impl Protections {
    fn of(config: &WebConfig) -> Self {
        let tls = config.tls.as_ref();
        Self([
            tls.is_some(),
            tls.is_some_and(|tls| tls.min_version == TlsVersion::Tls13),
            tls.is_some_and(|tls| tls.client_auth.is_mandatory()),
            tls.is_some_and(|tls| tls.client_auth.is_verified()),
            // Without one every public CA is as good.
            tls.is_some_and(|tls| tls.client_auth.is_verified() && tls.client_ca.is_some()),
            tls.is_some_and(|tls| tls.client_allowed_sans.is_some()),
            !config.users.is_empty(),
        ])
    }

    /// The first protection that is not there any more.
    fn lost_in(self, after: Self) -> Option<&'static str> {
        let pairs = self.0.into_iter().zip(after.0);
        let mut named = PROTECTIONS.into_iter().zip(pairs);
        let lost = named.find(|(_, (before, after))| *before && !after);
        lost.map(|(name, _)| name)
    }
}
