//! Whom a herald asks for the adverts that it lacks, and when.

use std::collections::VecDeque;

use pqcnet_actor::AskError;
use pqcnet_messages::PulledAdverts;

use super::*;

/// A peer that has not answered a pull by then is not asked again on that link.
const PULL_DEADLINE: Duration = Duration::from_secs(10);
/// A pull waits for the one before it, but no longer than this: what one peer gives, the next need not give again, and none can
/// keep others waiting.
const PULL_TURN: Duration = Duration::from_millis(250);
/// Pages of one pull: as many as hold a full book, and one.
const MAX_PAGES: usize = MAX_HAVE / MAX_PULLED + 1;

/// Pulls, one turn each.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    /// Links that wait for their turn, each once.
    waiting: VecDeque<u64>,
    /// Turns so far, and whether the last one is not over.
    turns: u64,
    under_way: bool,
}

/// One pull under way.
#[derive(Clone, Copy, Debug)]
struct Pull {
    link: u64,
    turn: u64,
    page: usize,
}

impl Pull {
    fn next_page(self) -> Pull {
        let page = self.page + 1;
        Pull { page, ..self }
    }
}

impl Pulls {
    /// A link is gone.
    pub(super) fn forget(&mut self, link: u64) {
        self.waiting.retain(|waits| *waits != link);
    }
}

impl Herald {
    /// A node that comes into the network gets its links at once, and every peer knows what the others do: asked together,
    /// each would answer with the whole book.
    pub(super) fn pull_in_turn(&mut self, link: u64, cx: &mut Cx<Self>) {
        if !self.pulls.waiting.contains(&link) {
            self.pulls.waiting.push_back(link);
        }
        if !self.pulls.under_way {
            self.next_pull(cx);
        }
    }

    fn next_pull(&mut self, cx: &mut Cx<Self>) {
        self.pulls.turns += 1;
        let turn = self.pulls.turns;
        let next = self.pulls.waiting.pop_front();
        self.pulls.under_way = next.is_some();
        if let Some(link) = next {
            cx.after(PULL_TURN, move |herald, cx| herald.pulled(turn, cx));
            self.pull(
                Pull {
                    link,
                    turn,
                    page: 0,
                },
                cx,
            );
        }
    }

    /// A turn is over, by its pull's end or by time.
    fn pulled(&mut self, turn: u64, cx: &mut Cx<Self>) {
        if self.pulls.under_way && self.pulls.turns == turn {
            self.next_pull(cx);
        }
    }

    fn pull(&mut self, pull: Pull, cx: &mut Cx<Self>) {
        let link = self.links.get(&pull.link);
        let Some((peer, to)) = link.filter(|_| pull.page < MAX_PAGES) else {
            return self.pulled(pull.turn, cx);
        };
        let (peer, to) = (*peer, to.clone());
        let ask = PullAdverts {
            have: self.book.have(),
            mine: self.own.clone(),
        };
        cx.ask(&to, ask, PULL_DEADLINE, move |herald, answer, cx| {
            herald.on_pulled(pull, peer, answer, cx);
        });
    }

    fn on_pulled(
        &mut self,
        pull: Pull,
        peer: NodeId,
        answer: Result<PulledAdverts, AskError>,
        cx: &mut Cx<Self>,
    ) {
        let pulled = match answer {
            Ok(Ok(pulled)) => pulled,
            Ok(Err(refusal)) => {
                tracing::debug!(%peer, %refusal, "no adverts from it");
                return self.pulled(pull.turn, cx);
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "no adverts from it");
                return self.pulled(pull.turn, cx);
            }
        };
        let items: Vec<SignedAdvert> = pulled.items;
        let fresh: Vec<SignedAdvert> = (items.into_iter())
            .filter(|signed| self.considers(signed))
            .collect();
        if fresh.is_empty() {
            // A page with nothing new is the last: what is left are nodes that are no members here.
            return self.pulled(pull.turn, cx);
        }
        self.check(fresh, cx, move |herald, (right, all), cx| {
            if !all {
                herald.blame(peer, Offence::BadBytes, cx);
            }
            for signed in right {
                herald.hear(signed, cx);
            }
            match pulled.more {
                true => herald.pull(pull.next_page(), cx),
                false => herald.pulled(pull.turn, cx),
            }
        });
    }
}
