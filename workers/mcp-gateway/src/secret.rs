//! Secrets, from the environment or RemoteEnv into requests and child processes, and nowhere else.

use std::fmt;
use std::sync::Arc;

use cogo::remote_env::{ExposeSecret as _, SecretString};
use reqwest::Url;

use crate::config::{EnvValue, Error, FromEnv, Toolset};
use crate::environment::Looked;
use crate::redact::is_secret;

/// Headers that hold a scheme and then a credential (RFC 9110, section 11.4), whatever the scheme.
const CREDENTIALS: [&str; 2] = ["authorization", "proxy-authorization"];
/// Schemes that stand before a credential in other headers too.
const SCHEMES: [&str; 3] = ["bearer", "basic", "token"];
/// Names of parameters that hold keys of some services, and with others something harmless: only what is long counts.
const MAYBE_KEYS: [&str; 5] = ["key", "code", "sig", "signature", "auth"];
/// How long a key is at least, where its name says little.
const KEY_LEN: usize = 16;

/// A value that is never printed, and is overwritten when nobody has it any more.
#[derive(Clone)]
pub struct Secret(Arc<SecretString>);

impl Secret {
    /// The value, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(Arc::new(value.into()))
    }
}

impl From<Arc<SecretString>> for Secret {
    fn from(value: Arc<SecretString>) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// What a toolset's references stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Headers for a server at a URL.
    pub headers: Vec<(String, Secret)>,
    /// The environment of a child process; also what is no secret.
    pub env: Vec<(String, Secret)>,
    /// The values that were loaded as secrets, and those in the URL's query that are secrets by their names.
    pub secrets: Vec<Secret>,
    /// All that the URL's query holds. It is hidden where something is said of the connection, and not in results:
    /// most of it is no secret, and may stand there for good reason.
    pub query: Vec<Secret>,
}

/// Reads what `toolset`, called `name`, refers to, by `lookup`.
///
/// # Errors
/// Names the first variable that is not set.
pub(crate) fn resolve(
    name: &str,
    toolset: &Toolset,
    lookup: &dyn Fn(&str) -> Looked,
) -> Result<Resolved, Error> {
    let mut resolved = Resolved::default();
    let load = |field: String, reference: &FromEnv| {
        let (field, variable) = (format!("toolsets.{name}.{field}"), reference.from_env.clone());
        match lookup(&reference.from_env) {
            Looked::Found(secret) => Ok(secret),
            Looked::NotYet => Err(Error::SecretNotYet { field, variable }),
            Looked::Missing(where_else) => {
                Err(Error::MissingSecret { field, variable, where_else })
            }
        }
    };
    for (header, reference) in &toolset.headers {
        let secret = load(format!("headers.{header}"), reference)?;
        resolved.secrets.extend(credential(header, &secret));
        resolved.secrets.push(secret.clone());
        resolved.headers.push((header.clone(), secret));
    }
    if let Some(url) = &toolset.url {
        read_query(url, &mut resolved);
    }
    for (variable, value) in &toolset.env {
        let secret = match value {
            EnvValue::Plain(value) => Secret::from(value.clone()),
            EnvValue::FromEnv(reference) => {
                let secret = load(format!("env.{variable}"), reference)?;
                resolved.secrets.push(secret.clone());
                secret
            }
        };
        resolved.env.push((variable.clone(), secret));
    }
    Ok(resolved)
}

/// What stands after the scheme in a header's value. A server that refuses it may repeat it without the scheme.
fn credential(header: &str, value: &Secret) -> Option<Secret> {
    let (scheme, credential) = value.expose().trim().split_once(' ')?;
    let is_one_of = |known: &[&str], text: &str| known.iter().any(|k| k.eq_ignore_ascii_case(text));
    let holds = is_one_of(&CREDENTIALS, header) || is_one_of(&SCHEMES, scheme);
    holds.then(|| Secret::from(credential.trim().to_owned()))
}

/// Notes what the query of `url` holds, as it is written here, on the way, and when it is read.
fn read_query(url: &str, resolved: &mut Resolved) {
    let as_written = url.split('#').next().and_then(|url| Some(url.split_once('?')?.1));
    let Ok(parsed) = Url::parse(url) else { return };
    let Some(query) = parsed.query() else { return };
    let mut note = |text: &str, named: bool| {
        let secret = Secret::from(text.to_owned());
        if named && !resolved.secrets.contains(&secret) {
            resolved.secrets.push(secret.clone());
        }
        if !resolved.query.contains(&secret) {
            resolved.query.push(secret);
        }
    };
    note(query, false);
    note(as_written.unwrap_or_default(), false);
    let parts = query.split('&').filter(|part| !part.is_empty());
    for (part, (name, value)) in parts.zip(parsed.query_pairs()) {
        // Without a name, the whole is the value.
        let Some((_, encoded)) = part.split_once('=') else {
            note(part, false);
            note(&name, false);
            continue;
        };
        let may_be = MAYBE_KEYS.iter().any(|key| key.eq_ignore_ascii_case(&name));
        let named = is_secret(&name) || may_be && value.len() >= KEY_LEN;
        note(encoded, named);
        note(&value, named);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Redactor;

    fn resolved(toolset: &Toolset, value: &str) -> Resolved {
        let look = |_: &str| Looked::Found(Secret::from(value.to_owned()));
        resolve("a", toolset, &look).expect("all is set")
    }

    #[test]
    fn a_credential_is_known_without_the_scheme_before_it() {
        for (header, value, said, told) in [
            (
                "authorization",
                "Bearer sk-live-1",
                "invalid key sk-live-1",
                "invalid key [redacted]",
            ),
            ("Authorization", "GenieKey sk-live-1", "no sk-live-1", "no [redacted]"),
            ("x-upstream-auth", "token sk-live-1", "no sk-live-1", "no [redacted]"),
            ("x-api-key", "sk-live-1", "no sk-live-1", "no [redacted]"),
            // Words that are no credential may stand in any answer.
            (
                "user-agent",
                "our gateway",
                "the gateway of our gateway",
                "the gateway of [redacted]",
            ),
        ] {
            let mut toolset = Toolset::at("https://h/mcp");
            toolset.headers.insert(header.to_owned(), FromEnv { from_env: "A".to_owned() });
            let redactor = Redactor::new(resolved(&toolset, value).secrets);
            assert_eq!(redactor.text(said), told, "{header}: {value}");
        }
    }

    #[test]
    fn of_a_query_all_is_hidden_in_texts_and_in_results_what_is_a_secret_by_its_name() {
        let url = "https://h/mcp?api_key=sk%2Flive-1&project=main&key=0123456789abcdef&code=json#x";
        let found = resolved(&Toolset::at(url), "");
        let (results, texts) = (Redactor::new(found.secrets), Redactor::new(found.query));
        let said = "sk/live-1 and sk%2Flive-1, main, 0123456789abcdef, json";
        let told = "[redacted] and [redacted], main, [redacted], json";
        assert_eq!(results.text(said), told);
        let told = "[redacted] and [redacted], [redacted], [redacted], [redacted]";
        assert_eq!(texts.text(said), told);
        let said = format!("error sending request for url ({})", url.trim_end_matches("#x"));
        assert_eq!(texts.text(&said), "error sending request for url (https://h/mcp?[redacted])");
        assert!(resolved(&Toolset::at("https://h/mcp"), "").query.is_empty());
    }
}
