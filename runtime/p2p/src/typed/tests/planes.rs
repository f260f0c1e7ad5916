//! The same body of promises over both planes: a direct QSTP stream on a real socket, and a libp2p substream.

use super::*;
use crate::testing::{config as security_config, endpoint, loopback};

fn threads() -> pqcnet_actor::Threads {
    pqcnet_actor::Threads {
        workers: 2,
        arbiters: 2,
    }
}

/// Establishes both ends (`b`'s stream may need `a`'s first bytes), serves a scribe at the second, runs the body at the first. Each
/// stream comes with the node at its other end.
async fn promises<A, B>(env: Env, a: (A, NodeId), b: impl Future<Output = (B, NodeId)>)
where
    A: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (addr, running) = scribe(&env, 1024);
    let (here, there) = futures::join!(
        establish(&env, a.0, a.1, config(Role::Sentry), anyone),
        async {
            let (stream, peer) = b.await;
            establish(&env, stream, peer, config(Role::Relayer), anyone).await
        }
    );
    let (here, there) = (here.unwrap(), there.unwrap());
    let (here, there) = (here.start(Bindings::new()), there.start(bind(&addr)));
    flow::body(far(&here)).await;
    let down = there.closed();
    here.close_with(Reason::Draining, "done");
    drop(here);
    let words = "closed by the peer at stage open: draining (done)";
    assert_eq!(down.await.to_string(), words);
    running.stop().await;
}

#[test]
fn over_a_direct_qstp_stream() {
    let done = pqcnet_actor::run_on(threads(), "test", |env| async move {
        let (a, b) = (endpoint(security_config()), endpoint(security_config()));
        let mut incoming = b.listen(&loopback()).await.unwrap();
        let at = incoming.local().clone();
        let (ours, theirs) = futures::join!(a.dial(&at, b.node_id()), incoming.next());
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap().unwrap());
        let there = async { (theirs.stream, theirs.peer.node_id()) };
        promises(env, (ours.stream, ours.peer.node_id()), there).await;
    });
    done.unwrap();
}

#[cfg(feature = "libp2p")]
#[test]
fn over_a_libp2p_substream() {
    use crate::control::{ControlConfig, ControlEvent, ControlPlane as _, Libp2pControl};
    use crate::testing::security;

    let done = pqcnet_actor::run_on(threads(), "test", |env| async move {
        let start = || {
            let config = ControlConfig::new(security(security_config()), 4);
            let id = config.security.node_id();
            let (plane, events) = Libp2pControl::start(&Env::plain(), config).unwrap();
            (plane, events, id)
        };
        let ((a, _a_events, _), (b, mut b_events, b_id)) = (start(), start());
        let at = b.listen(&loopback()).await.unwrap();
        a.dial(b_id, std::slice::from_ref(&at)).await.unwrap();
        let stream = a.open(b_id).await.unwrap();
        let there = async {
            loop {
                if let ControlEvent::Substream(substream) = b_events.next().await.unwrap() {
                    return (substream.stream, substream.peer.node_id());
                }
            }
        };
        promises(env, (stream, b_id), there).await;
    });
    done.unwrap();
}
