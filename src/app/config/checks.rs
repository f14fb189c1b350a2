//! Values and combinations of flags with which nothing can be started.

use super::ConfigError;
use crate::app::cli::{GlobalArgs, GrpcArgs, SidecarArgs};

/// Checks what no single flag's type can: ranges and flags that belong together.
///
/// # Errors
/// The first thing that is wrong, in the order in which the reference finds it.
pub fn check(global: &GlobalArgs, sidecar: &SidecarArgs) -> Result<(), ConfigError> {
    let ratio = global.memory.auto_gomemlimit_ratio;
    // Not a number is in no range either.
    if !(ratio > 0.0 && ratio <= 1.0) {
        return Err(ConfigError::MemoryRatio { ratio });
    }
    // The reference panics in its ticker, or has every round time out at once.
    let durations = [
        (
            "prometheus.get_config_interval",
            sidecar.prometheus.get_config_interval,
        ),
        (
            "prometheus.get_config_timeout",
            sidecar.prometheus.get_config_timeout,
        ),
        ("reloader.retry-interval", sidecar.reloader.retry_interval),
    ];
    if let Some((flag, given)) = durations
        .into_iter()
        .find(|(_, given)| !given.is_positive())
    {
        return Err(ConfigError::NotPositive { flag, given });
    }
    // Zero has a meaning; below it the reference looks without a pause.
    let watch_interval = sidecar.reloader.watch_interval;
    if watch_interval.as_nanos() < 0 {
        return Err(ConfigError::Negative {
            flag: "reloader.watch-interval",
            given: watch_interval,
        });
    }
    check_grpc_tls(&sidecar.grpc)
}

fn check_grpc_tls(grpc: &GrpcArgs) -> Result<(), ConfigError> {
    match (&grpc.tls_cert, &grpc.tls_key, &grpc.tls_client_ca) {
        (None, None, Some(_)) => Err(ConfigError::ClientCaAlone),
        (Some(_), None, _) | (None, Some(_), _) => Err(ConfigError::HalfKeyPair),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::sidecar_args;

    fn problem(flags: &[&str]) -> Option<String> {
        let (global, sidecar) = sidecar_args(flags);
        check(&global, &sidecar)
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn the_memory_ratio_is_checked_even_when_off() {
        for bad in ["0", "-0.1", "1.1", "nan", "inf"] {
            let flag = format!("--auto-gomemlimit.ratio={bad}");
            let text = problem(&[&flag]).unwrap();
            assert!(
                text.starts_with("auto-gomemlimit.ratio must be greater than 0 and"),
                "{text}"
            );
        }
        for good in ["1", "0.9", "1e-3"] {
            assert_eq!(problem(&[&format!("--auto-gomemlimit.ratio={good}")]), None);
        }
    }

    #[test]
    fn intervals_must_pass() {
        for flag in [
            "prometheus.get_config_interval",
            "prometheus.get_config_timeout",
            "reloader.retry-interval",
        ] {
            for bad in ["0", "-5s"] {
                let text = problem(&[&format!("--{flag}={bad}")]).unwrap();
                assert!(
                    text.starts_with(&format!("{flag} must be greater than 0, got ")),
                    "{text}"
                );
            }
        }
        assert_eq!(
            problem(&[
                "--prometheus.ready_timeout=0",
                "--reloader.watch-interval=0"
            ]),
            None
        );
    }

    #[test]
    fn the_watch_interval_is_not_negative() {
        assert_eq!(
            problem(&["--reloader.watch-interval=-1s"]).as_deref(),
            Some("reloader.watch-interval must not be negative, got -1s")
        );
    }

    #[test]
    fn grpc_tls_files_belong_together() {
        let pair = "setup gRPC server: both server key and certificate must be provided";
        let ca = "setup gRPC server: when a client CA is used a server key and certificate must \
                  also be provided";
        let cert = "--grpc-server-tls-cert=c";
        let key = "--grpc-server-tls-key=k";
        let client_ca = "--grpc-server-tls-client-ca=a";
        assert_eq!(problem(&[cert]).as_deref(), Some(pair));
        assert_eq!(problem(&[key]).as_deref(), Some(pair));
        assert_eq!(problem(&[key, client_ca]).as_deref(), Some(pair));
        assert_eq!(problem(&[client_ca]).as_deref(), Some(ca));
        assert_eq!(
            problem(&[cert, "--grpc-server-tls-key="]).as_deref(),
            Some(pair)
        );
        assert_eq!(problem(&[cert, key, client_ca]), None);
        assert_eq!(problem(&[]), None);
    }
}
