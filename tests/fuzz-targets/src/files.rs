//! What stands in files and stores: network files, configurations, key files, the log's keys, sealed entries.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use pqcnet_crypto::keystore::{self, Unlock, WrappingKey};
use pqcnet_crypto::{MlDsaKeyPair, NodeId, NodeKeys, NodeSecrets, seeded};
use pqcnet_log::{AppendBatch, Base, ChannelId, ShardNo};
use pqcnet_messages::{Channel, ChannelName, Role};
use pqcnet_p2p::network::{Address, Admission, NetworkFile, NetworkParts, NodeEntry};
use pqcnet_relay::core::channel::About;
use pqcnet_relay::core::seal::{SealError, ShardKeys};

use crate::Target;

fn network() -> NetworkFile {
    let _same = seeded::from_seed(b"network");
    let at = |port: u16| Address::from(SocketAddr::from(([127, 0, 0, 1], port)));
    let node = |role, port: u16| NodeEntry {
        id: NodeKeys::generate().node_id(),
        roles: [role].into(),
        control: vec![at(port)],
        data: vec![at(port + 1)],
    };
    let nodes = vec![node(Role::Relayer, 7410), node(Role::Sentry, 7420)];
    let parts = NetworkParts {
        name: "fuzz".to_owned(),
        root: MlDsaKeyPair::generate().public().clone(),
        shards: 4,
        admission: Admission::Listed,
        bootstrap: vec![nodes[0].id],
        nodes,
    };
    NetworkFile::new(parts).unwrap_or_else(|error| panic!("{error}"))
}

/// `network.toml`: what is read is written as it was read.
pub const NETWORK: Target = Target {
    name: "network_file",
    body: |data| {
        if let Ok(text) = std::str::from_utf8(data)
            && let Ok(read) = NetworkFile::parse("fuzz", text)
        {
            match NetworkFile::parse("again", &read.to_toml()) {
                Ok(again) => assert_eq!(again.network_id(), read.network_id()),
                Err(error) => panic!("what this side writes, it refuses: {error}"),
            }
        }
    },
    seeds: || {
        let whole = network().to_toml();
        // Without the root's 3,904 digits, for the parser's sake.
        let short = whole.lines().filter(|line| line.len() < 200);
        let short: Vec<&str> = short.collect();
        vec![short.join("\n").into_bytes(), whole.into_bytes()]
    },
};

/// Addresses of nodes and the names of channels and nodes.
pub const ADDRESS: Target = Target {
    name: "names",
    body: |data| {
        let Ok(text) = std::str::from_utf8(data) else {
            return;
        };
        if let Ok(address) = text.parse::<Address>() {
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        if let Ok(id) = text.parse::<NodeId>() {
            assert_eq!(id.to_string(), text);
        }
        if let Ok(name) = ChannelName::new(text) {
            assert_eq!(name.as_str(), text);
        }
    },
    seeds: || {
        let texts = [
            "127.0.0.1:7410",
            "[::1]:7410",
            "node.example:7410",
            "orders/eu",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        ];
        texts.map(|text| text.as_bytes().to_vec()).into()
    },
};

fn wrapping() -> Option<WrappingKey> {
    Some(WrappingKey::copied_from(&[1; 32]))
}

/// Key files: the clear part, then all of it under a wrapping key.
pub const KEYSTORE: Target = Target {
    name: "keystore",
    body: |data| {
        let path = Path::new("fuzz.keys");
        let summary = keystore::summary_of(path, data);
        let Some(key) = wrapping() else { return };
        let unlock = Unlock::KeyFile(&key);
        let node = keystore::open_bytes::<NodeSecrets>(path, data, unlock);
        let root = keystore::open_bytes::<MlDsaKeyPair>(path, data, unlock);
        if let Ok(node) = &node {
            let claimed = summary.as_ref().ok().and_then(|summary| summary.node_id());
            assert_eq!(claimed, Some(node.keys.node_id()));
        }
        assert!(node.is_err() || root.is_err(), "a file is of one kind");
    },
    seeds: || {
        let _same = seeded::from_seed(b"keys");
        let path = Path::new("fuzz.keys");
        let Some(key) = wrapping() else {
            return Vec::new();
        };
        let unlock = Unlock::KeyFile(&key);
        let now = 1_700_000_000_000;
        let mut node = NodeSecrets::generate_at(now);
        let first = keystore::sealed(path, &node, unlock);
        let rotated = node
            .rotate_kem(now, 1)
            .and_then(|_| node.prepare_identity(now).map(drop))
            .and_then(|()| node.use_prepared(now, now + 1))
            .map(|_| keystore::sealed(path, &node, unlock));
        let rotated = rotated.unwrap_or_else(|error| panic!("{error}"));
        let root = keystore::sealed(path, &MlDsaKeyPair::generate(), unlock);
        [first, rotated, root]
            .into_iter()
            .map(|file| file.unwrap_or_else(|error| panic!("{error}")))
            .collect()
    },
};

/// Keys of the shard log, and what is stored about a channel.
pub const LOG_KEYS: Target = Target {
    name: "log_keys",
    body: |data| {
        if let Some((channel, number)) = pqcnet_log::keys::split(data) {
            let shard = ShardNo(u16::from_be_bytes([data[0], data[1]]));
            match number {
                None => assert_eq!(pqcnet_log::keys::channel(shard, &channel), data),
                Some(n) => assert_eq!(pqcnet_log::keys::numbered(shard, &channel, n), data),
            }
        }
        if let Some(about) = About::decode(data) {
            assert_eq!(about.encode(), data);
        }
    },
    seeds: || {
        let about = About {
            channel: Channel {
                owner: NodeId::from_bytes([1; 32]),
                name: ChannelName::new("orders/eu").unwrap_or_else(|error| panic!("{error}")),
            },
            readers: vec![NodeId::from_bytes([2; 32])],
            groups: Vec::new(),
        };
        vec![
            pqcnet_log::keys::channel(ShardNo(3), &ChannelId([9; 32])).to_vec(),
            pqcnet_log::keys::numbered(ShardNo(3), &ChannelId([9; 32]), 7).to_vec(),
            about.encode(),
        ]
    },
};

/// Records of a log on a broker, as a broker or a spill gives them back.
pub const LOG_RECORD: Target = Target {
    name: "log_record",
    body: |data| {
        if let Some(again) = pqcnet_log::broker::reencoded(data) {
            assert_eq!(again, data);
        }
    },
    seeds: || {
        let empty = AppendBatch::new(ShardNo(3), 1);
        let mut full = AppendBatch::new(ShardNo(3), 2);
        let slot = full.channel(ChannelId([9; 32]), Base::default());
        full.push(slot, (5, 1), 8, |_, out| out.extend_from_slice(b"one"));
        full.push(slot, (5, 2), 9, |_, out| out.extend_from_slice(b"two"));
        full.forget(slot, 3);
        full.set_about(slot, Bytes::from_static(b"about"));
        [empty, full]
            .map(|batch| pqcnet_log::broker::encoded(batch, [7; 16]))
            .into()
    },
};

/// Several entries in one message of a log on a broker. Written again, channels that no entry names are gone; from then on nothing changes.
pub const LOG_BUNDLE: Target = Target {
    name: "log_bundle",
    body: |data| {
        if let Some(again) = pqcnet_log::broker::rebundled(data) {
            assert_eq!(pqcnet_log::broker::rebundled(&again), Some(again));
        }
    },
    seeds: || {
        let empty = AppendBatch::new(ShardNo(3), 1);
        let mut full = AppendBatch::new(ShardNo(3), 2);
        for channel in [9, 10] {
            let slot = full.channel(ChannelId([channel; 32]), Base::default());
            full.push(slot, (5, 1), 8, |_, out| out.extend_from_slice(b"one"));
            full.push(slot, (5, 2), 9, |_, out| out.extend_from_slice(b"two"));
        }
        [empty, full].map(pqcnet_log::broker::bundle).into()
    },
};

fn shard_keys() -> ShardKeys {
    let mut keys = ShardKeys::new(&[1; 32], ShardNo(3));
    keys.begin(2, &[(1, [5; 16]), (2, [6; 16])]);
    keys
}

/// Sealed entries of the log, as a damaged or foreign disk gives them back.
pub const SEALED_ENTRY: Target = Target {
    name: "sealed_entry",
    body: |data| {
        let channel = ChannelId([9; 32]);
        let mut entry = data.to_vec();
        match shard_keys().open(&channel, 7, &mut entry) {
            Ok(range) => {
                let text = entry[range].to_vec();
                let mut again = Vec::new();
                shard_keys().seal(&channel, 7, [&text, b""], &mut again);
                // The only entry of this generation and counter that opens is the one that this side sealed.
                let first = data[1..5] == [0, 0, 0, 2] && data[5..13] == [0; 8];
                assert!(!first || again == data);
            }
            Err(
                SealError::TooShort { .. }
                | SealError::Version(_)
                | SealError::Generation(_)
                | SealError::Forged,
            ) => {}
        }
    },
    seeds: || {
        let mut sealed = Vec::new();
        shard_keys().seal(&ChannelId([9; 32]), 7, [b"time", b"text"], &mut sealed);
        let mut of_before = sealed.clone();
        of_before[4] = 1;
        vec![sealed, of_before]
    },
};

/// A node's configuration: read, or refused with every problem in words; what is shown reads as the same.
#[cfg(feature = "node")]
pub const CONFIG: Target = Target {
    name: "node_config",
    body: |data| {
        use pqcnet_node::config::{Layers, NodeConfig};
        let Some((environment, rest)) = crate::choose(data) else {
            return;
        };
        let Ok(text) = std::str::from_utf8(rest) else {
            return;
        };
        let path = Path::new("etc/node.toml");
        let layers = match environment % 3 {
            0 => Layers::gather(Some((path, text)), [], &[]),
            1 => Layers::gather(None, [], &[text.to_owned()]),
            _ => {
                let (name, value) = text.split_once('=').unwrap_or((text, ""));
                let variable = (format!("PQCNET_{name}"), value.to_owned());
                Layers::gather(None, [variable], &[])
            }
        };
        if let Err(errors) = NodeConfig::from_layers(layers) {
            assert!(!errors.0.is_empty() && !errors.to_string().is_empty());
        }
    },
    seeds: || {
        // Not the template, which changes with every new key.
        let file = b"\0network = \"network.toml\"\nkeys = \"node.keys\"\n[listen]\ndata = \"127.0.0.1:7411\"\npublic = false\n";
        vec![
            file.to_vec(),
            b"\x01log.level=debug".to_vec(),
            b"\x02LOG_LEVEL=debug".to_vec(),
            b"\0[qstp]\nsuites = [\"aes-256-gcm\"]".to_vec(),
        ]
    },
};
