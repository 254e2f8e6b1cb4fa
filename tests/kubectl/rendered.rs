//! What is rendered, judged by others: by `kubectl apply --dry-run=server --validate=strict`, and by a table of the fields
//! that every supported version of the API has.

use std::collections::BTreeSet;

use cairn_steps::{
    elastic::Elastic,
    render::{Kind, Marks, Object, Through, render},
    request::Request,
    settings::Settings,
};
use serde_json::{Value, json};

use super::Served;

/// The fields that rendered objects have, a line each.
const FIELDS: &str = include_str!("fields.txt");

/// Requests that between them make every field appear.
fn requests() -> [Value; 2] {
    [
        json!({"user": "acme", "service_name": "search", "replicas": 3, "gpu_count": 1, "dimension": 768,
            "vector_count": 1_000_000, "cpu_request": "0.5", "mem_request": "1.5Gi"}),
        json!({"user": "acme", "service_name": "plain"}),
    ]
}

fn rendered(through: Through) -> Vec<Object> {
    let settings = Settings::parse("search.max_buckets: 20000\n").expect("good settings");
    let marks = Marks { workflow: "0197a000-0000-7000-8000-000000000001".to_owned() };
    let all = requests().into_iter().flat_map(|body| {
        let request = Request::parse(body.to_string().as_bytes()).expect("a good request");
        render(&request, &Elastic::default(), through, Some(&settings), &marks)
    });
    all.collect()
}

/// Maps whose keys are the user's: what is in them is no field.
fn is_map(at: &str) -> bool {
    let last = at.rsplit('.').next().unwrap_or_default();
    matches!(last, "labels" | "annotations" | "matchLabels" | "limits" | "requests" | "data")
        || at == "Service.spec.selector"
}

fn collect(at: &str, value: &Value, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(_) if is_map(at) => {}
        Value::Object(object) => {
            for (name, value) in object {
                let path = format!("{at}.{name}");
                collect(&path, value, fields);
                fields.insert(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(&format!("{at}[]"), item, fields)),
        _ => {}
    }
}

/// That a field is in the version that this is built with, the compiler checks. Whoever renders one that is not in the table
/// looks it up in the oldest version, and adds it.
#[test]
fn every_rendered_field_is_in_the_table_of_those_that_the_oldest_version_has() {
    let mut found = BTreeSet::new();
    for object in Through::ALL.into_iter().flat_map(rendered) {
        let mut body = object.body.clone();
        let fields = body.as_object_mut().expect("an object");
        fields.remove("apiVersion");
        fields.remove("kind");
        collect(&object.kind.to_string(), &body, &mut found);
    }
    let table: BTreeSet<String> =
        FIELDS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect();
    let missing: Vec<&String> = found.difference(&table).collect();
    let idle: Vec<&String> = table.difference(&found).collect();
    assert!(missing.is_empty(), "not in the table: {missing:#?}");
    assert!(idle.is_empty(), "in the table, and rendered nowhere: {idle:#?}");
}

/// As somebody would check the manifests by hand, with either kind of apply; and a typo is found by both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_finds_every_rendered_object_valid_and_a_typo_in_one_not() {
    let served = Served::start().await;
    let write = |name: &str, list: &[Value]| {
        let text: String = list.iter().map(|body| format!("---\n{body}\n")).collect();
        std::fs::write(served.directory.path().join(name), text).expect("written");
    };
    for (stage, through) in Through::ALL.into_iter().enumerate() {
        let (spaces, others): (Vec<Object>, Vec<Object>) =
            rendered(through).into_iter().partition(|object| object.kind == Kind::Namespace);
        let bodies = |objects: &[Object]| -> Vec<Value> { objects.iter().map(|object| object.body.clone()).collect() };
        write("namespaces.yaml", &bodies(&spaces));
        served.ok("apply --validate=strict --server-side -f namespaces.yaml").await;
        if others.is_empty() {
            continue;
        }
        write("objects.yaml", &bodies(&others));
        for how in ["", " --server-side"] {
            let said = served.ok(&format!("apply --dry-run=server --validate=strict{how} -f objects.yaml")).await;
            let lines = said.lines().filter(|line| line.contains("server dry run")).count();
            assert_eq!(lines, others.len(), "stage {stage}{how}: {said}");
        }
    }
    let set = rendered(Through::Formed).into_iter().find(|object| object.kind == Kind::StatefulSet);
    let mut body = set.expect("rendered").body;
    body["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = json!({});
    body["spec"]["replica"] = json!(1);
    write("typo.yaml", &[body]);
    for how in ["", " --server-side"] {
        let said = served.fails(&format!("apply --dry-run=server --validate=strict{how} -f typo.yaml")).await;
        assert!(said.contains("spec.replica"), "{how}: {said}");
    }
    let sets = served.sandbox.objects().into_iter().filter(|object| object["kind"] == "StatefulSet").count();
    assert_eq!(sets, 0, "a dry run leaves nothing");
}
