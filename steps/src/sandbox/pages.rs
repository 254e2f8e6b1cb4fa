//! Lists in pages: `limit` and `continue`, each page a later part of the one snapshot that the first was taken from.
//!
//! A snapshot is what there is now, with the changes since taken back: so a list goes on as long as the history knows them,
//! and gets 410 afterwards, as from a real server.

use super::json::text;
use super::request::{ApiRequest, ObjectTarget};
use super::selectors::Selector;
use super::status::Refusal;
use super::store::{Key, State};
use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One page.
pub(super) struct Page {
    pub(super) objects: Vec<Arc<Value>>,
    version: u64,
    /// Where the next page begins, and how many objects are left for it and those after it.
    next: Option<(Key, Option<usize>)>,
}

impl Page {
    /// The page that the request asks for.
    ///
    /// # Errors
    /// 400 for a token that is none, 410 for one whose snapshot is forgotten.
    pub(super) fn read(state: &State, request: &ApiRequest, target: &ObjectTarget) -> Result<Page, Refusal> {
        let selector = Selector::parse(request.option("labelSelector"), request.option("fieldSelector"))?;
        let limit = match request.option("limit") {
            "" => 0,
            limit => limit.parse().map_err(|_| Refusal::bad_request(format!("limit: Invalid value: \"{limit}\"")))?,
        };
        let (version, after) = match request.option("continue") {
            "" => (state.version(), None),
            token => decode(token, target).map(|(version, after)| (version, Some(after)))?,
        };
        let all = snapshot(state, target, version)?;
        let mut objects: Vec<Arc<Value>> = all
            .into_iter()
            .filter(|(key, object)| after.as_ref().is_none_or(|after| key > after) && selector.matches(object))
            .map(|(_, object)| object)
            .collect();
        let mut next = None;
        if limit > 0 && objects.len() > limit {
            let left = objects.split_off(limit).len();
            let is_selected =
                !request.option("labelSelector").is_empty() || !request.option("fieldSelector").is_empty();
            // How many of those left a selector takes is not known to a server that has not looked.
            let last = objects.last().map(|last| Key::of(target.kind, last));
            next = last.map(|last| (last, (!is_selected).then_some(left)));
        }
        Ok(Page { objects, version, next })
    }

    /// The `metadata` of the list.
    pub(super) fn metadata(&self) -> Value {
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".to_owned(), json!(self.version.to_string()));
        if let Some((last, left)) = &self.next {
            let start = format!("{}/{}", last.namespace, last.name);
            let token = json!({"v": "meta.k8s.io/v1", "rv": self.version, "start": start});
            metadata.insert("continue".to_owned(), json!(ByteString(token.to_string().into_bytes())));
            if let Some(left) = left {
                metadata.insert("remainingItemCount".to_owned(), json!(left));
            }
        }
        Value::Object(metadata)
    }

    pub(super) fn version(&self) -> String {
        self.version.to_string()
    }
}

fn decode(token: &str, target: &ObjectTarget) -> Result<(u64, Key), Refusal> {
    let bad = || Refusal::bad_request("continue key is not valid");
    let bytes: ByteString = serde_json::from_value(json!(token)).map_err(|_| bad())?;
    let token: Value = serde_json::from_slice(&bytes.0).map_err(|_| bad())?;
    let (namespace, name) = text(&token, "/start").split_once('/').ok_or_else(bad)?;
    Ok((token["rv"].as_u64().ok_or_else(bad)?, Key::new(target.kind, namespace, name)))
}

fn snapshot(state: &State, target: &ObjectTarget, version: u64) -> Result<BTreeMap<Key, Arc<Value>>, Refusal> {
    let namespace = target.namespace_if_any();
    let mut all: BTreeMap<Key, Arc<Value>> =
        state.list(target.kind, namespace).map(|(key, object)| (key.clone(), object.clone())).collect();
    if version == state.version() {
        return Ok(all);
    }
    let Some(changes) = state.changes_after(version) else {
        return Err(Refusal::gone(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
        ));
    };
    let changes: Vec<_> = changes.collect();
    for change in changes.into_iter().rev() {
        if change.key.kind != target.kind || namespace.is_some_and(|wanted| change.key.namespace != wanted) {
            continue;
        }
        match &change.before {
            Some(before) => all.insert(change.key.clone(), before.clone()),
            None => all.remove(&change.key),
        };
    }
    Ok(all)
}
