//! The Landlock rules of [`Grants`].

use ::landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope, path_beneath_rules,
};

use super::{ConfinementError, Grants};

/// The newest version whose rules are used: what later ones may deny is not known to be right. The
/// seventh adds only to the audit log; the eighth confines all threads at once, and there is one.
pub(super) const NEWEST: ABI = ABI::V6;

/// Rules in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landlock {
    /// The version of the rules: the kernel's, as far as we know its rules. 1 has files; links and
    /// renames across directories are denied wholly then, which the shipper gets around by
    /// holding files open. From 2 on they are as granted; 3 has truncation, 4 ports, 5 device
    /// ioctls, 6 signals and abstract sockets.
    pub abi: u8,
}

impl Landlock {
    /// Whether these are all rules that are known here.
    pub fn is_complete(self) -> bool {
        self.abi == number(NEWEST)
    }
}

/// Confines the calling thread to files, ports and signals. `newest`: rules that the kernel has
/// and that are newer are left out.
pub(super) fn enforce(grants: &Grants, newest: ABI) -> Result<Landlock, ConfinementError> {
    if let Some(reason) = grants.without_rules {
        return Err(ConfinementError::LeftOut(reason));
    }
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = reading
        | AccessFs::WriteFile
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
        | AccessFs::Truncate;
    let handled = AccessFs::from_all(newest);
    let ruleset = Ruleset::default().handle_access(handled)?;
    let ruleset = handle_ports(ruleset, grants, newest)?;
    let ruleset = handle_scopes(ruleset, grants, newest)?.create()?;
    let ports = grants.listen.as_deref().filter(|_| has_ports(newest));
    let ports = ports.unwrap_or_default().iter().copied();
    let port = |port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::BindTcp));
    let status = ruleset
        .add_rules(path_beneath_rules(&grants.read, reading & handled))?
        .add_rules(path_beneath_rules(&grants.write, writing & handled))?
        .add_rules(ports.map(port))?
        .restrict_self()?;
    match status.landlock {
        LandlockStatus::NotImplemented => Err(ConfinementError::NoLandlock),
        LandlockStatus::NotEnabled => Err(ConfinementError::LandlockOff),
        LandlockStatus::Available { effective_abi, .. } => Ok(Landlock {
            abi: number(effective_abi.min(newest)),
        }),
    }
}

/// Only listening: where Prometheus, buckets and collectors are is anybody's choice, and may change
/// by DNS, proxy or redirect.
fn handle_ports(
    ruleset: Ruleset,
    grants: &Grants,
    newest: ABI,
) -> Result<Ruleset, ConfinementError> {
    match grants.listen {
        Some(_) if has_ports(newest) => Ok(ruleset.handle_access(AccessNet::BindTcp)?),
        _ => Ok(ruleset),
    }
}

fn has_ports(newest: ABI) -> bool {
    AccessNet::from_all(newest).contains(AccessNet::BindTcp)
}

fn handle_scopes(
    ruleset: Ruleset,
    grants: &Grants,
    newest: ABI,
) -> Result<Ruleset, ConfinementError> {
    let mut scopes: BitFlags<Scope> = Scope::from_all(newest);
    if grants.signals {
        scopes.remove(Scope::Signal);
    }
    match scopes.is_empty() {
        true => Ok(ruleset),
        false => Ok(ruleset.scope(scopes)?),
    }
}

fn number(abi: ABI) -> u8 {
    match abi {
        ABI::Unsupported => 0,
        ABI::V1 => 1,
        ABI::V2 => 2,
        ABI::V3 => 3,
        ABI::V4 => 4,
        ABI::V5 => 5,
        // The newest one used; a newer one never gets here.
        _ => 6,
    }
}
