//! What tenants, roles, services and intents may be called.

/// The tenant of a message that names none.
pub const DEFAULT_TENANT: &str = "default";
/// What a worker claims for that serves all tenants. No message has this tenant.
pub const ALL_TENANTS: &str = "*";

/// A name that does not fit [`valid_name`] or [`valid_intent`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not {rule}")]
pub struct InvalidName {
    /// The field that holds the name.
    pub field: &'static str,
    /// What was given.
    pub value: String,
    /// What it must look like.
    pub rule: &'static str,
}

/// The rule that tenants, roles and services follow, in words.
pub const NAME_RULE: &str =
    "1 to 64 letters, digits, `_` or `-`, beginning with a letter or a digit";
/// The rule that intents follow, in words.
pub const INTENT_RULE: &str = "at most 64 characters: words of a-z, 0-9 and `_`, each beginning \
                               with a letter, joined by dots";

/// Whether `name` can name a tenant, a role or a service. The SQL functions check the same rule.
#[must_use]
pub fn valid_name(name: &str) -> bool {
    let head = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    head && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Whether `intent` can say what a message asks for, such as `mcp.call`.
#[must_use]
pub fn valid_intent(intent: &str) -> bool {
    intent.len() <= 64
        && intent.split('.').all(|word| {
            word.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
}

pub(super) fn check_name(field: &'static str, value: &str) -> Result<(), InvalidName> {
    if valid_name(value) {
        Ok(())
    } else {
        Err(InvalidName { field, value: value.to_owned(), rule: NAME_RULE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for good in ["demo", "Figma-2", "a_b", "0"] {
            assert!(valid_name(good), "{good}");
        }
        for bad in ["", "-a", "_a", "a b", "a/b", "a.b", "ü", &"a".repeat(65)] {
            assert!(!valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn intents_follow_the_rule() {
        for good in ["mcp.call", "echo", "a.b_2.c"] {
            assert!(valid_intent(good), "{good}");
        }
        for bad in ["", ".", "mcp.", "Mcp.call", "mcp..call", "mcp.2"] {
            assert!(!valid_intent(bad), "{bad}");
        }
    }
}
