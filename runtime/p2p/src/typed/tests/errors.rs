//! What does not come up or must not go on, told to both sides.

use pqcnet_link::{Class, Fault, Link, SendError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// A role that the network does not grant: both sides fail at stage Hello with the same reason and words.
#[test]
fn wrong_role() {
    simulated(|env| async move {
        let (left, right) = streams();
        let refuse = |id: NodeId, hello: &PeerHello| {
            assert_eq!((id, hello.role), (node(1), Role::Validator));
            Err(RoleRefused::new("not a validator"))
        };
        let start = env.now();
        let (a, b) = futures::join!(
            establish(&env, left, node(2), config(Role::Validator), anyone),
            establish(&env, right, node(1), config(Role::Relayer), refuse),
        );
        let (stage, reason) = (Stage::Hello, Reason::Role);
        let detail = "not a validator".to_owned();
        let told = DownReason::Peer {
            stage,
            reason,
            detail: detail.clone(),
        };
        let said = DownReason::Local {
            stage,
            reason,
            detail,
        };
        let a = a.unwrap_err();
        assert_eq!((a.peer, &a.reason), (node(2), &told));
        assert_eq!(
            a.to_string(),
            "link to 02020202: closed by the peer at stage hello: role refused (not a validator)"
        );
        assert_eq!(b.unwrap_err().reason, said);
        assert!(env.now() - start < SECOND, "nobody waited for a timeout");
    });
}

/// Nobody there, a stream that ends, bytes that are no Hello, a version that is not ours.
#[test]
fn no_hello() {
    simulated(|env| async move {
        let greet =
            |stream: Stream| establish(&env, stream, node(1), config(Role::Relayer), anyone);
        let stage = Stage::Hello;
        let misbehaved = |fault| DownReason::Misbehaved { stage, fault };

        let (left, right) = streams();
        let start = env.now();
        let error = greet(right).await.unwrap_err();
        assert_eq!(error.reason, misbehaved(Fault::HelloTimeout));
        assert_eq!(
            (env.now() - start).as_secs(),
            12,
            "hello timeout and linger"
        );
        drop(left);

        let (left, right) = streams();
        drop(left);
        let error = greet(right).await.unwrap_err();
        let kind = io::ErrorKind::BrokenPipe;
        assert_eq!(error.reason, DownReason::Lost { stage, kind });

        let (mut left, right) = streams();
        left.get_mut()
            .write_all(b"GET / HTTP/1.1\r\n")
            .await
            .unwrap();
        let (len, limit) = (u32::from_be_bytes(*b"GET "), 4096);
        let error = greet(right).await.unwrap_err();
        assert_eq!(
            error.reason,
            misbehaved(Fault::FrameTooLarge { len, limit })
        );
        let mut heard = Vec::new();
        left.get_mut().read_to_end(&mut heard).await.unwrap();
        let words = "announced a frame of";
        assert!(String::from_utf8_lossy(&heard).contains(words));

        // Hello { version_min: 3, version_max: 3 }
        let (mut left, right) = streams();
        let hello = [0, 0, 0, 6, 0x0a, 4, 0x08, 3, 0x10, 3];
        left.get_mut().write_all(&hello).await.unwrap();
        let (min, max) = (3, 3);
        let error = greet(right).await.unwrap_err();
        assert_eq!(error.reason, misbehaved(Fault::Version { min, max }));
    });
}

/// What is not bound is refused by name, and a tell of it only counted; the link lives on.
#[test]
fn not_served() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (here, there) = served(&env, &addr).await;
        let unbound = here.remote::<Unbound>();
        let asked = unbound.ask(Unbound(String::new()), SECOND);
        let words = "test.Unbound is not served".to_owned();
        assert_eq!(asked.await, Err(AskError::Refused(words)));
        here.remote::<Note>().tell(Note("1".into())).await.unwrap();
        here.remote::<Unbound>()
            .tell(Unbound("2".into()))
            .await
            .unwrap();
        let echo = here.remote::<Echo>().ask(Echo(String::new()), SECOND).await;
        assert_eq!(echo, Ok(Text(String::new())));
        let counts = there.stats().counts;
        assert_eq!((counts.unknown_asks, counts.unknown_tells), (1, 1));
        running.stop().await;
    });
}

/// A service that the peer did not offer is refused here, without a frame.
#[test]
fn not_offered() {
    simulated(|env| async move {
        let mut nothing = config(Role::Relayer);
        nothing.services.clear();
        let (a, b) = pair_with(&env, config(Role::Sentry), nothing).await;
        let (here, _there) = (a.start(Bindings::new()), b.start(Bindings::new()));
        let asked = here.remote::<Echo>().ask(Echo(String::new()), SECOND).await;
        let words = SendError::NotServed(ServiceId::CONTROL).to_string();
        assert_eq!(asked, Err(AskError::Refused(words)));
    });
}

/// Speaks the protocol by hand, to say what our driver never would.
struct Rogue {
    env: Env,
    link: Link,
    io: Stream,
}

impl Rogue {
    /// The driver's handle, and the rogue at its other end.
    async fn against(env: &Env, bindings: Bindings) -> (LinkHandle, Rogue) {
        let (left, right) = streams();
        let link = Link::new(config(Role::Sentry), env.now());
        let mut rogue = Rogue {
            env: env.clone(),
            link,
            io: left,
        };
        let (accepted, ()) = futures::join!(
            establish(env, right, node(1), config(Role::Relayer), anyone),
            async {
                while !rogue.link.is_open() {
                    rogue.step().await;
                }
            }
        );
        (accepted.unwrap().start(bindings), rogue)
    }

    /// Sends what is due, hears one piece, and returns what it meant.
    async fn step(&mut self) -> Vec<Event> {
        while let Some(bytes) = self.link.poll_transmit(self.env.now(), 1000) {
            self.io.get_mut().write_all(&bytes).await.unwrap();
        }
        let mut chunk = [0; 4096];
        let n = self.io.get_mut().read(&mut chunk).await.unwrap();
        self.link.on_bytes(self.env.now(), &chunk[..n]);
        let mut events = Vec::new();
        while let Some(event) = self.link.poll_event() {
            if let Event::Hello(_) = event {
                self.link.accept();
            }
            events.push(event);
        }
        while let Some(bytes) = self.link.poll_transmit(self.env.now(), 1000) {
            self.io.get_mut().write_all(&bytes).await.unwrap();
        }
        events
    }

    async fn down(&mut self) -> DownReason {
        loop {
            for event in self.step().await {
                if let Event::Down(reason) = event {
                    return reason;
                }
            }
        }
    }
}

/// Payloads that are not their type's bytes, in a tell, an ask and a reply, and a message under another class: the link ends, the fault named
/// on both sides.
#[test]
fn bad_payloads() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let bad = Bytes::from_static(&[0xff, 0xfe]);
        let control = ServiceId::CONTROL;
        for case in ["tell", "ask", "class", "reply"] {
            let (handle, mut rogue) = Rogue::against(&env, bind(&addr)).await;
            while rogue.link.credit(control, Class::Request) == 0
                || rogue.link.credit(control, Class::Bulk) == 0
            {
                rogue.step().await;
            }
            let (now, bad) = (env.now(), bad.clone());
            let (message, problem) = match case {
                "tell" => {
                    let class = Class::Request;
                    rogue
                        .link
                        .send_tell(control, 901, class, None, bad)
                        .unwrap();
                    ("test.Note", WireError::Malformed)
                }
                "ask" => {
                    let class = Class::Request;
                    let asked = rogue
                        .link
                        .send_ask(now, control, 902, class, None, SECOND, bad);
                    asked.unwrap();
                    ("test.Echo", WireError::Malformed)
                }
                "class" => {
                    let class = Class::Bulk;
                    rogue
                        .link
                        .send_tell(control, 901, class, None, bad)
                        .unwrap();
                    let (field, problem) = ("class", "not this message's");
                    ("test.Note", WireError::Invalid { field, problem })
                }
                _ => {
                    let echo = handle.remote::<Echo>();
                    let open = echo.try_ask(Echo(String::new()), SECOND).unwrap();
                    while rogue.step().await.is_empty() {}
                    rogue.link.send_reply(1, pqcnet_link::Answer::Ok(bad));
                    rogue.step_out().await;
                    let words = "the reply to test.Echo is malformed".to_owned();
                    assert_eq!(open.await, Err(AskError::Remote(words)));
                    ("test.Echo", WireError::Malformed)
                }
            };
            let fault = Fault::BadPayload { message, problem };
            let told = rogue.down().await;
            let (stage, detail) = (Stage::Open, fault.to_string());
            let reason = Reason::BadPayload;
            let expected = DownReason::Peer {
                stage,
                reason,
                detail,
            };
            assert_eq!(told, expected);
            let down = handle.closed().await;
            assert_eq!(down, DownReason::Misbehaved { stage, fault });
        }
        running.stop().await;
    });
}

impl Rogue {
    async fn step_out(&mut self) {
        while let Some(bytes) = self.link.poll_transmit(self.env.now(), 1000) {
            self.io.get_mut().write_all(&bytes).await.unwrap();
        }
    }
}

/// A peer that floods beyond its credit is cut off, and told why.
#[test]
fn a_flood_is_cut_off() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (handle, mut rogue) = Rogue::against(&env, bind(&addr)).await;
        // Tell { service: 3, type: 901, class: Bulk } by hand, more often than any window has units.
        let tell = [0, 0, 0, 9, 0x1a, 7, 0x08, 3, 0x10, 0x85, 7, 0x18, 1];
        let flood = tell.repeat(2);
        rogue.io.get_mut().write_all(&flood).await.unwrap();
        let down = handle.closed().await;
        let (service, class) = (ServiceId::CONTROL, Class::Control);
        let fault = Fault::CreditExceeded { service, class };
        let stage = Stage::Open;
        assert_eq!(down, DownReason::Misbehaved { stage, fault });
        assert_eq!(rogue.down().await.reason(), Some(Reason::CreditExceeded));
        running.stop().await;
    });
}
