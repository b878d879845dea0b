//! The real binary as its users and operators meet it.

mod balanced;
mod chaos;
mod cli_append;
mod cli_dev;
mod cli_helseid;
mod cli_poll;
mod cli_server;
mod cli_stream;
mod cli_terminal;
mod cli_usage;
mod cluster;
mod crash;
mod foreign;
mod full_disk;
mod kill;
mod log_seed;
mod lost;
mod metrics;
mod poisoned;
mod restart;
#[path = "../../../herald-client/tests/it/script.rs"]
mod script;
mod secrets;
mod serve;
mod settings;
mod signed_in;
mod slow;
mod support;
mod tls;
