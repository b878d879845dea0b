//! As `deploy/nginx/herald.conf`, with several replicas.

use super::{Backend, Balancer};

pub(super) fn write(balancer: &Balancer, generation: u64, backends: &[Backend]) -> String {
    let servers: Vec<String> = backends
        .iter()
        .map(|backend| format!("        server {} max_fails=1 fail_timeout=1s;", backend.api))
        .collect();
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

    upstream herald {{
        # All workers share what one has learned.
        zone herald 256k;
        least_conn;
{servers}
        keepalive 64;
        keepalive_timeout 60s;
    }}

    server {{
        listen {listen};
        # 1500 HER-ids are a request line of 27 kB, which must fit into one buffer.
        large_client_header_buffers 8 64k;
        client_max_body_size 0;
        # An upload is kept until it is answered: only so can it be sent to another replica.
        client_body_buffer_size 1m;

        location / {{
            proxy_pass http://herald;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_buffering off;
            proxy_connect_timeout 5s;
            # Longer than the heartbeat, or quiet streams are cut.
            proxy_read_timeout 75s;
            # A replica that drains answers 503, and a plain EventSource gives up for good on one: another one is asked.
            # Appends too: each draft has its id, so that none is stored twice.
            proxy_next_upstream error timeout http_503 non_idempotent;
        }}
    }}

    server {{
        listen {status};
        location / {{ return 200 "{generation}"; }}
    }}
}}
"#,
        servers = servers.join("\n"),
        listen = balancer.listen.address(),
        status = balancer.status.address(),
    )
}
