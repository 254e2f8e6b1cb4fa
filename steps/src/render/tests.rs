use serde_json::{Value, json};

use super::*;

fn request(extra: &str) -> Request {
    Request::parse(format!(r#"{{"user":"acme","service_name":"search"{extra}}}"#).as_bytes()).expect("good")
}

fn marks() -> Marks {
    Marks { workflow: "0197a000-0000-7000-8000-000000000001".to_owned() }
}

fn rendered(request: &Request, through: Through) -> Vec<Object> {
    let settings =
        Settings::parse("search.max_buckets: 20000\nindices.query.bool.max_clause_count: 2048\n").expect("good");
    render(request, &Elastic::default(), through, Some(&settings), &marks())
}

fn one(objects: &[Object], kind: Kind, name: &str) -> Value {
    objects.iter().find(|object| object.kind == kind && object.name == name).expect("rendered").body.clone()
}

/// Everything that a cluster with GPUs and several nodes has, as it is once its creation is through.
fn full() -> Vec<Object> {
    rendered(
        &request(r#","replicas":3,"gpu_count":1,"dimension":768,"vector_count":1000000"#),
        Through::RolloutCompleted,
    )
}

macro_rules! golden {
    ($($test:ident: $kind:ident $name:expr;)*) => {
        $(
            #[test]
            fn $test() {
                insta::assert_yaml_snapshot!(one(&full(), Kind::$kind, $name));
            }
        )*
    };
}

golden! {
    golden_namespace: Namespace "acme--search";
    golden_headless_service: Service names::HEADLESS_SERVICE;
    golden_client_service: Service names::CLIENT_SERVICE;
    golden_kibana_service: Service names::KIBANA;
    golden_configmap: ConfigMap names::CONFIG_MAP;
    golden_secret: Secret names::SECRET;
    golden_disruption_budget: PodDisruptionBudget names::DISRUPTION_BUDGET;
    golden_statefulset: StatefulSet names::STATEFUL_SET;
    golden_deployment: Deployment names::KIBANA;
    golden_claim: PersistentVolumeClaim &names::claim(0);
}

/// Whether `later` holds all that `earlier` holds. Where it does not, the path of the difference is pushed.
fn differences(path: &str, earlier: &Value, later: &Value, found: &mut Vec<String>) {
    match (earlier, later) {
        (Value::Object(earlier), Value::Object(later)) => {
            for (key, value) in earlier {
                differences(&format!("{path}.{key}"), value, later.get(key).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(earlier), Value::Array(later)) => {
            for (place, value) in earlier.iter().enumerate() {
                differences(&format!("{path}[{place}]"), value, later.get(place).unwrap_or(&Value::Null), found);
            }
        }
        _ if earlier == later => {}
        _ => found.push(path.to_owned()),
    }
}

proptest::proptest! {
    #[test]
    fn a_later_render_contains_every_earlier_one(
        replicas in 1_u32..=5, gpu_count in 0_u32..=2, earlier in 0_usize..7, later in 0_usize..7,
    ) {
        let (earlier, later) = (Through::ALL[earlier.min(later)], Through::ALL[earlier.max(later)]);
        let request = request(&format!(r#","replicas":{replicas},"gpu_count":{gpu_count}"#));
        let later_objects = rendered(&request, later);
        for object in rendered(&request, earlier) {
            let mut found = Vec::new();
            differences("", &object.body, &one(&later_objects, object.kind, &object.name), &mut found);
            let expected: &[&str] = match object.kind {
                Kind::StatefulSet | Kind::Deployment if earlier < Through::RolloutCompleted && later >= Through::RolloutCompleted => &[".spec.replicas"],
                Kind::ConfigMap if earlier < Through::Formed && later == Through::Formed => &[".data.elasticsearch.yml"],
                _ => &[],
            };
            proptest::prop_assert_eq!(&found, expected, "{} from {:?} to {:?}", object, earlier, later);
        }
    }
}

#[test]
fn nothing_starts_before_the_rollout() {
    let request = request(r#","replicas":3"#);
    for through in Through::ALL {
        for object in rendered(&request, through)
            .iter()
            .filter(|object| matches!(object.kind, Kind::StatefulSet | Kind::Deployment))
        {
            let replicas = object.body["spec"]["replicas"].as_i64().expect("always said");
            assert_eq!(replicas > 0, through >= Through::RolloutCompleted, "{object} {through:?}");
        }
    }
}

#[test]
fn every_object_carries_the_marks_of_its_workflow() {
    for object in full() {
        let annotations = &object.body["metadata"]["annotations"];
        assert_eq!(annotations[names::WORKFLOW_ANNOTATION], json!(marks().workflow), "{object}");
        assert_eq!(annotations[names::TENANT_ANNOTATION], "acme", "{object}");
        assert_eq!(annotations[names::SERVICE_ANNOTATION], "search", "{object}");
        assert_eq!(object.body["metadata"]["labels"][names::MANAGED_BY_LABEL.0], names::MANAGED_BY_LABEL.1, "{object}");
        assert_eq!(object.body["metadata"]["name"], json!(object.name));
        assert_eq!(object.body["kind"], json!(object.kind.to_string()));
        assert_eq!(object.body["apiVersion"], json!(object.kind.api_resource().api_version));
        assert!(object.body.get("status").is_none(), "{object}");
    }
}

#[test]
fn a_claim_has_the_size_of_the_template_and_one_is_there_for_each_node() {
    let objects = rendered(&request(r#","replicas":3,"disk_size":"20Gi""#), Through::DiskConfigured);
    let template = &one(&objects, Kind::StatefulSet, names::STATEFUL_SET)["spec"]["volumeClaimTemplates"][0];
    let claims: Vec<_> = objects.iter().filter(|object| object.kind == Kind::PersistentVolumeClaim).collect();
    assert_eq!(claims.len(), 3);
    for (ordinal, claim) in (0..).zip(&claims) {
        assert_eq!(claim.name, names::claim(ordinal));
        assert_eq!(claim.body["spec"], template["spec"]);
        assert_eq!(claim.body["spec"]["resources"]["requests"]["storage"], "20Gi");
    }
}

#[test]
fn without_gpus_there_is_no_word_of_them() {
    let objects = rendered(&request(""), Through::RolloutCompleted);
    assert!(!one(&objects, Kind::StatefulSet, names::STATEFUL_SET).to_string().contains("nvidia"));
}

#[test]
fn the_bootstrap_list_goes_without_a_restart_and_one_node_has_one_too() {
    let request = request("");
    let (forming, formed) = (rendered(&request, Through::RolloutCompleted), rendered(&request, Through::Formed));
    let text =
        |objects: &[Object]| one(objects, Kind::ConfigMap, names::CONFIG_MAP)["data"]["elasticsearch.yml"].to_string();
    assert!(text(&forming).contains(r#"cluster.initial_master_nodes: [\"elasticsearch-0\"]"#));
    assert!(!text(&formed).contains("initial_master_nodes"));
    assert!(!text(&forming).contains("single-node"));
    let set = |objects: &[Object]| one(objects, Kind::StatefulSet, names::STATEFUL_SET);
    assert_eq!(set(&forming), set(&formed));
}

#[test]
fn other_settings_are_other_pods() {
    let request = request("");
    let with = rendered(&request, Through::K8sApplied);
    let without = render(&request, &Elastic::default(), Through::K8sApplied, None, &marks());
    let digest = |objects: &[Object]| {
        one(objects, Kind::StatefulSet, names::STATEFUL_SET)["spec"]["template"]["metadata"]["annotations"]
            [names::CONFIG_ANNOTATION]
            .clone()
    };
    assert_ne!(digest(&with), digest(&without));
}

#[test]
fn the_configuration_is_yaml_that_says_what_was_meant() {
    let objects = full();
    let map = one(&objects, Kind::ConfigMap, names::CONFIG_MAP);
    let value: Value = serde_saphyr::from_str(map["data"]["elasticsearch.yml"].as_str().expect("text")).expect("YAML");
    assert_eq!(value["cluster.initial_master_nodes"], json!(["elasticsearch-0", "elasticsearch-1", "elasticsearch-2"]));
    assert_eq!(value["search.max_buckets"], 20000);
    assert_eq!(value["xpack.security.enabled"], true);
    assert_eq!(value["xpack.security.http.ssl.certificate"], "certificates/node.crt");
}

/// Each name in a volume, a variable or a mount is one that the Secret will have.
#[test]
fn what_the_pods_take_from_the_secret_is_what_it_gets() {
    let made = crate::credentials::Credentials::generate("acme--search").expect("random").into_data();
    let objects = full();
    assert!(one(&objects, Kind::Secret, names::SECRET).get("data").is_none(), "a render has no values");
    let mut taken = std::collections::BTreeSet::new();
    for (kind, name) in [(Kind::StatefulSet, names::STATEFUL_SET), (Kind::Deployment, names::KIBANA)] {
        let pod = &one(&objects, kind, name)["spec"]["template"]["spec"];
        let items = pod["volumes"]
            .as_array()
            .expect("volumes")
            .iter()
            .filter_map(|volume| volume["secret"]["items"].as_array());
        taken.extend(items.flatten().map(|item| item["key"].as_str().expect("a key").to_owned()));
        let env = pod["containers"][0]["env"].as_array().expect("variables");
        taken.extend(
            env.iter().filter_map(|variable| variable["valueFrom"]["secretKeyRef"]["key"].as_str().map(str::to_owned)),
        );
    }
    assert_eq!(taken.into_iter().collect::<Vec<_>>(), made.into_keys().collect::<Vec<_>>());
}

/// C6: where a quota covers CPU or memory, a pod with one container without them is refused.
#[test]
fn every_container_has_requests_and_limits() {
    for (kind, name) in [(Kind::StatefulSet, names::STATEFUL_SET), (Kind::Deployment, names::KIBANA)] {
        let pod = &one(&full(), kind, name)["spec"]["template"]["spec"];
        let containers = ["initContainers", "containers"].map(|list| pod[list].as_array().cloned().unwrap_or_default());
        for container in containers.iter().flatten() {
            for sort in ["requests", "limits"] {
                for good in ["cpu", "memory"] {
                    assert!(
                        container["resources"][sort][good].is_string(),
                        "{name}: {} {sort} {good}",
                        container["name"]
                    );
                }
            }
        }
    }
}

#[test]
fn other_images_and_another_version_are_what_is_rendered() {
    let elastic =
        Elastic::new("8.19.2", Some("registry.example.com/es"), Some("registry.example.com/kb:1")).expect("right");
    let objects = render(&request(""), &elastic, Through::RolloutCompleted, None, &marks());
    let pods = |kind, name| one(&objects, kind, name)["spec"]["template"].clone();
    let (nodes, kibana) = (pods(Kind::StatefulSet, names::STATEFUL_SET), pods(Kind::Deployment, names::KIBANA));
    assert_eq!(nodes["spec"]["containers"][0]["image"], "registry.example.com/es:8.19.2");
    assert_eq!(kibana["spec"]["containers"][0]["image"], "registry.example.com/kb:1");
    assert_eq!(nodes["metadata"]["labels"][names::VERSION_LABEL], "8.19.2");
}
