//! The reloader of a sidecar, from its flags.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::app::Environment;
use crate::app::cli::{ReloadMethod, ReloaderArgs};
use crate::model::ReloadStatus;
use crate::prometheus::Client;
use crate::reloader::{Dependencies, Files, Reloader, ReloaderConfig, ReloaderMetrics, Trigger};

/// A reloader that has not begun, and how it stands.
pub(super) struct ReloaderPart {
    pub(super) reloader: Reloader,
    /// `None` where there is nothing to watch.
    pub(super) status: Option<watch::Receiver<ReloadStatus>>,
}

/// Builds it; without files to watch it does nothing, and its metrics are there all the same.
pub(super) fn build(
    args: &ReloaderArgs,
    environment: &Environment,
    client: Client,
    registry: &mut Registry,
) -> ReloaderPart {
    let clock = environment.clock.clone();
    let trigger = match args.method {
        ReloadMethod::Http => Trigger::Http(client),
        ReloadMethod::Signal => Trigger::Signal {
            process_name: args.process_name.clone(),
            client,
            clock: clock.clone(),
        },
    };
    let config = ReloaderConfig {
        files: Files {
            config_file: args.config_file.clone(),
            output: args.config_envsubst_file.clone(),
            rule_dirs: args.rule_dirs.clone(),
        },
        watch_interval: args.watch_interval.to_std_or_zero(),
        retry_interval: args.retry_interval.to_std_or_zero(),
    };
    let watches = !config.files.is_empty();
    let metrics = ReloaderMetrics::register(trigger.method(), registry);
    let dependencies = Dependencies {
        trigger,
        variable: Arc::clone(&environment.variable),
        clock,
        metrics,
    };
    let reloader = Reloader::new(config, dependencies);
    ReloaderPart {
        status: watches.then(|| reloader.status()),
        reloader,
    }
}
