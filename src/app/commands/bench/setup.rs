//! From flags to what a run needs: bucket, engine, files, settings.

use std::hash::{BuildHasher as _, RandomState};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;

use super::clean_up::Written;
use super::files::Load;
use super::sweep::{Setting, grid};
use crate::app::Environment;
use crate::app::cli::{EngineChoice, OutputFormat, UploadBenchArgs};
use crate::app::commands::progress::Goal;
use crate::app::config::PathOrContent;
use crate::disk::{BufferPool, Containment, Dir, DiskEngine, EngineRequest};
use crate::model::{BlockId, Clock};
use crate::objstore::{
    self, Bucket, BucketConfig, BucketDependencies, ObjectKey, PayloadSigning, Provider,
    RequestStats, Variables,
};

/// How long reads that were begun may hold up the end.
pub(super) const END_GRACE: Duration = Duration::from_secs(1);

/// Where files are generated without `--scratch` and `TMPDIR`: on a disk everywhere, while `/tmp`
/// often is not.
const SCRATCH_DEFAULT: &str = "/var/tmp";

/// What every object's name begins with, below the bucket's own prefix.
const PREFIX: &str = "outrigger-bench";

/// What S3 takes as a part ("multipart upload limits").
const PART_BYTES: std::ops::RangeInclusive<u64> = 5 << 20..=5 << 30;

/// Everything that stays the same over the runs.
pub(super) struct Setup {
    args: UploadBenchArgs,
    config: BucketConfig,
    pub(super) engine: DiskEngine,
    clock: Clock,
    variable: Variables,
    scratch: PathBuf,
    /// Of this bench alone.
    pub(super) id: BlockId,
}

/// A bucket as one run has it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) requests: RequestStats,
    /// What this run has put there, or may have.
    pub(super) written: Mutex<Written>,
    pub(super) prefix: ObjectKey,
}

impl Setup {
    /// Checks the flags and starts the disk engine. Nothing is written yet.
    pub(super) async fn new(
        args: &UploadBenchArgs,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let yaml = PathOrContent::objstore(&args.objstore).load(&*environment.variable)?;
        anyhow::ensure!(
            !yaml.is_empty(),
            "a bench needs a bucket: give --objstore.config-file or --objstore.config"
        );
        let working_directory = std::env::current_dir().context("find the working directory")?;
        let mut config = BucketConfig::parse(&yaml, &working_directory)?;
        for warning in &config.warnings {
            tracing::warn!(flag = "objstore.config", "{warning}");
        }
        set_part_size(args, &mut config)?;
        let temporary = (environment.variable)("TMPDIR").filter(|value| !value.is_empty());
        let temporary = temporary.map_or_else(|| SCRATCH_DEFAULT.into(), PathBuf::from);
        let now_ms = u64::try_from(environment.clock.now().0).unwrap_or_default();
        Ok(Self {
            engine: engine(args)?,
            variable: Arc::clone(&environment.variable),
            config,
            clock: environment.clock.clone(),
            scratch: args.load.scratch.clone().unwrap_or(temporary),
            id: unique_id(now_ms),
            args: args.clone(),
        })
    }

    /// The files, planned or found; none is written yet.
    pub(super) fn load(&self) -> anyhow::Result<Load> {
        match &self.args.load.data {
            Some(directory) => Load::given(directory),
            None => Load::plan(
                &self.scratch,
                &format!("{PREFIX}-{}", self.id),
                self.args.load.size.bytes(),
                self.args.load.file_size.bytes(),
            ),
        }
    }

    /// The combinations to run.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let base = Setting {
            part_bytes: self.part_bytes(),
            concurrency: self.args.engine.concurrency,
        };
        grid(self.args.run.sweep, base)
    }

    fn part_bytes(&self) -> Option<NonZeroU64> {
        let client = self.config.provider.client();
        client.map(|client| client.part_bytes)
    }

    /// The bucket with these settings, and connections of its own.
    pub(super) fn target(&self, setting: Setting) -> anyhow::Result<Target> {
        let mut config = self.config.clone();
        if let (Some(client), Some(bytes)) = (config.provider.client_mut(), setting.part_bytes) {
            client.part_bytes = bytes;
        }
        let requests = RequestStats::default();
        let mut registry = Registry::default();
        let dependencies = BucketDependencies {
            engine: self.engine.clone(),
            registry: &mut registry,
            clock: self.clock.clone(),
            jitter_seed: u64::try_from(self.clock.now_ns()).unwrap_or_default(),
            variable: Arc::clone(&self.variable),
            parts_in_flight: NonZeroUsize::try_from(setting.concurrency)?,
            body_bytes_max: self.engine.pool().capacity_bytes() as u64 / 2,
            pace: None,
            payload_signing: self.args.s3.payload_signing,
            requests: requests.clone(),
        };
        Ok(Target {
            bucket: objstore::build(&config, dependencies)?,
            requests,
            written: Mutex::default(),
            prefix: ObjectKey::new(format!("{PREFIX}/{}", self.id))?,
        })
    }

    /// Where the bar of a run ends.
    pub(super) fn goal(&self, load: &Load) -> Goal {
        match self.duration() {
            Duration::ZERO => Goal::Bytes(load.size_bytes()),
            whole => Goal::Time(whole),
        }
    }

    /// How long a run goes on; zero for each file once.
    pub(super) fn duration(&self) -> Duration {
        self.args.run.duration.to_std_or_zero()
    }

    pub(super) fn output(&self) -> OutputFormat {
        self.args.run.output
    }

    /// Whether the runs are to be compared.
    pub(super) fn is_sweep(&self) -> bool {
        self.args.run.sweep.is_any()
    }

    pub(super) fn buffers(&self) -> usize {
        self.args.engine.buffers
    }

    /// Which bucket, and where.
    pub(super) fn bucket_name(&self) -> String {
        match &self.config.provider {
            Provider::Filesystem { directory } => format!("fs: {}", directory.display()),
            provider => provider.client().map_or_else(String::new, |client| {
                let scheme = if client.insecure { "http" } else { "https" };
                format!("{} at {scheme}://{}", client.bucket, client.endpoint)
            }),
        }
    }

    /// Whether bodies are hashed for the signature; `None` where nothing is signed.
    pub(super) fn payload_signing(&self) -> Option<&'static str> {
        let Provider::S3(settings) = &self.config.provider else {
            return None;
        };
        Some(match self.args.s3.payload_signing {
            PayloadSigning::Auto if settings.client.insecure => "the body too (auto: plain HTTP)",
            PayloadSigning::Auto => "all but the body (auto: TLS)",
            PayloadSigning::Always => "the body too",
            PayloadSigning::Never => "all but the body",
        })
    }

    pub(super) fn provider(&self) -> &'static str {
        self.config.provider.kind()
    }

    pub(super) async fn open(&self, directory: &Path) -> anyhow::Result<Dir> {
        Ok(Dir::open(directory, Containment::Beneath).await?)
    }
}

/// The engine that is named, or none: `EngineError` says why and what else there is.
fn engine(args: &UploadBenchArgs) -> anyhow::Result<DiskEngine> {
    let request = match args.engine.engine {
        EngineChoice::Uring => EngineRequest::Uring,
        EngineChoice::Pread => EngineRequest::Pread,
    };
    Ok(DiskEngine::build(
        request,
        BufferPool::new(args.engine.buffers),
    )?)
}

/// Puts `--part-size` into the bucket's settings.
///
/// # Errors
/// Where the bucket has no parts, or none of that size.
fn set_part_size(args: &UploadBenchArgs, config: &mut BucketConfig) -> anyhow::Result<()> {
    let asked = args.engine.part_size;
    let kind = config.provider.kind();
    match config.provider.client_mut() {
        None => anyhow::ensure!(
            asked.is_none() && !args.run.sweep.part_size,
            "a {kind} bucket has no parts: leave out --part-size and --sweep=part-size"
        ),
        Some(client) => {
            if let Some(bytes) = asked {
                anyhow::ensure!(
                    PART_BYTES.contains(&bytes.get()),
                    "--part-size={bytes} is out of range: {kind} takes 5 MiB to 5 GiB"
                );
                client.part_bytes = bytes;
            }
        }
    }
    Ok(())
}

/// A ULID of now that no other process has.
fn unique_id(now_ms: u64) -> BlockId {
    let random = |part: u8| u128::from(RandomState::new().hash_one((std::process::id(), part)));
    let random = (random(0) << 64) | random(1);
    BlockId::from_u128((u128::from(now_ms) << 80) | (random >> 48))
}
