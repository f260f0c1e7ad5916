//! TCP sockets, plain or meant for a WebSocket.
//!
//! A multiaddress says which: `/ip4/…/tcp/…` or the same with `/ws`. Both are the same TCP here. The WebSocket's own
//! handshake comes in the upgrade, after the flood guard has given the stranger a place and within its deadline, which
//! libp2p's WebSocket transport would do before.

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::{Ready, ready};
use libp2p::Transport;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::tcp;

use super::reach::is_circuit;
use crate::reserve;

/// See the module.
pub(super) struct Carrier {
    tcp: tcp::tokio::Transport,
    /// Listeners for WebSockets.
    web: HashSet<ListenerId>,
}

impl Carrier {
    pub(super) fn new() -> Carrier {
        Carrier {
            tcp: tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)),
            web: HashSet::new(),
        }
    }

    fn mark(&self, listener: ListenerId, address: Multiaddr) -> Multiaddr {
        if self.web.contains(&listener) {
            address.with(ws())
        } else {
            address
        }
    }
}

pub(super) fn ws() -> Protocol<'static> {
    Protocol::Ws("/".into())
}

/// Whether a socket of this address carries a WebSocket.
pub(super) fn is_web(address: &Multiaddr) -> bool {
    // Over the socket to a relay, that is the relay's business.
    !is_circuit(address) && address.iter().any(|part| matches!(part, Protocol::Ws(_)))
}

/// The address without its `/ws`.
fn plain(address: &Multiaddr) -> Multiaddr {
    let parts = address.iter();
    parts
        .filter(|part| !matches!(part, Protocol::Ws(_)))
        .collect()
}

/// A socket that came in, unless it took one of the last descriptors.
fn spared(
    arrived: Ready<io::Result<tcp::tokio::TcpStream>>,
) -> Ready<io::Result<tcp::tokio::TcpStream>> {
    let socket = arrived.into_inner();
    ready(socket.and_then(|socket| {
        if reserve::took_the_last(&socket.0) {
            return Err(reserve::refused());
        }
        Ok(socket)
    }))
}

impl Transport for Carrier {
    type Output = tcp::tokio::TcpStream;
    type Error = io::Error;
    type ListenerUpgrade = <tcp::tokio::Transport as Transport>::ListenerUpgrade;
    type Dial = <tcp::tokio::Transport as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        at: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.tcp.listen_on(id, plain(&at))?;
        if is_web(&at) {
            self.web.insert(id);
        }
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.tcp.remove_listener(id)
    }

    fn dial(
        &mut self,
        to: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        self.tcp.dial(plain(&to), options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.tcp).poll(cx).map(|event| match event {
            TransportEvent::NewAddress {
                listener_id,
                listen_addr,
            } => TransportEvent::NewAddress {
                listen_addr: self.mark(listener_id, listen_addr),
                listener_id,
            },
            TransportEvent::AddressExpired {
                listener_id,
                listen_addr,
            } => TransportEvent::AddressExpired {
                listen_addr: self.mark(listener_id, listen_addr),
                listener_id,
            },
            TransportEvent::Incoming {
                listener_id,
                upgrade,
                local_addr,
                send_back_addr,
            } => TransportEvent::Incoming {
                local_addr: self.mark(listener_id, local_addr),
                send_back_addr: self.mark(listener_id, send_back_addr),
                listener_id,
                upgrade: spared(upgrade),
            },
            TransportEvent::ListenerClosed {
                listener_id,
                reason,
            } => {
                self.web.remove(&listener_id);
                TransportEvent::ListenerClosed {
                    listener_id,
                    reason,
                }
            }
            error @ TransportEvent::ListenerError { .. } => error,
        })
    }
}
