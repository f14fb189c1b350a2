//! How the process is confined, as it is shown.

/// What of its own confinement is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfinementStatus {
    /// The version of the Landlock rules; 0 where there are none.
    pub landlock_abi: u8,
    /// Which system calls are left: `listed` (those that are made), `not-dangerous` (all but
    /// dangerous ones, as other programs are run), or `all`.
    pub calls: &'static str,
    /// Why there is less than there could be.
    pub reason: Option<String>,
}
