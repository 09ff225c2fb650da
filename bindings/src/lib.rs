//! Fulcrum for Kotlin and Swift: the core's API in UniFFI's terms.
//!
//! Values become records and enums that both languages can hold, objects become handles, errors one enum with fields. Nothing
//! is decided here, and every body is a line or two: what an app sees as idiom (coroutines, flows, actors, async sequences) is
//! written by hand in `bindings/kotlin` and `bindings/swift` over what is generated from this crate.
//!
//! A setting that is not given is the core's default: no default stands here a second time. Numbers are signed, because that is
//! what numbers are in both languages; a negative one is an error that names the setting.

pub mod error;
pub mod generation;
pub mod log;
pub mod message;
pub mod metrics;
pub mod model;
pub mod number;
pub mod residency;
pub mod response;
pub mod session;
pub mod stream;

pub use error::{NativeError, Result};

uniffi::setup_scaffolding!("fulcrum");
