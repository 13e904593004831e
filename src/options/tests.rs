use super::*;

#[test]
fn the_defaults_are_valid_and_a_broken_rule_names_its_field() {
    assert_eq!(Options::default().validate(), Ok(()));
    let bad = |json: &str| {
        let options: Options = serde_json::from_str(json).expect("well-formed options");
        options.validate().expect_err(json).to_string()
    };
    assert_eq!(bad(r#"{"wait_max_s":0}"#), "wait_max_s: must be from 1 to 3600, not 0");
    assert!(bad(r#"{"retention":{"failed_days":0}}"#).starts_with("retention.failed_days: "));
    assert_eq!(
        bad(r#"{"retention":{"idempotency_hours":87601}}"#),
        "retention.idempotency_hours: must be from 0 to 87600, not 87601"
    );
    assert!(bad(r#"{"api_origins":["https://a","*"]}"#).starts_with("api_origins[1]: \"*\" must"));
    assert!(
        bad(r#"{"rate_limit":{"trusted_proxies":["10.0.0.1/8"]}}"#)
            .starts_with("rate_limit.trusted_proxies[0]: ")
    );
    assert!(
        bad(r#"{"rate_limit":{"per_key":{"per_second":0,"burst":1}}}"#)
            .starts_with("rate_limit.per_key.per_second: must be from 1")
    );
    assert!(bad(r#"{"allowed_hosts":["a","b:80"]}"#).starts_with("allowed_hosts[1]: "));
}

#[test]
fn a_key_lives_at_least_as_long_as_its_message() {
    let hours = |done_hours, idempotency_hours| {
        let retention = Retention { done_hours, idempotency_hours, ..Retention::default() };
        retention.keyed_for().as_secs() / 3600
    };
    assert_eq!((hours(24, 72), hours(24, 0)), (72, 24));
}

#[test]
fn an_unknown_field_is_refused() {
    let error = serde_json::from_str::<Options>(r#"{"max_body":1}"#).expect_err("unknown");
    assert!(error.to_string().contains("unknown field `max_body`"), "{error}");
}
