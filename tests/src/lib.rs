//! The harness of the tests that need the whole: worlds, trouble makers, and the one oracle that judges.
//!
//! - [`world::World`] is an engine and its cluster in one process, on a paused clock; [`program::Cairn`] is the real
//!   program in a process of its own.
//! - [`life`] and [`faulty`] make trouble: they end an engine's life at any commit or call. [`shim`] ends the real
//!   program's at any of its storage operations.
//! - [`oracle::check`] reads what clients were told, the journal, the cluster's effect log and the records, and names
//!   every invariant that is broken. Suites make trouble and ask it; they judge nothing themselves.

pub mod client;
pub mod creation;
pub mod disk;
pub mod extent;
pub mod faulty;
pub mod files;
pub mod journal;
pub mod later;
pub mod life;
pub mod no_op;
pub mod oracle;
pub mod program;
pub mod shim;
pub mod site;
pub mod steps;
pub mod world;
