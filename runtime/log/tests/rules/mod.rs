//! What every [`ShardLog`] must do, written against the trait. Each implementation has a [`Fixture`] and runs every rule, on a fresh, empty log each;
//! the simulator's disk does so too.
#![allow(dead_code, reason = "each test binary runs its rules")]

use std::sync::Arc;

use bytes::Bytes;
use pqcnet_log::seek::{self, Extent};
use pqcnet_log::{
    AppendBatch, AppendError, Base, LogError, ProducerMark, ReadRequest, ShardLog, ShardNo,
};

use crate::support::{A, B, all_of, batch, head, read, texts};

/// Hands the name of every rule to a macro.
macro_rules! every_rule {
    ($with:ident) => {
        $with! {
            entries_come_back_in_order,
            channels_and_shards_are_apart,
            reads_are_bounded,
            heads_tell_all_that_is_stored,
            marks_are_dropped_with_the_batch,
            nobody_appends_without_opening,
            an_open_fences_and_settles,
            the_later_of_two_opens_wins,
            holes_are_refused,
            one_append_at_a_time,
            an_abandoned_append_ends_the_generation,
            generations_rise_and_keep_their_salts,
            trim_keeps_offsets,
            a_time_is_found,
            a_copy_is_stored_as_it_was,
            what_is_discarded_is_gone,
        }
    };
}

#[macro_use]
pub mod limits;

const S: ShardNo = ShardNo(7);

/// An implementation under test.
pub trait Fixture: Sized {
    /// The log.
    fn log(&self) -> Arc<dyn ShardLog>;
    /// The same log after its process ended and started again.
    async fn restarted(self) -> Self;
}

// Two batches; the offsets are 1 to 5 and reading starts after any of them, also after a restart.
pub async fn entries_come_back_in_order(fixture: impl Fixture) {
    let log = fixture.log();
    let generation = log.open(S, [0; 16]).await.unwrap().generation;
    log.append(batch(S, generation, A, 0, &["a", "b"]))
        .unwrap()
        .await
        .unwrap();
    log.append(batch(S, generation, A, 2, &["c", "", "e"]))
        .unwrap()
        .await
        .unwrap();
    drop(log);
    let fixture = fixture.restarted().await;
    let log = fixture.log();
    let all: Vec<_> = ["a", "b", "c", "", "e"]
        .map(str::to_owned)
        .into_iter()
        .enumerate()
        .map(|(i, t)| (i as u64 + 1, t))
        .collect();
    for after in 0..=6 {
        let wanted: Vec<_> = all.iter().filter(|(o, _)| *o > after).cloned().collect();
        assert_eq!(read(&*log, S, A, after).await.unwrap(), wanted);
    }
}

// The same channel name in the next shard, and another channel in this one, see nothing of it.
pub async fn channels_and_shards_are_apart(fixture: impl Fixture) {
    let log = fixture.log();
    for shard in [ShardNo(6), S, ShardNo(8), ShardNo(u16::MAX)] {
        let generation = log.open(shard, [0; 16]).await.unwrap().generation;
        let text = shard.0.to_string();
        log.append(batch(shard, generation, A, 0, &[&text]))
            .unwrap()
            .await
            .unwrap();
    }
    for shard in [ShardNo(6), S, ShardNo(8), ShardNo(u16::MAX)] {
        assert_eq!(
            read(&*log, shard, A, 0).await.unwrap(),
            [(1, shard.0.to_string())]
        );
        assert_eq!(log.heads(shard).await.unwrap().len(), 1);
        assert_eq!(read(&*log, shard, B, 0).await.unwrap(), []);
    }
}

// Records and bytes are limits; one entry comes even when it alone exceeds the bytes; none when none are asked for.
pub async fn reads_are_bounded(fixture: impl Fixture) {
    let log = fixture.log();
    let generation = log.open(S, [0; 16]).await.unwrap().generation;
    log.append(batch(S, generation, A, 0, &["aaaa", "bbbb", "cccc"]))
        .unwrap()
        .await
        .unwrap();
    for (max_records, max_bytes, wanted) in [
        (2, 100, 2),
        (9, 8, 2),
        (9, 11, 2),
        (9, 12, 3),
        (9, 1, 1),
        (0, 100, 0),
    ] {
        let request = ReadRequest {
            max_records,
            max_bytes,
            ..all_of(S, A, 0)
        };
        let found = log.read(request).await.unwrap();
        assert_eq!(
            texts(&found).len(),
            wanted,
            "{max_records} records, {max_bytes} bytes"
        );
    }
}

// Two producers in one channel, something stored about it; another channel with only that.
pub async fn heads_tell_all_that_is_stored(fixture: impl Fixture) {
    let log = fixture.log();
    let generation = log.open(S, [0; 16]).await.unwrap().generation;
    assert_eq!(log.heads(S).await.unwrap(), []);
    let mut first = AppendBatch::new(S, generation);
    let slot = first.channel(A, Base::default());
    for (epoch, sequence) in [(5, 1), (9, 1), (5, 2)] {
        first.push(slot, (epoch, sequence), 70 + sequence, |_, out| {
            out.extend_from_slice(b"xyz")
        });
    }
    first.set_about(slot, Bytes::from_static(b"about a"));
    let slot = first.channel(B, Base::default());
    first.set_about(slot, Bytes::from_static(b"about b"));
    log.append(first).unwrap().await.unwrap();
    drop(log);
    let fixture = fixture.restarted().await;
    let log = fixture.log();
    let a = head(&*log, S, A).await.unwrap();
    assert_eq!(
        (a.first, a.head, a.bytes, a.newest_ms, a.forgotten_epoch),
        (1, 3, 9, 72, 0)
    );
    let five = ProducerMark {
        epoch: 5,
        sequence: 2,
        offset: 3,
    };
    let nine = ProducerMark {
        epoch: 9,
        sequence: 1,
        offset: 2,
    };
    assert_eq!(a.producers, [five, nine]);
    assert_eq!(a.about.as_deref(), Some(&b"about a"[..]));
    let b = head(&*log, S, B).await.unwrap();
    assert_eq!((b.first, b.head, b.producers.len()), (1, 0, 0));
    assert_eq!(b.about.as_deref(), Some(&b"about b"[..]));
}

// A mark is dropped in the batch that makes room; its epoch stays known as the highest ever dropped.
pub async fn marks_are_dropped_with_the_batch(fixture: impl Fixture) {
    let log = fixture.log();
    let generation = log.open(S, [0; 16]).await.unwrap().generation;
    log.append(batch(S, generation, A, 0, &["a"]))
        .unwrap()
        .await
        .unwrap();
    let mut next = AppendBatch::new(S, generation);
    let slot = next.channel(
        A,
        Base {
            head: 1,
            ..Base::default()
        },
    );
    next.push(slot, (2, 1), 0, |_, out| out.push(b'b'));
    next.forget(slot, 1);
    log.append(next).unwrap().await.unwrap();
    let a = head(&*log, S, A).await.unwrap();
    assert_eq!(
        a.producers,
        [ProducerMark {
            epoch: 2,
            sequence: 1,
            offset: 2
        }]
    );
    assert_eq!(a.forgotten_epoch, 1);
}

pub async fn nobody_appends_without_opening(fixture: impl Fixture) {
    let log = fixture.log();
    let refused = log.append(batch(S, 1, A, 0, &["a"])).err().unwrap();
    assert!(
        matches!(
            refused,
            AppendError::Fenced {
                shard: S,
                generation: 1
            }
        ),
        "{refused}"
    );
}

// A writer has an append under way while its successor opens: the append settles first, the successor sees it, and
// the first writer is out.
pub async fn an_open_fences_and_settles(fixture: impl Fixture) {
    let log = fixture.log();
    let first = log.open(S, [0; 16]).await.unwrap().generation;
    let under_way = log.append(batch(S, first, A, 0, &["a", "b"])).unwrap();
    let second = log.open(S, [1; 16]).await.unwrap().generation;
    assert_eq!(head(&*log, S, A).await.unwrap().head, 2);
    under_way.await.unwrap();
    let refused = log.append(batch(S, first, A, 2, &["c"])).err().unwrap();
    assert!(matches!(refused, AppendError::Fenced { .. }), "{refused}");
    log.append(batch(S, second, A, 2, &["c"]))
        .unwrap()
        .await
        .unwrap();
    assert_eq!(read(&*log, S, A, 2).await.unwrap(), [(3, "c".to_owned())]);
}

// Two open the shard at once: the earlier call is told so, the later one holds it.
pub async fn the_later_of_two_opens_wins(fixture: impl Fixture) {
    let log = fixture.log();
    let (earlier, later) = (log.open(S, [1; 16]), log.open(S, [2; 16]));
    let (earlier, later) = futures::join!(earlier, later);
    assert_eq!(earlier, Err(LogError::Superseded { shard: S }));
    let generation = later.unwrap().generation;
    log.append(batch(S, generation, A, 0, &["a"]))
        .unwrap()
        .await
        .unwrap();
}

// Offset 1 is next; 3 is a hole and 1 again a repeat. Nothing of them is stored and the generation goes on.
pub async fn holes_are_refused(fixture: impl Fixture) {
    let log = fixture.log();
    let generation = log.open(S, [0; 16]).await.unwrap().generation;
    let refused = log
        .append(batch(S, generation, A, 2, &["c"]))
        .err()
        .unwrap();
    assert!(
        matches!(
            refused,
            AppendError::NotNext {
                expected: 1,
                got: 3,
                ..
            }
        ),
        "{refused}"
    );
    log.append(batch(S, generation, A, 0, &["a"]))
        .unwrap()
        .await
        .unwrap();
    let refused = log
        .append(batch(S, generation, A, 0, &["a"]))
        .err()
        .unwrap();
    assert!(
        matches!(
            refused,
            AppendError::NotNext {
                expected: 2,
                got: 1,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(read(&*log, S, A, 0).await.unwrap().len(), 1);
}

pub async fn one_append_at_a_time(fixture: impl Fixture) {
    let log = fixture.log();
    let generation = log.open(S, [0; 16]).await.unwrap().generation;
    let first = log.append(batch(S, generation, A, 0, &["a"])).unwrap();
    let refused = log
        .append(batch(S, generation, A, 1, &["b"]))
        .err()
        .unwrap();
    assert!(
        matches!(refused, AppendError::UnderWay { shard: S }),
        "{refused}"
    );
    first.await.unwrap();
    log.append(batch(S, generation, A, 1, &["b"]))
        .unwrap()
        .await
        .unwrap();
}

// Nobody waits for the append's fate, so its writer cannot know where the channel continues: open again.
pub async fn an_abandoned_append_ends_the_generation(fixture: impl Fixture) {
    let log = fixture.log();
    let generation = log.open(S, [0; 16]).await.unwrap().generation;
    drop(log.append(batch(S, generation, A, 0, &["a"])).unwrap());
    let refused = log
        .append(batch(S, generation, A, 1, &["b"]))
        .err()
        .unwrap();
    assert!(matches!(refused, AppendError::Fenced { .. }), "{refused}");
    log.open(S, [0; 16]).await.unwrap();
    assert_eq!(read(&*log, S, A, 0).await.unwrap(), [(1, "a".to_owned())]);
}

pub async fn generations_rise_and_keep_their_salts(fixture: impl Fixture) {
    let log = fixture.log();
    let first = log.open(S, [1; 16]).await.unwrap();
    let second = log.open(S, [2; 16]).await.unwrap();
    drop(log);
    let fixture = fixture.restarted().await;
    let third = fixture.log().open(S, [3; 16]).await.unwrap();
    assert!(first.generation < second.generation && second.generation < third.generation);
    assert_eq!(
        third.salts,
        [
            (first.generation, [1; 16]),
            (second.generation, [2; 16]),
            (third.generation, [3; 16]),
        ]
    );
}

// Five entries, trimmed up to 3, then beyond the head: what is left keeps its offset, and the next continues.
pub async fn trim_keeps_offsets(fixture: impl Fixture) {
    let log = fixture.log();
    let generation = log.open(S, [0; 16]).await.unwrap().generation;
    log.append(batch(S, generation, A, 0, &["a", "b", "c", "d", "e"]))
        .unwrap()
        .await
        .unwrap();
    log.trim(S, A, 3).await.unwrap();
    log.trim(S, A, 2).await.unwrap();
    assert_eq!(
        read(&*log, S, A, 0).await.unwrap(),
        [(4, "d".to_owned()), (5, "e".to_owned())]
    );
    log.trim(S, A, 99).await.unwrap();
    assert_eq!(read(&*log, S, A, 0).await.unwrap(), []);
    log.append(batch(S, generation, A, 5, &["f"]))
        .unwrap()
        .await
        .unwrap();
    drop(log);
    let fixture = fixture.restarted().await;
    let log = fixture.log();
    assert_eq!(read(&*log, S, A, 0).await.unwrap(), [(6, "f".to_owned())]);
    let a = head(&*log, S, A).await.unwrap();
    assert_eq!((a.first, a.head), (6, 6));
    log.trim(ShardNo(1), B, 1).await.unwrap();
    assert!(
        matches!(read(&*log, ShardNo(1), B, 0).await, Ok::<_, LogError>(empty) if empty.is_empty())
    );
}

// Six entries at 10, 20, 20, 20, 30 and 40 ms, the first trimmed: replay from a time starts with the first entry of that
// time, wherever in the channel it is; from beyond the end there is nothing yet.
pub async fn a_time_is_found(fixture: impl Fixture) {
    let log = fixture.log();
    let generation = log.open(S, [0; 16]).await.unwrap().generation;
    let times = ["10", "20", "20", "20", "30", "40"];
    log.append(batch(S, generation, A, 0, &times))
        .unwrap()
        .await
        .unwrap();
    log.trim(S, A, 1).await.unwrap();
    let extent = Extent {
        shard: S,
        channel: A,
        first: 2,
        head: 6,
    };
    for (at, wanted) in [(0, 1), (11, 1), (20, 1), (21, 4), (30, 4), (40, 5), (41, 6)] {
        let time = |_, text: &mut [u8]| std::str::from_utf8(text).ok()?.parse().ok();
        let found = seek::before(&*log, extent, at, time).await;
        assert_eq!(found, Ok(wanted), "from {at} ms");
    }
    let nothing = Extent { head: 1, ..extent };
    assert_eq!(seek::before(&*log, nothing, 5, |_, _| None).await, Ok(1));
    let closed = seek::before(&*log, extent, 5, |_, _| None).await;
    assert!(
        matches!(closed, Err(LogError::Damaged { offset: 4, .. })),
        "{closed:?}"
    );
}

// A copy of a channel whose front is gone and whose producers are elsewhere: entries 4 and 5 without a producer, then the marks, of which one is
// dropped later, and the numbers as they were there. Another channel has marks and no entry left. The next entry goes on behind both.
pub async fn a_copy_is_stored_as_it_was(fixture: impl Fixture) {
    let log = fixture.log();
    let generation = log.open_above(S, [0; 16], 41).await.unwrap().generation;
    assert!(generation > 41, "{generation}");
    let mark = |epoch, sequence, offset| ProducerMark {
        epoch,
        sequence,
        offset,
    };
    let at = |head| Base {
        head,
        ..Base::default()
    };
    let was = Base {
        head: 5,
        bytes: 500,
        forgotten_epoch: 2,
        newest_ms: 77,
    };
    let mut copy = AppendBatch::new(S, generation);
    let slot = copy.channel(A, at(3));
    copy.skip_to_base(slot);
    for text in [b"d", b"e"] {
        copy.push_copy(slot, 70, |_, out| out.extend_from_slice(text));
    }
    copy.mark(slot, mark(3, 9, 1));
    copy.mark(slot, mark(4, 2, 5));
    copy.settle_as(slot, was);
    let gone = copy.channel(B, at(9));
    copy.skip_to_base(gone);
    copy.mark(gone, mark(6, 9, 9));
    copy.settle_as(gone, Base { head: 9, ..was });
    log.append(copy).unwrap().await.unwrap();
    let mut next = AppendBatch::new(S, generation);
    let slot = next.channel(A, was);
    next.push(slot, (4, 3), 80, |_, out| out.push(b'f'));
    next.forget(slot, 3);
    log.append(next).unwrap().await.unwrap();
    let mut next = AppendBatch::new(S, generation);
    let slot = next.channel(B, Base { head: 9, ..was });
    next.push(slot, (6, 10), 80, |_, out| out.push(b'j'));
    log.append(next).unwrap().await.unwrap();
    drop(log);
    let fixture = fixture.restarted().await;
    let log = fixture.log();
    let texts = |of: &[(u64, &str)]| of.iter().map(|(o, t)| (*o, (*t).to_owned())).collect();
    let wanted: Vec<(u64, String)> = texts(&[(4, "d"), (5, "e"), (6, "f")]);
    assert_eq!(read(&*log, S, A, 0).await.unwrap(), wanted);
    assert_eq!(read(&*log, S, A, 4).await.unwrap(), wanted[1..]);
    let wanted: Vec<(u64, String)> = texts(&[(10, "j")]);
    assert_eq!(read(&*log, S, B, 0).await.unwrap(), wanted);
    let a = head(&*log, S, A).await.unwrap();
    assert_eq!(
        (a.first, a.head, a.bytes, a.newest_ms, a.forgotten_epoch),
        (4, 6, 501, 80, 3)
    );
    assert_eq!(a.producers, [mark(4, 3, 6)]);
    let b = head(&*log, S, B).await.unwrap();
    assert_eq!((b.first, b.head), (10, 10));
    assert_eq!(b.producers, [mark(6, 10, 10)]);
}

/// Discards a shard; again while the log is busy, as whoever gave it away does.
async fn discarded(log: &dyn ShardLog, shard: ShardNo) {
    while let Err(error) = log.discard(shard).await {
        assert_eq!(error, LogError::Busy);
    }
}

// A shard that was given away goes: nothing of it is told or read, whoever had it open is out, and its neighbour stays. It comes again under a higher
// generation, from its first offset on, and goes again, also right after a restart.
pub async fn what_is_discarded_is_gone(fixture: impl Fixture) {
    let mut fixture = fixture;
    let (other, mut last) = (ShardNo(8), 0);
    let log = fixture.log();
    let beside = log.open(other, [0; 16]).await.unwrap().generation;
    let stays = log.append(batch(other, beside, A, 0, &["stays"]));
    stays.unwrap().await.unwrap();
    discarded(&*log, ShardNo(9)).await;
    drop(log);
    for text in ["first", "second", "third"] {
        let log = fixture.log();
        let generation = log.open(S, [0; 16]).await.unwrap().generation;
        assert!(generation > last, "{generation}, {last}");
        last = generation;
        assert_eq!(log.heads(S).await.unwrap(), []);
        log.append(batch(S, generation, A, 0, &[text, "x"]))
            .unwrap()
            .await
            .unwrap();
        assert_eq!(read(&*log, S, A, 0).await.unwrap()[0], (1, text.to_owned()));
        drop(log);
        fixture = fixture.restarted().await;
        let log = fixture.log();
        if text == "second" {
            let again = log.open(S, [0; 16]).await.unwrap().generation;
            last = again;
            discarded(&*log, S).await;
            let refused = log.append(batch(S, again, A, 2, &["late"])).err().unwrap();
            assert!(matches!(refused, AppendError::Fenced { .. }), "{refused}");
        } else {
            discarded(&*log, S).await;
        }
        assert_eq!(log.heads(S).await.unwrap(), []);
        assert_eq!(read(&*log, S, A, 0).await.unwrap(), []);
        discarded(&*log, S).await;
        assert_eq!(
            read(&*log, other, A, 0).await.unwrap(),
            [(1, "stays".to_owned())]
        );
    }
}
