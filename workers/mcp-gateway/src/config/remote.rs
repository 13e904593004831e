//! What may be changed by the API, where not even the holder of the admin token is on this machine.

use super::{Config, EnvValue, Toolset};

/// Variables that no toolset gets by the API, whatever the list says: ours, and the database's. A server could be
/// anywhere, and whatever names one could have them sent there.
const NEVER: [&str; 4] = ["COGO_*", "DATABASE_URL", "PG*", "OTEL_*"];

impl Config {
    /// Whether `toolset` may be written by the API; else the field, and why not.
    ///
    /// # Errors
    /// The field, and the rule.
    pub fn check_by_api(&self, toolset: &Toolset) -> Result<(), (String, String)> {
        let refuse = |field: &str, rule: String| Err((field.to_owned(), rule));
        if toolset.command.is_some() && !self.allow_commands_by_api {
            return refuse(
                "command",
                "is refused by the API, for it runs a program on the hub's machine; add it there with `cogo mcp add`, \
                 or set allow_commands_by_api in mcp.json"
                    .to_owned(),
            );
        }
        if toolset.tls.is_some() {
            let rule = "names files of the hub's machine; add it there, in mcp.json";
            return refuse("tls", rule.to_owned());
        }
        let headers = toolset.headers.iter().map(|(at, value)| ("headers", at, &value.from_env));
        let env = toolset.env.iter().filter_map(|(at, value)| match value {
            EnvValue::FromEnv(reference) => Some(("env", at, &reference.from_env)),
            EnvValue::Plain(_) => None,
        });
        for (field, at, variable) in headers.chain(env) {
            let field = format!("{field}.{at}.from_env");
            if NEVER.iter().any(|pattern| fits(pattern, variable)) {
                let rule = format!("{variable} is never given to a toolset by the API");
                return refuse(&field, rule);
            }
            if !self.env_by_api.iter().any(|pattern| fits(pattern, variable)) {
                let rule = format!(
                    "{variable} is not among env_by_api of mcp.json, which lists what a toolset may get by the API"
                );
                return refuse(&field, rule);
            }
        }
        if let Some((field, remedy)) = toolset.literal_secret() {
            return refuse(&field, remedy);
        }
        Ok(())
    }
}

/// Whether a variable is meant: by its name, or by how it begins. Windows does not tell cases apart.
fn fits(pattern: &str, variable: &str) -> bool {
    let (pattern, variable) = (pattern.to_ascii_uppercase(), variable.to_ascii_uppercase());
    match pattern.strip_suffix('*') {
        Some(begin) => variable.starts_with(begin),
        None => pattern == variable,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_api_runs_no_commands_and_sends_no_variable_that_is_not_listed() {
        let toolset = |value| serde_json::from_value::<Toolset>(value).expect("a toolset");
        let closed = Config::default();
        let open = Config {
            allow_commands_by_api: true,
            env_by_api: vec!["FIGMA_*".to_owned(), "X".to_owned(), "COGO_ADMIN_TOKEN".to_owned()],
            ..Config::default()
        };
        let with = |variable: &str| {
            toolset(json!({"url": "https://x.example", "headers": {"A": {"from_env": variable}}}))
        };
        for (config, given, refused) in [
            (&closed, toolset(json!({"url": "https://x.example"})), None),
            (&closed, toolset(json!({"command": "sh", "args": ["-c", "id"]})), Some("command")),
            (&open, toolset(json!({"command": "npx"})), None),
            (&closed, with("FIGMA_TOKEN"), Some("headers.A.from_env")),
            (&open, with("FIGMA_TOKEN"), None),
            (&open, with("X"), None),
            (&open, with("XY"), Some("headers.A.from_env")),
            (&open, with("COGO_ADMIN_TOKEN"), Some("headers.A.from_env")),
            (&open, with("cogo_jwt_secret"), Some("headers.A.from_env")),
            (&open, with("DATABASE_URL"), Some("headers.A.from_env")),
            (&open, with("PGPASSWORD"), Some("headers.A.from_env")),
            (
                &open,
                toolset(json!({"command": "x", "env": {"A": {"from_env": "HOME"}}})),
                Some("env.A.from_env"),
            ),
            (
                &open,
                toolset(json!({"command": "x", "env": {"API_KEY": "abc"}})),
                Some("env.API_KEY"),
            ),
            (&open, toolset(json!({"url": "https://x.example/?api_key=abc"})), Some("url")),
            (
                &open,
                toolset(json!({"url": "https://x.example", "tls": {"ca_file": "/etc/shadow"}})),
                Some("tls"),
            ),
        ] {
            let checked = config.check_by_api(&given);
            assert_eq!(
                checked.as_ref().err().map(|(field, _)| field.as_str()),
                refused,
                "{given:?}"
            );
        }
    }
}
