//! Which files the search for credentials reads on this host, and whether it runs a program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::container::TOKEN_FILE;

/// Profiles that one may lead to by `source_profile`; the SDK ends at circles.
const PROFILES_MAX: usize = 16;

/// The most that is read of a shared file, bytes.
pub(super) const SHARED_FILE_BYTES_MAX: u64 = 1 << 20;

/// The shared files: the variable that names one, and its name below `~/.aws` otherwise.
const SHARED: [(&str, &str); 2] = [
    ("AWS_CONFIG_FILE", "config"),
    ("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
];

/// What the search for credentials needs of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::objstore) struct CredentialFiles {
    /// Files that are read, now or later; not all of them have to be there.
    pub(in crate::objstore) files: Vec<PathBuf>,
    /// The directory of the shared files, where it is there.
    pub(in crate::objstore) directory: Option<PathBuf>,
    /// Whether the profile in use has a `credential_process`.
    pub(in crate::objstore) runs_program: bool,
}

/// What the keys of a profile mean for this.
#[derive(Debug, Default)]
struct Profile {
    source: Option<String>,
    token_file: Option<PathBuf>,
    has_program: bool,
}

impl CredentialFiles {
    /// Looks at variables and shared files as they are now.
    pub(in crate::objstore) fn look(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut found = Self::default();
        let directory = variable("HOME").map(|home| Path::new(&home).join(".aws"));
        found.directory = directory.filter(|directory| directory.is_dir());
        for name in ["AWS_WEB_IDENTITY_TOKEN_FILE", TOKEN_FILE] {
            found.files.extend(variable(name).map(PathBuf::from));
        }
        let mut profiles = BTreeMap::new();
        for (name, default) in SHARED {
            let Some(path) = shared_path(variable, name, default) else {
                continue;
            };
            // The search itself tells what is wrong with it.
            if let Ok(Some(text)) = read_shared(&path) {
                parse(&text, &mut profiles);
            }
            // One below a directory that is not there is none that anybody counts on.
            if variable(name).is_some() || path.exists() {
                found.files.push(path);
            }
        }
        let first = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        found.follow(&profiles, first);
        found
    }

    /// From one profile to those that it takes its credentials from.
    fn follow(&mut self, profiles: &BTreeMap<String, Profile>, first: String) {
        let mut seen = BTreeSet::new();
        let mut next = Some(first);
        while let Some(name) = next.take().filter(|_| seen.len() < PROFILES_MAX) {
            let Some(profile) = profiles.get(&name) else {
                return;
            };
            self.runs_program |= profile.has_program;
            self.files.extend(profile.token_file.clone());
            if seen.insert(name) {
                next = profile.source.clone();
            }
        }
    }
}

/// Where a shared file is; `None` where there is no home directory.
pub(super) fn shared_path(
    variable: &dyn Fn(&str) -> Option<String>,
    name: &str,
    default: &str,
) -> Option<PathBuf> {
    let home = || variable("HOME").map(PathBuf::from);
    match variable(name) {
        Some(path) => match path.strip_prefix("~/") {
            Some(rest) => Some(home()?.join(rest)),
            None => Some(PathBuf::from(path)),
        },
        None => Some(home()?.join(".aws").join(default)),
    }
}

/// `None` where there is no such file.
pub(super) fn read_shared(path: &Path) -> std::io::Result<Option<String>> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(SHARED_FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads what matters here of a shared file: `[profile name]` or `[name]`, then `key = value`.
/// What is no such line is passed over; the SDK judges it.
fn parse(text: &str, profiles: &mut BTreeMap<String, Profile>) {
    let mut section = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(title) = line.strip_prefix('[') {
            let title = title.split(']').next().unwrap_or_default().trim();
            let name = title.strip_prefix("profile").filter(|rest| {
                let mut rest = rest.chars();
                rest.next().is_some_and(char::is_whitespace)
            });
            section = name.unwrap_or(title).trim().to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            let profile = profiles.entry(section.clone()).or_default();
            match key.as_str() {
                "credential_process" => profile.has_program = true,
                "source_profile" => profile.source = Some(value.to_owned()),
                "web_identity_token_file" => profile.token_file = Some(PathBuf::from(value)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(variables: &[(&str, String)]) -> CredentialFiles {
        CredentialFiles::look(&|name| {
            let set = variables.iter().find(|(known, _)| *known == name);
            set.map(|(_, value)| value.clone())
        })
    }

    /// What is found with this `~/.aws/config`.
    fn configured(config: &str, profile: Option<&str>) -> (CredentialFiles, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(".aws");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("config"), config).unwrap();
        let mut variables = vec![("HOME", home.path().display().to_string())];
        variables.extend(profile.map(|name| ("AWS_PROFILE", name.to_owned())));
        (look(&variables), directory)
    }

    #[test]
    fn without_variables_nothing_is_read() {
        assert_eq!(look(&[]), CredentialFiles::default());
        let home = ("HOME", "/nonexistent".to_owned());
        assert_eq!(look(&[home]), CredentialFiles::default());
    }

    #[test]
    fn tokens_and_named_files_are_read_where_they_will_be() {
        let named = |name, path: &str| (name, path.to_owned());
        let found = look(&[
            named("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token"),
            named(TOKEN_FILE, "/run/pod/token"),
            named("AWS_SHARED_CREDENTIALS_FILE", "/run/aws/credentials"),
        ]);
        let expected = ["/run/token", "/run/pod/token", "/run/aws/credentials"];
        assert_eq!(found.files, expected.map(PathBuf::from));
        assert!(!found.runs_program && found.directory.is_none());
    }

    #[test]
    fn the_directory_of_shared_files_is_read_where_it_is() {
        let (found, directory) = configured("[default]\nregion = x\n", None);
        assert_eq!(found.files, [directory.join("config")]);
        assert_eq!(found.directory, Some(directory));
        assert!(!found.runs_program);
    }

    #[test]
    fn a_program_counts_where_the_profile_in_use_names_it() {
        let config = "[default]\nregion=x\n; [default]\n# credential_process = no\n\
                      [profile p]\nCredential_Process = /bin/cat x\n\
                      [profile q]\nsource_profile = p\nrole_arn = r\n\
                      [profile r]\nsource_profile = r\n";
        for (profile, expected) in [
            (None, false),
            (Some("p"), true),
            (Some("q"), true),
            (Some("r"), false),
            (Some("no such"), false),
        ] {
            let (found, _) = configured(config, profile);
            assert_eq!(found.runs_program, expected, "{profile:?}");
        }
    }

    #[test]
    fn the_token_file_of_a_profile_is_read() {
        let config = "[profile p]\nweb_identity_token_file = /run/p/token\n";
        let (found, directory) = configured(config, Some("p"));
        let expected = [directory.join("config"), "/run/p/token".into()];
        assert_eq!(found.files, expected);
    }
}
