//! What may be in an overlay, and what one does to the objects of a request. Nothing here needs a program; building one is
//! tried in the suite `kubectl`.

use std::fs;

use serde_json::json;

use super::*;
use crate::elastic::Elastic;
use crate::render::render;

fn objects(request: &str) -> (Request, Vec<Object>) {
    let request = Request::parse(request.as_bytes()).expect("good");
    let marks = Marks { workflow: "w".to_owned() };
    let objects = render(&request, &Elastic::default(), Through::RolloutCompleted, None, &marks);
    (request, objects)
}

/// The overlay that makes of the base what `change` does to it.
pub(crate) fn overlay(change: impl FnOnce(&mut Vec<Value>)) -> Result<Overlay, OverlayError> {
    let base = build::base();
    let mut built: Vec<Value> = base.iter().map(|object| object.body.clone()).collect();
    change(&mut built);
    let (patches, additions) = delta::between(&base, &built)?;
    Ok(Overlay { sha256: String::new(), patches, additions })
}

/// The overlay that adds the most objects that one may add, and these.
pub(crate) fn largest() -> (Overlay, Vec<(Kind, String)>) {
    let one = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let mut overlay = Overlay { sha256: "0".repeat(64), patches: Vec::new(), additions: Vec::new() };
    let room = BYTES_MAX - serde_json::to_vec(&overlay).expect("plain data").len();
    let mut bytes = 0;
    // Names of two characters: the shorter they are, the more of them there can be.
    let letters = "abcdefghijklmnopqrstuvwxyz0123456789";
    let names = letters.chars().flat_map(|first| letters.chars().map(move |second| format!("{first}{second}")));
    for name in names {
        let body = one(&name);
        bytes += body.to_string().len() + 1;
        if bytes > room {
            break;
        }
        overlay.additions.push(body);
    }
    let added = overlay.additions.iter().filter_map(|body| body["metadata"]["name"].as_str());
    let added = added.map(|name| (Kind::ConfigMap, name.to_owned())).collect();
    (overlay, added)
}

/// The object of this kind.
pub(crate) fn of<'a>(built: &'a mut [Value], kind: &str) -> &'a mut Value {
    built.iter_mut().find(|object| object["kind"] == kind).expect("one of the base")
}

fn applied(overlay: &Overlay, request: &str) -> Vec<Object> {
    let (request, mut objects) = objects(request);
    let marks = Marks { workflow: "w".to_owned() };
    overlay.apply(&mut objects, &request, Through::RolloutCompleted, &marks);
    objects
}

fn find<'a>(objects: &'a [Object], wanted: &str) -> &'a Value {
    &objects.iter().find(|object| object.to_string() == wanted).expect(wanted).body
}

const THREE: &str =
    r#"{"user": "acme", "service_name": "search", "replicas": 3, "mem_limit": "4Gi", "disk_size": "50Gi"}"#;

#[test]
fn an_overlay_that_changes_nothing_changes_nothing() {
    let nothing = overlay(|_| {}).expect("good");
    assert_eq!(nothing.counts(), (0, 0));
    assert_eq!(applied(&nothing, THREE), objects(THREE).1);
}

#[test]
fn what_an_overlay_changes_is_laid_over_every_request_and_the_rest_is_the_requests() {
    let overlay = overlay(|built| {
        let set = of(built, "StatefulSet");
        set["metadata"]["annotations"]["example.com/owner"] = json!("search team");
        let pod = &mut set["spec"]["template"]["spec"];
        pod["priorityClassName"] = json!("high");
        pod["tolerations"] = json!([{ "key": "pool", "operator": "Exists" }]);
        pod["containers"][0]["env"].as_array_mut().expect("variables").push(json!({ "name": "TZ", "value": "UTC" }));
        of(built, "PersistentVolumeClaim")["metadata"]["labels"]["backup"] = json!("daily");
        of(built, "Namespace")["metadata"]["labels"]["cost"] = json!("42");
        built.push(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "extra", "namespace": "dev" }, "data": { "a": "b" } }));
    })
    .expect("good");
    let (_, plain) = objects(THREE);
    let all = applied(&overlay, THREE);
    let set = find(&all, "StatefulSet/elasticsearch");
    assert_eq!(set["metadata"]["annotations"]["example.com/owner"], "search team");
    assert_eq!(set["spec"]["template"]["spec"]["priorityClassName"], "high");
    assert_eq!(set["spec"]["replicas"], 3);
    let resources = "/spec/template/spec/containers/0/resources";
    assert_eq!(set.pointer(resources), find(&plain, "StatefulSet/elasticsearch").pointer(resources));
    for ordinal in 0..3 {
        let claim = find(&all, &format!("PersistentVolumeClaim/elasticsearch-data-elasticsearch-{ordinal}"));
        assert_eq!(
            (&claim["metadata"]["labels"]["backup"], &claim["spec"]["resources"]["requests"]["storage"]),
            (&json!("daily"), &json!("50Gi"))
        );
    }
    assert_eq!(find(&all, "Namespace/acme--search")["metadata"]["labels"]["cost"], "42");
    let extra = find(&all, "ConfigMap/extra");
    assert_eq!(extra["metadata"]["namespace"], "acme--search");
    assert_eq!(extra["metadata"]["annotations"][names::WORKFLOW_ANNOTATION], "w");
    let place = |name: &str| all.iter().position(|object| object.to_string() == name).expect(name);
    assert!(place("ConfigMap/extra") < place("StatefulSet/elasticsearch"), "applied with its kind");
    // What is taken down is what was laid over: a resume reads it from the journal.
    let journaled = serde_json::to_string(&overlay).expect("plain data");
    assert_eq!(applied(&serde_json::from_str(&journaled).expect("reads"), THREE), all);
}

#[test]
fn what_a_request_says_and_what_holds_a_cluster_together_is_not_an_overlays() {
    type Change = fn(&mut Vec<Value>);
    let cases: [(Change, &str); 13] = [
        (|built| of(built, "StatefulSet")["spec"]["replicas"] = json!(5), "what a request says: `replicas`"),
        (
            |built| {
                of(built, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] =
                    json!("9")
            },
            "`cpu_limit`",
        ),
        (
            |built| {
                of(built, "StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"] = json!("x")
            },
            "`disk_size`",
        ),
        (
            |built| {
                of(built, "StatefulSet")["spec"]["persistentVolumeClaimRetentionPolicy"] =
                    json!({"whenScaled": "Delete"})
            },
            "delete disks by itself",
        ),
        (|built| of(built, "StatefulSet")["spec"]["selector"]["matchLabels"]["a"] = json!("b"), "includeSelectors"),
        (
            |built| of(built, "StatefulSet")["spec"]["template"]["spec"]["hostNetwork"] = json!(true),
            "more than a tenant's pods may have",
        ),
        (
            |built| of(built, "StatefulSet")["metadata"]["annotations"][names::WORKFLOW_ANNOTATION] = json!("mine"),
            "is a mark",
        ),
        (
            |built| {
                of(built, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = json!("x")
            },
            "holds the cluster together",
        ),
        (|built| of(built, "Service")["spec"]["selector"]["a"] = json!("b"), "holds the cluster together"),
        (|built| of(built, "ConfigMap")["data"]["elasticsearch.yml"] = json!("x: y"), "`gitlab_url`"),
        (|built| of(built, "Secret")["data"] = json!({ "a": "Yg==" }), "holds the cluster together"),
        (|built| built.retain(|object| object["kind"] != "PodDisruptionBudget"), "cannot take it away"),
        (
            |built| built.push(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "x" } })),
            "ConfigMaps and Services only",
        ),
    ];
    for (change, words) in cases {
        let error = overlay(change).expect_err(words).to_string();
        assert!(error.contains(words), "{words} in {error}");
    }
}

/// What is wrong with a directory with these files.
fn refused(files: &[(&str, &str)]) -> Option<String> {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("within")).expect("made");
        fs::write(path, content).expect("written");
    }
    check::tree(directory.path()).err().map(|error| error.to_string())
}

#[test]
fn a_directory_of_plain_files_over_the_base_may_be_built() {
    let files = [
        (
            "kustomization.yaml",
            "resources: [../../base, extra, map.yaml]\npatches: [{path: patch.yaml}]\nconfigMapGenerator: [{name: m, files: [a=note.txt]}]",
        ),
        ("extra/kustomization.yml", "resources: [../map.yaml]"),
        ("map.yaml", "a: b"),
        ("patch.yaml", "a: b"),
        ("note.txt", "text"),
        (".git/config", "not read"),
    ];
    assert_eq!(refused(&files), None);
}

#[test]
fn nothing_is_fetched_nothing_is_run_and_nothing_is_read_from_elsewhere() {
    for (text, words) in [
        ("resources: [https://example.com/base]", "never fetched"),
        ("resources: ['git@example.com:a/b']", "never fetched"),
        ("resources: [github.com/a/b//c?ref=v1]", "never fetched"),
        ("resources: [../../../etc]", "never fetched"),
        ("resources: [/etc/passwd]", "never fetched"),
        ("components: [../other]", "never fetched"),
        ("bases: [example.com/a.git]", "never fetched"),
        ("helmCharts: [{name: a}]", "would fetch or run"),
        ("generators: [a.yaml]", "would fetch or run"),
        ("transformers: [a.yaml]", "would fetch or run"),
        ("validators: [a.yaml]", "would fetch or run"),
        ("openapi: {path: a.json}", "would fetch or run"),
        ("secretGenerator: [{name: a}]", "into the journal"),
        ("namePrefix: dev-", "would rename"),
        ("patches: [{path: ../../../etc/passwd}]", "no file of the directory"),
        ("configMapGenerator: [{name: a, files: [/etc/passwd]}]", "no file of the directory"),
        ("configMapGenerator: [{name: a, envs: [../x]}]", "no file of the directory"),
        ("unheardOf: 1", "none of the fields"),
        ("resources: [.]", "without end"),
        ("- a", "no mapping"),
    ] {
        let error = refused(&[("kustomization.yaml", text)]).unwrap_or_else(|| panic!("{text} is taken"));
        assert!(error.contains(words), "{text}: {words} in {error}");
    }
    assert!(refused(&[("a.yaml", "a: b")]).is_some_and(|error| error.contains("there is none")));
    // A directory that is taken in is looked at as well.
    let inner = [("kustomization.yaml", "resources: [in]"), ("in/kustomization.yaml", "helmCharts: []")];
    assert!(refused(&inner).is_some_and(|error| error.contains("in/kustomization.yaml")));
}

#[test]
fn a_link_leads_nowhere() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("kustomization.yaml"), "resources: [x.yaml]").expect("written");
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join("x.yaml")).expect("linked");
    assert!(check::tree(directory.path()).expect_err("a link").to_string().contains("it is a link"));
}
