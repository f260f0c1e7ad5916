//! A private RabbitMQ, run by deploy/scripts/private-broker.sh. `tests/src/lib.rs` has this file too.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Looks for a broker that starts, a tenth of a second apart: one that does not serve after two minutes never will.
const LOOKS: u32 = 1200;

/// Run by whoever may read the broker's cookie.
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";

/// A RabbitMQ of this test's own; it ends with this value.
pub struct Broker {
    folder: tempfile::TempDir,
    ports: [u16; 3],
    /// Kept from other tests.
    _held: Vec<UdpSocket>,
    /// Lies in the folder.
    settings: Option<&'static str>,
    /// Whether it brings its streams back by itself as it starts, as it is set up where it is a service.
    revives: bool,
    process: Option<Child>,
}

impl Broker {
    /// Starts one and waits until it serves.
    pub fn start() -> Broker {
        let mut broker = Broker::at_ports(free_ports());
        broker.resume();
        broker
    }

    fn at_ports((ports, held): ([u16; 3], Vec<UdpSocket>)) -> Broker {
        // The user that the broker runs as has to reach its folder.
        let folder = tempfile::Builder::new()
            .prefix("pqcnet-broker-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .expect("a folder");
        Broker {
            folder,
            ports,
            _held: held,
            settings: None,
            revives: true,
            process: None,
        }
    }

    /// Starts it again where it was killed, and waits until it serves.
    pub fn resume(&mut self) {
        self.begin();
        self.serves();
    }

    /// Starts it again, and does not wait.
    pub fn begin(&mut self) {
        let said = fs::File::create(self.said_path()).expect("a file");
        let process = Command::new(script("private-broker.sh"))
            .arg(self.folder.path().join("broker"))
            .args(self.ports.map(|port| port.to_string()))
            .args(self.settings.map(|name| self.folder.path().join(name)))
            .env("REVIVE", if self.revives { "yes" } else { "no" })
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a file"))
            .stderr(said)
            .spawn()
            .expect("the script runs");
        self.process = Some(process);
    }

    /// Waits until it serves.
    pub fn serves(&mut self) {
        for _ in 0..LOOKS {
            let process = self.process.as_mut().expect("it was begun");
            if let Some(status) = process.try_wait().expect("a child") {
                panic!("the broker ended: {status}\n{}", self.said());
            }
            if answers(self.ports[0]) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        panic!("the broker does not serve\n{}", self.said());
    }

    fn said_path(&self) -> PathBuf {
        self.folder.path().join("said.txt")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.said_path()).unwrap_or_default()
    }

    /// `kill -9`, once the broker has written down that it has streams. For half a second after its first stream ever it has
    /// not, and a broker that dies then serves none of them again by itself: docs/runbooks/broker-streams-gone.md.
    pub fn kill(&mut self) {
        self.remember();
        self.end();
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a child");
            process.wait().expect("a child");
        }
    }

    /// `kill -9`, and then what is on its disk is what was there in the half second after its first stream: the name of what
    /// coordinates streams is not in its file yet. A kill that has to come in time would not always. Nothing is mended by itself then.
    pub fn kill_forgetful(&mut self) {
        self.kill();
        self.revives = false;
        fs::remove_file(self.names()).expect("the file of names");
    }

    /// `kill -9` while word of where this stream is served is on its way for longer than usual, which the coordinator has noted: before 3.11.3 a broker waits
    /// for that word ever after. Whether it then brings the stream back by itself as it starts.
    pub fn kill_waiting(&mut self, stream: &str, revives: bool) {
        const WAITS: &str = r#"
            Hold = fun() -> mnesia:write_lock_table(rabbit_queue), timer:sleep(infinity) end,
            spawn(fun() -> mnesia:transaction(Hold) end),
            timer:sleep(500),
            [Q] = ets:lookup(rabbit_queue, rabbit_misc:r(<<"/">>, queue, <<"STREAM">>)),
            Id = maps:get(name, amqqueue:get_type_state(Q)),
            exit(amqqueue:get_pid(Q), kill),
            Noted = fun() ->
                State = maps:get(Id, element(2, rabbit_stream_coordinator:state())),
                lists:keymember(updating, 1, [F || F <- tuple_to_list(State), is_tuple(F)])
            end,
            Wait = fun(Again, Looks) ->
                Noted() orelse (Looks > 0 andalso begin timer:sleep(100), Again(Again, Looks - 1) end)
            end,
            true = Wait(Wait, 100),
            timer:sleep(500),
            [dets:sync(Table) || Table <- dets:all()],
            noted."#;
        self.remember();
        let said = self.control(&["eval", &WAITS.replace("STREAM", stream)]);
        let noted = String::from_utf8_lossy(&said.stdout);
        assert_eq!(noted.trim(), "noted", "{said:?}");
        self.revives = revives;
        self.end();
    }

    /// `kill -9`, and then what is on its disk is what was there while each of these streams began a segment: the segment's index, and not
    /// yet the segment itself. A kill that has to come between the making of two files would not always. Nothing is mended by itself then.
    pub fn kill_beginning(&mut self, streams: &[&str]) {
        const NEXT: &str = r#"
            [Q] = ets:lookup(rabbit_queue, rabbit_misc:r(<<"/">>, queue, <<"STREAM">>)),
            Folder = osiris_log:directory(amqqueue:get_type_state(Q)),
            Next = case osiris_log:overview(Folder) of
                {empty, _} -> 0;
                {{_, Last}, _} -> Last + 1
            end,
            list_to_atom(lists:flatten(io_lib:format("~s/~20..0B", [Folder, Next])))."#;
        self.remember();
        let segments: Vec<PathBuf> = streams
            .iter()
            .map(|stream| {
                let said = self.control(&["eval", &NEXT.replace("STREAM", stream)]);
                let path = String::from_utf8_lossy(&said.stdout);
                let path = path.trim().trim_matches('\'');
                assert!(path.starts_with('/'), "{said:?}");
                PathBuf::from(path).with_extension("segment")
            })
            .collect();
        self.revives = false;
        self.end();
        for segment in segments {
            let folder = segment.parent().and_then(|folder| folder.metadata().ok());
            let folder = folder.expect("the stream's folder");
            let index = segment.with_extension("index");
            fs::write(&index, b"OSII\0\0\0\x01").expect("an index");
            std::os::unix::fs::chown(&index, Some(folder.uid()), Some(folder.gid()))
                .expect("the broker's file");
            // A stream that is empty has begun its first segment before.
            if let Err(error) = fs::remove_file(&segment) {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
            }
        }
    }

    /// Waits until it has looked at its streams as it started, and says what it found.
    pub fn revived_by_itself(&self) -> String {
        let log = self.folder.path().join("broker/log/revived.log");
        for _ in 0..LOOKS {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if ["revived", "nothing_to_do"]
                .iter()
                .any(|word| text.contains(word))
            {
                return text;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        panic!("the broker never looked at its streams");
    }

    /// What the runbook says to do then.
    pub fn revive(&self) {
        let said = self.look_for_streams();
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(
            said.status.success() && text.contains("{revived"),
            "{said:?}"
        );
    }

    /// The runbook's script; it says what it found, and mends that.
    fn look_for_streams(&self) -> Output {
        self.operate(&script("revive-streams.sh"), &[])
    }

    fn control(&self, arguments: &[&str]) -> Output {
        self.operate(Path::new(CONTROL), arguments)
    }

    fn operate(&self, program: &Path, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(["-n", &self.name()])
            .args(arguments)
            .env("RABBITMQCTL", CONTROL)
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("HOME", self.folder.path().join("broker/home"))
            .env("ERL_EPMD_PORT", self.ports[2].to_string())
            .current_dir(self.folder.path())
            .output()
            .expect("it runs")
    }

    /// For a test that has failed: what the runbook's script finds, and the end of the broker's log.
    pub fn last_words(&self) -> String {
        const LINES: usize = 200;
        let found = self.look_for_streams();
        let log = self.folder.path().join("broker/log/broker.log");
        let log = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        format!("the runbook's script: {found:?}\n{}", last.join("\n"))
    }

    fn name(&self) -> String {
        format!("pqcnet-{}@localhost", self.ports[0])
    }

    fn names(&self) -> PathBuf {
        let node = self.name();
        let names = self.data().join(&node).join("coordination").join(&node);
        names.join("names.dets")
    }

    /// Waits for the name of what coordinates streams to be in the file of such names: for brokers that have streams.
    fn remember(&self) {
        wrote_down(&self.names(), "rabbit_stream_coordinator");
    }

    /// Waits until the broker has written down that it has this quorum queue, which takes half a second like the above.
    #[allow(dead_code, reason = "each test binary uses its part")]
    pub fn remember_queue(&self, queue: &str) {
        let node = self.name();
        let names = self.data().join(&node).join("quorum").join(&node);
        wrote_down(&names.join("names.dets"), queue);
    }

    /// Where it serves.
    pub fn uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.ports[0])
    }

    /// The same as an address.
    pub fn at(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[0]))
    }

    /// Where it keeps its data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("broker/data")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Three nodes that are one broker, set up as `deploy/rabbitmq/compose.yaml` does it.
pub struct Cluster {
    /// Each may be killed and resumed.
    pub nodes: [Broker; 3],
    /// Theirs together: the first of them that started would take its own with it.
    port_mapper: Child,
}

impl Cluster {
    /// Starts them and waits until each serves.
    pub fn start() -> Cluster {
        const SETTINGS: &str = "cluster.conf";
        let ports = [free_ports(), free_ports(), free_ports()];
        let epmd = ports[0].0[2];
        let mut nodes =
            ports.map(|([amqp, dist, _], held)| Broker::at_ports(([amqp, dist, epmd], held)));
        let compose = fs::read_to_string(in_tree("deploy/rabbitmq/compose.yaml")).expect("a file");
        let (_, settings) = compose.split_once("content: |\n").expect("settings");
        let settings = settings
            .lines()
            .take_while(|line| line.starts_with("      "))
            // Production's, of a disk of its own: with less room than that a node takes nothing.
            .filter(|line| !line.contains("disk_free_limit"));
        let mut settings = settings.fold(String::new(), |text, line| text + line.trim() + "\n");
        for (at, node) in (1..).zip(&nodes) {
            settings = settings.replace(&format!("rabbit@rabbit{at}"), &node.name());
        }
        assert_eq!(settings.matches("@localhost").count(), 3, "{settings}");
        for node in &mut nodes {
            let home = node.folder.path().join("broker/home");
            let cookie = home.join(".erlang.cookie");
            fs::create_dir_all(home).expect("a folder");
            fs::write(&cookie, "together").expect("a file");
            let mine = std::os::unix::fs::PermissionsExt::from_mode(0o400);
            fs::set_permissions(cookie, mine).expect("a file of mine");
            fs::write(node.folder.path().join(SETTINGS), &settings).expect("a file");
            node.settings = Some(SETTINGS);
        }
        let port_mapper = Command::new("epmd")
            .args(["-address", "127.0.0.1", "-port", &epmd.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .expect("Erlang's port mapper runs");
        nodes.iter_mut().for_each(Broker::begin);
        nodes.iter_mut().for_each(Broker::serves);
        Cluster { nodes, port_mapper }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(Broker::end);
        self.port_mapper.kill().expect("a child");
        self.port_mapper.wait().expect("a child");
    }
}

fn wrote_down(names: &Path, name: &str) {
    for _ in 0..LOOKS {
        let text = fs::read(names).unwrap_or_default();
        if text.windows(name.len()).any(|part| part == name.as_bytes()) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    panic!("the broker never wrote {name} into {}", names.display());
}

/// One of the tree's scripts.
fn script(name: &str) -> PathBuf {
    in_tree("deploy/scripts").join(name)
}

fn in_tree(path: &str) -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut found = above.map(|folder| folder.join(path));
    found.find(|path| path.exists()).expect("in the tree")
}

/// Whether somebody there answers the protocol's first words, which a broker does only once it has started.
fn answers(port: u16) -> bool {
    use std::io::{Read as _, Write as _};
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect(at) else {
        return false;
    };
    let mut first = [0];
    let patient = stream.set_read_timeout(Some(Duration::from_secs(5)));
    patient.is_ok()
        && stream.write_all(b"AMQP\0\0\x09\x01").is_ok()
        && stream.read_exact(&mut first).is_ok()
}

/// Ports below those that the kernel gives to outgoing connections and above those that tests give to nodes; each of the two
/// test binaries that run brokers has half of them. A broker takes seconds to bind what was chosen here, and leaves it while it is dead: the same ports of UDP,
/// which nobody else wants, are held until it is over, so that no other test chooses them.
fn free_ports() -> ([u16; 3], Vec<UdpSocket>) {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    const HALF: u32 = 1_350;
    let base = match env!("CARGO_PKG_NAME") {
        "pqcnet-log" => 30_000,
        _ => 30_000 + HALF,
    };
    let start = std::process::id().wrapping_mul(61);
    let (mut ports, mut held) = (Vec::new(), Vec::new());
    while ports.len() < 3 {
        let step = start.wrapping_add(TRIED.fetch_add(1, Relaxed));
        let port = (base + step % HALF) as u16;
        let Ok(mine) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else {
            continue;
        };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            ports.push(port);
            held.push(mine);
        }
    }
    ([ports[0], ports[1], ports[2]], held)
}
