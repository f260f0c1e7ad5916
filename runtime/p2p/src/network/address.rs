//! `host:port`, where the host is a name or an IP address, or `ws://host:port`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use pqcnet_crypto::NodeId;
use serde::{Deserialize, Deserializer};

/// Longest host name of the DNS (RFC 1035, section 2.3.4, without the root's dot).
const MAX_HOST: usize = 253;

/// Where a node listens: a host name or IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    host: String,
    port: u16,
    /// Control plane only: the socket carries a WebSocket.
    web_socket: bool,
}

/// What the host of a circuit ends with.
const CIRCUIT: &str = ".circuit";
/// What an address starts with whose socket carries a WebSocket.
const WEB_SOCKET: &str = "ws://";

/// Text that is no `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No colon, or nothing after it.
    #[error("`{0}` has no port; write host:port")]
    NoPort(String),
    /// The port is no number from 0 to 65535.
    #[error("`{0}` is no port")]
    Port(String),
    /// An empty or over-long host, or a character that no host name has.
    #[error("`{0}` is no host name or IP address")]
    Host(String),
}

impl Address {
    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether its socket carries a WebSocket; only the control plane has such.
    pub fn is_web_socket(&self) -> bool {
        self.web_socket
    }

    /// The same, its socket carrying a WebSocket.
    pub fn over_web_socket(mut self) -> Address {
        self.web_socket = true;
        self
    }

    /// The place of a node that is reached through a relay's circuit: the relay's id as a name of the reserved domain `.circuit`,
    /// port 0. Software that does not know such names finds nothing there.
    pub fn through(relay: &NodeId) -> Address {
        Address {
            host: format!("{relay}{CIRCUIT}"),
            port: 0,
            web_socket: false,
        }
    }

    /// The relay through which it leads, if it does.
    pub fn relay(&self) -> Option<NodeId> {
        self.host.strip_suffix(CIRCUIT)?.parse().ok()
    }

    /// The IP address, when the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The socket address, when the host is an IP address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.ip().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for Address {
    fn from(at: SocketAddr) -> Address {
        Address {
            host: at.ip().to_string(),
            port: at.port(),
            web_socket: false,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        if let Some(rest) = text.strip_prefix(WEB_SOCKET) {
            return host_and_port(rest).map(Address::over_web_socket);
        }
        host_and_port(text)
    }
}

fn host_and_port(text: &str) -> Result<Address, AddressError> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
    if port.is_empty() {
        return Err(AddressError::NoPort(text.to_owned()));
    }
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = match port.parse() {
        Ok(number) if digits => number,
        _ => return Err(AddressError::Port(port.to_owned())),
    };
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let ip: Ipv6Addr = inner
            .parse()
            .map_err(|_| AddressError::Host(host.to_owned()))?;
        return Ok(Address {
            host: ip.to_string(),
            port,
            web_socket: false,
        });
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_';
    if host.is_empty() || host.len() > MAX_HOST || !host.bytes().all(plain) {
        return Err(AddressError::Host(host.to_owned()));
    }
    Ok(Address {
        host: host.to_ascii_lowercase(),
        port,
        web_socket: false,
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.web_socket { WEB_SOCKET } else { "" };
        if self.host.contains(':') {
            write!(f, "{scheme}[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}{}:{}", self.host, self.port)
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Address, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, IPv4 and bracketed IPv6 read back as written; what cannot be an address says what is wrong.
    #[test]
    fn reads_and_writes() {
        for text in [
            "127.0.0.1:7000",
            "[::1]:7000",
            "relayer-1.example.org:0",
            "ws://[::1]:7000",
            "ws://relayer-1.example.org:80",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        let relay = NodeId::from_bytes([7; 32]);
        let circuit = Address::through(&relay);
        assert_eq!(
            circuit.to_string(),
            format!("{}.circuit:0", "07".repeat(32))
        );
        assert_eq!(circuit.to_string().parse(), Ok(circuit.clone()));
        assert_eq!(
            (circuit.relay(), circuit.socket_addr()),
            (Some(relay), None)
        );
        assert_eq!("x.circuit:0".parse::<Address>().unwrap().relay(), None);
        let socket: SocketAddr = "[::1]:9".parse().unwrap();
        assert_eq!(Address::from(socket).socket_addr(), Some(socket));
        let parse = |text: &str| text.parse::<Address>().unwrap_err();
        assert_eq!(parse("localhost"), AddressError::NoPort("localhost".into()));
        assert_eq!(parse("ws://"), AddressError::NoPort(String::new()));
        assert_eq!(parse("wss://a:1"), AddressError::Host("wss://a".into()));
        assert_eq!(
            parse("localhost:"),
            AddressError::NoPort("localhost:".into())
        );
        assert_eq!(parse("a:70000"), AddressError::Port("70000".into()));
        assert_eq!(parse("a:+7"), AddressError::Port("+7".into()));
        assert_eq!(parse(":7"), AddressError::Host(String::new()));
        assert_eq!(parse("a b:7"), AddressError::Host("a b".into()));
        assert_eq!(parse("[::g]:7"), AddressError::Host("[::g]".into()));
    }
}
