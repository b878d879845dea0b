//! The file of one node.

use std::fmt::Write as _;

use super::{Access, Cluster, PASSWORD};
use crate::Tls;

/// Writing to a text cannot fail.
const WRITES: &str = "a text takes what is written";

pub(super) fn write(cluster: &Cluster, node: usize) -> String {
    let settings = &cluster.settings;
    let this = &cluster.nodes[node];
    let mut file = format!(
        "server_name: {name}\n\
         listen: {client}\n\
         http: {monitor}\n\
         max_payload: {max_payload}\n\
         jetstream {{\n  store_dir: {store:?}\n  sync_interval: {sync_interval}\n}}\n",
        name = this.slot.name,
        client = this.client.address(),
        monitor = this.monitor.address(),
        max_payload = settings.max_payload,
        store = this.store(),
        sync_interval = settings.sync_interval,
    );
    if cluster.nodes.len() > 1 {
        routes(&mut file, cluster, node);
    }
    match &cluster.signed {
        Some(signed) => file.push_str(&signed.server),
        None => file.push_str(&access(settings.access)),
    }
    if let Some(tls) = &settings.tls {
        file.push_str(&encrypted(tls));
    }
    file
}

fn routes(file: &mut String, cluster: &Cluster, node: usize) {
    let scheme = if cluster.settings.tls.is_some() { "tls" } else { "nats" };
    let others = (0..cluster.nodes.len()).filter(|other| *other != node).map(|other| {
        let direct = cluster.nodes[other].routes.address();
        let address = cluster.mesh.address(node, other).unwrap_or(direct);
        format!("{scheme}://{address}")
    });
    let others: Vec<String> = others.collect();
    let listen = cluster.nodes[node].routes.address();
    // Clients know all addresses from their URL. If servers told them more, a cut link would be walked around.
    write!(
        file,
        "cluster {{\n  name: herald\n  listen: {listen}\n  no_advertise: true\n  routes: [{}]\n",
        others.join(", ")
    )
    .expect(WRITES);
    if cluster.settings.linked {
        // Where servers tell each other to find this one: nowhere, for the same reason.
        file.push_str("  advertise: \"127.0.0.1:1\"\n");
    }
    if let Some(tls) = &cluster.settings.tls {
        file.push_str(&encrypted(tls));
    }
    file.push_str("}\n");
}

fn access(access: Access) -> String {
    if access == Access::Token {
        return format!("authorization {{ token: {PASSWORD:?} }}\n");
    }
    let mut text = format!(
        "accounts {{\n  \
           SYS {{\n    users: [ {{ user: sys, password: {PASSWORD:?} }} ]\n    \
             exports: [ {{ service: \"$SYS.REQ.SERVER.PING.JSZ\", response_type: Stream }} ]\n  }}\n  \
           HERALD {{\n    jetstream: enabled\n    users: [ {{ user: herald, password: {PASSWORD:?} }} ]\n    \
             imports: [ {{ service: {{ account: SYS, subject: \"$SYS.REQ.SERVER.PING.JSZ\" }} }} ]\n  }}\n\
         }}\nsystem_account: SYS\n"
    );
    if access == Access::Open {
        text.push_str("no_auth_user: herald\n");
    }
    text
}

fn encrypted(tls: &Tls) -> String {
    format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?} }}\n",
        tls.certificate, tls.key, tls.ca
    )
}
