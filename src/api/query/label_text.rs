//! Labels as JSON: as they are, or with the external labels in place.

use bytes::BytesMut;

use crate::model::ExternalLabels;

/// Writes an object of labels.
pub(super) fn write_labels<'a>(
    out: &mut BytesMut,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
) {
    out.extend_from_slice(b"{");
    for (at, (name, value)) in labels.enumerate() {
        if at > 0 {
            out.extend_from_slice(b",");
        }
        write_string(out, name);
        out.extend_from_slice(b":");
        write_string(out, value);
    }
    out.extend_from_slice(b"}");
}

/// Labels that are sorted by name with the external labels in place, still sorted; one of its own
/// that is named like an external label is not there any more.
pub(super) fn overlaid<'a>(
    labels: impl Iterator<Item = (&'a str, &'a str)>,
    external: &'a ExternalLabels,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let is_own = |(name, _): &(&str, &str)| external.value(name).is_none();
    let mut own = labels.filter(is_own).peekable();
    let put_on = external.0.iter().filter(|(_, value)| !value.is_empty());
    let mut put_on = put_on.peekable();
    std::iter::from_fn(move || {
        let own_first = match (own.peek(), put_on.peek()) {
            (Some(own), Some(put_on)) => own.0 < put_on.0,
            (own, _) => own.is_some(),
        };
        match own_first {
            true => own.next(),
            false => put_on.next(),
        }
    })
}

/// The name of a label that a path has escaped, as Prometheus 3 undoes it: behind `U__` an
/// underscore is doubled, and what is no letter or digit is its code point in hexadecimal digits
/// between two of them. `None` where the path has none such.
pub(super) fn plain_name(asked: &str) -> Option<String> {
    const DIGITS_MAX: usize = 6;
    let mut rest = asked.strip_prefix("U__")?;
    let mut name = String::with_capacity(rest.len());
    while let Some((plain, escape)) = rest.split_once('_') {
        let (digits, after) = escape.split_once('_')?;
        name.push_str(plain);
        name.push(match digits {
            "" => '_',
            _ if digits.len() > DIGITS_MAX => return None,
            _ if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => return None,
            _ => char::from_u32(u32::from_str_radix(digits, 16).ok()?)?,
        });
        rest = after;
    }
    name.push_str(rest);
    Some(name)
}

/// Writes a JSON string. What needs no escape, which is nearly all, is copied in one piece.
pub(super) fn write_string(out: &mut BytesMut, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\"");
    let bytes = text.as_bytes();
    let needs_escape = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    for (at, piece) in bytes.split_inclusive(|byte| needs_escape(byte)).enumerate() {
        debug_assert!(at <= bytes.len(), "no piece is empty");
        let (plain, last) = match piece.split_last() {
            Some((last, plain)) if needs_escape(last) => (plain, Some(*last)),
            _ => (piece, None),
        };
        out.extend_from_slice(plain);
        match last {
            None => {}
            Some(escaped @ (b'"' | b'\\')) => out.extend_from_slice(&[b'\\', escaped]),
            Some(b'\n') => out.extend_from_slice(b"\\n"),
            Some(b'\r') => out.extend_from_slice(b"\\r"),
            Some(b'\t') => out.extend_from_slice(b"\\t"),
            Some(control) => {
                let digit = |half: u8| HEX[usize::from(half & 15)];
                let escape = [b'\\', b'u', b'0', b'0', digit(control >> 4), digit(control)];
                out.extend_from_slice(&escape);
            }
        }
    }
    out.extend_from_slice(b"\"");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Labels;

    fn external(labels: &BTreeMap<String, String>) -> ExternalLabels {
        let labels = labels.iter();
        ExternalLabels(Labels::from_iter(
            labels.map(|(n, v)| (n.clone(), v.clone())),
        ))
    }

    #[test]
    fn escaped_names_are_undone() {
        for (asked, name) in [
            ("U__cluster", Some("cluster")),
            ("U__a_2e_b", Some("a.b")),
            ("U__a__b_2E_c", Some("a_b.c")),
            ("U___31_a", Some("1a")),
            ("U___e4__1f980_", Some("ä🦀")),
            ("U__U____a__2e__b", Some("U__a_2e_b")),
            ("U__", Some("")),
            ("cluster", None),
            ("U_cluster", None),
            ("U__a_", None),
            ("U__a_2e", None),
            ("U__a_+2_", None),
            ("U__a_xy_", None),
            ("U__a_d800_", None),
            ("U__a_110000_", None),
            ("U__a_000002e_", None),
        ] {
            assert_eq!(plain_name(asked).as_deref(), name, "{asked}");
        }
    }

    proptest! {
        #[test]
        fn strings_read_back(text: String) {
            let mut out = BytesMut::new();
            write_string(&mut out, &text);
            let read: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read, text);
        }

        #[test]
        fn external_labels_are_in_place(
            own in prop::collection::btree_map("[a-e]", "[xy\"\n]", 0..5),
            put_on in prop::collection::btree_map("[a-e]", "[xy]?", 0..4),
        ) {
            let external = external(&put_on);
            let mut out = BytesMut::new();
            let sorted = own.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            write_labels(&mut out, overlaid(sorted, &external));
            let mut expected = own.clone();
            expected.extend(put_on.into_iter().filter(|(_, value)| !value.is_empty()));
            prop_assert_eq!(out, serde_json::to_vec(&expected).unwrap());
        }
    }
}
