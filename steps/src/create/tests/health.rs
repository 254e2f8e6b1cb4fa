//! An Elasticsearch on loopback, with the certificate that its Secret has: is it asked, and by whom does it let itself be asked?

use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::bench::Bench;
use crate::cluster::Cluster;
use crate::cluster::health::{Health, Reach};
use crate::credentials::{self, Credentials};
use crate::names;

type Values = std::collections::BTreeMap<String, k8s_openapi::ByteString>;

/// Answers every request that brings this password.
async fn elasticsearch(values: &Values, password: String) -> SocketAddr {
    let certificate = CertificateDer::from_pem_slice(&values[credentials::NODE[0]].0).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&values[credentials::NODE[1]].0).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they belong together");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // Whoever does not trust the certificate hangs up.
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut heard = vec![0; 4096];
            let count = socket.read(&mut heard).await.unwrap_or(0);
            let heard = String::from_utf8_lossy(&heard[..count]).to_lowercase();
            let basic =
                base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("elastic:{password}"));
            let (status, body) = match heard.contains(&format!("basic {}", basic.to_lowercase())) {
                true => ("200 OK", r#"{"status":"green","number_of_nodes":3,"timed_out":false}"#),
                false => ("401 Unauthorized", "{}"),
            };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
    });
    address
}

#[tokio::test]
async fn elasticsearch_is_asked_with_its_password_and_only_if_its_certificate_is_of_this_cluster() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("resources_configured").await;
    let secrets: Api<Secret> = Api::namespaced(bench.sandbox.client(), "acme--search");
    let values = secrets.get(names::SECRET).await.expect("there").data.expect("values");
    let password = String::from_utf8(values[credentials::ELASTIC_PASSWORD].0.clone()).expect("text");
    let cluster = Cluster::new(bench.sandbox.client());
    let at = |address| cluster.clone().reached(Reach::At(address));
    let own = elasticsearch(&values, password.clone()).await;
    assert_eq!(at(own).health("acme--search").await, Health::Asked { status: "green".to_owned(), nodes: 3 });
    let closed = elasticsearch(&values, "another".to_owned()).await;
    assert_eq!(at(closed).health("acme--search").await, Health::NotAsked("it answers 401 Unauthorized".to_owned()));
    let stranger = Credentials::generate("acme--search").expect("random").into_data();
    let stranger = elasticsearch(&stranger, password).await;
    let Health::NotAsked(why) = at(stranger).health("acme--search").await else {
        panic!("the password went to a stranger")
    };
    assert!(why.contains("cannot be reached by its Service from here"), "{why}");
    let Health::NotAsked(why) = cluster.health("acme--search").await else { panic!("there is no Elasticsearch") };
    assert!(why.contains("API server's proxy"), "{why}");
}
