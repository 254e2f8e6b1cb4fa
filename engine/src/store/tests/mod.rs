//! What every store must do, and what the durable one must survive.

pub(crate) mod samples;
mod suite;
mod agree;
mod reference;
mod damage;
mod long;
mod durable;
mod reader;
