//! Producers that lie: about sequences, epochs and sizes. Each is told what is wrong, and nothing is stored that should not be.

use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use pqcnet_crypto::NodeKeys;
use pqcnet_link::{Addressed, Role, ServiceId, Wire as _};
use pqcnet_messages::{Channel, ChannelName, MAX_CHANNEL_NAME, MAX_PAYLOAD, Refusal, edge, relay};
use pqcnet_p2p::typed::LinkHandle;
use pqcnet_protos::link::v1::{self as pb, frame::Kind};

use crate::siege::{PATIENCE, SOON, Siege, ask, frame};

/// A client whose every number is its own choice.
struct Liar {
    link: LinkHandle,
    channel: Channel,
}

impl Liar {
    async fn attached(siege: &Siege, keys: &Arc<NodeKeys>, name: &str) -> Result<Liar> {
        let link = siege.link(keys, Role::Client, siege.sentry()).await?;
        let grant = siege.grant(keys, siege.sentry().id, 0);
        let attached = link.remote().ask(edge::Attach { grant }, SOON).await?;
        attached.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        let channel = Channel {
            owner: keys.node_id(),
            name: ChannelName::new(name)?,
        };
        Ok(Liar { link, channel })
    }

    async fn epoch(&self, supersedes: Option<u64>) -> Result<u64> {
        let open = edge::OpenProducer {
            channel: self.channel.clone(),
            supersedes,
        };
        // A shard that was just started may still be opening its log.
        let opened = async {
            loop {
                match self.link.remote().ask(open.clone(), SOON).await? {
                    Ok(opened) => break Ok(opened.epoch),
                    Err(refusal) if refusal.is_retryable() => tokio::task::yield_now().await,
                    Err(refusal) => break Err(anyhow::anyhow!("{refusal}")),
                }
            }
        };
        tokio::time::timeout(PATIENCE, opened).await?
    }

    /// What the relayer says to sequences `first_seq ..` of an epoch.
    async fn publish(
        &self,
        epoch: u64,
        first_seq: u64,
        texts: &[&str],
    ) -> Result<Result<(u64, u64), Refusal>> {
        let payloads = texts
            .iter()
            .map(|text| Bytes::copy_from_slice(text.as_bytes()));
        let publish = edge::Publish {
            channel: self.channel.clone(),
            epoch,
            first_seq,
            payloads: payloads.collect(),
        };
        let answer = self.link.remote().ask(publish, SOON).await?;
        Ok(answer.map(|stored| (stored.last_seq, stored.last_offset)))
    }
}

/// A producer skips a sequence, repeats one with another text, goes on under an epoch that it gave up, makes one up, and uses the
/// one of another channel: each is refused by name or answered as the repeat that it is, and the channel holds exactly what was
/// acknowledged, once, in order. Its link and session live on.
#[tokio::test(flavor = "multi_thread")]
async fn lies_about_sequences() -> Result<()> {
    let mut siege = Siege::lay(1).await?;
    let keys = Arc::new(NodeKeys::generate());
    let liar = Liar::attached(&siege, &keys, "lies").await?;
    let first = liar.epoch(None).await?;
    let gap = |expected| Err(Refusal::Gap { expected });
    assert_eq!(liar.publish(first, 2, &["skipped"]).await?, gap(1));
    assert_eq!(liar.publish(first, 1, &["a", "b"]).await?, Ok((2, 2)));
    // A repeat is known by its number; what it holds is not looked at, and not stored.
    assert_eq!(liar.publish(first, 1, &["x", "y"]).await?, Ok((2, 2)));
    assert_eq!(liar.publish(first, 2, &["z"]).await?, Ok((2, 2)));
    assert_eq!(liar.publish(first, 4, &["skipped"]).await?, gap(3));
    assert_eq!(liar.publish(first, u64::MAX - 1, &["far"]).await?, gap(3));
    // One that overlaps adds what is new.
    assert_eq!(liar.publish(first, 2, &["z", "c"]).await?, Ok((3, 3)));

    let second = liar.epoch(Some(first)).await?;
    ensure!(second > first);
    let stale = Err(Refusal::StaleEpoch);
    assert_eq!(liar.publish(first, 4, &["late"]).await?, stale);
    assert_eq!(liar.publish(first, 1, &["a", "b"]).await?, stale);
    let unknown = Err(Refusal::UnknownProducer);
    assert_eq!(liar.publish(second + 1, 1, &["made up"]).await?, unknown);
    assert_eq!(liar.publish(u64::MAX, 1, &["made up"]).await?, unknown);
    assert_eq!(liar.publish(second, 2, &["skipped"]).await?, gap(1));
    assert_eq!(liar.publish(second, 1, &["d"]).await?, Ok((1, 4)));

    // Somebody else's epoch, in one's own channel: numbers of two channels say nothing of each other.
    let others = Arc::new(NodeKeys::generate());
    let other = Liar::attached(&siege, &others, "lies").await?;
    let mut theirs = other.epoch(None).await?;
    if theirs == second {
        // Two shards count alike: that number would be the liar's own.
        theirs = other.epoch(Some(theirs)).await?;
    }
    assert_eq!(other.publish(theirs, 1, &["mine"]).await?, Ok((1, 1)));
    let borrowed = liar.publish(theirs, 2, &["borrowed"]).await?;
    ensure!(
        matches!(
            borrowed,
            Err(Refusal::UnknownProducer | Refusal::Gap { .. } | Refusal::StaleEpoch)
        ),
        "{borrowed:?}"
    );
    // In the other's channel it may not publish at all, under whichever epoch.
    let publish = edge::Publish {
        channel: other.channel.clone(),
        epoch: theirs,
        first_seq: 2,
        payloads: vec![Bytes::from_static(b"forged")],
    };
    let forged = liar.link.remote().ask(publish, SOON).await?;
    assert_eq!(forged, Err(Refusal::NotAllowed));

    for (keys, wanted) in [(&keys, &["a", "b", "c", "d"][..]), (&others, &["mine"][..])] {
        let reader = siege.network.client(keys).await?;
        let own = reader.channel(ChannelName::new("lies")?);
        let mut records = reader.subscribe(&own, 0).await?;
        for (text, offset) in wanted.iter().zip(1..) {
            let record = records.next().await?;
            assert_eq!(
                (record.offset, &record.payload[..]),
                (offset, text.as_bytes())
            );
        }
        // Nothing stands behind them: the next is the next.
        let next = reader.publish(&own.name, "next").await?;
        assert_eq!(next.offset, Some(wanted.len() as u64 + 1));
        assert_eq!(&records.next().await?.payload[..], b"next");
    }
    siege.still_serves("a producer that lies").await?;
    siege.lift().await
}

/// A payload over 64 KiB, a batch over 1 MiB, one of 513 messages, none at all, and sequences from 0: the sentry ends the link
/// and says that the payload is bad. Frames larger than a link allows are not even read. The largest that is allowed is stored.
#[tokio::test(flavor = "multi_thread")]
async fn oversized_payloads() -> Result<()> {
    let mut siege = Siege::lay(1).await?;
    let keys = Arc::new(NodeKeys::generate());
    let liar = Liar::attached(&siege, &keys, "sizes").await?;
    let epoch = liar.epoch(None).await?;
    let publish = |first_seq, payloads: Vec<Bytes>| edge::Publish {
        channel: liar.channel.clone(),
        epoch,
        first_seq,
        payloads,
    };
    let full = || Bytes::from(vec![7; MAX_PAYLOAD]);
    let oversized = || {
        [
            publish(1, vec![Bytes::from(vec![7; MAX_PAYLOAD + 1])]),
            publish(
                1,
                vec![Bytes::from(vec![7; MAX_PAYLOAD]); 16]
                    .into_iter()
                    .chain([Bytes::from_static(b"x")])
                    .collect(),
            ),
            publish(1, vec![Bytes::from_static(b"x"); 513]),
            publish(1, Vec::new()),
            publish(0, vec![Bytes::from_static(b"x")]),
        ]
    };
    for wrong in oversized() {
        let mut raw = siege.attached().await?;
        let mut bad = ask(2, ServiceId::EDGE.0);
        bad.r#type = <edge::Publish as Addressed>::TYPE;
        bad.payload = wrong.to_wire();
        raw.send(&frame(Kind::Ask(bad))).await?;
        let down = raw.down().await?;
        assert_eq!(
            (down.stage(), down.reason()),
            (pb::Stage::Open, pb::Reason::BadPayload),
            "{down:?}"
        );
    }
    let mut raw = siege.attached().await?;
    let mut huge = ask(2, ServiceId::EDGE.0);
    huge.r#type = <edge::Publish as Addressed>::TYPE;
    huge.payload = Bytes::from(vec![7; 2 << 20]);
    raw.send(&frame(Kind::Ask(huge))).await?;
    assert_eq!(raw.down().await?.reason(), pb::Reason::FrameTooLarge);

    // The liar's own link is as it was, and what is just small enough is stored.
    let most = publish(1, vec![full(); 16]);
    let stored = liar.link.remote().ask(most, SOON).await?;
    assert_eq!(
        stored.map(|stored| (stored.last_seq, stored.last_offset)),
        Ok((16, 16))
    );
    assert_eq!(liar.publish(epoch, 17, &["last"]).await?, Ok((17, 17)));
    siege.still_serves("oversized payloads").await?;
    siege.lift().await
}

/// A sentry that erred passes on what it should have stopped: a payload over 64 KiB, publishes of more than 1 MiB, of 513 messages, of none, and from
/// sequence 0. The relayer ends each of its links and says that the payload is bad; nothing of it is stored, and after the fourth the sentry is not let
/// in for a while. The other sentry's clients notice nothing.
///
/// No client can make an honest sentry send such a thing: clients brought all the same kinds first, lost their own links, and the sentry's link to the
/// relayer is the one it had, also behind the largest that is allowed, in a channel of the longest name.
#[tokio::test(flavor = "multi_thread")]
async fn oversized_payloads_from_a_sentry() -> Result<()> {
    let mut siege = Siege::lay(2).await?;
    let keys = Arc::new(NodeKeys::generate());
    let longest = "n".repeat(MAX_CHANNEL_NAME);
    let honest = Liar::attached(&siege, &keys, &longest).await?;
    let (channel, epoch) = (&honest.channel, honest.epoch(None).await?);
    let batches = || {
        let (full, small) = (Bytes::from(vec![7; MAX_PAYLOAD]), Bytes::from_static(b"x"));
        [
            (1, vec![Bytes::from(vec![7; MAX_PAYLOAD + 1])]),
            (1, [vec![full; 16], vec![small.clone()]].concat()),
            (1, vec![small.clone(); 513]),
            (1, Vec::new()),
            (0, vec![small]),
        ]
    };
    for (first_seq, payloads) in batches() {
        let doomed = Liar::attached(&siege, &Arc::new(NodeKeys::generate()), "sizes").await?;
        let publish = edge::Publish {
            channel: doomed.channel.clone(),
            epoch: doomed.epoch(None).await?,
            first_seq,
            payloads,
        };
        let lost = doomed.link.remote().ask(publish, SOON).await;
        ensure!(lost.is_err(), "{lost:?}");
        let down = doomed.link.closed().await;
        ensure!(format!("{down:?}").contains("BadPayload"), "{down:?}");
    }
    let most = vec![Bytes::from(vec![7; MAX_PAYLOAD / 32]); 512];
    let publish = edge::Publish {
        channel: channel.clone(),
        epoch,
        first_seq: 1,
        payloads: most,
    };
    let stored = honest.link.remote().ask(publish, SOON).await?;
    let stored = stored.map(|stored| (stored.last_seq, stored.last_offset));
    assert_eq!(stored, Ok((512, 512)));
    let log = siege.relayer().log();
    ensure!(!log.contains("bad payload"), "{log}");

    let other = siege.network.node(Role::Sentry, 2);
    other.stop().await?;
    let identity = Arc::new(other.secrets()?.keys);
    for (first_seq, payloads) in batches().into_iter().take(4) {
        let link = siege.link(&identity, Role::Sentry, siege.relayer()).await?;
        let grant = siege.grant(&keys, other.id, 0);
        let opened = link
            .remote()
            .ask(relay::OpenSession { grant }, SOON)
            .await?;
        let opened = opened.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        let publish = relay::RelayPublish {
            session: opened.session,
            channel: channel.clone(),
            epoch,
            first_seq: first_seq + 512,
            payloads,
        };
        let lost = link.remote().ask(publish, SOON).await;
        ensure!(lost.is_err(), "{lost:?}");
        let down = link.closed().await;
        ensure!(format!("{down:?}").contains("BadPayload"), "{down:?}");
    }
    siege.relayer().says("banned").await?;
    let refused = siege.link(&identity, Role::Sentry, siege.relayer()).await;
    ensure!(refused.is_err(), "it is let in");
    // Nothing of all that is in the channel, and its producer goes on.
    let stored = honest.publish(epoch, 513, &["next"]).await?;
    assert_eq!(stored, Ok((513, 513)));
    siege
        .still_serves("oversized payloads from a sentry")
        .await?;
    siege.lift().await
}
