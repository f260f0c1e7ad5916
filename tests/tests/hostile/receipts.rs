//! Receipts that say what is not so, from a member of a consumer group.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use pqcnet_actor::{Carrier, Letter, Message, Path, Posting, Ref, TellError, Watch, Watcher};
use pqcnet_crypto::{NodeKeys, sha256};
use pqcnet_link::Role;
use pqcnet_messages::{
    Channel, ChannelName, Countersigned, Grant, GroupName, MemberId, Membership, Receipt, Refusal,
    Series, Statement, edge,
};
use pqcnet_p2p::typed::{Bindings, LinkHandle};
use pqcnet_relay::core::channel::channel_id;
use pqcnet_tests::report::{create, pair, verified};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::siege::{PATIENCE, SOON, Siege};

/// More than any test here is sent.
const ROOM: usize = 1024;
const RECORDS: u64 = 10;
/// Windows within which a receipt is heard in time: a relayer waits for one for 5 s, which a loaded machine may take.
const ATTEMPTS: u32 = 20;
/// Longer than a loaded machine takes for all of it.
const GRANT_MS: u64 = 3_600_000;

/// Keeps what a node sends until the test takes it.
struct Postbox<M: Message> {
    to: mpsc::Sender<Letter<M>>,
    path: Path,
    watchers: Mutex<Vec<Watcher>>,
}

fn postbox<M: Message>() -> (Ref<M>, mpsc::Receiver<Letter<M>>) {
    let (to, letters) = mpsc::channel(ROOM);
    let (path, watchers) = (Path::root("liar").join(M::NAME), Mutex::default());
    let postbox = Postbox { to, path, watchers };
    (Ref::from_carrier(Arc::new(postbox)), letters)
}

impl<M: Message> Carrier<M> for Postbox<M> {
    fn post(&self, letter: Letter<M>) -> Result<(), TellError<Letter<M>>> {
        let sent = self.to.try_send(letter);
        sent.map_err(|error| TellError::Full(error.into_inner()))
    }

    fn post_when_free(&self, letter: Letter<M>) -> Posting<'_, M> {
        let sent = self.post(letter).map_err(TellError::into_inner);
        Box::pin(std::future::ready(sent))
    }

    fn free(&self) -> usize {
        self.to.capacity()
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn watch(&self) -> Watch {
        let (watcher, watch) = Watch::pair(self.path.clone());
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.push(watcher);
        watch
    }
}

/// A member whose every word is its own choice.
struct Member {
    link: LinkHandle,
    id: MemberId,
    series: Series,
    records: mpsc::Receiver<Letter<edge::Deliver>>,
    ended: mpsc::Receiver<Letter<edge::SubscriptionEnded>>,
    asked: mpsc::Receiver<Letter<edge::Countersign>>,
}

impl Member {
    async fn attached(siege: &Siege, keys: &Arc<NodeKeys>, id: MemberId) -> Result<Member> {
        let (deliver, records) = postbox();
        let (end, ended) = postbox();
        let (countersign, asked) = postbox();
        let bindings = Bindings::new().serve(deliver).serve(end).serve(countersign);
        let sentry = siege.sentry();
        let link = siege
            .link_with(keys, Role::Client, sentry, bindings)
            .await?;
        let (network, now) = (siege.network.file.network_id().0, siege.env.wall_ms());
        let grant = Grant::issue(keys, network, sentry.id, now, GRANT_MS, id.0);
        let attached = link.remote().ask(edge::Attach { grant }, SOON).await?;
        attached.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        Ok(Member {
            link,
            id,
            series: Series(id.0),
            records,
            ended,
            asked,
        })
    }

    async fn join(&self, subscription: u32, channel: &Channel) -> Result<()> {
        let join = edge::JoinGroup {
            subscription,
            channel: channel.clone(),
            after: 0,
            window_bytes: 1 << 20,
            series: self.series,
            membership: Membership {
                group: GroupName::new("workers")?,
                member: self.id,
            },
        };
        // A session that is new at the relayer may not be open there yet: every client tries again.
        let joined = async {
            loop {
                match self.link.remote().ask(join.clone(), SOON).await? {
                    Ok(_) => break Ok(()),
                    Err(refusal) if refusal.is_retryable() => tokio::task::yield_now().await,
                    Err(refusal) => break Err(anyhow::anyhow!("{refusal}")),
                }
            }
        };
        tokio::time::timeout(PATIENCE, joined).await?
    }

    /// Waits for all records, from the first on, under this subscription.
    async fn take_all(&mut self, subscription: u32) -> Result<()> {
        let mut next = 1;
        while next <= RECORDS {
            let letter = self.records.recv().await.context("the link is gone")?;
            assert_eq!(letter.msg.subscription, subscription);
            for record in letter.msg.records {
                assert_eq!(record.offset, next);
                next += 1;
            }
        }
        Ok(())
    }

    /// Answers whatever it is asked with this, or says that it can not.
    async fn says(&mut self, subscription: u32, receipt: Option<&Receipt>) -> Result<Infallible> {
        loop {
            let letter = self.asked.recv().await.context("the link is gone")?;
            assert_eq!(letter.msg.subscription, subscription);
            let receipt = receipt.cloned();
            let answer = receipt.map(|receipt| Countersigned { receipt });
            let reply = letter.reply.context("a question")?;
            reply.send(Ok(answer.ok_or(Refusal::Unavailable)));
        }
    }
}

/// The report that the relayer makes while members say their words.
async fn report(
    siege: &Siege,
    number: &mut u32,
    words: impl Future<Output = Result<Infallible>>,
) -> Result<Value> {
    *number += 1;
    let (relayer, name) = (siege.relayer(), format!("report-{number}"));
    let path = tokio::select! {
        biased;
        path = create(relayer, &name) => path?,
        said = words => match said? {},
    };
    verified(&relayer.folder().join("network.toml"), &path).await
}

/// What there is of the members' channel in one list of a report: the honest client's stand there, too.
fn of_members<'a>(said: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    let all = said[list].as_array().into_iter().flatten();
    all.filter(|entry| entry["channel"]["name"] == "work")
}

/// What members are found to have signed for.
fn receipted(said: &Value) -> (u64, u64) {
    let signed = of_members(said, "lines").map(|line| pair(&line["receipted"]));
    signed.fold((0, 0), |sum, (frames, bytes)| {
        (sum.0 + frames, sum.1 + bytes)
    })
}

/// How many receipts the relayer has refused.
fn refused(siege: &Siege) -> usize {
    siege
        .relayer()
        .log()
        .matches("a receipt was refused")
        .count()
}

/// A member of a group is asked for its receipt and forges it: signed by somebody else, of another member's series, of more records than there are
/// offsets, for another relayer, of another channel; and says nothing. Each time the report stands, has no receipt, and calls all that was sent
/// unreceipted. An honest word over four of ten is taken, one that counts some of these once more is not. Then another member takes the channel
/// over, and the first stands by: it is asked all the same, and signs late for three more, while the other signs for what it was given again.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_forges_its_receipts() -> Result<()> {
    let mut siege = Siege::lay_with(1, "[metering]\nwindow_seconds = 86400\n").await?;
    let keys = Arc::new(NodeKeys::generate());
    let publisher = siege.network.client(&keys).await?;
    let name = ChannelName::new("work")?;
    for _ in 0..RECORDS {
        publisher.publish(&name, "ten bytes.").await?;
    }
    let channel = publisher.channel(name);
    // Of two members the one with the higher hash has the channel.
    let mut ids = [MemberId([1; 16]), MemberId([2; 16])];
    let of = channel_id(&channel);
    ids.sort_by_key(|id| sha256(&[&id.0, &of.0]));
    let mut first = Member::attached(&siege, &keys, ids[0]).await?;
    first.join(1, &channel).await?;
    first.take_all(1).await?;

    let statement = |series: Series, (after, last): (u64, u64)| Statement {
        network_id: siege.network.file.network_id().0,
        receiver: keys.node_id(),
        relayer: siege.relayer().id,
        channel: channel.clone(),
        series,
        window: 1,
        after,
        last,
        frames: last - after,
        bytes: (last - after) * 10,
        signed_at_ms: siege.env.wall_ms(),
    };
    let own = |span| statement(first.series, span);
    let stranger = NodeKeys::generate();
    let forged = [
        Some(own((0, 10)).sign(&stranger)),
        Some(statement(Series(ids[1].0), (0, 10)).sign(&keys)),
        Some(
            Statement {
                frames: 11,
                ..own((0, 10))
            }
            .sign(&keys),
        ),
        Some(
            Statement {
                relayer: siege.sentry().id,
                ..own((0, 10))
            }
            .sign(&keys),
        ),
        Some(
            Statement {
                channel: Channel {
                    owner: siege.customer.node_id(),
                    ..channel.clone()
                },
                ..own((0, 10))
            }
            .sign(&keys),
        ),
        None,
    ];
    let honest = own((0, 4)).sign(&keys);
    let overlapping = own((2, 10)).sign(&keys);
    let late = own((0, 7)).sign(&keys);
    let all = statement(Series(ids[1].0), (0, 10)).sign(&keys);
    let mut number = 0;
    for receipt in forged {
        let before = refused(&siege);
        for attempt in 0.. {
            ensure!(attempt < ATTEMPTS, "{receipt:?} was not looked at");
            let words = first.says(1, receipt.as_ref());
            let said = report(&siege, &mut number, words).await?;
            assert_eq!(of_members(&said, "receipts").count(), 0);
            assert_eq!(receipted(&said), (0, 0));
            if refused(&siege) > before || receipt.is_none() {
                break;
            }
        }
    }
    for attempt in 0.. {
        ensure!(attempt < ATTEMPTS, "an honest receipt is not taken");
        let words = first.says(1, Some(&honest));
        let said = report(&siege, &mut number, words).await?;
        if receipted(&said) == (4, 40) {
            break;
        }
    }
    let before = refused(&siege);
    for attempt in 0.. {
        ensure!(attempt < ATTEMPTS, "the second account was not looked at");
        let words = first.says(1, Some(&overlapping));
        let said = report(&siege, &mut number, words).await?;
        assert_eq!(receipted(&said), (4, 40));
        if refused(&siege) > before {
            break;
        }
    }

    let mut second = Member::attached(&siege, &keys, ids[1]).await?;
    second.join(1, &channel).await?;
    let ended = first.ended.recv().await.context("the link is gone")?.msg;
    assert_eq!(
        (ended.subscription, ended.refusal),
        (1, Refusal::Reassigned)
    );
    second.take_all(1).await?;
    first.join(2, &channel).await?;
    let mut attempt = 0;
    let said = loop {
        ensure!(attempt < ATTEMPTS, "late receipts are not taken");
        attempt += 1;
        let words = async {
            let both = (first.says(2, Some(&late)), second.says(1, Some(&all)));
            let (said, _) = tokio::try_join!(both.0, both.1)?;
            Ok(said)
        };
        let said = report(&siege, &mut number, words).await?;
        if receipted(&said) == (17, 170) {
            break said;
        }
    };
    let given = of_members(&said, "lines").filter(|line| line["qos"] == "delivered");
    let given: Vec<_> = given.map(|line| pair(&line["volume"])).collect();
    assert_eq!(given, [(10, 100), (10, 100)]);
    ensure!(first.ended.try_recv().is_err(), "it stands by");
    drop((first, second, publisher));
    siege.still_serves("forged receipts").await?;
    siege.lift().await
}
