//! Overlays, built by the stock `kubectl kustomize`: the built-in base is what `render` makes, and what an overlay makes of it
//! there is what cairn makes of a request with that overlay.
//!
//! `CAIRN_TEST_UPDATE=1` writes the base anew; the difference is reviewed.

use std::{collections::BTreeMap, path::Path, process::Command};

use cairn_steps::{
    elastic::Elastic,
    overlay::{Overlay, OverlayError},
    render::{Marks, Object, Through, render},
    request::Request,
};
use cairn_tests::program::workspace;
use serde_json::Value;

/// The request that the base is rendered for.
fn rendered() -> (Request, Marks, Vec<Object>) {
    let request = Request::parse(br#"{"user": "user", "service_name": "service"}"#).expect("good");
    let marks = Marks { workflow: "workflow".to_owned() };
    let objects = render(&request, &Elastic::default(), Through::RolloutCompleted, None, &marks);
    (request, marks, objects)
}

/// What `kubectl kustomize` makes of this directory, by kind and name.
fn kustomized(directory: &Path) -> BTreeMap<String, Value> {
    let output = Command::new("kubectl").arg("kustomize").arg(directory).output().expect("kubectl is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    by_name(serde_saphyr::from_multiple::<Value>(&text).expect("YAML"))
}

fn by_name(objects: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    let name = |object: &Value| format!("{}/{}", object["kind"], object["metadata"]["name"]);
    let ordered = |object: Value| {
        let mut object = placeless(object);
        sort(&mut object);
        (name(&object), object)
    };
    objects.into_iter().map(ordered).collect()
}

/// The base lies in no namespace: each request has its own.
fn placeless(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("namespace");
    }
    object
}

/// Where new items get among named ones is each program's own choice.
fn sort(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(sort),
        Value::Array(items) => {
            items.iter_mut().for_each(sort);
            items.sort_by_key(|item| item["name"].to_string());
        }
        _ => {}
    }
}

#[test]
fn the_built_in_base_as_kubectl_builds_it_is_what_render_makes() {
    let base = workspace().join("steps/k8s/base");
    let objects: Vec<Value> = rendered().2.into_iter().map(|object| object.body).collect();
    if std::env::var_os("CAIRN_TEST_UPDATE").is_some() {
        let head = "# What `render` makes of a request with the defaults: written by the test that compares the two.\n";
        let placeless: Vec<Value> = objects.iter().cloned().map(placeless).collect();
        let text = serde_saphyr::to_string_multiple(&placeless).expect("plain data");
        std::fs::write(base.join("cluster.yaml"), format!("{head}{text}")).expect("written");
    }
    assert_eq!(kustomized(&base), by_name(objects), "CAIRN_TEST_UPDATE=1 writes it anew");
}

#[test]
fn the_overlay_dev_as_kubectl_builds_it_is_what_cairn_makes_with_it() {
    let directory = workspace().join("steps/k8s/overlays/dev");
    let overlay = Overlay::load(&directory).expect("good");
    let (request, marks, mut objects) = rendered();
    let plain = by_name(objects.iter().map(|object| object.body.clone()));
    overlay.apply(&mut objects, &request, Through::RolloutCompleted, &marks);
    let laid_over = by_name(objects.into_iter().map(|object| object.body));
    assert_eq!(kustomized(&directory), laid_over);
    assert_ne!(plain, laid_over, "it changes something");
}

#[test]
fn an_overlay_that_kustomize_does_not_build_says_what_kustomize_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let patch = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: nowhere}";
    std::fs::write(directory.path().join("patch.yaml"), patch).expect("written");
    let text = "bases: [../../base]\npatchesStrategicMerge: [patch.yaml]";
    std::fs::write(directory.path().join("kustomization.yaml"), text).expect("written");
    let error = Overlay::load(directory.path()).expect_err("no such object");
    assert!(matches!(&error, OverlayError::Build { said, .. } if said.contains("nowhere")), "{error}");
}

#[test]
fn an_overlay_has_the_same_hash_wherever_it_lies_and_another_when_a_byte_is_another() {
    let load = |text: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("kustomization.yaml"), text).expect("written");
        Overlay::load(directory.path()).expect("good").sha256
    };
    let text = "bases: [../../base]\ncommonAnnotations: {a: b}";
    assert_eq!(load(text), load(text));
    assert_ne!(load(text), load(&format!("{text}\n")));
}
