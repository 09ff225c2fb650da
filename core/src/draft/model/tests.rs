use std::sync::{Arc, Mutex};

use super::*;
use crate::executor::ExecutorShape;
use crate::tokenizer::Encoding;
use crate::tree::ROOT;

/// A model that says, behind any text, the sum of its last two tokens (modulo 50), then that plus one.
struct Adder {
    shape: ExecutorShape,
    cache: Vec<Token>,
    pass: Vec<Row>,
    rows_run: Arc<Mutex<Vec<usize>>>,
}

fn says(text: &[Token]) -> Token {
    text.iter().rev().take(2).sum::<Token>() % 50
}

impl Adder {
    fn path(&self, row: u32) -> Vec<Token> {
        let up = std::iter::successors(Some(row), |&row| self.pass[row as usize].parent);
        let mut path: Vec<Token> = up.map(|row| self.pass[row as usize].token).collect();
        path.reverse();
        [self.cache.clone(), path].concat()
    }
}

impl Executor for Adder {
    fn shape(&self) -> &ExecutorShape {
        &self.shape
    }

    fn len(&self) -> usize {
        self.cache.len()
    }

    fn begin(&mut self, rows: &[Row]) -> Result<()> {
        assert!(self.pass.is_empty() && !rows.is_empty() && rows.len() <= self.shape.max_rows);
        assert!(self.cache.len() + rows.len() <= self.shape.n_cells);
        assert!(rows.iter().all(|row| (row.token as usize) < self.shape.n_vocab));
        assert!((0u32..).zip(rows).all(|(i, row)| row.parent.is_none_or(|p| p < i)));
        self.rows_run.lock().unwrap().push(rows.len());
        self.pass = rows.to_vec();
        Ok(())
    }

    fn run(&mut self, _boundary: usize, cancel: &Cancel) -> Result<()> {
        if cancel.is_cancelled() { Err(ErrorKind::Cancelled.into()) } else { Ok(()) }
    }

    fn keep(&mut self, _rows: &[u32]) -> Result<()> {
        Ok(())
    }

    fn project(&mut self, rows: &[u32], logits: &mut [f32]) -> Result<()> {
        logits.fill(0.0);
        for (row, logits) in rows.iter().zip(logits.chunks_mut(self.shape.n_vocab)) {
            assert!(self.pass[*row as usize].wants_logits);
            let token = says(&self.path(*row)) as usize;
            (logits[token], logits[token + 1]) = (5.0, 3.0);
        }
        Ok(())
    }

    fn commit(&mut self, path: &[u32]) -> Result<()> {
        self.cache = path.last().map_or_else(|| self.cache.clone(), |&row| self.path(row));
        self.pass.clear();
        Ok(())
    }

    fn rollback(&mut self) {
        self.pass.clear();
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        assert!(self.pass.is_empty() && len <= self.cache.len());
        self.cache.truncate(len);
        Ok(())
    }
}

fn drafter(max_rows: usize) -> (ModelDrafter, Arc<Mutex<Vec<usize>>>) {
    let rows_run = Arc::new(Mutex::new(Vec::new()));
    let shape = ExecutorShape {
        n_vocab: 64,
        n_layers: 1,
        n_cells: 200,
        max_rows,
        boundaries: vec![1],
        forgets_rows: true,
        invariant_rows: true,
    };
    let executor = Adder { shape, cache: Vec::new(), pass: Vec::new(), rows_run: rows_run.clone() };
    (ModelDrafter::new(Box::new(executor), 60), rows_run)
}

fn commit(drafter: &mut ModelDrafter, tokens: &[Token]) {
    tokens.iter().for_each(|&token| drafter.commit(token));
}

fn child(tree: &mut DraftTree, parent: NodeId, token: Token, p: f64) -> NodeId {
    let node = tree.propose(parent, token, Claim { source: Source::Model, major: 0, minor: 0 });
    tree.set_probability(node, p);
    node
}

fn firsts(found: &[Vec<Candidate>]) -> Vec<Token> {
    found.iter().map(|c| c[0].token).collect()
}

#[test]
fn answers_a_batch_of_nodes_each_on_its_own_path() {
    let (mut drafter, rows_run) = drafter(16);
    commit(&mut drafter, &[1, 2, 3]);
    let mut tree = DraftTree::new(3);
    let cancel = Cancel::new();
    assert_eq!(drafter.n_unread(), 2);
    let found = drafter.propose(&tree, &[ROOT], &cancel).unwrap().candidates;
    assert_eq!(found[0].iter().map(|c| c.token).take(2).collect::<Vec<_>>(), [5, 6]);
    assert_eq!((found[0][0].claim.minor, found[0][1].claim.minor), (0, 1));
    assert_eq!(drafter.n_unread(), 0);
    let a = child(&mut tree, ROOT, 5, 0.6);
    let b = child(&mut tree, ROOT, 6, 0.3);
    let aa = child(&mut tree, a, 8, 0.9);
    assert_eq!(firsts(&drafter.propose(&tree, &[a, b], &cancel).unwrap().candidates), [8, 9]);
    // The cache followed the better branch, so going down it costs one row; going back costs the branch.
    assert_eq!(firsts(&drafter.propose(&tree, &[aa], &cancel).unwrap().candidates), [13]);
    let bb = child(&mut tree, b, 9, 0.9);
    assert_eq!(firsts(&drafter.propose(&tree, &[bb], &cancel).unwrap().candidates), [15]);
    assert_eq!(*rows_run.lock().unwrap(), [3, 2, 1, 2]);
}

#[test]
fn a_pass_of_few_rows_does_not_silence_it() {
    for n in 1..60 {
        let (mut drafter, _) = drafter(8);
        let tokens: Vec<Token> = (0..n).map(|i| i % 40).collect();
        commit(&mut drafter, &tokens);
        let found = drafter.propose(&DraftTree::new(0), &[ROOT], &Cancel::new()).unwrap().candidates;
        assert_eq!(firsts(&found), [says(&tokens)], "{n} unread");
    }
}

#[test]
fn asked_about_a_path_it_keeps_what_it_would_have_said_itself() {
    let (mut drafter, rows_run) = drafter(16);
    commit(&mut drafter, &[1, 2, 3]);
    let mut tree = DraftTree::new(3);
    // It says 5, then 8, then 13; the others propose 5, 8, 40, 41.
    let nodes = [5, 8, 40, 41].iter().fold(vec![ROOT], |mut nodes, &token| {
        nodes.push(child(&mut tree, nodes[nodes.len() - 1], token, 0.8));
        nodes
    });
    let found = drafter.propose(&tree, &nodes, &Cancel::new()).unwrap().candidates;
    assert_eq!(firsts(&found), [5, 8, 13, 48, 31]);
    // Behind its own 13 it has read all but that token.
    let own = child(&mut tree, nodes[2], 13, 0.9);
    assert_eq!(firsts(&drafter.propose(&tree, &[own], &Cancel::new()).unwrap().candidates), [21]);
    assert_eq!(*rows_run.lock().unwrap(), [7, 1]);
}

#[test]
fn after_a_rejection_reads_only_the_correction() {
    let (mut drafter, rows_run) = drafter(16);
    commit(&mut drafter, &[1, 2, 3]);
    let mut tree = DraftTree::new(3);
    let a = child(&mut tree, ROOT, 5, 0.9);
    let b = child(&mut tree, a, 8, 0.9);
    drafter.propose(&tree, &[b], &Cancel::new()).unwrap();
    rows_run.lock().unwrap().clear();
    commit(&mut drafter, &[5, 40]);
    let found = drafter.propose(&DraftTree::new(40), &[ROOT], &Cancel::new()).unwrap();
    assert_eq!(firsts(&found.candidates), [45]);
    assert!(found.hindsight.is_empty());
    assert_eq!(*rows_run.lock().unwrap(), [1]);
}

#[test]
fn says_of_what_others_drafted_what_it_would_have_said() {
    let (mut drafter, rows_run) = drafter(16);
    commit(&mut drafter, &[1, 2, 3]);
    drafter.propose(&DraftTree::new(3), &[ROOT], &Cancel::new()).unwrap();
    commit(&mut drafter, &[5, 30, 35]);
    let answer = drafter.propose(&DraftTree::new(35), &[ROOT], &Cancel::new()).unwrap();
    assert_eq!(firsts(&answer.candidates), [15]);
    let seen = answer.hindsight.iter().map(|h| (h.candidates[0].token, h.token));
    assert_eq!(seen.collect::<Vec<_>>(), [(8, 30), (35, 35)]);
    assert_eq!(*rows_run.lock().unwrap(), [3, 3]);
}

#[test]
fn looks_back_on_what_it_missed() {
    let (mut drafter, rows_run) = drafter(4);
    commit(&mut drafter, &[1, 2, 3, 5, 8, 0, 8, 9]);
    let seen = drafter.look(3, &Cancel::new()).unwrap();
    assert_eq!(seen.iter().map(|s| (s.candidates[0].token, s.token)).collect::<Vec<_>>(), [(13, 0), (8, 8), (8, 9)]);
    assert_eq!(*rows_run.lock().unwrap(), [4, 3]);
    assert!(drafter.look(3, &Cancel::new()).unwrap().is_empty(), "nothing new");
}

#[test]
fn what_does_not_fit_is_left_out() {
    let (mut drafter, _) = drafter(2);
    commit(&mut drafter, &[2]);
    let mut tree = DraftTree::new(2);
    let nodes: Vec<NodeId> =
        [(3, 0.2), (4, 0.5), (5, 0.1)].iter().map(|&(t, p)| child(&mut tree, ROOT, t, p)).collect();
    let found = drafter.propose(&tree, &nodes, &Cancel::new()).unwrap();
    assert_eq!(found.candidates.iter().map(Vec::len).collect::<Vec<_>>(), [0, 4, 0]);
}

#[test]
fn of_a_long_text_the_end_is_read() {
    let (mut drafter, rows_run) = drafter(40);
    let cancel = Cancel::new();
    let text: Vec<Token> = (0..150).map(|i| i % 50).collect();
    commit(&mut drafter, &text);
    assert_eq!(drafter.n_unread(), 100, "half of the cells");
    let seen = drafter.look(2, &cancel).unwrap();
    assert_eq!(seen.iter().map(|s| (s.candidates[0].token, s.token)).collect::<Vec<_>>(), [(43, 48), (45, 49)]);
    assert_eq!((rows_run.lock().unwrap().iter().sum::<usize>(), drafter.n_unread()), (100, 0));
    // It goes on from there, until too much is unread again or the cache is full.
    rows_run.lock().unwrap().clear();
    commit(&mut drafter, &[1, 2]);
    assert_eq!(firsts(&drafter.propose(&DraftTree::new(2), &[ROOT], &cancel).unwrap().candidates), [3]);
    assert_eq!(*rows_run.lock().unwrap(), [3]);
    commit(&mut drafter, &text[..140]);
    assert_eq!(drafter.n_unread(), 100);
    assert_eq!(firsts(&drafter.propose(&DraftTree::new(39), &[ROOT], &cancel).unwrap().candidates), [27]);
    assert_eq!(rows_run.lock().unwrap().iter().sum::<usize>(), 3 + 101);
}

#[test]
fn no_more_is_read_than_is_allowed() {
    let (mut drafter, rows_run) = drafter(40);
    let cancel = Cancel::new();
    drafter.read_at_most(30);
    commit(&mut drafter, &(0..150).map(|i| i % 50).collect::<Vec<Token>>());
    assert_eq!(drafter.n_unread(), 30);
    drafter.look(2, &cancel).unwrap();
    assert_eq!((rows_run.lock().unwrap().iter().sum::<usize>(), drafter.n_unread()), (30, 0));
    drafter.read_at_most(usize::MAX);
    commit(&mut drafter, &[1, 2]);
    assert_eq!(drafter.n_unread(), 2, "what was left out stays out");
}

#[test]
fn what_was_read_is_not_given_up_for_a_few_tokens_more() {
    let (mut drafter, rows_run) = drafter(40);
    let cancel = Cancel::new();
    commit(&mut drafter, &(0..101).map(|i| i % 50).collect::<Vec<Token>>());
    drafter.look(0, &cancel).unwrap();
    rows_run.lock().unwrap().clear();
    drafter.read_at_most(30);
    commit(&mut drafter, &[1; 31]);
    drafter.look(0, &cancel).unwrap();
    assert_eq!((rows_run.lock().unwrap().iter().sum::<usize>(), drafter.window().len()), (31, 132));
    commit(&mut drafter, &[2; 61]);
    assert_eq!((drafter.n_unread(), drafter.window().len()), (30, 193), "twice as many are too many");
    drafter.look(0, &cancel).unwrap();
    assert_eq!(drafter.window().len(), 31);
}

#[test]
fn with_a_short_window_it_reads_on_as_with_a_long_one() {
    let (mut drafter, rows_run) = drafter(40);
    let cancel = Cancel::new();
    drafter.read_at_most(20);
    commit(&mut drafter, &[7; 150]);
    drafter.look(0, &cancel).unwrap();
    assert_eq!(rows_run.lock().unwrap().iter().sum::<usize>(), 20);
    for token in 0..10 {
        commit(&mut drafter, &[token]);
        drafter.propose(&DraftTree::new(token), &[ROOT], &cancel).unwrap();
    }
    assert_eq!(rows_run.lock().unwrap()[1..], [2, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn a_few_tokens_in_common_are_not_kept_for_reading_twice_as_many() {
    let (mut drafter, _) = drafter(40);
    let cancel = Cancel::new();
    commit(&mut drafter, &[1; 60]);
    drafter.look(0, &cancel).unwrap();
    drafter.rewind(4);
    drafter.read_at_most(30);
    commit(&mut drafter, &[2; 50]);
    assert_eq!(drafter.n_unread(), 30);
}

#[test]
fn tokens_that_it_does_not_know_are_never_shown_to_it() {
    let (mut drafter, _) = drafter(40);
    let cancel = Cancel::new();
    let unknown = Token::try_from(drafter.executor.shape().n_vocab).unwrap();
    commit(&mut drafter, &[1, 2, 3]);
    assert_eq!(firsts(&drafter.propose(&DraftTree::new(3), &[ROOT], &cancel).unwrap().candidates), [5]);
    drafter.mark();
    commit(&mut drafter, &[4, unknown]);
    assert_eq!(drafter.n_unread(), 0);
    let none = drafter.propose(&DraftTree::new(unknown), &[ROOT], &cancel).unwrap();
    assert!(none.candidates[0].is_empty());
    commit(&mut drafter, &[6, 7]);
    let mut tree = DraftTree::new(7);
    let odd = child(&mut tree, ROOT, unknown, 0.9);
    let behind = child(&mut tree, odd, 8, 0.9);
    let found = drafter.propose(&tree, &[ROOT, odd, behind], &cancel).unwrap();
    assert_eq!(found.candidates.iter().map(Vec::len).collect::<Vec<_>>(), [4, 0, 0]);
    assert_eq!(firsts(&found.candidates[..1]), [13]);
    drafter.roll_back();
    commit(&mut drafter, &[4]);
    assert_eq!(firsts(&drafter.propose(&DraftTree::new(4), &[ROOT], &cancel).unwrap().candidates), [7]);
}

#[test]
fn a_full_cache_begins_anew_with_the_end() {
    let (mut drafter, rows_run) = drafter(40);
    let cancel = Cancel::new();
    let (mut text, mut sum) = (vec![1], 1);
    commit(&mut drafter, &text);
    for _ in 0..1_000 {
        let said =
            firsts(&drafter.propose(&DraftTree::new(text[text.len() - 1]), &[ROOT], &cancel).unwrap().candidates);
        let begun = drafter.skipped;
        assert_eq!(said, [says(&text[begun..])], "behind {} tokens, {begun} skipped", text.len());
        assert!(drafter.window().len() <= 200 - 25 && (begun == 0 || drafter.window().len() > 50));
        sum = (sum * 7 + 3) % 50;
        text.push(sum);
        commit(&mut drafter, &[sum]);
    }
    // Once in 125 tokens it reads 51 of them again.
    assert!(rows_run.lock().unwrap().iter().sum::<usize>() < 1_000 * (125 + 51) / 125 + 51);
}

#[test]
fn rolled_back_before_the_end_it_read_it_reads_anew() {
    let (mut drafter, rows_run) = drafter(64);
    commit(&mut drafter, &[3, 4, 5, 6]);
    drafter.mark();
    commit(&mut drafter, &[7; 300]);
    drafter.look(1, &Cancel::new()).unwrap();
    drafter.roll_back();
    rows_run.lock().unwrap().clear();
    assert_eq!(drafter.n_unread(), 3);
    assert_eq!(firsts(&drafter.propose(&DraftTree::new(6), &[ROOT], &Cancel::new()).unwrap().candidates), [11]);
    commit(&mut drafter, &[11]);
    assert_eq!(firsts(&drafter.propose(&DraftTree::new(11), &[ROOT], &Cancel::new()).unwrap().candidates), [17]);
    assert_eq!(*rows_run.lock().unwrap(), [4, 1]);
}

#[test]
fn a_cancelled_pass_and_a_rolled_back_turn_leave_it_usable() {
    let (mut drafter, _) = drafter(16);
    commit(&mut drafter, &[1, 2]);
    drafter.mark();
    commit(&mut drafter, &[30, 40]);
    let cancel = Cancel::new();
    cancel.cancel();
    assert!(drafter.propose(&DraftTree::new(40), &[ROOT], &cancel).unwrap_err().is_cancelled());
    drafter.propose(&DraftTree::new(40), &[ROOT], &Cancel::new()).unwrap();
    drafter.roll_back();
    commit(&mut drafter, &[3]);
    assert_eq!(firsts(&drafter.propose(&DraftTree::new(3), &[ROOT], &Cancel::new()).unwrap().candidates), [5]);
}

/// Tokens are their number in letters, shifted.
struct Letters(usize, u32);

impl Vocabulary for Letters {
    fn n_tokens(&self) -> usize {
        self.0
    }

    fn encode(&self, _text: &str, _encoding: Encoding) -> Result<Vec<Token>> {
        Ok(Vec::new())
    }

    fn decode_token(&self, token: Token, _special: bool, out: &mut Vec<u8>) {
        let shift = if token >= 20 { self.1 } else { 0 };
        out.extend(format!("t{}", token + shift).bytes());
    }

    fn is_end_of_generation(&self, token: Token) -> bool {
        token == 0
    }

    fn bos(&self) -> Option<Token> {
        None
    }

    fn eos(&self) -> Option<Token> {
        Some(0)
    }
}

#[test]
fn vocabularies_of_equal_size_and_other_pieces_are_refused() {
    assert!(check_vocabulary(&Letters(100, 0), &Letters(100, 0)).is_ok());
    assert!(check_vocabulary(&Letters(100, 0), &Letters(96, 0)).is_ok(), "padding");
    let message = check_vocabulary(&Letters(100, 0), &Letters(100, 1)).unwrap_err().to_string();
    assert!(message.contains("token 20 is \"t21\", not \"t20\""), "{message}");
    assert!(check_vocabulary(&Letters(100, 0), &Letters(50, 0)).is_err());
}
