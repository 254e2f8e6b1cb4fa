//! The journal: entries as bytes, chained by hashes, what is derived from them, and how they become durable.
//!
//! - [`codec`]: an entry's bytes, one frozen layout a format version.
//! - [`chain`]: the hashes that make a loss, a change or a foreign entry show.
//! - [`keys`], [`index`]: the one key space of a store, and what of it is derived from the entries.
//! - [`kept`]: several appends or commits to a value, as the index keeps them.
//! - [`ledger`]: what an append must meet, and the key changes that it causes.
//! - [`writer`]: one sync for all appends that wait.

pub(crate) mod codec;
pub(crate) mod chain;
pub(crate) mod keys;
pub(crate) mod kept;
pub(crate) mod index;
pub(crate) mod ledger;
pub(crate) mod writer;
