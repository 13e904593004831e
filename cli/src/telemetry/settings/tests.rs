use super::*;

fn load(variables: &[(&str, &str)]) -> Result<Option<Settings>> {
    Settings::load(&|name| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

fn on(variables: &[(&str, &str)]) -> Settings {
    let found = load(&[&[ENDPOINT], variables].concat());
    found.expect("good variables").expect("an endpoint")
}

#[test]
fn without_an_endpoint_all_is_off() {
    for variables in [
        &[][..],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
        &[("OTEL_SERVICE_NAME", "shop"), ("OTEL_TRACES_SAMPLER", "whatever")],
        &[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")],
        &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
    ] {
        assert!(load(variables).expect("good variables").is_none(), "{variables:?}");
    }
}

#[test]
fn what_is_for_traces_alone_goes_first() {
    let settings = on(&[]);
    assert_eq!(settings.endpoint, "http://127.0.0.1:4318/v1/traces");
    assert_eq!((settings.service.as_str(), settings.timeout), ("cogo", Duration::from_secs(10)));
    assert_eq!(settings.sampler, Sampler { parent_based: true, ratio: 1.0 });
    let settings = on(&[
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t.example.com/in?key=k"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "7"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "9"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Basic%20dTpw==, x-b = 2"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=no,deployment.environment.name=a%2Cb"),
        ("OTEL_SERVICE_NAME", "shop"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ]);
    assert_eq!(settings.endpoint, "https://t.example.com/in?key=k");
    assert_eq!(settings.shown_endpoint(), "https://t.example.com/in");
    assert_eq!(settings.timeout, Duration::from_millis(9));
    let headers = [("authorization", "Basic dTpw=="), ("x-b", "2")];
    assert_eq!(settings.headers, headers.map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!(settings.service, "shop");
    assert_eq!(settings.resource, [KeyValue::new("deployment.environment.name", "a,b")]);
    assert_eq!(settings.sampler, Sampler { parent_based: false, ratio: 0.25 });
}

#[test]
fn a_base_path_is_kept() {
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://h.example.com/otlp/");
    let settings = load(&[base]).expect("good variables").expect("an endpoint");
    assert_eq!(settings.endpoint, "https://h.example.com/otlp/v1/traces");
}

#[test]
fn what_is_wrong_is_named_with_its_rule_and_without_its_value() {
    for (name, value, rule) in [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318/hunter2", "must be an address"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://hunter2", "must be an address"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://u:hunter2@h", "_HEADERS"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "port 4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "must be http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization hunter2", "entry 1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,b=%zzhunter2", "entry 2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=hunter2", "header 1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=hunter2%0A", "header 1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "must be none"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem", "not supported"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem", "/nowhere.pem"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a", "entry 1"),
        ("OTEL_TRACES_SAMPLER", "xray", "parentbased_"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "a number"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", "OTEL_BSP_MAX_QUEUE_SIZE"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "milliseconds"),
        ("OTEL_SDK_DISABLED", "yes", "true or false"),
        ("OTEL_TRACES_EXPORTER", "console", "otlp or none"),
    ] {
        let Err(error) = load(&[ENDPOINT, (name, value)]) else {
            panic!("{name}={value} is taken")
        };
        let text = error.to_string();
        assert!(text.starts_with(name) && text.contains(rule), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    for share in ["1.5", "-0.1", "half", "NaN"] {
        let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        let refused = load(&[ENDPOINT, sampler, ("OTEL_TRACES_SAMPLER_ARG", share)]);
        assert!(refused.is_err(), "{share}");
    }
}
