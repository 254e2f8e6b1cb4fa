//! Which IP addresses lie inside: a tenant's URL must not make this program ask them (C12).
//!
//! Everything that is not plainly an address of the public network counts as inside. An IPv6 address that carries an
//! IPv4 one (mapped, NAT64, 6to4, Teredo) counts as what it carries, or as inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether this address is loopback, private, link-local (where clouds serve their metadata), or otherwise not of the
/// public network.
#[must_use]
pub fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4_inside(v4),
        IpAddr::V6(v6) => v6_inside(v6),
    }
}

fn v4_inside(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        // "This network" (RFC 1122), and what was kept for the future (RFC 1112).
        || a == 0
        || a >= 240
        // Carrier NAT (RFC 6598): among others the metadata address of one large cloud, 100.100.100.200.
        || (a == 100 && (64..128).contains(&b))
        // Protocol assignments (RFC 6890), and benchmarks (RFC 2544).
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
        // The metadata server of another large cloud, on an address that looks public.
        || address == Ipv4Addr::new(168, 63, 129, 16)
}

fn v6_inside(address: Ipv6Addr) -> bool {
    if let Some(v4) = address.to_ipv4_mapped() {
        return v4_inside(v4);
    }
    let segments = address.segments();
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [.., a, b, c, d] = address.octets();
        return v4_inside(Ipv4Addr::new(a, b, c, d));
    }
    // The public network is 2000::/3; in it lie 6to4 (2002::/16), Teredo and friends (2001::/23) and documentation.
    segments[0] & 0xe000 != 0x2000
        || segments[0] == 0x2002
        || (segments[0] == 0x2001 && segments[1] < 0x200)
        || (segments[0] == 0x2001 && segments[1] == 0xdb8)
        || (segments[0] == 0x3fff && segments[1] < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(text: &str) -> bool {
        is_inside(text.parse().expect(text))
    }

    #[test]
    fn loopback_private_and_metadata_addresses_are_inside() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:a9fe:a9fe",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:0::1",
            "2001:db8::1",
        ] {
            assert!(inside(text), "{text}");
        }
    }

    #[test]
    fn addresses_of_the_public_network_are_not_inside() {
        for text in
            ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
        {
            assert!(!inside(text), "{text}");
        }
    }
}
