//! Where requests to each vendor go and how they are signed, by the vendors' own addresses: a
//! server that others wrote checks the signatures, as the proxy before those addresses.

use crate::model::ErrorChain;
use crate::objstore::testbed::{built, objects_come_back};
use crate::objstore::{Addressing, BucketConfig, Provider, S3Settings};

fn parsed(yaml: &str) -> Result<(S3Settings, Vec<String>), String> {
    let config = BucketConfig::parse(yaml, std::path::Path::new("/"));
    let config = config.map_err(|error| ErrorChain(&error).to_string())?;
    match config.provider {
        Provider::S3(settings) => Ok((*settings, config.warnings)),
        other => panic!("{other:?}"),
    }
}

fn oss(endpoint: &str) -> String {
    format!(
        "type: ALIYUNOSS\nconfig:\n  endpoint: {endpoint}\n  bucket: b\n  access_key_id: id\n  \
         access_key_secret: hidden\n"
    )
}

fn bos(endpoint: &str) -> String {
    format!(
        "type: BOS\nconfig:\n  endpoint: {endpoint}\n  bucket: b\n  access_key: id\n  secret_key: \
         hidden\n"
    )
}

fn obs(endpoint: &str) -> String {
    format!(
        "type: OBS\nconfig:\n  endpoint: {endpoint}\n  bucket: b\n  access_key: id\n  secret_key: \
         hidden\n"
    )
}

fn cos(place: &str) -> String {
    format!("type: COS\nconfig:\n  {place}\n  secret_id: id\n  secret_key: hidden\n")
}

/// Where requests go: type, URL of the bucket's host, region, addressing, bucket.
fn place(yaml: &str) -> String {
    let (settings, warnings) = parsed(yaml).unwrap();
    assert!(
        warnings.is_empty() && !format!("{settings:?}").contains("hidden"),
        "{yaml}"
    );
    let S3Settings { kind, client, .. } = settings;
    let scheme = if client.insecure { "http" } else { "https" };
    let region = client.region.as_deref().unwrap_or("?");
    let style = match client.addressing {
        Addressing::Path => "path",
        Addressing::VirtualHosted => "host",
        Addressing::Auto => "auto",
    };
    format!(
        "{kind} {scheme}://{} {region} {style} {}",
        client.endpoint, client.bucket
    )
}

#[test]
fn each_vendor_is_reached_where_its_pages_say() {
    for (endpoint, expected) in [
        (
            "oss-cn-hangzhou.aliyuncs.com",
            "https://s3.oss-cn-hangzhou.aliyuncs.com cn-hangzhou",
        ),
        (
            "http://oss-cn-beijing-internal.aliyuncs.com",
            "http://s3.oss-cn-beijing-internal.aliyuncs.com cn-beijing",
        ),
        (
            "https://oss-accelerate.aliyuncs.com/",
            "https://s3.oss-accelerate.aliyuncs.com us-east-1",
        ),
        (
            "s3.oss-eu-central-1.aliyuncs.com",
            "https://s3.oss-eu-central-1.aliyuncs.com eu-central-1",
        ),
    ] {
        assert_eq!(
            place(&oss(endpoint)),
            format!("ALIYUNOSS {expected} host b")
        );
    }
    for (endpoint, expected) in [
        ("bj.bcebos.com", "https://s3.bj.bcebos.com bj"),
        ("http://s3.gz.bcebos.com", "http://s3.gz.bcebos.com gz"),
    ] {
        assert_eq!(place(&bos(endpoint)), format!("BOS {expected} path b"));
    }
    for (endpoint, expected) in [
        (
            "https://obs.cn-north-4.myhuaweicloud.com",
            "https://obs.cn-north-4.myhuaweicloud.com cn-north-4 host",
        ),
        (
            "obs.eu-west-101.myhuaweicloud.eu",
            "https://obs.eu-west-101.myhuaweicloud.eu eu-west-101 host",
        ),
        ("store.example.com", "https://store.example.com ? host"),
        ("http://10.0.0.1:80", "http://10.0.0.1:80 ? path"),
    ] {
        assert_eq!(place(&obs(endpoint)), format!("OBS {expected} b"));
    }
    let parts = "bucket: b\n  app_id: '125'\n  region: ap-guangzhou";
    for (given, expected) in [
        (parts, "https://cos.ap-guangzhou.myqcloud.com ap-guangzhou"),
        (
            "endpoint: https://b-125.cos.ap-x.tencentcos.cn",
            "https://cos.ap-x.tencentcos.cn ap-x",
        ),
        (
            "endpoint: http://b-125.cos-internal.ap-x.tencentcos.cn\n  region: ap-x",
            "http://cos-internal.ap-x.tencentcos.cn ap-x",
        ),
    ] {
        assert_eq!(place(&cos(given)), format!("COS {expected} host b-125"));
    }
    assert_eq!(parsed(&cos(parts)).unwrap().0.label.as_deref(), Some("b"));
}

#[test]
fn what_cannot_be_is_named_with_its_remedy() {
    for (yaml, expected) in [
        (
            oss("ftp://x"),
            "create ALIYUNOSS client: `endpoint` \"ftp://x\"",
        ),
        (oss("a/b"), "oss-cn-hangzhou.aliyuncs.com"),
        (bos("my.own.example.com"), "one of the vendor's own"),
        (bos("a.b.bcebos.com"), "bj.bcebos.com"),
        (cos("endpoint: https://b.example.com"), "set `region`"),
        (
            cos("bucket: b"),
            "insufficient cos configuration information: set `app_id`",
        ),
        (cos("bucket: b\n  app_id: x"), "set `region`"),
        (
            "type: OBS\nconfig: {endpoint: h, bucket: b, access_key: x}\n".to_owned(),
            "no obs secret_key specified: set `secret_key`",
        ),
        (
            "type: OCI\nconfig: {provider: raw, bucket: b, region: eu-x, privatekey: hidden}\n"
                .to_owned(),
            "`privatekey` names an API signing key",
        ),
        (
            "type: OCI\nconfig: {provider: instance-principal, bucket: b, region: eu-x}\n"
                .to_owned(),
            "<namespace>.compat.objectstorage.eu-x.oraclecloud.com, bucket_lookup_type: path",
        ),
        (
            "type: OCI\nconfig: {bucket: b}\n".to_owned(),
            "unsupported OCI provider",
        ),
        (
            "type: OCI\nconfig: {provider: Default}\n".to_owned(),
            "set `bucket`",
        ),
    ] {
        let error = parsed(&yaml).unwrap_err();
        assert!(
            error.contains(expected) && !error.contains("hidden"),
            "{error}"
        );
    }
}

#[test]
fn the_document_that_is_told_instead_of_oracles_is_one() {
    let yaml = "type: OCI\nconfig: {provider: raw, bucket: b, region: eu-x, privatekey: k}\n";
    let error = parsed(yaml).unwrap_err();
    let (_, config) = error.split_once("`config: ").unwrap();
    let config = config.split('`').next().unwrap();
    let told = config
        .replace("<namespace>", "ns")
        .replace("<access key>", "a");
    let told = told.replace("<secret key>", "s");
    let (settings, warnings) = parsed(&format!("type: S3\nconfig: {told}\n")).unwrap();
    assert_eq!(
        settings.client.endpoint,
        "ns.compat.objectstorage.eu-x.oraclecloud.com"
    );
    assert!(warnings.is_empty());
}

/// s3s checks signatures, region and all, by the host's name that requests are for.
#[tokio::test]
async fn signatures_of_each_vendor_are_right_for_its_host() {
    use crate::objstore::s3::S3sServer;
    for (yaml, domain) in [
        (
            oss("http://oss-cn-hangzhou.aliyuncs.com"),
            "s3.oss-cn-hangzhou.aliyuncs.com",
        ),
        (bos("http://bj.bcebos.com"), "s3.bj.bcebos.com"),
        (
            obs("http://obs.cn-north-4.myhuaweicloud.com"),
            "obs.cn-north-4.myhuaweicloud.com",
        ),
        (
            cos("endpoint: http://bucket.cos.ap-guangzhou.myqcloud.com"),
            "cos.ap-guangzhou.myqcloud.com",
        ),
    ] {
        let server = S3sServer::start(("id", "hidden"), Some(domain)).await;
        let yaml = yaml.replace("bucket: b\n", "bucket: bucket\n");
        let proxy = format!("http://{}", server.endpoint());
        let bucket = built(&yaml, &[("HTTP_PROXY", &proxy)]).unwrap();
        objects_come_back(&*bucket, (8 << 20) + 99).await;
    }
}
