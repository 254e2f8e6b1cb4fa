//! Bad input: every wrong field is named, all at once, and nothing is recorded.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::{nothing_was_recorded, problem, request, started, with};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_fields_are_all_named_and_nothing_is_recorded() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    let good = request("acme", "search");
    let five = json!({ "user": "A", "replicas": 0, "cpu_request": "abc", "mem_limit": "1GB", "on_failure": "explode" });
    let cases: Vec<(Value, Vec<&str>)> = vec![
        (json!({ "user": "acme" }), vec!["service_name"]),
        (json!({}), vec!["user", "service_name"]),
        (with(&good, &json!({ "colour": "red" })), vec!["colour"]),
        (with(&good, &five), vec!["user", "replicas", "cpu_request", "mem_limit", "on_failure"]),
        (with(&good, &json!({ "replicas": "three" })), vec!["replicas"]),
        (with(&good, &json!({ "namespace": "kube-system" })), vec!["namespace"]),
        (with(&good, &json!({ "namespace": "globex--search" })), vec!["namespace"]),
        (with(&good, &json!({ "cpu_request": "3", "cpu_limit": "2" })), vec!["cpu_request"]),
        (with(&good, &json!({ "mem_request": "4Gi" })), vec!["mem_request"]),
        (with(&good, &json!({ "dimension": 0 })), vec!["dimension"]),
        (with(&good, &json!({ "vector_count": -1 })), vec!["vector_count"]),
        (with(&good, &json!({ "gpu_count": 1.5 })), vec!["gpu_count"]),
    ];
    for (body, fields) in cases {
        let answer = cairn.client.post("/clusters", &body).await?;
        ensure!(answer.wrong_fields() == fields, "{body} names {:?}, not {fields:?}", answer.wrong_fields());
        problem(answer, 422)?;
    }
    nothing_was_recorded(&site, &cairn).await
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_could_be_a_path_or_somebody_elses_are_refused() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    let long = "a".repeat(64);
    // The last but two: Cyrillic а, and a fullwidth a.
    let wrong =
        ["..", "a/b", "A", &long, "a--b", "", "-a", "a-", "a_b", "a b", "\u{430}cme", "\u{ff41}cme", "acme\0", "a\n"];
    for name in wrong {
        for field in ["user", "service_name"] {
            let body = with(&request("acme", "search"), &json!({ field: name }));
            let answer = cairn.client.post("/clusters", &body).await?;
            ensure!(answer.wrong_fields() == [field], "{name:?}: {answer:?}");
            problem(answer, 422)?;
        }
    }
    // In paths and queries the same names get no further.
    for path in ["/deployment/reports/..%2F..%2Fetc/passwd", "/tenant/containers/A/search", "/deployments?user=..%2F"] {
        let answer = cairn.client.get(path).await?;
        ensure!([404, 422].contains(&answer.status), "{path}: {answer:?}");
    }
    nothing_was_recorded(&site, &cairn).await
}

#[tokio::test(flavor = "multi_thread")]
async fn quantities_and_counts_out_of_reach_are_refused() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    for (field, values) in [
        ("mem_limit", vec!["1.5", "-1", "9223372036854775807Gi", "1GB", "abc", "", "1 Gi"]),
        ("disk_size", vec!["1.5", "-1", "9223372036854775807Gi", "1GB", "abc", "0"]),
        ("cpu_limit", vec!["-1", "9223372036854775807Gi", "1GB", "abc", "0.0001"]),
    ] {
        for value in values {
            let body = with(&request("acme", "search"), &json!({ field: value }));
            let answer = cairn.client.post("/clusters", &body).await?;
            ensure!(answer.wrong_fields().iter().any(|wrong| wrong == field), "{field}={value:?}: {answer:?}");
            problem(answer, 422)?;
        }
    }
    for replicas in [json!(0), json!(-1), json!(1_000_000_000), json!(1e300), json!("1"), json!(null), json!([1])] {
        let body = with(&request("acme", "search"), &json!({ "replicas": replicas }));
        let answer = cairn.client.post("/clusters", &body).await?;
        ensure!(answer.wrong_fields() == ["replicas"], "{replicas}: {answer:?}");
    }
    nothing_was_recorded(&site, &cairn).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_too_long_too_deep_or_no_json_are_refused_and_the_program_goes_on() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    let post = |body: Vec<u8>| cairn.client.send(http::Method::POST, "/clusters", &[], Some(body));
    problem(post(vec![b' '; 2 << 20]).await?, 413)?;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_inside = format!(r#"{{"user":"acme","service_name":"search","x":{deep}}}"#);
    let twice = r#"{"user":"acme","user":"globex","service_name":"search"}"#.to_owned();
    for body in
        ["", "{", "null", "[]", "42", "\"acme\"", "\u{feff}{}", "{\"user\":\"\\ud800\"}", &deep, &deep_inside, &twice]
    {
        let answer = post(body.as_bytes().to_vec()).await?;
        let start: String = body.chars().take(20).collect();
        ensure!(!answer.wrong_fields().is_empty(), "{start}: {answer:?}");
        problem(answer, 422)?;
    }
    let not_text = post(vec![b'{', 0xff, 0xfe, b'}']).await?;
    problem(not_text, 422)?;
    nothing_was_recorded(&site, &cairn).await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_parameters_keys_paths_and_methods_are_refused() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    for (path, field) in [
        ("/workflows?limit=0", "limit"),
        ("/workflows?limit=501", "limit"),
        ("/workflows?status=sleeping", "status"),
        ("/workflows?kind=explode", "kind"),
        ("/workflows?after=yesterday", "after"),
        ("/workflows?colour=red", "colour"),
        ("/deployments?user=A", "user"),
    ] {
        let answer = cairn.client.get(path).await?;
        ensure!(answer.wrong_fields() == [field], "{path}: {answer:?}");
        problem(answer, 422)?;
    }
    let long = "k".repeat(300);
    for key in ["", &long] {
        let answer =
            cairn.client.post_with("/clusters", &request("acme", "search"), &[("idempotency-key", key)]).await?;
        ensure!(!answer.wrong_fields().is_empty(), "{key:?}: {answer:?}");
    }
    problem(cairn.client.get("/nowhere").await?, 404)?;
    problem(cairn.client.get("/workflows/not-an-id").await?, 404)?;
    problem(cairn.client.get("/workflows/01a208f9-cc8e-729c-8c31-7bf9f6ea8409").await?, 404)?;
    problem(cairn.client.send(http::Method::DELETE, "/deployments", &[], None).await?, 405)?;
    problem(
        cairn.client.post_with("/clusters", &request("acme", "search"), &[("origin", "https://evil.example")]).await?,
        403,
    )?;
    nothing_was_recorded(&site, &cairn).await
}
