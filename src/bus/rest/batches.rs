//! Batches of messages and settles, which are JSON already.

use futures_util::future::FutureExt as _;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::bus::claim::ClaimRequest;
use crate::bus::core::{batch, millis};
use crate::bus::error::Error;
use crate::bus::queries::{Enqueued, StepRow};
use crate::bus::rest::Rest;
use crate::bus::rest::rows::{read, steps};
use crate::bus::transport::Answer;
use crate::error::Code;
use crate::message::{DEFAULT_TENANT, NewMessage};

/// JSON that is written already.
fn raw(call: &'static str, text: &str) -> Result<Box<RawValue>, Error> {
    RawValue::from_string(text.to_owned()).map_err(|error| Error::Refused {
        code: Code::Internal,
        message: format!("{call}: {error}"),
    })
}

#[derive(Serialize)]
struct StepArguments<'a> {
    settles: Box<RawValue>,
    worker: &'a str,
    topics: &'a [String],
    max: i32,
    lease_ms: i32,
    tenant: &'a str,
}

fn read_steps(_call: &'static str, body: &[u8]) -> Result<Vec<StepRow>, Error> {
    steps(body)
}

pub(super) fn enqueue<'a>(rest: &'a Rest, messages: &'a [NewMessage]) -> Answer<'a, Vec<Enqueued>> {
    #[derive(Serialize)]
    struct Arguments {
        messages: Box<RawValue>,
    }
    match batch(messages).and_then(|messages| raw("bus_enqueue", &messages)) {
        Ok(messages) => rest.rpc("bus_enqueue", Arguments { messages }, read),
        Err(error) => async { Err(error) }.boxed(),
    }
}

pub(super) fn step<'a>(
    rest: &'a Rest,
    settles: &'a str,
    request: &'a ClaimRequest,
) -> Answer<'a, Vec<StepRow>> {
    let settles = match raw("bus_step", settles) {
        Ok(settles) => settles,
        Err(error) => return async { Err(error) }.boxed(),
    };
    let arguments = StepArguments {
        settles,
        worker: &request.worker,
        topics: &request.topics,
        max: i32::try_from(request.max).unwrap_or(i32::MAX),
        lease_ms: millis(request.lease),
        tenant: &request.tenant,
    };
    rest.rpc("bus_step", arguments, read_steps)
}

pub(super) fn settle<'a>(rest: &'a Rest, settles: &'a str) -> Answer<'a, Vec<StepRow>> {
    let settles = match raw("bus_step", settles) {
        Ok(settles) => settles,
        Err(error) => return async { Err(error) }.boxed(),
    };
    let claims = rest.claims();
    let claims = claims.as_ref();
    let arguments = StepArguments {
        settles,
        // Who settles is not recorded, but a token may be for one worker and one tenant alone.
        worker: claims.and_then(|claims| claims.worker.as_deref()).unwrap_or("settle"),
        topics: &[],
        max: 0,
        lease_ms: 1000,
        tenant: claims.and_then(|claims| claims.tenant.as_deref()).unwrap_or(DEFAULT_TENANT),
    };
    rest.rpc("bus_step", arguments, read_steps)
}
