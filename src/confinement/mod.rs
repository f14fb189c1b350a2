//! What the kernel keeps the process from once it runs: whoever takes it over finds little to use.
//!
//! [`Grants`] says what is needed; it is filled from flags and configuration before any thread is
//! started, because Landlock confines the calling thread and those that it starts. `domain` makes
//! Landlock rules of it (files, programs, listening ports, signals), `calls` a seccomp filter
//! (`lists`: the system calls that we and our libraries make). `system` is what every process
//! needs of the host: resolver, CA roots, `/proc`. Each is as much as the kernel has; what is in
//! force is told, and what is not there does not keep anything from starting.

mod calls;
mod domain;
mod grants;
mod lists;
mod system;

#[cfg(test)]
mod tests;

pub use calls::Seccomp;
pub use domain::Landlock;
pub use grants::{Absent, Grants};
pub use system::hides_processes;

/// Why a part of the confinement is not in force.
#[derive(Debug, thiserror::Error)]
pub enum ConfinementError {
    /// The kernel was built without Landlock, or a sandbox around us hides it.
    #[error("this kernel has no Landlock")]
    NoLandlock,
    /// It has Landlock, switched off.
    #[error("Landlock is switched off (kernel parameter lsm=)")]
    LandlockOff,
    /// They would keep from its work what must do it.
    #[error("no Landlock rules, as {0}")]
    LeftOut(&'static str),
    /// The kernel refuses the rules.
    #[error("Landlock")]
    Landlock(#[from] ::landlock::RulesetError),
    /// There is no filter for this processor.
    #[error("there is no seccomp filter for this processor")]
    Architecture,
    /// The filter can't be made.
    #[error("seccomp filter")]
    Filter(#[from] seccompiler::BackendError),
    /// The kernel refuses the filter.
    #[error("seccomp")]
    Seccomp(#[from] seccompiler::Error),
}

/// What is in force.
#[derive(Debug)]
pub struct Confined {
    /// Files, programs, ports, signals.
    pub landlock: Result<Landlock, ConfinementError>,
    /// System calls.
    pub seccomp: Result<Seccomp, ConfinementError>,
}

/// Confines the calling thread, and with it all that it starts from now on, for good. To be called
/// while there is no other thread. What can't be had is left out and told.
pub fn confine(grants: &Grants) -> Confined {
    Confined {
        landlock: domain::enforce(grants, domain::NEWEST),
        // Last: its filter does not let more rules be made.
        seccomp: calls::enforce(grants),
    }
}

// === impl ConfinementError ===

impl ConfinementError {
    /// Whether it is no fault: the kernel just does not have it.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::NoLandlock | Self::LandlockOff | Self::LeftOut(_) | Self::Architecture => true,
            Self::Landlock(_) | Self::Filter(_) | Self::Seccomp(_) => false,
        }
    }
}
