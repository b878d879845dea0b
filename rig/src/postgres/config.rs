//! The files of one node.

use std::{fs, net::SocketAddr, path::Path};

use super::{Access, Node, PASSWORD, Settings};
use crate::Tls;

/// Writes `postgresql.conf` and `pg_hba.conf`; `follows` is whom a standby gets its log from, and makes it one.
///
/// The whole file is the rig's: what it does not say is PostgreSQL's default.
pub(super) fn write(
    settings: &Settings,
    node: &Node,
    nodes: usize,
    follows: Option<SocketAddr>,
) -> anyhow::Result<()> {
    let data = node.data();
    let name = &node.slot.name;
    let mut file = format!(
        "listen_addresses = '127.0.0.1'\n\
         port = {port}\n\
         unix_socket_directories = ''\n\
         cluster_name = '{name}'\n\
         max_connections = 200\n\
         shared_buffers = '32MB'\n\
         wal_level = replica\n\
         wal_log_hints = on\n\
         hot_standby = on\n\
         # Nothing that a standby may still want is thrown away.\n\
         wal_keep_size = '1GB'\n\
         max_wal_senders = 10\n\
         # Peers that say nothing are given up within seconds.\n\
         wal_sender_timeout = '5s'\n\
         wal_receiver_timeout = '5s'\n\
         wal_retrieve_retry_interval = '200ms'\n\
         log_line_prefix = '%m '\n",
        port = node.port.address().port(),
    );
    if nodes > 1 && settings.synchronous {
        let names: Vec<String> = (1..=nodes).map(|number| format!("n{number}")).collect();
        file.push_str(&format!("synchronous_standby_names = 'ANY 1 ({})'\n", names.join(", ")));
    }
    if let Some(primary) = follows {
        file.push_str(&conninfo(settings, name, primary));
        fs::write(data.join("standby.signal"), "")?;
    }
    if let Some(tls) = &settings.tls {
        file.push_str(
            "ssl = on\nssl_ca_file = 'ca.pem'\nssl_cert_file = 'server.pem'\nssl_key_file = 'server-key.pem'\n",
        );
        copy_tls(tls, &data)?;
    }
    fs::write(data.join("postgresql.conf"), file)?;
    fs::write(data.join("pg_hba.conf"), access(settings))?;
    Ok(())
}

fn conninfo(settings: &Settings, name: &str, primary: SocketAddr) -> String {
    let password = match settings.access {
        Access::Open => String::new(),
        Access::Password => format!(" password={PASSWORD}"),
    };
    format!(
        "primary_conninfo = 'host={} port={} user=postgres application_name={name} \
         connect_timeout=3{password}'\n",
        primary.ip(),
        primary.port(),
    )
}

fn access(settings: &Settings) -> String {
    let kind = if settings.tls.is_some() { "hostssl" } else { "host" };
    let method = match settings.access {
        Access::Open => "trust",
        Access::Password => "scram-sha-256",
    };
    format!("{kind} all all 127.0.0.1/32 {method}\n{kind} replication all 127.0.0.1/32 {method}\n")
}

/// PostgreSQL wants its key to be its own, and nobody else's to read.
fn copy_tls(tls: &Tls, data: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::copy(&tls.ca, data.join("ca.pem"))?;
    fs::copy(&tls.certificate, data.join("server.pem"))?;
    let key = data.join("server-key.pem");
    fs::copy(&tls.key, &key)?;
    fs::set_permissions(key, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
