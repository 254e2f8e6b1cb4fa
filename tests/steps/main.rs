//! The ten steps on a cluster, seen through nothing but its API: on a sandbox behind a port, and, unchanged, on the cluster that
//! `CAIRN_TEST_KUBECONFIG=FILE` names (an API server from 1.30 on, its controllers, and a kubelet or what stands in for one).
//!
//! - A test is at home in namespaces of its own with names that nobody has, and takes them away, also when it fails.
//! - It waits for what the cluster shows and never for a time; that a container runs, that there is a log, that storage is
//!   provisioned, that the scheduler has room, it takes for granted nowhere.
//! - What a cluster does not let it show says `skipped`, and why.

mod bench;
mod claims;
mod conflicts;
mod creations;
mod each_step;
mod kubeconfig;
mod namespaces;
mod ownership;
mod quotas;
mod rollouts;
mod server;
mod site;
mod workloads;
