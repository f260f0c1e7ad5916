//! What a herald does with each message.

use super::*;

impl On<Announce> for Herald {
    fn on(&mut self, msg: Announce, cx: &mut Cx<Self>) -> Reply<Announce> {
        if self.config.advert != msg.advert {
            self.config.advert = msg.advert;
            self.announcer.changed(cx.now());
            self.speak.set(cx, Some(self.announcer.due()));
        }
        Reply::Now(())
    }
}

impl On<PullAdverts> for Herald {
    fn on(&mut self, msg: PullAdverts, cx: &mut Cx<Self>) -> Reply<PullAdverts> {
        let asker = msg.mine.as_ref().map(|mine| mine.advert.node_id());
        let nobody = self.config.keys.node_id();
        let mut pulled = (self.book).lacking(asker.unwrap_or(nobody), &msg.have, cx.wall_ms());
        if let Some(own) = &self.own
            && !msg.have.contains(&own.fingerprint())
        {
            pulled.items.truncate(MAX_PULLED - 1);
            pulled.items.push(own.clone());
        }
        if let Some(mine) = msg.mine.filter(|mine| self.considers(mine)) {
            self.check(vec![mine], cx, |herald, (right, _), cx| {
                for signed in right {
                    let bytes = signed.to_wire();
                    if herald.hear(signed, cx) {
                        herald.pass_on(bytes, cx);
                    }
                }
            });
        }
        Reply::Now(Ok(pulled))
    }
}

impl Herald {
    /// Gossip that is right, but not news, since a pull was quicker, goes on to those who have not pulled.
    fn forward(&mut self, signed: &SignedAdvert) -> Judgement {
        match self.book.forward(signed) {
            true => Judgement::Forward,
            false => Judgement::Keep,
        }
    }

    /// A newcomer's word, which it could not gossip yet, goes to whoever this node gossips with.
    fn pass_on(&mut self, advert: Bytes, cx: &mut Cx<Self>) {
        let published = (self.config.publish)(ADVERTS, advert);
        cx.spawn(published, |_, outcome, _| {
            if let Err(error) = outcome {
                tracing::trace!(%error, "a newcomer's advert was not passed on");
            }
        });
    }
}

impl On<JudgeAdvert> for Herald {
    fn on(&mut self, msg: JudgeAdvert, cx: &mut Cx<Self>) -> Reply<JudgeAdvert> {
        let signed = msg.advert;
        if signed.advert.node_id() == self.config.keys.node_id() {
            // Only a signature of ours makes us speak again.
            self.check(vec![signed], cx, |herald, (right, _), cx| {
                for signed in right {
                    herald.hear(signed, cx);
                }
                herald.speak.set(cx, Some(herald.announcer.due()));
            });
            return Reply::Now(Judgement::Keep);
        }
        if !self.considers(&signed) {
            return Reply::Now(self.forward(&signed));
        }
        let (promise, reply) = Reply::later();
        self.check(vec![signed], cx, |herald, (mut right, all), cx| {
            promise.fulfil(match right.pop() {
                Some(signed) => {
                    herald.hear(signed.clone(), cx);
                    herald.forward(&signed)
                }
                None if all => Judgement::Keep,
                None => Judgement::Wrong,
            });
        });
        reply
    }
}

impl On<PeerLinked> for Herald {
    fn on(&mut self, msg: PeerLinked, cx: &mut Cx<Self>) -> Reply<PeerLinked> {
        if self
            .links
            .insert(msg.link, (msg.peer, msg.adverts))
            .is_none()
        {
            self.circle.on_link(msg.peer);
        }
        self.pull_in_turn(msg.link, cx);
        self.look_soon(cx);
        Reply::Now(())
    }
}

impl On<PeerUnlinked> for Herald {
    fn on(&mut self, msg: PeerUnlinked, cx: &mut Cx<Self>) -> Reply<PeerUnlinked> {
        if self.links.remove(&msg.link).is_some() {
            self.circle.on_unlink(&msg.peer);
        }
        self.pulls.forget(msg.link);
        self.look_soon(cx);
        Reply::Now(())
    }
}

impl On<Sighted> for Herald {
    fn on(&mut self, msg: Sighted, cx: &mut Cx<Self>) -> Reply<Sighted> {
        let room = self.sighted.len() < MAX_SIGHTED || self.sighted.contains_key(&msg.peer);
        let other = msg.peer != self.config.keys.node_id();
        if room && other && self.config.authority.is_member(msg.peer) {
            let before = self.sighted.insert(msg.peer, msg.at.clone());
            self.known.sightings += u64::from(before.as_ref() != Some(&msg.at));
            self.look_soon(cx);
        }
        Reply::Now(())
    }
}

impl On<DialFailed> for Herald {
    fn on(&mut self, msg: DialFailed, cx: &mut Cx<Self>) -> Reply<DialFailed> {
        self.circle.on_failure(msg.peer);
        if msg.handshake {
            self.blame(msg.peer, Offence::FailedHandshake, cx);
        }
        self.look_soon(cx);
        Reply::Now(())
    }
}

impl On<Misbehaved> for Herald {
    fn on(&mut self, msg: Misbehaved, cx: &mut Cx<Self>) -> Reply<Misbehaved> {
        self.blame(msg.peer, msg.offence, cx);
        Reply::Now(())
    }
}
