//! `deploy/nginx/replicas.conf` as it is, at other addresses.

use super::{Backend, Balancer, with_servers};

/// What operators are told to use.
const FILE: &str = include_str!("../../../deploy/nginx/replicas.conf");

pub(super) fn write(balancer: &Balancer, generation: u64, backends: &[Backend]) -> String {
    let servers = backends
        .iter()
        .map(|backend| format!("    server {} max_fails=1 fail_timeout=1s;", backend.api));
    let listen = format!("listen {};", balancer.listen.address());
    let file = with_servers(FILE, servers).replace("listen 80;", &listen);
    // Root's workers are root's too, since others may not enter its directories.
    let user = if rustix::process::getuid().is_root() { "user root;\n" } else { "" };
    format!(
        r#"{user}daemon off;
pid nginx.pid;
error_log stderr warn;
worker_processes 2;
events {{ worker_connections 8192; }}

http {{
access_log off;
client_body_temp_path body;
proxy_temp_path proxy;
fastcgi_temp_path fastcgi;
uwsgi_temp_path uwsgi;
scgi_temp_path scgi;

{file}
server {{
    listen {status};
    location / {{ return 200 "{generation}"; }}
}}
}}
"#,
        status = balancer.status.address(),
    )
}
