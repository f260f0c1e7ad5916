//! The admin pages of a node, clear text on loopback.
//!
//! - `/livez`: 200 while the process answers.
//! - `/readyz`: 200 while it serves, 503 while it starts, drains or cannot do its work; `?verbose` says why.
//! - `/metrics`: OpenMetrics text.
//! - `/api/v1/snapshot`, `/api/v1/events`, `/ui`: what an operator sees, for whoever has the token ([`guard`]).

mod api;
pub mod changes;
pub mod events;
pub mod guard;
pub mod page;
pub mod watch;

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use pqcnet_actor::{ActorInfo, Class, CountersSnapshot, Env, Inspector, Ref};
use pqcnet_roles::Started;
use pqcnet_roles::steward::{Account, AccountGiven};
use pqcnet_telemetry::{Metrics, Sample};

use api::Api;
use guard::Token;
use watch::{Constants, Watch};

/// A steward that does not answer within this is stuck.
const ACCOUNT_DEADLINE: Duration = Duration::from_secs(2);

/// What the pages show. Clones share it.
#[derive(Clone)]
pub struct Pages {
    account: Ref<Account>,
    inspector: Inspector,
    env: Env,
    draining: Arc<AtomicBool>,
    metrics: Metrics,
    latest: Arc<Mutex<Vec<Sample>>>,
    watch: Watch,
}

impl Pages {
    /// Pages of a started node.
    pub fn new(started: &Started, env: &Env, constants: Constants) -> Pages {
        let (metrics, latest) = (Metrics::new(), Arc::new(Mutex::new(Vec::new())));
        let scraped: Arc<Mutex<Vec<Sample>>> = Arc::clone(&latest);
        metrics.source(move || {
            scraped
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        });
        let draining: Arc<AtomicBool> = Arc::default();
        Pages {
            watch: Watch::new(started, env, draining.clone(), constants),
            account: started.steward.of(),
            inspector: started.running.inspector(),
            env: env.clone(),
            draining,
            metrics,
            latest,
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

    async fn scrape(&self) -> Result<String, String> {
        let mut samples = process_samples(&self.env.counters());
        if let Ok(given) = self.account().await {
            samples.extend(account_samples(&given));
        }
        samples.extend(
            self.inspector
                .inspect()
                .await
                .iter()
                .flat_map(actor_samples),
        );
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = samples;
        self.metrics.render().map_err(|error| error.to_string())
    }
}

fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line)
        .and_then(|()| text.write_char('\n'))
        .expect("a String takes any text");
}

fn process_samples(counters: &CountersSnapshot) -> Vec<Sample> {
    let named = [
        (
            "dead_letters",
            "Messages that no actor handled",
            counters.dead_letters,
        ),
        (
            "bulk_dropped",
            "Bulk messages dropped at a full lane",
            counters.bulk_dropped,
        ),
        (
            "refused",
            "Messages handed back at a full lane",
            counters.refused,
        ),
        (
            "actor_panics",
            "Incarnations that panicked",
            counters.panics,
        ),
        (
            "actor_restarts",
            "Incarnations started in the place of an ended one",
            counters.restarts,
        ),
        (
            "actors_killed",
            "Actors cut off at their shutdown deadline",
            counters.killed,
        ),
    ];
    named
        .map(|(name, help, value)| Sample::counter(name, help, value))
        .into()
}

fn account_samples(given: &AccountGiven) -> Vec<Sample> {
    let report = &given.report;
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let mut samples = vec![
        Sample::gauge(
            "serving",
            "Whether the node does its work",
            u64::from(given.serving),
        ),
        Sample::gauge("uptime_ms", "Since the node started", report.uptime_ms),
        Sample::gauge("links", "Open links", count(report.links.len())),
        Sample::gauge(
            "problems",
            "Things that are wrong",
            count(report.problems.len()),
        ),
    ];
    for (name, value) in &report.counters {
        samples.push(
            Sample::gauge("role_count", "What the role counts, by name", *value)
                .label("name", name.clone()),
        );
    }
    for shard in &report.shards {
        let id = shard.id.to_string();
        let of = |name, help, value| Sample::gauge(name, help, value).label("shard", id.clone());
        samples.push(of(
            "shard_channels",
            "Channels with a record",
            shard.channels,
        ));
        samples.push(of("shard_records", "Records stored", shard.records));
        samples.push(of("shard_bytes", "Payload bytes stored", shard.bytes));
    }
    samples
}

fn actor_samples(actor: &ActorInfo) -> Vec<Sample> {
    let path = actor.path.as_str().to_owned();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let micros = u64::try_from(actor.busy.as_micros()).unwrap_or(u64::MAX);
    let mut samples = vec![
        Sample::counter("actor_handled", "Messages handled", actor.handled),
        Sample::counter(
            "actor_busy_us",
            "Time spent handling, from a sample",
            micros,
        ),
        Sample::counter(
            "actor_starts",
            "Incarnations after the first",
            u64::from(actor.restarts),
        ),
    ]
    .into_iter()
    .map(|sample| sample.label("actor", path.clone()))
    .collect::<Vec<_>>();
    for (class, depth) in Class::ALL.iter().zip(actor.depth) {
        samples.push(
            Sample::gauge("actor_queue", "Messages waiting", count(depth))
                .label("actor", path.clone())
                .label("class", format!("{class:?}").to_lowercase()),
        );
    }
    samples
}

/// Binds the pages and makes their server; whoever polls it serves them, on one thread of its own. The address of the
/// operator's page goes into the file `page_url`; a node that cannot write it serves everything else.
pub fn server(
    at: SocketAddr,
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
    let api = web::Data::new(Api::new(&pages.env, pages.watch.clone(), token));
    let pages = web::Data::new(pages);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(pages.clone())
            .app_data(api.clone())
            .route("/livez", web::get().to(livez))
            .route("/readyz", web::get().to(readyz))
            .route("/metrics", web::get().to(metrics))
            .configure(api::routes)
    })
    .on_connect(api::on_connect)
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .listen(listener)?;
    Ok((bound, server.run()))
}

async fn livez() -> HttpResponse {
    text(StatusCode::OK, "ok\n".to_owned())
}

async fn readyz(request: HttpRequest, pages: web::Data<Pages>) -> HttpResponse {
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

async fn metrics(pages: web::Data<Pages>) -> HttpResponse {
    match pages.scrape().await {
        Ok(page) => HttpResponse::Ok()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(page),
        Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
    }
}

fn text(status: StatusCode, body: String) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/plain; charset=utf-8")
        .body(body)
}
