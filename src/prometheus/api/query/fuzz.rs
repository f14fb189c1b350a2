//! What the fuzz target of query answers runs.
//!
//! Beyond "no panic": the verdict on a body is the same however its bytes are split, and what is
//! passed on of an answer that serde_json can read is what serde_json reads.

#![allow(
    clippy::indexing_slicing,
    reason = "test support: nothing here reaches the product"
)]

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use serde_json::Value;

use super::element::read_element;
use super::{Answer, Read, ResultType};
use crate::prometheus::LabelsText;

/// All that an answer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) result_type: ResultType,
    pub(super) elements: Vec<(LabelsText, Bytes)>,
    pub(super) single: Option<Bytes>,
    pub(super) stats: Option<Bytes>,
    pub(super) warnings: Vec<String>,
    pub(super) infos: Vec<String>,
}

/// The input as the body of an answer.
pub fn fuzz_query_answer(data: &[u8]) {
    let split = data.first().map_or(1, |&byte| usize::from(byte % 61) + 1);
    let whole = read_whole(data, data.len().max(1));
    assert_eq!(read_whole(data, split).ok(), whole.as_ref().ok().cloned());
    let (Ok(whole), Ok(value)) = (whole, serde_json::from_slice::<Value>(data)) else {
        return;
    };
    assert_eq!(value["status"], "success");
    assert_eq!(value["data"]["resultType"], whole.result_type.as_str());
    if let Some(single) = &whole.single {
        assert_eq!(value["data"]["result"], json(single));
    }
}

/// Reads a body that comes in pieces of `split` bytes.
pub(super) fn read_whole(data: &[u8], split: usize) -> Result<Whole, String> {
    let mut answer = Answer::new(String::new(), StatusCode::OK);
    let mut buffer = BytesMut::new();
    let mut elements = Vec::new();
    let mut pieces = data.chunks(split);
    loop {
        match answer.read(&mut buffer).map_err(shown)? {
            Read::Result => {}
            Read::Element(element) => {
                let mut labels = LabelsText::default();
                let rest = read_element(&element, answer.scanner.marks(), &mut labels)?;
                assert!(rest.len() <= element.len());
                elements.push((labels, rest));
            }
            Read::More => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => break,
            },
        }
    }
    answer.finish(&mut buffer).map_err(shown)?;
    Ok(Whole {
        result_type: answer.result_type.ok_or("no type")?,
        elements,
        single: answer.single,
        stats: answer.stats,
        warnings: answer.warnings,
        infos: answer.infos,
    })
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("part of what serde_json has read")
}

fn shown(error: crate::prometheus::PeerError) -> String {
    format!("{error:?}")
}
