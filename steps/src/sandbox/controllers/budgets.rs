//! PodDisruptionBudgets: how many pods may be disrupted, in their status.

use super::super::json::{condition, number, set, set_condition};
use super::super::kinds::Kind;
use super::super::selectors::label_selector_matches;
use super::super::store::{Key, State};
use serde_json::Value;

/// Brings the budget's status up to the pods that it selects.
pub(super) fn reconcile(state: &mut State, key: &Key) {
    let Some(budget) = state.get(key).cloned() else { return };
    let selector = budget.pointer("/spec/selector").cloned().unwrap_or_default();
    let pods: Vec<bool> = state
        .list(Kind::Pod, Some(&key.namespace))
        .filter(|(_, pod)| label_selector_matches(&selector, pod))
        .map(|(_, pod)| condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True"))
        .collect();
    let expected = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    let healthy = pods.iter().filter(|ready| **ready).count().try_into().unwrap_or(i64::MAX);
    let desired = match (budget.pointer("/spec/minAvailable"), budget.pointer("/spec/maxUnavailable")) {
        (Some(minimum), _) => share(minimum, expected),
        (None, Some(maximum)) => (expected - share(maximum, expected)).max(0),
        (None, None) => 0,
    };
    let allowed = (healthy - desired).max(0);
    let mut object = (*budget).clone();
    set(&mut object, "/status/observedGeneration", number(&budget, "/metadata/generation"));
    for (field, value) in [
        ("currentHealthy", healthy),
        ("desiredHealthy", desired),
        ("disruptionsAllowed", allowed),
        ("expectedPods", expected),
    ] {
        set(&mut object, &format!("/status/{field}"), value);
    }
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let now = state.clock.stamp();
    set_condition(&mut object, "DisruptionAllowed", status, reason, "", &now);
    state.put(Kind::PodDisruptionBudget, object);
}

/// A number, or a share in percent, rounded up.
fn share(value: &Value, of: i64) -> i64 {
    match value.as_str().and_then(|text| text.strip_suffix('%')) {
        Some(percent) => (percent.parse::<i64>().unwrap_or_default() * of + 99) / 100,
        None => value.as_i64().unwrap_or_default(),
    }
}
