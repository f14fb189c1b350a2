//! What a bucket needs of this host besides the network, for whoever confines the process.

use std::ffi::OsString;
use std::path::PathBuf;

use super::s3::CredentialFiles;
use super::{BucketConfig, CredentialsConfig, HttpConfig, Provider};

/// Variables that name files of credentials, of all vendors' libraries.
const CREDENTIAL_VARIABLES: [&str; 3] = [
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_CLIENT_CERTIFICATE_PATH",
];

/// What `gcloud` leaves for other programs, below the home directory.
const GCLOUD_DEFAULT: &str = ".config/gcloud/application_default_credentials.json";

/// What a bucket needs of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAccess {
    /// Files that are read while it is in use: certificates, keys, tokens.
    pub files: Vec<PathBuf>,
    /// Directories that are read with all below them.
    pub directories: Vec<PathBuf>,
    /// Directories that are written below.
    pub written: Vec<PathBuf>,
    /// Whether a program of the user's choice is run for credentials.
    pub runs_programs: bool,
}

impl BucketConfig {
    /// What this bucket needs of this host, as variables and files say now.
    pub fn local_access(&self, variable: &dyn Fn(&str) -> Option<OsString>) -> LocalAccess {
        let mut access = LocalAccess::default();
        let raw = variable;
        let variable = |name: &str| {
            let value = raw(name)?.into_string().ok()?;
            Some(value).filter(|value| !value.is_empty())
        };
        let files = |http: &HttpConfig| http.files().map(ToOwned::to_owned).collect::<Vec<_>>();
        match &self.provider {
            Provider::Filesystem { directory } => access.written.push(directory.clone()),
            Provider::S3(settings) => {
                access.files.extend(files(&settings.http));
                if let CredentialsConfig::Chain { .. } = settings.credentials {
                    let found = CredentialFiles::look(&variable);
                    access.files.extend(found.files);
                    access.runs_programs = found.runs_program;
                    // Programs that ask for credentials keep what they got beside these files.
                    if found.runs_program {
                        access.written.extend(found.directory.clone());
                    }
                    access.directories.extend(found.directory);
                }
            }
            Provider::Gcs(settings) => {
                access.files.extend(files(&settings.http));
                access.files.extend(settings.access.token_file(raw));
            }
            Provider::Azure(settings) => access.files.extend(files(&settings.http)),
            Provider::Swift(settings) => access.files.extend(files(&settings.http)),
        }
        let home = variable("HOME").map(|home| PathBuf::from(home).join(GCLOUD_DEFAULT));
        access.files.extend(home.filter(|path| path.is_file()));
        let named = CREDENTIAL_VARIABLES.into_iter().filter_map(variable);
        access.files.extend(named.map(PathBuf::from));
        access
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn access(document: &str, variables: &[(&str, &str)]) -> LocalAccess {
        let config = BucketConfig::parse(document, Path::new("/")).unwrap();
        config.local_access(&|name| {
            let set = variables.iter().find(|(known, _)| *known == name);
            set.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn a_directory_is_written() {
        let found = access("type: FILESYSTEM\nconfig: {directory: /mnt/b}\n", &[]);
        assert_eq!(found.written, [PathBuf::from("/mnt/b")]);
        assert!(found.files.is_empty() && !found.runs_programs);
    }

    #[test]
    fn files_of_a_document_and_of_its_credentials_are_read() {
        let document = "type: S3\nconfig:\n  bucket: b\n  endpoint: e:1\n  http_config:\n    \
                        tls_config: {ca_file: /c/ca, cert_file: /c/cert, key_file: /c/key}\n";
        let token = ("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token");
        let found = access(
            document,
            &[token, ("AZURE_FEDERATED_TOKEN_FILE", "/run/az")],
        );
        let expected = ["/c/ca", "/c/cert", "/c/key", "/run/token", "/run/az"];
        assert_eq!(found.files, expected.map(PathBuf::from));
        assert!(found.written.is_empty());

        // With keys of its own nothing is searched.
        let keys = format!("{document}  access_key: a\n  secret_key: s\n");
        assert_eq!(
            access(&keys, &[token]).files,
            expected[..3].iter().map(PathBuf::from).collect::<Vec<_>>()
        );
    }

    #[test]
    fn other_stores_read_their_certificates_and_a_workloads_token() {
        let tls = "http_config: {tls_config: {ca_file: /c/ca}}";
        let workload = r#"{"type":"external_account","audience":"a","subject_token_type":"t",
            "token_url":"https://t","credential_source":{"file":"/run/subject"}}"#;
        for (document, expected) in [
            (
                format!(
                    "type: GCS\nconfig:\n  bucket: b\n  {tls}\n  service_account: '{workload}'\n"
                ),
                &["/c/ca", "/run/subject"][..],
            ),
            (
                format!("type: AZURE\nconfig:\n  storage_account: a\n  container: c\n  {tls}\n"),
                &["/c/ca"],
            ),
            (
                format!(
                    "type: SWIFT\nconfig:\n  auth_url: https://k/v3\n  container_name: c\n  \
                     user_id: u\n  password: p\n  {tls}\n"
                ),
                &["/c/ca"],
            ),
        ] {
            let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(access(&document, &[]).files, expected, "{document}");
        }
    }

    #[test]
    fn a_credential_process_may_run_and_keep_what_it_got() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(".aws");
        std::fs::create_dir(&directory).unwrap();
        let text = "[default]\ncredential_process = /bin/true\n";
        std::fs::write(directory.join("config"), text).unwrap();
        let home = home.path().to_str().unwrap();
        let document = "type: S3\nconfig: {bucket: b, endpoint: 'e:1'}\n";
        let found = access(document, &[("HOME", home)]);
        assert!(found.runs_programs);
        assert_eq!(found.written, std::slice::from_ref(&directory));
        assert_eq!(found.directories, [directory]);
    }
}
