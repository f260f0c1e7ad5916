//! WebSocket as a carrier: the byte stream that QSTP runs over is cut into binary messages. No TLS: QSTP is inside, and
//! what passes the proxies is the point.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_tungstenite::tungstenite::protocol::WebSocketConfig;
use async_tungstenite::tungstenite::{Error, Message};
use async_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};
use futures::io::{AsyncRead, AsyncWrite};
use futures::{Sink, Stream};
use rw_stream_sink::RwStreamSink;

/// Largest message taken: two QSTP records of 64 KiB fit.
const MAX_MESSAGE: usize = 256 * 1024;
/// The library's 128 KiB would be held by every idle connection.
const READ_BUFFER: usize = 8 * 1024;

/// A WebSocket as a byte stream.
pub(super) type WebSocket<S> = RwStreamSink<Frames<S>>;

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// The HTTP request and its answer, from the side that connected; `host` is only said.
pub(super) async fn connect<S>(host: &str, socket: S) -> io::Result<WebSocket<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!("ws://{host}/");
    let (stream, _) = client_async_with_config(request, socket, Some(limits()))
        .await
        .map_err(into_io)?;
    Ok(RwStreamSink::new(Frames(stream)))
}

/// The same from the side that was connected to.
pub(super) async fn accept<S>(socket: S) -> io::Result<WebSocket<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = accept_async_with_config(socket, Some(limits()))
        .await
        .map_err(into_io)?;
    Ok(RwStreamSink::new(Frames(stream)))
}

fn into_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

/// Binary messages, and nothing else.
pub(super) struct Frames<S>(WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Frames<S> {
    type Item = io::Result<Vec<u8>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let item = match ready!(Pin::new(&mut self.0).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => Some(Ok(bytes.to_vec())),
                // The library answers these itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_))) | None => None,
                Some(Ok(Message::Text(_) | Message::Frame(_))) => Some(Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a WebSocket message that is not binary",
                ))),
                Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => None,
                Some(Err(error)) => Some(Err(into_io(error))),
            };
            return Poll::Ready(item);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Vec<u8>> for Frames<S> {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_ready(cx).map_err(into_io)
    }

    fn start_send(mut self: Pin<&mut Self>, bytes: Vec<u8>) -> io::Result<()> {
        Pin::new(&mut self.0)
            .start_send(Message::Binary(bytes.into()))
            .map_err(into_io)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx).map_err(into_io)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx).map_err(into_io)
    }
}
