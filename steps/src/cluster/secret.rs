//! The cluster's Secret: made once, never overwritten, and its values seen by nobody here (I32).
//!
//! Created, not applied: an apply of new values over old ones would lock everybody out of a cluster that has the old ones.

use cairn_engine::StepError;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DynamicObject, PostParams};

use super::errors::{Asked, step_error};
use super::{Cluster, Found, Made, place, refuse_unrecorded, theirs};
use crate::credentials::Credentials;
use crate::names;
use crate::render::{Kind, Object};

impl Cluster {
    /// Makes the Secret of this shape with new values, or finds the one that this workflow made before.
    ///
    /// # Errors
    /// [`StepError`]: permanent if it is somebody else's, else by the table of [`super::errors`].
    pub(super) async fn make_secret(
        &self,
        object: &Object,
        workflow: &str,
        journaled: &[Made],
    ) -> Result<DynamicObject, StepError> {
        if let Some(found) = self.own_secret(object, workflow, journaled).await? {
            return Ok(found);
        }
        let namespace = object.namespace.as_deref().unwrap_or_default();
        let doing = format!("create {}", place(object.kind, Some(namespace), &object.name));
        let unmade = |error: &dyn std::fmt::Display| StepError::transient(format!("cannot {doing}: {error}"));
        let mut secret: Secret = serde_json::from_value(object.body.clone()).map_err(|error| unmade(&error))?;
        secret.data = Some(Credentials::generate(namespace).map_err(|error| unmade(&error))?.into_data());
        let body: DynamicObject =
            serde_json::to_value(&secret).and_then(serde_json::from_value).map_err(|error| unmade(&error))?;
        let params = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.api(object.kind, Some(namespace)).create(&params, &body).await {
            Ok(mut made) => {
                hide(object.kind, &mut made);
                Ok(made)
            }
            // Somebody was quicker; or it was we, and the answer was lost.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let found = self.own_secret(object, workflow, journaled).await?;
                found.ok_or_else(|| StepError::transient(format!("{object} was there and is gone")))
            }
            Err(error) => Err(step_error(Asked::Write, &doing, &error)),
        }
    }

    async fn own_secret(
        &self,
        object: &Object,
        workflow: &str,
        journaled: &[Made],
    ) -> Result<Option<DynamicObject>, StepError> {
        let namespace = object.namespace.as_deref();
        let at = place(object.kind, namespace, &object.name);
        match self.find(object.kind, namespace, &object.name, workflow).await? {
            Found::Nothing => Ok(None),
            Found::Foreign(whose) => Err(theirs(&at, &whose)),
            Found::Ours(found) if found.metadata.deletion_timestamp.is_some() => {
                Err(StepError::transient(format!("{at} is being deleted")))
            }
            Found::Ours(found) => {
                refuse_unrecorded(object, found.metadata.uid.as_deref().unwrap_or_default(), journaled)?;
                Ok(Some(*found))
            }
        }
    }
}

/// Takes the values out of a Secret that was read: what nobody has, nobody writes down.
pub(super) fn hide(kind: Kind, object: &mut DynamicObject) {
    if kind == Kind::Secret
        && let Some(fields) = object.data.as_object_mut()
    {
        fields.remove("data");
        fields.remove("stringData");
    }
}
