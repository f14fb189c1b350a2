//! Tells the binary which revision and compiler it was built from (`thanos_build_info`).

#![expect(
    clippy::disallowed_methods,
    reason = "a build script is configured by its environment"
)]

use std::process::Command;

fn main() {
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
