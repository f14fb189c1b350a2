//! An S3 server of others in this process: s3s over a directory, which checks every signature.

use std::net::SocketAddr;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::host::SingleDomain;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Serves until dropped.
pub(in crate::objstore) struct S3sServer {
    addr: SocketAddr,
    directory: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl S3sServer {
    /// A server with the bucket `bucket`. `domain`: buckets below it are virtual hosts.
    pub(in crate::objstore) async fn start(keys: (&str, &str), domain: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("bucket")).unwrap();
        let files = s3s_fs::FileSystem::new(directory.path()).unwrap();
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(keys.0, keys.1));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        if let Some(domain) = domain {
            builder.set_host(SingleDomain::new(domain).unwrap());
        }
        let service = builder.build();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service.clone();
                connections.spawn(async move {
                    let server = Builder::new(TokioExecutor::new());
                    // A client that hangs up is no failure of the server.
                    server
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        Self {
            addr,
            directory,
            _tasks: tasks,
        }
    }

    pub(in crate::objstore) fn endpoint(&self) -> String {
        self.addr.to_string()
    }

    /// The content of an object as it lies in the directory.
    pub(super) fn object(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.directory.path().join("bucket").join(name)).unwrap()
    }
}
