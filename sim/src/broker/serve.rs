//! The broker's side: takes connections, carries frames between them and the [`Shelf`].

use std::sync::Arc;
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use parking_lot::Mutex;
use pqcnet_actor::Env;
use pqcnet_p2p::network::Address;
use pqcnet_p2p::streams::{BoxStream, Streams};
use tokio::sync::Notify;

use super::Shelf;
use super::wire::{self, Body};

/// Between signs of life, and after how long without one the peer is gone: RabbitMQ's heartbeat is 60 s, half of it between two.
pub(super) const LIFE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(60));

/// One start of a broker.
#[derive(Clone)]
struct Broker {
    env: Env,
    shelf: Arc<Mutex<Shelf>>,
    /// There is something more to keep.
    keep: Arc<Notify>,
}

/// Serves what is on this shelf until its node ends.
pub(crate) async fn serve(
    env: Env,
    streams: Arc<dyn Streams>,
    at: Address,
    shelf: Arc<Mutex<Shelf>>,
) {
    let Ok(mut listener) = streams.listen(&at).await else {
        // Its machine is gone, and this task with it.
        return;
    };
    shelf.lock().begin();
    let broker = Broker {
        env: env.clone(),
        shelf,
        keep: Arc::default(),
    };
    env.spawn(broker.clone().keep());
    loop {
        if let Ok(arrived) = listener.accept().await {
            env.spawn(broker.clone().converse(arrived.stream));
        }
    }
}

impl Broker {
    /// Confirms messages when they are kept.
    async fn keep(self) {
        loop {
            let due = self.shelf.lock().next_due();
            match due {
                Some(due) => {
                    let pause = due.saturating_sub(self.env.now());
                    if !pause.is_zero() {
                        self.env.sleep(pause).await;
                    }
                    self.shelf.lock().keep(self.env.now());
                }
                None => self.keep.notified().await,
            }
        }
    }

    async fn converse(self, stream: BoxStream) {
        let (mut from, mut to) = stream.split();
        let (conn, news) = self.shelf.lock().connected();
        let reading = read(&self.env, &mut from, |body| {
            self.shelf.lock().on_frame(self.env.now(), conn, body);
            self.keep.notify_one();
        });
        let out = || self.shelf.lock().take_out(conn).map(Vec::from);
        // What ends either way ends the connection.
        tokio::select! {
            biased;
            () = reading => {}
            () = write(&self.env, &mut to, &news, out) => {}
        }
        self.shelf.lock().gone(conn);
    }
}

/// Hands over what comes until it ends, or nothing comes.
pub(super) async fn read(
    env: &Env,
    from: &mut (impl AsyncRead + Unpin),
    mut take: impl FnMut(Body),
) {
    loop {
        let next = tokio::select! {
            biased;
            next = wire::next(from) => next,
            () = env.sleep(LIFE.1) => return,
        };
        match next {
            Ok(Some(body)) => take(body),
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

/// Writes what `out` gives, whenever there is news, until it gives nothing any more.
pub(super) async fn write(
    env: &Env,
    to: &mut (impl AsyncWrite + Unpin),
    news: &Notify,
    mut out: impl FnMut() -> Option<Vec<Body>>,
) {
    loop {
        let Some(bodies) = out() else {
            return;
        };
        let mut bytes = Vec::new();
        for body in bodies {
            wire::put(&mut bytes, Some(body));
        }
        if bytes.is_empty() {
            tokio::select! {
                biased;
                () = news.notified() => continue,
                () = env.sleep(LIFE.0) => wire::put(&mut bytes, None),
            }
        }
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}
