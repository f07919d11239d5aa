//! Ports on loopback.

use std::net::{Ipv4Addr, TcpListener};

/// Different ports that nobody listens on now. Somebody else may take one before it is used: whoever uses one has to try
/// again with others then.
pub(crate) fn unused<const N: usize>() -> [u16; N] {
    // All are held until the last one is known, else the kernel could give the same one twice.
    let held = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the kernel has a port left"));
    held.each_ref().map(|listener| listener.local_addr().expect("a listener has an address").port())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_different_and_free() {
        // Whatever else runs on this machine may take one of them in between, but not in every one of many turns.
        let free = (0..20).any(|_| {
            let ports = unused::<16>();
            assert_eq!(BTreeSet::from(ports).len(), 16);
            ports.iter().all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        });
        assert!(free, "nobody can listen on the ports that are given out");
    }
}
