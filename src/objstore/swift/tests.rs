//! Swift against a server in memory that checks tokens, tags and manifests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::model::ErrorChain;
use crate::objstore::conformance::conforms;
use crate::objstore::testbed::{
    built, built_with, bytes, content, key, objects_come_back, refusal,
};
use crate::objstore::{Bucket, FakeS3, Fault, MemorySource, MultipartState, SeenRequest};

const CHUNK_BYTES: usize = 6 << 20;

const PASSWORD: &str = "username: user\n  password: hidden\n  project_name: project";

async fn swift(decide: impl Fn(&SeenRequest) -> Fault + Send + Sync + 'static) -> FakeS3 {
    FakeS3::swift(decide).await.unwrap()
}

fn document(server: &FakeS3, more: &str) -> String {
    format!(
        "type: SWIFT\nconfig:\n  auth_url: http://{}/v3\n  container_name: blocks\n  retries: 2\n  \
         large_object_chunk_size: {CHUNK_BYTES}\n  {more}\n",
        server.endpoint()
    )
}

fn bucket(server: &FakeS3, more: &str) -> Arc<dyn Bucket> {
    built(&document(server, more), &[]).unwrap()
}

#[tokio::test]
async fn swift_conforms_by_each_login() {
    let own = |server: &FakeS3| {
        document(server, "username: 'project:user'\n  password: hidden")
            .replace("/v3", "/auth/v1.0")
    };
    for login in [
        PASSWORD.to_owned(),
        "application_credential_id: credential\n  application_credential_secret: hidden".to_owned(),
        format!("{PASSWORD}\n  region_name: one"),
    ] {
        let server = swift(|_| Fault::Pass).await;
        conforms(&*bucket(&server, &login)).await;
        let logins = server
            .seen()
            .iter()
            .filter(|s| s.name.ends_with("tokens"))
            .count();
        assert_eq!(logins, 1, "one login for all");
    }
    let server = swift(|_| Fault::Pass).await;
    conforms(&*built(&own(&server), &[]).unwrap()).await;
}

#[tokio::test]
async fn large_objects_become_manifests_of_either_kind() {
    for (more, body_bytes_max) in [
        ("", 8 << 20),
        (
            "\n  large_object_segments_container_name: segments",
            8 << 20,
        ),
        (
            "\n  large_object_segments_container_name: segments",
            1 << 20,
        ),
    ] {
        let server = swift(|_| Fault::Pass).await;
        let yaml = document(&server, &format!("{PASSWORD}{more}"));
        let bucket = built_with(&yaml, &[], body_bytes_max).unwrap();
        objects_come_back(&*bucket, 2 * CHUNK_BYTES + 5).await;
        assert!(server.objects().is_empty(), "segments go with their object");
    }
    let server = swift(|_| Fault::Pass).await;
    let dynamic = "use_dynamic_large_objects: true";
    let bucket = bucket(&server, &format!("{PASSWORD}\n  {dynamic}"));
    let whole = bytes(CHUNK_BYTES + 5);
    bucket
        .upload(&key("ü/large"), &MemorySource(whole.clone()))
        .await
        .unwrap();
    assert!(content(&*bucket, "ü/large").await == whole);
    let names: Vec<_> = server.objects().into_keys().collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[tokio::test]
async fn bytes_that_change_on_the_way_are_sent_again() {
    let times = AtomicU32::new(0);
    let server = swift(move |seen| {
        let is_first = seen.body_bytes == 0
            && seen.method == "PUT"
            && times.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first { Fault::Damage } else { Fault::Pass }
    })
    .await;
    let bucket = bucket(&server, PASSWORD);
    let error = bucket.upload(&key("o"), &MemorySource(bytes(100))).await;
    // 422 says that the sums differ, which is what a request that is repeated mends.
    error.unwrap();
    assert_eq!(content(&*bucket, "o").await, bytes(100));
}

#[tokio::test]
async fn an_abandoned_upload_leaves_no_segments() {
    let server = swift(|seen| match seen.query.contains_key("multipart-manifest") {
        true => Fault::Refuse(403, "", &[]),
        false => Fault::Pass,
    })
    .await;
    let yaml = document(&server, PASSWORD);
    let bucket = built(&yaml, &[]).unwrap();
    let source = MemorySource(bytes(CHUNK_BYTES + 5));
    bucket.upload(&key("o"), &source).await.unwrap_err();
    assert_eq!(server.objects().len(), 2, "they may be gone on with");
    let name = server.objects().into_keys().next().unwrap();
    let upload_id = name.split('/').rev().nth(1).unwrap().to_owned();
    let state = MultipartState {
        destination: format!("{}/blocks/o", server.endpoint()),
        upload_id,
        part_bytes: std::num::NonZeroU64::MIN,
        integrity: "content-md5".to_owned(),
        created_seconds: None,
        parts: std::collections::BTreeMap::new(),
    };
    bucket.abandon(&state).await.unwrap();
    assert!(server.objects().is_empty());
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced() {
    let times = AtomicU32::new(0);
    let server = swift(move |seen| {
        let refuses = seen.method == "PUT" && times.fetch_add(1, Ordering::Relaxed) == 0;
        if refuses {
            Fault::Refuse(401, "", &[])
        } else {
            Fault::Pass
        }
    })
    .await;
    let bucket = bucket(&server, PASSWORD);
    bucket
        .upload(&key("o"), &MemorySource(bytes(10)))
        .await
        .unwrap();
    let logins = server
        .seen()
        .iter()
        .filter(|s| s.name.ends_with("tokens"))
        .count();
    assert_eq!(logins, 2);
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_remedy() {
    let server = swift(|_| Fault::Pass).await;
    let wrong = PASSWORD.replace("hidden", "another-secret");
    let (_, text) = refusal(&*bucket(&server, &wrong)).await;
    assert!(
        text.contains("401") && text.contains("requires authentication"),
        "{text}"
    );
    assert!(!text.contains("another-secret"), "{text}");
    let elsewhere = format!("{PASSWORD}\n  region_name: three");
    let (_, text) = refusal(&*bucket(&server, &elsewhere)).await;
    assert!(text.contains("`region_name`"), "{text}");
    let yaml = document(&server, PASSWORD).replace("container_name: blocks", "container_name: no");
    let (error, text) = refusal(&*built(&yaml, &[]).unwrap()).await;
    assert!(
        !error.is_retryable() && text.contains("`container_name`"),
        "{text}"
    );
    server.decide_by(|seen| match seen.method.as_str() {
        "PUT" => Fault::Refuse(403, "", &[]),
        _ => Fault::Pass,
    });
    let (error, text) = refusal(&*bucket(&server, PASSWORD)).await;
    assert!(
        !error.is_retryable() && text.contains("needs a role"),
        "{text}"
    );
}

#[test]
fn logins_need_what_they_need() {
    let parsed = |config: &str| {
        let yaml = format!("type: SWIFT\nconfig:\n  container_name: c\n{config}");
        built(&yaml, &[])
            .map(drop)
            .map_err(|error| ErrorChain(&error).to_string())
    };
    let v3 = "  auth_url: https://k/v3\n";
    for (config, expected) in [
        ("", "`auth_url` is missing"),
        (
            "  auth_url: k:5000/v3\n",
            "`auth_url` \"k:5000/v3\" is not a URL",
        ),
        ("  auth_url: https://k/v2.0\n", "version 2 of the login"),
        ("  auth_url: https://k/\n", "does not tell"),
        ("  auth_url: https://k/\n  auth_version: 4\n", "version 4"),
        ("  auth_url: https://k/v1.0\n", "`username` is missing"),
        (
            "  auth_url: https://k/v1.0\n  username: u\n",
            "`password` is missing",
        ),
        (v3, "`username` is missing"),
        (&format!("{v3}  username: u\n"), "`password` is missing"),
        (
            &format!("{v3}  application_credential_id: i\n"),
            "`application_credential_secret` is missing",
        ),
        (
            &format!("{v3}  application_credential_name: i\n  application_credential_secret: s\n"),
            "`username` is missing",
        ),
        (
            &format!("{v3}  large_object_chunk_size: 1\n"),
            "`large_object_chunk_size` 1",
        ),
    ] {
        let error = parsed(config).unwrap_err();
        assert!(
            error.starts_with("create SWIFT client: ") && error.contains(expected),
            "{error}"
        );
    }
    parsed(&format!("{v3}  user_id: i\n  password: p\n")).unwrap();
}
