//! Names that both ends of a link share: services, roles, classes.

use std::fmt;
use std::str::FromStr;

use pqcnet_protos::link::v1 as pb;

/// A service's number on the wire (`Service` in `link.proto`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

impl ServiceId {
    /// A client and its sentry.
    pub const EDGE: ServiceId = ServiceId(pb::Service::Edge as u32);
    /// A sentry and a relayer.
    pub const RELAY: ServiceId = ServiceId(pb::Service::Relay as u32);
    /// Any two nodes of the control plane, and operators.
    pub const CONTROL: ServiceId = ServiceId(pb::Service::Control as u32);
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ServiceId::EDGE => f.write_str("edge"),
            ServiceId::RELAY => f.write_str("relay"),
            ServiceId::CONTROL => f.write_str("control"),
            ServiceId(other) => write!(f, "service {other}"),
        }
    }
}

/// What a node is in the network; its number is `Role` in `link.proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Role {
    /// Takes clients in.
    Sentry = 1,
    /// Stores and delivers channels.
    Relayer = 2,
    /// Orders anchors.
    Validator = 3,
    /// Watches the others.
    Watcher = 4,
    /// Serves wallets and ordinary HTTP clients.
    Gateway = 5,
    /// Publishes and subscribes.
    Client = 6,
    /// A person's tool.
    Operator = 7,
}

impl Role {
    /// Every role, by number.
    pub const ALL: [Role; 7] = [
        Role::Sentry,
        Role::Relayer,
        Role::Validator,
        Role::Watcher,
        Role::Gateway,
        Role::Client,
        Role::Operator,
    ];

    /// The name in configuration files and logs.
    pub fn name(self) -> &'static str {
        match self {
            Role::Sentry => "sentry",
            Role::Relayer => "relayer",
            Role::Validator => "validator",
            Role::Watcher => "watcher",
            Role::Gateway => "gateway",
            Role::Client => "client",
            Role::Operator => "operator",
        }
    }

    /// The number on the wire.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The role with this number.
    pub fn from_number(number: i32) -> Option<Role> {
        Role::ALL
            .into_iter()
            .find(|role| i32::from(role.number()) == number)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no role; the roles are sentry, relayer, validator, watcher, gateway, client, operator"
)]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Role, UnknownRole> {
        Role::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// Mailbox class of a message. Order is kept per (link, service, class); a lower class overtakes a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Small and rare; sent first.
    Control = 1,
    /// Everything on an acknowledged path.
    Request = 2,
    /// What may be dropped.
    Bulk = 3,
}

impl Class {
    /// Every class, most urgent first.
    pub const ALL: [Class; 3] = [Class::Control, Class::Request, Class::Bulk];

    pub(crate) fn from_number(number: i32) -> Option<Class> {
        Class::ALL.into_iter().find(|class| *class as i32 == number)
    }

    pub(crate) fn index(self) -> usize {
        self as usize - 1
    }
}

/// The trace a message belongs to; carried, never interpreted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The whole trace.
    pub trace_id: u128,
    /// The sender's span.
    pub span_id: u64,
    /// Whether it is recorded.
    pub sampled: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are the wire contract: a change here breaks every running node.
    #[test]
    fn numbers_are_pinned() {
        assert_eq!(ServiceId::EDGE, ServiceId(1));
        assert_eq!(ServiceId::RELAY, ServiceId(2));
        assert_eq!(ServiceId::CONTROL, ServiceId(3));
        let roles: Vec<(u8, &str)> = Role::ALL.map(|r| (r.number(), r.name())).to_vec();
        assert_eq!(
            roles,
            [
                (1, "sentry"),
                (2, "relayer"),
                (3, "validator"),
                (4, "watcher"),
                (5, "gateway"),
                (6, "client"),
                (7, "operator")
            ]
        );
        for role in Role::ALL {
            let proto = pb::Role::try_from(i32::from(role.number())).unwrap();
            assert_eq!(
                proto.as_str_name(),
                format!("ROLE_{}", role.name().to_uppercase())
            );
        }
        assert_eq!(Class::ALL.map(|c| c as u8), [1, 2, 3]);
    }

    /// A role's word reads back; any other word names the ones there are.
    #[test]
    fn roles_parse() {
        for role in Role::ALL {
            assert_eq!(role.name().parse::<Role>(), Ok(role));
        }
        let error = "sentri".parse::<Role>().unwrap_err();
        assert_eq!(error, UnknownRole("sentri".into()));
        assert_eq!(Role::from_number(0), None);
        assert_eq!(Role::from_number(8), None);
    }
}
