//! A file of a GitLab project, as GitLab's pages name it, and as its API does.
//!
//! `https://HOST/GROUP/PROJECT/-/raw/REF/FILE` (or `/-/blob/`, which is what a browser shows). A ref may have slashes in it, so where
//! it ends and the file begins is not written in the URL: the API is asked, shortest ref first.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

/// What GitLab takes in a path or a query as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The most parts of a ref that are tried: `feature/team/name` has three.
const REF_PARTS_MAX: usize = 4;

/// A file, not yet told apart from the ref that it is of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `https://HOST:PORT`
    origin: String,
    /// `GROUP/PROJECT`
    project: String,
    /// Ref and file, in their parts.
    parts: Vec<String>,
    /// `refs/heads/` or `refs/tags/`, where the URL says which.
    prefix: &'static str,
}

/// A file of one ref.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    api: String,
    /// The ref, as it was written.
    pub(super) reference: String,
    prefix: &'static str,
}

impl Place {
    /// What this URL names; `None` if it is none of GitLab's.
    pub(super) fn of(url: &Url) -> Option<Self> {
        let mut parts = Vec::new();
        for part in url.path_segments()? {
            let part = percent_decode_str(part).decode_utf8().ok()?.into_owned();
            // Written so, they would mean another place to whoever normalises the path.
            if part.is_empty() || part == "." || part == ".." || part.contains('/') {
                return None;
            }
            parts.push(part);
        }
        let dash = parts.iter().position(|part| part == "-")?;
        let kind = parts.get(dash + 1)?;
        let (project, rest) = (&parts[..dash], parts.get(dash + 2..)?);
        if !matches!(kind.as_str(), "raw" | "blob") || project.len() < 2 || rest.len() < 2 {
            return None;
        }
        let prefix = match url.query_pairs().find(|(name, _)| name == "ref_type") {
            Some((_, value)) if value == "heads" => "refs/heads/",
            Some((_, value)) if value == "tags" => "refs/tags/",
            _ => "",
        };
        Some(Self {
            origin: url.origin().ascii_serialization(),
            project: project.join("/"),
            parts: rest.to_vec(),
            prefix,
        })
    }

    /// The files that it may be, the likeliest first.
    pub(super) fn files(&self) -> impl Iterator<Item = File> {
        let project = utf8_percent_encode(&self.project, PLAIN);
        (1..self.parts.len()).take(REF_PARTS_MAX).map(move |end| {
            let (reference, path) = (self.parts[..end].join("/"), self.parts[end..].join("/"));
            let path = utf8_percent_encode(&path, PLAIN);
            let api = format!("{}/api/v4/projects/{project}/repository/files/{path}", self.origin);
            File { api, reference, prefix: self.prefix }
        })
    }
}

impl File {
    /// Where the API tells of the file and of the commit that the ref is at now.
    pub(super) fn metadata(&self) -> String {
        format!(
            "{}?ref={}{}",
            self.api,
            utf8_percent_encode(self.prefix, PLAIN),
            utf8_percent_encode(&self.reference, PLAIN)
        )
    }

    /// Where the API has the file as it was at this commit.
    pub(super) fn content(&self, commit: &str) -> String {
        format!("{}/raw?ref={commit}", self.api)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Option<Place> {
        Place::of(&Url::parse(url).expect("a URL"))
    }

    #[test]
    fn a_file_is_looked_for_under_every_ref_that_it_may_be_of() {
        let place = place("https://gitlab.example.com:8443/acme/sub/search-config/-/raw/feature/x/es/a%20b.yml")
            .expect("a place");
        let files: Vec<File> = place.files().collect();
        let api = "https://gitlab.example.com:8443/api/v4/projects/acme%2Fsub%2Fsearch-config/repository/files";
        assert_eq!(files[0].metadata(), format!("{api}/x%2Fes%2Fa%20b.yml?ref=feature"));
        assert_eq!(files[1].metadata(), format!("{api}/es%2Fa%20b.yml?ref=feature%2Fx"));
        assert_eq!(files[1].content("abc"), format!("{api}/es%2Fa%20b.yml/raw?ref=abc"));
        assert_eq!(files.len(), 3);
    }

    #[test]
    fn a_ref_whose_kind_is_said_is_asked_for_as_that() {
        let place = place("https://h/a/b/-/blob/v1/f.yml?ref_type=tags").expect("a place");
        assert!(place.files().next().expect("one").metadata().ends_with("/f.yml?ref=refs%2Ftags%2Fv1"));
    }

    #[test]
    fn what_is_no_file_of_a_project_is_none() {
        for url in [
            "https://h/a.yml",
            "https://h/a/b/-/tree/main/f",
            "https://h/a/-/raw/main/f.yml",
            "https://h/a/b/-/raw/main",
            "https://h/a/b/-/raw/main/%2e%2e%2f/f.yml",
            "https://h/a/b/-/raw//f.yml",
        ] {
            assert_eq!(place(url), None, "{url}");
        }
    }
}
