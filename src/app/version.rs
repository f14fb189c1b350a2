//! What this build is: for `--version`, the build info metric and whoever asks over an API.

/// The version of outrigger.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, or `unknown`.
pub const REVISION: &str = env!("OUTRIGGER_BUILD_REVISION");

/// The branch it was built from, or `unknown`.
pub const BRANCH: &str = env!("OUTRIGGER_BUILD_BRANCH");

/// The compiler it was built with.
pub const COMPILER: &str = env!("OUTRIGGER_BUILD_COMPILER");

/// The Thanos version whose sidecar it stands in for: flags, metrics and services are that
/// version's, and whoever gates features by version is to be told this one.
pub const STANDS_IN_FOR: &str = "0.42.4";

/// This platform by Go's names, as dashboards know them: system and architecture.
pub fn go_platform() -> (&'static str, &'static str) {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    (std::env::consts::OS, architecture)
}

/// What `--version` prints: the first line has the form of Prometheus' programs.
pub fn text() -> String {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    format!(
        "outrigger, version {VERSION} (branch: {BRANCH}, revision: {REVISION})\n  \
           compiler:       {COMPILER}\n  \
           platform:       {os}/{arch}\n  \
           stands in for:  thanos sidecar {STANDS_IN_FOR}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_has_names_of_go() {
        let (os, arch) = go_platform();
        assert_eq!(os, "linux");
        assert!(!["x86_64", "aarch64"].contains(&arch), "{arch}");
    }
}
