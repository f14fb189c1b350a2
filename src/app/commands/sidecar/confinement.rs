//! Confines the sidecar: what its flags and documents name may be reached, and nothing else.
//!
//! It happens once all documents are read and before any thread is started, since Landlock is in
//! force for the thread that asks and those that it starts. What is opened later is opened under
//! it, buckets, rings and both listeners included.

use std::path::{Path, PathBuf};

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Settings;
use crate::app::Environment;
use crate::app::cli::{GlobalArgs, ReloadMethod, SidecarArgs};
use crate::confinement::{Confined, ConfinementError, Grants, Seccomp, confine, hides_processes};
use crate::disk::EngineRequest;
use crate::model::{ConfinementStatus, ErrorChain};
use crate::reloader::Files;

/// Confines the process unless `--no-sandbox` is given, and tells how far. The documents come with
/// the files that they name and that are read while the process runs.
pub(super) fn apply(
    global: &GlobalArgs,
    sidecar: &SidecarArgs,
    documents: (&Settings, &[PathBuf]),
    environment: &Environment,
) -> ConfinementStatus {
    if !sidecar.confinement.sandbox {
        tracing::info!("not confined, as --no-sandbox says");
        return ConfinementStatus {
            landlock_abi: 0,
            calls: "all",
            reason: Some("--no-sandbox".to_owned()),
        };
    }
    let grants = grants(global, sidecar, documents, environment);
    tell_about(&grants);
    let confined = confine(&grants);
    let status = status(&confined);
    tracing::info!(
        landlock_abi = status.landlock_abi,
        seccomp = status.calls,
        reason = status.reason.as_deref().unwrap_or("complete"),
        "confined"
    );
    for error in [confined.landlock.err(), confined.seccomp.err()] {
        if let Some(error) = error.filter(|error| !error.is_absence()) {
            tracing::warn!(
                err = %ErrorChain(&error),
                "the process is confined less than the kernel could"
            );
        }
    }
    status
}

/// Tells how the process is confined:
/// `outrigger_confinement_info{landlock_abi,seccomp}`, always 1.
pub(super) fn register(status: &ConfinementStatus, registry: &mut Registry) {
    let family: Family<Vec<(String, String)>, Gauge> = Family::default();
    let labels = vec![
        ("landlock_abi".to_owned(), status.landlock_abi.to_string()),
        ("seccomp".to_owned(), status.calls.to_owned()),
    ];
    family.get_or_create(&labels).set(1);
    registry.register(
        "outrigger_confinement_info",
        "How the process confines itself: version of the Landlock rules (0: none), system calls \
         that are left",
        family,
    );
}

/// Everything that the process will need.
fn grants(
    global: &GlobalArgs,
    sidecar: &SidecarArgs,
    (settings, files): (&Settings, &[PathBuf]),
    environment: &Environment,
) -> Grants {
    let mut grants = Grants::default();
    grants.read_system();
    grant_trust(&mut grants, environment);
    let documents = [
        &global.tracing.config_file,
        &sidecar.request_logging.config_file,
        &sidecar.prometheus.http_client_file,
        &sidecar.objstore.config_file,
        &sidecar.http.config,
        &sidecar.grpc.tls_cert,
        &sidecar.grpc.tls_key,
        &sidecar.grpc.tls_client_ca,
    ];
    let documents = documents.into_iter().flatten();
    for file in documents.chain(files) {
        grants.read_file(file);
    }
    grant_data(&mut grants, sidecar, settings);
    grant_bucket(&mut grants, settings, environment);
    grant_reloader(&mut grants, sidecar);
    // Whatever else is run may listen where it wants.
    if !grants.programs {
        let addresses = [&sidecar.http.address, &sidecar.grpc.address];
        grants.listen = addresses.into_iter().map(|address| port(address)).collect();
    }
    grants
}

/// Where `rustls-native-certs` is told to look for CA roots.
fn grant_trust(grants: &mut Grants, environment: &Environment) {
    let variable = |name| (environment.variable)(name).filter(|value| !value.is_empty());
    if let Some(file) = variable("SSL_CERT_FILE") {
        grants.read_file(Path::new(&file));
    }
    for dir in std::env::split_paths(&variable("SSL_CERT_DIR").unwrap_or_default()) {
        grants.read_directory(&dir);
        grants.read_linked(&dir);
    }
}

/// The data directory: written where blocks are shipped from it, read where they answer.
fn grant_data(grants: &mut Grants, sidecar: &SidecarArgs, settings: &Settings) {
    let data = &sidecar.tsdb.path;
    if settings.bucket.is_some() {
        grants.write_directory(data);
        grants.ring = !matches!(sidecar.io.engine, EngineRequest::Pread);
    } else if sidecar.store.local_blocks {
        grants.read_directory(data);
    }
}

fn grant_bucket(grants: &mut Grants, settings: &Settings, environment: &Environment) {
    let Some(bucket) = &settings.bucket else {
        return;
    };
    let access = bucket.local_access(&*environment.variable);
    access.files.iter().for_each(|file| grants.read_file(file));
    let directories = access.directories.iter();
    directories.for_each(|directory| grants.read_directory(directory));
    for directory in &access.written {
        // A rule needs something to stand on, and the first upload would make it anyway.
        if let Err(error) = std::fs::create_dir_all(directory) {
            let path = directory.display();
            tracing::debug!(%path, err = %error, "the bucket's directory can't be made yet");
        }
        grants.write_directory(directory);
    }
    if access.runs_programs {
        grants.programs = true;
        grants.without_rules =
            Some("a profile names a credential_process, which may need anything");
    }
}

fn grant_reloader(grants: &mut Grants, sidecar: &SidecarArgs) {
    let args = &sidecar.reloader;
    let files = Files {
        config_file: args.config_file.clone(),
        output: args.config_envsubst_file.clone(),
        rule_dirs: args.rule_dirs.clone(),
    };
    if files.is_empty() {
        return;
    }
    if let Some(file) = &files.config_file {
        grants.read_file(file);
        grants.read_replaceable_directory(directory_of(file));
        if let Some(output) = &files.output {
            grants.write_directory(directory_of(output));
        }
    }
    for dir in &files.rule_dirs {
        grants.read_replaceable_directory(dir);
    }
    for link in files.linked_rules() {
        grants.read_file(&link);
    }
    grants.signals = matches!(args.method, ReloadMethod::Signal);
    if grants.signals && hides_processes() {
        grants.without_rules = Some("/proc would hide Prometheus' process (hidepid)");
    }
}

fn directory_of(file: &Path) -> &Path {
    let directory = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

/// The port of a listening address; `None` where it is no number.
fn port(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

/// Tells of what is less confined than it should be, and of what may not be reached later.
fn tell_about(grants: &Grants) {
    for absent in grants.absences() {
        let path = absent.path.display();
        match &absent.granted {
            Some(granted) => tracing::info!(
                %path, granted = %granted.display(),
                "a path that is named is not there; what it would come in was granted instead, \
                 until the next start"
            ),
            None => tracing::info!(
                %path,
                "a path that is named is not there and stays out of reach if it comes: make it \
                 before the start, or use --no-sandbox"
            ),
        }
    }
    if grants.is_everything_written() {
        tracing::warn!(
            "every directory may be written, as one that is written is the root; name another one"
        );
    }
}

fn status(confined: &Confined) -> ConfinementStatus {
    let landlock = confined.landlock.as_ref();
    let seccomp = confined.seccomp.as_ref();
    let errors = [landlock.err(), seccomp.err()].into_iter().flatten();
    let told = errors.map(|error: &ConfinementError| ErrorChain(error).to_string());
    let mut reasons: Vec<String> = told.collect();
    if landlock.is_ok_and(|landlock| !landlock.is_complete()) {
        reasons.push("Linux 6.12 has more of Landlock".to_owned());
    }
    ConfinementStatus {
        landlock_abi: landlock.map_or(0, |landlock| landlock.abi),
        calls: match seccomp {
            Ok(Seccomp::Listed) => "listed",
            Ok(Seccomp::Dangerous) => "not-dangerous",
            Err(_) => "all",
        },
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
    }
}
