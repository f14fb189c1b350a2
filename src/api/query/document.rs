//! Documents of Prometheus with the external labels put into them: rules, alerts, targets,
//! exemplars.
//!
//! A document is walked along the way to its label sets; everything beside it is copied as text,
//! so that what newer versions add is there, in its order, and nothing is held but the text.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::label_text::{overlaid, write_labels, write_string};
use crate::model::ExternalLabels;

/// The way to the label sets of a document.
#[derive(Debug)]
pub(super) enum Shape {
    /// A label set, which is put in where it is missing.
    Labels,
    /// A list whose elements have this shape.
    Each(&'static Self),
    /// An object with these members, and others.
    Object(&'static [(&'static str, Self)]),
}

const ALERT: Shape = Shape::Object(&[("labels", Shape::Labels)]);
const RULE: Shape = Shape::Object(&[("labels", Shape::Labels), ("alerts", Shape::Each(&ALERT))]);
const GROUP: Shape = Shape::Object(&[("rules", Shape::Each(&RULE))]);
const ACTIVE: Shape = Shape::Object(&[
    ("discoveredLabels", Shape::Labels),
    ("labels", Shape::Labels),
]);
const DROPPED: Shape = Shape::Object(&[("discoveredLabels", Shape::Labels)]);
const EXEMPLARS: Shape = Shape::Object(&[("seriesLabels", Shape::Labels)]);

/// `/api/v1/rules`
pub(super) const RULES: Shape =
    Shape::Object(&[("data", Shape::Object(&[("groups", Shape::Each(&GROUP))]))]);
/// `/api/v1/alerts`
pub(super) const ALERTS: Shape =
    Shape::Object(&[("data", Shape::Object(&[("alerts", Shape::Each(&ALERT))]))]);
/// `/api/v1/targets`
pub(super) const TARGETS: Shape = Shape::Object(&[(
    "data",
    Shape::Object(&[
        ("activeTargets", Shape::Each(&ACTIVE)),
        ("droppedTargets", Shape::Each(&DROPPED)),
    ]),
)]);
/// `/api/v1/query_exemplars`
pub(super) const QUERY_EXEMPLARS: Shape = Shape::Object(&[("data", Shape::Each(&EXEMPLARS))]);

/// The document with the labels in place.
///
/// # Errors
/// Where it is no JSON, or not of this shape.
pub(super) fn with_external(
    document: &[u8],
    shape: &Shape,
    external: &ExternalLabels,
) -> serde_json::Result<Bytes> {
    let raw: &RawValue = serde_json::from_slice(document)?;
    let mut out = BytesMut::with_capacity(document.len().saturating_mul(5) / 4);
    write(&mut out, raw, shape, external)?;
    Ok(out.freeze())
}

fn write(
    out: &mut BytesMut,
    raw: &RawValue,
    shape: &Shape,
    external: &ExternalLabels,
) -> serde_json::Result<()> {
    let text = raw.get();
    match shape {
        Shape::Labels => {
            let labels: Option<BTreeMap<String, String>> = serde_json::from_str(text)?;
            let labels = labels.unwrap_or_default();
            let labels = labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            write_labels(out, overlaid(labels, external));
        }
        // An empty list may be null, an object that is not there as well.
        _ if text == "null" => out.extend_from_slice(text.as_bytes()),
        Shape::Each(shape) => {
            let elements: Vec<&RawValue> = serde_json::from_str(text)?;
            out.extend_from_slice(b"[");
            for (at, element) in elements.into_iter().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b",");
                }
                write(out, element, shape, external)?;
            }
            out.extend_from_slice(b"]");
        }
        Shape::Object(known) => {
            let members: Members<'_, &RawValue> = serde_json::from_str(text)?;
            write_object(out, &members.0, known, external)?;
        }
    }
    Ok(())
}

fn write_object(
    out: &mut BytesMut,
    members: &[(String, &RawValue)],
    known: &[(&str, Shape)],
    external: &ExternalLabels,
) -> serde_json::Result<()> {
    out.extend_from_slice(b"{");
    let mut separator: &[u8] = b"";
    let mut begin = |out: &mut BytesMut, name: &str| {
        out.extend_from_slice(separator);
        write_string(out, name);
        out.extend_from_slice(b":");
        separator = b",";
    };
    for (name, value) in members {
        begin(out, name);
        match known.iter().find(|(known, _)| known == name) {
            Some((_, shape)) => write(out, value, shape, external)?,
            None => out.extend_from_slice(value.get().as_bytes()),
        }
    }
    for (name, shape) in known {
        let is_there = members.iter().any(|(member, _)| member == name);
        if matches!(shape, Shape::Labels) && !is_there {
            begin(out, name);
            write_labels(out, overlaid(std::iter::empty(), external));
        }
    }
    out.extend_from_slice(b"}");
    Ok(())
}

/// The members of an object in their order.
pub(super) struct Members<'a, T>(pub(super) Vec<(String, T)>, PhantomData<&'a ()>);

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Members<'a, T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = Vec<(String, T)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        let members = reader.deserialize_map(Object(PhantomData))?;
        Ok(Self(members, PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    fn shown(document: &str, shape: &Shape) -> String {
        let labels = [("cluster", "eu"), ("none", ""), ("z", "1")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let external = ExternalLabels(Labels::from_iter(labels));
        let document = with_external(document.as_bytes(), shape, &external).unwrap();
        String::from_utf8(document.to_vec()).unwrap()
    }

    const ON: &str = r#""cluster":"eu","z":"1""#;

    #[test]
    fn rules_and_their_alerts_get_labels_and_all_else_stays() {
        let document = r#"{"status":"success","data":{"x": [1.50, 2],"groups":[{"name":"g",
            "rules":[{"query":"a < \"b\"","labels":{"a":"1","cluster":"own"},"alerts":[
            {"labels":{"zz":"\u003c"},"value":"1e+00"}],"type":"alerting"},
            {"name":"r","type":"recording"}],"limit":0}],"next":null},"infos":["i"]}"#;
        let expected = format!(
            "{{\"status\":\"success\",\"data\":{{\"x\":[1.50, 2],\"groups\":[{{\"name\":\"g\",\
             \"rules\":[{{\"query\":\"a < \\\"b\\\"\",\"labels\":{{\"a\":\"1\",{ON}}},\
             \"alerts\":[{{\"labels\":{{{ON},\"zz\":\"<\"}},\"value\":\"1e+00\"}}],\
             \"type\":\"alerting\"}},{{\"name\":\"r\",\"type\":\"recording\",\
             \"labels\":{{{ON}}}}}],\"limit\":0}}],\"next\":null}},\"infos\":[\"i\"]}}"
        );
        assert_eq!(shown(document, &RULES), expected);
    }

    #[test]
    fn alerts_targets_and_exemplars_get_labels() {
        let alerts = r#"{"data":{"alerts":[{"labels":{},"activeAt":"x"}]}}"#;
        assert_eq!(
            shown(alerts, &ALERTS),
            format!(r#"{{"data":{{"alerts":[{{"labels":{{{ON}}},"activeAt":"x"}}]}}}}"#)
        );
        let targets = r#"{"data":{"activeTargets":[{"discoveredLabels":{"a":"1"},"labels":{}}],
            "droppedTargets":[{"discoveredLabels":{}}],"droppedTargetCounts":{"x":1}}}"#;
        let expected = format!(
            "{{\"data\":{{\"activeTargets\":[{{\"discoveredLabels\":{{\"a\":\"1\",{ON}}},\
             \"labels\":{{{ON}}}}}],\"droppedTargets\":[{{\"discoveredLabels\":{{{ON}}}}}],\
             \"droppedTargetCounts\":{{\"x\":1}}}}}}"
        );
        assert_eq!(shown(targets, &TARGETS), expected);
        let exemplars = r#"{"data":[{"seriesLabels":{"z":"0"},"exemplars":[{"labels":{}}]}]}"#;
        assert_eq!(
            shown(exemplars, &QUERY_EXEMPLARS),
            format!(r#"{{"data":[{{"seriesLabels":{{{ON}}},"exemplars":[{{"labels":{{}}}}]}}]}}"#)
        );
        for empty in [
            r#"{"data":{"activeTargets":[],"droppedTargets":null}}"#,
            r#"{"data":null}"#,
            "{}",
        ] {
            assert_eq!(shown(empty, &TARGETS), empty);
        }
    }

    #[test]
    fn what_has_another_shape_is_refused() {
        let external = ExternalLabels::default();
        for document in [
            "",
            "<html>",
            "[]",
            r#"{"data":{"groups":{}}}"#,
            r#"{"data":{"groups":[{"rules":[{"labels":{"a":1}}]}]}}"#,
            r#"{"data":{"groups":[{"rules":[{"labels":{}}]}]}"#,
        ] {
            let refused = with_external(document.as_bytes(), &RULES, &external);
            assert!(refused.is_err(), "{document}");
        }
    }
}
