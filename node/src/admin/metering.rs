//! `/api/v1/metering` and `/api/v1/metering/report`: what a relayer's meter has counted, for whoever has the token.
//!
//! - `GET /api/v1/metering?after=ID&limit=N`: totals since metering began, by customer, as one JSON document.
//! - `GET /api/v1/metering/report?from=N&to=N&close=1`: a report, as bytes; `close` closes a window first.

use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use pqcnet_actor::{AskError, Message, Ref};
use pqcnet_crypto::NodeId;
use pqcnet_messages::metering::{CloseWindow, CreateReport, ReadTotals, Sums, Totals, Volume};
use pqcnet_roles::MeterRefs;
use serde_json::{Value, json};

use super::api::{Api, problem};

/// A window waits for receivers' receipts, 40 s at most; a report hashes and reads what is kept.
const WITHIN: Duration = Duration::from_secs(60);
/// Customers in an answer unless told otherwise.
pub const USUAL: usize = 100;

/// A node's meter, if it has one. Clones ask the same one.
#[derive(Clone, Debug)]
pub struct Metering(pub Option<MeterRefs>);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMetering {
    /// The node has no meter.
    #[error("this node meters nothing: it is no relayer, or `metering.window_seconds` is 0")]
    NoMeter,
    /// The request makes no sense; whoever asks erred.
    #[error("{0}")]
    Asked(String),
    /// The meter does not answer, or has what was asked for not.
    #[error("{0}")]
    Meter(String),
}

impl NoMetering {
    fn response(&self) -> HttpResponse {
        let status = match self {
            NoMetering::NoMeter => StatusCode::NOT_FOUND,
            NoMetering::Asked(_) => StatusCode::BAD_REQUEST,
            NoMetering::Meter(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        problem(status, &self.to_string())
    }
}

impl Metering {
    fn refs(&self) -> Result<&MeterRefs, NoMetering> {
        self.0.as_ref().ok_or(NoMetering::NoMeter)
    }

    /// What was counted, of at most `limit` customers behind `after`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn totals(&self, after: Option<NodeId>, limit: usize) -> Result<Totals, NoMetering> {
        ask(&self.refs()?.totals, ReadTotals { after, limit }).await
    }

    /// A report over these windows, after a window was closed if that is wanted.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn report(
        &self,
        close: bool,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<Bytes, NoMetering> {
        let refs = self.refs()?;
        if close {
            ask(&refs.close, CloseWindow).await?;
        }
        ask(&refs.report, CreateReport { from, to }).await
    }
}

async fn ask<M, T>(to: &Ref<M>, message: M) -> Result<T, NoMetering>
where
    M: Message<Reply = Result<T, String>>,
{
    let answer: Result<M::Reply, AskError> = to.ask(message, WITHIN).await;
    let answer = answer.map_err(|error| NoMetering::Meter(format!("the meter: {error}")))?;
    answer.map_err(NoMetering::Meter)
}

/// The totals as JSON.
pub fn document(totals: &Totals) -> Value {
    let customers = totals.customers.iter().map(|(customer, of)| {
        let mut customer = json!({ "customer": customer.to_string() });
        if let (Some(into), Value::Object(sums)) = (customer.as_object_mut(), sums(of)) {
            into.extend(sums);
        }
        customer
    });
    json!({
        "window": totals.window,
        "oldest_window": totals.oldest,
        "closed_at_ms": totals.closed_at_ms,
        "totals": sums(&totals.all),
        "customers": customers.collect::<Vec<_>>(),
        "more": totals.more,
    })
}

fn sums(sums: &Sums) -> Value {
    json!({
        "stored": volume(sums.stored),
        "delivered": volume(sums.delivered),
        "receipted": volume(sums.receipted),
    })
}

fn volume(volume: Volume) -> Value {
    json!({ "frames": volume.frames, "bytes": volume.bytes })
}

/// The values of a query, by name.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn get<T: std::str::FromStr>(&self, name: &'static str) -> Result<Option<T>, NoMetering> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.into_iter().find(|(key, _)| *key == name);
        let Some((_, value)) = value else {
            return Ok(None);
        };
        let parsed = value.parse().ok();
        let wrong = || NoMetering::Asked(format!("`{name}` cannot be {value:?}"));
        parsed.map(Some).ok_or_else(wrong)
    }
}

pub(super) async fn totals(request: HttpRequest, api: web::Data<Api>) -> HttpResponse {
    if let Err(no) = api.admit(&request) {
        return no.response();
    }
    let query = Query(request.query_string());
    let answer = async {
        let (after, limit) = (query.get("after")?, query.get("limit")?);
        api.metering.totals(after, limit.unwrap_or(USUAL)).await
    };
    match answer.await {
        Ok(totals) => HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(document(&totals)),
        Err(no) => no.response(),
    }
}

pub(super) async fn report(request: HttpRequest, api: web::Data<Api>) -> HttpResponse {
    if let Err(no) = api.admit(&request) {
        return no.response();
    }
    let query = Query(request.query_string());
    let answer = async {
        let (from, to) = (query.get("from")?, query.get("to")?);
        let close = query.get::<u8>("close")?.unwrap_or(0) == 1;
        api.metering.report(close, from, to).await
    };
    match answer.await {
        Ok(report) => HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .content_type("application/octet-stream")
            .body(report),
        Err(no) => no.response(),
    }
}
