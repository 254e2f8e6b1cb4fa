//! `deploy/`: the plain manifests are the chart with its defaults, every object is valid, the role is the table's, and a
//! program that is started as the manifests start it asks for tokens and is ready without them.
//!
//! The chart is rendered here by the few words of the template language that it uses; Helm itself is not needed.
//! `CAIRN_TEST_UPDATE=1` writes the role and the plain manifests anew; the difference is reviewed.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use cairn_steps::{
    rights::role_rules,
    sandbox::{Sandbox, SandboxOptions},
};
use cairn_tests::{
    program::{DEADLINE, Process, cairn, url_in, workspace},
    site::statuses,
};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Namespace, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// In the order in which they are needed.
const TEMPLATES: [&str; 5] = ["rbac.yaml", "config.yaml", "networkpolicy.yaml", "service.yaml", "statefulset.yaml"];

/// What the plain manifests have besides: Helm makes the namespace itself.
const HEAD: &str = "\
# Cairn in a cluster: kubectl apply -f deploy/cairn.yaml
#
# It is the chart beside it with its defaults. Needed besides: the image (deploy/Dockerfile), and the Secret with the tokens.
# docs/operations.md tells both.
apiVersion: v1
kind: Namespace
metadata:
  name: cairn
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
";

fn deploy(name: &str) -> PathBuf {
    workspace().join("deploy").join(name)
}

fn read(name: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(deploy(name)).with_context(|| name.to_owned())
}

fn updating() -> bool {
    std::env::var_os("CAIRN_TEST_UPDATE").is_some()
}

fn defaults() -> anyhow::Result<Value> {
    Ok(serde_saphyr::from_str(&read("chart/values.yaml")?)?)
}

/// The template as Helm renders it for the release `cairn` in the namespace `cairn`.
fn render(template: &str, values: &Value) -> anyhow::Result<String> {
    let mut text = String::new();
    // Whether what stands here is shown, for each `if` around it.
    let mut shown = vec![true];
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, following) = after.split_once("}}").context("an action has an end")?;
        let (trims, action) = match action.strip_prefix('-') {
            Some(action) => (true, action.trim()),
            None => (false, action.trim()),
        };
        if shown.iter().all(|shown| *shown) {
            text.push_str(if trims { before.trim_end() } else { before });
        }
        match action.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["if", path] => shown.push(truthy(&look_up(path, values)?)),
            ["end"] => {
                shown.pop();
            }
            [path] if shown.iter().all(|shown| *shown) => match look_up(path, values)? {
                Value::String(value) => text.push_str(&value),
                value => text.push_str(&value.to_string()),
            },
            [path, "|", "toJson"] if shown.iter().all(|shown| *shown) => {
                text.push_str(&look_up(path, values)?.to_string());
            }
            [_] | [_, "|", "toJson"] => {}
            _ => bail!("`{action}` is more than the chart may use"),
        }
        rest = following;
    }
    text.push_str(rest);
    Ok(text)
}

fn look_up(path: &str, values: &Value) -> anyhow::Result<Value> {
    if matches!(path, ".Release.Name" | ".Release.Namespace") {
        return Ok("cairn".into());
    }
    let path = path.strip_prefix(".Values").with_context(|| format!("{path} is no value"))?;
    values.pointer(&path.replace('.', "/")).cloned().with_context(|| format!("values.yaml has no {path}"))
}

fn truthy(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false)) && value != ""
}

fn rendered(values: &Value) -> anyhow::Result<String> {
    let mut text = String::new();
    for name in TEMPLATES {
        let part = render(&read(&format!("chart/templates/{name}"))?, values).with_context(|| name.to_owned())?;
        if !part.trim().is_empty() {
            text.push_str("---\n");
            text.push_str(part.trim());
            text.push('\n');
        }
    }
    Ok(text)
}

fn objects(text: &str) -> anyhow::Result<Vec<Value>> {
    let documents = text.split("\n---\n").map(|document| document.trim_start_matches("---\n"));
    documents.map(|document| serde_saphyr::from_str(document).with_context(|| document.to_owned())).collect()
}

/// Through the type and back: what the type does not know is lost.
fn through<T: DeserializeOwned + Serialize>(object: &Value) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(T::deserialize(object)?)?)
}

fn known(object: &Value) -> anyhow::Result<Value> {
    match (object["apiVersion"].as_str(), object["kind"].as_str()) {
        (Some("v1"), Some("Namespace")) => through::<Namespace>(object),
        (Some("v1"), Some("ServiceAccount")) => through::<ServiceAccount>(object),
        (Some("v1"), Some("ConfigMap")) => through::<ConfigMap>(object),
        (Some("v1"), Some("Service")) => through::<Service>(object),
        (Some("apps/v1"), Some("StatefulSet")) => through::<StatefulSet>(object),
        (Some("networking.k8s.io/v1"), Some("NetworkPolicy")) => through::<NetworkPolicy>(object),
        (Some("rbac.authorization.k8s.io/v1"), Some("ClusterRole")) => through::<ClusterRole>(object),
        (Some("rbac.authorization.k8s.io/v1"), Some("ClusterRoleBinding")) => through::<ClusterRoleBinding>(object),
        other => bail!("{other:?} is not expected here"),
    }
}

/// What is in `sent` and not in `kept`.
fn lost(sent: &Value, kept: &Value, path: &str, found: &mut Vec<String>) {
    match (sent, kept) {
        (Value::Object(sent), Value::Object(kept)) => {
            for (name, value) in sent {
                lost(value, kept.get(name).unwrap_or(&Value::Null), &format!("{path}.{name}"), found);
            }
        }
        (Value::Array(sent), Value::Array(kept)) if sent.len() == kept.len() => {
            for (place, (sent, kept)) in sent.iter().zip(kept).enumerate() {
                lost(sent, kept, &format!("{path}[{place}]"), found);
            }
        }
        (Value::Object(empty), Value::Null) if empty.is_empty() => {}
        (Value::Array(empty), Value::Null) if empty.is_empty() => {}
        _ if sent == kept => {}
        _ => found.push(format!("{path}: {sent} is {kept}")),
    }
}

fn all_valid(text: &str) -> anyhow::Result<Vec<Value>> {
    let objects = objects(text)?;
    for object in &objects {
        let mut found = Vec::new();
        lost(object, &known(object)?, "", &mut found);
        ensure!(found.is_empty(), "{} {}: {found:?}", object["kind"], object["metadata"]["name"]);
    }
    Ok(objects)
}

#[test]
fn the_role_of_the_chart_is_the_table_of_rights() -> anyhow::Result<()> {
    let name = "chart/templates/rbac.yaml";
    let text = read(name)?;
    let (start, rest) = text.split_once("\nrules:").or_else(|| text.split_once("\n@RULES@")).context("rules")?;
    let (_, end) = rest.split_once("\n---\n").context("the binding follows")?;
    // The rules stand at the left edge here.
    let rules = role_rules();
    let expected = format!("{start}\n{rules}---\n{end}");
    if updating() {
        std::fs::write(deploy(name), &expected)?;
        return Ok(());
    }
    ensure!(text == expected, "{name} is not the table of steps/src/rights.rs: CAIRN_TEST_UPDATE=1 writes it anew");
    Ok(())
}

#[test]
fn the_plain_manifests_are_the_chart_with_its_defaults_and_every_object_is_valid() -> anyhow::Result<()> {
    let expected = format!("{HEAD}{}", rendered(&defaults()?)?);
    if updating() {
        std::fs::write(deploy("cairn.yaml"), &expected)?;
    }
    ensure!(read("cairn.yaml")? == expected, "deploy/cairn.yaml is not the chart: CAIRN_TEST_UPDATE=1 writes it anew");
    let kinds: Vec<String> = all_valid(&expected)?.iter().map(|object| object["kind"].to_string()).collect();
    ensure!(kinds.len() == 8, "{kinds:?}");
    Ok(())
}

#[test]
fn with_other_values_the_chart_is_valid_too() -> anyhow::Result<()> {
    let mut values = defaults()?;
    values["storage"]["className"] = json!("fast");
    values["networkPolicy"]["enabled"] = json!(false);
    values["tolerations"] = json!([{ "key": "infra", "operator": "Exists" }]);
    values["nodeSelector"] = json!({ "pool": "infra" });
    values["config"] = json!("[quota.default]\nclusters = 1 # \"quoted\"\n");
    let objects = all_valid(&rendered(&values)?)?;
    ensure!(objects.iter().all(|object| object["kind"] != "NetworkPolicy"), "it was switched off");
    let set = objects.iter().find(|object| object["kind"] == "StatefulSet").context("a set")?;
    ensure!(set["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "fast", "{set:#}");
    ensure!(set["spec"]["template"]["spec"]["tolerations"][0]["key"] == "infra", "{set:#}");
    let config = objects.iter().find(|object| object["kind"] == "ConfigMap").context("a map")?;
    ensure!(config["data"]["cairn.toml"] == values["config"], "{config:#}");
    Ok(())
}

#[test]
fn the_pod_is_what_restricted_pod_security_admits() -> anyhow::Result<()> {
    let objects = objects(&read("cairn.yaml")?)?;
    let set = objects.iter().find(|object| object["kind"] == "StatefulSet").context("a set")?;
    let pod = &set["spec"]["template"]["spec"];
    ensure!(pod["securityContext"]["runAsNonRoot"] == true, "{pod:#}");
    ensure!(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "{pod:#}");
    for container in pod["containers"].as_array().context("containers")? {
        let security = &container["securityContext"];
        ensure!(security["allowPrivilegeEscalation"] == false, "{container:#}");
        ensure!(security["readOnlyRootFilesystem"] == true, "{container:#}");
        ensure!(security["capabilities"]["drop"] == json!(["ALL"]), "{container:#}");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            ensure!(container[probe]["httpGet"]["path"].is_string(), "{probe} in {container:#}");
        }
        // Where the root is read-only, an overlay is built in a place of its own.
        let mut mounts = container["volumeMounts"].as_array().context("mounts")?.iter();
        ensure!(mounts.any(|mount| mount["mountPath"] == "/tmp" && mount["readOnly"] != true), "{container:#}");
    }
    for volume in pod["volumes"].as_array().context("volumes")? {
        ensure!(volume["hostPath"].is_null(), "{volume:#}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn started_as_the_manifests_start_it_cairn_is_ready_and_lets_in_who_has_a_token() -> anyhow::Result<()> {
    let sandbox = Sandbox::open(SandboxOptions::default())?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("kubeconfig"), Sandbox::kubeconfig(listener.local_addr()?))?;
    let serving = sandbox.clone();
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });

    let made = cairn(&["token", "--name", "acme-ci", "--user", "acme"]).output().await?;
    std::fs::write(path("tokens.toml"), &made.stdout)?;
    let said = String::from_utf8(made.stderr)?;
    let token = said.split_whitespace().last().context("a token")?.to_owned();
    ensure!(!String::from_utf8(made.stdout)?.contains(&token), "the token is in the file");

    let objects = objects(&read("cairn.yaml")?)?;
    let config = objects.iter().find_map(|object| object["data"]["cairn.toml"].as_str()).context("settings")?;
    std::fs::write(path("cairn.toml"), config)?;
    let set = objects.iter().find(|object| object["kind"] == "StatefulSet").context("a set")?;
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let mut arguments: Vec<String> = container["args"]
        .as_array()
        .context("arguments")?
        .iter()
        .filter_map(Value::as_str)
        .map(|argument| {
            argument
                .replace("/etc/cairn/cairn.toml", &path("cairn.toml"))
                .replace("/etc/cairn-tokens/tokens.toml", &path("tokens.toml"))
                .replace("/var/lib/cairn", &path("data"))
                .replace("--port=8080", "--port=0")
        })
        .collect();
    arguments.extend(["--kubeconfig".to_owned(), path("kubeconfig")]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut process = Process::start(cairn(&arguments))?;
    // It listens everywhere, and so on loopback too.
    let url = process.said(|line| url_in(&line.replace("http://0.0.0.0:", "http://127.0.0.1:"))).await?;

    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    // A kubelet asks the pod's address, and has no token.
    let probe = |name: &str| client.get(format!("{url}{}", container[name]["httpGet"]["path"].as_str().unwrap_or("?")));
    loop {
        let ready = probe("readinessProbe").header("host", "10.1.2.3:8080").send().await?;
        if ready.status() == 200 {
            break;
        }
        ensure!(ready.status() == 503, "{}", ready.text().await?);
    }
    ensure!(probe("livenessProbe").send().await?.status() == 200, "it does not live");
    ensure!(client.get(format!("{url}/workflows")).send().await?.status() == 401, "let in without a token");
    let body = json!({ "user": "acme", "service_name": "search" }).to_string();
    let created = client.post(format!("{url}/clusters?wait=60s")).bearer_auth(&token).body(body).send().await?;
    ensure!(created.status() == 201, "{}", created.text().await?);
    let created: Value = serde_json::from_str(&created.text().await?)?;
    ensure!(statuses(&created["reports"]).len() == 10, "{created:#}");
    // A token that is taken out of the file is refused from the next hangup on.
    let other = cairn(&["token", "--name", "ops", "--operator"]).output().await?;
    std::fs::write(path("tokens.toml"), &other.stdout)?;
    process.signal(rustix::process::Signal::HUP)?;
    let refused = async {
        // A signal has no answer: it has arrived when it shows.
        while client.get(format!("{url}/workflows")).bearer_auth(&token).send().await?.status() != 401 {}
        anyhow::Ok(())
    };
    tokio::time::timeout(DEADLINE, refused).await.context("the tokens are never read again")??;
    let ended = process.terminate().await?;
    ensure!(!ended.output.contains(&token), "the token is in the log:\n{}", ended.output);
    ensure!(ended.output.contains("\"who\":\"acme-ci\""), "who asked is not in the log:\n{}", ended.output);
    Ok(())
}
