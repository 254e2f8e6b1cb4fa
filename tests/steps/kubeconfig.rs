//! The ways into a cluster that a kubeconfig can name: certificates, tokens, a program that makes one; and a server whose
//! certificate nobody has signed. The sandbox asks nobody who he is, so that here a gate with TLS stands before it.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, ensure};
use cairn_engine::ErrorClass;
use cairn_steps::{
    cluster::Cluster,
    render::Kind,
    sandbox::{Sandbox, SandboxOptions},
};
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

const TOKEN: &str = "a-token-that-only-the-gate-knows";

/// A certificate and its key, as PEM.
struct Identity {
    certificate: String,
    key: String,
}

/// Everything that the two sides know of each other.
struct Papers {
    authority: String,
    server: Identity,
    client: Identity,
}

impl Papers {
    fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a test's authority");
        let authority = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let signed = |names: Vec<String>, usage: ExtendedKeyUsagePurpose| {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(names)?;
            params.extended_key_usages = vec![usage];
            params.distinguished_name.push(DnType::CommonName, "cairn");
            anyhow::Ok(Identity { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
        };
        let server = signed(vec!["127.0.0.1".to_owned()], ExtendedKeyUsagePurpose::ServerAuth)?;
        let client = signed(Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)?;
        Ok(Self { authority, server, client })
    }
}

/// The gate: lets in who shows a certificate of its authority, or the token.
struct Gate {
    acceptor: TlsAcceptor,
    behind: SocketAddr,
}

/// A sandbox behind a gate, and where that is.
async fn guarded() -> anyhow::Result<(Papers, SocketAddr)> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let papers = Papers::new()?;
    let sandbox = Sandbox::open(SandboxOptions::default())?;
    let plain = TcpListener::bind(("127.0.0.1", 0)).await?;
    let behind = plain.local_addr()?;
    tokio::spawn(async move { sandbox.serve(plain, std::future::pending()).await });

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(papers.authority.as_bytes())?)?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build()?;
    let chain = vec![CertificateDer::from_pem_slice(papers.server.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(papers.server.key.as_bytes())?;
    let config = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    let gate = Arc::new(Gate { acceptor: TlsAcceptor::from(Arc::new(config)), behind });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        // Ends with the test's runtime.
        while let Ok((stream, _)) = listener.accept().await {
            let gate = Arc::clone(&gate);
            // A client that does not trust the gate hangs up, as it should.
            tokio::spawn(async move { gate.pass(stream).await });
        }
    });
    Ok((papers, address))
}

impl Gate {
    async fn pass(&self, stream: TcpStream) -> anyhow::Result<()> {
        let mut outside = self.acceptor.accept(stream).await?;
        let head = read_head(&mut outside).await?;
        let is_known = outside.get_ref().1.peer_certificates().is_some()
            || head.to_ascii_lowercase().contains(&format!("authorization: bearer {TOKEN}"));
        if !is_known {
            let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "Unauthorized", "reason": "Unauthorized", "code": 401})
            .to_string();
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            outside.write_all(answer.as_bytes()).await?;
            return Ok(outside.shutdown().await?);
        }
        let mut inside = TcpStream::connect(self.behind).await?;
        inside.write_all(head.as_bytes()).await?;
        tokio::io::copy_bidirectional(&mut outside, &mut inside).await?;
        Ok(())
    }
}

/// What comes first, up to the end of its headers: a client that may do one thing may do the next.
async fn read_head(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await?;
        ensure!(count > 0, "no request");
        head.extend_from_slice(&bytes[..count]);
    }
    Ok(String::from_utf8(head)?)
}

/// A client of a kubeconfig with this cluster and this user.
async fn client(address: SocketAddr, mut cluster: Value, user: &Value) -> anyhow::Result<Cluster> {
    cluster["server"] = json!(format!("https://{address}"));
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": cluster}], "users": [{"name": "it", "user": user}],
    });
    let kubeconfig = Kubeconfig::from_yaml(&kubeconfig.to_string())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Cluster::connect(config)?)
}

/// Text as a kubeconfig has it inline: base64.
fn inline(text: &str) -> Value {
    json!(k8s_openapi::ByteString(text.as_bytes().to_vec()))
}

async fn gets_in(cluster: &Cluster) -> anyhow::Result<()> {
    let found = cluster.read(Kind::Namespace, None, "default").await;
    let found = found.map_err(|error| crate::bench::told(&error))?;
    found.context("every cluster has the namespace default").map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_gets_in_inline_or_as_files() -> anyhow::Result<()> {
    let (papers, address) = guarded().await?;
    let user = json!({"client-certificate-data": inline(&papers.client.certificate), "client-key-data": inline(&papers.client.key)});
    gets_in(&client(address, json!({"certificate-authority-data": inline(&papers.authority)}), &user).await?).await?;

    let directory = tempfile::tempdir()?;
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).map(|()| path)
    };
    let user = json!({"client-certificate": file("client.crt", &papers.client.certificate)?, "client-key": file("client.key", &papers.client.key)?});
    let authority = json!({"certificate-authority": file("ca.crt", &papers.authority)?});
    gets_in(&client(address, authority, &user).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gets_in_inline_from_a_file_or_from_a_program() -> anyhow::Result<()> {
    let (papers, address) = guarded().await?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("token");
    std::fs::write(&path, TOKEN)?;
    let credential =
        json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": TOKEN}});
    let program = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "echo",
        "args": [credential.to_string()], "interactiveMode": "Never"});
    for user in [json!({"token": TOKEN}), json!({"tokenFile": path}), json!({"exec": program})] {
        let authority = json!({"certificate-authority-data": inline(&papers.authority)});
        let cluster = client(address, authority, &user).await?;
        gets_in(&cluster).await.with_context(|| user.to_string())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_signed_is_trusted_only_where_the_kubeconfig_says_so() -> anyhow::Result<()> {
    let (_, address) = guarded().await?;
    let user = json!({"token": TOKEN});
    gets_in(&client(address, json!({"insecure-skip-tls-verify": true}), &user).await?).await?;
    let other = Papers::new()?;
    let wrong = client(address, json!({"certificate-authority-data": inline(&other.authority)}), &user).await?;
    let error = wrong.read(Kind::Namespace, None, "default").await.err().context("a stranger was trusted")?;
    ensure!(error.failure.class == ErrorClass::Transient, "{error}");
    crate::bench::says(&error, "the cluster cannot be reached")?;
    crate::bench::says(&error, "certificate")
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_either_and_hears_that_it_is_the_credentials() -> anyhow::Result<()> {
    let (papers, address) = guarded().await?;
    let authority = json!({"certificate-authority-data": inline(&papers.authority)});
    let cluster = client(address, authority, &json!({"token": "another"})).await?;
    let error = cluster.read(Kind::Namespace, None, "default").await.err().context("anybody gets in")?;
    ensure!(error.failure.class == ErrorClass::Transient, "{error}");
    crate::bench::says(&error, "the cluster does not accept the credentials")
}
