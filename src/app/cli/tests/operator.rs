//! The argument lists that the prometheus-operator generates (contract `pains.md` §2).

use super::*;

/// The arguments that the operator gives the container, in its order, for a choice of its options.
fn operator_list(
    has_bucket: bool,
    is_delayed: bool,
    has_tls: bool,
    listens_locally: bool,
) -> Vec<String> {
    let host = if listens_locally { "127.0.0.1" } else { "" };
    let mut list = vec![
        "sidecar".to_owned(),
        "--prometheus.url=http://localhost:9090/".to_owned(),
        format!("--grpc-address={host}:10901"),
        format!("--http-address={host}:10902"),
    ];
    if has_tls {
        list.extend(
            [
                "--grpc-server-tls-cert=/etc/tls/tls.crt",
                "--grpc-server-tls-key=/etc/tls/tls.key",
                "--grpc-server-tls-client-ca=/etc/tls/ca.crt",
                "--grpc-server-tls-min-version=1.2",
                "--grpc-server-tls-ciphers=TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384",
                "--grpc-server-tls-curves=X25519,CurveP256",
            ]
            .map(str::to_owned),
        );
    }
    if has_bucket {
        let document = "type: S3\nconfig:\n  bucket: \"thanos\"\n  endpoint: s3.example\n";
        list.push(format!("--objstore.config={document}"));
        list.push("--tsdb.path=/prometheus".to_owned());
        if is_delayed {
            list.push("--shipper.meta-file-name=thanos.shipper.json".to_owned());
            list.push("--shipper.ignore-unequal-block-size".to_owned());
        }
    }
    list.extend(
        [
            "--tracing.config=type: OTLP\nconfig: {}\n",
            "--log.level=debug",
            "--log.format=json",
            "--min-time=-30d",
            "--prometheus.ready_timeout=20m",
            "--prometheus.get_config_timeout=10s",
            "--prometheus.get_config_interval=1m",
            "--prometheus.http-client-file=/etc/thanos/config/prometheus.http-client-file.yaml",
        ]
        .map(str::to_owned),
    );
    list
}

#[test]
fn every_list_of_the_operator_parses() {
    for bits in 0..16_u8 {
        let [has_bucket, is_delayed, has_tls, listens_locally] =
            [1, 2, 4, 8].map(|bit| bits & bit != 0);
        let list = operator_list(has_bucket, is_delayed, has_tls, listens_locally);
        let flags: Vec<&str> = list.iter().map(String::as_str).collect();
        let invocation = run(&flags);
        let Ok(Invocation::Run(cli)) = invocation else {
            panic!("{flags:?}: {invocation:?}");
        };
        assert_eq!(cli.global.logging.format, LogFormat::Json);
        let Command::Sidecar(args) = cli.command else {
            panic!("the words name the sidecar");
        };
        assert_eq!(args.prometheus.url.uri().path(), "/");
        assert_eq!(
            args.shipper.ignore_unequal_block_size,
            has_bucket && is_delayed
        );
        assert_eq!(args.tsdb.path.ends_with("prometheus"), has_bucket);
        assert_eq!(!args.objstore.config.as_str().is_empty(), has_bucket);
        assert_eq!(args.grpc.tls_ciphers.len(), if has_tls { 2 } else { 0 });
        assert!(args.grpc.address.ends_with(":10901"));
        // What a user may add after it: any other flag, hidden ones too.
        let mut more = flags.clone();
        more.extend([
            "--shipper.upload-compacted",
            "--shipper.allow-out-of-order-uploads",
            "--shipper.skip-corrupted-blocks",
            "--debug.name=x",
            "--http-grace-period=5m",
        ]);
        assert!(matches!(run(&more), Ok(Invocation::Run(_))));
    }
}

#[test]
fn a_bucket_file_instead_of_its_text_parses() {
    let flags = [
        "sidecar",
        "--prometheus.url=https://localhost:9090/prefix",
        "--grpc-address=:10901",
        "--http-address=:10902",
        "--objstore.config-file=/etc/thanos/objstore.yaml",
        "--tsdb.path=/prometheus",
        "--tracing.config-file=/etc/thanos/tracing.yaml",
    ];
    let Ok(Invocation::Run(cli)) = run(&flags) else {
        panic!();
    };
    assert_eq!(
        cli.global.tracing.config_file,
        Some(PathBuf::from("/etc/thanos/tracing.yaml"))
    );
    let Command::Sidecar(args) = cli.command else {
        panic!("the words name the sidecar");
    };
    assert_eq!(args.prometheus.url.uri().path(), "/prefix");
}
