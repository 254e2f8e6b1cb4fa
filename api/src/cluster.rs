//! Which cluster: from a kubeconfig, from inside a pod, or at a bare URL; and whether it can be reached.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use cairn_steps::cluster::{Cluster, health::Reach};
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tokio::sync::Mutex;

use crate::config::At;

/// The variable that every container in Kubernetes has.
const IN_A_POD: &str = "KUBERNETES_SERVICE_HOST";
/// The time that the question whether it is there may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer to that question is used again.
const CHECK_AGE_MAX: Duration = Duration::from_secs(1);

/// The cluster of this kubeconfig, or of the usual places: `KUBECONFIG`, `~/.kube/config`, the pod's own. Nothing is asked
/// of it yet: one that cannot be reached now may be reachable later.
///
/// # Errors
/// If there is no configuration, or it cannot be read.
pub(crate) async fn configured(at: &At) -> anyhow::Result<Cluster> {
    let options = KubeConfigOptions { context: at.context.clone(), ..KubeConfigOptions::default() };
    let config = match &at.kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path)
                .map_err(unquoted)
                .with_context(|| format!("kubeconfig: {} cannot be read", path.display()))?;
            Config::from_custom_kubeconfig(read, &options).await.context("kubeconfig: it describes no cluster")?
        }
        None if at.context.is_some() => Config::from_kubeconfig(&options)
            .await
            .map_err(unquoted)
            .context("context: the kubeconfig does not describe it")?,
        None => Config::infer()
            .await
            .map_err(unquoted)
            .context("no cluster is configured: give --kubeconfig FILE, or use `cairn dev`, which brings its own")?,
    };
    let reach = match std::env::var_os(IN_A_POD) {
        Some(_) => Reach::Inside,
        None => Reach::Outside,
    };
    Ok(Cluster::connect(config).context("the cluster's client cannot be made")?.reached(reach))
}

/// The same error, but for the lines of the file that its parser shows: there may be a token in them.
fn unquoted(error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    let is_quoted = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref::<KubeconfigError>(), Some(KubeconfigError::Parse(_)))
    };
    if error.chain().any(is_quoted) {
        return anyhow::anyhow!(
            "it is no YAML that describes clusters: `kubectl config view` with this file says where"
        );
    }
    error
}

/// The cluster without authentication, such as a sandbox, at this URL.
///
/// # Errors
/// If that is no URL.
pub(crate) fn at(url: &str) -> anyhow::Result<Cluster> {
    let url = url.parse().with_context(|| format!("sandbox: `{url}` is no URL such as http://127.0.0.1:8081"))?;
    Cluster::connect(Config::new(url)).context("the cluster's client cannot be made")
}

/// Whether the cluster can be reached: asked at most once a second, however often that is wanted.
pub(crate) struct ClusterCheck {
    cluster: Cluster,
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl ClusterCheck {
    /// A check of this cluster.
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster, last: Mutex::new(None) }
    }

    /// The cluster itself.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Whether it can be reached now, and if not, why.
    pub(crate) async fn reachable(&self) -> Result<(), String> {
        // Those who ask at the same time wait for the same answer.
        let mut last = self.last.lock().await;
        if let Some((when, answer)) = &*last
            && when.elapsed() < CHECK_AGE_MAX
        {
            return answer.clone();
        }
        let answer = match tokio::time::timeout(CHECK_TIMEOUT, self.cluster.answers()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(crate::telemetry::chain(&error)),
            Err(_) => Err(format!("no answer within {} seconds", CHECK_TIMEOUT.as_secs())),
        };
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I32: the parser shows the lines around a mistake.
    #[tokio::test]
    async fn a_token_beside_a_mistake_in_a_kubeconfig_is_not_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config");
        let text = "apiVersion: v1\nkind: Config\nusers:\n- name: me\n  user:\n    token: SECRETTOKEN\n   bad: [\n";
        std::fs::write(&path, text).expect("written");
        let at = At { kubeconfig: Some(path), ..At::default() };
        let Err(error) = configured(&at).await else { panic!("it is no kubeconfig") };
        let said = format!("{error:?} {error:#}");
        assert!(said.contains("kubectl config view") && !said.contains("SECRETTOKEN"), "{said}");
    }
}
