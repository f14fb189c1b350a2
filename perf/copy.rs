//! The floor: the same files, copied with plain reads and writes and synced, by a child process.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::Bench;
use crate::block::Load;
use crate::usage::Usage;

/// First argument of the harness when it is started as the copying child.
pub(crate) const MODE: &str = "copy-block";

/// The size of outrigger's own reads.
const RUN_BYTES: usize = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(1800);

/// Copies the blocks with a child, and tells how long the copying took and what it used.
pub(crate) fn measure(
    bench: &Bench,
    load: &Load,
    bucket: &Path,
) -> anyhow::Result<(Duration, Usage)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(MODE).arg(bucket);
    command.args(load.blocks.iter().map(|block| &block.path));
    measured(bench, &mut command)
}

/// Runs a child of the harness that tells at its end what it took.
pub(crate) fn measured(bench: &Bench, command: &mut Command) -> anyhow::Result<(Duration, Usage)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let output = bench.children.spawn(command, |child| child.stdout.take())?;
    let status = bench.children.wait(DEADLINE)?;
    anyhow::ensure!(status.success(), "the child: {status}");
    let mut text = String::new();
    output.context("its output")?.read_to_string(&mut text)?;
    let (wall_ns, usage) = text.split_once('\n').context("two lines")?;
    Ok((Duration::from_nanos(wall_ns.parse()?), usage.parse()?))
}

/// What such a child says.
pub(crate) fn tell(started: Instant) -> anyhow::Result<()> {
    let wall = started.elapsed();
    let usage = Usage::line_of_self()?;
    Ok(writeln!(std::io::stdout(), "{}\n{usage}", wall.as_nanos())?)
}

/// The child: copies segments, index and `meta.json` of the blocks, each file synced.
pub(crate) fn run(bucket: &Path, blocks: &[OsString]) -> anyhow::Result<()> {
    let started = Instant::now();
    for block in blocks.iter().map(Path::new) {
        copy(
            block,
            &bucket.join(block.file_name().context("a block has a name")?),
        )?;
    }
    tell(started)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to.join("chunks"))?;
    let mut buffer = vec![0; RUN_BYTES];
    for path in crate::block::files(from)? {
        let relative = path.strip_prefix(from)?;
        let mut source = File::open(&path)?;
        let mut copy = File::create_new(to.join(relative))?;
        loop {
            let count = source.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            copy.write_all(buffer.get(..count).context("a read is within its buffer")?)?;
        }
        copy.sync_all()?;
    }
    for directory in [to.join("chunks"), to.to_owned()] {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}
