//! Real actors at both ends of a real driver, over tokio's in-memory stream; virtual time where nothing blocks.

mod access;
mod closing;
mod errors;
mod events;
mod flow;
#[cfg(feature = "libp2p")]
mod planes;
mod pressure;
mod reliable;
mod slow;
mod watching;

use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::{
    AskError, Behaviour, Bounds, Cx, Env, Message, On, Promise, Ref, Reply, Running, Spec,
    Strategy, TraceCx, Tree, simulate,
};
use pqcnet_crypto::NodeId;
use pqcnet_link::{Addressed, LinkConfig, Role, ServiceId, Wire, WireError};
use tokio::io::DuplexStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn node(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 32])
}

fn config(role: Role) -> LinkConfig {
    LinkConfig::new(role, [ServiceId::CONTROL])
}

/// A message of one text, for these tests: `$reply` comes back.
macro_rules! text_message {
    ($name:ident = $id:literal, $class:ident => $reply:ty) => {
        #[derive(Clone, Debug, PartialEq)]
        struct $name(String);

        impl Message for $name {
            type Reply = $reply;
            const NAME: &'static str = concat!("test.", stringify!($name));
            const CLASS: pqcnet_actor::Class = pqcnet_actor::Class::$class;
        }

        impl Wire for $name {
            fn to_wire(&self) -> Bytes {
                self.0.clone().into()
            }

            fn from_wire(bytes: Bytes) -> Result<Self, WireError> {
                let text = String::from_utf8(bytes.to_vec());
                text.map($name).map_err(|_| WireError::Malformed)
            }
        }

        impl Addressed for $name {
            const SERVICE: ServiceId = ServiceId::CONTROL;
            const TYPE: u32 = $id;
        }
    };
}

text_message!(Text = 900, Request => ());
text_message!(Note = 901, Request => ());
text_message!(Echo = 902, Request => Text);
text_message!(Notes = 903, Request => Text);
text_message!(Hold = 904, Request => Text);
text_message!(Explode = 905, Request => Text);
text_message!(Forget = 906, Request => Text);
text_message!(Block = 907, Request => ());
text_message!(Trace = 908, Request => Text);
text_message!(Unbound = 909, Request => Text);
text_message!(Chatter = 910, Bulk => ());
text_message!(News = 911, Request => ());

/// Remembers notes, echoes, holds asks back, panics on demand, and can be made to block its thread.
struct Scribe {
    notes: Vec<String>,
    held: Vec<Promise<Hold>>,
    gate: Option<mpsc::Receiver<()>>,
}

impl Scribe {
    fn new() -> Scribe {
        Scribe {
            notes: Vec::new(),
            held: Vec::new(),
            gate: None,
        }
    }
}

impl Behaviour for Scribe {
    const NAME: &'static str = "Scribe";
}

impl On<Note> for Scribe {
    fn on(&mut self, note: Note, _: &mut Cx<Self>) -> Reply<Note> {
        self.notes.push(note.0);
        Reply::Now(())
    }
}

impl On<Chatter> for Scribe {
    fn on(&mut self, _: Chatter, _: &mut Cx<Self>) -> Reply<Chatter> {
        Reply::Now(())
    }
}

impl On<Block> for Scribe {
    fn on(&mut self, _: Block, _: &mut Cx<Self>) -> Reply<Block> {
        if let Some(gate) = self.gate.take() {
            gate.recv().unwrap();
        }
        Reply::Now(())
    }
}

impl On<Echo> for Scribe {
    fn on(&mut self, echo: Echo, _: &mut Cx<Self>) -> Reply<Echo> {
        Reply::Now(Text(echo.0))
    }
}

impl On<Notes> for Scribe {
    fn on(&mut self, _: Notes, _: &mut Cx<Self>) -> Reply<Notes> {
        Reply::Now(Text(self.notes.join(" ")))
    }
}

/// "after 50": answers in 50 ms; "count": how many held asks are still wanted; else never.
impl On<Hold> for Scribe {
    fn on(&mut self, hold: Hold, cx: &mut Cx<Self>) -> Reply<Hold> {
        if hold.0 == "count" {
            let wanted = self.held.iter().filter(|held| held.is_wanted()).count();
            return Reply::Now(Text(wanted.to_string()));
        }
        let (promise, reply) = Reply::later();
        if let Some(ms) = hold.0.strip_prefix("after ") {
            let wait = Duration::from_millis(ms.parse().unwrap());
            let mut promise = Some(promise);
            cx.after(wait, move |_, _| {
                promise.take().unwrap().fulfil(Text("at last".into()));
            });
        } else {
            self.held.push(promise);
        }
        reply
    }
}

impl On<Explode> for Scribe {
    fn on(&mut self, _: Explode, _: &mut Cx<Self>) -> Reply<Explode> {
        panic!("as asked")
    }
}

impl On<Forget> for Scribe {
    fn on(&mut self, _: Forget, _: &mut Cx<Self>) -> Reply<Forget> {
        let (promise, reply) = Reply::later();
        drop(promise);
        reply
    }
}

impl On<Trace> for Scribe {
    fn on(&mut self, _: Trace, _: &mut Cx<Self>) -> Reply<Trace> {
        Reply::Now(Text(format!("{:x}", TraceCx::current().trace_id)))
    }
}

/// Refs of one scribe, near or far.
#[derive(Clone)]
struct Refs {
    note: Ref<Note>,
    echo: Ref<Echo>,
    notes: Ref<Notes>,
    hold: Ref<Hold>,
    explode: Ref<Explode>,
    forget: Ref<Forget>,
    trace: Ref<Trace>,
}

fn bind(addr: &pqcnet_actor::Addr<Scribe>) -> Bindings {
    Bindings::new()
        .serve::<Note>(addr.of())
        .serve::<Chatter>(addr.of())
        .serve::<Block>(addr.of())
        .serve::<Echo>(addr.of())
        .serve::<Notes>(addr.of())
        .serve::<Hold>(addr.of())
        .serve::<Explode>(addr.of())
        .serve::<Forget>(addr.of())
        .serve::<Trace>(addr.of())
}

fn near(addr: &pqcnet_actor::Addr<Scribe>) -> Refs {
    Refs {
        note: addr.of(),
        echo: addr.of(),
        notes: addr.of(),
        hold: addr.of(),
        explode: addr.of(),
        forget: addr.of(),
        trace: addr.of(),
    }
}

fn far(handle: &LinkHandle) -> Refs {
    Refs {
        note: handle.remote(),
        echo: handle.remote(),
        notes: handle.remote(),
        hold: handle.remote(),
        explode: handle.remote(),
        forget: handle.remote(),
        trace: handle.remote(),
    }
}

/// A scribe that runs in `env`, with a mailbox of this many.
fn scribe(env: &Env, bound: u32) -> (pqcnet_actor::Addr<Scribe>, Running) {
    let mut tree = Tree::new("test", Strategy::OneForOne);
    let bounds = Bounds {
        request: bound,
        ..Bounds::default()
    };
    let addr = tree.child(Spec::new("scribe", |_| Scribe::new()).mailbox(bounds));
    (addr, tree.start(env.clone()))
}

type Stream = Compat<DuplexStream>;

fn streams() -> (Stream, Stream) {
    let (a, b) = tokio::io::duplex(16 * 1024);
    (a.compat(), b.compat())
}

fn anyone(_: NodeId, _: &PeerHello) -> Result<(), RoleRefused> {
    Ok(())
}

/// Both ends accepted: a sentry (node 1) and a relayer (node 2).
async fn pair(env: &Env) -> (Accepted, Accepted) {
    pair_with(env, config(Role::Sentry), config(Role::Relayer)).await
}

async fn pair_with(env: &Env, a: LinkConfig, b: LinkConfig) -> (Accepted, Accepted) {
    let (left, right) = streams();
    let (a, b) = futures::join!(
        establish(env, left, node(2), a, anyone),
        establish(env, right, node(1), b, anyone),
    );
    (a.unwrap(), b.unwrap())
}

/// A link whose far end serves a scribe: the handle here, the handle there.
async fn served(env: &Env, scribe: &pqcnet_actor::Addr<Scribe>) -> (LinkHandle, LinkHandle) {
    let (a, b) = pair(env).await;
    (a.start(Bindings::new()), b.start(bind(scribe)))
}

/// In one simulated node, with its environment.
fn simulated<Fut: Future<Output = ()>>(test: impl FnOnce(Env) -> Fut) {
    simulate(|| test(Env::simulated(1, "test")));
}
