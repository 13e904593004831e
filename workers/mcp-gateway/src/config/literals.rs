//! Secrets that stand where they would be written down: in commands and requests that change the file.

use std::fmt;

use reqwest::Url;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::{EnvValue, FromEnv, Toolset};
use crate::redact::is_secret;

impl<'de> Deserialize<'de> for FromEnv {
    /// Whoever writes the value itself is told so without having it repeated, into a log or an answer.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            from_env: String,
        }
        struct Reference;
        impl<'de> Visitor<'de> for Reference {
            type Value = FromEnv;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reference, {\"from_env\": \"NAME\"}")
            }

            fn visit_str<E: Error>(self, _the_secret: &str) -> Result<FromEnv, E> {
                Err(E::custom(
                    "must be a reference, {\"from_env\": \"NAME\"}: the value itself has no place here",
                ))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FromEnv, A::Error> {
                let fields = <Fields as Deserialize>::deserialize(MapAccessDeserializer::new(map))?;
                Ok(FromEnv { from_env: fields.from_env })
            }
        }
        deserializer.deserialize_any(Reference)
    }
}

impl Toolset {
    /// Finds what looks like a secret and stands in the entry itself: the field, and what to do about it. A person who
    /// writes the file may know better; whoever passes it through a shell's history or a request leaves it behind.
    #[must_use]
    pub fn literal_secret(&self) -> Option<(String, String)> {
        let by_env = |name: &str, value: &EnvValue| {
            (matches!(value, EnvValue::Plain(_)) && is_secret(name)).then(|| {
                let remedy = format!(
                    "looks like a secret, and only a reference may stand here: {{\"from_env\": \"{name}\"}}, or on \
                     the command line --env {name}=from_env:{name}"
                );
                (format!("env.{name}"), remedy)
            })
        };
        let by_argument = |argument: &String| {
            let (name, value) = argument.split_once('=')?;
            (is_secret(name) && !value.is_empty()).then(|| {
                let remedy = "looks like a secret, which arguments show to everybody on the machine; give it to the \
                              program by its environment, as a reference";
                (format!("args ({name}=…)"), remedy.to_owned())
            })
        };
        let by_query = |url: &String| {
            let url = Url::parse(url).ok()?;
            let (name, _) = url.query_pairs().find(|(name, _)| is_secret(name))?;
            let remedy = format!(
                "its parameter {name} looks like a secret; send it as a header, by reference: --header \
                 Authorization=from_env:VARIABLE"
            );
            Some(("url".to_owned(), remedy))
        };
        self.env
            .iter()
            .find_map(|(name, value)| by_env(name, value))
            .or_else(|| self.args.iter().find_map(by_argument))
            .or_else(|| self.url.as_ref().and_then(by_query))
    }
}
