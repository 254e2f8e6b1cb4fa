use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn parse(body: &Value) -> Result<Request, Vec<FieldError>> {
    Request::parse(body.to_string().as_bytes())
}

fn good(extra: Value) -> Request {
    let mut body = json!({"user": "acme", "service_name": "search"});
    merge(&mut body, extra);
    parse(&body).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn refusal(extra: Value) -> Vec<(String, String)> {
    let mut body = json!({"user": "acme", "service_name": "search"});
    merge(&mut body, extra);
    parse(&body).expect_err("a refusal").into_iter().map(|error| (error.field, error.message)).collect()
}

/// The one error of a request that has exactly this field wrong.
fn message(field: &str, value: Value) -> String {
    let mut extra = json!({});
    extra[field] = value;
    let errors = refusal(extra);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].0, field);
    errors[0].1.clone()
}

fn merge(body: &mut Value, extra: Value) {
    let Value::Object(extra) = extra else { panic!("an object") };
    body.as_object_mut().expect("an object").extend(extra);
}

fn fields(errors: &[(String, String)]) -> Vec<&str> {
    errors.iter().map(|(field, _)| field.as_str()).collect()
}

#[test]
fn a_request_of_two_fields_gets_the_defaults_of_the_contract() {
    let request = good(json!({}));
    let expected = json!({
        "user": "acme", "service_name": "search", "namespace": "acme--search", "replicas": 1,
        "cpu_request": "500m", "cpu_limit": "2", "mem_request": "1Gi", "mem_limit": "2Gi", "disk_size": "10Gi",
        "gpu_count": 0, "dimension": 128, "vector_count": 10000, "on_failure": "rollback"
    });
    assert_eq!(serde_json::from_slice::<Value>(&request.to_json()).expect("JSON"), expected);
}

#[test]
fn the_details_are_the_nine_fields_in_the_order_of_the_contract() {
    let details = serde_json::to_string(&good(json!({})).details()).expect("JSON");
    assert_eq!(
        details,
        r#"{"replicas":1,"cpu_request":"500m","cpu_limit":"2","mem_request":"1Gi","mem_limit":"2Gi","disk_size":"10Gi","gpu_count":0,"dimension":128,"vector_count":10000}"#
    );
}

#[test]
fn a_cluster_holds_what_its_replicas_may_use_together() {
    let request =
        good(json!({"replicas": 3, "cpu_limit": "1.5", "mem_limit": "2Gi", "disk_size": "10Gi", "gpu_count": 2}));
    assert_eq!(
        request.holds(),
        vec![("clusters", 1), ("cpu_millis", 4500), ("memory_bytes", 6 << 30), ("disk_bytes", 30 << 30), ("gpus", 6)]
    );
}

#[test]
fn what_is_journaled_is_read_back_as_the_same_request() {
    let request = good(
        json!({"replicas": 3, "gitlab_url": "https://gitlab.example.com/a.yml", "on_failure": "keep", "mem_limit": "2048Mi"}),
    );
    let again = Request::parse_with(&request.to_json(), RequestRules::JOURNALED).expect("the same");
    assert_eq!(again, request);
    assert_eq!(again.to_json(), request.to_json());
    assert_eq!(serde_json::from_slice::<Request>(&request.to_json()).expect("the same"), request);
    serde_json::from_str::<Request>("{}").expect_err("no request");
}

#[test]
fn five_wrong_fields_are_all_named_at_once() {
    let errors =
        refusal(json!({"user": "A", "replicas": 0, "cpu_limit": "abc", "disk_size": 10, "on_failure": "explode"}));
    assert_eq!(fields(&errors), ["user", "replicas", "cpu_limit", "disk_size", "on_failure"]);
}

#[test]
fn missing_fields_are_named() {
    let errors = parse(&json!({})).expect_err("two are required");
    let fields: Vec<_> = errors.iter().map(|error| (error.field.as_str(), error.message.as_str())).collect();
    assert_eq!(fields, [("user", "is missing"), ("service_name", "is missing")]);
}

#[test]
fn an_unknown_field_is_refused_and_the_nearest_one_named() {
    assert!(message("replica", json!(2)).contains("did you mean `replicas`?"));
    assert!(message("cpuLimit", json!("2")).contains("did you mean `cpu_limit`?"));
    assert!(message("colour", json!("red")).contains("the fields are user, service_name"));
}

#[test]
fn a_body_full_of_unknown_fields_gets_a_short_answer() {
    let extra = (0..5000).map(|n| (format!("x{n}"), json!(1))).collect::<serde_json::Map<_, _>>();
    assert_eq!(refusal(Value::Object(extra)).len(), 21);
}

#[test]
fn a_field_given_twice_is_refused() {
    let errors = Request::parse(br#"{"user":"acme","service_name":"search","user":"beta"}"#).expect_err("twice");
    assert_eq!(errors, [FieldError::new("user", "is given twice: give it once")]);
}

#[test]
fn hostile_names_are_refused() {
    for name in ["..", "a/b", "A", "a--b", "аcme", "a\0", "", &"a".repeat(64)] {
        message("user", json!(name));
        message("service_name", json!(name));
    }
    assert!(message("user", json!(7)).contains("must be a string, not a number"));
    assert!(message("user", json!("kube-system")).contains("reserved"));
}

#[test]
fn a_namespace_is_a_free_label_or_the_default_one() {
    assert_eq!(good(json!({"namespace": "vectors"})).namespace.as_str(), "vectors");
    assert_eq!(good(json!({"namespace": "acme--search"})).namespace.as_str(), "acme--search");
    assert_eq!(good(json!({"namespace": null})).namespace.as_str(), "acme--search");
    assert!(message("namespace", json!("kube-system")).contains("reserved"));
    assert!(message("namespace", json!("other--search")).contains("other clusters"));
    assert!(message("namespace", json!("../etc")).contains("lower case letters"));
}

#[test]
fn wrong_quantities_are_refused_with_the_reason() {
    assert!(message("mem_limit", json!("1.5")).contains("no whole number of bytes"));
    assert!(message("disk_size", json!("1.5")).contains("no whole number of bytes"));
    assert!(message("disk_size", json!("1")).contains("at least 1024Mi"));
    assert!(message("mem_request", json!("0")).contains("at least 256Mi"));
    assert!(message("cpu_request", json!("0")).contains("at least 10m"));
    assert!(message("cpu_request", json!("1u")).contains("finer"));
    for field in ["cpu_request", "cpu_limit", "mem_request", "mem_limit", "disk_size"] {
        assert!(message(field, json!("-1")).contains("negative"));
        assert!(message(field, json!("9223372036854775807Gi")).contains("too large"));
        assert!(message(field, json!("1GB")).contains("unknown suffix"));
        assert!(message(field, json!("abc")).contains("no quantity"));
        assert!(message(field, json!("")).contains("is empty"));
        assert!(message(field, json!(2)).contains("must be a string, not a number"));
    }
    assert_eq!(good(json!({"cpu_limit": "1.5"})).cpu_limit.as_millis(), 1500);
}

#[test]
fn a_request_over_its_limit_is_refused_by_amount() {
    assert!(message("cpu_request", json!("2001m")).contains("more than `cpu_limit`, which is `2`"));
    assert!(message("mem_request", json!("2049Mi")).contains("more than `mem_limit`"));
    assert_eq!(good(json!({"mem_request": "2048Mi"})).mem_request.as_bytes(), 2 << 30);
}

#[test]
fn counts_out_of_range_are_refused() {
    for value in
        [json!(0), json!(-1), json!(1_000_000_000), json!(1.5), json!("3"), json!(null), json!([1]), json!(1e300)]
    {
        assert!(message("replicas", value).contains("whole number from 1 to 100"));
    }
    message("gpu_count", json!(65));
    message("dimension", json!(0));
    message("dimension", json!(4097));
    message("vector_count", json!(-5));
    message("vector_count", json!(1_000_000_000_001_u64));
}

#[test]
fn what_all_replicas_take_never_overflows() {
    assert!(message("disk_size", json!("7Ei")).contains("more than can be counted"));
    assert!(message("mem_limit", json!("7Ei")).contains("more than can be counted"));
    assert!(message("cpu_limit", json!("9E")).contains("more than can be counted"));
}

#[test]
fn a_gitlab_url_is_https_to_a_public_host() {
    let url = "https://gitlab.example.com/acme/search-config/-/raw/main/elasticsearch.yml";
    assert_eq!(good(json!({"gitlab_url": url})).gitlab_url.as_deref(), Some(url));
    assert_eq!(good(json!({"gitlab_url": null})).gitlab_url, None);
    for (bad, why) in [
        ("file:///etc/passwd", "must begin with https://"),
        ("http://gitlab.example.com/a.yml", "must begin with https://"),
        ("ftp://gitlab.example.com/a.yml", "must begin with https://"),
        ("javascript:alert(1)", "must begin with https://"),
        ("gitlab.example.com/a.yml", "is no URL"),
        ("https://", "is no URL"),
        ("", "is no URL"),
        ("https://me:secret@gitlab.example.com/a.yml", "user name or password"),
        ("https://gitlab.example.com/a.yml#L1", "fragment"),
        ("https://127.0.0.1/a.yml", "an address inside"),
        ("https://0x7f.1/a.yml", "an address inside"),
        ("https://2130706433/a.yml", "an address inside"),
        ("https://[::1]/a.yml", "an address inside"),
        ("https://[::ffff:169.254.169.254]/a.yml", "an address inside"),
        ("https://localhost/a.yml", "an address inside"),
        ("https://169.254.169.254/latest/meta-data", "an address inside"),
        ("https://gitlab.example.com\\@10.0.0.1/", "backslashes"),
        ("https://gitlab.example.com/a\tb", "control characters"),
    ] {
        let message = message("gitlab_url", json!(bad));
        assert!(message.contains(why), "{bad}: {message}");
    }
    assert!(message("gitlab_url", json!(format!("https://a.example/{}", "x".repeat(3000)))).contains("at most 2048"));
}

#[test]
fn a_gitlab_url_has_only_gitlabs_own_query_parameters_and_what_could_be_a_secret_is_not_quoted() {
    let url = "https://gitlab.example.com/acme/search/-/raw/main/a.yml";
    for query in ["ref_type=heads", "inline=false", "ref_type=tags&inline=true", ""] {
        let url = format!("{url}?{query}");
        assert_eq!(good(json!({"gitlab_url": url})).gitlab_url, Some(url));
    }
    for query in [
        "private_token=glpat-hush",
        "ref_type=heads&access_token=glpat-hush",
        "private%5Ftoken=glpat-hush",
        "PRIVATE_TOKEN=glpat-hush",
        "ref_type=glpat-hush",
        "inline=true;job_token=glpat-hush",
        "glpat-hush",
        "glpat-hush=",
    ] {
        let message = message("gitlab_url", json!(format!("{url}?{query}")));
        assert!(message.contains("must have no query but") && !message.contains("hush"), "{query}: {message}");
    }
    // What an older cairn accepted can still be read.
    let body = br#"{"user":"acme","service_name":"search","gitlab_url":"https://gitlab.example.com/a.yml?old=1"}"#;
    Request::parse_with(body, RequestRules::JOURNALED).expect("it is in the journal");
}

#[test]
fn an_operator_may_allow_plain_http_and_hosts_inside() {
    let body = br#"{"user":"acme","service_name":"search","gitlab_url":"http://127.0.0.1:9000/a.yml"}"#;
    Request::parse(body).expect_err("strict");
    Request::parse_with(body, RequestRules { allow_http: true, allow_private: true, ..RequestRules::default() })
        .expect("allowed");
}

#[test]
fn a_body_that_is_no_object_is_one_error_of_the_body() {
    for body in ["", "not JSON", "[]", "null", "7", "\"user\"", "{", "{\"user\":", "\u{feff}{}"] {
        let errors = Request::parse(body.as_bytes()).expect_err(body);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].field, "body", "{body}");
    }
    assert_eq!(Request::parse(&[0xff, 0xfe]).expect_err("bytes")[0].field, "body");
}

#[test]
fn ten_thousand_levels_of_nesting_are_refused_and_not_followed() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let body = format!("{{\"user\":{}1{}}}", open.repeat(10_000), close.repeat(10_000));
        assert!(Request::parse(body.as_bytes()).expect_err("too deep")[0].message.contains("recursion limit"));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::parse(&body);
    }

    #[test]
    fn any_good_request_survives_the_journal(
        user in "[a-z0-9](-?[a-z0-9]){0,14}", service in "[a-z0-9](-?[a-z0-9]){0,14}", replicas in 1_u32..=100,
        memory in 256_u32..100_000, gpu_count in 0_u32..=64, vector_count in 0..=VECTOR_COUNT_MAX,
    ) {
        prop_assume!(!user.starts_with("cairn") && !user.starts_with("kube-"));
        let body = json!({
            "user": user, "service_name": service, "replicas": replicas, "mem_request": format!("{memory}Mi"),
            "mem_limit": format!("{memory}Mi"), "gpu_count": gpu_count, "vector_count": vector_count
        });
        let request = parse(&body).expect("good");
        prop_assert_eq!(&Request::parse_with(&request.to_json(), RequestRules::JOURNALED).expect("the same"), &request);
        prop_assert_eq!(request.holds().len(), 5);
    }
}
