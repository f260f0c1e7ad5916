//! What `pqcnet doctor` can find, by name, with the remedy. Each has its section in docs/runbooks/doctor.md.

/// Declares the codes once: variant, name, remedy.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $name:literal, $fix:literal;)*) => {
        /// What can be wrong with a node's surroundings.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$doc])* $code,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$code,)*];

            /// Its name, in kebab case.
            pub fn name(self) -> &'static str {
                match self { $(Code::$code => $name,)* }
            }

            /// What mends it, in a line.
            pub fn remedy(self) -> &'static str {
                match self { $(Code::$code => $fix,)* }
            }
        }
    };
}

codes! {
    /// There is no configuration file there, or it cannot be read.
    ConfigMissing = "config-missing", "name the file, or write one with `pqcnet config init`";
    /// The file is not TOML.
    ConfigSyntax = "config-syntax", "correct the line named";
    /// A key that no node knows.
    ConfigUnknownKey = "config-unknown-key", "correct or remove the key; `pqcnet config init --out -` lists all";
    /// A value of another type.
    ConfigWrongType = "config-wrong-type", "write the value as its type asks";
    /// A value out of range.
    ConfigBadValue = "config-bad-value", "choose a value within the bounds named";
    /// A value that would expose or confuse the node.
    ConfigUnsafe = "config-unsafe", "follow the instruction in the message, or confirm the exposure";
    /// There is no key file.
    KeysMissing = "keys-missing", "restore the key file, or make keys with `pqcnet keys init`";
    /// Others may read the key file or what opens it.
    KeysOpen = "keys-open", "chmod 600 the file; if others use this machine, treat the keys as stolen";
    /// The key file belongs to another user.
    KeysForeign = "keys-foreign-owner", "run as the file's owner, or chown the file";
    /// The key file is damaged or none.
    KeysDamaged = "keys-damaged", "restore the key file from its backup";
    /// The file holds other keys than a node's.
    KeysWrongKind = "keys-wrong-kind", "point `keys` at the node's own key file";
    /// What opens the key file is not there.
    UnlockMissing = "unlock-missing", "restore the unlock file, or set unlock.key_file or unlock.passphrase_file";
    /// What opens the key file does not fit.
    UnlockWrong = "unlock-wrong", "use the passphrase or unlock file that the keys were made with";
    /// There is no network file.
    NetworkMissing = "network-missing", "copy network.toml from another node, or correct `network`";
    /// The network file cannot be parsed.
    NetworkSyntax = "network-syntax", "correct the line named, or copy the file again from another node";
    /// The network file's contents do not hash to its id.
    NetworkEdited = "network-edited", "copy the file again from another node; only addresses may differ";
    /// The network file contradicts itself.
    NetworkInvalid = "network-invalid", "correct the entry named, on every node alike";
    /// The network file does not list this node.
    IdentityUnlisted = "identity-unlisted", "use the keys that the network lists, or have this id added to network.toml everywhere";
    /// The network file lists this node with another role.
    RoleNotGranted = "role-not-granted", "start the binary of the granted role, or change roles in network.toml everywhere";
    /// The node listens elsewhere than the network file tells others.
    AddressDiffers = "address-differs", "make listen.control and listen.data agree with this node's addresses in network.toml";
    /// The machine's clock is wrong.
    ClockWrong = "clock-wrong", "set the clock and let NTP keep it: grants and directives carry times";
    /// The machine's primitives give wrong answers.
    SelfTestFailed = "self-test-failed", "do not run a node on this machine or with this build";
    /// Less disk is free than is prudent.
    DiskLow = "disk-low", "free space on the store's disk, or set store.path elsewhere";
    /// Nothing can be written where the store is to be.
    StoreUnwritable = "store-unwritable", "make store.path a folder that the node's user may write, on a writable disk";
    /// The store's folder holds something else.
    StoreForeign = "store-foreign", "set store.path to an empty folder or to this relayer's store";
    /// A newer program wrote the store.
    StoreNewer = "store-newer", "start the newer program, or restore a backup made by this one";
    /// Another process holds the store.
    StoreLocked = "store-locked", "stop that process, or give each relayer a store.path of its own";
    /// The store is damaged.
    StoreDamaged = "store-damaged", "run `pqcnet db check`, then restore a backup";
    /// The process may open too few files.
    DescriptorsLow = "descriptors-low", "raise the limit: LimitNOFILE in the unit, or ulimit -n";
    /// Somebody else listens at an address of the node.
    PortTaken = "port-taken", "stop the process named, or choose another port";
    /// Two listeners of the node have one address.
    PortClash = "port-clash", "give listen.control, listen.data and admin.listen a port each";
    /// An address to listen at that is none of the machine's.
    AddressNotLocal = "address-not-local", "listen at an address of this machine (`ip address`), or at 0.0.0.0 or [::]";
    /// A port that takes privileges to listen at.
    PortForbidden = "port-forbidden", "choose a port above 1023, or grant CAP_NET_BIND_SERVICE";
    /// The network file has no address for a peer that this node has to dial.
    PeerNoAddress = "peer-no-address", "add the peer's addresses to network.toml";
    /// Nobody listens at a peer's address, or the way there is blocked.
    PeerUnreachable = "peer-unreachable", "start the peer, or mend its address, route or firewall";
    /// Somebody listens at a peer's address and does not answer a handshake.
    PeerMute = "peer-mute", "look at the peer's load and log; a middlebox that takes connections looks the same";
    /// What answers at a peer's address speaks another protocol.
    PeerNotPqcnet = "peer-not-pqcnet", "correct the address: another service listens there";
    /// The peer is in another network.
    PeerOtherNetwork = "peer-other-network", "give both nodes the same network.toml";
    /// Another node than the one listed answers.
    PeerOtherIdentity = "peer-other-identity", "correct the addresses in network.toml, or the keys of the node that answers";
    /// The peer's software is too far from this one's.
    PeerOtherVersion = "peer-other-version", "upgrade the older of the two";
    /// The peer refuses the handshake for another reason.
    PeerRefuses = "peer-refuses", "read the reason and the peer's log";
    /// A neighbour's control address cannot be connected to.
    PeerControlUnreachable = "peer-control-unreachable", "mend the control address in network.toml, or the firewall for that port";
}

/// The page that has a section for each code, from the root of the source tree.
pub const RUNBOOK: &str = "docs/runbooks/doctor.md";

impl Code {
    /// The remedy, with where to read on.
    pub fn fix(self) -> String {
        format!("{}; {RUNBOOK}#{}", self.remedy(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Scenario: each code has a name of its own and a section in the runbook.
    #[test]
    fn every_code_has_a_section() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        let page = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(RUNBOOK);
        let page = std::fs::read_to_string(page).unwrap();
        for name in names {
            assert!(
                page.contains(&format!("\n## {name}\n")),
                "no section `{name}`"
            );
        }
    }
}
