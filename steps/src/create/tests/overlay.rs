//! An overlay is taken down by the first step, and what was taken down is used: by a resume under other settings, too (I11).

use serde_json::json;

use super::bench::Bench;
use crate::cluster::Cluster;
use crate::create::{Deps, create_definition};
use crate::gitlab::{GitLab, GitLabRules};
use crate::overlay::tests::{of, overlay};

#[tokio::test(start_paused = true)]
async fn a_resume_uses_the_overlay_that_was_taken_down_whatever_the_settings_say_now() {
    let mut bench = Bench::new(json!({}));
    let laid_over = overlay(|built| {
        of(built, "StatefulSet")["metadata"]["annotations"]["example.com/owner"] = json!("search team");
        built.push(
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "extra" }, "data": { "a": "b" } }),
        );
    });
    let deps = |overlay| {
        let cluster = Cluster::new(bench.sandbox.client());
        Deps { overlay, ..Deps::new(cluster, GitLab::new(GitLabRules::default())) }
    };
    let (with, without) = (deps(Some(laid_over.expect("good").into())), deps(None));
    bench.definition = create_definition(with);
    bench.up_to("gitlab_pulled").await;
    bench.definition = create_definition(without);
    bench.begun("gitlab_pulled");
    let pulled = bench.run("gitlab_pulled").await.expect("skipped");
    bench.succeeded("gitlab_pulled", pulled);
    bench.begun("k8s_applied");
    let applied = bench.run("k8s_applied").await.expect("applied");
    let names = applied.result.value()["objects"].to_string();
    assert!(names.contains("ConfigMap/extra"), "{names}");
    let find = |kind: &str, name: &str| {
        let named = move |object: &serde_json::Value| object["kind"] == kind && object["metadata"]["name"] == name;
        bench.things().into_iter().find(named).expect(name)
    };
    let set = find("StatefulSet", "elasticsearch");
    assert_eq!(set["metadata"]["annotations"]["example.com/owner"], "search team");
    assert_eq!(find("ConfigMap", "extra")["metadata"]["annotations"]["cairn.dev/workflow"], bench.workflow());
    // It is ours like the rest, and goes with the rest.
    bench.succeeded("k8s_applied", applied);
    bench.roll_back_from("k8s_applied").await;
    assert_eq!(bench.residue().await, Vec::<String>::new());
    assert_eq!(bench.things().len(), 0);
}
