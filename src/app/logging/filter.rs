//! Which events reach the log.

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

use super::LogLevel;

/// Lets events through down to a level; those of libraries (HTTP, TLS, gRPC) only from `warn` up
/// unless that level is `debug`, because they tell about frames, not about shipping.
///
/// Our own spans pass down to `info` whatever the level: an error must carry its block's name even
/// where only errors are logged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verbosity(pub(super) LogLevel);

/// The first part of the target of every event of ours: the crate's name.
const OUR_CRATE: &str = env!("CARGO_CRATE_NAME");

impl Verbosity {
    fn passes(self, metadata: &Metadata<'_>) -> bool {
        let level = self.level();
        let is_ours = metadata.target().split("::").next() == Some(OUR_CRATE);
        let most_verbose = match (metadata.is_span(), is_ours) {
            (true, true) => level.max(Level::INFO),
            (true, false) => return false,
            (false, true) => level,
            (false, false) if self.0 == LogLevel::Debug => level,
            (false, false) => level.min(Level::WARN),
        };
        *metadata.level() <= most_verbose
    }

    fn level(self) -> Level {
        match self.0 {
            LogLevel::Error => Level::ERROR,
            LogLevel::Warn => Level::WARN,
            LogLevel::Info => Level::INFO,
            LogLevel::Debug => Level::DEBUG,
        }
    }
}

impl<S: Subscriber> Filter<S> for Verbosity {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.passes(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.passes(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.level().max(Level::INFO)))
    }
}
