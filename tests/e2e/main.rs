//! The real programs from end to end: killed, stopped, crowded out and started again.

mod demo;
mod disk;
mod kills;
mod lifecycle;
mod load;
mod refusals;
mod shutdown;
