//! The rig against the real components.

mod balancer;
mod nats;
mod postgres;
