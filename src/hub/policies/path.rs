//! What a route's pattern may look like.

/// Whether `text` can be a route's pattern; if not, what it must be.
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err("must begin with /");
    };
    let parts: Vec<&str> = rest.split('/').collect();
    for (at, part) in parts.iter().enumerate() {
        let last = at + 1 == parts.len();
        if part.is_empty() {
            if last {
                continue; // `/`, or a slash at the end
            }
            return Err("has an empty part");
        }
        let Some(inner) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
            if part.contains('*') {
                return Err(
                    "has a *, which stands for nothing: write one entry for each route, as {name} or {*name}",
                );
            }
            if part.contains(['{', '}']) {
                return Err("has a brace inside a part: a part is a word, {name} or {*name}");
            }
            if !part.bytes().all(|byte| byte.is_ascii_graphic())
                || part.contains(['?', '#', '%', '\\'])
            {
                return Err("must be plain ASCII without ?, #, % and \\");
            }
            continue;
        };
        let name = inner.strip_prefix('*').unwrap_or(inner);
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            return Err("has a part in braces that is no name of letters, digits and _");
        }
        if inner.starts_with('*') && !last {
            return Err("has something after {*name}, which takes all that follows");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_pattern_is_words_and_names_in_braces() {
        for good in
            ["/", "/healthz", "/rest/v1/", "/api/messages/{id}", "/artifacts/{*path}", "/a/{b}/c"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "healthz",
            "//",
            "/a//b",
            "/api/*",
            "/api/mcp/**",
            "/a/{}",
            "/a/{*}",
            "/a/{*b}/c",
            "/a/{b c}",
            "/a/x{b}",
            "/a/{b",
            "/a?b",
            "/a%20b",
            "/ä",
            "/a b",
            "/a\\b",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
