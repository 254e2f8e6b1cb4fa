//! The journal: how entries become durable.

pub(crate) mod writer;
