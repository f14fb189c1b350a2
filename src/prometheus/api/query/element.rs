//! One element of a result: its label set, and the bytes of what else it has.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use crate::prometheus::LabelsText;
use crate::prometheus::api::json::MEMBERS_MAX;
use crate::prometheus::api::series::read_labels;

const METRIC: &str = "metric";

/// A member of an object: key and value with the space around them.
struct Member<'a> {
    key: &'a [u8],
    value: &'a [u8],
    /// Where it begins, and where the comma or brace behind it stands.
    start: usize,
    end: usize,
}

/// Reads `metric` of an element into `labels` and returns its other members as they stand, joined
/// by commas. They are a view of `element` wherever `metric` is the first or the last, as it is in
/// what Prometheus writes.
pub(super) fn read_element(
    element: &Bytes,
    marks: &[usize],
    labels: &mut LabelsText,
) -> Result<Bytes, String> {
    if marks.len() >= 2 * MEMBERS_MAX {
        return Err(format!("an element has more than {MEMBERS_MAX} members"));
    }
    let mut metric = None;
    let mut count = 0_usize;
    for member in members(element, marks) {
        let member = member?;
        if is_metric(member.key)? {
            if metric.is_some() {
                return Err("`metric` stands twice in an element".to_owned());
            }
            read_labels(member.value, labels)?;
            metric = Some((count, member));
        } else if member.value.trim_ascii().is_empty() {
            return Err("a member of an element has no value".to_owned());
        }
        count = count.saturating_add(1);
    }
    let Some((position, metric)) = metric else {
        return Err("an element has no `metric`".to_owned());
    };
    if count == 1 {
        return Err("an element has no samples".to_owned());
    }
    let inside = 1..element.len().saturating_sub(1);
    let rest = if position == 0 {
        trimmed(element, metric.end.saturating_add(1), inside.end)
    } else if position.saturating_add(1) == count {
        trimmed(element, inside.start, metric.start.saturating_sub(1))
    } else {
        let before = trimmed(element, inside.start, metric.start.saturating_sub(1));
        let after = trimmed(element, metric.end.saturating_add(1), inside.end);
        let mut joined = BytesMut::with_capacity(element.len());
        joined.put(before);
        joined.put_u8(b',');
        joined.put(after);
        joined.freeze()
    };
    Ok(rest)
}

fn trimmed(element: &Bytes, start: usize, end: usize) -> Bytes {
    match element.get(start..end) {
        Some(part) => element.slice_ref(part.trim_ascii()),
        None => Bytes::new(),
    }
}

/// The members of the object, whose colons and commas stand at `marks`.
fn members<'a>(
    element: &'a [u8],
    marks: &'a [usize],
) -> impl Iterator<Item = Result<Member<'a>, String>> {
    let is_object = element.first() == Some(&b'{') && element.last() == Some(&b'}');
    let close = element.len().saturating_sub(1);
    let broken = || "an element is no object of members".to_owned();
    let wrong = (!is_object).then(|| Err(broken()));
    let pairs = marks.chunks(2).scan(1_usize, move |start, pair| {
        let begin = *start;
        let (colon, end) = match *pair {
            [colon, end] => (colon, end),
            [colon] => (colon, close),
            _ => return None,
        };
        *start = end.saturating_add(1);
        let is_separated = element.get(colon) == Some(&b':')
            && matches!(element.get(end), Some(b',' | b'}'))
            && (end == close || element.get(end) == Some(&b','));
        let parts = element.get(begin..colon).zip(element.get(colon + 1..end));
        Some(match parts.filter(|_| is_separated) {
            Some((key, value)) => Ok(Member {
                key: key.trim_ascii(),
                value,
                start: begin,
                end,
            }),
            None => Err(broken()),
        })
    });
    // Behind the last comma there is a member, too.
    let dangling = (marks.len() % 2 == 0 && !marks.is_empty()).then(|| Err(broken()));
    wrong.into_iter().chain(pairs).chain(dangling)
}

fn is_metric(key: &[u8]) -> Result<bool, String> {
    if let Some(plain) = key.strip_prefix(b"\"").and_then(|k| k.strip_suffix(b"\""))
        && !plain.contains(&b'\\')
        && !plain.contains(&b'"')
    {
        return Ok(plain == METRIC.as_bytes());
    }
    let key: Cow<'_, str> = serde_json::from_slice(key).map_err(|error| error.to_string())?;
    Ok(key == METRIC)
}
