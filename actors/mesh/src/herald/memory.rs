//! What a herald keeps on the disk: the peer book, and the scores.

use super::*;
use crate::core::scores::Kept;

/// A write of the book waits this long for each node in it, and [`SAVE_AFTER`] more: a large one is written rarely.
const SAVE_EACH: Duration = Duration::from_millis(2);
/// See [`SAVE_EACH`].
const SAVE_AFTER: Duration = Duration::from_millis(500);
/// Offences within this time are written together. A node that is killed forgets those of the last seconds.
const SAVE_SCORES_AFTER: Duration = Duration::from_secs(2);

/// A file against what it is to hold.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) read: bool,
    pub(super) saving: bool,
    pub(super) behind: bool,
    /// Adverts that say the same as those on the disk, but are younger.
    refreshed: usize,
}

/// A book is written for nodes that are new or elsewhere, or when one in so many has been refreshed: writing costs as much as the whole
/// book, and of what is the same a node that starts anew is told by its neighbours.
const REFRESHED_OF: usize = 4;

impl Disk {
    /// An advert of a book of so many was replaced by a younger one that says the same.
    pub(super) fn on_refreshed(&mut self, book: usize) {
        self.refreshed += 1;
        self.behind |= self.refreshed * REFRESHED_OF >= book;
    }

    /// Begins a write, if one is due.
    fn begin(&mut self) -> bool {
        let begins = self.read && self.behind && !self.saving;
        self.saving |= begins;
        begins
    }
}

impl Herald {
    pub(super) fn save(&mut self, cx: &mut Cx<Self>) {
        if !self.disk.begin() {
            return;
        }
        let nodes = u32::try_from(self.book.len()).unwrap_or(u32::MAX);
        let wait = SAVE_AFTER + SAVE_EACH.saturating_mul(nodes);
        cx.after(wait, |herald, cx| {
            herald.disk.behind = false;
            herald.disk.refreshed = 0;
            let items: Vec<Bytes> = (herald.book.iter())
                .map(|(_, signed)| signed.to_wire())
                .collect();
            let shelf = herald.config.shelf.clone();
            cx.offload(
                move || shelf.save(Kind::Adverts, &items),
                |herald, saved, cx| {
                    herald.disk.saving = false;
                    match saved {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::warn!(%error, "the peer book is not kept"),
                        Err(error) => tracing::warn!(%error, "the peer book is not kept"),
                    }
                    herald.save(cx);
                },
            );
        });
    }

    pub(super) fn save_scores(&mut self, cx: &mut Cx<Self>) {
        if self.scores_disk.begin() {
            cx.after(SAVE_SCORES_AFTER, Self::write_scores);
        }
    }

    fn write_scores(&mut self, cx: &mut Cx<Self>) {
        self.scores_disk.behind = false;
        let kept = self.scores.keep(cx.now(), cx.wall_ms());
        let items: Vec<Bytes> = kept
            .map(|kept| Bytes::copy_from_slice(&kept.to_bytes()))
            .collect();
        let shelf = self.config.shelf.clone();
        cx.offload(
            move || shelf.save(Kind::Scores, &items),
            |herald, saved, cx| {
                herald.scores_disk.saving = false;
                match saved {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "scores are not kept"),
                    Err(error) => tracing::warn!(%error, "scores are not kept"),
                }
                herald.save_scores(cx);
            },
        );
    }

    pub(super) fn on_loaded(&mut self, loaded: Loaded, cx: &mut Cx<Self>) {
        match loaded.book {
            Ok(adverts) => {
                tracing::info!(peers = adverts.len(), "peer book read");
                for signed in adverts {
                    self.book.recall(signed);
                }
            }
            Err(error) => tracing::warn!(%error, "the peer book begins anew"),
        }
        match loaded.scores {
            Ok(scores) => {
                for kept in scores {
                    self.scores.recall(kept, cx.now(), cx.wall_ms());
                }
            }
            Err(error) => tracing::warn!(%error, "scores begin anew"),
        }
        self.disk.read = true;
        self.scores_disk.read = true;
        self.sweep(cx);
        self.save_scores(cx);
    }
}

/// What was kept.
pub(super) struct Loaded {
    book: Result<Vec<SignedAdvert>, ShelfError>,
    scores: Result<Vec<Kept>, ShelfError>,
}

pub(super) fn load(shelf: &Shelf, network_id: &[u8; 32]) -> Loaded {
    let scores = shelf.load(Kind::Scores).map(|items| {
        let read = items.iter().filter_map(|item| Kept::from_bytes(item));
        read.take(MAX_SCORED).collect()
    });
    Loaded {
        book: load_book(shelf, network_id),
        scores,
    }
}

/// Reads a peer book. Signatures are checked again; leases need not hold, since an old address is worth a try.
fn load_book(shelf: &Shelf, network_id: &[u8; 32]) -> Result<Vec<SignedAdvert>, ShelfError> {
    let items = shelf.load(Kind::Adverts)?;
    let read = items.into_iter().filter_map(|item| {
        let signed = SignedAdvert::from_wire(item).ok()?;
        let then = signed.advert.issued_at_ms;
        let verified = signed.verify(network_id, then);
        verified.is_ok().then_some(signed)
    });
    Ok(read.take(MAX_HAVE).collect())
}
