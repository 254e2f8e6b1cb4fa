//! How much memory and disk a number of vectors needs, by the formulas of the *Vector sizing calculator* (C11).
//!
//! HNSW with m = 16, float vectors, and for the smaller estimate `int8` quantisation, which is the largest of the
//! quantisations that Elasticsearch chooses by itself. These are estimates before anything is made: they warn, and refuse only
//! where the operator wants it so.

use serde::{Deserialize, Serialize};

use crate::request::{FieldError, Request};

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
        self.shortages(request).into_iter().map(|shortage| shortage.message).collect()
    }

    fn shortages(&self, request: &Request) -> Vec<Shortage> {
        let replicas = u64::from(request.replicas);
        let memory = request.mem_limit.as_bytes();
        // `request` has checked that these products fit.
        let cache = (memory - heap_bytes(memory)) * replicas;
        let disk = request.disk_size.as_bytes() * replicas;
        let vectors = format!("{} vectors of dimension {}", request.vector_count, request.dimension);
        let mut shortages = Vec::new();
        let mut short = |field, needs, has, message| shortages.push(Shortage { field, needs, has, message });
        if self.memory_int8_bytes > cache {
            let message = format!(
                "{vectors} need about {} of memory beside the heap even when quantised to int8, and there is {}: searches will read from disk; raise mem_limit or replicas",
                gib(self.memory_int8_bytes),
                gib(cache)
            );
            short("mem_limit", self.memory_float_bytes, cache, message);
        } else if self.memory_float_bytes > cache {
            let message = format!(
                "{vectors} need about {} of memory beside the heap, and there is {}: they fit only quantised (int8: {})",
                gib(self.memory_float_bytes),
                gib(cache),
                gib(self.memory_int8_bytes)
            );
            short("mem_limit", self.memory_float_bytes, cache, message);
        }
        if self.disk_bytes > disk {
            let message = format!(
                "{vectors} need about {} of disk with room for merges, and there is {}: raise disk_size or replicas",
                gib(self.disk_bytes),
                gib(disk)
            );
            short("disk_size", self.disk_bytes, disk, message);
        }
        shortages
    }
}

/// Memory or disk of which the vectors need more than is asked for.
struct Shortage {
    /// The field that asks for too little.
    field: &'static str,
    needs: u64,
    has: u64,
    /// One sentence with the figures.
    message: String,
}

/// What strict sizing refuses of this request: each field that asks for less than its vectors need. Of a change only what makes
/// them fit worse than `before`: what was too small already may become larger, if not yet large enough.
#[must_use]
pub fn refused_strictly(request: &Request, before: Option<&Request>) -> Vec<FieldError> {
    let mut shortages = VectorSizing::of(request).shortages(request);
    if let Some(before) = before {
        let earlier = VectorSizing::of(before).shortages(before);
        shortages.retain(|now| {
            let same = earlier.iter().find(|one| one.field == now.field);
            let product = |one: u64, other: u64| u128::from(one) * u128::from(other);
            same.is_none_or(|then| product(now.needs, then.has) > product(then.needs, now.has))
        });
    }
    let refusal = |shortage: Shortage| {
        let message = format!("is too small: {}; what does not fit is refused here, not warned of", shortage.message);
        FieldError::new(shortage.field, message)
    };
    shortages.into_iter().map(refusal).collect()
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

    fn strict(request: &Request, before: Option<&Request>) -> Vec<String> {
        refused_strictly(request, before).into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn strictly_each_field_that_asks_for_too_little_is_named_with_its_figures() {
        let request = request(r#","dimension":1024,"vector_count":1000000,"disk_size":"1Gi""#);
        let errors = refused_strictly(&request, None);
        assert_eq!(strict(&request, None), ["mem_limit", "disk_size"]);
        assert!(errors[0].message.contains("1.02 GiB") && errors[1].message.contains("7.26 GiB"), "{errors:?}");
    }

    #[test]
    fn a_change_is_refused_strictly_only_where_it_makes_the_vectors_fit_worse() {
        let vectors = r#","dimension":1024,"vector_count":1000000"#;
        let of = |fields: &str| request(&format!("{vectors}{fields}"));
        let small = of(r#","mem_limit":"2Gi""#);
        for (changed, refused) in [
            (r#","mem_limit":"1Gi""#, true),
            (r#","mem_limit":"2Gi","cpu_limit":"4""#, false),
            (r#","mem_limit":"3Gi""#, false),
            // Twice the nodes hold twice the copies: as well, or as badly, as before.
            (r#","mem_limit":"2Gi","replicas":2"#, false),
            (r#","mem_limit":"16Gi""#, false),
        ] {
            assert_eq!(!strict(&of(changed), Some(&small)).is_empty(), refused, "{changed}");
        }
        assert_eq!(strict(&small, Some(&of(r#","mem_limit":"16Gi""#))), ["mem_limit"]);
    }

    #[test]
    fn the_heap_is_half_of_the_memory_up_to_where_pointers_are_compressed() {
        assert_eq!(heap_bytes(2 << 30), 1 << 30);
        assert_eq!(heap_bytes(256 << 30), 31 << 30);
    }
}
