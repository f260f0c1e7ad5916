//! Typed links over any ordered byte stream: the async driver of [`pqcnet_link::Link`].
//!
//! ```text
//!  Ref<M> ── RemoteCarrier ─┐                                              ┌─ Handler<M> ── Ref<M> of a local actor
//!  LinkHandle ──────────────┤  Shared: Mutex<Link>  ◀── Driver (one task) ─┤
//!  (encode in the caller)   └──────────────────────     read, dispatch,    └─ replies
//!                                                       write until flush
//! ```
//!
//! One task drives a link, whatever goes through it: no task a frame, none a message. Callers encode into the link's
//! buffer themselves and wake the task; it writes until nothing is left, then flushes. What arrives goes straight into
//! mailboxes; a tell that finds one full waits in its lane, whose length the granted credit bounds, and its credit goes back
//! only once it is in the mailbox: so a slow consumer makes the far sender's `tell` wait.
//!
//! Works on a multi-thread tokio and on a current-thread one, under real and paused time: clock, sleep and spawn are `Env`'s.
//! The link lives as long as a [`LinkHandle`] or a remote [`pqcnet_actor::Ref`] of it; the last one dropped closes it in order.
//! Spec: docs/spec/link.md.

mod access;
mod bindings;
mod driver;
mod events;
mod inbox;
mod places;
mod reliable;
mod remote;
mod shared;

#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use pqcnet_actor::Env;
use pqcnet_crypto::NodeId;
use pqcnet_link::{
    DownReason, Event, Fault, Link, LinkConfig, PeerHello, Reason, Role, ServiceId, Stage,
};

pub use access::{Access, Denied, Pass};
pub use bindings::Bindings;
pub use events::{EventSource, EventsEnded, Notice, Subscription};
pub use inbox::ReliableInbox;
pub use places::{NoPlace, Place, Places};
pub use reliable::{Lost, Reliable};
pub use shared::{LinkHandle, LinkStats};

use driver::{Driver, READ_CHUNK, WRITE_CHUNK};
use shared::Shared;

/// How long the last frame may take to leave, and how long the other side has to hang up after it.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// What a link runs on: an ordered, private, authenticated byte stream.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Io for S {}

/// Who is at the other end: the channel proved the node id, the check given to [`establish`] passed the role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its node id.
    pub node_id: NodeId,
    /// Its role.
    pub role: Role,
    /// Name and version of its software, as it says.
    pub software: String,
    /// Services it serves on this link, ascending.
    pub services: Vec<ServiceId>,
}

/// The network does not grant the peer the role it claims, or not on this link; the words travel to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct RoleRefused {
    /// What the peer is told, in at most 256 bytes.
    pub detail: String,
}

impl RoleRefused {
    /// A refusal in these words.
    pub fn new(detail: impl Into<String>) -> RoleRefused {
        RoleRefused {
            detail: detail.into(),
        }
    }
}

/// A link that did not come up; `reason` says at which stage, why, and who erred.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("link to {}: {reason}", peer.short())]
pub struct LinkError {
    /// The node at the other end.
    pub peer: NodeId,
    /// Why.
    pub reason: DownReason,
}

/// Exchanges Hello and Ready over `io`, on which `peer` has already been authenticated. `check` decides whether the peer
/// may have the role it claims. Returns once *both* sides have accepted, so a refusal is known on both.
///
/// # Errors
/// The stage, the reason and who erred.
pub async fn establish<S>(
    env: &Env,
    io: S,
    peer: NodeId,
    config: LinkConfig,
    check: impl Fn(NodeId, &PeerHello) -> Result<(), RoleRefused>,
) -> Result<Accepted, LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut io: Box<dyn Io> = Box::new(io);
    let mut link = Link::new(config, env.now());
    let timeout = link.config().limits.hello_timeout;
    let outcome = {
        let greeting = greet(env, &mut io, peer, &mut link, check);
        or_sleep(env, timeout, greeting).await
    };
    let reason = match outcome {
        Some(Ok(hello)) => {
            let peer = PeerInfo {
                node_id: peer,
                role: hello.role,
                software: hello.software,
                services: hello.services,
            };
            let shared = Shared::new(env.clone(), link, peer.clone(), hello.ask_window);
            let handle = LinkHandle::new(Arc::clone(&shared));
            return Ok(Accepted {
                peer,
                handle,
                shared,
                io,
            });
        }
        Some(Err(reason)) => reason,
        None => {
            link.fail(Fault::HelloTimeout);
            ending(&mut link)
        }
    };
    or_sleep(env, LINGER, part(env, &mut io, &mut link)).await;
    Err(LinkError { peer, reason })
}

/// Refuses a link before anything is heard on it: a Hello and a Down with this reason go out, and the other side has a
/// moment to read them.
pub async fn turn_away<S>(env: &Env, io: S, config: LinkConfig, reason: Reason, detail: &str)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut io: Box<dyn Io> = Box::new(io);
    let mut link = Link::new(config, env.now());
    link.reject(reason, detail);
    or_sleep(env, LINGER, part(env, &mut io, &mut link)).await;
}

/// Why a link that is down went down.
fn ending(link: &mut Link) -> DownReason {
    while let Some(event) = link.poll_event() {
        if let Event::Down(reason) = event {
            return reason;
        }
    }
    // Not reached by a link that is down: its last event says why.
    DownReason::Lost {
        stage: Stage::Hello,
        kind: io::ErrorKind::TimedOut,
    }
}

async fn greet(
    env: &Env,
    io: &mut Box<dyn Io>,
    peer: NodeId,
    link: &mut Link,
    check: impl Fn(NodeId, &PeerHello) -> Result<(), RoleRefused>,
) -> Result<PeerHello, DownReason> {
    let mut chunk = vec![0; READ_CHUNK];
    loop {
        while let Some(event) = link.poll_event() {
            match event {
                Event::Hello(hello) => match check(peer, &hello) {
                    Ok(()) => link.accept(),
                    Err(refused) => link.reject(Reason::Role, &refused.detail),
                },
                Event::Open => {
                    transmit(env, io, link).await?;
                    if let Some(hello) = link.peer() {
                        return Ok(hello.clone());
                    }
                }
                Event::Down(reason) => return Err(reason),
                // Before Open the link reports nothing else.
                Event::Tell(_)
                | Event::Ask { .. }
                | Event::Cancelled { .. }
                | Event::Answer { .. }
                | Event::AskUnits(_)
                | Event::Credit { .. }
                | Event::Subscribe { .. }
                | Event::Unsubscribed { .. }
                | Event::Notice { .. }
                | Event::Watch { .. }
                | Event::Unwatched { .. }
                | Event::Fate { .. }
                | Event::Sequenced { .. }
                | Event::Ack { .. }
                | Event::Dropped { .. } => {}
            }
        }
        transmit(env, io, link).await?;
        if link.is_down() {
            continue;
        }
        match io.read(&mut chunk).await {
            Ok(0) => link.on_lost(io::ErrorKind::UnexpectedEof),
            Ok(n) => link.on_bytes(env.now(), &chunk[..n]),
            Err(error) => link.on_lost(error.kind()),
        }
    }
}

async fn transmit(env: &Env, io: &mut Box<dyn Io>, link: &mut Link) -> Result<(), DownReason> {
    let mut failed = None;
    while let Some(bytes) = link.poll_transmit(env.now(), WRITE_CHUNK) {
        if let Err(error) = io.write_all(&bytes).await {
            failed = Some(error);
            break;
        }
    }
    if failed.is_none() {
        failed = io.flush().await.err();
    }
    match failed {
        // A peer that refused us may have hung up already, and its Down still be readable: that says more.
        Some(error) if !link.is_down() => {
            let stage = link.stage();
            let kind = error.kind();
            Err(last_words(env, io, link)
                .await
                .unwrap_or(DownReason::Lost { stage, kind }))
        }
        _ => Ok(()),
    }
}

async fn last_words(env: &Env, io: &mut Box<dyn Io>, link: &mut Link) -> Option<DownReason> {
    let mut chunk = vec![0; READ_CHUNK];
    while let Ok(n @ 1..) = io.read(&mut chunk).await {
        link.on_bytes(env.now(), &chunk[..n]);
        if link.is_down() {
            return Some(ending(link));
        }
    }
    None
}

/// Sends what is left (a Down), closes, and waits for the other side to hang up: closing with unread bytes would make TCP
/// throw the Down away.
async fn part(env: &Env, io: &mut Box<dyn Io>, link: &mut Link) {
    while let Some(bytes) = link.poll_transmit(env.now(), WRITE_CHUNK) {
        if io.write_all(&bytes).await.is_err() {
            return;
        }
    }
    if io.close().await.is_err() {
        return;
    }
    let mut chunk = vec![0; READ_CHUNK];
    while let Ok(1..) = io.read(&mut chunk).await {}
}

/// The future's output, unless the time is over first.
async fn or_sleep<F: Future>(env: &Env, time: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut sleep = pin!(env.sleep(time));
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        sleep.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// A link whose ends have accepted each other. Nothing more is read or sent until [`Accepted::start`].
pub struct Accepted {
    /// Who is at the other end.
    pub peer: PeerInfo,
    handle: LinkHandle,
    shared: Arc<Shared>,
    io: Box<dyn Io>,
}

impl std::fmt::Debug for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accepted")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Accepted {
    /// The handle, to make refs of before dispatch begins; what they send leaves after [`Accepted::start`].
    pub fn handle(&self) -> &LinkHandle {
        &self.handle
    }

    /// Keeps a place until the link is down.
    pub fn hold(&self, place: Place) {
        self.shared.hold(place);
    }

    /// Begins to serve what is bound, in a task of its own.
    pub fn start(self, bindings: Bindings) -> LinkHandle {
        let Accepted {
            handle,
            shared,
            io,
            peer: _,
        } = self;
        let env = shared.env().clone();
        env.spawn(Driver::new(io, shared, bindings));
        handle
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The link's task was dropped, with the runtime most likely.
pub(crate) const DROPPED: DownReason = DownReason::Lost {
    stage: Stage::Open,
    kind: io::ErrorKind::Interrupted,
};
