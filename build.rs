//! Tells the binary which revision and compiler it was built from (`thanos_build_info`), and turns
//! `proto/` into types and a descriptor set (for reflection). protox reads the files, so no
//! `protoc` is needed.

#![expect(
    clippy::disallowed_methods,
    reason = "a build script is configured by its environment"
)]

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

use prost::Message;

/// Below `proto/`; each imports others by the same kind of path.
const PROTO_FILES: &[&str] = &[
    "thanos/store.proto",
    "thanos/info.proto",
    "thanos/rules.proto",
    "thanos/targets.proto",
    "thanos/metadata.proto",
    "thanos/exemplars.proto",
    "thanos/status.proto",
    "thanos/query.proto",
    "prometheus/remote.proto",
    "grpc/health.proto",
    "grpc/reflection_v1.proto",
    "grpc/reflection_v1alpha.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    fold_identical_code();
    revision();
    proto()
}

/// Functions that came out the same become one. rustc links with LLD on this target, which can;
/// other linkers may not.
fn fold_identical_code() {
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("TARGET", "x86_64-unknown-linux-gnu") {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}

fn proto() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTO_FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    // `Bytes` refer to the message they were read from; `Vec` would be a copy.
    config.bytes(["."]).btree_map(["."]);
    config.compile_fds(descriptors)?;
    Ok(())
}

fn revision() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-env-changed=OUTRIGGER_REVISION");
    println!("cargo:rerun-if-env-changed=OUTRIGGER_BRANCH");
    let revision = given("OUTRIGGER_REVISION", "git", &["rev-parse", "HEAD"]);
    let branch = given(
        "OUTRIGGER_BRANCH",
        "git",
        &["rev-parse", "--abbrev-ref", "HEAD"],
    );
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let compiler = given("OUTRIGGER_RUSTC_VERSION", &rustc, &["--version"]);
    println!("cargo:rustc-env=OUTRIGGER_BUILD_REVISION={revision}");
    println!("cargo:rustc-env=OUTRIGGER_BUILD_BRANCH={branch}");
    println!("cargo:rustc-env=OUTRIGGER_BUILD_COMPILER={compiler}");
}

/// The environment variable if set (packagers build without a checkout), else the first line that
/// the command prints, else `unknown`.
fn given(variable: &str, program: &str, arguments: &[&str]) -> String {
    if let Ok(value) = std::env::var(variable) {
        return value;
    }
    let printed = Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|o| o.status.success());
    let text = printed.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    text.filter(|t| !t.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
