//! What Elasticsearch itself says of the cluster, once its pods are ready: "ready" is not "formed" (C10).
//!
//! - It is asked where it can be: by the name of its Service, which leads there from within Kubernetes; else through the API server,
//!   which passes on no password, so that all it can tell is that somebody answers.
//! - A rollout never waits or fails for it: what could not be asked is said.
//! - The connection trusts the authority of this one cluster, so that the password goes to nobody else. Neither is kept (I32).

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde::{Deserialize, Serialize};

use super::Cluster;
use crate::{credentials, names};

/// How long Elasticsearch is asked, all in all.
const ASKED_FOR: Duration = Duration::from_secs(5);
/// The longest answer that is read: a health is a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where Elasticsearch can be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// Only through the API server: this program runs outside of Kubernetes.
    #[default]
    Outside,
    /// By the names of Services: this program runs in a pod.
    Inside,
    /// At this address, whatever the Service is called.
    At(SocketAddr),
}

/// What Elasticsearch says of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It was asked, and this is its answer.
    Asked {
        /// `green`, or `yellow`: a single node with replica shards is yellow for ever.
        status: String,
        /// The nodes that have found each other.
        nodes: u64,
    },
    /// It could not be asked, and why.
    NotAsked(String),
}

impl Health {
    /// What the message of a report says of it, if it says anything.
    #[must_use]
    pub fn in_report(&self) -> String {
        match self {
            Self::Asked { status, nodes } => format!("; Elasticsearch says {status}, {nodes} nodes"),
            Self::NotAsked(_) => String::new(),
        }
    }
}

impl Cluster {
    /// Asks `_cluster/health` once.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn health(&self, namespace: &str) -> Health {
        let asked = match self.reach {
            Reach::Outside => self.health_by_proxy(namespace).await,
            Reach::Inside => self.health_by_name(namespace, None).await,
            Reach::At(address) => self.health_by_name(namespace, Some(address)).await,
        };
        asked.unwrap_or_else(Health::NotAsked)
    }

    /// Over TLS, with the password from the cluster's Secret.
    async fn health_by_name(&self, namespace: &str, at: Option<SocketAddr>) -> Result<Health, String> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret =
            secrets.get(names::SECRET).await.map_err(|error| format!("its password cannot be read: {error}"))?;
        let value = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.clone());
        let (Some(password), Some(authority)) =
            (value(credentials::ELASTIC_PASSWORD), value(credentials::CA_CERTIFICATE))
        else {
            return Err(format!("Secret/{} lacks its values", names::SECRET));
        };
        let password = String::from_utf8(password).map_err(|_| "its password is no text".to_owned())?;
        let authority =
            reqwest::Certificate::from_pem(&authority).map_err(|_| "its certificate cannot be read".to_owned())?;
        let host = format!("{}.{namespace}.svc", names::CLIENT_SERVICE);
        let mut client = reqwest::Client::builder()
            .tls_certs_only([authority])
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(ASKED_FOR);
        if let Some(address) = at {
            client = client.resolve(&host, address);
        }
        let port = at.map_or(9200, |address| address.port());
        let unreachable = |error: reqwest::Error| {
            format!("it cannot be reached by its Service from here: {}", chain(&error.without_url()))
        };
        let client = client.build().map_err(unreachable)?;
        let asked = client.get(format!("https://{host}:{port}/_cluster/health")).basic_auth("elastic", Some(password));
        let mut answer = asked.send().await.map_err(unreachable)?;
        if !answer.status().is_success() {
            return Err(format!("it answers {}", answer.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err("its answer has no end".to_owned());
            }
        }
        read(&bytes)
    }

    /// Through the API server's proxy for Services, without a password: the API server takes the header that would carry it.
    async fn health_by_proxy(&self, namespace: &str) -> Result<Health, String> {
        let path = format!(
            "/api/v1/namespaces/{namespace}/services/https:{}:http/proxy/_cluster/health",
            names::CLIENT_SERVICE
        );
        let request = http::Request::get(path).body(kube::client::Body::empty()).map_err(|error| error.to_string())?;
        let asked = tokio::time::timeout(ASKED_FOR, self.client.send(request)).await;
        let answer = asked
            .map_err(|_| "the API server's proxy does not answer in time".to_owned())?
            .map_err(|error| format!("the API server's proxy cannot be reached: {error}"))?;
        let challenge = answer.headers().get(http::header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        match answer.status().as_u16() {
            401 if challenge.is_some_and(|challenge| challenge.contains("security")) => {
                Err("it answers and wants its password, which the API server's proxy does not pass on; run the engine inside the cluster to see its health".to_owned())
            }
            403 => Err("the engine may not use the API server's proxy for Services (get services/proxy), and is not inside the cluster".to_owned()),
            200 => {
                let body = http_body_util::BodyExt::collect(http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX));
                let bytes = body.await.map_err(|error| format!("its answer cannot be read: {error}"))?.to_bytes();
                read(&bytes)
            }
            status => Err(format!("it cannot be reached through the API server's proxy, which answers {status}")),
        }
    }
}

fn read(bytes: &[u8]) -> Result<Health, String> {
    #[derive(Deserialize)]
    struct Answer {
        status: String,
        number_of_nodes: u64,
    }
    let answer: Answer = serde_json::from_slice(bytes).map_err(|error| format!("its answer is no health: {error}"))?;
    Ok(Health::Asked { status: answer.status, nodes: answer.number_of_nodes })
}

fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
