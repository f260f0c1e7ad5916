//! The gRPC service `pqcnet.meter.v1.Metering`: totals and reports of a relayer's meter, on loopback, for whoever has the token.
//!
//! Messages: `protos/proto/pqcnet/meter.proto`. The service is written out here by hand, so that tonic is this crate's alone: the
//! crate of the messages is everybody's.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use pqcnet_actor::Env;
use pqcnet_crypto::NodeId;
use pqcnet_messages::metering::{Sums, Totals, Volume};
use pqcnet_meter::MAX_REPORT;
use pqcnet_protos::meter::v1 as pb;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::guard::{NoToken, Token};
use super::metering::{Metering, NoMetering, USUAL};

/// Connections at once.
const MAX_CONNECTIONS: usize = 16;
/// Requests of one connection at once: a report is held in memory while it is sent.
const AT_ONCE: usize = 4;

/// The service.
#[derive(Clone)]
struct Served {
    metering: Metering,
    token: Arc<Result<Token, NoToken>>,
}

/// Serves on this loopback address until the node ends. Returns the address.
///
/// # Errors
/// It cannot be bound.
pub(super) fn serve(
    env: &Env,
    at: SocketAddr,
    metering: Metering,
    token: Arc<Result<Token, NoToken>>,
) -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    let service = Served { metering, token };
    // A connection beyond the limit waits in the system's queue until another one has ended.
    let incoming = TcpIncoming::from(listener);
    let serving = tonic::transport::Server::builder()
        .concurrency_limit_per_connection(AT_ONCE)
        .add_service(service)
        .serve_with_incoming(bounded::Bounded::new(incoming, places));
    env.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the gRPC service ended");
        }
    });
    Ok(bound)
}

impl NamedService for Served {
    const NAME: &'static str = "pqcnet.meter.v1.Metering";
}

type Answer<T> = BoxFuture<'static, Result<Response<T>, Status>>;

impl Served {
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let token = match self.token.as_ref() {
            Ok(token) => token,
            Err(why) => return Err(Status::unavailable(why.to_string())),
        };
        let given = request.metadata().get("authorization");
        if token.opens(given.map(|given| given.as_bytes())) {
            Ok(())
        } else {
            let what = "this needs the node's token: `pqcnet ui` prints the page's address with it";
            Err(Status::unauthenticated(what))
        }
    }
}

impl UnaryService<pb::TotalsRequest> for Served {
    type Response = pb::Totals;
    type Future = Answer<pb::Totals>;

    fn call(&mut self, request: Request<pb::TotalsRequest>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            this.admit(&request)?;
            let asked = request.into_inner();
            let after = match asked.after.is_empty() {
                true => None,
                false => Some(
                    NodeId::from_slice(&asked.after)
                        .map_err(|error| Status::invalid_argument(error.to_string()))?,
                ),
            };
            let limit = match usize::try_from(asked.limit) {
                Ok(0) | Err(_) => USUAL,
                Ok(limit) => limit,
            };
            let totals = this.metering.totals(after, limit).await.map_err(status)?;
            Ok(Response::new(totals_of(&totals)))
        })
    }
}

impl UnaryService<pb::ReportRequest> for Served {
    type Response = pb::Report;
    type Future = Answer<pb::Report>;

    fn call(&mut self, request: Request<pb::ReportRequest>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            this.admit(&request)?;
            let asked = request.into_inner();
            let named = |window: u64| (window > 0).then_some(window);
            let report = this
                .metering
                .report(asked.close, named(asked.from), named(asked.to));
            let file = report.await.map_err(status)?;
            Ok(Response::new(pb::Report { file }))
        })
    }
}

fn status(no: NoMetering) -> Status {
    let what = no.to_string();
    match no {
        NoMetering::NoMeter => Status::unimplemented(what),
        NoMetering::Asked(_) => Status::invalid_argument(what),
        NoMetering::Meter(_) => Status::unavailable(what),
    }
}

fn totals_of(totals: &Totals) -> pb::Totals {
    let customers = totals
        .customers
        .iter()
        .map(|(customer, of)| pb::CustomerSums {
            customer: Bytes::copy_from_slice(customer.as_bytes()),
            sums: Some(sums(of)),
        });
    pb::Totals {
        window: totals.window,
        oldest_window: totals.oldest,
        closed_at_ms: totals.closed_at_ms,
        all: Some(sums(&totals.all)),
        customers: customers.collect(),
        more: totals.more,
    }
}

fn sums(sums: &Sums) -> pb::Sums {
    let volume = |volume: Volume| {
        Some(pb::Volume {
            frames: volume.frames,
            bytes: volume.bytes,
        })
    };
    pb::Sums {
        stored: volume(sums.stored),
        delivered: volume(sums.delivered),
        receipted: volume(sums.receipted),
    }
}

impl tower::Service<http::Request<Body>> for Served {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/pqcnet.meter.v1.Metering/ReadTotals" => {
                    let codec = ProstCodec::<pb::Totals, pb::TotalsRequest>::default();
                    Grpc::new(codec).unary(this, request).await
                }
                "/pqcnet.meter.v1.Metering/CreateReport" => {
                    let codec = ProstCodec::<pb::Report, pb::ReportRequest>::default();
                    let mut grpc = Grpc::new(codec).max_encoding_message_size(MAX_REPORT + 1024);
                    grpc.unary(this, request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// Takes connections while there are places.
mod bounded {
    use std::io;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, ready};

    use futures::future::BoxFuture;
    use futures::{FutureExt as _, Stream};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
    use tokio::net::TcpStream;
    use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
    use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};

    type Waiting = BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>;

    /// A connection and its place.
    pub(super) struct Placed {
        stream: TcpStream,
        _place: OwnedSemaphorePermit,
    }

    pub(super) struct Bounded {
        incoming: TcpIncoming,
        places: Arc<Semaphore>,
        waiting: Option<Waiting>,
        place: Option<OwnedSemaphorePermit>,
    }

    impl Bounded {
        pub(super) fn new(incoming: TcpIncoming, places: Arc<Semaphore>) -> Bounded {
            Bounded {
                incoming,
                places,
                waiting: None,
                place: None,
            }
        }
    }

    impl Stream for Bounded {
        type Item = io::Result<Placed>;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            if self.place.is_none() {
                let places = self.places.clone();
                let waiting = self
                    .waiting
                    .get_or_insert_with(|| places.acquire_owned().boxed());
                let place = ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
                self.place = place.ok();
            }
            let Some(next) = ready!(Pin::new(&mut self.incoming).poll_next(cx)) else {
                return Poll::Ready(None);
            };
            let Some(place) = self.place.take() else {
                return Poll::Ready(None);
            };
            Poll::Ready(Some(next.map(|stream| Placed {
                stream,
                _place: place,
            })))
        }
    }

    impl Connected for Placed {
        type ConnectInfo = TcpConnectInfo;

        fn connect_info(&self) -> TcpConnectInfo {
            self.stream.connect_info()
        }
    }

    impl AsyncRead for Placed {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Placed {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }
}
