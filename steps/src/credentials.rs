//! What the parts of a cluster prove to each other with: a password, a service token, certificates; made once, at random.
//!
//! - They live in one Secret of the cluster's namespace and nowhere else: no render, no output, no journal has a value of them (I32).
//! - The certificates are signed by an authority of this one cluster, whose key is forgotten at once: nothing else is ever signed
//!   by it, and whoever trusts `ca.crt` trusts the nodes and Kibana of this cluster.
//! - Kibana logs in as a service account (`elastic/kibana`) by a token whose hash the nodes read from a file. So nobody has to set a
//!   password through the API of a cluster that has just formed, and the order in which the parts start does not matter.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use ring::pbkdf2;
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha512};

use crate::names;
use crate::settings::hex;

/// The key of the password of the user `elastic`, who may do everything.
pub const ELASTIC_PASSWORD: &str = "elastic-password";
/// The key of the file that tells the nodes the hash of Kibana's token.
pub const SERVICE_TOKENS: &str = "service_tokens";
/// The key of Kibana's token.
pub const KIBANA_TOKEN: &str = "kibana-token";
/// The key of what Kibana encrypts its sessions and saved objects with.
pub const KIBANA_ENCRYPTION_KEY: &str = "kibana-encryption-key";
/// The key of the certificate of this cluster's own authority: what clients trust.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// The keys of the nodes' certificate, and of its private key.
pub const NODE: [&str; 2] = ["node.crt", "node.key"];
/// The keys of Kibana's certificate, and of its private key.
pub const KIBANA: [&str; 2] = ["kibana.crt", "kibana.key"];

/// The bytes of what is made at random: 256 bits.
const RANDOM_BYTES: usize = 32;
/// How long the certificates are valid: nothing renews them, and a cluster has to outlive nobody's memory of how to.
const VALID_YEARS: i16 = 10;
/// How often the token is hashed. Stretching is for what people think up; this token is 256 random bits, and Elasticsearch's own
/// least cost does.
const TOKEN_HASH_COST: NonZeroU32 = NonZeroU32::new(1000).expect("not zero");

/// The values of the Secret. Printed, they are not shown.
pub struct Credentials(BTreeMap<String, ByteString>);

/// They could not be made: the machine gives no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the credentials of the cluster could not be made: {0}")]
pub struct CredentialsError(String);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Credentials {
    /// New ones, for a cluster in this namespace.
    ///
    /// # Errors
    /// [`CredentialsError`]: nothing was made, and another attempt may do better.
    pub fn generate(namespace: &str) -> Result<Self, CredentialsError> {
        let secret = random()?;
        let salt = random_bytes()?;
        let certificates = certificates(namespace).map_err(|error| CredentialsError(error.to_string()))?;
        let mut values: BTreeMap<String, String> = certificates.into();
        values.extend(
            [
                (ELASTIC_PASSWORD, random()?),
                (SERVICE_TOKENS, service_token_line(&secret, &salt)),
                (KIBANA_TOKEN, service_token(&secret)),
                (KIBANA_ENCRYPTION_KEY, random()?),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        Ok(Self(values.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes()))).collect()))
    }

    /// The values, for the Secret.
    #[must_use]
    pub fn into_data(self) -> BTreeMap<String, ByteString> {
        self.0
    }
}

/// The service account of Kibana, and what its token is called.
const KIBANA_ACCOUNT: &str = "elastic/kibana/cairn";

/// A token as Elasticsearch reads it: a version, the account and the token's name, the secret (`ServiceAccountToken`).
fn service_token(secret: &str) -> String {
    let mut bytes = vec![0, 1, 0, 1];
    bytes.extend_from_slice(format!("{KIBANA_ACCOUNT}:{secret}").as_bytes());
    BASE64.encode(bytes)
}

/// The line of the file `service_tokens`: the token's name, and the hash of its secret.
fn service_token_line(secret: &str, salt: &[u8]) -> String {
    format!("{KIBANA_ACCOUNT}:{}\n", token_hash(secret, salt, TOKEN_HASH_COST))
}

/// `PBKDF2_STRETCH` of Elasticsearch's `Hasher`: PBKDF2 with HMAC-SHA-512 over the hexadecimal SHA-512 of the secret.
fn token_hash(secret: &str, salt: &[u8], cost: NonZeroU32) -> String {
    let digest = hex(&Sha512::digest(secret.as_bytes()));
    let mut key = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, cost, salt, digest.as_bytes(), &mut key);
    format!("{{PBKDF2_STRETCH}}{cost}${}${}", BASE64.encode(salt), BASE64.encode(key))
}

/// The authority's certificate, and a certificate with its key for the nodes and for Kibana.
fn certificates(namespace: &str) -> Result<[(String, String); 5], rcgen::Error> {
    let valid = Validity::from_today();
    let ca_key = KeyPair::generate()?;
    let mut ca = valid.params(Vec::new(), &format!("cairn {namespace}"))?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);
    let issue = |service: &str, more: Vec<String>| {
        let key = KeyPair::generate()?;
        let mut all = vec![
            service.to_owned(),
            format!("{service}.{namespace}"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
            "localhost".to_owned(),
        ];
        all.extend(more);
        let mut params = valid.params(all, service)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // The nodes are clients of each other, too.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok::<_, rcgen::Error>((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    };
    let headless = format!("*.{}.{namespace}.svc", names::HEADLESS_SERVICE);
    let node = issue(names::CLIENT_SERVICE, vec![headless])?;
    let kibana = issue(names::KIBANA, Vec::new())?;
    let [[node_certificate, node_key], [kibana_certificate, kibana_key]] = [NODE, KIBANA];
    Ok([
        (CA_CERTIFICATE.to_owned(), ca_pem),
        (node_certificate.to_owned(), node.0),
        (node_key.to_owned(), node.1),
        (kibana_certificate.to_owned(), kibana.0),
        (kibana_key.to_owned(), kibana.1),
    ])
}

/// From when until when the certificates are valid, as calendar days.
struct Validity {
    from: jiff::civil::Date,
    until: jiff::civil::Date,
}

impl Validity {
    fn from_today() -> Self {
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        // The day before: the clocks of the nodes may be behind.
        let from = today.yesterday().unwrap_or(today);
        Self { from, until: from.saturating_add(jiff::Span::new().years(VALID_YEARS)) }
    }

    fn params(&self, names: Vec<String>, common_name: &str) -> Result<CertificateParams, rcgen::Error> {
        let day = |date: jiff::civil::Date| {
            // A month and a day of a calendar date are never negative.
            rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
        };
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_before = day(self.from);
        params.not_after = day(self.until);
        Ok(params)
    }
}

fn random() -> Result<String, CredentialsError> {
    random_bytes().map(|bytes| hex(&bytes))
}

fn random_bytes() -> Result<[u8; RANDOM_BYTES], CredentialsError> {
    let mut bytes = [0; RANDOM_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map(|()| bytes).map_err(|_| CredentialsError("no randomness to be had".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(values: &BTreeMap<String, ByteString>, key: &str) -> String {
        String::from_utf8(values[key].0.clone()).expect("text")
    }

    /// Token and hash are those of Elasticsearch's own tests of service tokens (`elastic/fleet-server/token1`).
    #[test]
    fn a_token_hash_is_what_elasticsearch_makes_of_it() {
        let salt = BASE64.decode("8QN+eThJEaCd18sCP0nfzxJq2D9yhmSZgI20TDooYcE=").expect("base64");
        let cost = NonZeroU32::new(10_000).expect("not zero");
        assert_eq!(
            token_hash("r5wdbdboQSe9vGOKwaJGAw", &salt, cost),
            "{PBKDF2_STRETCH}10000$8QN+eThJEaCd18sCP0nfzxJq2D9yhmSZgI20TDooYcE=$+0ELfqW4D2+/SlHvm/885dzv67qO2SMJg32Mv/9epXk="
        );
    }

    #[test]
    fn the_token_of_kibana_is_the_one_whose_hash_the_nodes_have() {
        let values = Credentials::generate("acme--search").expect("random").into_data();
        let token = BASE64.decode(text(&values, KIBANA_TOKEN)).expect("base64");
        let (head, secret) = token.split_at(4 + KIBANA_ACCOUNT.len() + 1);
        assert_eq!(head, [&[0, 1, 0, 1], KIBANA_ACCOUNT.as_bytes(), b":"].concat());
        let line = text(&values, SERVICE_TOKENS);
        let hash = line.trim_end().split_once(':').expect("name and hash").1;
        let salt = BASE64.decode(hash.split('$').nth(1).expect("a salt")).expect("base64");
        let secret = std::str::from_utf8(secret).expect("text");
        assert_eq!(token_hash(secret, &salt, TOKEN_HASH_COST), hash);
    }

    #[test]
    fn no_two_are_alike_and_none_is_printed() {
        let (one, other) =
            (Credentials::generate("a--b").expect("random"), Credentials::generate("a--b").expect("random"));
        let printed = format!("{one:?}");
        let (one, other) = (one.into_data(), other.into_data());
        assert_eq!(one.len(), 9);
        for (key, value) in &one {
            assert_ne!(Some(value), other.get(key), "{key}");
            assert!(printed.contains(key.as_str()));
            assert!(!printed.contains(&text(&one, key)), "{key} is printed");
        }
    }

    /// A client that trusts the authority accepts the nodes by the name of their Service, and Kibana not in their place.
    #[tokio::test]
    async fn whoever_trusts_the_authority_trusts_the_nodes_by_the_name_of_their_service() {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
        let values = Credentials::generate("acme--search").expect("random").into_data();
        let certificate =
            |key: &str| CertificateDer::from_pem_slice(text(&values, key).as_bytes()).expect("a certificate");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate(CA_CERTIFICATE)).expect("an authority");
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .expect("a verifier");
        let trusts = |key: &str, name: &str| {
            use rustls::client::danger::ServerCertVerifier as _;
            let name = ServerName::try_from(name.to_owned()).expect("a name");
            verifier.verify_server_cert(&certificate(key), &[], &name, &[], UnixTime::now()).is_ok()
        };
        assert!(trusts(NODE[0], "elasticsearch.acme--search.svc"));
        assert!(trusts(NODE[0], "elasticsearch-2.elasticsearch-nodes.acme--search.svc"));
        assert!(trusts(KIBANA[0], "kibana"));
        assert!(!trusts(KIBANA[0], "elasticsearch.acme--search.svc"));
        assert!(!trusts(NODE[0], "elasticsearch.other--search.svc"));
    }
}
