//! `/rest/v1/rpc/{function}`: the functions of the bus.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest as _, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::bus::{Bus, Signal};
use crate::hub::Hub;
use crate::hub::caller::{About, Access, Caller};
use crate::hub::extract::PathParams;
use crate::hub::rest::Error;
use crate::hub::rest::answer::{self, Failed, Rows};
use crate::hub::rest::catalogue::{Catalogue, Function, Gives};
use crate::hub::rest::query::{self, Query};
use crate::hub::rest::sql::{Form, Shape, Sql, Total};
use crate::hub::rest::wants::{Media, Prefer, check_is_json, check_schema, heed_range};

/// Arguments, as they were sent.
struct Args {
    /// All of them, as a JSON object.
    json: String,
    names: Vec<String>,
}

impl Args {
    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }
}

/// Calls a function.
pub(super) async fn call(
    State(hub): State<Arc<Hub>>,
    path: PathParams,
    request: Request,
) -> Result<Response, Error> {
    let (head, body) = request.into_parts();
    let caller = Caller::of_request(&hub.state.keys, &head.headers, &head.uri)?;
    let name = path.text("function");
    check_schema(&head.method, &head.headers)?;
    let (media, prefer) = (Media::of(&head.headers)?, Prefer::of(&head.headers)?);
    let pairs = query::pairs(&head.uri)?;
    let (function, args, pairs) = match head.method {
        Method::POST => {
            check_is_json(&head.headers)?;
            let args =
                args_of_body(body, head.extensions.clone(), hub.state.options.rest.max_body_bytes)
                    .await?;
            (find(&hub, name, |all| all.function(name, &args.names())).await?, args, pairs)
        }
        Method::GET | Method::HEAD => {
            find(&hub, name, |all| {
                let (args, rest) = args_of_pairs(all.functions(name), &pairs)?;
                Ok((all.function(name, &args.names())?, args, rest))
            })
            .await?
        }
        _ => return Err(not_so(&head.method)),
    };
    let mut query = query::read(&pairs, name)?;
    if head.method == Method::GET {
        heed_range(&head.headers, &mut query)?;
    }
    run(&hub, &caller, &head, Call { function, args, query, media, prefer }).await
}

/// A call that is understood.
struct Call {
    function: Arc<Function>,
    args: Args,
    query: Query,
    media: Media,
    prefer: Prefer,
}

async fn run(hub: &Hub, caller: &Caller, head: &Parts, call: Call) -> Result<Response, Error> {
    let Call { function, args, query, media, prefer } = call;
    let gives = function.gives();
    let with_body = head.method != Method::HEAD;
    let form = match (gives, media) {
        (Gives::Rows, Media::Csv) => Form::Texts,
        _ => Form::Json,
    };
    let sql = {
        let (given, json) = (args.names(), args.json.clone());
        match gives {
            Gives::Rows | Gives::Row => {
                let total = if prefer.count.is_some() { Total::Exact } else { Total::Untold };
                // Never fewer rows than the function gave: what a claim took must be told.
                let bytes_max = hub.state.options.rest.max_answer_bytes;
                let shape = Shape { rows_max: None, form, total, bytes_max };
                Sql::of_rows(&function, &given, json, &query, shape)?
            }
            _ if !query.is_plain() => {
                let message = format!(
                    "public.{} gives no columns to select, filter or order by",
                    function.name
                );
                return Err(Error::parse(message));
            }
            Gives::Nothing => Sql::of_nothing(&function, &given, json),
            Gives::Value | Gives::Values => Sql::of_values(&function, &given, json),
        }
    };
    // As PostgREST: what is asked for with GET changes nothing, whatever the function is.
    let writes = head.method == Method::POST && !function.only_reads;
    let access = if writes { Access::Write } else { Access::Read };
    let about =
        About { method: head.method.as_str(), path: head.uri.path(), headers: &head.headers };
    let mut transaction = caller.begin(&hub.callers, access, &about).await?;
    let bytes_max = hub.state.options.rest.max_answer_bytes;
    let rows = match answer::fetch(&mut transaction, &sql, form, bytes_max).await {
        Ok(rows) => rows,
        Err(Failed::TooLarge) => return Err(answer::too_large(bytes_max)),
        Err(Failed::Database(error)) => {
            if error.as_database_error().is_some() {
                transaction.rollback().await;
            }
            return Err(caller.refusal(&error));
        }
    };
    let answered = answer_of(rows, gives, &function, &query, (media, prefer, with_body));
    match answered {
        Ok(response) => {
            let committed = transaction.commit().await;
            committed.map_err(|error| caller.refusal(&error))?;
            if writes {
                wake(&hub.state.bus, &function.name, &args.json);
            }
            Ok(response)
        }
        // What cannot be answered as it was asked for is undone, as PostgREST does.
        Err(error) => {
            transaction.rollback().await;
            Err(error)
        }
    }
}

fn answer_of(
    rows: Rows,
    gives: Gives,
    function: &Function,
    query: &Query,
    (media, prefer, with_body): (Media, Prefer, bool),
) -> Result<Response, Error> {
    match gives {
        Gives::Nothing => Ok(StatusCode::NO_CONTENT.into_response()),
        Gives::Value | Gives::Row => Ok(answer::of_value(rows.into_value(), with_body)),
        Gives::Values => {
            let media = if media == Media::Csv { Media::Array } else { media };
            rows.answer(media, &[], 0, prefer, with_body)
        }
        Gives::Rows => {
            let names = query.names(function.columns.as_deref().unwrap_or_default());
            rows.answer(media, &names, query.offset, prefer, with_body)
        }
    }
}

/// Looks into the catalogue, and reads it again where what is wanted is not in it: a migration may have just
/// brought it.
async fn find<T>(
    hub: &Hub,
    name: &str,
    look: impl Fn(&Catalogue) -> Result<T, Error>,
) -> Result<T, Error> {
    let pool = &hub.callers.pool;
    match look(&*hub.catalogue.get(pool).await?) {
        // Only for what can be there at all, so that wrong names cost the database nothing.
        Err(error) if error.code() == "PGRST202" && name.starts_with("bus_") => {
            look(&*hub.catalogue.renewed(pool).await?)
        }
        looked => looked,
    }
}

/// Reads a body: a JSON object, in which no name stands twice; nothing at all is an empty one.
async fn args_of_body(body: Body, extensions: Extensions, limit: usize) -> Result<Args, Error> {
    // The extensions say that the limit is the router's, and not axum's own.
    let mut request = Request::new(body);
    *request.extensions_mut() = extensions;
    let bytes = Bytes::from_request(request, &()).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Error::new(413, "CG413", format!("body: at most {limit} bytes"));
        }
        invalid("the body ended before it was complete")
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| invalid("the body is not UTF-8"))?;
    if text.trim_ascii().is_empty() {
        return Ok(Args { json: "{}".to_owned(), names: Vec::new() });
    }
    let Names(names) = serde_json::from_str(text).map_err(|error| invalid(&error.to_string()))?;
    Ok(Args { json: text.to_owned(), names })
}

fn invalid(why: &str) -> Error {
    Error::new(400, "PGRST102", "Empty or invalid json").with_details(why)
}

/// The names of an object, whatever their values are.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object with the function's arguments")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Names, A::Error> {
                let mut names = BTreeSet::new();
                while let Some(name) = fields.next_key::<String>()? {
                    fields.next_value::<IgnoredAny>()?;
                    if let Some(name) = names.replace(name) {
                        let why = format_args!("argument `{name}` stands twice");
                        return Err(serde::de::Error::custom(why));
                    }
                }
                Ok(Names(names.into_iter().collect()))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

type Pairs = Vec<(String, String)>;

/// Takes the arguments out of a query; the rest says what is wanted of the result. A value is text that Postgres
/// reads as the argument's type, or JSON where that is the type.
fn args_of_pairs(functions: &[Arc<Function>], pairs: &Pairs) -> Result<(Args, Pairs), Error> {
    let kind = |name: &str| {
        let mut args = functions.iter().flat_map(|function| &function.args);
        args.find(|arg| arg.name == name).map(|arg| arg.kind.as_str())
    };
    let (mut args, mut rest) = (Map::new(), Pairs::new());
    let reserved =
        ["select", "order", "limit", "offset", "and", "or", "not.and", "not.or", "apikey"];
    for (name, value) in pairs {
        let value = match kind(name) {
            None if reserved.contains(&name.as_str()) || looks_like_a_filter(value) => {
                rest.push((name.clone(), value.clone()));
                continue;
            }
            // No argument of the function, which says so itself.
            None => Value::Null,
            Some("json" | "jsonb") => serde_json::from_str(value).map_err(|_| {
                Error::new(400, "22P02", "invalid input syntax for type json")
                    .with_details(format!("{name}: must be JSON"))
            })?,
            Some(_) => Value::String(value.clone()),
        };
        if args.insert(name.clone(), value).is_some() {
            return Err(Error::parse(format!("{name}: stands twice in the query")));
        }
    }
    let names = args.keys().cloned().collect();
    Ok((Args { json: Value::Object(args).to_string(), names }, rest))
}

fn looks_like_a_filter(value: &str) -> bool {
    let word = value.strip_prefix("not.").unwrap_or(value);
    let word = word.split(['.', '(']).next().unwrap_or_default();
    word.len() < value.len() && !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase())
}

fn not_so(method: &Method) -> Error {
    Error::new(405, "PGRST101", format!("Cannot use the {method} method on RPC"))
        .with_header(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"))
}

/// Tells this process, and soon the others, what there is to look at after a call. A wake-up too many is only
/// a look too many; those that poll with nothing to say must not make one.
fn wake(bus: &Bus, function: &str, args: &str) {
    let signals: &[Signal] = match function {
        "bus_claim" | "bus_extend" => &[],
        "bus_step" if settles_nothing(args) => &[],
        "bus_append_event" | "bus_worker_seen" | "bus_worker_gone" | "bus_pin" => &[Signal::Log],
        "bus_define" => &[],
        "bus_env_set" | "bus_env_unset" => &[Signal::Env, Signal::Log],
        "bus_enqueue" | "bus_complete" | "bus_fail" | "bus_release" | "bus_step"
        | "bus_requeue" | "bus_drop" => &[Signal::Work, Signal::Log],
        "bus_cancel" => &[Signal::Work, Signal::Log, Signal::Claims],
        // Of breakers, and what is not known here: it may have done anything.
        _ => &[Signal::Work, Signal::Log, Signal::Circuit],
    };
    signals.iter().for_each(|signal| bus.wake(*signal));
}

fn settles_nothing(args: &str) -> bool {
    #[derive(Deserialize)]
    struct Step<'a> {
        #[serde(borrow)]
        settles: Option<&'a RawValue>,
    }
    let step = serde_json::from_str::<Step<'_>>(args);
    let settles = step.ok().and_then(|step| step.settles);
    settles.is_none_or(|settles| {
        settles.get().bytes().all(|b| b.is_ascii_whitespace() || matches!(b, b'[' | b']'))
    })
}
