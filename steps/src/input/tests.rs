//! What was made may not make a cluster that cannot be deleted: the submission of its deletion has to fit into the journal.

use cairn_engine::{Json, WorkflowId};

use super::*;
use crate::names;
use crate::overlay::tests::largest;
use crate::request::RequestRules;

fn made(kind: Kind, name: &str, uid: u32) -> Made {
    let namespace = (kind != Kind::Namespace).then(|| "n".repeat(63));
    Made { kind: kind.to_string(), name: name.to_owned(), namespace, uid: format!("{uid:036}") }
}

/// The longest of everything.
fn longest_request() -> Request {
    let namespace = "n".repeat(63);
    let url = format!("https://gitlab.example.com/{}", "a".repeat(2_000));
    let body = serde_json::json!({"user": "u".repeat(30), "service_name": "s".repeat(30), "namespace": namespace,
        "replicas": 100, "gitlab_url": url});
    Request::parse_with(body.to_string().as_bytes(), RequestRules::JOURNALED).expect("good")
}

/// The origin of the largest cluster that can be: the most nodes, the most that an overlay adds, the largest file.
pub(crate) fn largest_origin() -> Origin {
    let (overlay, added) = largest();
    let request = longest_request();
    let mut origin = Origin {
        mark: "m".repeat(36),
        made: vec![made(Kind::Namespace, &"n".repeat(63), 0), made(Kind::Secret, names::SECRET, 0)],
        template_disk: request.disk_size.clone(),
        elastic: Elastic::new("9.1.4", Some(&"e".repeat(490)), Some(&"k".repeat(490))).expect("right"),
        overlay: Some(overlay),
        settings: Some("#\"".repeat(crate::gitlab::CONTENT_BYTES_MAX / 2)),
        rendered_by: None,
        kept: None,
    };
    origin.made.extend(added.iter().map(|(kind, name)| made(*kind, name, 0)));
    origin
        .made
        .extend((0..request.replicas).map(|ordinal| made(Kind::PersistentVolumeClaim, &names::claim(ordinal), 0)));
    origin
}

#[test]
fn the_largest_cluster_that_can_be_created_can_be_deleted() {
    let (origin, request) = (largest_origin(), longest_request());
    let last = WorkflowId::from_bytes([1; 16]);
    for keep_data in [false, true] {
        Input::deletion(request.clone(), origin.clone(), last, keep_data).to_json().expect("it fits");
    }
    // And its creation is one that could be journaled.
    Json::of(&origin.made).expect("what a step has made fits into its output");
    assert!(Input::change(request.clone(), request, origin).to_json().is_err(), "only a change can be too long");
}

#[test]
fn what_a_cluster_was_rendered_with_is_found_again_after_a_deletion_that_was_cancelled() {
    let origin = largest_origin();
    let last = WorkflowId::from_bytes([1; 16]);
    let input = Input::deletion(longest_request(), origin.clone(), last, false);
    let cancelled = input.origin.expect("there is one");
    assert_eq!((cancelled.rendered_by, &cancelled.settings), (Some(last), &None));
    assert!(cancelled.overlay.is_some(), "that there is an overlay is still known");
    // Cancelled and asked for once more, it still says where to look.
    let again = Input::deletion(longest_request(), cancelled, WorkflowId::from_bytes([2; 16]), false);
    let cancelled = again.origin.expect("there is one");
    assert_eq!(cancelled.rendered_by, Some(last));
    assert_eq!(cancelled.rendered_as(origin.clone()), origin);
    let plain = Origin { overlay: None, settings: None, ..origin };
    let input = Input::deletion(longest_request(), plain, last, false);
    assert_eq!(input.origin.expect("there is one").rendered_by, None);
}

/// Each change that was taken back left the UIDs of claims that are gone, until nothing more could be submitted.
#[test]
fn of_what_bears_one_name_only_the_newest_is_known() {
    let mut origin = Origin { made: Vec::new(), ..largest_origin() };
    for uid in 0..1_000 {
        origin.learn(made(Kind::PersistentVolumeClaim, &names::claim(7), uid));
    }
    origin.learn(made(Kind::Service, &names::claim(7), 1));
    assert_eq!(
        origin.made,
        [made(Kind::PersistentVolumeClaim, &names::claim(7), 999), made(Kind::Service, &names::claim(7), 1)]
    );
}
