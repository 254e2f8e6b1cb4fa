//! Names that are made up: for `generateName`, for pods of a set, for hashes.

use uuid::Uuid;

/// Five characters that no other name has, out of the alphabet that Kubernetes uses for them.
pub(super) fn random_suffix() -> String {
    let bytes = Uuid::now_v7().into_bytes();
    safe_text(u64::from_be_bytes(bytes[8..].try_into().expect("eight of sixteen bytes")), 5)
}

/// A number in letters that make no words.
pub(super) fn safe_text(mut number: u64, length: usize) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut out = String::with_capacity(length);
    for _ in 0..length {
        let index = usize::try_from(number % 27).expect("below 27");
        out.push(char::from(ALPHABET[index]));
        number /= 27;
    }
    out
}
