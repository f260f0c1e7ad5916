//! Peers that take their time: each is closed within its limit, by name. Virtual time, so the limits are met exactly.

use super::*;

/// A stranger that sends its Hello a byte a second, and one that never says a word: both are over after the hello's ten seconds.
#[test]
fn a_slow_hello() {
    simulated(|env| async move {
        for dribbles in [true, false] {
            let (left, right) = streams();
            let mut link = Link::new(config(Role::Sentry), env.now());
            let hello = link.poll_transmit(env.now(), WRITE_CHUNK).unwrap();
            let peer = env.clone();
            let dribble = env.task(async move {
                let mut left = left;
                for byte in hello {
                    if dribbles && left.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    peer.sleep(SECOND).await;
                }
            });
            let start = env.now();
            let error = establish(&env, right, node(1), config(Role::Relayer), anyone);
            let error = error.await.unwrap_err();
            let words = "the peer erred at stage hello: it did not finish the hello in time";
            assert_eq!(error.reason.to_string(), words);
            let took = (env.now() - start).as_secs();
            assert!((10..=12).contains(&took), "{took} s");
            dribble.abort();
        }
    });
}

/// An open link to a peer that is driven by hand.
async fn by_hand(env: &Env) -> (LinkHandle, Box<dyn Io>) {
    let (a, b) = pair(env).await;
    (a.start(Bindings::new()), b.io)
}

/// A frame that comes a byte in five seconds. Something is heard all the time, yet after thirty seconds the link is over.
#[test]
fn a_dribbled_frame() {
    simulated(|env| async move {
        let (here, mut io) = by_hand(&env).await;
        let peer = env.clone();
        let dribble = env.task(async move {
            for byte in [0, 0, 1, 0, 0x1a, 1, 1, 1, 1, 1, 1, 1] {
                if io.write_all(&[byte]).await.is_err() {
                    break;
                }
                peer.sleep(SECOND * 5).await;
            }
            io
        });
        let start = env.now();
        let words = "the peer erred at stage open: it did not finish a frame in time";
        assert_eq!(here.closed().await.to_string(), words);
        assert_eq!((env.now() - start).as_secs(), 30);
        dribble.abort();
    });
}

/// Nothing at all, not even a Ping: over after thirty seconds.
#[test]
fn a_silent_peer() {
    simulated(|env| async move {
        let (here, _io) = by_hand(&env).await;
        let start = env.now();
        let words = "the peer erred at stage open: it was silent for too long";
        assert_eq!(here.closed().await.to_string(), words);
        assert_eq!((env.now() - start).as_secs(), 30);
    });
}

/// A peer that goes on talking and does not read, or reads a byte a second: what is written for it must be through in thirty seconds.
#[test]
fn a_peer_that_does_not_read() {
    simulated(|env| async move {
        for sips in [false, true] {
            let (here, mut io) = by_hand(&env).await;
            let echo = here.remote::<Echo>();
            let text = "x".repeat(200_000);
            let asked = echo.try_ask(Echo(text), SECOND * 500).unwrap();
            let peer = env.clone();
            let talk = env.task(async move {
                // A Ping each second.
                while io.write_all(&[0, 0, 0, 2, 0x42, 0]).await.is_ok() {
                    if sips {
                        io.read_exact(&mut [0]).await.unwrap();
                    }
                    peer.sleep(SECOND).await;
                }
            });
            let start = env.now();
            let down = here.closed().await;
            let words = "the peer erred at stage open: it does not read";
            assert_eq!(down.to_string(), words);
            assert_eq!((env.now() - start).as_secs(), 30);
            assert_eq!(asked.await, Err(AskError::Remote(words.to_owned())));
            talk.await.unwrap();
        }
    });
}

/// One that is slow but gets through lives: a megabyte to a peer that reads 16 KiB a second.
#[test]
fn a_slow_reader_lives() {
    simulated(|env| async move {
        let (here, mut io) = by_hand(&env).await;
        let echo = here.remote::<Echo>();
        let text = "x".repeat(1_000_000);
        let asked = echo.try_ask(Echo(text), SECOND * 500).unwrap();
        let mut read = 0;
        let mut chunk = vec![0; 16 * 1024];
        while read < 1_000_000 {
            read += io.read(&mut chunk).await.unwrap();
            io.write_all(&[0, 0, 0, 2, 0x42, 0]).await.unwrap();
            env.sleep(SECOND).await;
        }
        assert_eq!(here.down_reason(), None);
        drop(asked);
    });
}
