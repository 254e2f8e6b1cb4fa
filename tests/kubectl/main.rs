//! A stock `kubectl` against the sandbox cluster, on a free loopback port: what people do with a cluster works here too.
//!
//! The binary is the one on the PATH, whatever its version; each test has a cluster, a kubeconfig and a home of its own.

mod overlays;
mod rendered;

use cairn_steps::sandbox::{Fault, PodTrouble, Sandbox, SandboxOptions};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

const MANIFEST: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {es-cluster: "true"}}
---
apiVersion: v1
kind: Service
metadata: {name: es, namespace: a}
spec: {clusterIP: None, selector: {app: es}, ports: [{name: http, port: 9200}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: es, namespace: a}
spec:
  replicas: 2
  serviceName: es
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: es}}
  template:
    metadata: {labels: {app: es}}
    spec:
      containers:
      - name: es
        image: es:1
        resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {memory: 1Gi}}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kibana, namespace: a}
spec:
  selector: {matchLabels: {app: kibana}}
  template:
    metadata: {labels: {app: kibana}}
    spec: {containers: [{name: kibana, image: "kibana:1"}]}
"#;

/// A served cluster, and where its kubeconfig and manifests lie.
struct Served {
    sandbox: Sandbox,
    directory: tempfile::TempDir,
}

impl Served {
    async fn start() -> Served {
        let options = SandboxOptions { pod_ready_after: Duration::from_millis(100), ..SandboxOptions::default() };
        let sandbox = Sandbox::open(options).expect("a sandbox in memory opens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let directory = tempfile::tempdir().expect("a directory");
        let address = listener.local_addr().expect("bound");
        std::fs::write(directory.path().join("kubeconfig"), Sandbox::kubeconfig(address)).expect("written");
        std::fs::write(directory.path().join("all.yaml"), MANIFEST).expect("written");
        let server = sandbox.clone();
        tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
        Served { sandbox, directory }
    }

    /// The cluster with everything of the manifest applied and rolled out.
    async fn rolled_out() -> Served {
        let served = Served::start().await;
        served.ok("apply --server-side -f all.yaml").await;
        served.ok("rollout status statefulset/es -n a --timeout 60s").await;
        served.ok("rollout status deployment/kibana -n a --timeout 60s").await;
        served
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("kubectl");
        let directory: &Path = self.directory.path();
        command
            .args(arguments.split(' '))
            .current_dir(directory)
            .env("KUBECONFIG", directory.join("kubeconfig"))
            .env("HOME", directory)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &str) -> Output {
        let output = tokio::time::timeout(Duration::from_secs(90), self.command(arguments).output()).await;
        let output = output.unwrap_or_else(|_| panic!("kubectl {arguments} did not end in 90 s"));
        output.unwrap_or_else(|error| panic!("cannot run kubectl, install it (Debian: kubernetes-client): {error}"))
    }

    /// What it prints, where it must succeed.
    async fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What it complains of, where it must fail.
    async fn fails(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        assert!(!output.status.success(), "kubectl {arguments} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// The words of the line that begins with that word.
fn words<'a>(table: &'a str, first: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(first));
    line.unwrap_or_else(|| panic!("no line {first} in\n{table}")).split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_applies_a_manifest_waits_for_its_rollout_and_applies_it_again_without_a_change() {
    let served = Served::start().await;
    let applied = served.ok("apply --server-side -f all.yaml").await;
    assert_eq!(applied.lines().filter(|line| line.ends_with("serverside-applied")).count(), 4, "{applied}");
    let waited = served.ok("rollout status sts/es -n a --timeout 60s").await;
    assert!(waited.contains("2 new pods have been updated"), "{waited}");
    let waited = served.ok("rollout status deploy/kibana -n a --timeout 60s").await;
    assert!(waited.contains("successfully rolled out"), "{waited}");
    let effects = served.sandbox.effects().len();
    served.ok("apply --server-side -f all.yaml").await;
    assert_eq!(served.sandbox.effects().len(), effects);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_gets_tables_wide_ones_yaml_json_and_what_selectors_take() {
    let served = Served::rolled_out().await;
    assert_eq!(words(&served.ok("get sts -n a").await, "es")[1], "2/2");
    assert_eq!(words(&served.ok("get deploy -n a").await, "kibana")[1..4], ["1/1", "1", "1"]);
    assert_eq!(words(&served.ok("get pods -n a").await, "es-0")[1..4], ["1/1", "Running", "0"]);
    assert_eq!(words(&served.ok("get pods -n a -o wide").await, "es-1")[6], "sandbox");
    assert_eq!(words(&served.ok("get pvc -n a").await, "data-es-1")[1], "Bound");
    assert_eq!(words(&served.ok("get ns").await, "a")[1], "Active");
    let everywhere = served.ok("get sts,deploy,pvc,svc,ns,pv,sc,nodes,events -A").await;
    assert!(
        everywhere.contains("statefulset.apps/es") && everywhere.contains("persistentvolumeclaim/data-es-0"),
        "{everywhere}"
    );
    let yaml = served.ok("get sts es -n a -o yaml").await;
    assert!(yaml.contains("updateStrategy:") && yaml.contains("readyReplicas: 2"), "{yaml}");
    let json: serde_json::Value = serde_json::from_str(&served.ok("get pods -n a -o json").await).expect("JSON");
    assert_eq!(json["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(served.ok("get pods -n a -l app=es -o name").await, "pod/es-0\npod/es-1\n");
    assert_eq!(served.ok("get pods -n a --field-selector metadata.name=es-1 -o name").await, "pod/es-1\n");
    assert!(served.fails("get sts nothing -n a").await.contains("statefulsets.apps \"nothing\" not found"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_describes_what_there_is_with_its_events() {
    let served = Served::rolled_out().await;
    let set = served.ok("describe sts es -n a").await;
    assert!(set.contains("2 Running / 0 Waiting") && set.contains("SuccessfulCreate"), "{set}");
    let pod = served.ok("describe pod es-0 -n a").await;
    assert!(pod.contains("Controlled By:  StatefulSet/es") && pod.contains("Successfully assigned a/es-0"), "{pod}");
    for (what, word) in [
        ("deploy kibana -n a", "NewReplicaSetAvailable"),
        ("svc es -n a", "9200/TCP"),
        ("pvc data-es-0 -n a", "ProvisioningSucceeded"),
        ("ns a", "es-cluster=true"),
        ("node sandbox", "nvidia.com/gpu"),
    ] {
        let told = served.ok(&format!("describe {what}")).await;
        assert!(told.contains(word), "describe {what}: no {word} in\n{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_watches_a_pod_come() {
    let served = Served::start().await;
    let mut watching = served.command("get pods -n a -w").stdout(Stdio::piped()).spawn().expect("kubectl starts");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    served.ok("apply --server-side -f all.yaml").await;
    let seen = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let line = lines.next_line().await.expect("read").expect("the watch goes on");
            if line.starts_with("es-1 ") && line.contains("1/1") && line.contains("Running") {
                return line;
            }
        }
    });
    seen.await.expect("the pod is shown as running");
    watching.kill().await.expect("killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_deletes_a_pod_that_comes_back_a_set_that_does_not_and_a_namespace_with_all_it_holds() {
    let served = Served::rolled_out().await;
    served.ok("delete pod es-0 -n a").await;
    served.ok("rollout status sts/es -n a --timeout 60s").await;
    served.ok("delete sts es -n a").await;
    assert!(served.fails("get sts es -n a").await.contains("not found"));
    served.ok("delete namespace a").await;
    assert!(served.fails("get ns a").await.contains("not found"));
    let left = served.sandbox.objects().into_iter().filter(|object| object["metadata"]["namespace"] == "a").count();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_changes_scales_and_restarts_and_is_told_of_conflicts_and_of_what_cannot_change() {
    let served = Served::rolled_out().await;
    served.ok("scale sts es -n a --replicas 3").await;
    served.ok("rollout status sts/es -n a --timeout 60s").await;
    let conflict = served.fails("apply --server-side -f all.yaml").await;
    assert!(conflict.contains("with subresource \"scale\"") && conflict.contains(".spec.replicas"), "{conflict}");
    served.ok("apply --server-side --force-conflicts -f all.yaml").await;
    served.ok("set image deploy/kibana kibana=kibana:2 -n a").await;
    served.ok("rollout status deploy/kibana -n a --timeout 60s").await;
    served.ok("rollout restart sts/es -n a").await;
    served.ok("rollout status sts/es -n a --timeout 60s").await;
    served.ok("label pod es-0 -n a color=blue").await;
    served.ok("annotate ns a note=here").await;
    let patch = r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#;
    served.ok(&format!("patch pvc data-es-0 -n a -p {patch}")).await;
    let refused = served.fails(r#"patch sts es -n a --type merge -p {"spec":{"serviceName":"other"}}"#).await;
    assert!(refused.contains("are forbidden"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_shows_why_a_pod_does_not_start() {
    let served = Served::start().await;
    served.sandbox.faults().add(Fault::pods(PodTrouble::ImagePullBackOff).namespace("a").name("es-"));
    served.ok("apply --server-side -f all.yaml").await;
    served.fails("rollout status sts/es -n a --timeout 2s").await;
    assert_eq!(words(&served.ok("get pods -n a").await, "es-0")[1..3], ["0/1", "ImagePullBackOff"]);
    let told = served.ok("describe pod es-0 -n a").await;
    assert!(told.contains("Back-off pulling image \"es:1\""), "{told}");
}
