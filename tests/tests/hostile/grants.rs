//! What grants open, and what they do not.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use pqcnet_actor::AskError;
use pqcnet_crypto::NodeKeys;
use pqcnet_link::Role;
use pqcnet_messages::{Channel, Grant, Refusal, Series, edge, relay};

use crate::siege::{PATIENCE, SOON, Siege, channel};

/// Grants of others, for others, expired, forged; and channels of others, by clients and by a sentry that knows a session's
/// number but not the customer.
#[tokio::test(flavor = "multi_thread")]
async fn in_anothers_name() -> Result<()> {
    let mut siege = Siege::lay(2).await?;
    let (first, second) = (siege.sentry().id, siege.network.node(Role::Sentry, 2).id);
    let mallory = Arc::new(NodeKeys::generate());
    let victim = siege.customer.clone();
    let mut forged = siege.grant(&mallory, first, 0);
    forged.customer = victim.public().clone();
    let mut stretched = siege.grant(&mallory, first, 0);
    stretched.lifetime_ms += 1;
    let mut far = siege.grant(&mallory, first, 0);
    far.network_id = [1; 32];
    let bad = [
        siege.grant(&victim, first, 0),
        siege.grant(&mallory, second, 0),
        siege.grant(&mallory, first, 60_000),
        forged.clone(),
        stretched.clone(),
        far,
    ];
    let link = siege.link(&mallory, Role::Client, siege.sentry()).await?;
    let attach = link.remote::<edge::Attach>();
    for grant in bad {
        let refused = attach.ask(edge::Attach { grant }, SOON).await?;
        assert_eq!(refused, Err(Refusal::BadGrant));
    }
    let theirs = Channel {
        owner: victim.node_id(),
        name: channel(),
    };
    let open = edge::OpenProducer {
        channel: theirs.clone(),
        supersedes: None,
    };
    let early = link.remote::<edge::OpenProducer>();
    let early = early.ask(open.clone(), SOON).await;
    assert_eq!(early, Err(AskError::Refused("no valid grant".into())));
    let grant = siege.grant(&mallory, first, 0);
    attach
        .ask(edge::Attach { grant }, SOON)
        .await?
        .map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let opened = link.remote::<edge::OpenProducer>().ask(open, SOON).await?;
    assert_eq!(opened, Err(Refusal::NotAllowed));
    let publish = edge::Publish {
        channel: theirs.clone(),
        epoch: 1,
        first_seq: 1,
        payloads: vec![Bytes::from_static(b"forged")],
    };
    let published = link.remote::<edge::Publish>().ask(publish, SOON).await?;
    assert_eq!(published, Err(Refusal::NotAllowed));
    let subscribe = |subscription, window_bytes| edge::Subscribe {
        subscription,
        channel: theirs.clone(),
        after: 0,
        window_bytes,
        series: Series::NONE,
    };
    let subscribed = link.remote::<edge::Subscribe>();
    let refused = subscribed.ask(subscribe(1, 65_536), SOON).await?;
    assert_eq!(refused, Err(Refusal::NotAllowed));
    let refused = subscribed.ask(subscribe(2, u32::MAX), SOON).await?;
    assert_eq!(refused, Err(Refusal::TooLarge));

    // A second link of a genuine sentry to the relayer: sessions are the first link's, grants name their sentry.
    let sentry = Arc::new(siege.sentry().secrets()?.keys);
    let link = siege.link(&sentry, Role::Sentry, siege.relayer()).await?;
    let session = link.remote::<relay::OpenSession>();
    for grant in [
        siege.grant(&victim, second, 0),
        siege.grant(&victim, first, 60_000),
        forged,
        stretched,
    ] {
        let refused = session.ask(relay::OpenSession { grant }, SOON).await?;
        assert_eq!(refused, Err(Refusal::BadGrant));
    }
    for session in [0, 1, 2, u64::MAX] {
        let publish = relay::RelayPublish {
            session,
            channel: theirs.clone(),
            epoch: 1,
            first_seq: 1,
            payloads: vec![Bytes::from_static(b"forged")],
        };
        let refused = link
            .remote::<relay::RelayPublish>()
            .ask(publish, SOON)
            .await?;
        assert_eq!(refused, Err(Refusal::UnknownSession));
    }
    // Under its own customer's session it still cannot write to another's channel.
    let grant = siege.grant(&mallory, first, 0);
    let opened = session.ask(relay::OpenSession { grant }, SOON).await?;
    let session = opened
        .map_err(|refusal| anyhow::anyhow!("{refusal}"))?
        .session;
    let open = relay::RelayOpenProducer {
        session,
        channel: theirs.clone(),
        supersedes: None,
    };
    let refused = link
        .remote::<relay::RelayOpenProducer>()
        .ask(open, SOON)
        .await?;
    assert_eq!(refused, Err(Refusal::NotAllowed));
    let publish = relay::RelayPublish {
        session,
        channel: theirs.clone(),
        epoch: 1,
        first_seq: 1,
        payloads: vec![Bytes::from_static(b"forged")],
    };
    let refused = link
        .remote::<relay::RelayPublish>()
        .ask(publish, SOON)
        .await?;
    assert_eq!(refused, Err(Refusal::NotAllowed));
    let follow = relay::RelaySubscribe {
        session,
        subscription: 1,
        channel: theirs,
        after: 0,
        window_bytes: 65_536,
        series: Series::NONE,
    };
    let refused = link
        .remote::<relay::RelaySubscribe>()
        .ask(follow, SOON)
        .await?;
    assert_eq!(refused, Err(Refusal::NotAllowed));
    siege.still_serves("everything in another's name").await?;
    siege.lift().await
}

/// A link of a client without a grant is refused everything but the attachment; with one it is served, and another link of
/// the same client is not served by it. A link ends with its grant: the sentry closes it when that is over.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_without_a_grant() -> Result<()> {
    let mut siege = Siege::lay(1).await?;
    let keys = Arc::new(NodeKeys::generate());
    let own = Channel {
        owner: keys.node_id(),
        name: channel(),
    };
    let open = edge::OpenProducer {
        channel: own.clone(),
        supersedes: None,
    };
    let publish = edge::Publish {
        channel: own.clone(),
        epoch: 1,
        first_seq: 1,
        payloads: vec![Bytes::from_static(b"early")],
    };
    let subscribe = edge::Subscribe {
        subscription: 1,
        channel: own,
        after: 0,
        window_bytes: 65_536,
        series: Series::NONE,
    };
    let readers = edge::SetReaders {
        channel: channel(),
        readers: Vec::new(),
    };
    let refused = || AskError::Refused("no valid grant".into());
    let without = siege.link(&keys, Role::Client, siege.sentry()).await?;
    let link = siege.link(&keys, Role::Client, siege.sentry()).await?;
    for link in [&without, &link] {
        let opened = link.remote().ask(open.clone(), SOON).await;
        assert_eq!(opened, Err(refused()));
        let published = link.remote().ask(publish.clone(), SOON).await;
        assert_eq!(published, Err(refused()));
        let subscribed = link.remote().ask(subscribe.clone(), SOON).await;
        assert_eq!(subscribed, Err(refused()));
        let set = link.remote().ask(readers.clone(), SOON).await;
        assert_eq!(set, Err(refused()));
    }
    let attach = |grant| edge::Attach { grant };
    let grant = siege.grant(&keys, siege.sentry().id, 0);
    let attached = link.remote().ask(attach(grant), SOON).await?;
    attached.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let opened = link.remote().ask(open.clone(), SOON).await?;
    assert!(opened.is_ok(), "{opened:?}");
    let opened = without.remote().ask(open, SOON).await;
    assert_eq!(opened, Err(refused()));

    let network = siege.network.file.network_id().0;
    let now = siege.env.wall_ms();
    let brief = Grant::issue(&keys, network, siege.sentry().id, now, 1_500, [8; 16]);
    let attached = without.remote().ask(attach(brief), SOON).await;
    // On a slow machine it may be over before it is looked at.
    if attached != Ok(Err(Refusal::BadGrant)) {
        tokio::time::timeout(PATIENCE, without.closed()).await?;
        siege.sentry().says("the grant ends").await?;
    }
    siege.still_serves("links without a grant").await?;
    siege.lift().await
}
