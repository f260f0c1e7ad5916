//! `/ui`, `/api/v1/snapshot`, `/api/v1/events`, `/api/v1/metering`: for whoever has the token.

use std::any::Any;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use actix_web::dev::Extensions;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use futures::FutureExt as _;
use pqcnet_actor::Env;
use serde_json::json;

use super::events::Events;
use super::guard::{NoToken, Token, names_us};
use super::metering::{self, Metering};
use super::page::{self, ASSETS};
use super::watch::Watch;

/// What these routes serve. Clones share it.
#[derive(Clone)]
pub struct Api {
    watch: Watch,
    pub(super) metering: Metering,
    events: Events,
    token: Arc<Result<Token, NoToken>>,
}

impl Api {
    /// Serves a running node to whoever has the token; without one, says why there is none.
    pub fn new(
        env: &Env,
        watch: Watch,
        metering: Metering,
        token: Arc<Result<Token, NoToken>>,
    ) -> Api {
        let taker = watch.clone();
        let take = move || {
            let watch = taker.clone();
            async move {
                let taken = watch.snapshot().await?;
                serde_json::to_value(taken).map_err(|error| error.to_string())
            }
            .boxed()
        };
        Api {
            watch,
            metering,
            events: Events::new(env, Arc::new(take)),
            token,
        }
    }

    /// Whether a request may see the node.
    pub(super) fn admit(&self, request: &HttpRequest) -> Result<(), Refused> {
        ours(request)?;
        let token = match self.token.as_ref() {
            Ok(token) => token,
            Err(why) => return Err(Refused::NoToken(why.to_string())),
        };
        let given = request.headers().get(header::AUTHORIZATION);
        if token.opens(given.map(header::HeaderValue::as_bytes)) {
            Ok(())
        } else {
            Err(Refused::WrongToken)
        }
    }
}

/// Why a request gets nothing; whoever sent it erred, save where there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// It names another host: DNS rebinding, or a proxy in between.
    #[error("this is asked for by address or as localhost, under no other name")]
    AnotherName,
    /// The node could not make a token.
    #[error("{0}")]
    NoToken(String),
    /// It carries none, or another one.
    #[error("this needs the node's token: `pqcnet ui` prints the page's address with it")]
    WrongToken,
}

impl Refused {
    pub(super) fn response(&self) -> HttpResponse {
        let status = match self {
            Refused::AnotherName => StatusCode::MISDIRECTED_REQUEST,
            Refused::NoToken(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refused::WrongToken => StatusCode::UNAUTHORIZED,
        };
        let mut response = problem(status, &self.to_string());
        if let Refused::WrongToken = self {
            let asks = header::HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, asks);
        }
        response
    }
}

/// Whether a request names this node as nobody but it can be named.
pub(super) fn ours(request: &HttpRequest) -> Result<(), Refused> {
    let host = request.headers().get(header::HOST);
    if names_us(host.and_then(|host| host.to_str().ok())) {
        Ok(())
    } else {
        Err(Refused::AnotherName)
    }
}

pub(super) fn problem(status: StatusCode, what: &str) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(json!({ "what": what }))
}

/// The routes.
pub fn routes(config: &mut web::ServiceConfig) {
    for asset in ASSETS {
        config.route(
            asset.path,
            web::get().to(move |request: HttpRequest| {
                let answer = match ours(&request) {
                    Ok(()) => page::serve(asset),
                    Err(no) => no.response(),
                };
                std::future::ready(answer)
            }),
        );
    }
    config
        .route("/api/v1/snapshot", web::get().to(snapshot))
        .route("/api/v1/events", web::get().to(events))
        .route("/api/v1/metering", web::get().to(metering::totals))
        .route("/api/v1/metering/report", web::get().to(metering::report));
}

async fn snapshot(request: HttpRequest, api: web::Data<Api>) -> HttpResponse {
    if let Err(no) = api.admit(&request) {
        return no.response();
    }
    match api.watch.snapshot().await {
        Ok(snapshot) => HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(snapshot),
        Err(why) => problem(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

async fn events(request: HttpRequest, api: web::Data<Api>) -> HttpResponse {
    if let Err(no) = api.admit(&request) {
        return no.response();
    }
    stream(&request, &api.events)
}

/// A subscriber's response.
fn stream(request: &HttpRequest, events: &Events) -> HttpResponse {
    let connection = request.conn_data::<Connection>().cloned();
    let hang_up = move || {
        if let Some(connection) = connection {
            connection.hang_up();
        }
    };
    match events.join(hang_up) {
        Ok(feed) => HttpResponse::Ok()
            .content_type("text/event-stream")
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .streaming(feed),
        Err(too_many) => problem(StatusCode::TOO_MANY_REQUESTS, &too_many.to_string()),
    }
}

/// A connection's socket, to end it when its peer reads nothing: its response would never be polled again.
#[derive(Clone)]
struct Connection(Arc<TcpStream>);

impl Connection {
    fn hang_up(&self) {
        if let Err(error) = self.0.shutdown(Shutdown::Both) {
            tracing::debug!(%error, "a connection that was to be ended is gone");
        }
    }
}

/// Keeps a connection's socket at hand.
pub fn on_connect(connection: &dyn Any, data: &mut Extensions) {
    let stream = connection.downcast_ref::<tokio::net::TcpStream>();
    match stream.map(|stream| stream.as_fd().try_clone_to_owned()) {
        Some(Ok(socket)) => {
            data.insert(Connection(Arc::new(TcpStream::from(socket))));
        }
        Some(Err(error)) => tracing::debug!(%error, "a connection that cannot be hung up on"),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::sync::atomic::{AtomicU64, Ordering};

    use actix_web::{App, HttpServer};
    use serde_json::Value;

    /// More than a socket and a response's buffer hold together.
    const LARGE: usize = 4 << 20;

    /// A subscriber that asks and never reads, while every sample is large: its connection is ended from this side, and its
    /// place is free again.
    #[actix_web::test]
    async fn a_connection_that_reads_nothing_is_ended() {
        let env = Env::plain();
        let taken = Arc::new(AtomicU64::new(0));
        let take = move || {
            let number = taken.fetch_add(1, Ordering::SeqCst);
            let filler = char::from(b'a' + u8::try_from(number % 26).unwrap());
            let sample = Value::from(String::from(filler).repeat(LARGE));
            async move { Ok(sample) }.boxed()
        };
        let events = Events::new(&env, Arc::new(take));
        let served = web::Data::new(events.clone());
        let route = |request: HttpRequest, events: web::Data<Events>| async move {
            stream(&request, &events)
        };
        let server = HttpServer::new(move || {
            App::new()
                .app_data(served.clone())
                .route("/events", web::get().to(route))
        })
        .on_connect(on_connect)
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
        let at = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        env.spawn(async move { server.await.unwrap() });

        let mut slow = TcpStream::connect(at).unwrap();
        slow.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut places = Vec::new();
        let mut now = events.feeds();
        while places.len() < 3 {
            if places.last() != Some(&now) {
                places.push(now);
            }
            tokio::task::yield_now().await;
            now = events.feeds();
        }
        assert_eq!(places, [0, 1, 0]);
        // What was on its way arrives, then the end: an orderly one or a reset.
        let mut rest = Vec::new();
        let end = slow.read_to_end(&mut rest);
        let read = rest.len();
        assert!(
            rest.starts_with(b"HTTP/1.1 200 OK"),
            "{end:?}, {read} bytes"
        );
        assert!(
            !rest.ends_with(b"\r\n0\r\n\r\n"),
            "not cut off: {end:?}, {read} bytes"
        );
        handle.stop(false).await;
    }
}
