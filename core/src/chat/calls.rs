//! Calls of tools in what a model writes: text in, text and calls out.
//!
//! [`syntax`] reads off a model's template how it writes calls, [`reader`] finds them in an answer as it comes, [`scan`] tells what
//! a text begins with, or may begin with once there is more of it.

mod reader;
mod scan;
mod syntax;

pub use reader::{Event, ToolCallReader};
pub use syntax::ToolCallSyntax;

#[cfg(test)]
mod tests;
