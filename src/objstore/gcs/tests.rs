//! Google Cloud Storage against a server in memory that checks tokens and sums; credentials of each
//! kind against scripted ones.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::model::ErrorChain;
use crate::net::http::{Reply, ScriptedServer, Seen, response};
use crate::objstore::conformance::conforms;
use crate::objstore::testbed::{
    built, built_with, bytes, content, key, objects_come_back, refusal,
};
use crate::objstore::{
    Bucket, FakeS3, Fault, MemorySource, MultipartState, SeenRequest, SourceError, UploadProgress,
    UploadSource, service_account,
};

/// The least that Google takes.
const PART_BYTES: usize = 5 << 20;

/// A server, and a document whose account it knows.
async fn google(
    decide: impl Fn(&SeenRequest) -> Fault + Send + Sync + 'static,
) -> (FakeS3, String) {
    // The address of the server is in the account, and the account's key in the server.
    let (account, public_key) = service_account("http://TOKENS/token");
    let server = FakeS3::google(public_key, decide).await.unwrap();
    let account = account.replace("TOKENS", &server.endpoint());
    let account = account.replace('\'', "''");
    let yaml = format!(
        "type: GCS\nconfig:\n  bucket: b\n  max_retries: 3\n  chunk_size_bytes: {PART_BYTES}\n  \
         service_account: '{account}'\n"
    );
    (server, yaml)
}

fn bucket(server: &FakeS3, yaml: &str) -> Arc<dyn Bucket> {
    built(yaml, &[("STORAGE_EMULATOR_HOST", &server.endpoint())]).unwrap()
}

#[tokio::test]
async fn google_conforms() {
    let (server, yaml) = google(|_| Fault::Pass).await;
    conforms(&*bucket(&server, &yaml)).await;
    assert_eq!(server.count("Token"), 1, "a token is fetched once");
}

#[tokio::test]
async fn large_objects_arrive_in_parts_that_are_kept_or_read_twice() {
    for body_bytes_max in [8 << 20, 1 << 20] {
        let (server, yaml) = google(|_| Fault::Pass).await;
        let emulator = [("STORAGE_EMULATOR_HOST", &*server.endpoint())];
        let bucket = built_with(&yaml, &emulator, body_bytes_max).unwrap();
        objects_come_back(&*bucket, 3 * PART_BYTES + 123).await;
        assert_eq!(server.count("UploadPart"), 4);
        assert_eq!(server.uploads(), 0);
        let seen = server.seen();
        let bodies = seen
            .iter()
            .filter(|seen| seen.body_bytes > 0 && seen.method == "PUT");
        for seen in bodies {
            assert!(seen.headers.contains_key("x-goog-hash"), "{seen:?}");
            assert!(
                !seen.headers.contains_key("content-md5"),
                "one sum is enough: {seen:?}"
            );
        }
    }
}

#[tokio::test]
async fn bytes_that_change_on_the_way_are_sent_again() {
    for operation in ["PutObject", "UploadPart"] {
        let times = AtomicU32::new(0);
        let (server, yaml) = google(move |seen| {
            let first = seen.operation == operation && times.fetch_add(1, Ordering::Relaxed) == 0;
            if first { Fault::Damage } else { Fault::Pass }
        })
        .await;
        let bucket = bucket(&server, &yaml);
        let whole = bytes(if operation == "PutObject" {
            1000
        } else {
            PART_BYTES + 1
        });
        bucket
            .upload(&key("o"), &MemorySource(whole.clone()))
            .await
            .unwrap();
        assert!(content(&*bucket, "o").await == whole);
    }
}

#[tokio::test]
async fn an_object_that_is_not_the_sum_of_its_parts_is_an_error() {
    let other = &[
        ("x-goog-hash", "crc32c=AAAAAA==,md5=x"),
        ("content-length", "0"),
    ];
    let (server, yaml) = google(|seen| match seen.operation {
        "HeadObject" => Fault::Refuse(200, "", other),
        _ => Fault::Pass,
    })
    .await;
    let source = MemorySource(bytes(PART_BYTES + 1));
    let bucket = bucket(&server, &yaml);
    let error = bucket.upload(&key("o"), &source).await.unwrap_err();
    let text = ErrorChain(&error).to_string();
    assert!(text.contains("checksum AAAAAA=="), "{text}");
    assert_eq!(server.uploads(), 0);
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let times = Arc::new(AtomicU32::new(0));
    let seen_times = Arc::clone(&times);
    let (server, yaml) = google(move |seen| {
        let refuses =
            seen.operation == "PutObject" && seen_times.fetch_add(1, Ordering::Relaxed) < 1;
        if refuses {
            Fault::Refuse(401, "AuthenticationRequired", &[])
        } else {
            Fault::Pass
        }
    })
    .await;
    let bucket = bucket(&server, &yaml);
    bucket
        .upload(&key("o"), &MemorySource(bytes(10)))
        .await
        .unwrap();
    assert_eq!(server.count("Token"), 2);
    server.decide_by(|seen| match seen.operation {
        "PutObject" => Fault::Refuse(401, "AuthenticationRequired", &[]),
        _ => Fault::Pass,
    });
    let (error, text) = refusal(&*bucket).await;
    assert!(
        !error.is_retryable() && text.contains("`service_account`"),
        "{text}"
    );
    assert_eq!(server.count("Token"), 3, "once for each call");
}

#[tokio::test]
async fn refusals_name_their_remedy() {
    for (status, code, remedy) in [
        (403, "AccessDenied", "storage.objects.create"),
        (404, "NoSuchBucket", "correct `bucket`"),
    ] {
        let (server, yaml) = google(move |seen| match seen.operation {
            "Token" => Fault::Pass,
            _ => Fault::Refuse(status, code, &[]),
        })
        .await;
        let (error, text) = refusal(&*bucket(&server, &yaml)).await;
        assert!(!error.is_retryable() && !error.is_not_found(), "{text}");
        assert!(text.contains(code) && text.contains(remedy), "{text}");
        assert!(
            !text.contains("PRIVATE KEY") && !text.contains("ya29"),
            "{text}"
        );
    }
}

/// Remembers what an upload has in the bucket, as the shipper does.
#[derive(Default)]
struct Kept(std::sync::Mutex<Option<MultipartState>>);

struct Resumed<'a>(MemorySource, &'a Kept);

#[async_trait::async_trait]
impl UploadProgress for Kept {
    async fn earlier(&self) -> Option<MultipartState> {
        self.0.lock().unwrap().clone()
    }

    async fn keep(&self, state: Option<&MultipartState>) {
        *self.0.lock().unwrap() = state.cloned();
    }

    fn advanced(&self, _: u64) {}
}

#[async_trait::async_trait]
impl UploadSource for Resumed<'_> {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    async fn open(&self) -> Result<Box<dyn crate::objstore::ByteRuns>, SourceError> {
        self.0.open().await
    }

    async fn reread(
        &self,
        range: std::ops::Range<u64>,
    ) -> Result<Box<dyn crate::objstore::ByteRuns>, SourceError> {
        self.0.reread(range).await
    }

    fn progress(&self) -> &dyn UploadProgress {
        self.1
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_and_its_sum_is_that_of_all_parts() {
    let (server, yaml) = google(|seen| match seen.query.get("partNumber") {
        Some(number) if number == "3" => Fault::Refuse(503, "SlowDown", &[]),
        _ => Fault::Pass,
    })
    .await;
    let kept = Kept::default();
    let whole = bytes(2 * PART_BYTES + 77);
    let source = Resumed(MemorySource(whole.clone()), &kept);
    bucket(&server, &yaml)
        .upload(&key("o"), &source)
        .await
        .unwrap_err();
    let parts = kept.0.lock().unwrap().as_ref().unwrap().parts.len();
    assert!((1..=2).contains(&parts), "{parts}");
    server.decide_by(|_| Fault::Pass);
    let before = server.count("UploadPart");
    bucket(&server, &yaml)
        .upload(&key("o"), &source)
        .await
        .unwrap();
    assert_eq!(server.count("UploadPart") - before, 3 - parts);
    assert!(server.object("b/o").unwrap() == whole);
    assert!(kept.0.lock().unwrap().is_none());
}

/// A server of tokens and of one empty listing.
async fn scripted(
    script: impl Fn(&Seen) -> Option<String> + Send + Sync + 'static,
) -> ScriptedServer {
    ScriptedServer::start(move |seen| {
        if let Some(json) = script(seen) {
            return Reply::Bytes(response("200 OK", &[], json));
        }
        let is_right = seen.header("authorization") == Some("Bearer the-token");
        Reply::Bytes(match is_right {
            true => response("200 OK", &[], "<ListBucketResult/>"),
            false => response("401 Unauthorized", &[], ""),
        })
    })
    .await
}

fn token(text: &str) -> Option<String> {
    Some(format!(r#"{{"access_token":"{text}","expires_in":3599}}"#))
}

/// Lists the bucket in the name of whatever the variables lead to. The server is a proxy for
/// Google's own names, but for TLS.
async fn lists(
    server: &ScriptedServer,
    config: &str,
    variables: &[(&str, &str)],
) -> Result<(), String> {
    let yaml = format!("type: GCS\nconfig:\n  bucket: b\n  max_retries: 1\n{config}");
    let bucket = built(&yaml, variables).map_err(|error| ErrorChain(&error).to_string())?;
    let listed = bucket.list(None).await;
    let _ = server;
    listed.map(drop).map_err(|error| {
        let remedy = error.remedy().unwrap_or_default().to_owned();
        format!("{}; {remedy}", ErrorChain(&error))
    })
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn a_users_login_is_taken_from_the_document_or_its_file() {
    let server = scripted(|seen| {
        let form = String::from_utf8_lossy(&seen.body).into_owned();
        let is_right = form.contains("grant_type=refresh_token")
            && form.contains("refresh_token=r%2F1")
            && form.contains("client_secret=hidden");
        (seen.path() == "/token").then(|| {
            if is_right {
                token("the-token")
            } else {
                token("no")
            }
        })?
    })
    .await;
    let json = format!(
        r#"{{"type":"authorized_user","client_id":"c","client_secret":"hidden",
            "refresh_token":"r/1","token_uri":"{}"}}"#,
        server.url("/token")
    );
    let emulator = server.addr().to_string();
    let emulator = [("STORAGE_EMULATOR_HOST", &*emulator)];
    let inline = format!("  service_account: '{json}'\n");
    lists(&server, &inline, &emulator).await.unwrap();
    let path = file(&json);
    let named = format!("  service_account: {}\n", path.path().display());
    lists(&server, &named, &emulator).await.unwrap();
}

#[tokio::test]
async fn a_federated_workload_shows_its_token_and_speaks_for_an_account() {
    let server = scripted(|seen| match seen.path() {
        "/sts" => {
            let form = String::from_utf8_lossy(&seen.body).into_owned();
            let is_right = form.contains("subject_token=workload-token")
                && form.contains("audience=%2F%2Fiam")
                && form.contains("token-exchange");
            token(if is_right { "federated" } else { "no" })
        }
        "/impersonate" if seen.header("authorization") == Some("Bearer federated") => {
            Some(r#"{"accessToken":"the-token","expireTime":"2026-01-01T01:00:00Z"}"#.to_owned())
        }
        _ => None,
    })
    .await;
    let emulator = server.addr().to_string();
    let emulator = [("STORAGE_EMULATOR_HOST", &*emulator)];
    for (content, format) in [
        ("workload-token\n", ""),
        (
            r#"{"t":"workload-token"}"#,
            r#","format":{"type":"json","subject_token_field_name":"t"}"#,
        ),
    ] {
        let subject = file(content);
        let json = format!(
            r#"{{"type":"external_account","audience":"//iam","subject_token_type":"urn:jwt",
                "token_url":"{}","service_account_impersonation_url":"{}",
                "credential_source":{{"file":"{}"{format}}}}}"#,
            server.url("/sts"),
            server.url("/impersonate"),
            subject.path().display(),
        );
        lists(
            &server,
            &format!("  service_account: '{json}'\n"),
            &emulator,
        )
        .await
        .unwrap();
    }
}

/// What is found where the document says nothing, told by whom the error names.
#[tokio::test]
async fn without_an_account_the_environment_decides() {
    let metadata = ScriptedServer::start(|_| {
        Reply::Bytes(response("404 Not Found", &[], "no service account"))
    })
    .await;
    let address = metadata.addr().to_string();
    let error = lists(&metadata, "", &[("GCE_METADATA_HOST", &address)])
        .await
        .unwrap_err();
    assert!(
        error.contains("404") && error.contains("no service account"),
        "{error}"
    );
    let asked = metadata.seen().first().cloned().unwrap();
    assert_eq!(asked.header("metadata-flavor"), Some("Google"));
    assert!(
        asked.path().ends_with("/service-accounts/default/token"),
        "{asked:?}"
    );

    let gone = [("GCE_METADATA_HOST", "127.0.0.1:1")];
    let error = lists(&metadata, "", &gone).await.unwrap_err();
    for word in [
        "GOOGLE_APPLICATION_CREDENTIALS",
        "does not answer",
        "set `service_account`",
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
    let missing = [("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/key.json")];
    let error = lists(&metadata, "", &missing).await.unwrap_err();
    assert!(error.contains("/nonexistent/key.json"), "{error}");
}

#[tokio::test]
async fn credentials_that_cannot_be_used_are_told_at_the_start() {
    let server = scripted(|_| None).await;
    for (json, expected) in [
        ("{\"type\":", "not JSON (line 1"),
        ("{}", "of type \"\""),
        (r#"{"type":"gdch_service_account"}"#, "gdch_service_account"),
        (r#"{"type":"service_account"}"#, "`client_email`"),
        (
            r#"{"type":"service_account","client_email":"e"}"#,
            "`private_key`",
        ),
        (
            r#"{"type":"service_account","client_email":"e","private_key":"hidden"}"#,
            "no private key in PEM",
        ),
        (
            r#"{"type":"service_account","client_email":"e",
                "private_key":"-----BEGIN ENCRYPTED PRIVATE KEY-----hidden"}"#,
            "it is encrypted",
        ),
        (
            r#"{"type":"authorized_user","client_id":"c"}"#,
            "`client_secret`",
        ),
        (r#"{"type":"external_account"}"#, "`credential_source`"),
        (
            r#"{"type":"external_account","credential_source":{"environment_id":"aws1"}}"#,
            "neither of a file nor of a URL",
        ),
    ] {
        let config = format!("  service_account: '{json}'\n");
        let error = lists(&server, &config, &[]).await.unwrap_err();
        assert!(
            error.starts_with("create GCS client: `service_account`"),
            "{error}"
        );
        assert!(
            error.contains(expected) && !error.contains("hidden"),
            "{error}"
        );
    }
    let error = lists(&server, "", &[("STORAGE_EMULATOR_HOST", "a b")])
        .await
        .unwrap_err();
    assert!(error.contains("STORAGE_EMULATOR_HOST"), "{error}");
}

#[test]
fn another_universe_has_another_host() {
    use super::*;
    let keys: GcsKeys = serde_saphyr::from_str("bucket: b").unwrap();
    let (settings, _) = keys.settings(std::path::Path::new("/")).unwrap();
    let placed = settings.placed(Some("example.org"), &|_| None).unwrap();
    assert_eq!(
        (placed.endpoint.as_str(), placed.insecure),
        ("storage.example.org", false)
    );
    let placed = settings.placed(None, &|_| None).unwrap();
    assert_eq!(placed.endpoint, "storage.googleapis.com");
    let https = |_: &str| Some("https://h:1/".into());
    let placed = settings.placed(None, &https).unwrap();
    assert_eq!((placed.endpoint.as_str(), placed.insecure), ("h:1", false));
}
