//! `pqcnet dead-letters`: what a consumer group put aside in a channel.

use clap::Args;
use pqcnet_client::{Channel, DeadLetter, SubscribeError};
use serde_json::json;

use super::identity::IdentityArgs;
use super::publish::{channel_name, owner_id};
use super::subscribe::group_name;
use crate::exit::{Exit, Failed};

/// What a line is, for `--help`.
const OUTPUT: &str = "Prints a line of JSON for each record that was put aside, by offset:
  offset       its place in the channel
  at_ms        when it was put aside, milliseconds since 1970
  why          \"refused\": a member said so; \"delivery limit\": no member got past it
  attempts     how often it was given to a member that went without a commit
  payload_hex  its payload in hexadecimal; null where neither the channel nor a broker's copy has it any more";

/// Of which group, in which channel.
#[derive(Debug, Args)]
#[command(after_help = OUTPUT)]
pub struct DeadLettersArgs {
    /// The channel.
    channel: String,
    /// Which group of one's own.
    #[arg(long, value_name = "NAME")]
    group: String,
    /// Whose channel, an id as `pqcnet keys show` prints it; without it, one's own.
    #[arg(long, value_name = "NODE_ID")]
    owner: Option<String>,
    /// Forget those up to this offset first.
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    discard: u64,
    /// Then forget the group itself: how far it is and what it put aside. Refused while a member is there.
    #[arg(long)]
    remove_group: bool,
    #[command(flatten)]
    identity: IdentityArgs,
}

/// Prints one line of JSON a letter, with its payload while the channel keeps that, or the relayer's broker a copy of it.
pub async fn run(args: &DeadLettersArgs) -> Result<Exit, Failed> {
    let name = channel_name(&args.channel)?;
    let group = group_name(&args.group)?;
    let owner = owner_id(args.owner.as_deref())?;
    let client = args.identity.open("client")?.client().await?;
    let channel = Channel {
        owner: owner.unwrap_or_else(|| client.node_id()),
        name,
    };
    let dead = client.dead_letters(&channel, &group, args.discard).await;
    let dead = dead.map_err(|error| Failed::new(Exit::Refused, error))?;
    if dead.letters.is_empty() {
        match dead.committed {
            0 => eprintln!(
                "the group {group} of {channel} has committed nothing and put nothing aside; is that its name?"
            ),
            offset => eprintln!(
                "the group {group} of {channel} is at offset {offset} and has nothing put aside"
            ),
        }
    }
    for letter in dead.letters {
        let DeadLetter {
            offset,
            at_ms,
            attempts,
            refused,
        } = letter;
        let kept = dead.kept.iter().find(|record| record.offset == offset);
        let record = match kept {
            Some(record) => record.clone(),
            None => {
                let record = async {
                    let mut records = client.subscribe(&channel, offset.saturating_sub(1)).await?;
                    records.next().await
                };
                record
                    .await
                    .map_err(|error: SubscribeError| Failed::new(Exit::Refused, error))?
            }
        };
        // Where its own is no longer kept, the first that is comes instead.
        let payload = (record.offset == offset).then(|| hex::encode(&record.payload));
        let why = if refused { "refused" } else { "delivery limit" };
        let line = json!({
            "offset": offset,
            "at_ms": at_ms,
            "why": why,
            "attempts": attempts,
            "payload_hex": payload,
        });
        say!("{line}");
    }
    if args.remove_group {
        let removed = client.remove_group(&channel, &group).await;
        removed.map_err(|error| Failed::new(Exit::Refused, error))?;
        eprintln!("the group {group} of {channel} is forgotten");
    }
    Ok(Exit::Ok)
}
