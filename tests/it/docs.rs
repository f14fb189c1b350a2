//! The pages below `docs/` say what is so: their commands run, their flags, messages and metrics
//! are those of the code, their links lead somewhere.
//!
//! Fences marked `sh` are run as they stand, in order, see [`commands`]; `sh service` is one
//! command that goes on until it is ended. In others (`console`, `yaml`) only flags are checked.

mod commands;
mod flags;
mod links;
mod messages;
mod metrics;
mod page;
