//! Threads and locks: the standard library's, or those of a model checker, which tries the orders in which threads may
//! take turns (`tests/run model`).

#[cfg(not(all(test, feature = "model")))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

#[cfg(all(test, feature = "model"))]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};
#[cfg(all(test, feature = "model"))]
pub(crate) use std::sync::PoisonError;
