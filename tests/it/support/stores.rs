//! Stores other than S3, and readers of what is in them.

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use outrigger::disk::{BufferPool, DiskEngine, EngineRequest};
use outrigger::model::Clock;
use outrigger::objstore::{
    self, BucketConfig, BucketDependencies, FakeS3, Fault, ListEntry, ObjectKey, PayloadSigning,
    RequestStats, service_account,
};
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;

use super::{Bucket, Process, left_out};

/// A server in memory, and the document for it.
pub(crate) struct FakeStore {
    pub(crate) server: FakeS3,
    pub(crate) yaml: String,
    /// What the environment must have.
    pub(crate) variables: Vec<(&'static str, String)>,
    _runtime: Runtime,
}

impl FakeStore {
    /// Google's, with a service account.
    pub(crate) fn google() -> Self {
        let runtime = runtime();
        let (account, public_key) = service_account("http://TOKENS/token");
        let server = runtime.block_on(FakeS3::google(public_key, |_| Fault::Pass));
        let server = server.unwrap();
        let account = account.replace("TOKENS", &server.endpoint());
        let yaml = format!(
            "type: GCS\nconfig:\n  bucket: blocks\n  chunk_size_bytes: 5242880\n  \
             service_account: '{account}'\n"
        );
        Self {
            variables: vec![("STORAGE_EMULATOR_HOST", server.endpoint())],
            server,
            yaml,
            _runtime: runtime,
        }
    }

    /// Swift behind Keystone.
    pub(crate) fn swift() -> Self {
        let runtime = runtime();
        let server = runtime.block_on(FakeS3::swift(|_| Fault::Pass)).unwrap();
        let yaml = format!(
            "type: SWIFT\nconfig:\n  auth_url: http://{}/v3\n  username: user\n  \
             password: hidden\n  project_name: project\n  container_name: blocks\n  \
             large_object_segments_container_name: segments\n  \
             large_object_chunk_size: 5242880\n",
            server.endpoint()
        );
        Self {
            variables: Vec::new(),
            server,
            yaml,
            _runtime: runtime,
        }
    }
}

/// Azurite, which `tests/fetch-azurite` finds or installs below target/.
pub(crate) struct Azurite {
    _process: Process,
    pub(crate) yaml: String,
}

impl Azurite {
    /// `None` where there is none on this machine, which is said.
    pub(crate) fn start(case: &str, scratch: &Path) -> Option<Self> {
        let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fetch-azurite");
        let found = Command::new(fetch).output().unwrap();
        if !found.status.success() {
            left_out(case, "no azurite-blob here, see tests/fetch-azurite");
            return None;
        }
        let program = String::from_utf8(found.stdout).unwrap();
        let mut command = Command::new(program.trim());
        command.args([
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            "0",
            "--disableTelemetry",
        ]);
        command.arg("--location").arg(scratch);
        let process = Process::spawn("azurite-blob", &mut command);
        let line = process.wait_for_line("its address", |line| line.contains("listens on http://"));
        let (_, endpoint) = line.split_once("http://").unwrap();
        // The account that its documentation publishes.
        let yaml = format!(
            "type: AZURE\nconfig:\n  storage_account: devstoreaccount1\n  container: blocks\n  \
             storage_connection_string: \"AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqF\
             lqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;\
             BlobEndpoint=http://{}/devstoreaccount1\"\n",
            endpoint.trim()
        );
        Some(Self {
            _process: process,
            yaml,
        })
    }
}

/// Copies all that is in the bucket of a document below `root`.
pub(crate) fn mirrored(yaml: &str, variables: &[(&'static str, String)], root: &Path) -> Bucket {
    let variables = variables.to_vec();
    let config = BucketConfig::parse(yaml, Path::new("/")).unwrap();
    let engine = DiskEngine::build(EngineRequest::Pread, BufferPool::new(4)).unwrap();
    let runtime = runtime();
    let now_ns = jiff::Timestamp::now().as_nanosecond();
    runtime.block_on(async {
        let dependencies = BucketDependencies {
            engine,
            registry: &mut Registry::default(),
            clock: Clock::fixed(now_ns),
            jitter_seed: 1,
            variable: Arc::new(move |name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.into())
            }),
            parts_in_flight: NonZeroUsize::MIN,
            body_bytes_max: 1 << 20,
            pace: None,
            payload_signing: PayloadSigning::Auto,
            requests: RequestStats::default(),
        };
        let bucket = objstore::build(&config, dependencies).unwrap();
        let mut waiting: Vec<Option<ObjectKey>> = vec![None];
        while let Some(directory) = waiting.pop() {
            let listing = bucket.list(directory.as_ref()).await.unwrap();
            let entries: Vec<ListEntry> = listing.try_collect().await.unwrap();
            for entry in entries {
                match entry {
                    ListEntry::Directory(name) => {
                        waiting.push(Some(ObjectKey::new(name).unwrap()));
                    }
                    ListEntry::Object(name) => {
                        let key = ObjectKey::new(name.as_str()).unwrap();
                        let content = bucket.get(&key).await.unwrap();
                        let runs: Vec<bytes::Bytes> = content.try_collect().await.unwrap();
                        let path = root.join(&name);
                        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                        std::fs::write(path, runs.concat()).unwrap();
                    }
                }
            }
        }
    });
    Bucket::new(root)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}
