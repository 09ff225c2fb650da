//! A suffix automaton over tokens: every substring of the stored text, in linear space, one token at a time.
//!
//! Construction after Blumer et al. 1985, generalised to several strings; its use for drafting is SAM-Decoding's
//! (arXiv 2411.10666). Beside the textbook fields each state keeps how often and where last its strings occurred, so that
//! successors can be ranked. At most 2 states and 3 edges per token (40 + 36 bytes), plus an index of the edges of states with many,
//! less than one entry per token and string (16 bytes): there are fewer edges than states and tokens, and most states have one.
//!
//! Deliberately not here: the text itself, what it is good for, and forgetting (the owner rebuilds).

use std::collections::HashMap;

use super::index;
use crate::token::Token;

/// Suffixes whose count and last position are updated per token, longest first. Only texts that repeat one phrase more
/// often than this in a row have longer chains; their short suffixes are then undercounted, and time stays linear.
const MAX_CHAIN: usize = 64;

/// Edges of one state that are offered as successors, newest first.
const MAX_EDGES: usize = 64;

/// Edges of one state that are searched one by one, newest first; the others are found by the index. What stands behind a comma has
/// thousands.
const SEARCHED: usize = 8;

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct State {
    /// Length of the longest string of this state.
    len: u32,
    /// The state of its longest suffix that occurs elsewhere too.
    link: u32,
    /// Position of the last token of the latest occurrence.
    end: u32,
    /// Occurrences.
    count: u32,
    /// First edge of the list of edges.
    edges: u32,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    token: Token,
    target: u32,
    next: u32,
}

/// A matched suffix of some text: where it is in the automaton, and how long it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    state: u32,
    len: u32,
}

impl Cursor {
    /// Tokens matched.
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// Whether nothing is matched.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// A token that has followed the matched suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The token.
    pub token: Token,
    /// How often.
    pub count: usize,
    /// Its latest position behind the suffix.
    pub position: usize,
}

/// The automaton.
#[derive(Clone, Debug)]
pub struct Automaton {
    states: Vec<State>,
    edges: Vec<Edge>,
    /// By state and token: the edges that [`SEARCHED`] newer ones of their state stand before.
    older_edges: HashMap<(u32, Token), u32>,
    /// The state of the whole current string.
    last: u32,
}

impl Default for Automaton {
    fn default() -> Self {
        Self::new()
    }
}

impl Automaton {
    /// Holds the empty string only.
    pub fn new() -> Self {
        let root = State { len: 0, link: NONE, end: 0, count: 0, edges: NONE };
        Self { states: vec![root], edges: Vec::new(), older_edges: HashMap::new(), last: ROOT }
    }

    /// Bytes in use, the index counted with 16 bytes per entry.
    pub fn bytes(&self) -> usize {
        self.states.len() * size_of::<State>() + self.edges.len() * size_of::<Edge>() + self.older_edges.len() * 16
    }

    /// The next token belongs to another string: no match reaches across.
    pub fn start_string(&mut self) {
        self.last = ROOT;
    }

    /// Appends `token`, which stands at `position`, to the current string. Positions rise.
    pub fn push(&mut self, token: Token, position: usize) {
        self.last = match self.target(self.last, token) {
            Some(target) => self.split_for(self.last, token, target),
            None => self.append(token),
        };
        self.count_suffixes(self.last, index(position));
    }

    /// A new state for the current string and `token`, linked to its longest suffix known before.
    fn append(&mut self, token: Token) -> u32 {
        let len = self.states[self.last as usize].len + 1;
        let new = self.add_state(State { len, link: ROOT, end: 0, count: 0, edges: NONE });
        let mut state = self.last;
        while state != NONE {
            if let Some(target) = self.target(state, token) {
                let link = self.split_for(state, token, target);
                self.states[new as usize].link = link;
                break;
            }
            self.add_edge(state, token, new);
            state = self.states[state as usize].link;
        }
        new
    }

    /// The state whose longest string is the longest of `state` and `token`: `target` itself, or a clone split off from it.
    fn split_for(&mut self, state: u32, token: Token, target: u32) -> u32 {
        let len = self.states[state as usize].len + 1;
        let original = self.states[target as usize];
        if original.len == len {
            return target;
        }
        let clone = self.add_state(State { len, edges: NONE, ..original });
        self.copy_edges(original.edges, clone);
        self.states[target as usize].link = clone;
        let mut from = state;
        while from != NONE && self.target(from, token) == Some(target) {
            self.redirect(from, token, clone);
            from = self.states[from as usize].link;
        }
        clone
    }

    fn count_suffixes(&mut self, state: u32, position: u32) {
        let mut state = state;
        for _ in 0..MAX_CHAIN {
            if state == ROOT || state == NONE {
                break;
            }
            let s = &mut self.states[state as usize];
            s.count += 1;
            s.end = position;
            state = s.link;
        }
    }

    fn add_state(&mut self, state: State) -> u32 {
        self.states.push(state);
        index(self.states.len() - 1)
    }

    fn add_edge(&mut self, state: u32, token: Token, target: u32) {
        let next = self.states[state as usize].edges;
        self.edges.push(Edge { token, target, next });
        let first = index(self.edges.len() - 1);
        self.states[state as usize].edges = first;
        let older = self.edges_from(first).nth(SEARCHED);
        if let Some(older) = older {
            self.older_edges.insert((state, self.edges[older as usize].token), older);
        }
    }

    fn copy_edges(&mut self, first: u32, to: u32) {
        let copied: Vec<Edge> = self.edges_from(first).map(|at| self.edges[at as usize]).collect();
        for edge in copied.into_iter().rev() {
            self.add_edge(to, edge.token, edge.target);
        }
    }

    fn redirect(&mut self, state: u32, token: Token, target: u32) {
        if let Some(edge) = self.edge(state, token) {
            self.edges[edge as usize].target = target;
        }
    }

    fn edges_from(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        let some = |edge: u32| (edge != NONE).then_some(edge);
        std::iter::successors(some(first), move |&edge| some(self.edges[edge as usize].next))
    }

    fn edge(&self, state: u32, token: Token) -> Option<u32> {
        let mut edges = self.edges_from(self.states[state as usize].edges);
        let newer = edges.by_ref().take(SEARCHED).find(|&edge| self.edges[edge as usize].token == token);
        newer.or_else(|| edges.next().and_then(|_| self.older_edges.get(&(state, token)).copied()))
    }

    fn target(&self, state: u32, token: Token) -> Option<u32> {
        self.edge(state, token).map(|edge| self.edges[edge as usize].target)
    }

    /// The longest suffix of the cursor's text and `token` that is stored.
    pub fn advance(&self, cursor: Cursor, token: Token) -> Cursor {
        let Cursor { mut state, mut len } = self.settled(cursor);
        loop {
            if let Some(target) = self.target(state, token) {
                return self.settled(Cursor { state: target, len: len + 1 });
            }
            let link = self.states[state as usize].link;
            if link == NONE {
                return Cursor::default();
            }
            state = link;
            len = self.states[state as usize].len;
        }
    }

    /// The same suffix, in the state that has it now: a push may have split it off.
    fn settled(&self, cursor: Cursor) -> Cursor {
        let Cursor { mut state, len } = cursor;
        while state != ROOT && len <= self.states[self.states[state as usize].link as usize].len {
            state = self.states[state as usize].link;
        }
        Cursor { state, len }
    }

    /// The longest proper suffix that occurs where the cursor's suffix does not; `None` if that is the empty one.
    pub fn shorter(&self, cursor: Cursor) -> Option<Cursor> {
        let link = self.states[self.settled(cursor).state as usize].link;
        (link != NONE && link != ROOT).then(|| Cursor { state: link, len: self.states[link as usize].len })
    }

    /// Occurrences of the cursor's suffix; 0 for the empty one.
    pub fn count(&self, cursor: Cursor) -> usize {
        self.states[self.settled(cursor).state as usize].count as usize
    }

    /// What has followed the cursor's suffix, the most recently discovered first; nothing for the empty one.
    pub fn successors(&self, cursor: Cursor) -> impl Iterator<Item = Successor> + '_ {
        let state = self.settled(cursor).state;
        let first = if state == ROOT { NONE } else { self.states[state as usize].edges };
        self.edges_from(first).take(MAX_EDGES).map(|edge| {
            let Edge { token, target, .. } = self.edges[edge as usize];
            let target = self.states[target as usize];
            Successor { token, count: target.count as usize, position: target.end as usize }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn build(strings: &[Vec<Token>]) -> Automaton {
        let mut automaton = Automaton::new();
        let mut position = 0;
        for string in strings {
            automaton.start_string();
            for &token in string {
                automaton.push(token, position);
                position += 1;
            }
        }
        automaton
    }

    /// Positions of the last tokens of all occurrences of `needle`, by looking everywhere.
    fn occurrences(strings: &[Vec<Token>], needle: &[Token]) -> Vec<usize> {
        let mut found = Vec::new();
        let mut start = 0;
        for string in strings {
            let ends = (needle.len()..=string.len()).filter(|&end| string[end - needle.len()..end] == *needle);
            found.extend(ends.map(|end| start + end - 1));
            start += string.len();
        }
        found
    }

    /// What follows `needle`: token → (count, latest position).
    fn followers(strings: &[Vec<Token>], needle: &[Token]) -> BTreeMap<Token, (usize, usize)> {
        let all: Vec<Token> = strings.concat();
        let ends: Vec<usize> = strings
            .iter()
            .scan(0, |sum, s| {
                *sum += s.len();
                Some(*sum)
            })
            .collect();
        let mut followers = BTreeMap::new();
        for at in occurrences(strings, needle).into_iter().map(|at| at + 1).filter(|at| !ends.contains(at)) {
            let entry = followers.entry(all[at]).or_insert((0, 0));
            *entry = (entry.0 + 1, at);
        }
        followers
    }

    #[test]
    fn finds_the_longest_suffix_and_its_successors() {
        let automaton = build(&[vec![1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 6]]);
        let cursor = [9, 1, 2, 3].iter().fold(Cursor::default(), |c, &t| automaton.advance(c, t));
        assert_eq!((cursor.len(), automaton.count(cursor)), (3, 2));
        let mut successors: Vec<_> = automaton.successors(cursor).collect();
        successors.sort_by_key(|s| s.token);
        assert_eq!(
            successors,
            [Successor { token: 4, count: 1, position: 3 }, Successor { token: 5, count: 1, position: 7 },]
        );
        assert_eq!(automaton.shorter(cursor), None);
        assert!(automaton.advance(cursor, 77).is_empty());
    }

    #[test]
    fn backs_off_to_shorter_suffixes() {
        let automaton = build(&[vec![1, 2, 3], vec![8, 2, 4]]);
        let cursor = [1, 2].iter().fold(Cursor::default(), |c, &t| automaton.advance(c, t));
        let shorter = automaton.shorter(cursor).unwrap();
        assert_eq!((shorter.len(), automaton.count(shorter)), (1, 2));
        assert_eq!(automaton.successors(shorter).count(), 2);
    }

    #[test]
    fn a_long_repeat_has_one_successor() {
        let automaton = build(&[vec![5; 20_000]]);
        let cursor = automaton.advance(Cursor::default(), 5);
        assert_eq!(automaton.successors(cursor).map(|s| s.token).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn of_a_state_with_many_edges_every_one_is_found() {
        // A comma, then another word, two thousand times.
        let words: Vec<Token> = (1..=2000).flat_map(|word| [0, word]).collect();
        let automaton = build(std::slice::from_ref(&words));
        let comma = automaton.advance(Cursor::default(), 0);
        for word in 1..=2000 {
            let cursor = automaton.advance(comma, word);
            assert_eq!((cursor.len(), automaton.count(cursor)), (2, 1), "{word}");
        }
        assert!(automaton.advance(comma, 2001).is_empty());
        assert_eq!(automaton.successors(comma).count(), MAX_EDGES);
        assert!(automaton.bytes() <= words.len() * (76 + 16), "{}", automaton.bytes());
        // Searched one by one are so many edges at most.
        let lists = (0..index(automaton.states.len())).map(|state| {
            let edges = automaton.edges_from(automaton.states[state as usize].edges);
            edges.skip(SEARCHED).map(|edge| (state, automaton.edges[edge as usize].token)).collect::<Vec<_>>()
        });
        let mut older: Vec<_> = lists.flatten().collect();
        let mut found: Vec<_> = automaton.older_edges.keys().copied().collect();
        older.sort_unstable();
        found.sort_unstable();
        assert_eq!(older, found);
    }

    /// Of a few different tokens, or of more than are searched one by one.
    fn strings() -> impl Strategy<Value = Vec<Vec<Token>>> {
        prop_oneof![Just(4u32), Just(24)]
            .prop_flat_map(|n| prop::collection::vec(prop::collection::vec(0..n, 1..60), 1..4))
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_search(strings in strings(), query in prop::collection::vec(0u32..24, 0..20)) {
            let automaton = build(&strings);
            let mut cursor = Cursor::default();
            for end in 1..=query.len() {
                cursor = automaton.advance(cursor, query[end - 1]);
                let longest = (0..=end).rev().find(|&len| len == 0 || !occurrences(&strings, &query[end - len..end]).is_empty());
                prop_assert_eq!(Some(cursor.len()), longest);
                let matched = &query[end - cursor.len()..end];
                if matched.is_empty() {
                    continue;
                }
                prop_assert_eq!(automaton.count(cursor), occurrences(&strings, matched).len());
                let found: BTreeMap<_, _> = automaton.successors(cursor).map(|s| (s.token, (s.count, s.position))).collect();
                prop_assert_eq!(found, followers(&strings, matched));
            }
        }

        #[test]
        fn a_cursor_survives_pushes(text in prop::collection::vec(0u32..3, 1..60)) {
            // Reads the text just ahead of storing it, as a session does: the cursor is the longest suffix seen before.
            let mut automaton = Automaton::new();
            let mut cursor = Cursor::default();
            for (i, &token) in text.iter().enumerate() {
                cursor = automaton.advance(cursor, token);
                automaton.push(token, i);
                let earlier = [text[..i].to_vec()];
                let longest = (0..=i).rev().find(|&len| len == 0 || !occurrences(&earlier, &text[i + 1 - len..=i]).is_empty());
                prop_assert_eq!(Some(cursor.len()), longest);
                if !cursor.is_empty() {
                    let found: BTreeMap<_, _> = automaton.successors(cursor).map(|s| (s.token, (s.count, s.position))).collect();
                    prop_assert_eq!(found, followers(&[text[..=i].to_vec()], &text[i + 1 - cursor.len()..=i]));
                }
            }
        }

        #[test]
        fn stays_within_its_bounds(strings in strings()) {
            let automaton = build(&strings);
            let n: usize = strings.iter().map(Vec::len).sum();
            prop_assert!(automaton.states.len() <= 2 * n + 1);
            prop_assert!(automaton.edges.len() <= 3 * n);
            prop_assert!(automaton.older_edges.len() < n + strings.len());
        }
    }
}
