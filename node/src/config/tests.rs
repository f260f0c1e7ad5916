// Scenario: a configuration in three layers is read as meant; every way to get it wrong is named with its place.
use super::*;

fn read(
    text: &str,
    environment: &[(&str, &str)],
    flags: &[&str],
) -> Result<NodeConfig, ConfigErrors> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    NodeConfig::from_layers(Layers::gather(
        Some((Path::new("etc/n.toml"), text)),
        environment,
        &flags,
    ))
}

fn only_error(text: &str) -> String {
    read(text, &[], &[]).unwrap_err().to_string()
}

#[test]
fn the_template_is_the_defaults() {
    let config = read(&template(), &[], &[]).unwrap();
    assert_eq!(config.data, "127.0.0.1:7411".parse().unwrap());
    assert_eq!(config.network, Path::new("etc/network.toml"));
    assert_eq!(config.unlock, UnlockSource::Ask);
    assert_eq!(config.drain, Duration::from_secs(30));
    let bare = NodeConfig::from_layers(Layers::gather(None, [], &[])).unwrap();
    assert_eq!(bare.log_level, config.log_level);
    assert_eq!(bare.network, Path::new("network.toml"));
}

#[test]
fn flags_go_over_the_environment_and_that_over_the_file() {
    let file = "[log]\nlevel = \"warn\"\nformat = \"json\"\n[drain]\nseconds = 5\n";
    let environment = [
        ("PQCNET_LOG_LEVEL", "error"),
        ("PQCNET_DRAIN_SECONDS", "6"),
        ("HOME", "/x"),
    ];
    let config = read(file, &environment, &["log.level=debug"]).unwrap();
    assert_eq!(config.log_level.as_str(), "debug");
    assert_eq!(config.drain, Duration::from_secs(6));
    assert_eq!(config.log_format, LogFormat::Json);
}

#[test]
fn suites_are_an_order_of_preference() {
    let [aes, chacha] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    let suites = |file, environment: &[_]| read(file, environment, &[]).unwrap().suites;
    assert_eq!(suites("", &[]), [aes, chacha]);
    let file = "[qstp]\nsuites = [\"chacha20-poly1305\", \"aes-256-gcm\"]";
    assert_eq!(suites(file, &[]), [chacha, aes]);
    let environment = [("PQCNET_QSTP_SUITES", "aes-256-gcm")];
    assert_eq!(suites(file, &environment), [aes]);
    assert_eq!(
        only_error("[qstp]\nsuites = [\"aes-256-gcm\", \"chacha20-poly1350\"]"),
        "etc/n.toml:2: `qstp.suites`: `chacha20-poly1350`: some of aes-256-gcm, chacha20-poly1305; did you mean `chacha20-poly1305`?"
    );
    assert_eq!(
        only_error("[qstp]\nsuites = [\"aes-256-gcm\", \"aes-256-gcm\"]"),
        "etc/n.toml:2: `qstp.suites`: `aes-256-gcm` stands there twice"
    );
    assert_eq!(
        only_error("[qstp]\nsuites = []"),
        "etc/n.toml:2: `qstp.suites`: ``: some of aes-256-gcm, chacha20-poly1305"
    );
    assert_eq!(
        only_error("[qstp]\nsuites = \"aes-256-gcm\""),
        "etc/n.toml:2: `qstp.suites` must be a list of words in quotes, not a TOML string"
    );
}

#[test]
fn unknown_keys_are_named_with_line_and_suggestion() {
    assert_eq!(
        only_error("keys = \"k\"\n\n[log]\nlevle = \"info\"\n"),
        "etc/n.toml:4: unknown key `log.levle`; did you mean `log.level`?"
    );
    assert_eq!(
        only_error("level = \"info\""),
        "etc/n.toml:1: unknown key `level`; did you mean `log.level`?"
    );
    for (text, key, meant) in [
        ("netwrok = \"n\"", "netwrok", "network"),
        ("levle = \"info\"", "levle", "log.level"),
        ("[lisen]\ndata = \"x\"", "lisen", "listen"),
        ("listen_data = \"x\"", "listen_data", "listen.data"),
    ] {
        let told = format!("etc/n.toml:1: unknown key `{key}`; did you mean `{meant}`?");
        assert_eq!(only_error(text), told);
    }
    assert_eq!(
        only_error("[tracing]\nlevel = 1\n"),
        "etc/n.toml:1: unknown key `tracing`"
    );
    assert_eq!(
        read("", &[("PQCNET_LOG_LEVLE", "info")], &[])
            .unwrap_err()
            .to_string(),
        "environment PQCNET_LOG_LEVLE: unknown key `PQCNET_LOG_LEVLE`; did you mean `PQCNET_LOG_LEVEL`?"
    );
    assert_eq!(
        read("", &[], &["admin.lisen=x"]).unwrap_err().to_string(),
        "flag --set admin.lisen=x: unknown key `admin.lisen`; did you mean `admin.listen`?"
    );
}

#[test]
fn wrong_types_and_values_are_named() {
    assert_eq!(
        only_error("[drain]\nseconds = \"5\"\n"),
        "etc/n.toml:2: `drain.seconds` must be a whole number, not a TOML string"
    );
    assert_eq!(
        only_error("[drain]\nseconds = 31\n"),
        "etc/n.toml:2: `drain.seconds`: 31 is not within 1 to 30"
    );
    assert_eq!(
        only_error("[log]\nlevel = \"inof\"\n"),
        "etc/n.toml:2: `log.level`: `inof`: one of off, error, warn, info, debug, trace; did you mean `info`?"
    );
    assert_eq!(
        only_error("[log]\nlevel = \"info,x=loud\"\n"),
        "etc/n.toml:2: `log.level`: `loud` is no log level: off, error, warn, info, debug or trace, then `,target=level`"
    );
    assert_eq!(
        only_error("[listen]\ndata = \"localhost:7411\"\n"),
        "etc/n.toml:2: `listen.data`: `localhost:7411` is no IP address with a port; did you mean `127.0.0.1:7411`?"
    );
    assert_eq!(
        only_error("[listen]\npublic = \"yes\"\n"),
        "etc/n.toml:2: `listen.public` must be true or false, not a TOML string"
    );
    assert_eq!(
        read("", &[("PQCNET_LISTEN_PUBLIC", "yes")], &[])
            .unwrap_err()
            .to_string(),
        "environment PQCNET_LISTEN_PUBLIC: `listen.public`: `yes` is neither true nor false"
    );
    assert_eq!(
        only_error("keys = \"\""),
        "etc/n.toml:1: `keys`: an empty path"
    );
    assert_eq!(
        read("", &[], &["log.level"]).unwrap_err().to_string(),
        "flag --set log.level: write key=value"
    );
    let broken = read("keys = [", &[], &[]).unwrap_err();
    assert!(
        matches!(
            &broken.0[..],
            [ConfigError::Syntax {
                origin: Origin::File(_, 1),
                ..
            }]
        ),
        "{broken}"
    );
}

#[test]
fn unsafe_values_need_a_word_of_their_own() {
    let open = "[admin]\nlisten = \"0.0.0.0:9\"\n";
    assert_eq!(
        only_error(open),
        "etc/n.toml:2: `admin.listen` is unsafe: 0.0.0.0:9 serves health and metrics in clear text to other machines; \
         set `admin.public = true` if that is meant, else a loopback address"
    );
    assert_eq!(
        read(&format!("{open}public = true\n"), &[], &[])
            .unwrap()
            .admin,
        "0.0.0.0:9".parse().unwrap()
    );
    let both = read(
        "[listen]\ndata = \"[::]:1\"\ncontrol = \"192.0.2.1:2\"\n",
        &[],
        &[],
    )
    .unwrap_err();
    assert_eq!(both.0.len(), 2, "every problem at once: {both}");
    let two_ways = "[unlock]\npassphrase_file = \"p\"\nkey_file = \"k\"\n";
    assert!(only_error(two_ways).contains("keep one of them"));
}

/// What the log keeps is limited where the log is; a limit for the other place is no silent nothing.
#[test]
fn retention_goes_with_the_log() {
    let file = "[store]\nkeep_mib = 64\nkeep_hours = 24\n";
    let retention = read(file, &[], &[]).unwrap().retention;
    assert_eq!(
        (retention.bytes, retention.age),
        (Some(64 << 20), Some(Duration::from_secs(86_400)))
    );
    assert!(!read("", &[], &[]).unwrap().retention.is_limited());
    assert_eq!(
        only_error("[store]\nbroker = \"b\"\nkeep_mib = 64\n"),
        "etc/n.toml:3: `store.keep_mib`: it limits the log in the store, and `store.broker` has the log elsewhere; \
         did you mean `store.broker_keep_mib`?"
    );
    let both = "[store]\nbroker = \"b\"\nbroker_keep_mib = 3\nkeep_hours = 0\n";
    assert_eq!(read(both, &[], &[]).unwrap().retention.bytes, Some(3 << 20));
}

/// Telemetry is off until it has somewhere to go, which is this machine or a place behind TLS.
#[test]
fn telemetry_goes_to_loopback_or_over_tls() {
    assert_eq!(read("", &[], &[]).unwrap().telemetry, None);
    let sampling = "[telemetry]\nsampling = 0.5\n";
    assert_eq!(read(sampling, &[], &[]).unwrap().telemetry, None);
    let file = format!("{sampling}endpoint = \"http://127.0.0.1:4317\"\nca_file = \"ca.pem\"\n");
    let telemetry = read(&file, &[], &[]).unwrap().telemetry.unwrap();
    assert_eq!(telemetry.endpoint.as_str(), "http://127.0.0.1:4317");
    assert_eq!(telemetry.ca_file, Some("etc/ca.pem".into()));
    assert_eq!(telemetry.sampling.get(), 0.5);
    assert_eq!(telemetry.metrics_every, Duration::from_secs(10));
    let all = [("PQCNET_TELEMETRY_SAMPLING", "1")];
    let telemetry = read(&file, &all, &[]).unwrap().telemetry.unwrap();
    assert_eq!(telemetry.sampling.get(), 1.0);
    assert_eq!(
        only_error("[telemetry]\nendpoint = \"http://collector:4317\"\n"),
        "etc/n.toml:2: `telemetry.endpoint` is unsafe: `http://collector:4317` would send telemetry in clear text to \
         another machine; use https://, or a collector on loopback"
    );
    assert_eq!(
        only_error("[telemetry]\nendpoint = \"127.0.0.1:4317\"\n"),
        "etc/n.toml:2: `telemetry.endpoint`: `127.0.0.1:4317` is no collector's address: write https://host:4317, \
         or http://127.0.0.1:4317"
    );
    assert_eq!(
        only_error("[telemetry]\nsampling = 2\n"),
        "etc/n.toml:2: `telemetry.sampling`: `2` is no ratio: a number from 0.0 (nothing) to 1.0 (everything)"
    );
    assert_eq!(
        only_error("[telemetry]\nsampling = \"1 %\"\n"),
        "etc/n.toml:2: `telemetry.sampling` must be a number from 0.0 to 1.0, not a TOML string"
    );
}

#[test]
fn every_value_shows_where_it_comes_from() {
    let flags = ["log.level=debug".to_owned()];
    let layers = Layers::gather(Some((Path::new("n.toml"), "keys = \"k\"\n")), [], &flags);
    let shown = shown(&layers, true);
    assert!(shown.contains("keys = \"k\"  # n.toml:1\n"), "{shown}");
    assert!(
        shown.contains("log.level = \"debug\"  # flag --set log.level=debug\n"),
        "{shown}"
    );
    assert!(shown.contains("drain.seconds = 30  # default\n"), "{shown}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let errors = load(Some(Path::new("does/not/exist.toml")), &[]).unwrap_err();
    assert!(
        matches!(&errors.0[..], [ConfigError::Read { .. }]),
        "{errors}"
    );
}
