//! The flags of `outrigger bench`, which the reference has nothing like.
//!
//! Names that the sidecar has too mean the same here. Listed in `tests/golden/bench_flags.txt`.

use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;

use clap::{Args, Subcommand};

use super::byte_size::ByteSize;
use super::choice::{InvalidChoice, choose};
use super::number;
use super::sidecar::{ObjstoreArgs, S3Args};
use super::text::{OptionalPath, optional_path};
use crate::model::GoDuration;

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Uploads files to the bucket as the shipper does, without verifying blocks, and tells what
    /// it cost. What it wrote is removed at the end, also on Ctrl-C.
    Upload(Box<UploadBenchArgs>),
}

/// Everything that follows `bench upload`.
#[derive(Clone, Debug, Args)]
pub struct UploadBenchArgs {
    /// The bucket.
    #[command(flatten)]
    pub objstore: ObjstoreArgs,
    /// The client of an S3 bucket.
    #[command(flatten)]
    pub s3: S3Args,
    /// What is uploaded.
    #[command(flatten)]
    pub load: LoadArgs,
    /// How it is read and sent.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// What is tried and told.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Flags about what is uploaded.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Files")]
pub struct LoadArgs {
    /// Bytes that are generated and uploaded. The files are real ones on disk, of bytes that do not
    /// compress, dropped from the page cache before each run so that the disk is measured too; and
    /// removed at the end.
    #[arg(
        id = "size",
        long = "size",
        value_name = "SIZE",
        default_value = "4GiB"
    )]
    pub size: ByteSize,

    /// Bytes of each generated file.
    #[arg(
        id = "file-size",
        long = "file-size",
        value_name = "SIZE",
        default_value = "512MiB"
    )]
    pub file_size: ByteSize,

    /// Directory in which the generated files are made. Without it $TMPDIR, else /var/tmp. Should
    /// be on the disk that is to be measured.
    #[arg(
        id = "scratch", long = "scratch", value_name = "DIR", default_value = "",
        value_parser = optional_path()
    )]
    pub scratch: OptionalPath,

    /// Upload the regular files below this directory instead, a block for example. They are only
    /// read, and what of them is in the page cache stays there.
    #[arg(
        id = "data", long = "data", value_name = "DIR", default_value = "",
        value_parser = optional_path()
    )]
    pub data: OptionalPath,
}

/// Flags about the way of the bytes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Engine and upload")]
pub struct EngineArgs {
    /// How the files are read: uring or pread. There is no auto here, since nobody would know what
    /// was measured.
    #[arg(
        id = "io.engine",
        long = "io.engine",
        value_name = "ENGINE",
        default_value = "uring"
    )]
    pub engine: EngineChoice,

    /// Buffers of 1 MiB for everything that is read and not sent yet, from 4 to 4096.
    #[arg(
        id = "io.buffers", long = "io.buffers", value_name = "COUNT",
        default_value = "40", value_parser = number::parse_buffers
    )]
    pub buffers: usize,

    /// Size of a part, instead of the document's `part_size`. S3 only.
    #[arg(
        id = "part-size", long = "part-size", value_name = "SIZE", default_value = "",
        value_parser = optional_size
    )]
    pub part_size: OptionalSize,

    /// Parts that are in flight over all files; in a FILESYSTEM bucket, files.
    #[arg(
        id = "concurrency",
        long = "concurrency",
        value_name = "COUNT",
        default_value = "4"
    )]
    pub concurrency: NonZeroU32,
}

/// Flags about the measuring.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Measuring")]
pub struct RunArgs {
    /// Go on uploading the files, over and over, for this long. 0s uploads each once.
    #[arg(
        id = "duration",
        long = "duration",
        value_name = "DURATION",
        default_value = "0s"
    )]
    pub duration: GoDuration,

    /// Run once for each combination of common values of these settings, and say which won:
    /// part-size, concurrency, or both with a comma. Each run uploads everything.
    #[arg(
        id = "sweep",
        long = "sweep",
        value_name = "SETTINGS",
        default_value = ""
    )]
    pub sweep: SweepAxes,

    /// Form of the result on stdout: table or json.
    #[arg(
        id = "output",
        long = "output",
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub output: OutputFormat,
}

/// A size that may be left out.
pub type OptionalSize = Option<NonZeroU64>;

/// `--io.engine` of a bench, which must know what it measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// io_uring, or an error.
    Uring,
    /// Plain reads on threads.
    Pread,
}

/// `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// For people.
    Table,
    /// For programs: one object with stable keys.
    Json,
}

/// `--sweep`: which settings are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepAxes {
    /// Sizes of a part.
    pub part_size: bool,
    /// Parts in flight.
    pub concurrency: bool,
}

/// The engine is none that a bench can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEngine {
    /// `auto` may fall back.
    #[error(
        "a bench names its engine, so that it cannot silently measure the fallback: uring or pread"
    )]
    Auto,
    /// No engine at all.
    #[error(transparent)]
    Choice(#[from] InvalidChoice),
}

impl SweepAxes {
    /// Whether there is anything to sweep.
    pub fn is_any(self) -> bool {
        self.part_size || self.concurrency
    }
}

impl FromStr for SweepAxes {
    type Err = InvalidChoice;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let mut axes = Self::default();
        for name in value.split(',').filter(|_| !value.is_empty()) {
            let axis = choose(name, &[("part-size", true), ("concurrency", false)])?;
            *if axis {
                &mut axes.part_size
            } else {
                &mut axes.concurrency
            } = true;
        }
        Ok(axes)
    }
}

impl FromStr for EngineChoice {
    type Err = InvalidEngine;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        if value == "auto" {
            return Err(InvalidEngine::Auto);
        }
        let choices = [("uring", Self::Uring), ("pread", Self::Pread)];
        Ok(choose(value, &choices)?)
    }
}

impl FromStr for OutputFormat {
    type Err = InvalidChoice;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        choose(value, &[("table", Self::Table), ("json", Self::Json)])
    }
}

fn optional_size(text: &str) -> Result<OptionalSize, super::InvalidByteSize> {
    if text.is_empty() {
        return Ok(None);
    }
    Ok(NonZeroU64::new(text.parse::<ByteSize>()?.bytes()))
}
