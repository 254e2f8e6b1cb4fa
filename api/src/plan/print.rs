//! A plan for people: one line an object, what would change below it, then quota and warnings.

use std::collections::BTreeSet;

use serde_json::Value;

/// The longest that a value is quoted.
const QUOTED_CHARS_MAX: usize = 80;

/// Prints it.
pub(super) fn plan(plan: &Value) {
    print!("{}", text(plan));
}

fn text(plan: &Value) -> String {
    let of = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let request = &plan["request"];
    let mut lines = vec![
        format!(
            "plan: {} {}/{} in namespace {}",
            of(plan, "kind"),
            of(request, "user"),
            of(request, "service_name"),
            of(request, "namespace")
        ),
        String::new(),
    ];
    if let Some(workflow) = plan["ends"]["workflow_id"].as_str() {
        lines.insert(1, format!("ends {} {workflow} first, which is parked", of(&plan["ends"], "kind")));
    }
    let verdicts = plan["verdicts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut open: Vec<String> = Vec::new();
    for one in verdicts {
        let mark = match (one["verdict"].as_str(), one["action"].as_str()) {
            (Some("refused"), _) => '✘',
            (Some("unchecked"), _) => '?',
            (_, Some("change")) => '~',
            (_, Some("keep" | "leave")) => '=',
            (_, Some("delete")) => '-',
            _ => '+',
        };
        let verdict = of(one, "verdict");
        lines.push(format!("{mark} {:<60} {verdict}", of(one, "object")));
        let message = of(one, "message");
        if verdict == "accepted" {
            // The same for all of them: said once.
            if !message.is_empty() && !open.contains(&message) {
                open.push(message);
            }
        } else {
            lines.push(format!("    {message}"));
        }
        for evidence in one["evidence"].as_array().into_iter().flatten() {
            lines.push(format!("    {}", evidence.as_str().unwrap_or_default()));
        }
        for change in one["changes"].as_array().into_iter().flatten() {
            let (before, after) = (quoted(&change["before"]), quoted(&change["after"]));
            lines.push(format!("    {}: {before} → {after}", of(change, "path")));
        }
    }
    for message in open {
        lines.extend([String::new(), message]);
    }
    lines.extend(quota(&plan["quota"]));
    for (field, title) in [
        ("takes_over", "goes on with what a deletion has kept"),
        ("refusals", "would be accepted, and then stop"),
        ("warnings", "warnings"),
    ] {
        let said = plan[field].as_array().map(Vec::as_slice).unwrap_or_default();
        if !said.is_empty() {
            lines.extend([String::new(), title.to_owned()]);
            lines.extend(said.iter().map(|one| format!("  {}", one.as_str().unwrap_or_default())));
        }
    }
    if let Some(without) = plan["without"].as_str() {
        lines.extend([String::new(), format!("not looked at: {without}")]);
    }
    lines.push(String::new());
    lines.push(match plan["possible"] == true {
        true => "nothing was found that would refuse it, and nothing was changed".to_owned(),
        false => "it would not work out as things are, and nothing was changed".to_owned(),
    });
    lines.join("\n") + "\n"
}

/// Of each resource that is asked for: before, after, and the most there may be.
fn quota(quota: &Value) -> Vec<String> {
    let known = ["asked", "used"].into_iter().filter_map(|part| quota[part].as_object());
    let resources: BTreeSet<&String> = known.flat_map(|amounts| amounts.keys()).collect();
    if resources.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new(), "quota".to_owned()];
    for resource in resources {
        let limit = match &quota["limits"][resource] {
            Value::Null => "no limit".to_owned(),
            limit => format!("at most {limit}"),
        };
        let number = |amounts: &Value| amounts[resource].as_u64().unwrap_or(0);
        lines.push(match quota["used"].is_object() {
            true => format!("  {resource}: {} → {} ({limit})", number(&quota["used"]), number(&quota["after"])),
            false => format!("  {resource}: {} more ({limit})", number(&quota["asked"])),
        });
    }
    if !quota["used"].is_object() {
        lines.push("  what is in use already, only an engine knows: ask it with --server URL".to_owned());
    }
    lines
}

fn quoted(value: &Value) -> String {
    let text = match value {
        Value::Null => return "nothing".to_owned(),
        value => value.to_string(),
    };
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_reads_as_one_line_an_object_with_its_changes_below() {
        let plan = json!({
            "kind": "update", "possible": false, "request": { "user": "acme", "service_name": "search", "namespace": "acme--search" },
            "quota": { "asked": { "clusters": 1 }, "used": { "clusters": 2 }, "after": { "clusters": 3 }, "limits": { "clusters": 5 } },
            "verdicts": [
                { "object": "Namespace/acme--search", "action": "keep", "verdict": "accepted" },
                { "object": "StatefulSet/elasticsearch", "action": "change", "verdict": "accepted",
                  "changes": [{ "path": "spec.replicas", "before": 1, "after": 3 }] },
                { "object": "ConfigMap/x", "action": "create", "verdict": "refused", "message": "no", "evidence": ["data: bad"] },
            ],
            "ends": { "kind": "create", "workflow_id": "0197", "links": { "workflow": "/workflows/0197" } },
            "takes_over": ["Secret/a"], "refusals": ["no node has GPUs"], "warnings": ["storage: slow"],
        });
        let text = text(&plan);
        for line in [
            "plan: update acme/search in namespace acme--search",
            "ends create 0197 first, which is parked",
            "  Secret/a",
            "  no node has GPUs",
            "    spec.replicas: 1 → 3",
            "    no",
            "    data: bad",
            "  clusters: 2 → 3 (at most 5)",
            "  storage: slow",
            "it would not work out as things are, and nothing was changed",
        ] {
            assert!(text.lines().any(|said| said == line), "{line:?} in\n{text}");
        }
        let marks: String =
            text.lines().filter_map(|line| line.chars().next()).filter(|mark| "=~✘".contains(*mark)).collect();
        assert_eq!(marks, "=~✘");
    }
}
