//! The real binary as its users and operators meet it.

mod crash;
mod foreign;
mod full_disk;
mod restart;
mod serve;
mod settings;
mod support;
