//! The index of a block to be written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{BlockLayout, put_uvarint, put_varint};
use crate::tsdb::ChunkRef;
use crate::tsdb::checksum::crc32c;

/// Collects series and writes them as one index file.
#[derive(Debug, Default)]
pub(super) struct IndexWriter {
    /// Number of each symbol in order of appearance.
    symbols: HashMap<String, u32>,
    series: Vec<SeriesRecord>,
}

#[derive(Debug)]
struct SeriesRecord {
    labels: Vec<(u32, u32)>,
    /// The chunk part of the entry, already encoded.
    chunks: Vec<u8>,
}

impl IndexWriter {
    pub(super) fn add(&mut self, labels: &[(String, String)], chunks: &[(i64, i64, ChunkRef)]) {
        let labels = labels.iter().map(|(n, v)| (self.symbol(n), self.symbol(v)));
        let labels = labels.collect();
        let chunks = encode_chunks(chunks);
        self.series.push(SeriesRecord { labels, chunks });
    }

    fn symbol(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.symbols.get(text) {
            return number;
        }
        let number = self.symbols.len() as u32;
        self.symbols.insert(text.to_owned(), number);
        number
    }

    pub(super) fn finish(self, layout: BlockLayout) -> Vec<u8> {
        let version = layout.index_version;
        let mut out = vec![0xba, 0xaa, 0xd7, 0x00, version];
        let mut sorted: Vec<&str> = self.symbols.keys().map(String::as_str).collect();
        sorted.sort_unstable();
        let symbols_start = out.len();
        let offsets = put_symbols(&mut out, &sorted);

        // Number of appearance -> ordinal in sorted order.
        let mut ordinals = vec![0_u32; sorted.len()];
        for (ordinal, text) in sorted.iter().enumerate() {
            ordinals[self.symbols[*text] as usize] = ordinal as u32;
        }
        let reference = |ordinal: u32| match version {
            1 => offsets[ordinal as usize],
            _ => ordinal,
        };

        let series_start = out.len();
        let (all, postings) = put_series(&mut out, &self.series, &ordinals, reference, version);

        let label_indices_start = out.len();
        let mut names = BTreeMap::<u32, BTreeSet<u32>>::new();
        if layout.label_indices {
            for &(name, value) in postings.keys() {
                names.entry(name).or_default().insert(value);
            }
        }
        let mut label_table = Vec::new();
        for (name, values) in &names {
            pad(&mut out, 4);
            label_table.push((vec![sorted[*name as usize]], out.len()));
            let mut body = 1_u32.to_be_bytes().to_vec();
            body.extend((values.len() as u32).to_be_bytes());
            body.extend(values.iter().flat_map(|&v| reference(v).to_be_bytes()));
            put_framed(&mut out, &body);
        }

        let postings_start = out.len();
        let mut table = vec![(vec!["", ""], put_postings(&mut out, &all))];
        for (&(name, value), list) in &postings {
            let key = vec![sorted[name as usize], sorted[value as usize]];
            table.push((key, put_postings(&mut out, list)));
        }
        if version == 1 {
            // Unsorted there; any order but the sorted one will do.
            table[1..].reverse();
        }

        let label_table_start = out.len();
        if layout.label_indices {
            put_offset_table(&mut out, &label_table);
        }
        let table_start = out.len();
        put_offset_table(&mut out, &table);
        put_toc(
            &mut out,
            [
                symbols_start,
                series_start,
                label_indices_start,
                label_table_start,
                postings_start,
                table_start,
            ],
        );
        out
    }
}

/// An index of these symbols (ascending) with one series entry of any `body`, all of it framed
/// rightly; and the id of that series.
pub fn index_of_bodies(version: u8, symbols: &[String], body: &[u8]) -> (Vec<u8>, u32) {
    let mut out = vec![0xba, 0xaa, 0xd7, 0x00, version];
    let sorted: Vec<&str> = symbols.iter().map(String::as_str).collect();
    put_symbols(&mut out, &sorted);
    let series_start = out.len();
    pad(&mut out, 16);
    let id = if version == 1 {
        out.len()
    } else {
        out.len() / 16
    } as u32;
    put_uvarint(&mut out, body.len() as u64);
    out.extend_from_slice(body);
    out.extend(crc32c(body).to_be_bytes());
    let series_end = out.len();
    let all = put_postings(&mut out, &[id]);
    let table_start = out.len();
    put_offset_table(&mut out, &[(vec!["", ""], all)]);
    put_toc(
        &mut out,
        [
            5,
            series_start,
            series_end,
            table_start,
            series_end,
            table_start,
        ],
    );
    (out, id)
}

fn encode_chunks(chunks: &[(i64, i64, ChunkRef)]) -> Vec<u8> {
    let mut out = Vec::new();
    put_uvarint(&mut out, chunks.len() as u64);
    let mut previous: Option<(i64, ChunkRef)> = None;
    for &(mint, maxt, reference) in chunks {
        match previous {
            None => put_varint(&mut out, mint),
            Some((previous_maxt, _)) => put_uvarint(&mut out, (mint - previous_maxt) as u64),
        }
        put_uvarint(&mut out, (maxt - mint) as u64);
        match previous {
            None => put_uvarint(&mut out, reference.0),
            Some((_, previous)) => {
                put_varint(&mut out, reference.0.wrapping_sub(previous.0) as i64);
            }
        }
        previous = Some((maxt, reference));
    }
    out
}

/// Writes the symbol table and returns the absolute offset of each symbol.
fn put_symbols(out: &mut Vec<u8>, sorted: &[&str]) -> Vec<u32> {
    let body_start = out.len() + 4;
    let mut body = (sorted.len() as u32).to_be_bytes().to_vec();
    let mut offsets = Vec::with_capacity(sorted.len());
    for text in sorted {
        offsets.push((body_start + body.len()) as u32);
        put_text(&mut body, text);
    }
    put_framed(out, &body);
    offsets
}

type Postings = BTreeMap<(u32, u32), Vec<u32>>;

/// Writes the series entries and returns all series ids, and those of each label pair.
fn put_series(
    out: &mut Vec<u8>,
    series: &[SeriesRecord],
    ordinals: &[u32],
    reference: impl Fn(u32) -> u32,
    version: u8,
) -> (Vec<u32>, Postings) {
    let mut all = Vec::with_capacity(series.len());
    let mut postings = Postings::new();
    let mut body = Vec::new();
    for record in series {
        if version != 1 {
            pad(out, 16);
        }
        let id = if version == 1 {
            out.len()
        } else {
            out.len() / 16
        } as u32;
        all.push(id);
        body.clear();
        put_uvarint(&mut body, record.labels.len() as u64);
        for &(name, value) in &record.labels {
            let (name, value) = (ordinals[name as usize], ordinals[value as usize]);
            put_uvarint(&mut body, u64::from(reference(name)));
            put_uvarint(&mut body, u64::from(reference(value)));
            postings.entry((name, value)).or_default().push(id);
        }
        body.extend_from_slice(&record.chunks);
        put_uvarint(out, body.len() as u64);
        out.extend_from_slice(&body);
        out.extend(crc32c(&body).to_be_bytes());
    }
    (all, postings)
}

/// Writes one postings list and returns its offset.
fn put_postings(out: &mut Vec<u8>, ids: &[u32]) -> usize {
    pad(out, 4);
    let start = out.len();
    let mut body = (ids.len() as u32).to_be_bytes().to_vec();
    body.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
    put_framed(out, &body);
    start
}

fn put_offset_table(out: &mut Vec<u8>, entries: &[(Vec<&str>, usize)]) {
    let mut body = (entries.len() as u32).to_be_bytes().to_vec();
    for (key, offset) in entries {
        put_uvarint(&mut body, key.len() as u64);
        key.iter().for_each(|text| put_text(&mut body, text));
        put_uvarint(&mut body, *offset as u64);
    }
    put_framed(out, &body);
}

fn put_toc(out: &mut Vec<u8>, starts: [usize; 6]) {
    let toc: Vec<u8> = starts
        .iter()
        .flat_map(|&s| (s as u64).to_be_bytes())
        .collect();
    out.extend_from_slice(&toc);
    out.extend(crc32c(&toc).to_be_bytes());
}

fn put_framed(out: &mut Vec<u8>, body: &[u8]) {
    out.extend((body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    out.extend(crc32c(body).to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_uvarint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}
