//! How much memory and disk a number of vectors needs, by the formulas of the *Vector sizing calculator* (C11).
//!
//! HNSW with m = 16, float vectors, and for the smaller estimate `int8` quantisation, which is the largest of the
//! quantisations that Elasticsearch chooses by itself. These are estimates before anything is made: they warn, they do not refuse.

use serde::{Deserialize, Serialize};

use crate::request::Request;

/// Bytes of the graph for one vector: four for each of m = 16 neighbours.
const GRAPH_BYTES: u64 = 64;
/// Bytes that `int8` adds to the one per dimension.
const INT8_OVERHEAD_BYTES: u64 = 16;
/// The heap is at most this: beyond it pointers are no longer compressed (C10).
pub const HEAP_BYTES_MAX: u64 = 31 << 30;

/// What the vectors of a request need, over all copies, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorSizing {
    /// Page cache for a search at full speed, with vectors as they are.
    pub memory_float_bytes: u64,
    /// Page cache for a search at full speed, quantised to `int8`.
    pub memory_int8_bytes: u64,
    /// Disk, with the room that translog and merges take.
    pub disk_bytes: u64,
}

/// The heap of a node with this much memory: half of it, and never more than compressed pointers reach (C10).
#[must_use]
pub fn heap_bytes(mem_limit_bytes: u64) -> u64 {
    (mem_limit_bytes / 2).min(HEAP_BYTES_MAX)
}

impl VectorSizing {
    /// The needs of the vectors that this request names.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let dimension = u64::from(request.dimension);
        // An index has one replica by default, where there is a second node to put it on.
        let copies = if request.replicas > 1 { 2 } else { 1 };
        // Bounded by `request`: 4096 × 4 × 10¹² × 2 is far from 2⁶⁴.
        let count = request.vector_count * copies;
        let raw = 4 * dimension * count;
        let int8 = (dimension + INT8_OVERHEAD_BYTES) * count;
        let graph = GRAPH_BYTES * count;
        Self {
            memory_float_bytes: raw + graph,
            memory_int8_bytes: int8 + graph,
            disk_bytes: (raw + int8 + graph) / 2 * 3,
        }
    }

    /// What does not fit into the memory and disk that the request asks for, one sentence each; empty when all fits.
    #[must_use]
    pub fn warnings(&self, request: &Request) -> Vec<String> {
        let replicas = u64::from(request.replicas);
        let memory = request.mem_limit.as_bytes();
        // `request` has checked that these products fit.
        let cache = (memory - heap_bytes(memory)) * replicas;
        let disk = request.disk_size.as_bytes() * replicas;
        let vectors = format!("{} vectors of dimension {}", request.vector_count, request.dimension);
        let mut warnings = Vec::new();
        if self.memory_int8_bytes > cache {
            warnings.push(format!(
                "{vectors} need about {} of memory beside the heap even when quantised to int8, and there is {}: searches will read from disk; raise mem_limit or replicas",
                gib(self.memory_int8_bytes),
                gib(cache)
            ));
        } else if self.memory_float_bytes > cache {
            warnings.push(format!(
                "{vectors} need about {} of memory beside the heap, and there is {}: they fit only quantised (int8: {})",
                gib(self.memory_float_bytes),
                gib(cache),
                gib(self.memory_int8_bytes)
            ));
        }
        if self.disk_bytes > disk {
            warnings.push(format!(
                "{vectors} need about {} of disk with room for merges, and there is {}: raise disk_size or replicas",
                gib(self.disk_bytes),
                gib(disk)
            ));
        }
        warnings
    }
}

/// Bytes for a person: hundredths of a GiB, by whole numbers so that every machine prints the same.
fn gib(bytes: u64) -> String {
    let hundredths = u128::from(bytes) * 100 / (1 << 30);
    format!("{}.{:02} GiB", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(extra: &str) -> Request {
        Request::parse(format!(r#"{{"user":"acme","service_name":"search"{extra}}}"#).as_bytes()).expect("good")
    }

    #[test]
    fn the_sizes_are_those_of_the_published_formulas() {
        let sizing = VectorSizing::of(&request(r#","dimension":1024,"vector_count":1000000"#));
        assert_eq!(gib(sizing.memory_float_bytes), "3.87 GiB");
        assert_eq!(gib(sizing.memory_int8_bytes), "1.02 GiB");
        assert_eq!(gib(sizing.disk_bytes * 2 / 3), "4.84 GiB");
    }

    #[test]
    fn the_default_request_fits_anywhere() {
        let request = request("");
        assert_eq!(VectorSizing::of(&request).warnings(&request), Vec::<String>::new());
    }

    #[test]
    fn a_million_large_vectors_do_not_fit_two_gibibytes_and_the_warning_says_so() {
        let request = request(r#","dimension":1024,"vector_count":1000000,"mem_limit":"4Gi""#);
        let warnings = VectorSizing::of(&request).warnings(&request);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("fit only quantised"), "{warnings:?}");
    }

    #[test]
    fn the_largest_request_does_not_overflow() {
        let request = request(r#","dimension":4096,"vector_count":1000000000000,"replicas":100"#);
        assert_eq!(VectorSizing::of(&request).warnings(&request).len(), 2);
    }

    #[test]
    fn the_heap_is_half_of_the_memory_up_to_where_pointers_are_compressed() {
        assert_eq!(heap_bytes(2 << 30), 1 << 30);
        assert_eq!(heap_bytes(256 << 30), 31 << 30);
    }
}
