//! S3 servers: one that checks signatures and keeps objects as files, one that fails on demand, and
//! one that somebody else wrote in another language.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use outrigger::objstore::{Checksums, FakeS3, Fault};
use s3s::auth::SimpleAuth;
use s3s::host::SingleDomain;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::{Process, eventually, get, left_out};

pub(crate) const ACCESS_KEY: &str = "AKIAOUTRIGGERTEST000";
pub(crate) const SECRET_KEY: &str = "a/secret+that=nobody?may&see";

/// A name that no resolver knows: whoever calls it goes through a proxy.
pub(crate) const HOST: &str = "s3.outrigger.test";

/// The bucket of every server here.
const BUCKET: &str = "blocks";

/// The document for a bucket at `endpoint`, with `keys` (lines of YAML) beside the usual ones.
pub(crate) fn objstore_yaml(endpoint: &str, keys: &[&str]) -> String {
    let mut text = format!(
        "type: S3\nconfig:\n  bucket: {BUCKET}\n  endpoint: {endpoint}\n  insecure: true\n  \
         access_key: {ACCESS_KEY}\n  secret_key: {SECRET_KEY}\n"
    );
    for key in keys {
        text.push_str(&format!("  {key}\n"));
    }
    text
}

/// A server that checks signatures (s3s), whose bucket is a directory (s3s-fs).
pub(crate) struct SignedS3 {
    pub(crate) address: SocketAddr,
    root: PathBuf,
    _runtime: Runtime,
}

impl SignedS3 {
    /// Keeps its objects below `root`. Requests may name the bucket in the path or, below
    /// [`HOST`], in the host name.
    pub(crate) fn start(root: &Path) -> Self {
        Self::start_as(HOST, root)
    }

    /// As [`SignedS3::start`], below another host.
    pub(crate) fn start_as(host: &str, root: &Path) -> Self {
        std::fs::create_dir_all(root.join(BUCKET)).unwrap();
        let runtime = runtime();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        builder.set_host(SingleDomain::new(host).unwrap());
        let service = builder.build();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A client that goes away is no failure of the server.
                    drop(server.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self {
            address,
            root: root.to_owned(),
            _runtime: runtime,
        }
    }

    /// The directory that holds the objects.
    pub(crate) fn bucket(&self) -> super::Bucket {
        super::Bucket::new(self.root.join(BUCKET))
    }
}

/// A server in memory that fails as it is told to.
pub(crate) struct FailingS3 {
    pub(crate) server: FakeS3,
    _runtime: Runtime,
}

impl FailingS3 {
    pub(crate) fn start(checksums: Checksums) -> Self {
        let runtime = runtime();
        let server = runtime.block_on(FakeS3::start(checksums, |_| Fault::Pass));
        let server = server.unwrap();
        server.set_part_bytes_min(5 << 20);
        Self {
            server,
            _runtime: runtime,
        }
    }

    /// The blocks that readers of the bucket see.
    pub(crate) fn has(&self, block: &Path) -> bool {
        let name = block.file_name().unwrap().to_str().unwrap();
        let meta = format!("{BUCKET}/{name}/meta.json");
        self.server.object(&meta).is_some()
    }
}

/// moto, which `tests/fetch-moto` finds or installs below target/.
pub(crate) struct MotoS3 {
    _process: Process,
    pub(crate) address: SocketAddr,
}

impl MotoS3 {
    /// `None` where there is none on this machine, which is said.
    pub(crate) fn start(case: &str) -> Option<Self> {
        let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fetch-moto");
        let found = Command::new(fetch).output().unwrap();
        if !found.status.success() {
            left_out(case, "no moto_server here, see tests/fetch-moto");
            return None;
        }
        let program = String::from_utf8(found.stdout).unwrap();
        let mut command = Command::new(program.trim());
        command.args(["-H", "127.0.0.1", "-p", "0"]);
        let process = Process::spawn("moto_server", &mut command);
        let line = process.wait_for_line("its address", |line| line.contains("http://127.0.0.1:"));
        let (_, rest) = line.split_once("http://").unwrap();
        let address = rest.split(|c: char| c.is_whitespace() || c == '/').next();
        let address: SocketAddr = address.unwrap().parse().unwrap();
        eventually("moto answers", || get(address, "/moto-api/").ok());
        Some(Self {
            _process: process,
            address,
        })
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}
