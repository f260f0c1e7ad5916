//! The log's side: what `pqcnet-log` needs of a broker, over the simulated network.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::io::AsyncReadExt as _;
use parking_lot::Mutex;
use pqcnet_actor::{Env, latest};
use pqcnet_log::Retention;
use pqcnet_log::broker::transport::{
    Answer, BrokerError, Confirming, Connection, Message, Messages, Outgoing, Start, Transport,
    Writer,
};
use pqcnet_p2p::network::Address;
use pqcnet_p2p::streams::{BoxStream, Streams};
use tokio::sync::{Notify, mpsc, oneshot};

use super::serve::{read, write};
use super::wire::{Ask, Body, Content, Credit, Outcome, Publish, What};

/// Messages that the broker sends a reader ahead, as the production log has it.
const AHEAD: u64 = 256;
/// Read messages that are paid for together.
const PAY: u64 = 64;

/// The way to a broker at this address.
pub struct SimBroker {
    /// Whose node this is.
    pub env: Env,
    /// Its streams.
    pub streams: Arc<dyn Streams>,
    /// Where the broker listens.
    pub at: Address,
}

impl Transport for SimBroker {
    fn connect(&self, _: &'static str) -> Answer<Arc<dyn Connection>> {
        let (env, streams, at) = (self.env.clone(), self.streams.clone(), self.at.clone());
        async move {
            let refused = |error: io::Error| BrokerError::Refused(error.to_string());
            let stream = streams.dial(&at).await.map_err(refused)?;
            let link = Arc::new(Link {
                state: Mutex::default(),
                news: Notify::new(),
                lost: latest::Sender::new(false),
            });
            env.spawn(carry(env.clone(), stream, link.clone()));
            let connection: Arc<dyn Connection> = Arc::new(SimConnection(link));
            Ok(connection)
        }
        .boxed()
    }
}

/// What one connection's channels share.
struct Link {
    state: Mutex<State>,
    news: Notify,
    lost: latest::Sender<bool>,
}

#[derive(Default)]
struct State {
    over: bool,
    last: u64,
    out: VecDeque<Body>,
    replies: BTreeMap<u64, oneshot::Sender<Outcome>>,
    /// Channels to publish on that the broker has not closed.
    writers: BTreeSet<u64>,
    confirms: BTreeMap<(u64, u64), oneshot::Sender<()>>,
    readers: BTreeMap<u64, mpsc::Sender<Message>>,
}

async fn carry(env: Env, stream: BoxStream, link: Arc<Link>) {
    let (mut from, mut to) = stream.split();
    let out = || {
        let mut state = link.state.lock();
        (!state.over).then(|| Vec::from(std::mem::take(&mut state.out)))
    };
    tokio::select! {
        biased;
        () = read(&env, &mut from, |body| link.take(body)) => {}
        () = write(&env, &mut to, &link.news, out) => {}
    }
    link.end();
}

fn lost() -> BrokerError {
    BrokerError::Refused("the connection is lost".to_owned())
}

impl Link {
    fn take(&self, body: Body) {
        let mut state = self.state.lock();
        match body {
            Body::Reply(reply) => {
                if let Some(asked) = state.replies.remove(&reply.id) {
                    // Whoever asked may have gone.
                    asked.send(reply.outcome()).ok();
                }
            }
            Body::Confirm(confirm) => {
                if let Some(waits) = state.confirms.remove(&(confirm.id, confirm.tag)) {
                    waits.send(()).ok();
                }
            }
            Body::Deliver(deliver) => {
                let message = deliver.content.at(deliver.position);
                let reader = state.readers.get(&deliver.id);
                if let Some((message, reader)) = message.zip(reader) {
                    // It has room for all that it pays for; or it has gone.
                    reader.try_send(message).ok();
                }
            }
            Body::Close(id) => state.close(id),
            // What a log alone says.
            Body::Ask(_) | Body::Publish(_) | Body::Credit(_) => {}
        }
    }

    fn send(&self, body: Body) {
        self.state.lock().out.push_back(body);
        self.news.notify_one();
    }

    fn end(&self) {
        let ended = {
            let mut state = self.state.lock();
            let ended = std::mem::take(&mut *state);
            state.over = true;
            ended
        };
        // Whoever waits learns of it.
        drop(ended);
        self.news.notify_one();
        self.lost.send_replace(true);
    }

    /// Asks, and gives what `then` makes of a yes.
    fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        (what, stream): (What, &str),
        (make, from): (bool, u64),
        then: impl FnOnce(Arc<Link>, u64) -> T + Send + 'static,
    ) -> Answer<Result<T, Outcome>> {
        let (link, stream) = (self.clone(), stream.to_owned());
        async move {
            let (asked, reply) = oneshot::channel();
            let id = {
                let mut state = link.state.lock();
                if state.over {
                    return Err(lost());
                }
                state.last += 1;
                let id = state.last;
                state.replies.insert(id, asked);
                id
            };
            let what = what.into();
            link.send(Body::Ask(Ask {
                id,
                what,
                stream,
                make,
                from,
            }));
            match reply.await.map_err(|_| lost())? {
                Outcome::Yes => Ok(Ok(then(link, id))),
                other => Ok(Err(other)),
            }
        }
        .boxed()
    }
}

impl State {
    fn close(&mut self, id: u64) {
        self.writers.remove(&id);
        self.readers.remove(&id);
        let mut beyond = self.confirms.split_off(&(id, 0));
        self.confirms.append(&mut beyond.split_off(&(id + 1, 0)));
    }
}

struct SimConnection(Arc<Link>);

impl Drop for SimConnection {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn no(outcome: Outcome, stream: &str) -> BrokerError {
    let stream = stream.to_owned();
    match outcome {
        Outcome::Locked => BrokerError::Locked {
            queue: format!("{stream}.owner"),
        },
        Outcome::Asleep => BrokerError::Asleep {
            stream,
            detail: "its home is down".to_owned(),
        },
        Outcome::No | Outcome::Yes => BrokerError::Missing { stream },
    }
}

impl Connection for SimConnection {
    fn lost(&self) -> BoxFuture<'static, String> {
        let mut lost = self.0.lost.subscribe();
        async move {
            match lost.wait_for(|lost| *lost).await.map(|_| ()) {
                Ok(()) | Err(latest::Ended) => "the stream ended".to_owned(),
            }
        }
        .boxed()
    }

    fn has(&self, stream: &str) -> Answer<bool> {
        let asked = self.0.ask((What::Has, stream), (false, 0), |_, _| ());
        let stream = stream.to_owned();
        async move {
            match asked.await? {
                Ok(()) => Ok(true),
                Err(Outcome::No) => Ok(false),
                Err(other) => Err(no(other, &stream)),
            }
        }
        .boxed()
    }

    fn delete(&self, stream: &str) -> Answer<()> {
        let asked = self.0.ask((What::Delete, stream), (false, 0), |_, _| ());
        let stream = stream.to_owned();
        async move { asked.await?.map_err(|outcome| no(outcome, &stream)) }.boxed()
    }

    fn write(&self, stream: &str, make: Option<Retention>) -> Answer<Arc<dyn Writer>> {
        let options = (make.is_some(), 0);
        let asked = self.0.ask((What::Write, stream), options, |link, id| {
            link.state.lock().writers.insert(id);
            let writer: Arc<dyn Writer> = Arc::new(SimWriter {
                link,
                id,
                tags: Arc::default(),
            });
            writer
        });
        let stream = stream.to_owned();
        async move { asked.await?.map_err(|outcome| no(outcome, &stream)) }.boxed()
    }

    fn read(&self, stream: &str, from: Start) -> Answer<Box<dyn Messages>> {
        let from = match from {
            Start::First => 0,
            Start::Position(position) => position,
        };
        let asked = self.0.ask((What::Read, stream), (false, from), |link, id| {
            let (to, messages) = mpsc::channel(AHEAD as usize);
            link.state.lock().readers.insert(id, to);
            link.send(Body::Credit(Credit { id, more: AHEAD }));
            let messages: Box<dyn Messages> = Box::new(SimMessages {
                link,
                id,
                messages,
                unpaid: 0,
            });
            messages
        });
        let stream = stream.to_owned();
        async move { asked.await?.map_err(|outcome| no(outcome, &stream)) }.boxed()
    }
}

struct SimWriter {
    link: Arc<Link>,
    id: u64,
    /// Given so far.
    tags: Arc<Mutex<u64>>,
}

impl Writer for SimWriter {
    fn publish(&self, message: Outgoing) -> Confirming {
        let (link, id, tags) = (self.link.clone(), self.id, self.tags.clone());
        async move {
            let (waits, confirmed) = oneshot::channel();
            let tag = {
                let mut state = link.state.lock();
                if !state.writers.contains(&id) {
                    return Err(lost());
                }
                let mut tags = tags.lock();
                *tags += 1;
                state.confirms.insert((id, *tags), waits);
                *tags
            };
            let content = Content::of(message);
            link.send(Body::Publish(Publish { id, tag, content }));
            confirmed.await.map_err(|_| lost())?;
            Ok(true)
        }
        .boxed()
    }
}

impl Drop for SimWriter {
    fn drop(&mut self) {
        self.link.state.lock().close(self.id);
        self.link.send(Body::Close(self.id));
    }
}

struct SimMessages {
    link: Arc<Link>,
    id: u64,
    messages: mpsc::Receiver<Message>,
    unpaid: u64,
}

impl Messages for SimMessages {
    fn next(&mut self) -> BoxFuture<'_, Result<Message, BrokerError>> {
        async move {
            let message = self.messages.recv().await.ok_or_else(lost)?;
            self.unpaid += 1;
            if self.unpaid == PAY {
                self.unpaid = 0;
                let id = self.id;
                self.link.send(Body::Credit(Credit { id, more: PAY }));
            }
            Ok(message)
        }
        .boxed()
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}

impl Drop for SimMessages {
    fn drop(&mut self) {
        self.link.state.lock().close(self.id);
        self.link.send(Body::Close(self.id));
    }
}
