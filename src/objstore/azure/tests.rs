//! Azure against a server in memory that checks sums, and against Azurite, which checks signatures;
//! identities against scripted servers.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::credentials::AzureIdentity;
use super::{AzureAccess, AzureWire};
use crate::model::{Clock, ErrorChain};
use crate::net::http::{Reply, ScriptedServer, Seen, response};
use crate::objstore::conformance::conforms;
use crate::objstore::s3::{HttpConfig, SdkClient, Sending, Wire as _};
use crate::objstore::testbed::{
    NOW_NS, built, built_when, built_with, bytes, content, key, objects_come_back, refusal,
};
use crate::objstore::{Bucket, FakeS3, Fault, MemorySource, SeenRequest};

async fn azure(decide: impl Fn(&SeenRequest) -> Fault + Send + Sync + 'static) -> FakeS3 {
    FakeS3::azure(decide).await.unwrap()
}

/// The key is `hidden` in base64.
fn document(endpoint: &str, more: &str) -> String {
    format!(
        "type: AZURE\nconfig:\n  storage_account: account\n  container: c\n  max_retries: 2\n  \
         storage_connection_string: 'AccountName=account;AccountKey=aGlkZGVu;\
         BlobEndpoint=http://{endpoint}/account'\n{more}"
    )
}

fn bucket(server: &FakeS3) -> Arc<dyn Bucket> {
    built(&document(&server.endpoint(), ""), &[]).unwrap()
}

#[tokio::test]
async fn azure_conforms_and_makes_its_container() {
    let server = azure(|_| Fault::Pass).await;
    conforms(&*bucket(&server)).await;
    let made = server
        .seen()
        .into_iter()
        .filter(|seen| seen.query.contains_key("restype"));
    assert_eq!(made.filter(|seen| seen.method == "PUT").count(), 1);
    let signed = format!("{:?}", server.seen());
    assert!(signed.contains("SharedKey account:") && !signed.contains("aGlkZGVu"));
}

#[tokio::test]
async fn a_container_is_made_only_where_that_is_wanted() {
    let server = azure(|_| Fault::Pass).await;
    let yaml = document(&server.endpoint(), "  storage_create_container: false\n");
    let (error, text) = refusal(&*built(&yaml, &[]).unwrap()).await;
    assert!(
        text.contains("ContainerNotFound") && text.contains("create the container"),
        "{text}"
    );
    assert!(!error.is_not_found() && !error.is_retryable(), "{text}");
}

#[tokio::test]
async fn large_objects_are_blocks_whose_sums_the_store_checks() {
    for body_bytes_max in [9 << 20, 1 << 20] {
        let server = azure(|_| Fault::Pass).await;
        let yaml = document(&server.endpoint(), "");
        let bucket = built_with(&yaml, &[], body_bytes_max).unwrap();
        objects_come_back(&*bucket, 20 << 20).await;
        assert_eq!(server.uploads(), 0);
        let seen = server.seen();
        let bodies = seen
            .iter()
            .filter(|s| s.method == "PUT" && s.body_bytes > 50);
        let bodies = bodies.filter(|s| s.query.get("comp").is_none_or(|c| c == "block"));
        for seen in bodies {
            assert!(seen.headers.contains_key("x-ms-content-crc64"), "{seen:?}");
        }
    }
}

#[tokio::test]
async fn bytes_that_change_on_the_way_are_sent_again() {
    for size in [1000, 9 << 20] {
        let times = AtomicU32::new(0);
        let server = azure(move |seen| {
            let is_body = seen.headers.contains_key("x-ms-content-crc64");
            let is_second = is_body && times.fetch_add(1, Ordering::Relaxed) == 1;
            if is_second {
                Fault::Damage
            } else {
                Fault::Pass
            }
        })
        .await;
        let bucket = bucket(&server);
        let whole = bytes(size);
        bucket
            .upload(&key("o"), &MemorySource(whole.clone()))
            .await
            .unwrap();
        assert!(content(&*bucket, "o").await == whole);
    }
}

#[tokio::test]
async fn blocks_that_are_gone_are_sent_anew() {
    let times = AtomicU32::new(0);
    let server = azure(move |seen| {
        let commits = seen
            .query
            .get("comp")
            .is_some_and(|comp| comp == "blocklist");
        if commits && times.fetch_add(1, Ordering::Relaxed) == 0 {
            return Fault::Refuse(400, "InvalidBlockList", &[]);
        }
        Fault::Pass
    })
    .await;
    let whole = bytes(9 << 20);
    let bucket = bucket(&server);
    bucket
        .upload(&key("o"), &MemorySource(whole.clone()))
        .await
        .unwrap();
    assert!(server.object("c/o").unwrap() == whole);
}

#[tokio::test]
async fn a_lost_answer_to_the_list_of_blocks_is_no_loss() {
    let times = AtomicU32::new(0);
    let server = azure(move |seen| {
        let commits = seen
            .query
            .get("comp")
            .is_some_and(|comp| comp == "blocklist");
        let is_first = commits && times.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first {
            Fault::LoseAnswer
        } else {
            Fault::Pass
        }
    })
    .await;
    let whole = bytes(9 << 20);
    let bucket = bucket(&server);
    bucket
        .upload(&key("o"), &MemorySource(whole.clone()))
        .await
        .unwrap();
    assert!(server.object("c/o").unwrap() == whole);
}

#[tokio::test]
async fn refusals_name_their_remedy_and_no_secret() {
    for (status, code, remedy) in [
        (403, "AuthenticationFailed", "`storage_account_key`"),
        (
            403,
            "AuthorizationPermissionMismatch",
            "Storage Blob Data Contributor",
        ),
        (403, "AuthorizationFailure", "network rules"),
        (403, "KeyBasedAuthenticationNotPermitted", "takes no keys"),
        (400, "InvalidResourceName", "correct `container`"),
    ] {
        let server = azure(move |_| Fault::Refuse(status, code, &[])).await;
        let (error, text) = refusal(&*bucket(&server)).await;
        assert!(
            !error.is_retryable() && text.contains(code) && text.contains(remedy),
            "{text}"
        );
        assert!(!text.contains("aGlkZGVu"), "{text}");
    }
}

#[tokio::test]
async fn a_shared_access_signature_is_in_every_query_and_in_no_message() {
    let server = azure(|_| Fault::Pass).await;
    let yaml = document(&server.endpoint(), "").replace(
        "AccountName=account;AccountKey=aGlkZGVu;",
        "SharedAccessSignature=?sv=2021&sig=hidden%3D;",
    );
    let bucket = built(&yaml, &[]).unwrap();
    objects_come_back(&*bucket, 9 << 20).await;
    let seen = server.seen();
    assert!(
        seen.iter()
            .all(|seen| seen.query.get("sig").is_some_and(|sig| sig == "hidden="))
    );
    server.decide_by(|_| Fault::Refuse(403, "AuthenticationFailed", &[]));
    let (_, text) = refusal(&*bucket).await;
    assert!(!text.contains("hidden"), "{text}");
}

/// What `Authorization` becomes for this access, and the request for the token.
async fn authorized(
    access: AzureAccess,
    script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    variables: impl Fn(&ScriptedServer) -> Vec<(&'static str, String)>,
) -> Result<(String, Seen), String> {
    let server = ScriptedServer::start(script).await;
    let variables = variables(&server);
    let variable = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.into())
    };
    let client = SdkClient::new(HttpConfig::default().client(None).unwrap());
    let identity = AzureIdentity::new(&access, &variable, client, Clock::fixed(NOW_NS));
    let identity = identity.map_err(|error| ErrorChain(&error).to_string())?;
    let wire = AzureWire::new(identity, "https://a", "c", true);
    let mut headers = http::HeaderMap::new();
    let mut sending = Sending {
        method: &http::Method::GET,
        url: &mut "https://a/c".to_owned(),
        headers: &mut headers,
        length: 0,
        now_ns: NOW_NS,
    };
    let done = wire.authorize(&mut sending).await;
    done.map_err(|fault| ErrorChain(&fault).to_string())?;
    let value = headers["authorization"].to_str().unwrap().to_owned();
    Ok((value, server.seen().pop().unwrap()))
}

fn token(_: &Seen) -> Reply {
    let json = r#"{"access_token":"t-1","expires_in":"3599","token_type":"Bearer"}"#;
    Reply::Bytes(response("200 OK", &[], json))
}

#[tokio::test]
async fn tokens_come_from_the_directory_for_a_secret() {
    let access = AzureAccess::Secret {
        tenant: "tenant".to_owned(),
        client_id: "app".to_owned(),
        client_secret: "hid den".to_owned(),
    };
    let authority = |server: &ScriptedServer| vec![("AZURE_AUTHORITY_HOST", server.url("/"))];
    let (value, seen) = authorized(access.clone(), token, authority).await.unwrap();
    assert_eq!(value, "Bearer t-1");
    assert_eq!(seen.line, "POST /tenant/oauth2/v2.0/token HTTP/1.1");
    let form = String::from_utf8(seen.body).unwrap();
    assert_eq!(
        form,
        "grant_type=client_credentials&client_id=app&\
         scope=https%3A%2F%2Fstorage.azure.com%2F.default&client_secret=hid%20den"
    );
    let refused = |_: &Seen| {
        let json = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid"}"#;
        Reply::Bytes(response("401 Unauthorized", &[], json))
    };
    let error = authorized(access, refused, authority).await.unwrap_err();
    assert!(
        error.contains("AADSTS7000215") && !error.contains("hid den"),
        "{error}"
    );
}

#[tokio::test]
async fn tokens_come_from_the_environment_where_the_document_has_none() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"federated\n").unwrap();
    let path = file.path().display().to_string();
    let workload = move |server: &ScriptedServer| {
        vec![
            ("AZURE_AUTHORITY_HOST", server.url("/")),
            ("AZURE_TENANT_ID", "tenant".to_owned()),
            ("AZURE_CLIENT_ID", "app".to_owned()),
            ("AZURE_FEDERATED_TOKEN_FILE", path.clone()),
        ]
    };
    let (_, seen) = authorized(AzureAccess::Default, token, workload)
        .await
        .unwrap();
    let form = String::from_utf8(seen.body).unwrap();
    assert!(
        form.contains("client_assertion=federated") && form.contains("jwt-bearer"),
        "{form}"
    );

    let service = |server: &ScriptedServer| {
        vec![
            ("IDENTITY_ENDPOINT", server.url("/msi/token")),
            ("IDENTITY_HEADER", "secret".to_owned()),
        ]
    };
    let access = AzureAccess::Managed {
        client_id: "mine".to_owned(),
    };
    // App Service tells the moment, not the time that is left.
    let until = |_: &Seen| {
        let json = r#"{"access_token":"t-2","expires_on":"1767229200","token_type":"Bearer"}"#;
        Reply::Bytes(response("200 OK", &[], json))
    };
    let (value, seen) = authorized(access, until, service).await.unwrap();
    assert_eq!(value, "Bearer t-2");
    assert_eq!(seen.header("x-identity-header"), Some("secret"));
    let expected = "/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com%2F\
                    &client_id=mine";
    assert_eq!(seen.path(), expected);

    for (variables, expected) in [
        (
            vec![("AZURE_CLIENT_CERTIFICATE_PATH", "/x")],
            "client certificates",
        ),
        (vec![("AZURE_CLIENT_SECRET", "hidden")], "AZURE_TENANT_ID"),
        (
            vec![("AZURE_CLIENT_SECRET", "hidden"), ("AZURE_TENANT_ID", "t")],
            "AZURE_CLIENT_ID",
        ),
    ] {
        let given = move |_: &ScriptedServer| {
            variables
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect()
        };
        let error = authorized(AzureAccess::Default, token, given)
            .await
            .unwrap_err();
        assert!(
            error.contains(expected) && !error.contains("hidden"),
            "{error}"
        );
    }
}

/// Azurite, which ends with this.
struct Azurite {
    child: Child,
    endpoint: String,
    _scratch: tempfile::TempDir,
}

impl Azurite {
    /// `None` where there is none on this machine, which is said.
    fn start() -> Option<Self> {
        let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fetch-azurite");
        let found = Command::new(fetch).output().unwrap();
        if !found.status.success() {
            eprintln!(
                "LEFT OUT: Azure's signatures (no azurite-blob here, see tests/fetch-azurite)"
            );
            return None;
        }
        let scratch = tempfile::tempdir().unwrap();
        let mut child = Command::new(String::from_utf8(found.stdout).unwrap().trim())
            .args([
                "--blobHost",
                "127.0.0.1",
                "--blobPort",
                "0",
                "--disableTelemetry",
                "--silent",
            ])
            .arg("--location")
            .arg(scratch.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        let mut lines = lines.map_while(Result::ok);
        let line = lines
            .find(|line| line.contains("listens on http://"))
            .unwrap();
        let (_, endpoint) = line.split_once("http://").unwrap();
        Some(Self {
            child,
            endpoint: endpoint.trim().to_owned(),
            _scratch: scratch,
        })
    }
}

impl Azurite {
    /// What it takes the time to be: it holds signatures to that.
    fn now_ns(&self) -> i128 {
        let mut stream = std::net::TcpStream::connect(&self.endpoint).unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.endpoint
        );
        stream.write_all(request.as_bytes()).unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(stream));
        let mut lines = lines.map_while(Result::ok);
        let date = lines.find_map(|line| line.strip_prefix("Date: ").map(str::to_owned));
        let date = date.expect("an answer has the time");
        let parser = jiff::fmt::rfc2822::DateTimeParser::new();
        parser.parse_timestamp(date.trim()).unwrap().as_nanosecond()
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The account that Azurite's documentation publishes.
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/\
                   KBHBeksoGMGw==";

#[tokio::test]
async fn azurite_takes_our_signatures() {
    let Some(azurite) = Azurite::start() else {
        return;
    };
    let endpoint = &azurite.endpoint;
    let connection = |key: &str| {
        format!(
            "type: AZURE\nconfig:\n  storage_account: devstoreaccount1\n  container: blocks\n  \
             storage_connection_string: 'AccountName=devstoreaccount1;AccountKey={key};\
             BlobEndpoint=http://{endpoint}/devstoreaccount1'\n"
        )
    };
    let now_ns = azurite.now_ns();
    let bucket = built_when(&connection(KEY), now_ns);
    conforms(&*bucket).await;
    objects_come_back(&*bucket, (8 << 20) * 2 + 77).await;
    let wrong = KEY.replace("Eby8", "Eby9");
    let (error, text) = refusal(&*built_when(&connection(&wrong), now_ns)).await;
    assert!(
        !error.is_retryable() && text.contains("AuthorizationFailure"),
        "{text}"
    );
}
