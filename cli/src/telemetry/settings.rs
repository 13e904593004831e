//! How traces are exported, by the variables that OpenTelemetry's specification names.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | where spans are posted, as it is | |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | the same, and `/v1/traces` is added | off without either |
//! | `OTEL_EXPORTER_OTLP[_TRACES]_PROTOCOL` | `http/protobuf` | that |
//! | `OTEL_EXPORTER_OTLP[_TRACES]_HEADERS` | `name=value,…`, such as a key | none |
//! | `OTEL_EXPORTER_OTLP[_TRACES]_TIMEOUT` | of one export, in milliseconds | 10000 |
//! | `OTEL_EXPORTER_OTLP[_TRACES]_CERTIFICATE` | a PEM file with roots beside the system's | none |
//! | `OTEL_EXPORTER_OTLP[_TRACES]_COMPRESSION` | `none` | that |
//! | `OTEL_SERVICE_NAME` | `service.name` | `cogo` |
//! | `OTEL_RESOURCE_ATTRIBUTES` | `key=value,…` | none |
//! | `OTEL_TRACES_SAMPLER`, `_ARG` | which traces are recorded | `parentbased_always_on` |
//! | `OTEL_BSP_SCHEDULE_DELAY` | the longest wait for more spans, in milliseconds | 5000 |
//! | `OTEL_BSP_MAX_QUEUE_SIZE`, `_MAX_EXPORT_BATCH_SIZE` | how many spans wait, and go at once | 2048, 512 |
//! | `OTEL_TRACES_EXPORTER` | `otlp` or `none` | `otlp` |
//! | `OTEL_SDK_DISABLED` | `true` switches all of it off | `false` |
//!
//! An empty variable is one that is not set. What is not in the table and would change where spans go or how
//! safely (gRPC, gzip, client certificates) is refused rather than ignored.

use std::time::Duration;

use anyhow::Result;
use opentelemetry::KeyValue;
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use super::queue;
use super::sampler::Sampler;
use crate::exit::Failed;

/// How the environment is read.
type Get<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where `OTEL_EXPORTER_OTLP_ENDPOINT` has its traces.
const PATH: &str = "/v1/traces";

/// How traces are exported.
pub(super) struct Settings {
    pub(super) endpoint: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) timeout: Duration,
    /// PEM, beside the system's.
    pub(super) certificates: Option<Vec<u8>>,
    pub(super) service: String,
    pub(super) resource: Vec<KeyValue>,
    pub(super) sampler: Sampler,
    pub(super) queue: queue::Limits,
}

impl Settings {
    /// Reads and checks all of them; none where traces are off.
    pub(super) fn load(get: Get<'_>) -> Result<Option<Self>> {
        let read = |name: &str| {
            get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        match read("OTEL_SDK_DISABLED").map(|value| value.to_ascii_lowercase()).as_deref() {
            None | Some("false") => {}
            Some("true") => return Ok(None),
            Some(_) => return Err(wrong("OTEL_SDK_DISABLED", "must be true or false")),
        }
        match read("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(_) => return Err(wrong("OTEL_TRACES_EXPORTER", "must be otlp or none")),
        }
        let Some(endpoint) = endpoint(&read)? else { return Ok(None) };
        let own = |what: &str| {
            let names =
                [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
            names.into_iter().find_map(|name| Some((read(&name)?, name)))
        };
        match own("PROTOCOL") {
            Some((value, name)) if value == "grpc" => {
                let rule =
                    "grpc is not built in: use http/protobuf, which collectors take at port 4318";
                return Err(wrong(&name, rule));
            }
            Some((value, name)) if value != "http/protobuf" => {
                return Err(wrong(&name, "must be http/protobuf"));
            }
            _ => {}
        }
        if let Some((_, name)) = own("COMPRESSION").filter(|(value, _)| value != "none") {
            return Err(wrong(&name, "must be none: no compression is built in"));
        }
        for what in ["CLIENT_KEY", "CLIENT_CERTIFICATE"] {
            if let Some((_, name)) = own(what) {
                return Err(wrong(&name, "client certificates are not supported; use a header"));
            }
        }
        let timeout = match own("TIMEOUT") {
            Some((value, name)) => millis(&value, &name)?,
            None => Duration::from_secs(10),
        };
        let headers = match own("HEADERS") {
            Some((value, name)) => headers(&value, &name)?,
            None => Vec::new(),
        };
        let certificates = match own("CERTIFICATE") {
            Some((path, name)) => Some(
                std::fs::read(&path)
                    .map_err(|error| wrong(&name, format!("cannot read {path}: {error}")))?,
            ),
            None => None,
        };
        let (service, resource) = resource(&read)?;
        let queue = limits(&read)?;
        let sampler = sampler(&read)?;
        Ok(Some(Self {
            endpoint,
            headers,
            timeout,
            certificates,
            service,
            resource,
            sampler,
            queue,
        }))
    }

    /// The endpoint for people; a query, in which a key might stand, is left out.
    pub(super) fn shown_endpoint(&self) -> String {
        self.endpoint.split('?').next().unwrap_or_default().to_owned()
    }
}

fn wrong(name: &str, rule: impl std::fmt::Display) -> anyhow::Error {
    Failed::usage(format!("{name}: {rule}")).into()
}

fn endpoint(read: Get<'_>) -> Result<Option<String>> {
    const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const COMMON: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let (name, text) = match (read(OWN), read(COMMON)) {
        (Some(text), _) => (OWN, text),
        (None, Some(text)) => (COMMON, text),
        (None, None) => return Ok(None),
    };
    // Never with the value, in which there may be a password.
    let rule = "must be an address such as http://127.0.0.1:4318";
    let mut url = Url::parse(&text).map_err(|_| wrong(name, rule))?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Err(wrong(name, rule));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(name, "must hold no user and password: use OTEL_EXPORTER_OTLP_HEADERS"));
    }
    if name == COMMON {
        let path = format!("{}{PATH}", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    Ok(Some(url.into()))
}

fn millis(value: &str, name: &str) -> Result<Duration> {
    match value.parse::<u64>() {
        Ok(ms @ 1..=3_600_000) => Ok(Duration::from_millis(ms)),
        _ => Err(wrong(name, "must be milliseconds, from 1 to 3600000")),
    }
}

/// `name=value` pairs with commas between, the values percent-encoded where need be. What is wrong is said by its
/// place alone: values are secrets.
fn pairs(text: &str, name: &str) -> Result<Vec<(String, String)>> {
    let entries = (1..).zip(text.split(',')).filter(|(_, entry)| !entry.trim().is_empty());
    let pair = |(number, entry): (u32, &str)| {
        let bad = || wrong(name, format!("entry {number} must be name=value, percent-encoded"));
        let (key, value) = entry.split_once('=').ok_or_else(bad)?;
        let (key, value) = (decoded(key).ok_or_else(bad)?, decoded(value).ok_or_else(bad)?);
        if key.is_empty() { Err(bad()) } else { Ok((key, value)) }
    };
    entries.map(pair).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.trim().bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || (bytes.next()? as char).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

fn headers(text: &str, name: &str) -> Result<Vec<(String, String)>> {
    let pairs = pairs(text, name)?;
    for (number, (key, value)) in (1..).zip(&pairs) {
        let good = key.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok();
        if !good {
            return Err(wrong(name, format!("header {number} is none that HTTP allows")));
        }
    }
    Ok(pairs)
}

/// The service's name and what else is known of it.
fn resource(read: Get<'_>) -> Result<(String, Vec<KeyValue>)> {
    const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let mut pairs = read(NAME).map_or_else(|| Ok(Vec::new()), |text| pairs(&text, NAME))?;
    let named =
        pairs.iter().position(|(key, _)| key == "service.name").map(|at| pairs.remove(at).1);
    let service = read("OTEL_SERVICE_NAME").or(named).unwrap_or_else(|| "cogo".to_owned());
    Ok((service, pairs.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect()))
}

fn sampler(read: Get<'_>) -> Result<Sampler> {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    const ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
    let name = read(NAME).unwrap_or_else(|| "parentbased_always_on".to_owned());
    let (parent_based, own) = match name.strip_prefix("parentbased_") {
        Some(own) => (true, own),
        None => (false, name.as_str()),
    };
    let ratio = match own {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => match read(ARG).map(|text| text.parse::<f64>()) {
            None => 1.0,
            Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => ratio,
            Some(_) => return Err(wrong(ARG, "must be a share from 0 to 1")),
        },
        _ => {
            let rule =
                "must be always_on, always_off or traceidratio, or one of them after parentbased_";
            return Err(wrong(NAME, rule));
        }
    };
    Ok(Sampler { parent_based, ratio })
}

fn limits(read: Get<'_>) -> Result<queue::Limits> {
    let count = |name: &str, usual: usize| match read(name).map(|text| text.parse::<usize>()) {
        None => Ok(usual),
        Some(Ok(count @ 1..=1_000_000)) => Ok(count),
        Some(_) => Err(wrong(name, "must be a number from 1 to 1000000")),
    };
    const DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
    const BATCH: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
    let spans = count("OTEL_BSP_MAX_QUEUE_SIZE", 2048)?;
    let batch = count(BATCH, 512.min(spans))?;
    if batch > spans {
        return Err(wrong(BATCH, "must be at most OTEL_BSP_MAX_QUEUE_SIZE"));
    }
    let delay = match read(DELAY) {
        Some(text) => millis(&text, DELAY)?,
        None => Duration::from_secs(5),
    };
    Ok(queue::Limits { spans, batch, delay })
}

#[cfg(test)]
mod tests;
