//! The flags of `outrigger sidecar`, grouped as its parts take them (contract `cli.md` §3).
//!
//! Names, defaults and types are the reference's and stand in `tests/golden/flags.txt` too. A flag
//! that is parsed here is not necessarily obeyed: `app::no_effect` lists what is not.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::byte_size::ByteSize;
use super::choice::{HashFunc, ReloadMethod};
use super::number;
use super::query::QueryArgs;
use super::text::{InlineYaml, OptionalPath, optional_path};
use super::url::PrometheusUrl;
use crate::disk::EngineRequest;
use crate::model::{GoDuration, PromDuration, TimeOrDuration};
use crate::net::TlsVersion;
use crate::objstore::PayloadSigning;

/// Everything that follows `sidecar`.
#[derive(Clone, Debug, Args)]
pub struct SidecarArgs {
    /// The HTTP server.
    #[command(flatten)]
    pub http: HttpArgs,
    /// The gRPC server.
    #[command(flatten)]
    pub grpc: GrpcArgs,
    /// The Prometheus beside us.
    #[command(flatten)]
    pub prometheus: PrometheusArgs,
    /// The data directory.
    #[command(flatten)]
    pub tsdb: TsdbArgs,
    /// The bucket.
    #[command(flatten)]
    pub objstore: ObjstoreArgs,
    /// The client of an S3 bucket.
    #[command(flatten)]
    pub s3: S3Args,
    /// The shipper.
    #[command(flatten)]
    pub shipper: ShipperArgs,
    /// Disk input and output.
    #[command(flatten)]
    pub io: IoArgs,
    /// The reloader.
    #[command(flatten)]
    pub reloader: ReloaderArgs,
    /// The StoreAPI.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The query APIs.
    #[command(flatten)]
    pub query: QueryArgs,
    /// Request logging.
    #[command(flatten)]
    pub request_logging: RequestLoggingArgs,
    /// The confinement of the process.
    #[command(flatten)]
    pub confinement: ConfinementArgs,
}

/// Flags of the HTTP server.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "HTTP server")]
pub struct HttpArgs {
    /// Address of the HTTP server, which answers `/metrics`, `/-/healthy` and `/-/ready`.
    #[arg(
        id = "http-address",
        long = "http-address",
        value_name = "HOST:PORT",
        default_value = "0.0.0.0:10902"
    )]
    pub address: String,

    /// How long requests in flight may go on when the process ends. 0 cuts them off.
    #[arg(
        id = "http-grace-period",
        long = "http-grace-period",
        value_name = "DURATION",
        default_value = "2m"
    )]
    pub grace_period: PromDuration,

    /// File with TLS, passwords, headers and rate limit of the HTTP server (Prometheus' web
    /// configuration). Read again when it changes.
    #[arg(
        id = "http.config", long = "http.config", value_name = "PATH", default_value = "",
        value_parser = optional_path()
    )]
    pub config: OptionalPath,
}

/// Flags of the gRPC server.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "gRPC server")]
pub struct GrpcArgs {
    /// Address of the gRPC server, which queriers connect to.
    #[arg(
        id = "grpc-address",
        long = "grpc-address",
        value_name = "HOST:PORT",
        default_value = "0.0.0.0:10901"
    )]
    pub address: String,

    /// File with the server's TLS certificate chain (PEM). Needs the key too. Without both, gRPC
    /// is plain text.
    #[arg(
        id = "grpc-server-tls-cert", long = "grpc-server-tls-cert", value_name = "PATH",
        default_value = "", value_parser = optional_path()
    )]
    pub tls_cert: OptionalPath,

    /// File with the server's TLS private key (PEM).
    #[arg(
        id = "grpc-server-tls-key", long = "grpc-server-tls-key", value_name = "PATH",
        default_value = "", value_parser = optional_path()
    )]
    pub tls_key: OptionalPath,

    /// File with the CA that client certificates must come from (PEM). Without it clients need
    /// no certificate.
    #[arg(
        id = "grpc-server-tls-client-ca", long = "grpc-server-tls-client-ca", value_name = "PATH",
        default_value = "", value_parser = optional_path()
    )]
    pub tls_client_ca: OptionalPath,

    /// Lowest TLS version that is accepted: 1.0, 1.1, 1.2 or 1.3.
    #[arg(
        id = "grpc-server-tls-min-version",
        long = "grpc-server-tls-min-version",
        value_name = "VERSION",
        default_value = "1.3"
    )]
    pub tls_min_version: TlsVersion,

    /// TLS cipher suite that is accepted, by its Go name. May be repeated or hold a comma list.
    #[arg(
        id = "grpc-server-tls-ciphers", long = "grpc-server-tls-ciphers", value_name = "NAME",
        action = ArgAction::Append, value_delimiter = ','
    )]
    pub tls_ciphers: Vec<String>,

    /// TLS key exchange that is accepted, by its Go name, most wanted first. May be repeated or
    /// hold a comma list.
    #[arg(
        id = "grpc-server-tls-curves", long = "grpc-server-tls-curves", value_name = "NAME",
        action = ArgAction::Append, value_delimiter = ','
    )]
    pub tls_curves: Vec<String>,

    /// Age at which a client's connection is asked to go away, so that clients spread over new
    /// servers. Streams in flight are not cut. 0 keeps connections.
    #[arg(
        id = "grpc-server-max-connection-age",
        long = "grpc-server-max-connection-age",
        value_name = "DURATION",
        default_value = "60m"
    )]
    pub max_connection_age: GoDuration,

    /// How long calls in flight may go on when the process ends.
    #[arg(
        id = "grpc-grace-period",
        long = "grpc-grace-period",
        value_name = "DURATION",
        default_value = "2m"
    )]
    pub grace_period: GoDuration,
}

/// Flags about the Prometheus beside us.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Prometheus")]
pub struct PrometheusArgs {
    /// Where Prometheus' API is. A path prefix (`--web.route-prefix`) is kept.
    #[arg(
        id = "prometheus.url",
        long = "prometheus.url",
        value_name = "URL",
        default_value = "http://localhost:9090"
    )]
    pub url: PrometheusUrl,

    /// How long the shipper waits for Prometheus' external labels before the process gives up
    /// with exit code 1. Time that Prometheus spends replaying its WAL does not count.
    #[arg(
        id = "prometheus.ready_timeout",
        long = "prometheus.ready_timeout",
        value_name = "DURATION",
        default_value = "10m"
    )]
    pub ready_timeout: GoDuration,

    /// How often Prometheus' configuration is asked for, also while it is not up yet.
    #[arg(
        id = "prometheus.get_config_interval",
        long = "prometheus.get_config_interval",
        value_name = "DURATION",
        default_value = "30s"
    )]
    pub get_config_interval: GoDuration,

    /// How long Prometheus may take to answer one round of those questions.
    #[arg(
        id = "prometheus.get_config_timeout",
        long = "prometheus.get_config_timeout",
        value_name = "DURATION",
        default_value = "30s"
    )]
    pub get_config_timeout: GoDuration,

    /// YAML file with the settings of the client towards Prometheus (TLS, authentication, proxy).
    #[arg(
        id = "prometheus.http-client-file", long = "prometheus.http-client-file",
        value_name = "PATH", default_value = "", value_parser = optional_path()
    )]
    pub http_client_file: OptionalPath,

    /// The same settings as text instead of a file. `$(VAR)` is not expanded here.
    #[arg(
        id = "prometheus.http-client",
        long = "prometheus.http-client",
        value_name = "YAML",
        default_value = ""
    )]
    pub http_client: InlineYaml,
}

/// Flags about the data directory.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data directory")]
pub struct TsdbArgs {
    /// Prometheus' data directory. The shipper's ledger and staging area are in it as well.
    #[arg(
        id = "tsdb.path", long = "tsdb.path", value_name = "PATH", default_value = "./data",
        value_parser = super::text::path()
    )]
    pub path: PathBuf,

    /// Earliest time that is advertised to queriers: an RFC 3339 time, or a distance from now
    /// such as -30d.
    #[arg(
        id = "min-time",
        long = "min-time",
        value_name = "TIME|DURATION",
        default_value = "0000-01-01T00:00:00Z"
    )]
    pub min_time: TimeOrDuration,
}

/// Flags about the bucket.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Object store")]
pub struct ObjstoreArgs {
    /// YAML file that describes the bucket. Without it nothing is uploaded. `$(VAR)` is replaced
    /// by the environment variable.
    #[arg(
        id = "objstore.config-file", long = "objstore.config-file", value_name = "PATH",
        default_value = "", value_parser = optional_path()
    )]
    pub config_file: OptionalPath,

    /// The same document as text instead of a file.
    #[arg(
        id = "objstore.config",
        long = "objstore.config",
        value_name = "YAML",
        default_value = ""
    )]
    pub config: InlineYaml,
}

/// Flags about S3 that are no keys of the document, as other components read the same document
/// and refuse keys they do not know.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Object store")]
pub struct S3Args {
    /// Whether the signature of an upload covers its bytes: auto, always or never. Auto signs
    /// them over plain HTTP and leaves it to TLS otherwise.
    #[arg(
        id = "s3.payload-signing",
        long = "s3.payload-signing",
        value_name = "WHEN",
        default_value = "auto"
    )]
    pub payload_signing: PayloadSigning,
}

/// Flags of the shipper.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Shipper")]
pub struct ShipperArgs {
    /// Upload blocks that Prometheus compacted, too: for filling a bucket with old data, while
    /// nothing else compacts it.
    #[arg(
        id = "shipper.upload-compacted", long = "shipper.upload-compacted", action = ArgAction::Set,
        default_value = "false"
    )]
    pub upload_compacted: bool,

    /// Do not insist that Prometheus' shortest and longest block are equally long, which keeps it
    /// from compacting what is not uploaded yet.
    #[arg(
        id = "shipper.ignore-unequal-block-size", long = "shipper.ignore-unequal-block-size",
        action = ArgAction::Set, default_value = "false", hide = true
    )]
    pub ignore_unequal_block_size: bool,

    /// Go on to newer blocks after one failed, and skip the overlap check. Compactors may halt on
    /// what comes of it.
    #[arg(
        id = "shipper.allow-out-of-order-uploads", long = "shipper.allow-out-of-order-uploads",
        action = ArgAction::Set, default_value = "false", hide = true
    )]
    pub allow_out_of_order_uploads: bool,

    /// Leave out blocks that cannot be read instead of failing the whole round.
    #[arg(
        id = "shipper.skip-corrupted-blocks", long = "shipper.skip-corrupted-blocks",
        action = ArgAction::Set, default_value = "false", hide = true
    )]
    pub skip_corrupted_blocks: bool,

    /// Hash of each file to note in the block's meta.json: SHA256, or nothing for none.
    #[arg(
        id = "hash-func",
        long = "hash-func",
        value_name = "NAME",
        default_value = ""
    )]
    pub hash_func: HashFunc,

    /// Name of the shipper's ledger in the data directory. Prometheus' delayed compaction reads
    /// it, so both must have the same name for it.
    #[arg(
        id = "shipper.meta-file-name", long = "shipper.meta-file-name", value_name = "NAME",
        default_value = "thanos.shipper.json", value_parser = super::text::path()
    )]
    pub meta_file_name: PathBuf,

    /// How many parts of files are sent to the bucket at once; 1 is strictly one after the other.
    /// 0 means 4.
    #[arg(
        id = "shipper.upload-concurrency", long = "shipper.upload-concurrency",
        value_name = "COUNT", default_value = "0", value_parser = number::parse_int
    )]
    pub upload_concurrency: i64,

    /// The most bytes per second that go to the bucket, over all uploads, such as 50MiB. No limit
    /// where it is not set.
    #[arg(
        id = "shipper.max-rate",
        long = "shipper.max-rate",
        value_name = "BYTES"
    )]
    pub max_rate: Option<ByteSize>,

    /// The longest time that a new block waits before it is uploaded; each block waits a random
    /// share of it. For many sidecars that share a bucket: Prometheus cuts blocks everywhere at
    /// the same time.
    #[arg(
        id = "shipper.upload-jitter",
        long = "shipper.upload-jitter",
        value_name = "DURATION",
        default_value = "0s"
    )]
    pub upload_jitter: GoDuration,

    /// Upload what is in Prometheus' head when this process is ended, for hosts that are scaled
    /// down: as a block that leaves the bucket again when Prometheus comes back and writes its
    /// own. Prometheus must run until it is done, with --web.enable-admin-api.
    #[arg(
        id = "shipper.flush-on-shutdown", long = "shipper.flush-on-shutdown",
        action = ArgAction::Set, default_value = "false"
    )]
    pub flush_on_shutdown: bool,

    /// How long the end may take at most with --shipper.flush-on-shutdown. A second SIGTERM or
    /// SIGINT ends it at once.
    #[arg(
        id = "shipper.flush-timeout",
        long = "shipper.flush-timeout",
        value_name = "DURATION",
        default_value = "10m"
    )]
    pub flush_timeout: GoDuration,
}

/// Flags of disk input and output.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Disk")]
pub struct IoArgs {
    /// How files are read and written: auto, uring or pread. Auto is io_uring where the kernel
    /// and the sandbox allow it, else blocking calls with a warning; uring never falls back.
    #[arg(
        id = "io.engine",
        long = "io.engine",
        value_name = "ENGINE",
        default_value = "auto"
    )]
    pub engine: EngineRequest,

    /// Buffers of 1 MiB that all reading and sending of blocks shares, from 4 to 4096. Memory for
    /// them is taken when it is needed.
    #[arg(
        id = "io.buffers", long = "io.buffers", value_name = "COUNT",
        default_value = "40", value_parser = number::parse_buffers
    )]
    pub buffers: usize,
}

/// Flags of the reloader.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Reloader")]
pub struct ReloaderArgs {
    /// Prometheus' configuration file, watched for changes.
    #[arg(
        id = "reloader.config-file", long = "reloader.config-file", value_name = "PATH",
        default_value = "", value_parser = optional_path()
    )]
    pub config_file: OptionalPath,

    /// Where the configuration file is written with each `$(VAR)` replaced by the environment
    /// variable.
    #[arg(
        id = "reloader.config-envsubst-file", long = "reloader.config-envsubst-file",
        value_name = "PATH", default_value = "", value_parser = optional_path()
    )]
    pub config_envsubst_file: OptionalPath,

    /// Directory with rules, watched for changes. May be repeated.
    #[arg(
        id = "reloader.rule-dir", long = "reloader.rule-dir", value_name = "PATH",
        action = ArgAction::Append, value_parser = super::text::path()
    )]
    pub rule_dirs: Vec<PathBuf>,

    /// How often the watched files are looked through even if no change was noticed.
    #[arg(
        id = "reloader.watch-interval",
        long = "reloader.watch-interval",
        value_name = "DURATION",
        default_value = "3m"
    )]
    pub watch_interval: GoDuration,

    /// How long to wait before a failed reload is tried again.
    #[arg(
        id = "reloader.retry-interval",
        long = "reloader.retry-interval",
        value_name = "DURATION",
        default_value = "5s"
    )]
    pub retry_interval: GoDuration,

    /// How Prometheus is told to reload: http or signal.
    #[arg(
        id = "reloader.method",
        long = "reloader.method",
        value_name = "METHOD",
        default_value = "http"
    )]
    pub method: ReloadMethod,

    /// Executable name of the process that gets the signal.
    #[arg(
        id = "reloader.process-name",
        long = "reloader.process-name",
        value_name = "NAME",
        default_value = "prometheus"
    )]
    pub process_name: String,
}

/// Flags of the StoreAPI.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Store limits")]
pub struct StoreArgs {
    /// Most series that one Series request may return. 0 is no limit.
    #[arg(
        id = "store.limits.request-series", long = "store.limits.request-series",
        value_name = "COUNT", default_value = "0", value_parser = number::parse_uint
    )]
    pub request_series: u64,

    /// Most samples that one Series request may return, each chunk counted as 120. 0 is no limit.
    #[arg(
        id = "store.limits.request-samples", long = "store.limits.request-samples",
        value_name = "COUNT", default_value = "0", value_parser = number::parse_uint
    )]
    pub request_samples: u64,

    /// Memory for Series answers that have to be sorted, over all requests. Only few have to:
    /// those where series have labels of their own that external or replica labels have.
    #[arg(
        id = "store.sort-buffer",
        long = "store.sort-buffer",
        value_name = "SIZE",
        default_value = "256MiB"
    )]
    pub sort_buffer: ByteSize,

    /// Series requests that are answered at once, from 1 to 1000; more wait. Prometheus by itself
    /// reads for 10 at a time (`--storage.remote.read-concurrent-limit`).
    #[arg(
        id = "store.max-concurrent-series", long = "store.max-concurrent-series",
        value_name = "COUNT", default_value = "50", value_parser = number::parse_concurrency
    )]
    pub max_concurrent_series: usize,

    /// Answer from the blocks below --tsdb.path what Prometheus need not be asked for, as long as
    /// they are proven to be those that Prometheus has loaded.
    #[arg(
        id = "store.local-blocks", long = "store.local-blocks",
        default_value = "true", action = clap::ArgAction::Set
    )]
    pub local_blocks: bool,
}

/// Flags of request logging.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Request logging")]
pub struct RequestLoggingArgs {
    /// YAML file that says which gRPC calls are logged. `$(VAR)` is replaced by the environment
    /// variable.
    #[arg(
        id = "request.logging-config-file", long = "request.logging-config-file",
        value_name = "PATH", default_value = "", value_parser = optional_path()
    )]
    pub config_file: OptionalPath,

    /// The same document as text instead of a file.
    #[arg(
        id = "request.logging-config",
        long = "request.logging-config",
        value_name = "YAML",
        default_value = ""
    )]
    pub config: InlineYaml,
}

/// Flags of the confinement.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Confinement")]
pub struct ConfinementArgs {
    /// Confine the process once its configuration is read, as far as the kernel can: by Landlock
    /// to the files that flags and configuration name and to listening on its two ports, by
    /// seccomp to the system calls that it makes. It starts no other program then, unless the AWS
    /// profile has a credential_process.
    #[arg(
        id = "sandbox", long = "sandbox", default_value = "true", action = ArgAction::Set
    )]
    pub sandbox: bool,
}
