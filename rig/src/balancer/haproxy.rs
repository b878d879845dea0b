//! `deploy/haproxy/replicas.cfg` as it is, at other addresses.

use super::{Backend, Balancer, with_servers};

/// What operators are told to use.
const FILE: &str = include_str!("../../../deploy/haproxy/replicas.cfg");

pub(super) fn write(balancer: &Balancer, generation: u64, backends: &[Backend]) -> String {
    let servers = backends.iter().map(|Backend { name, api, ops }| {
        format!("    server {name} {api} addr {} port {}", ops.ip(), ops.port())
    });
    let socket = balancer.home.join("stats.sock").display().to_string();
    let file = with_servers(FILE, servers)
        .replace("/run/haproxy/admin.sock", &socket)
        .replace("bind :80", &format!("bind {}", balancer.listen.address()));
    format!(
        "{file}
frontend status
    bind {status}
    http-request return status 200 content-type text/plain string {generation}
",
        status = balancer.status.address(),
    )
}
