use cogo::clock;
use cogo::identity::{Claims, Keys, Role, Verified};
use serde_json::json;

use crate::support::{Cogo, Done, temp_dir, write};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OLD: &str = "fedcba9876543210fedcba9876543210";

fn cogo() -> Cogo {
    Cogo::new().with("COGO_JWT_SECRET", SECRET)
}

fn verified(done: &Done) -> Verified {
    let keys = Keys::parse(SECRET).expect("a secret");
    keys.verify(done.line()).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

fn minted(secret: &str, exp_in: i64) -> String {
    let exp = clock::utc_now().timestamp() + exp_in;
    Keys::parse(secret).expect("a secret").mint(&Claims::new(Role::ServiceRole, exp))
}

#[test]
fn a_token_is_minted_alone_on_stdout_and_told_on_stderr() {
    let args = "token mint --tenant acme --worker laptop-1 --topic mcp-gateway/figma \
                --topic mcp-gateway/figma --send mcp-gateway/* --expires 12h";
    let args: Vec<&str> = args.split_whitespace().collect();
    let done = cogo().ok(&args);
    assert_eq!(done.stdout.lines().count(), 1, "{done:?}");
    let claims = verified(&done).claims;
    assert_eq!(claims.exp - claims.iat.expect("a time"), 12 * 3600);
    let (tenant, worker) = (claims.tenant.as_deref(), claims.worker.as_deref());
    assert_eq!(
        (claims.role, tenant, worker),
        (Role::Authenticated, Some("acme"), Some("laptop-1"))
    );
    let [topics, send] = [&claims.topics, &claims.send].map(|list| json!(list));
    assert_eq!((topics, send), (json!(["mcp-gateway/figma"]), json!(["mcp-gateway/*"])));
    for words in
        ["acme", "laptop-1.<anything>", "mcp-gateway/figma", "in 12 h 00 m", "COGO_JWT_SECRET"]
    {
        assert!(done.stderr.contains(words), "{words}: {done:?}");
    }
    assert!(!done.stderr.contains(done.line()) && !done.stderr.contains("Warning"), "{done:?}");

    let json = cogo().json(&args);
    assert_eq!(json["claims"]["tenant"], "acme");
    let token = json["token"].as_str().expect("a token");
    let said = cogo().run_with(&["token", "inspect"], token);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("good, by the current secret") && !said.stdout.contains(token));
}

#[test]
fn a_token_that_may_operate_says_so() {
    let args = ["token", "mint", "--tenant", "acme", "--send", "mcp-gateway/*"];
    let plain = cogo().ok(&args);
    assert!(!verified(&plain).claims.operate && !plain.stderr.contains("OPERATE"), "{plain:?}");
    assert!(!verified(&plain).raw_json.contains("operate"), "left out where it is not so");
    let done = cogo().ok(&[&args[..], &["--operate"]].concat());
    assert!(verified(&done).claims.operate, "{done:?}");
    assert!(done.stderr.contains("MAY OPERATE"), "{done:?}");
    let said = cogo().run_with(&["token", "inspect"], done.line());
    assert!(said.stdout.contains("MAY OPERATE"), "{said:?}");
    let said = cogo().run_with(&["token", "inspect", "--json"], done.line());
    assert!(said.stdout.contains("\"operate\":true"), "{said:?}");
    cogo()
        .run(&["token", "mint", "--role", "service_role", "--operate"])
        .refused(2, &["--operate", "everything"]);
}

#[test]
fn what_cannot_be_meant_is_refused_and_what_is_dangerous_is_said() {
    let mint = |args: &str| {
        cogo()
            .run(&["token", "mint"].into_iter().chain(args.split_whitespace()).collect::<Vec<_>>())
    };
    for (args, words) in [
        ("", &["--tenant", "may do nothing"][..]),
        ("--worker w --topic a/b", &["--tenant"]),
        ("--tenant a:b", &["--tenant", "letters, digits"]),
        ("--tenant *", &["--tenant"]),
        ("--tenant a --topic b", &["--topic", "`role/*`"]),
        ("--tenant a --topic */b", &["--topic"]),
        ("--tenant a --send b/c/d", &["--send"]),
        ("--tenant a --expires soon", &["--expires", "like 12h"]),
        ("--tenant a --expires 0s", &["--expires"]),
        ("--tenant a --expires=-1d", &["--expires"]),
        ("--tenant a --topic b/c", &["--worker", "--send alone"]),
        ("--tenant a --expires 200y", &["--expires", "century"]),
        ("--role postgres", &["--role", "service_role"]),
        ("--role service_role --topic a/b", &["--topic", "everything"]),
        ("--role service_role --tenant a", &["--tenant"]),
        ("--role anon --send a/b", &["--send", "nothing but connect"]),
        ("--role anon --worker w", &["--worker"]),
    ] {
        mint(args).refused(2, words);
    }
    cogo().run(&["token", "mint", "--tenant", "a", "--worker", ""]).refused(2, &["--worker"]);
    cogo().run(&["token", "mint", "--tenant", "a", "--worker", "a\nb"]).refused(2, &["--worker"]);
    let many: Vec<_> = (0..900).map(|n| format!("--topic=role-of-a-long-name/{n}")).collect();
    mint(&format!("--tenant a --worker w {}", many.join(" ")))
        .refused(2, &["bytes", "role/* covers"]);
    for (args, words) in [
        ("--tenant a", "without --topic and --send"),
        ("--role service_role", "do everything, in every tenant"),
        ("--tenant a --send b/c --expires 2y", "more than a year"),
    ] {
        let done = mint(args);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.stderr.contains("Warning") && done.stderr.contains(words), "{done:?}");
        verified(&done);
    }
}

#[test]
fn the_secret_is_of_the_environment_or_of_the_data_directory_and_must_be_one() {
    let dir = temp_dir();
    let data_dir = dir.path().to_str().expect("a path");
    let mint = ["token", "mint", "--role", "anon", "--data-dir", data_dir];
    let bare = Cogo::new();
    bare.run(&mint).refused(4, &["no secret", data_dir, "COGO_JWT_SECRET"]);
    assert!(!dir.path().join("jwt-secret").exists(), "a secret that no hub knows was made");
    write(dir.path(), "jwt-secret", &format!("{SECRET}\n"));
    let done = bare.ok(&mint);
    assert_eq!(verified(&done).claims.role, Role::Anon);
    assert!(done.stderr.contains("jwt-secret"), "{done:?}");
    let other = bare.clone().with("COGO_JWT_SECRET", OLD).ok(&mint);
    assert!(Keys::parse(SECRET).expect("a secret").verify(other.line()).is_err());
    let short = bare.clone().with("COGO_JWT_SECRET", format!("{SECRET},hunter2"));
    let done = short.run(&mint);
    done.refused(2, &["COGO_JWT_SECRET", "secret 2 has 7 bytes"]);
    assert!(!done.stderr.contains("hunter2"), "{done:?}");
    let known = "super-secret-jwt-token-with-at-least-32-characters-long";
    let done = bare.clone().with("COGO_JWT_SECRET", known).ok(&mint);
    assert!(done.stderr.contains("Warning: The secret"), "{done:?}");
    write(dir.path(), "jwt-secret", "\n");
    bare.run(&mint).refused(2, &["jwt-secret", "holds no secret"]);
}

#[test]
fn an_inspection_tells_which_secret_signed_and_fails_for_what_is_not_good() {
    let both = Cogo::new().with("COGO_JWT_SECRET", format!("{SECRET},{OLD}"));
    let inspect = |cogo: &Cogo, token: &str| cogo.run_with(&["token", "inspect", "--json"], token);
    for (cogo, token, code, word, good) in [
        (&both, minted(SECRET, 60), 0, "current", json!(true)),
        (&both, format!("Bearer {}\n", minted(OLD, 60)), 0, "previous", json!(true)),
        (&both, minted(SECRET, -60), 1, "current", json!(false)),
        (&cogo(), minted(OLD, 60), 1, "bad", json!(false)),
        (&Cogo::new(), minted(OLD, 60), 0, "unchecked", json!(null)),
        (&Cogo::new(), minted(OLD, -60), 1, "unchecked", json!(null)),
    ] {
        let done = inspect(cogo, &token);
        assert_eq!(done.code, Some(code), "{done:?}");
        let told: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
        assert_eq!((&told["signature"], &told["good"]), (&json!(word), &good), "{told}");
        assert_eq!(told["claims"]["role"], "service_role");
        let text = cogo.run_with(&["token", "inspect", "-"], &token);
        assert_eq!(text.code, Some(code), "{text:?}");
        for said in [&done.stdout, &done.stderr, &text.stdout, &text.stderr] {
            let token = token.trim().trim_start_matches("Bearer ");
            assert!(token.split('.').skip(1).all(|part| !said.contains(part)), "{said}");
        }
    }
    let expired = both.run(&["token", "inspect", &minted(SECRET, -3600)]);
    assert!(expired.stdout.contains("1 h 00 m ago"), "{expired:?}");
    assert!(expired.stderr.contains("expired 3600 s ago") || expired.stderr.contains("3601 s"));
}

#[test]
fn what_is_no_token_is_refused_and_not_repeated() {
    for (token, code, words) in [
        ("", 2, "no token"),
        ("hunter2hunter2", 1, "three parts"),
        ("sb_secret_hunter2", 1, "cogo token mint"),
        ("eyJhbGciOiJub25lIn0.e30.hunter2", 1, "only HS256"),
        (&"a.hunter2.".repeat(5000), 1, "longer than"),
    ] {
        let done = cogo().run_with(&["token", "inspect"], token);
        done.refused(code, &[words]);
        assert!(!done.stderr.contains("hunter2"), "{done:?}");
    }
}
