//! The addresses of this host's network interfaces.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One address of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddr {
    /// Name of the interface (`eth0`).
    pub name: String,
    /// Address.
    pub addr: IpAddr,
    /// Whether the interface is up.
    pub up: bool,
}

/// Lists the addresses of all interfaces in the kernel's order. Errors are those of `getifaddrs`.
pub fn list() -> io::Result<Vec<InterfaceAddr>> {
    let mut head: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `head` is a valid place for the list that the call makes; it is freed below.
    if unsafe { libc::getifaddrs(&mut head) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut out = Vec::new();
    let mut next = head;
    while !next.is_null() {
        // SAFETY: `next` is an element of the list, alive until `freeifaddrs`.
        let item = unsafe { &*next };
        if let Some(addr) = address(item.ifa_addr) {
            // SAFETY: the kernel's names end in a zero byte.
            let name = unsafe { CStr::from_ptr(item.ifa_name) }.to_string_lossy().into_owned();
            out.push(InterfaceAddr { name, addr, up: item.ifa_flags & libc::IFF_UP as u32 != 0 });
        }
        next = item.ifa_next;
    }
    // SAFETY: `head` came from `getifaddrs` and nothing borrows from it any more.
    unsafe { libc::freeifaddrs(head) };
    Ok(out)
}

/// The IP address behind a socket address; `None` for other families.
fn address(addr: *const libc::sockaddr) -> Option<IpAddr> {
    if addr.is_null() {
        return None;
    }
    // SAFETY: not null; `sa_family` says which structure lies behind it, and only that one is read.
    unsafe {
        match i32::from((*addr).sa_family) {
            libc::AF_INET => {
                let v4 = &*addr.cast::<libc::sockaddr_in>();
                Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))))
            }
            libc::AF_INET6 => {
                let v6 = &*addr.cast::<libc::sockaddr_in6>();
                Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_loopback_is_there() {
        let all = super::list().expect("interfaces");
        assert!(all.iter().any(|i| i.addr.is_loopback() && i.up), "{all:?}");
    }
}
