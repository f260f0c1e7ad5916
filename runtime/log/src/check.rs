//! Holds what a log's store says of itself against what is in it: structure, contiguity, marks, heads.
//!
//! | family | what must hold |
//! |---|---|
//! | `log.generation` | a number above 0, a salt that no other generation of the shard has |
//! | `log.head` | four numbers; an about record beside it; the shard has a generation |
//! | `log.first` | at most one above the channel's head |
//! | `log.entry` | offsets from first to head, none missing, none beyond; bytes that add up to no more than were ever stored |
//! | `log.mark` | a sequence and an offset above 0, the offset at most the head; an epoch of a known generation, not a forgotten one that is newest |
//! | `log.about` | a head beside it |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;

use pqcnet_store::{Family, ReadError, Scan, View};

use crate::keys::{self, ABOUT, ENTRY, FIRST, GENERATION, HEAD, MARK};
use crate::{ChannelId, Salt, ShardNo};

/// Findings that are told; the rest is counted.
pub const MAX_FINDINGS: usize = 256;
/// Where something does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Shard.
    pub shard: ShardNo,
    /// Channel, if it is about one.
    pub channel: Option<ChannelId>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}", self.shard.0)?;
        match self.channel {
            Some(channel) => write!(f, " channel {channel}"),
            None => Ok(()),
        }
    }
}

/// One thing that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A key or value that no version of this program writes.
    #[error("{family}: a {what} of the wrong shape, key {}", hex(.key))]
    Shape {
        /// Family.
        family: &'static str,
        /// `key` or `value`.
        what: &'static str,
        /// The key.
        key: Vec<u8>,
    },
    /// Two generations have one salt: what they sealed may share keys.
    #[error("{place}: generations {older} and {newer} have the same salt")]
    SameSalt {
        /// Where.
        place: Place,
        /// One.
        older: u32,
        /// The other.
        newer: u32,
    },
    /// Channels in a shard that was never opened.
    #[error("{place}: no generation is stored")]
    NoGeneration {
        /// Where.
        place: Place,
    },
    /// Nothing is stored about a channel, so nobody may touch it.
    #[error("{place}: its about record is missing")]
    NoAbout {
        /// Where.
        place: Place,
    },
    /// Something of a channel that has no head.
    #[error("{place}: {family} without a head")]
    NoHead {
        /// Where.
        place: Place,
        /// Which family.
        family: &'static str,
    },
    /// Entries are missing.
    #[error("{place}: entries {from} to {to} are missing")]
    Missing {
        /// Where.
        place: Place,
        /// First missing.
        from: u64,
        /// Last missing.
        to: u64,
    },
    /// An entry outside of what the head says.
    #[error("{place}: entry {offset} is not within {first} to {head}")]
    Outside {
        /// Where.
        place: Place,
        /// Its offset.
        offset: u64,
        /// Lowest kept.
        first: u64,
        /// Highest stored.
        head: u64,
    },
    /// The front is beyond the head.
    #[error("{place}: first kept offset {first} is beyond the head {head}")]
    FirstBeyondHead {
        /// Where.
        place: Place,
        /// Lowest kept.
        first: u64,
        /// Highest stored.
        head: u64,
    },
    /// More bytes than were ever stored.
    #[error("{place}: {found} bytes of entries, {told} were ever stored")]
    Bytes {
        /// Where.
        place: Place,
        /// In the entries.
        found: u64,
        /// In the head.
        told: u64,
    },
    /// A producer's high-water mark does not fit the channel.
    #[error("{place}: the mark of epoch {epoch:#x} ({sequence} at {offset}) does not fit: {why}")]
    Mark {
        /// Where.
        place: Place,
        /// Producer epoch.
        epoch: u64,
        /// Sequence in the mark.
        sequence: u64,
        /// Offset in the mark.
        offset: u64,
        /// What does not fit.
        why: &'static str,
    },
    /// An entry that its writer's own check refuses.
    #[error("{place}: entry {offset}: {why}")]
    Entry {
        /// Where.
        place: Place,
        /// Its offset; 0 is the about record.
        offset: u64,
        /// What the check said.
        why: String,
    },
    /// The store could not be read on: what follows in this family was not looked at.
    #[error("{0}")]
    Unreadable(ReadError),
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was looked through, and what does not hold.
#[derive(Debug, Default)]
pub struct LogChecked {
    /// Shards with a generation.
    pub shards: u64,
    /// Channels with a head.
    pub channels: u64,
    /// Entries.
    pub entries: u64,
    /// Their bytes.
    pub entry_bytes: u64,
    /// Producers' marks.
    pub marks: u64,
    /// The first findings.
    pub findings: Vec<Finding>,
    /// How many there were.
    pub found: u64,
}

/// Says what is wrong with an entry's bytes, if anything is: shard, channel, offset (0: the about record), bytes.
pub type EntryCheck<'a> = dyn FnMut(ShardNo, &ChannelId, u64, &[u8]) -> Result<(), String> + 'a;

/// Looks through the whole log. Time grows with what is stored, memory with the number of channels.
pub fn check(view: &dyn View, entry: &mut EntryCheck<'_>) -> LogChecked {
    let mut walk = Walk {
        out: LogChecked::default(),
        newest: BTreeMap::new(),
        channels: BTreeMap::new(),
    };
    walk.generations(view);
    walk.heads(view);
    walk.entries(view, entry);
    walk.marks(view);
    walk.abouts(view, entry);
    walk.out
}

pub(crate) const EVERYTHING: Scan<'static> = Scan {
    from: &[],
    to: &[0xff; 64],
};

type Visit<'a> = dyn FnMut(&mut Walk, &[u8], &[u8]) + 'a;

struct Channel {
    first: u64,
    head: u64,
    forgotten: u64,
    bytes: u64,
    about: bool,
    next: u64,
    found_bytes: u64,
}

struct Walk {
    out: LogChecked,
    newest: BTreeMap<ShardNo, u32>,
    channels: BTreeMap<(ShardNo, ChannelId), Channel>,
}

/// The shard and number in a key of [`keys::GENERATION`].
pub fn generation_of(key: &[u8]) -> Option<(ShardNo, u32)> {
    let (shard, number) = key.split_first_chunk::<2>()?;
    let number = u32::from_be_bytes(number.try_into().ok()?);
    Some((ShardNo(u16::from_be_bytes(*shard)), number))
}

fn parts(key: &[u8]) -> Option<(ShardNo, ChannelId, Option<u64>)> {
    let (shard, _) = key.split_first_chunk::<2>()?;
    let (channel, number) = keys::split(key)?;
    Some((ShardNo(u16::from_be_bytes(*shard)), channel, number))
}

fn place(shard: ShardNo, channel: ChannelId) -> Place {
    Place {
        shard,
        channel: Some(channel),
    }
}

impl Walk {
    fn find(&mut self, finding: Finding) {
        self.out.found += 1;
        if self.out.findings.len() < MAX_FINDINGS {
            self.out.findings.push(finding);
        }
    }

    fn shape(&mut self, family: Family, what: &'static str, key: &[u8]) {
        let (family, key) = (family.0, key.to_vec());
        self.find(Finding::Shape { family, what, key });
    }

    fn scan(&mut self, view: &dyn View, family: Family, visit: &mut Visit<'_>) {
        let read = view.scan(family, EVERYTHING, &mut |key, value| {
            visit(self, key, value);
            ControlFlow::Continue(())
        });
        if let Err(error) = read {
            self.find(Finding::Unreadable(error));
        }
    }

    fn generations(&mut self, view: &dyn View) {
        let mut salts: BTreeMap<(ShardNo, Salt), u32> = BTreeMap::new();
        self.scan(view, GENERATION, &mut |walk, key, value| {
            let Some((shard, newer)) = generation_of(key).filter(|(_, number)| *number > 0) else {
                return walk.shape(GENERATION, "key", key);
            };
            walk.newest.insert(shard, newer);
            let Ok(salt) = Salt::try_from(value) else {
                return walk.shape(GENERATION, "value", key);
            };
            if let Some(older) = salts.insert((shard, salt), newer) {
                let place = Place {
                    shard,
                    channel: None,
                };
                walk.find(Finding::SameSalt {
                    place,
                    older,
                    newer,
                });
            }
        });
        self.out.shards = self.newest.len() as u64;
    }

    fn heads(&mut self, view: &dyn View) {
        let mut unopened = BTreeSet::new();
        self.scan(view, HEAD, &mut |walk, key, value| {
            let Some((shard, channel, None)) = parts(key) else {
                return walk.shape(HEAD, "key", key);
            };
            let Some([head, forgotten, bytes, _]) = keys::numbers(value) else {
                return walk.shape(HEAD, "value", key);
            };
            if !walk.newest.contains_key(&shard) && unopened.insert(shard) {
                let channel = None;
                let place = Place { shard, channel };
                walk.find(Finding::NoGeneration { place });
            }
            let state = Channel {
                first: 1,
                head,
                forgotten,
                bytes,
                about: false,
                next: 1,
                found_bytes: 0,
            };
            walk.channels.insert((shard, channel), state);
        });
        self.scan(view, FIRST, &mut |walk, key, value| {
            let Some((shard, channel, None)) = parts(key) else {
                return walk.shape(FIRST, "key", key);
            };
            let Some([first]) = keys::numbers(value) else {
                return walk.shape(FIRST, "value", key);
            };
            let place = place(shard, channel);
            let Some(state) = walk.channels.get_mut(&(shard, channel)) else {
                let family = FIRST.0;
                return walk.find(Finding::NoHead { place, family });
            };
            let head = state.head;
            (state.first, state.next) = (first, first);
            if first == 0 || first - 1 > head {
                walk.find(Finding::FirstBeyondHead { place, first, head });
            }
        });
        self.out.channels = self.channels.len() as u64;
    }

    fn entries(&mut self, view: &dyn View, entry: &mut EntryCheck<'_>) {
        let mut orphans = BTreeSet::new();
        self.scan(view, ENTRY, &mut |walk, key, value| {
            let Some((shard, channel, Some(offset))) = parts(key) else {
                return walk.shape(ENTRY, "key", key);
            };
            walk.out.entries += 1;
            walk.out.entry_bytes += value.len() as u64;
            let place = place(shard, channel);
            let Some(state) = walk.channels.get_mut(&(shard, channel)) else {
                if orphans.insert((shard, channel)) {
                    let family = ENTRY.0;
                    walk.find(Finding::NoHead { place, family });
                }
                return;
            };
            let (first, head, next) = (state.first, state.head, state.next);
            state.found_bytes += value.len() as u64;
            if offset < first || offset > head {
                return walk.find(Finding::Outside {
                    place,
                    offset,
                    first,
                    head,
                });
            }
            state.next = offset + 1;
            if offset > next {
                let (from, to) = (next, offset - 1);
                walk.find(Finding::Missing { place, from, to });
            }
            if let Err(why) = entry(shard, &channel, offset, value) {
                walk.find(Finding::Entry { place, offset, why });
            }
        });
        let ends: Vec<Finding> = self
            .channels
            .iter()
            .flat_map(|((shard, channel), state)| {
                let place = place(*shard, *channel);
                let missing = (state.next <= state.head).then_some(Finding::Missing {
                    place,
                    from: state.next,
                    to: state.head,
                });
                let bytes = (state.found_bytes > state.bytes).then_some(Finding::Bytes {
                    place,
                    found: state.found_bytes,
                    told: state.bytes,
                });
                missing.into_iter().chain(bytes)
            })
            .collect();
        for finding in ends {
            self.find(finding);
        }
    }

    fn marks(&mut self, view: &dyn View) {
        self.scan(view, MARK, &mut |walk, key, value| {
            let Some((shard, channel, Some(epoch))) = parts(key) else {
                return walk.shape(MARK, "key", key);
            };
            let Some([sequence, offset]) = keys::numbers(value) else {
                return walk.shape(MARK, "value", key);
            };
            walk.out.marks += 1;
            let place = place(shard, channel);
            let newest = u64::from(walk.newest.get(&shard).copied().unwrap_or(0));
            let Some(state) = walk.channels.get(&(shard, channel)) else {
                let family = MARK.0;
                return walk.find(Finding::NoHead { place, family });
            };
            let why = if sequence == 0 || offset == 0 {
                "it counts from 1"
            } else if offset > state.head {
                "its offset is beyond the head"
            } else if sequence > offset {
                "its sequence is beyond its offset"
            } else if epoch == state.forgotten {
                "its epoch was forgotten"
            } else if epoch >> 32 > newest {
                "its generation was never stored"
            } else {
                return;
            };
            walk.find(Finding::Mark {
                place,
                epoch,
                sequence,
                offset,
                why,
            });
        });
    }

    fn abouts(&mut self, view: &dyn View, entry: &mut EntryCheck<'_>) {
        self.scan(view, ABOUT, &mut |walk, key, value| {
            let Some((shard, channel, None)) = parts(key) else {
                return walk.shape(ABOUT, "key", key);
            };
            let place = place(shard, channel);
            let Some(state) = walk.channels.get_mut(&(shard, channel)) else {
                let family = ABOUT.0;
                return walk.find(Finding::NoHead { place, family });
            };
            state.about = true;
            if let Err(why) = entry(shard, &channel, 0, value) {
                let offset = 0;
                walk.find(Finding::Entry { place, offset, why });
            }
        });
        let without: Vec<Place> = self
            .channels
            .iter()
            .filter(|(_, state)| !state.about)
            .map(|((shard, channel), _)| place(*shard, *channel))
            .collect();
        for place in without {
            self.find(Finding::NoAbout { place });
        }
    }
}
