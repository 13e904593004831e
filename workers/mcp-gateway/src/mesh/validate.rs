//! Arguments against the tool's `inputSchema`, before anything is queued.
//!
//! A schema is untrusted: it comes from whatever server a machine has joined with. So nothing that it refers to is
//! ever fetched, its size is bounded, and where its cost does not follow from its size (references, backtracking
//! patterns) it is tried on a thread of its own, for a limited time. A schema that is too large, cannot be compiled
//! or takes too long checks nothing: the call passes, for the server judges it in any case, and the log says so once.

mod problem;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, oneshot};

use super::{Offer, Refusal};

/// How many definitions are kept, compiled: a few KB each.
const KEPT: usize = 1024;
/// The largest schema that is compiled, as JSON text. The largest seen in the wild has some 60 KB.
const SCHEMA_BYTES: usize = 256 * 1024;
/// How many values a schema may have within it.
const SCHEMA_NODES: usize = 20_000;
/// How deep a schema may be, and how deep arguments.
const DEPTH: usize = 64;
/// How many values of a schema times values of arguments are checked where they come, at some 10 ns each.
const AT_ONCE: usize = 100_000;
/// How many times a schema may be entered within itself, by its references: each takes stack.
const NESTED: usize = 100_000;
/// The stack of a thread that checks; only what is touched takes memory.
const STACK: usize = 256 << 20;
/// How many threads may check at a time. One that never ends keeps its place.
const THREADS: usize = 4;
/// How long a thread is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a pattern may go back, and how large it may be once compiled (a few ms of work).
const BACKTRACKS: usize = 100_000;
const PATTERN_BYTES: usize = 256 * 1024;

/// The schemas of tools, compiled. By the hash of the definition, so that what has changed is compiled anew.
#[derive(Debug)]
pub(super) struct Validators {
    known: Mutex<Known>,
    threads: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Validators {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            threads: Arc::new(Semaphore::new(THREADS)),
            patience: PATIENCE,
        }
    }
}

#[derive(Debug, Default)]
struct Known {
    by_hash: HashMap<String, (u64, Entry)>,
    uses: u64,
}

/// What is known of a schema.
#[derive(Debug, Clone)]
enum Entry {
    Checks(Arc<Schema>),
    /// It checks nothing; the log has said why.
    Passes,
}

#[derive(Debug)]
struct Schema {
    validator: Validator,
    /// For what an error is to name.
    text: Value,
    nodes: usize,
    /// Its cost does not follow from its size.
    hard: bool,
}

impl Validators {
    /// Gives `arguments` back if they fit the schema of `offer`.
    ///
    /// # Errors
    /// [`Refusal::InvalidArguments`].
    pub(super) async fn check(
        &self,
        offer: &Offer,
        arguments: Map<String, Value>,
    ) -> Result<Map<String, Value>, Refusal> {
        let arguments = Value::Object(arguments);
        let size = Size::of(&arguments);
        if size.depth > DEPTH {
            let message = format!("arguments: are nested more than {DEPTH} deep");
            return Err(Refusal::InvalidArguments { pointer: String::new(), message });
        }
        let (arguments, problem) = match self.schema(offer).await {
            Entry::Passes => (arguments, None),
            Entry::Checks(schema) => self.judge(offer, schema, arguments, size).await,
        };
        match (problem, arguments) {
            (Some((pointer, message)), _) => Err(Refusal::InvalidArguments { pointer, message }),
            (None, Value::Object(arguments)) => Ok(arguments),
            (None, _) => unreachable!("they came as an object"),
        }
    }

    async fn judge(
        &self,
        offer: &Offer,
        schema: Arc<Schema>,
        arguments: Value,
        size: Size,
    ) -> (Value, Option<(String, String)>) {
        if !schema.hard && schema.nodes.saturating_mul(size.nodes) <= AT_ONCE {
            let problem = problem::of(&schema.validator, &schema.text, &arguments, true);
            return (arguments, problem);
        }
        if schema.hard && schema.nodes.saturating_mul(size.depth) > NESTED {
            self.pass(offer, "its references are too many for arguments as deep as these");
            return (arguments, None);
        }
        let arguments = Arc::new(arguments);
        let checked = Arc::clone(&arguments);
        let all = size.nodes <= AT_ONCE;
        let judged =
            self.apart(move || problem::of(&schema.validator, &schema.text, &checked, all)).await;
        let problem = judged.unwrap_or_else(|| {
            self.pass(offer, "it takes too long");
            None
        });
        // The thread may still hold them, if it took too long.
        let arguments = Arc::try_unwrap(arguments).unwrap_or_else(|shared| (*shared).clone());
        (arguments, problem)
    }

    async fn schema(&self, offer: &Offer) -> Entry {
        if let Some(entry) = self.known(&offer.hash) {
            return entry;
        }
        let text = offer.definition.get("inputSchema").cloned().unwrap_or_default();
        let size = Size::of(&text);
        if size.nodes > SCHEMA_NODES || size.depth > DEPTH || size.bytes > SCHEMA_BYTES {
            return self.pass(offer, "it is too large");
        }
        let compiled = self.apart(move || compile(text, size.nodes)).await;
        match compiled {
            Some(Ok(schema)) => {
                let entry = Entry::Checks(Arc::new(schema));
                self.keep(&offer.hash, entry.clone());
                entry
            }
            Some(Err(why)) => self.pass(offer, &why),
            None => self.pass(offer, "it takes too long to read"),
        }
    }

    /// Has calls of `offer` pass from now on.
    fn pass(&self, offer: &Offer, why: &str) -> Entry {
        let name = format!("{}__{}", offer.toolset, offer.tool);
        tracing::warn!(
            mcp.toolset = offer.toolset,
            mcp.tool = offer.tool,
            "The arguments of {name} are not checked, for its inputSchema cannot be used: {why}"
        );
        self.keep(&offer.hash, Entry::Passes);
        Entry::Passes
    }

    /// Runs `work` on a thread of its own: one that never ends must not keep the process from ending. None when it
    /// takes too long, or there are too many already that did.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let waited = async {
            let place = Arc::clone(&self.threads).acquire_owned().await.ok()?;
            let (done, told) = oneshot::channel();
            let run = move || {
                let result = work();
                drop(place);
                // Nobody may wait any more.
                let _ = done.send(result);
            };
            let builder = std::thread::Builder::new().name("mcp-schema".to_owned());
            builder.stack_size(STACK).spawn(run).ok()?;
            told.await.ok()
        };
        tokio::time::timeout(self.patience, waited).await.ok().flatten()
    }

    fn known(&self, hash: &str) -> Option<Entry> {
        let mut known = self.lock();
        known.uses += 1;
        let now = known.uses;
        let (used, entry) = known.by_hash.get_mut(hash)?;
        *used = now;
        Some(entry.clone())
    }

    fn keep(&self, hash: &str, entry: Entry) {
        let mut known = self.lock();
        known.uses += 1;
        let now = known.uses;
        known.by_hash.insert(hash.to_owned(), (now, entry));
        if known.by_hash.len() > KEPT {
            let oldest = known.by_hash.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(hash, _)| hash.clone()) {
                known.by_hash.remove(&oldest);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner) // nothing in here panics half-way
    }
}

/// What is wrong with `arguments` for a schema of our own, which is neither large nor hard: where, and in words.
pub(crate) fn problem_of(
    validator: &Validator,
    schema: &Value,
    arguments: &Value,
) -> Option<(String, String)> {
    problem::of(validator, schema, arguments, true)
}

/// Compiles a schema: of the draft that its `$schema` says, else 2020-12 (MCP 2025-11-25, "Tools").
fn compile(text: Value, nodes: usize) -> Result<Schema, String> {
    let patterns = PatternOptions::fancy_regex()
        .backtrack_limit(BACKTRACKS)
        .size_limit(PATTERN_BYTES)
        .dfa_size_limit(PATTERN_BYTES);
    // `offline`: what it refers to elsewhere is an error, and is never fetched.
    let built = jsonschema::options().offline().with_pattern_options(patterns).build(&text);
    let validator = built.map_err(|error| {
        let place = error.instance_path().as_str().to_owned();
        problem::shortened(&format!("{place}: {}", error.masked()))
    })?;
    let hard = is_hard(&text);
    Ok(Schema { validator, text, nodes, hard })
}

/// Whether a schema refers to parts of itself, or has a pattern that is not for a plain automaton. A property of
/// such a name only costs a thread.
fn is_hard(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => members.iter().any(|(name, value)| {
            let refers = matches!(name.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef");
            let backtracks = |text: &str| {
                text.contains("(?") || text.as_bytes().windows(2).any(is_backreference)
            };
            let pattern = match (name.as_str(), value) {
                ("pattern", Value::String(text)) => backtracks(text),
                ("patternProperties", Value::Object(by)) => by.keys().any(|text| backtracks(text)),
                _ => false,
            };
            refers || pattern || is_hard(value)
        }),
        Value::Array(items) => items.iter().any(is_hard),
        _ => false,
    }
}

fn is_backreference(pair: &[u8]) -> bool {
    pair[0] == b'\\' && (pair[1].is_ascii_digit() || pair[1] == b'k')
}

/// How much there is of a value.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    nodes: usize,
    depth: usize,
    /// Of texts and names; about that of the JSON.
    bytes: usize,
}

impl Size {
    fn of(value: &Value) -> Self {
        let mut size = Self::default();
        let mut rest = vec![(value, 1)];
        while let Some((value, depth)) = rest.pop() {
            size.nodes += 1;
            size.depth = size.depth.max(depth);
            match value {
                Value::Object(members) => {
                    size.bytes += members.keys().map(|name| name.len() + 4).sum::<usize>();
                    rest.extend(members.values().map(|value| (value, depth + 1)));
                }
                Value::Array(items) => rest.extend(items.iter().map(|value| (value, depth + 1))),
                Value::String(text) => size.bytes += text.len() + 2,
                _ => size.bytes += 4,
            }
        }
        size
    }
}

#[cfg(test)]
mod tests;
