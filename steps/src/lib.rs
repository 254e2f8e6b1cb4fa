//! The workflows: creating an Elasticsearch cluster on Kubernetes in ten steps, changing it, deleting it, and what they stand on.
//!
//! Without the feature `cluster` only the types are built (requests, quantities, names): no Kubernetes, no network.

pub mod addresses;
#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "cluster")]
pub mod create;
#[cfg(feature = "cluster")]
pub mod credentials;
#[cfg(feature = "cluster")]
pub mod delete;
pub mod elastic;
#[cfg(feature = "cluster")]
pub mod gitlab;
#[cfg(feature = "cluster")]
pub mod input;
#[cfg(feature = "cluster")]
pub mod kept;
pub mod names;
#[cfg(feature = "cluster")]
pub mod overlay;
pub mod quantity;
#[cfg(feature = "cluster")]
pub mod render;
pub mod records;
pub mod report;
pub mod request;
pub mod rights;
#[cfg(feature = "cluster")]
pub mod sandbox;
#[cfg(feature = "cluster")]
pub mod settings;
#[cfg(feature = "cluster")]
pub mod update;
pub mod vectors;
