//! Kept data: the claims that a deletion with `keep_data` has left, as they really are.
//!
//! A request may say something else: a change that was ended by force has added disks, or made some of them larger, and is not
//! in force. So whoever goes on with the data goes by this, which the deletion's last step has seen and journaled.

use kube::api::DynamicObject;
use serde::{Deserialize, Serialize};

use crate::cluster::claims::wish;
use crate::cluster::gone::Marked;
use crate::names;
use crate::quantity::Quantity;
use crate::render::Kind;

/// The claims that are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The nodes that a cluster needs to have all of them: one more than the highest ordinal.
    pub replicas: u32,
    /// The size of the largest: no claim becomes smaller.
    pub disk_size: Quantity,
    /// Each of them, by its ordinal.
    pub claims: Vec<KeptClaim>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptClaim {
    /// Its name.
    pub name: String,
    /// What tells it from another of the same name.
    pub uid: String,
    /// The size that it was last asked to have.
    pub disk_size: Quantity,
}

impl Kept {
    /// The claims among these objects, under the names that a cluster gives; none if there are none.
    #[must_use]
    pub fn of<'a>(objects: impl IntoIterator<Item = &'a Marked>) -> Option<Self> {
        let mut claims: Vec<(u32, KeptClaim)> = Vec::new();
        for Marked { made, object, .. } in objects {
            let ordinal = names::claim_ordinal(&made.name).filter(|_| made.kind() == Some(Kind::PersistentVolumeClaim));
            if let (Some(ordinal), Some(disk_size)) = (ordinal, wish(object)) {
                claims.push((ordinal, KeptClaim { name: made.name.clone(), uid: made.uid.clone(), disk_size }));
            }
        }
        claims.sort_by_key(|(ordinal, _)| *ordinal);
        let replicas = claims.last()?.0.saturating_add(1);
        let claims: Vec<KeptClaim> = claims.into_iter().map(|(_, claim)| claim).collect();
        let disk_size = claims.iter().map(|claim| &claim.disk_size).max()?.clone();
        Some(Self { replicas, disk_size, claims })
    }

    /// The claims of these that are not among `live`, which are all claims of their namespace.
    #[must_use]
    pub fn missing(&self, live: &[DynamicObject]) -> Vec<&str> {
        let is_there = |claim: &KeptClaim| {
            live.iter().map(|live| &live.metadata).any(|live| {
                live.name.as_deref() == Some(&claim.name)
                    && live.uid.as_deref() == Some(&claim.uid)
                    && live.deletion_timestamp.is_none()
            })
        };
        self.claims.iter().filter(|claim| !is_there(claim)).map(|claim| claim.name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::Made;

    fn marked(kind: Kind, name: &str, size: &str) -> Marked {
        let object = json!({"metadata": {"name": name, "uid": name},
            "spec": {"resources": {"requests": {"storage": size}}}});
        Marked {
            made: Made { kind: kind.to_string(), name: name.to_owned(), namespace: None, uid: name.to_owned() },
            leaves: false,
            text: String::new(),
            object: serde_json::from_value(object).expect("an object"),
        }
    }

    #[test]
    fn the_number_is_that_of_the_highest_ordinal_and_the_size_that_of_the_largest() {
        let claim = |ordinal, size| marked(Kind::PersistentVolumeClaim, &names::claim(ordinal), size);
        let objects = [claim(10, "10Gi"), claim(9, "20480Mi"), claim(0, "5Gi"), marked(Kind::Secret, "s", "1Ti")];
        let kept = Kept::of(&objects).expect("three claims");
        assert_eq!((kept.replicas, kept.disk_size.as_str()), (11, "20480Mi"));
        let names: Vec<&str> = kept.claims.iter().map(|claim| claim.name.as_str()).collect();
        assert_eq!(names, [names::claim(0), names::claim(9), names::claim(10)]);
        assert_eq!(Kept::of(&objects[3..]), None);
    }
}
