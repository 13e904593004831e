//! RemoteEnv: secrets and settings of a tenant, in the bus's database and yet unknown to it (feature `remote-env`).
//!
//! A value is sealed by whoever sets it and opened by whoever needs it, with a key that only those processes have:
//!
//! | variable | meaning |
//! |---|---|
//! | `COGO_ENV_KEY` | keys of 32 bytes in base64, separated by commas: the first seals, all of them open |
//!
//! | module | job |
//! |---|---|
//! | `key` | the keys |
//! | `seal` | one value: AES-256-GCM, bound to tenant, name, version and key |
//! | `store` | sets values, seals them anew, says which cannot be opened |
//! | `follow` | the values of some names, as they are at any moment |
//!
//! What may come from here is what is referred to by name, such as `{"from_env": "FIGMA_TOKEN"}` in `mcp.json`, and is not
//! set in the environment of the process itself. No setting of a process comes from here by itself: the list of those
//! that may, [`PROCESS_SETTINGS`], is empty. Whoever could write the table could otherwise move a hub to another database,
//! open it to the world or have its traces sent elsewhere.

mod follow;
mod key;
mod seal;
mod store;

pub use follow::{Changes, Found, RemoteEnv};
pub use key::{KeyError, Keyring, VARIABLE, generate};
pub use seal::{NoRandomness, OpenError};
pub use secrecy::{ExposeSecret, SecretString};
pub use store::{Checked, Error, Rekeyed, Store};

/// The settings of processes that are read from RemoteEnv, beside what is referred to by name. None is: `COGO_HUB_*` and
/// `COGO_WORKER_*` say whom a process trusts and where it listens, and OTEL's are read before there is a bus.
pub const PROCESS_SETTINGS: &[&str] = &[];

/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 65_536;
/// How many names a tenant may have.
pub const MAX_NAMES: usize = 1000;
/// The longest name.
const MAX_NAME: usize = 128;

/// What is needed to reach the table, or guards it. As `cogo.env_name_problem` has it.
const BOOTSTRAP: &[&str] = &[
    "DATABASE_URL",
    "JWT_SECRET",
    "SUPABASE_DB_URL",
    "SUPABASE_JWT_SECRET",
    "SUPABASE_SERVICE_ROLE_KEY",
];

/// Whether `name` may be set; else what is wrong with it.
///
/// # Errors
/// The rule that it breaks.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let begins = name.as_bytes().first().is_some_and(u8::is_ascii_uppercase);
    let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    if !begins || name.len() > MAX_NAME || !name.bytes().all(plain) {
        return Err("must be 1 to 128 capital letters, digits and _, beginning with a letter");
    }
    if name.starts_with("COGO_") {
        return Err(
            "configures COGO itself, and so is read from the environment of its process alone",
        );
    }
    if name.starts_with("PG") || BOOTSTRAP.contains(&name) {
        return Err(
            "is needed to reach this table or guards it, and so is read from the environment of the process alone",
        );
    }
    Ok(())
}

/// Whether `value` may be set; else what is wrong with it, without the value.
///
/// # Errors
/// The rule that it breaks.
pub fn check_value(value: &SecretString) -> Result<(), &'static str> {
    let value = value.expose_secret();
    if value.len() > MAX_VALUE_BYTES {
        return Err("must be at most 64 KiB");
    }
    if value.contains('\0') {
        return Err("must hold no U+0000");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_variables_and_none_that_a_process_needs_before() {
        for good in ["A", "FIGMA_TOKEN", "X9_", &"A".repeat(128)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", "capital letters"),
            ("figma", "capital letters"),
            ("9A", "capital letters"),
            ("A-B", "capital letters"),
            ("A\n", "capital letters"),
            (&"A".repeat(129), "capital letters"),
            ("COGO_ENV_KEY", "COGO itself"),
            ("COGO_ADMIN_TOKEN", "COGO itself"),
            ("COGO_JWT_SECRET", "COGO itself"),
            ("COGO_HUB_OPEN_READS", "COGO itself"),
            ("DATABASE_URL", "to reach this table"),
            ("PGPASSWORD", "to reach this table"),
        ] {
            assert!(check_name(bad).expect_err(bad).contains(why), "{bad}");
        }
    }
}
