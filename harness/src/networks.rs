//! The networks of this machine, as far as a browser on it notices them: when one comes or goes, or gets an address,
//! Chromium ends its requests with `ERR_NETWORK_CHANGED`.

use std::{fs, time::Duration};

use crate::{container::Container, wait};

/// Keeps the engine's default network up until dropped. Without a container, its bridge has no carrier; the first container
/// brings the bridge up, which then gets an address.
pub fn keep_up() -> Container {
    Container::run_command("keeps-bridge-up", "nginx:1.30", &[], &["sleep", "infinity"])
}

/// Waits until the kernel has verified every IPv6 address, which it does for a second or two after a network was
/// created.
///
/// # Panics
///
/// When that takes too long.
#[track_caller]
pub fn settle() {
    /// An address that is being verified (IFA_F_TENTATIVE).
    const TENTATIVE: u8 = 0x40;
    wait::until(Duration::from_secs(20), || {
        // Address, interface, prefix, scope, flags, name. There is no such file on a machine without IPv6.
        let table = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        let tentative = table.lines().find(|line| {
            let flags = line.split_whitespace().nth(4);
            let flags = flags.and_then(|flags| u8::from_str_radix(flags, 16).ok());
            flags.is_some_and(|flags| flags & TENTATIVE != 0)
        });
        match tentative {
            None => Ok(()),
            Some(line) => Err(format!("not verified yet: {line}")),
        }
    });
}
