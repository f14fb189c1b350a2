//! Messages in and out of a call.

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};

use crate::net::grpc::{Call, Code, MessageSink, Status};

/// The most strings and messages a request may have on its top level: twice what any limit of the
/// requests themselves lets through. Each is an allocation of its own, however short it is sent:
/// 1 MiB of empty matchers would be some 40 MiB of them.
const FIELDS_MAX: usize = 20_000;

/// The only request message of a call.
///
/// # Errors
/// `Internal` where there is not exactly one, or it can't be decoded, as the reference has it.
pub(super) async fn request<M: Message + Default>(call: &mut Call) -> Result<M, Status> {
    decoded(call.only_message().await?)
}

/// A message from its bytes.
///
/// # Errors
/// `Internal` where they are none; `InvalidArgument` where it has more than [`FIELDS_MAX`] fields.
pub(super) fn decoded<M: Message + Default>(bytes: bytes::Bytes) -> Result<M, Status> {
    if has_more_fields(&bytes, FIELDS_MAX) {
        let text = format!("the request has more than {FIELDS_MAX} fields");
        return Err(Status::new(Code::InvalidArgument, text));
    }
    M::decode(bytes).map_err(|error| {
        let text = format!("the request can't be decoded: {error}");
        Status::new(Code::Internal, text).quiet()
    })
}

/// Whether a message has more strings and messages on its top level than `max`, found without
/// allocating. Bytes that are no message have so many as come before that shows: the decoder says
/// what is wrong with them, having built no more.
fn has_more_fields(mut bytes: &[u8], max: usize) -> bool {
    let mut fields = 0_usize;
    while !bytes.is_empty() {
        let Ok((tag, wire_type)) = decode_key(&mut bytes) else {
            return false;
        };
        fields = fields.saturating_add(usize::from(wire_type == WireType::LengthDelimited));
        if fields > max {
            return true;
        }
        if skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).is_err() {
            return false;
        }
    }
    false
}

/// Sends a message.
///
/// # Errors
/// Where the client is gone.
pub(super) async fn reply<M: Message>(sink: &mut MessageSink, message: &M) -> Result<(), Status> {
    let length = message.encoded_len();
    let encode = |out: &mut bytes::BytesMut| message.encode(out).expect("the buffer grows");
    sink.send(length, encode).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::grpc::REQUEST_BYTES_MAX;
    use crate::proto::thanos::{LabelMatcher, SeriesRequest, ShardInfo};
    use proptest::prelude::*;

    fn matcher(name: &str, value: &str) -> LabelMatcher {
        LabelMatcher {
            r#type: 0,
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    proptest! {
        #[test]
        fn no_request_within_the_limit_is_refused_and_each_one_past_it_is(
            matchers in prop::collection::vec(("\\PC{0,5}", "\\PC{0,9}"), 0..30),
            without in prop::collection::vec("\\PC{0,9}", 0..30),
            shard in prop::option::of(prop::collection::vec("\\PC{0,9}", 0..30)),
            (min_time, limit) in any::<(i64, i64)>(),
        ) {
            let has_shard = usize::from(shard.is_some());
            let fields = matchers.len() + without.len() + has_shard;
            let request = SeriesRequest {
                min_time,
                limit,
                matchers: matchers.iter().map(|(name, value)| matcher(name, value)).collect(),
                without_replica_labels: without,
                shard_info: shard.map(|labels| ShardInfo { labels, ..ShardInfo::default() }),
                ..SeriesRequest::default()
            };
            let bytes = request.encode_to_vec();
            prop_assert!(!has_more_fields(&bytes, fields));
            prop_assert!(fields == 0 || has_more_fields(&bytes, fields - 1));
            prop_assert_eq!(decoded::<SeriesRequest>(bytes.into()).unwrap(), request);
        }

        #[test]
        fn what_is_no_message_is_the_decoders_to_refuse(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(!has_more_fields(&bytes, 100));
            let _decoded_or_not = decoded::<SeriesRequest>(bytes.into());
        }
    }

    #[test]
    fn ten_thousand_matchers_fit_and_a_flood_of_empty_ones_does_not() {
        let request = SeriesRequest {
            matchers: vec![matcher(&"n".repeat(28), &"v".repeat(66)); 10_000],
            ..SeriesRequest::default()
        };
        let bytes = request.encode_to_vec();
        assert!((1_000_000..=REQUEST_BYTES_MAX).contains(&bytes.len()));
        assert_eq!(decoded::<SeriesRequest>(bytes.into()).unwrap(), request);

        let flood = b"\x1a\x00".repeat(REQUEST_BYTES_MAX / 2);
        let error = decoded::<SeriesRequest>(flood.into()).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        let allowed = b"\x1a\x00".repeat(FIELDS_MAX);
        let decoded = decoded::<SeriesRequest>(allowed.into()).unwrap();
        assert_eq!(decoded.matchers.len(), FIELDS_MAX);
    }
}
