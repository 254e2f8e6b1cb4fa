//! Which Elasticsearch and which Kibana are installed, and where their images come from.
//!
//! The operator's choice, not a tenant's. It is taken down in the output of step 1, and every later step of that workflow,
//! also of a resume under other settings, uses what was taken down (I11).

use serde::{Deserialize, Serialize};

/// The version that is installed if the operator says nothing.
pub const DEFAULT_VERSION: &str = "9.1.4";
/// The oldest version that can be: before it there is no readiness port, and readiness would need a password (C10).
const OLDEST: (u64, u64) = (8, 2);
/// Where the images are, if the operator says nothing.
const ELASTICSEARCH_IMAGE: &str = "docker.elastic.co/elasticsearch/elasticsearch";
const KIBANA_IMAGE: &str = "docker.elastic.co/kibana/kibana";
/// The longest name of an image that is taken: a registry's limit is shorter.
const IMAGE_CHARS_MAX: usize = 500;

/// Version and images of Elasticsearch and Kibana: one version for both, as they must match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elastic {
    version: String,
    elasticsearch_image: String,
    kibana_image: String,
}

/// Why version or images cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElasticError {
    /// No version number, or one of a version that cannot be run.
    #[error(
        "`{0}` is no version of Elasticsearch that can be installed: write it in full, such as {DEFAULT_VERSION}, and 8.2.0 at least"
    )]
    Version(String),
    /// No name of an image.
    #[error("`{0}` is no name of an image: write REGISTRY/NAME, REGISTRY/NAME:TAG or REGISTRY/NAME@DIGEST")]
    Image(String),
}

impl Default for Elastic {
    fn default() -> Self {
        Self::new(DEFAULT_VERSION, None, None).expect("the default is a version")
    }
}

impl Elastic {
    /// This version, from these images or the usual ones. An image without a tag and without a digest gets the version as tag.
    ///
    /// # Errors
    /// [`ElasticError`] names what cannot be used.
    pub fn new(version: &str, elasticsearch: Option<&str>, kibana: Option<&str>) -> Result<Self, ElasticError> {
        if !is_version(version) {
            return Err(ElasticError::Version(version.to_owned()));
        }
        Ok(Self {
            version: version.to_owned(),
            elasticsearch_image: image(elasticsearch.unwrap_or(ELASTICSEARCH_IMAGE), version)?,
            kibana_image: image(kibana.unwrap_or(KIBANA_IMAGE), version)?,
        })
    }

    /// `9.1.4`
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether this version is older than the other's: Elasticsearch does not open the data of a newer one.
    #[must_use]
    pub fn is_older_than(&self, other: &Self) -> bool {
        let numbers =
            |version: &str| -> Vec<u64> { version.split(['.', '-']).map_while(|number| number.parse().ok()).collect() };
        numbers(&self.version) < numbers(&other.version)
    }

    /// The image of an Elasticsearch node.
    #[must_use]
    pub fn elasticsearch_image(&self) -> &str {
        &self.elasticsearch_image
    }

    /// The image of Kibana.
    #[must_use]
    pub fn kibana_image(&self) -> &str {
        &self.kibana_image
    }
}

/// Three numbers, and perhaps `-SNAPSHOT` or the like behind them; also a label's value, as which it is used (C9).
fn is_version(text: &str) -> bool {
    let (numbers, suffix) = text.split_once('-').map_or((text, None), |(numbers, suffix)| (numbers, Some(suffix)));
    let plain = |suffix: &str| !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let numbers: Option<Vec<u64>> = numbers.split('.').map(|number| number.parse().ok()).collect();
    let known = matches!(numbers.as_deref(), Some([major, minor, _]) if (*major, *minor) >= OLDEST);
    known && text.len() <= 63 && suffix.is_none_or(plain)
}

fn image(text: &str, version: &str) -> Result<String, ElasticError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:@".contains(&byte);
    let ends = |edge: Option<u8>| edge.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let bytes = text.as_bytes();
    let plain = bytes.iter().copied().all(allowed) && ends(bytes.first().copied()) && ends(bytes.last().copied());
    if !plain || text.len() > IMAGE_CHARS_MAX {
        return Err(ElasticError::Image(text.to_owned()));
    }
    // A colon before the last slash belongs to the registry's port.
    let name = text.rsplit('/').next().unwrap_or_default();
    Ok(if name.contains([':', '@']) { text.to_owned() } else { format!("{text}:{version}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_gets_the_version() {
        let elastic = Elastic::new("8.19.2", Some("registry.example.com:5000/es"), Some("example.com/kibana:mine"))
            .expect("right");
        assert_eq!(elastic.elasticsearch_image(), "registry.example.com:5000/es:8.19.2");
        assert_eq!(elastic.kibana_image(), "example.com/kibana:mine");
        let pinned = format!("example.com/es@sha256:{}", "0".repeat(64));
        let elastic = Elastic::new("8.19.2", Some(&pinned), None).expect("right");
        assert_eq!(elastic.elasticsearch_image(), pinned);
        assert_eq!(elastic.kibana_image(), "docker.elastic.co/kibana/kibana:8.19.2");
    }

    #[test]
    fn versions_are_compared_number_by_number() {
        let version = |text: &str| Elastic::new(text, None, None).expect("a version");
        assert!(version("9.1.4").is_older_than(&version("9.1.10")));
        assert!(version("8.19.2").is_older_than(&version("10.0.0-SNAPSHOT")));
        assert!(!version("9.1.4").is_older_than(&version("9.1.4")));
        assert!(!version("9.2.0").is_older_than(&version("9.1.4")));
    }

    #[test]
    fn a_version_that_cannot_be_run_is_refused() {
        for bad in ["", "9", "9.1", "latest", "8.1.3", "7.17.0", "9.1.4-", "9.1.4-a b", "9.1.4.5", "v9.1.4"] {
            assert_eq!(Elastic::new(bad, None, None), Err(ElasticError::Version(bad.to_owned())));
        }
        for good in ["8.2.0", "9.1.4", "10.0.0-SNAPSHOT"] {
            Elastic::new(good, None, None).expect(good);
        }
        for bad in ["", "a b", "/es", "es:", "https://x y", "es\n"] {
            assert_eq!(Elastic::new("9.1.4", Some(bad), None), Err(ElasticError::Image(bad.to_owned())));
        }
    }
}
