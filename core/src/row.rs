//! One row of a pass: what trees are flattened to and executors run. A plain type, so that rules can name it.

use crate::token::Token;

/// One row of a pass: a token and its place in the tree.
///
/// The position follows from the parent (the parent's plus one; a row without a parent stands at the executor's `len()`), so it
/// cannot contradict it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// The token that is read at this row.
    pub token: Token,
    /// The earlier row of the same pass that this one continues; `None` continues the committed history.
    pub parent: Option<u32>,
    /// Whether `Executor::project` may ask for this row's logits. Rows that nobody will ask
    /// about are cheaper.
    pub wants_logits: bool,
}
