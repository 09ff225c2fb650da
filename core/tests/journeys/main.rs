//! Journeys through sessions on the scripted executor: no model, no C++ build, every fault on purpose.
#![allow(clippy::unwrap_used)] // Tests only.

mod draft_model;
mod drafting;
mod faults;
mod overflow;
mod races;
mod saved_drafts;
mod streams;
mod support;
mod tools;
mod turns;
