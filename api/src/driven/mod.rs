//! An engine that is driven from outside, as its users do it: a process of its own, spoken to over HTTP.
//!
//! For `cairn demo`, which shows what it does, and `cairn prove`, which kills it.

mod client;
mod process;

pub(crate) use self::{
    client::{Accepted, Client, Events},
    process::{EngineProcess, Launch},
};
