//! `outrigger block dump`: the samples of a block, one series after the other.
//!
//! Memory does not depend on how much is printed: text goes out in pieces, each after a check that
//! the maps it was read from were whole.

use std::io::{self, Write};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::Found;
use super::files::{OpenBlock, one_block};
use super::samples::{Label, is_stale, sample_json, series_text, write_line};
use crate::app::Environment;
use crate::app::cli::{BlockDumpArgs, DumpOutput};
use crate::model::{MatchOp, Matcher};
use crate::proto::thanos::{LabelMatcher, label_matcher};
use crate::store::{CompiledMatcher, Work, select, selector_matchers};
use crate::tsdb::{ChunkMeta, Postings, Sample, Samples, SeriesReader};

/// How much text is gathered before it is checked and written.
const PIECE_BYTES: usize = 256 << 10;

pub(super) fn run(args: &BlockDumpArgs, environment: &Environment) -> anyhow::Result<Found> {
    let block = one_block(&args.block)?;
    let selectors = args.selectors.iter().map(|text| compiled(text));
    let selectors = selectors.collect::<anyhow::Result<Vec<_>>>()?;
    let (mint_ms, maxt_ms) = (
        args.min_time.at(&environment.clock).0,
        args.max_time.at(&environment.clock).0,
    );
    let open = block.open()?;
    let mut dump = Dump {
        open: &open,
        mint_ms,
        maxt_ms,
        output: args.output,
        text: String::new(),
        out: io::stdout(),
        left_out: LeftOut::default(),
    };
    let dumped = dump.all(&selectors);
    // Zeros in place of what was cut off look like anything.
    open.check()?;
    dumped?;
    dump.left_out.tell();
    Ok(Found::Sound)
}

/// The matchers of a selector.
fn compiled(selector: &str) -> anyhow::Result<Vec<CompiledMatcher>> {
    let matchers = selector_matchers(selector)?;
    let matchers = matchers.iter().map(|matcher| {
        let matcher = plain(matcher)?;
        CompiledMatcher::new(&matcher).with_context(|| matcher.to_string())
    });
    matchers.collect()
}

fn plain(matcher: &LabelMatcher) -> anyhow::Result<Matcher> {
    let op = match label_matcher::Type::try_from(matcher.r#type)? {
        label_matcher::Type::Eq => MatchOp::Equal,
        label_matcher::Type::Neq => MatchOp::NotEqual,
        label_matcher::Type::Re => MatchOp::Regex,
        label_matcher::Type::Nre => MatchOp::NotRegex,
    };
    Ok(Matcher {
        op,
        name: matcher.name.clone(),
        value: matcher.value.clone(),
    })
}

/// A dump on its way.
struct Dump<'a, W> {
    open: &'a OpenBlock,
    mint_ms: i64,
    maxt_ms: i64,
    output: DumpOutput,
    /// Not yet written.
    text: String,
    out: W,
    left_out: LeftOut,
}

/// Series of which the format can't say everything.
#[derive(Default)]
struct LeftOut {
    with_histograms: u64,
    histograms: u64,
    without_name: u64,
}

impl<W: Write> Dump<'_, W> {
    fn all(&mut self, selectors: &[Vec<CompiledMatcher>]) -> anyhow::Result<()> {
        let view = self.open.view();
        let of_index = |error| self.open.index_fault(error);
        let mut series = match selectors {
            [] => view.postings(view.all()).map_err(of_index)?,
            selectors => {
                let mut work = Work::new();
                let sets = selectors
                    .iter()
                    .map(|matchers| select(view, matchers, &mut work));
                Postings::union(sets.collect::<Result<Vec<_>, _>>()?)
            }
        };
        let mut reader = SeriesReader::new();
        while let Some(id) = series.next(view) {
            reader.read(view, id).map_err(of_index)?;
            let labels = reader.labels(view).map(|(name, value)| {
                anyhow::Ok((std::str::from_utf8(name)?, std::str::from_utf8(value)?))
            });
            let labels = labels.collect::<anyhow::Result<Vec<_>>>()?;
            self.series(id, &labels, reader.chunks())?;
        }
        if self.output == DumpOutput::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.write()
    }

    fn series(
        &mut self,
        id: u32,
        labels: &[Label<'_>],
        chunks: &[ChunkMeta],
    ) -> anyhow::Result<()> {
        let (mint_ms, maxt_ms) = (self.mint_ms, self.maxt_ms);
        let in_time = chunks
            .iter()
            .filter(|chunk| chunk.maxt.0 >= mint_ms && chunk.mint.0 <= maxt_ms);
        match self.output {
            DumpOutput::Json => {
                for chunk in in_time {
                    self.chunk_json(id, labels, chunk)?;
                }
            }
            DumpOutput::OpenMetrics => {
                let Some(series) = series_text(labels) else {
                    self.left_out.without_name += 1;
                    return Ok(());
                };
                let histograms_before = self.left_out.histograms;
                for chunk in in_time {
                    self.chunk_lines(id, &series, chunk)?;
                }
                let has_histograms = self.left_out.histograms > histograms_before;
                self.left_out.with_histograms += u64::from(has_histograms);
            }
        }
        Ok(())
    }

    /// Calls `each` for the samples that are in time and not deleted.
    fn samples(
        &self,
        id: u32,
        meta: &ChunkMeta,
        mut each: impl FnMut(Sample),
    ) -> anyhow::Result<()> {
        let chunk = self.open.chunk(meta.reference)?;
        let samples = Samples::new(chunk.encoding, chunk.data);
        for sample in samples.map_err(|error| chunk.fault(error))? {
            let sample = sample.map_err(|error| chunk.fault(error))?;
            let t_ms = match &sample {
                Sample::Float(float) => float.t_ms,
                Sample::Histogram(histogram) => histogram.t_ms,
            };
            let is_in_time = (self.mint_ms..=self.maxt_ms).contains(&t_ms);
            if is_in_time && !self.open.tombstones.covers(u64::from(id), t_ms) {
                each(sample);
            }
        }
        Ok(())
    }

    fn chunk_lines(&mut self, id: u32, series: &str, meta: &ChunkMeta) -> anyhow::Result<()> {
        let mut text = std::mem::take(&mut self.text);
        let mut histograms = 0;
        self.samples(id, meta, |sample| match sample {
            Sample::Float(float) if is_stale(float.value) => {}
            Sample::Float(float) => write_line(&mut text, series, float.t_ms, float.value),
            Sample::Histogram(histogram) => histograms += u64::from(!is_stale(histogram.sum)),
        })?;
        self.text = text;
        self.left_out.histograms += histograms;
        self.write_piece()
    }

    fn chunk_json(
        &mut self,
        id: u32,
        labels: &[Label<'_>],
        meta: &ChunkMeta,
    ) -> anyhow::Result<()> {
        let mut samples = Vec::new();
        self.samples(id, meta, |sample| samples.push(sample_json(&sample)))?;
        if samples.is_empty() {
            return Ok(());
        }
        let labels = labels.iter();
        let labels = labels.map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
        let line = json!({ "labels": labels.collect::<Map<_, _>>(), "samples": samples });
        self.text.push_str(&line.to_string());
        self.text.push('\n');
        self.write_piece()
    }

    fn write_piece(&mut self) -> anyhow::Result<()> {
        match self.text.len() < PIECE_BYTES {
            true => Ok(()),
            false => self.write(),
        }
    }

    fn write(&mut self) -> anyhow::Result<()> {
        self.open.check()?;
        self.out.write_all(self.text.as_bytes())?;
        self.text.clear();
        Ok(self.out.flush()?)
    }
}

impl LeftOut {
    fn tell(&self) {
        if self.with_histograms > 0 {
            tracing::warn!(
                series = self.with_histograms,
                samples = self.histograms,
                "native histograms are left out, which OpenMetrics text has not; --output=json has"
            );
        }
        if self.without_name > 0 {
            tracing::warn!(
                series = self.without_name,
                "series without a metric name are left out; --output=json has them"
            );
        }
    }
}

#[cfg(test)]
mod tests;
