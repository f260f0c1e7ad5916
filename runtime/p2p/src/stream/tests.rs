use futures::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use pqcnet_qstp::Limits;
use proptest::prelude::*;

use super::*;
use crate::testing::{Forging, pipe, sessions};

fn buffers() -> Buffers {
    Buffers::new(BUFFER, 4)
}

/// Two ends over a pipe of `room` bytes; what the first sends passes through `forge`.
fn pair(
    limits: Limits,
    room: usize,
    forge: Option<(usize, u8)>,
) -> (
    QstpStream<impl AsyncRead + AsyncWrite + Unpin>,
    QstpStream<impl AsyncRead + AsyncWrite + Unpin>,
) {
    let (a, b) = pipe(room);
    let (ours, theirs) = sessions(limits);
    let a = Forging {
        io: a,
        sent: 0,
        forge,
    };
    let first = QstpStream::new(a, ours, Env::plain(), buffers());
    let second = QstpStream::new(b, theirs, Env::plain(), buffers());
    (first, second)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// Writes in chunks of these sizes, flushing after each marked one, and closes; reads in pieces of `piece`.
async fn send(
    mut stream: impl AsyncWrite + Unpin,
    all: &[u8],
    chunks: &[(usize, bool)],
) -> io::Result<()> {
    let mut rest = all;
    let mut chunks = chunks.iter().cycle();
    while let (false, Some((size, flush))) = (rest.is_empty(), chunks.next()) {
        let (now, later) = rest.split_at((*size).min(rest.len()));
        stream.write_all(now).await?;
        if *flush {
            stream.flush().await?;
        }
        rest = later;
    }
    stream.close().await
}

async fn receive(mut stream: impl AsyncRead + Unpin, piece: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = vec![0; piece];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(all),
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the sizes of writes, reads, records, epochs and the pipe below: the bytes that were sent arrive in both
    /// directions at once, then the end.
    #[test]
    fn same_bytes_both_ways(
        lens in (0usize..300_000, 0usize..300_000),
        chunks in prop::collection::vec((1usize..70_000, any::<bool>()), 1..8),
        piece in 1usize..100_000,
        room in 1usize..200_000,
        max_record in 4_096u32..=65_536,
        epoch_records in 1u32..20,
    ) {
        let limits = Limits { max_record, epoch_records, ..Limits::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (first, second) = pair(limits, room, None);
            let (left, right) = (bytes(lens.0), bytes(lens.1));
            let (first_read, first_write) = first.split();
            let (second_read, second_write) = second.split();
            let (sent, got_left, returned, got_right) = futures::join!(
                send(first_write, &left, &chunks),
                receive(second_read, piece),
                send(second_write, &right, &chunks),
                receive(first_read, piece),
            );
            sent.unwrap();
            returned.unwrap();
            prop_assert!(got_left.unwrap() == left);
            prop_assert!(got_right.unwrap() == right);
            Ok(())
        })?;
    }
}

/// Small writes leave as one record when flushed, and full records leave unasked.
#[tokio::test]
async fn writes_coalesce() {
    let (mut a, b) = pipe(1 << 20);
    let (ours, theirs) = sessions(Limits::default());
    let max = 65_536 - OVERHEAD;
    let mut stream = QstpStream::new(&mut a, ours, Env::plain(), buffers());
    for _ in 0..100 {
        stream.write_all(&[1; 10]).await.unwrap();
    }
    stream.flush().await.unwrap();
    stream.write_all(&vec![2; max + 1]).await.unwrap();
    drop(stream);
    drop(a);
    let mut wire = Vec::new();
    let mut b = b;
    b.read_to_end(&mut wire).await.unwrap();
    assert_eq!(wire.len(), (1000 + OVERHEAD) + 65_536);
    let (_, mut opener) = theirs.split();
    let first = opener.open_in_place(&mut wire[..1000 + OVERHEAD]).unwrap();
    assert_eq!(first.content.len(), 1000);
}

/// Buffers are borrowed while bytes move and given back when nothing does.
#[tokio::test]
async fn idle_streams_hold_no_buffer() {
    let (mut a, mut b) = pair(Limits::default(), 1 << 20, None);
    a.write_all(b"hello").await.unwrap();
    assert!(a.tx.buffer.is_some());
    a.flush().await.unwrap();
    assert!(a.tx.buffer.is_none());
    let mut hello = [0; 5];
    b.read_exact(&mut hello).await.unwrap();
    let nothing = futures::poll!(b.read(&mut hello));
    assert!(nothing.is_pending());
    assert!(b.rx.buffer.is_none());
}

/// The end is a record: after it the reader sees the end again and again, the writer may not go on, and the other
/// direction still works.
#[tokio::test]
async fn close_ends_one_direction() {
    let (mut a, mut b) = pair(Limits::default(), 1 << 20, None);
    a.write_all(b"bye").await.unwrap();
    a.close().await.unwrap();
    a.close().await.unwrap();
    let refused = a.write(b"more").await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(b.fill_buf().await.unwrap(), b"bye");
    b.consume_unpin(3);
    assert!(!b.peer_closed());
    assert_eq!(b.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(b.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(b.peer_closed());
    b.write_all(b"later").await.unwrap();
    b.close().await.unwrap();
    let mut later = Vec::new();
    a.read_to_end(&mut later).await.unwrap();
    assert_eq!(later, b"later");
}

/// Bytes that end without the closing record were cut, also in the midst of a record.
#[tokio::test]
async fn a_cut_stream_is_an_error() {
    for cut in [0, 3, 20, 24] {
        let (mut a, mut b) = pipe(1 << 20);
        let (ours, theirs) = sessions(Limits::default());
        let mut stream = QstpStream::new(&mut a, ours, Env::plain(), buffers());
        stream.write_all(b"abc").await.unwrap();
        stream.flush().await.unwrap();
        let mut wire = [0; 24];
        b.read_exact(&mut wire).await.unwrap();
        let (mut again, end) = pipe(1 << 20);
        again.write_all(&wire[..cut]).await.unwrap();
        drop(again);
        let mut stream = QstpStream::new(end, theirs, Env::plain(), buffers());
        let mut got = Vec::new();
        let error = stream.read_to_end(&mut got).await.unwrap_err();
        assert_eq!(got, if cut == 24 { &b"abc"[..] } else { b"" });
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(record_error(&error), Some(RecordError::Truncated));
    }
}

/// A changed byte ends both directions of the reader's end, and the error stays.
#[tokio::test]
async fn a_forged_byte_ends_the_stream() {
    let cases = [
        (0, 0x01, RecordError::Frame { got: 0x11 }),
        (1, 0x7f, RecordError::Length { got: 0x7f_0014 }),
        (4, 0x80, RecordError::NotOpened),
    ];
    for (at, value, expected) in cases {
        let (mut a, mut b) = pair(Limits::default(), 1 << 20, Some((at, value)));
        a.write_all(b"abc").await.unwrap();
        a.flush().await.unwrap();
        b.write_all(b"unsent").await.unwrap();
        for _ in 0..2 {
            let error = b.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert_eq!(record_error(&error), Some(expected));
        }
        assert_eq!(
            b.write(b"x").await.unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        b.close().await.unwrap();
        let cut = a.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(record_error(&cut), Some(RecordError::Truncated));
    }
}

/// Keys change by the number of records, on both ends alike, without a word on the stream.
#[tokio::test]
async fn keys_are_updated() {
    let limits = Limits {
        epoch_records: 2,
        ..Limits::default()
    };
    let (mut a, mut b) = pair(limits, 1 << 20, None);
    for n in 0..7u8 {
        a.write_all(&[n]).await.unwrap();
        a.flush().await.unwrap();
        let mut got = [0];
        b.read_exact(&mut got).await.unwrap();
        assert_eq!(got, [n]);
    }
    assert_eq!((a.epochs(), b.epochs()), ((3, 0), (0, 3)));
}

/// A transport that fails is not the channel's fault.
#[tokio::test]
async fn transport_errors_pass_through() {
    struct Broken;
    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }
    let (ours, _) = sessions(Limits::default());
    let mut stream = QstpStream::new(Broken, ours, Env::plain(), buffers());
    let error = stream.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(record_error(&error), None);
}
