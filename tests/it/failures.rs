use std::fmt::Write as _;
use std::path::Path;

use cogo::policy::{ErrorClass, Remedy, Retried};

/// What comes before the table.
const HEAD: &str = "\
# What a failure leads to

Every failed attempt has a class, in `error.class` of the message and of its `*_failed` event. This is the table
that workers, `cogo config check --key` and this page share (`src/policy/class.rs`); the page is written by a test.

- *Tried again*: `listed` where `retry_on` of `configs/retry_policy.json` lists the class, while attempts and the
  deadline last; `always` by the database; `never` where it could not help, and `retry_on` refuses it.
- *Then*: where it ends when it is not, or no longer, tried again.
- *Breaker*: what a circuit breaker makes of it. `failure` and `nothing` are so with the default `failure_on`;
  `success`, because the target answered; `never` cannot be listed there.

| class | tried again | then | breaker | what to do |
|---|---|---|---|---|
";

#[test]
fn the_page_about_failures_is_the_table() {
    let mut wanted = HEAD.to_owned();
    for class in ErrorClass::ALL {
        let treatment = class.treatment();
        let retried = match treatment.retried {
            Retried::IfListed => "listed",
            Retried::ByDatabase => "always",
            Retried::Never => "never",
        };
        let then = match treatment.remedy {
            Remedy::Retry | Remedy::DeadLetter => "dead letter",
            Remedy::Person => "needs a person",
        };
        let (breaker, advice) = (treatment.breaker(), treatment.advice);
        writeln!(wanted, "| `{class}` | {retried} | {then} | {breaker} | {advice} |")
            .expect("text");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/failures.md");
    if std::env::var_os("COGO_REGENERATE").is_some() {
        std::fs::write(&path, &wanted).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert_eq!(found, wanted, "{} is stale: run COGO_REGENERATE=1 cargo test", path.display());
}
