//! Ports that stay their owner's while it is down.
//!
//! A port that the system gave away would be anybody's again once its owner is killed: the next outgoing connection of any
//! program may take it. So these lie below the range that the system gives away, and a locked file by port keeps the rigs of
//! other processes off.

use std::{
    env,
    fs::{self, File},
    hash::{BuildHasher as _, RandomState},
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use anyhow::{Context as _, bail};

/// Below are ports that somebody may have given a meaning.
const LOWEST: u16 = 10_240;
/// The first port that Linux gives away, unless it is told otherwise.
const GIVEN_AWAY: u16 = 32_768;
/// How many are tried; with thousands to choose from the first is nearly always free.
const TRIES: usize = 1000;

/// A port of loopback; nobody else's until this is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    /// Locked as long as it is open.
    _lock: File,
}

impl Port {
    /// A free one.
    pub(crate) fn free() -> anyhow::Result<Self> {
        let highest = first_given_away().max(LOWEST + 1000);
        let places = env::temp_dir().join(format!("herald-rig-ports-{}", uid()));
        fs::create_dir_all(&places).context("could not make a directory for ports")?;
        for _ in 0..TRIES {
            let chance = RandomState::new().hash_one(0) % u64::from(highest - LOWEST);
            let number = LOWEST + u16::try_from(chance).expect("less than a port");
            let lock = File::create(places.join(number.to_string()))?;
            if lock.try_lock().is_ok() && TcpListener::bind(loopback(number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("no free port between {LOWEST} and {highest}")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        loopback(self.number)
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn first_given_away() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(GIVEN_AWAY)
}

fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_distinct_and_not_of_those_that_the_system_gives_away() {
        let ports: Vec<Port> = (0..50).map(|_| Port::free().unwrap()).collect();
        let numbers: BTreeSet<u16> = ports.iter().map(|port| port.number).collect();
        assert_eq!(numbers.len(), ports.len());
        assert!(numbers.iter().all(|number| *number < first_given_away()));
    }
}
