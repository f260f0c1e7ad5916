//! What a node asks for (IWANT) and what it answers to those who ask: a peer that speaks gossip with its own bytes, and reads.

use std::collections::BTreeSet;
use std::pin::Pin;

use futures::FutureExt as _;
use futures::future::poll_fn;
use libp2p::core::muxing::StreamMuxer as _;
use multistream_select::listener_select_proto;
use tokio::sync::mpsc;

use super::flood::{Wire, connect, field, gossip_substream, varint};
use super::*;
use crate::control::gossip::{IDS, message_id};
use crate::control::muxer::{Muxer, Substream as Muxed};

/// Between two tellings of the same.
const AGAIN: Duration = Duration::from_millis(200);
/// An answer that has not come by then will not.
const GIVE_UP: Duration = Duration::from_secs(60);
const TOPIC: &str = "adverts";

/// A gossip of our own making.
struct Raw {
    out: multistream_select::Negotiated<Muxed>,
    heard: mpsc::Receiver<Vec<u8>>,
}

impl Raw {
    async fn meet(node: &Node) -> Raw {
        let security = security(config());
        let mut muxer = connect(&security, node.id(), &node.at).await;
        let out = gossip_substream(&mut muxer).await;
        let (hear, heard) = mpsc::channel(64);
        tokio::spawn(listen(muxer, hear));
        Raw { out, heard }
    }

    async fn say(&mut self, rpc: &[u8]) {
        let mut frame = Vec::new();
        varint(&mut frame, rpc.len());
        frame.extend_from_slice(rpc);
        self.out.write_all(&frame).await.unwrap();
        self.out.flush().await.unwrap();
    }

    /// The next RPC.
    async fn hear(&mut self) -> Vec<u8> {
        let heard = tokio::time::timeout(GIVE_UP, self.heard.recv()).await;
        heard.expect("an RPC").expect("a connection")
    }
}

/// Moves a connection and reads what the node gossips on it.
async fn listen(mut muxer: Muxer<Wire>, hear: mpsc::Sender<Vec<u8>>) {
    while let Ok(stream) = poll_fn(|cx| Pin::new(&mut muxer).poll_inbound(cx)).await {
        let hear = hear.clone();
        tokio::spawn(async move {
            let names = [crate::control::gossip::PROTOCOL];
            let Ok((_, mut stream)) = listener_select_proto(stream, names).await else {
                return;
            };
            loop {
                let (mut length, mut shift) = (0usize, 0);
                loop {
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).await.is_err() {
                        return;
                    }
                    length |= usize::from(byte[0] & 0x7f) << shift;
                    shift += 7;
                    if byte[0] & 0x80 == 0 {
                        break;
                    }
                }
                let mut rpc = vec![0; length];
                if stream.read_exact(&mut rpc).await.is_err() || hear.send(rpc).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// The length-delimited fields of a protobuf with this number.
fn fields(mut bytes: &[u8], wanted: u8) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let number = |bytes: &mut &[u8]| {
        let (mut value, mut shift) = (0usize, 0);
        while let Some((byte, rest)) = bytes.split_first() {
            *bytes = rest;
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    };
    while !bytes.is_empty() {
        let key = number(&mut bytes);
        let value = number(&mut bytes);
        if key & 7 == 2 {
            let (field, rest) = bytes.split_at(value);
            bytes = rest;
            if key >> 3 == usize::from(wanted) {
                found.push(field);
            }
        }
    }
    found
}

/// The ids of an RPC's IWANTs.
fn wanted(rpc: &[u8]) -> Vec<Vec<u8>> {
    let control = fields(rpc, 3);
    let wants = control.iter().flat_map(|control| fields(control, 2));
    wants
        .flat_map(|want| fields(want, 1))
        .map(<[u8]>::to_vec)
        .collect()
}

fn ihave(id: &[u8]) -> Vec<u8> {
    let have = [field(1, TOPIC.as_bytes()), field(2, id)].concat();
    field(3, &field(1, &have))
}

fn iwant(ids: &[[u8; 32]]) -> Vec<u8> {
    let ids: Vec<u8> = ids.iter().flat_map(|id| field(1, id)).collect();
    field(3, &field(2, &ids))
}

fn accept(_: Gossip) -> futures::future::BoxFuture<'static, Verdict> {
    async { Verdict::Accept }.boxed()
}

/// One peer has a message, is asked for it, and never sends it. Another one has it too: it is asked in its turn once the time for
/// the first is up, which nobody would be if what was asked for in vain were never forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unanswered_want_is_forgotten() {
    let node = Node::start(config(), Some(GossipConfig::default())).await;
    let validator = Arc::new(accept);
    node.plane.subscribe(TOPIC, validator).await.unwrap();
    let id = message_id(TOPIC, b"never sent");
    let mut mute = Raw::meet(&node).await;
    mute.say(&ihave(&id)).await;
    while !wanted(&mute.hear().await).contains(&id.to_vec()) {}
    let mut other = Raw::meet(&node).await;
    let asked = async {
        loop {
            other.say(&ihave(&id)).await;
            let again = tokio::time::sleep(AGAIN);
            futures::pin_mut!(again);
            loop {
                let heard = futures::future::select(Box::pin(other.heard.recv()), again.as_mut());
                match heard.await {
                    futures::future::Either::Left((rpc, _)) => {
                        if wanted(&rpc.expect("a connection")).contains(&id.to_vec()) {
                            return;
                        }
                    }
                    futures::future::Either::Right(_) => break,
                }
            }
        }
    };
    tokio::time::timeout(GIVE_UP, asked)
        .await
        .expect("the second peer was never asked");
}

/// As many messages as one peer may be asked for at once are asked of a node that has them: all of them come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_want_is_answered_whole() {
    // Messages are kept for five heartbeats.
    let slow = GossipConfig {
        heartbeat: Duration::from_secs(600),
        ..GossipConfig::default()
    };
    let node = Node::start(config(), Some(slow.clone())).await;
    let friend = Node::start(config(), Some(slow)).await;
    let (seen, mut cases) = mpsc::channel(1);
    let hear = move |message: Gossip| {
        let seen = seen.clone();
        async move {
            seen.send(message.data).await.unwrap();
            Verdict::Accept
        }
        .boxed()
    };
    node.plane.subscribe(TOPIC, Arc::new(accept)).await.unwrap();
    friend.plane.subscribe(TOPIC, Arc::new(hear)).await.unwrap();
    friend.dial(&node).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..IDS {
        let message = Bytes::from(format!("message {n}"));
        while let Err(ControlError::NoPeers) = node.plane.publish(TOPIC, message.clone()).await {
            tokio::task::yield_now().await;
        }
        assert_eq!(cases.recv().await.unwrap(), message);
        ids.push(message_id(TOPIC, &message));
    }
    let mut asker = Raw::meet(&node).await;
    asker.say(&iwant(&ids)).await;
    let mut came = BTreeSet::new();
    while came.len() < IDS {
        let rpc = asker.hear().await;
        for message in fields(&rpc, 2) {
            for data in fields(message, 2) {
                came.insert(message_id(TOPIC, data));
            }
        }
    }
    assert_eq!(came, ids.into_iter().collect());
}
