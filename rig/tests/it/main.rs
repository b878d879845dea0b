//! The rig against the real components.

mod nats;
mod postgres;
