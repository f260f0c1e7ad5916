//! Every key of a node's configuration, once: the reader, `config init`, `config show` and the environment use this table.

use pqcnet_qstp::Suite;

/// What a key's value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A path; in a file, and where it is the default beside a file, relative to the file's folder.
    Path,
    /// An IP address and port.
    Socket,
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Number(u64, u64),
    /// A number from 0.0 to 1.0.
    Ratio,
    /// A collector's address: `http://` on loopback, or `https://`.
    Collector,
    /// One of these words, or a text that starts with one (log filters).
    Words(&'static [&'static str]),
    /// One or more of these words, each once, best first; a list in a file, with commas elsewhere.
    Ordered(&'static [&'static str]),
}

impl Type {
    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Type::Path => "a path in quotes",
            Type::Socket => "an address in quotes, like \"127.0.0.1:7410\"",
            Type::Bool => "true or false",
            Type::Number(..) => "a whole number",
            Type::Ratio => "a number from 0.0 to 1.0",
            Type::Collector => "an address in quotes, like \"https://collector:4317\"",
            Type::Words(_) => "a word in quotes",
            Type::Ordered(_) => "a list of words in quotes",
        }
    }
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted path, as in `log.level`.
    pub path: &'static str,
    /// Its value.
    pub of: Type,
    /// Used when no layer names it; without one it is required or optional.
    pub default: Option<&'static str>,
    /// One line for the reader of `config init`.
    pub help: &'static str,
}

const fn key(
    path: &'static str,
    of: Type,
    default: Option<&'static str>,
    help: &'static str,
) -> Key {
    Key {
        path,
        of,
        default,
        help,
    }
}

/// The longest a node takes to stop: what service managers wait before they kill.
pub const MAX_DRAIN_SECONDS: u64 = 30;

/// The table, in the order in which `config init` writes it.
pub const KEYS: &[Key] = &[
    key(
        "network",
        Type::Path,
        Some("network.toml"),
        "Who is in the network: root key, nodes, roles, addresses.",
    ),
    key(
        "keys",
        Type::Path,
        Some("node.keys"),
        "This node's encrypted keys, made by `pqcnet keys init`.",
    ),
    key(
        "unlock.passphrase_file",
        Type::Path,
        None,
        "Where the passphrase of `keys` stands, mode 0600; else PQCNET_PASSPHRASE or a prompt.",
    ),
    key(
        "unlock.key_file",
        Type::Path,
        None,
        "Instead of a passphrase: a file of 32 random bytes, mode 0600.",
    ),
    key(
        "qstp.suites",
        Type::Ordered(&Suite::LABELS),
        Some("aes-256-gcm,chacha20-poly1305"),
        "Ciphers of QSTP channels, best first; who is dialled chooses its first that the other has.",
    ),
    key(
        "listen.control",
        Type::Socket,
        Some("127.0.0.1:7410"),
        "Where the control plane (libp2p) listens.",
    ),
    key(
        "listen.data",
        Type::Socket,
        Some("127.0.0.1:7411"),
        "Where direct QSTP streams are taken.",
    ),
    key(
        "listen.public",
        Type::Bool,
        Some("false"),
        "Needed to listen on anything but loopback.",
    ),
    key(
        "admin.listen",
        Type::Socket,
        Some("127.0.0.1:7412"),
        "Where /livez, /readyz and /metrics are served; clear text.",
    ),
    key(
        "admin.public",
        Type::Bool,
        Some("false"),
        "Needed to serve these on anything but loopback.",
    ),
    key(
        "admin.page",
        Type::Path,
        None,
        "Where the node writes the address of its page, with the token, mode 0600; else `page.url` beside `keys`.",
    ),
    key(
        "store.path",
        Type::Path,
        Some("store"),
        "The relayer's shard log; a sentry stores nothing.",
    ),
    key(
        "store.keep_mib",
        Type::Number(0, 1 << 30),
        Some("0"),
        "What the log in the store keeps of a shard at most, in MiB of records; beyond it the oldest go, an eighth at a time; 0: all.",
    ),
    key(
        "store.keep_hours",
        Type::Number(0, 1 << 20),
        Some("0"),
        "How long the log in the store keeps records, to an eighth of that; 0: for ever.",
    ),
    key(
        "store.broker",
        Type::Path,
        None,
        "A file, mode 0600, with one line like amqp://user:password@127.0.0.1:5672/%2f: the shard log is on that RabbitMQ.",
    ),
    key(
        "store.broker_keep_mib",
        Type::Number(0, 1 << 30),
        Some("0"),
        "New streams of that RabbitMQ keep so much a shard, whole segments of the oldest go beyond it; 0: all.",
    ),
    key(
        "store.broker_keep_hours",
        Type::Number(0, 1 << 20),
        Some("0"),
        "The same by age; 0: for ever.",
    ),
    key(
        "store.backups",
        Type::Path,
        Some("backups"),
        "Where `pqcnet backup` of a running relayer puts copies of its store.",
    ),
    key(
        "store.reserve_mib",
        Type::Number(0, 1 << 20),
        Some("128"),
        "Room on the store's disk that is never written into, so that what is in memory can always be flushed.",
    ),
    key(
        "mesh.path",
        Type::Path,
        None,
        "Where directives of the root and addresses of peers are kept; else `mesh` beside `keys`.",
    ),
    key(
        "mesh.lan",
        Type::Bool,
        Some("false"),
        "Look for nodes of the network on the LAN (mDNS), and be found there.",
    ),
    key(
        "mesh.reach",
        Type::Words(&["direct", "relay", "relayed", "auto"]),
        Some("direct"),
        "How the control plane is reached: direct; relay: also carry circuits for others; relayed: only through bootstrap nodes that relay; auto: these find out.",
    ),
    key(
        "log.level",
        Type::Words(&["off", "error", "warn", "info", "debug", "trace"]),
        Some("info"),
        "A level, then `,target=level` where wanted.",
    ),
    key(
        "log.format",
        Type::Words(&["text", "json"]),
        Some("text"),
        "text or json, on standard error.",
    ),
    key(
        "telemetry.endpoint",
        Type::Collector,
        None,
        "Where traces and metrics are sent over OTLP: https://, or http:// on loopback. Without it, nowhere.",
    ),
    key(
        "telemetry.ca_file",
        Type::Path,
        None,
        "PEM certificates of those who vouch for the collector, instead of those the system trusts.",
    ),
    key(
        "telemetry.sampling",
        Type::Ratio,
        Some("0.01"),
        "Of the requests that come without a trace, so many begin one: 0.0 none, 1.0 all.",
    ),
    key(
        "telemetry.metrics_seconds",
        Type::Number(1, 3600),
        Some("10"),
        "How often metrics are sent.",
    ),
    key(
        "disk.low_mib",
        Type::Number(0, 1 << 30),
        Some("1024"),
        "Less free than this on the store's disk is a warning.",
    ),
    key(
        "disk.critical_mib",
        Type::Number(0, 1 << 30),
        Some("256"),
        "Less free than this: nothing more is stored, deliveries go on.",
    ),
    key(
        "descriptors.low_percent",
        Type::Number(0, 100),
        Some("20"),
        "Fewer file descriptors left than this, of those the process may have, is a warning.",
    ),
    key(
        "descriptors.critical_percent",
        Type::Number(0, 100),
        Some("5"),
        "Fewer left than this: no new links are taken.",
    ),
    key(
        "limits.customer_channels",
        Type::Number(1, 65_536),
        Some("4096"),
        "Channels that one customer may have in one shard.",
    ),
    key(
        "limits.lag_records",
        Type::Number(0, 1 << 40),
        Some("1048576"),
        "Records that a subscriber which kept up may fall behind before its channel's publishers are asked to wait; 0: never.",
    ),
    key(
        "limits.flood_rests",
        Type::Number(0, 100),
        Some("16"),
        "A channel that crowds others out rests so many times as long as a write takes; 0: it does not, and carries most.",
    ),
    key(
        "metering.window_seconds",
        Type::Number(0, 86_400),
        Some("60"),
        "A relayer's meter closes and signs a window this often; 0: nothing is metered.",
    ),
    key(
        "metering.keep_windows",
        Type::Number(1, 1 << 20),
        Some("10080"),
        "Windows that a relayer keeps for reports; older ones go.",
    ),
    key(
        "metering.grpc",
        Type::Socket,
        None,
        "Where the gRPC service pqcnet.meter.v1.Metering is served, loopback only; without it, nowhere.",
    ),
    key(
        "drain.seconds",
        Type::Number(1, MAX_DRAIN_SECONDS),
        Some("30"),
        "The longest a stop may take to finish what is in flight.",
    ),
];

/// Keys that SIGHUP changes in a running node. All others take effect at its next start.
pub const LIVE: &[&str] = &[
    "log.level",
    "disk.low_mib",
    "disk.critical_mib",
    "descriptors.low_percent",
    "descriptors.critical_percent",
    "drain.seconds",
];

/// The key with this path.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The environment's name of a key: `PQCNET_LOG_LEVEL`.
pub fn environment_name(key: &Key) -> String {
    format!("PQCNET_{}", key.path.replace('.', "_").to_ascii_uppercase())
}

/// The nearest of some words, when it is near enough to have been meant.
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    words
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    // Scenario: the table is consistent in itself, and near words are found.
    use super::*;

    #[test]
    fn paths_and_environment_names_are_unique() {
        let mut paths: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
        let mut names: Vec<String> = KEYS.iter().map(environment_name).collect();
        paths.sort_unstable();
        paths.dedup();
        names.sort_unstable();
        names.dedup();
        assert_eq!((paths.len(), names.len()), (KEYS.len(), KEYS.len()));
    }

    #[test]
    fn live_keys_are_keys() {
        assert!(LIVE.iter().all(|path| find(path).is_some()));
    }

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let words = || KEYS.iter().map(|key| key.path);
        assert_eq!(nearest("log.levle", words()), Some("log.level"));
        assert_eq!(nearest("storepath", words()), Some("store.path"));
        assert_eq!(nearest("quantum", words()), None);
    }
}
