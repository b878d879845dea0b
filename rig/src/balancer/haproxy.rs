//! As `deploy/haproxy/haproxy.cfg`, with several replicas.

use std::fmt::Write as _;

use super::{Backend, Balancer};

pub(super) fn write(balancer: &Balancer, generation: u64, backends: &[Backend]) -> String {
    let mut file = format!(
        r#"global
    # 1500 HER-ids are a request line of 27 kB; the default buffer of 16 kB answers it with 400.
    tune.bufsize 65536
    # A reload takes the sockets over, so that no connection falls in between.
    stats socket {stats} mode 600 level admin expose-fd listeners

defaults
    mode http
    option http-no-delay
    timeout connect 5s
    timeout http-request 30s
    timeout http-keep-alive 60s
    # Longer than the heartbeat, or quiet streams are cut.
    timeout client 75s
    timeout server 75s
    # A replica that drains answers 503, and a plain EventSource gives up for good on one: another one is asked.
    retries 3
    option redispatch 1
    retry-on 503 conn-failure empty-response response-timeout

frontend api
    bind {listen}
    default_backend herald

frontend status
    bind {status}
    http-request return status 200 content-type text/plain string {generation}

backend herald
    balance leastconn
    option httpchk GET /health/ready
    http-check expect status 200
    default-server check inter 500ms fall 1 rise 1
"#,
        stats = balancer.home.join("stats.sock").display(),
        listen = balancer.listen.address(),
        status = balancer.status.address(),
    );
    for backend in backends {
        let Backend { name, api, ops } = backend;
        writeln!(file, "    server {name} {api} addr {} port {}", ops.ip(), ops.port())
            .expect("a text takes what is written");
    }
    file
}
