//! The admin pages of a node, clear text on loopback.
//!
//! - `/livez`: 200 while the process answers.
//! - `/readyz`: 200 while it serves, 503 while it starts, drains or cannot do its work; `?verbose` says why.
//! - `/metrics`: Prometheus's text, or OpenMetrics for who asks for it.
//!
//! All three answer who names this node by address or as `localhost`, and, where `admin.public` lets others in, everybody: a
//! page of the web whose name was made to point here reads nothing.
//!
//! - `/api/v1/snapshot`, `/api/v1/events`, `/ui`: what an operator sees, for whoever has the token ([`guard`]).
//! - `/api/v1/metering`: what a relayer's meter has counted, for the same ([`metering`]).

mod api;
pub mod changes;
pub mod events;
mod grpc;
pub mod guard;
pub mod keys;
pub mod metering;
mod metrics;
pub mod page;
pub mod watch;

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::StatusCode;
use actix_web::http::header::ACCEPT;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use pqcnet_actor::{Env, Ref};
use pqcnet_roles::Started;
use pqcnet_roles::steward::{Account, AccountGiven};
use pqcnet_telemetry::{Sample, TextFormat};

use api::Api;
use guard::Token;
use metering::Metering;
use metrics::Scrape;
use watch::{Constants, Watch};

/// A steward that does not answer within this is stuck.
const ACCOUNT_DEADLINE: Duration = Duration::from_secs(2);
/// Connections at once: the page's viewers, a scraper, some operators, and room. More wait in the system's queue.
const MAX_CONNECTIONS: usize = 128;
/// A request's head takes no longer, and a connection without one is closed after as long.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// What the pages show. Clones share it.
#[derive(Clone)]
pub struct Pages {
    account: Ref<Account>,
    env: Env,
    draining: Arc<AtomicBool>,
    scrape: Scrape,
    watch: Watch,
    metering: Metering,
}

impl Pages {
    /// Pages of a started node.
    pub fn new(started: &Started, env: &Env, constants: Constants) -> Pages {
        let draining: Arc<AtomicBool> = Arc::default();
        Pages {
            watch: Watch::new(started, env, draining.clone(), constants),
            account: started.steward.of(),
            metering: Metering(started.meter.clone()),
            env: env.clone(),
            draining,
            scrape: Scrape::new(
                started.steward.of(),
                started.running.inspector(),
                env.clone(),
            ),
        }
    }

    /// From now on the node is not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    async fn account(&self) -> Result<AccountGiven, String> {
        let asked = self.account.ask(Account, ACCOUNT_DEADLINE).await;
        asked.map_err(|error| format!("the steward does not answer: {error}"))
    }

    async fn readiness(&self) -> (bool, String) {
        if self.draining.load(Ordering::Acquire) {
            return (false, "draining\n".to_owned());
        }
        let given = match self.account().await {
            Ok(given) => given,
            Err(why) => return (false, format!("{why}\n")),
        };
        let mut told = format!(
            "{} {}: {}\n{} links, {} shards\n",
            given.report.role,
            given.report.node_id.short(),
            if given.serving {
                "serving"
            } else {
                "not serving"
            },
            given.report.links.len(),
            given.report.shards.len(),
        );
        for problem in &given.report.problems {
            push_line(&mut told, format_args!("problem: {problem}"));
        }
        (given.serving, told)
    }

    /// Adds what else is read at every scrape; it must be quick.
    pub fn source(&self, read: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        self.scrape.source(read);
    }

    /// Everything that `/metrics` shows.
    pub async fn samples(&self) -> Vec<Sample> {
        self.scrape.samples().await
    }
}

fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line)
        .and_then(|()| text.write_char('\n'))
        .expect("a String takes any text");
}

/// Binds the pages and makes their server; whoever polls it serves them, on one thread of its own. The address of the
/// operator's page goes into the file `page_url`; a node that cannot write it serves everything else. Where `grpc` is given,
/// the meter is served there too, under the same token.
pub fn server(
    at: SocketAddr,
    grpc: Option<SocketAddr>,
    pages: Pages,
    page_url: &Path,
) -> std::io::Result<(SocketAddr, Server)> {
    let listener = TcpListener::bind(at)?;
    let bound = listener.local_addr()?;
    let token = Token::establish(page_url, bound);
    match &token {
        Ok(_) => tracing::info!(file = %page_url.display(), "the operator's page: `pqcnet ui`"),
        Err(why) => tracing::warn!(%why, "no operator's page"),
    }
    let token = Arc::new(token);
    if let Some(at) = grpc {
        let at = grpc::serve(&pages.env, at, pages.metering.clone(), token.clone())?;
        tracing::info!(%at, "gRPC: pqcnet.meter.v1.Metering");
    }
    let api = web::Data::new(Api::new(
        &pages.env,
        pages.watch.clone(),
        pages.metering.clone(),
        token,
    ));
    let pages = web::Data::new(pages);
    let callers = web::Data::new(Callers {
        anybody: !bound.ip().is_loopback(),
    });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(pages.clone())
            .app_data(api.clone())
            .app_data(callers.clone())
            .route("/livez", web::get().to(livez))
            .route("/readyz", web::get().to(readyz))
            .route("/metrics", web::get().to(metrics))
            .configure(api::routes)
    })
    .on_connect(api::on_connect)
    .workers(1)
    .max_connections(MAX_CONNECTIONS)
    .client_request_timeout(REQUEST_WITHIN)
    .keep_alive(REQUEST_WITHIN)
    .disable_signals()
    .shutdown_timeout(1)
    .listen(listener)?;
    Ok((bound, server.run()))
}

/// Whom the pages without a token answer.
#[derive(Clone, Copy, Debug)]
struct Callers {
    /// Not only who names this node as nobody else can be named.
    anybody: bool,
}

impl Callers {
    /// What a request gets that came under a name which leads here and is not ours.
    fn stranger(self, request: &HttpRequest) -> Option<HttpResponse> {
        let refused = match self.anybody {
            true => None,
            false => api::ours(request).err(),
        };
        refused.map(|no| no.response())
    }
}

async fn livez(request: HttpRequest, callers: web::Data<Callers>) -> HttpResponse {
    match callers.stranger(&request) {
        Some(no) => no,
        None => text(StatusCode::OK, "ok\n".to_owned()),
    }
}

async fn readyz(
    request: HttpRequest,
    callers: web::Data<Callers>,
    pages: web::Data<Pages>,
) -> HttpResponse {
    if let Some(no) = callers.stranger(&request) {
        return no;
    }
    let (ready, told) = pages.readiness().await;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let verbose = request
        .query_string()
        .split('&')
        .any(|part| part.split('=').next() == Some("verbose"));
    let short = if ready { "ok\n" } else { "not ready\n" };
    text(status, if verbose { told } else { short.to_owned() })
}

async fn metrics(
    request: HttpRequest,
    callers: web::Data<Callers>,
    pages: web::Data<Pages>,
) -> HttpResponse {
    if let Some(no) = callers.stranger(&request) {
        return no;
    }
    let accept = request.headers().get(ACCEPT);
    let format = TextFormat::accepted(accept.and_then(|value| value.to_str().ok()));
    match pages.scrape.page(format).await {
        Ok(page) => HttpResponse::Ok()
            .content_type(format.content_type())
            .body(page),
        Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
    }
}

fn text(status: StatusCode, body: String) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/plain; charset=utf-8")
        .body(body)
}
