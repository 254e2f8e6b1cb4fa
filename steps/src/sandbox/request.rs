//! A request parsed once: which verb, on what, with which options.

use super::kinds::Kind;
use super::status::Refusal;
use http::{HeaderMap, Method, Uri, header};
use serde_json::Value;
use std::collections::HashMap;

/// What the request wants done, in the API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

/// How the client wants objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    /// As rows: `kubectl get`.
    Table,
    /// Their metadata alone.
    Metadata,
}

impl Form {
    /// The first choice decides; `kubectl get -o json` asks for plain JSON first.
    fn asked(accept: &str) -> Form {
        let first = accept.split(',').next().unwrap_or_default();
        if first.contains("as=Table") {
            Form::Table
        } else if first.contains("as=PartialObjectMetadata") {
            Form::Metadata
        } else {
            Form::Whole
        }
    }
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `/version`, `/api`, `/openapi/…`: documents about the server itself.
    Server(String),
    /// `/sandbox/…`: the sandbox's own switches.
    Sandbox(String),
    AccessReview,
    Object(ObjectTarget),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectTarget {
    pub(super) kind: Kind,
    /// Empty: all namespaces, or a kind without.
    pub(super) namespace: String,
    /// Empty: the collection.
    pub(super) name: String,
    pub(super) subresource: String,
}

#[derive(Clone, Debug)]
pub(super) struct ApiRequest {
    pub(super) target: Target,
    pub(super) verb: Verb,
    pub(super) query: HashMap<String, String>,
    pub(super) content_type: String,
    pub(super) form: Form,
    user_agent: String,
}

impl ApiRequest {
    /// # Errors
    /// 404 for a path that the sandbox does not have, 405 for a method that the path does not take.
    pub(super) fn parse(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<ApiRequest, Refusal> {
        let query = parse_query(uri);
        let target = parse_path(uri.path())?;
        let is_watch = matches!(query.get("watch").map(String::as_str), Some("true" | "1"));
        let verb = match (&target, method) {
            (Target::Object(target), method) => object_verb(target, method, is_watch)?,
            (_, method) => match method.as_str() {
                "GET" => Verb::Get,
                "POST" => Verb::Create,
                "DELETE" => Verb::Delete,
                _ => return Err(Refusal::method_not_allowed()),
            },
        };
        let text =
            |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let accept = text(header::ACCEPT);
        Ok(ApiRequest {
            target,
            verb,
            query,
            content_type: text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned(),
            form: Form::asked(accept),
            user_agent: text(header::USER_AGENT).to_owned(),
        })
    }

    pub(super) fn option(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self.option(name), "true" | "1")
    }

    pub(super) fn is_apply(&self) -> bool {
        self.verb == Verb::Patch && self.content_type.starts_with("application/apply-patch")
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.option("dryRun") == "All"
    }

    /// The field manager: as named, or what the client calls itself, as the API server has it.
    pub(super) fn manager(&self) -> &str {
        match self.option("fieldManager") {
            "" => match self.user_agent.split('/').next() {
                None | Some("") => "unknown",
                Some(name) => name,
            },
            named => named,
        }
    }

    /// The body as JSON; apply patches and some clients' creates come as YAML, of which JSON is a part.
    ///
    /// # Errors
    /// 400 for what is neither; 415 for protobuf, which `kubectl create namespace` and the like send (but not `create -f`).
    pub(super) fn decode_body(&self, body: &[u8]) -> Result<Value, Refusal> {
        if self.content_type.ends_with("protobuf") {
            let why = "the sandbox takes JSON and YAML, not protobuf: write it to a file, and `kubectl apply --server-side -f` it";
            return Err(Refusal::new(415, "UnsupportedMediaType", why));
        }
        if let Ok(value) = serde_json::from_slice(body) {
            return Ok(value);
        }
        if !self.content_type.ends_with("yaml") {
            return Err(Refusal::bad_request("the body is no JSON"));
        }
        serde_saphyr::from_slice(body).map_err(|error| Refusal::bad_request(format!("error decoding YAML: {error}")))
    }
}

fn object_verb(target: &ObjectTarget, method: &Method, is_watch: bool) -> Result<Verb, Refusal> {
    let on_one = !target.name.is_empty();
    Ok(match (method.as_str(), on_one) {
        ("GET", _) if is_watch => Verb::Watch,
        ("GET", true) => Verb::Get,
        ("GET", false) => Verb::List,
        ("POST", false) => Verb::Create,
        ("PUT", true) => Verb::Update,
        ("PATCH", true) => Verb::Patch,
        ("DELETE", true) if target.subresource.is_empty() => Verb::Delete,
        // Nobody empties all namespaces in one call.
        ("DELETE", false) if !target.namespace.is_empty() => Verb::DeleteCollection,
        _ => return Err(Refusal::method_not_allowed()),
    })
}

fn parse_query(uri: &Uri) -> HashMap<String, String> {
    url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

fn parse_path(path: &str) -> Result<Target, Refusal> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, rest) = match parts.as_slice() {
        ["sandbox", ..] => return Ok(Target::Sandbox(path.trim_end_matches('/').to_owned())),
        ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] => return Ok(Target::AccessReview),
        ["api", "v1", rest @ ..] if !rest.is_empty() => ("", rest),
        ["apis", group, "v1", rest @ ..] if !rest.is_empty() => (*group, rest),
        _ => return Ok(Target::Server(path.trim_end_matches('/').to_owned())),
    };
    let (namespace, rest) = match rest {
        // A namespace's own subresources look like kinds within it.
        ["namespaces", _, "status" | "finalize"] => ("", rest),
        ["namespaces", namespace, inner @ ..] if !inner.is_empty() => (*namespace, inner),
        _ => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, subresource] => (*plural, *name, *subresource),
        _ => return Err(Refusal::no_such_path()),
    };
    let kind = Kind::find(group, plural).ok_or_else(Refusal::no_such_path)?;
    let info = kind.info();
    let known = subresource.is_empty() || info.subresources.contains(&subresource);
    let scoped = if info.namespaced { !namespace.is_empty() || name.is_empty() } else { namespace.is_empty() };
    if !known || !scoped {
        return Err(Refusal::no_such_path());
    }
    let owned = str::to_owned;
    Ok(Target::Object(ObjectTarget {
        kind,
        namespace: owned(namespace),
        name: owned(name),
        subresource: owned(subresource),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, uri: &str) -> Result<ApiRequest, Refusal> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        ApiRequest::parse(&method, &uri.parse().expect("a path"), &HeaderMap::new())
    }

    #[test]
    fn a_path_leads_to_its_kind_namespace_name_and_subresource() {
        let request = parse("GET", "/apis/apps/v1/namespaces/a/statefulsets/es/scale").expect("parses");
        let target = |kind, namespace: &str, name: &str, subresource: &str| {
            Target::Object(ObjectTarget {
                kind,
                namespace: namespace.into(),
                name: name.into(),
                subresource: subresource.into(),
            })
        };
        assert_eq!((request.verb, request.target), (Verb::Get, target(Kind::StatefulSet, "a", "es", "scale")));
        let request = parse("GET", "/api/v1/namespaces/a").expect("parses");
        assert_eq!(request.target, target(Kind::Namespace, "", "a", ""));
        let request = parse("PUT", "/api/v1/namespaces/a/finalize").expect("parses");
        assert_eq!(request.target, target(Kind::Namespace, "", "a", "finalize"));
        let request = parse("GET", "/api/v1/pods?watch=1&labelSelector=a%3Db").expect("parses");
        assert_eq!((request.verb, request.option("labelSelector")), (Verb::Watch, "a=b"));
    }

    #[test]
    fn unknown_paths_and_methods_are_refused() {
        for (method, path, code) in [
            ("GET", "/api/v1/gadgets", 404),
            ("GET", "/api/v1/pods/p", 404),
            ("GET", "/api/v1/namespaces/a/pods/p/exec", 404),
            ("GET", "/api/v1/namespaces/a/nodes", 404),
            ("POST", "/api/v1/namespaces/a/pods/p", 405),
            ("DELETE", "/api/v1/pods", 405),
        ] {
            assert_eq!(parse(method, path).expect_err(path).code, code, "{method} {path}");
        }
    }
}
