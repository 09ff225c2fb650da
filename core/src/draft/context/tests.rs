//! What the context drafter proposes, forgets and keeps.

use proptest::prelude::*;

use super::*;

fn read(drafter: &mut ContextDrafter, tokens: &[Token]) {
    tokens.iter().for_each(|&token| drafter.commit(token));
}

fn root(token: Token) -> Place {
    Place { node: 0, parent: None, token, depth: 0 }
}

fn proposals(drafter: &mut ContextDrafter, place: Place) -> Vec<(Source, Token)> {
    let mut out = Vec::new();
    drafter.propose(place, &mut out);
    out.iter().map(|c| (c.claim.source, c.token)).collect()
}

#[test]
fn continues_the_longest_match_and_follows_the_tree() {
    let mut drafter = ContextDrafter::default();
    read(&mut drafter, &[1, 2, 3, 4, 5, 9, 2, 8, 7, 1, 2]);
    drafter.begin();
    assert_eq!(proposals(&mut drafter, root(2)), [(Source::Context, 3), (Source::Context, 8)]);
    let child = Place { node: 1, parent: Some(0), token: 3, depth: 1 };
    assert_eq!(proposals(&mut drafter, child), [(Source::Context, 4)]);
    let other = Place { node: 2, parent: Some(0), token: 8, depth: 1 };
    assert_eq!(proposals(&mut drafter, other), [(Source::Context, 7)]);
}

#[test]
fn follows_what_the_target_would_say_to_where_that_occurs() {
    // The text says "1 2 3"; at 2 the target would rather say 6, and behind the 6 elsewhere it says 7.
    let mut drafter = ContextDrafter::default();
    read(&mut drafter, &[1, 2]);
    drafter.said(&TopK::from_weights([(6, 0.8), (3, 0.2)]));
    read(&mut drafter, &[3, 6]);
    drafter.said(&TopK::from_weights([(7, 1.0)]));
    read(&mut drafter, &[9, 1, 2]);
    drafter.begin();
    let at_root = proposals(&mut drafter, root(2));
    assert_eq!(at_root, [(Source::Context, 3), (Source::Aligned, 6), (Source::Aligned, 3)]);
    let behind_6 = proposals(&mut drafter, Place { node: 1, parent: Some(0), token: 6, depth: 1 });
    assert_eq!(behind_6, [(Source::Context, 9), (Source::Aligned, 7)]);
}

#[test]
fn app_text_is_quoted_and_does_not_break_the_history() {
    let mut drafter = ContextDrafter::default();
    read(&mut drafter, &[1, 2]);
    drafter.add_context(&[5, 1, 2, 77, 78]);
    drafter.begin();
    assert_eq!(proposals(&mut drafter, root(2)), [(Source::Context, 77)]);
    drafter.commit(77);
    drafter.begin();
    assert_eq!(proposals(&mut drafter, root(77)), [(Source::Context, 78)]);
    drafter.commit(78);
    drafter.begin();
    assert_eq!(proposals(&mut drafter, root(78)), []);
}

#[test]
fn what_is_rolled_back_is_gone() {
    let mut drafter = ContextDrafter::default();
    read(&mut drafter, &[1, 2, 3, 1]);
    drafter.mark();
    read(&mut drafter, &[2, 40, 41, 40]);
    drafter.add_context(&[50, 51]);
    drafter.roll_back();
    assert_eq!(drafter.stored().0, [1, 2, 3, 1]);
    drafter.begin();
    assert_eq!(proposals(&mut drafter, root(1)), [(Source::Context, 2)]);
    drafter.commit(40);
    drafter.begin();
    assert_eq!(proposals(&mut drafter, root(40)), []);
}

#[test]
fn a_rewound_history_is_matched_by_its_new_end_and_the_text_stays() {
    let mut drafter = ContextDrafter::default();
    read(&mut drafter, &[1, 2, 3, 4, 1, 2, 60, 61]);
    drafter.rewind(&[1, 2, 3, 4, 1]);
    drafter.said(&TopK::from_weights([(99, 1.0)]));
    drafter.begin();
    assert_eq!(proposals(&mut drafter, root(1)), [(Source::Context, 2)]);
    drafter.commit(2);
    drafter.begin();
    let mut next = proposals(&mut drafter, root(2));
    next.sort();
    assert_eq!(next, [(Source::Context, 3), (Source::Context, 60)]);
}

#[test]
fn forgets_the_older_half_and_stays_bounded() {
    let mut drafter = ContextDrafter::new(1000);
    let mut state = 1u64;
    let mut most = 0;
    for i in 0..20_000u32 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        drafter.commit(if i % 7 == 0 { 3 } else { u32::try_from(state >> 57).unwrap() });
        most = most.max(drafter.bytes());
        assert!(drafter.len() <= 1000);
    }
    assert!(most <= 1000 * 120, "{most}");
    read(&mut drafter, &[500, 501, 502]);
    read(&mut drafter, &[500, 501]);
    drafter.begin();
    assert_eq!(proposals(&mut drafter, root(501))[0], (Source::Context, 502));
}

#[test]
fn a_forgotten_history_leaves_what_was_handed_in() {
    let mut drafter = ContextDrafter::default();
    drafter.add_context(&[7, 8, 9]);
    read(&mut drafter, &[1, 2, 3, 1, 2]);
    drafter.add_context(&[20, 21]);
    drafter.forget_history();
    assert_eq!(drafter.stored().0, [SEPARATOR, 7, 8, 9, SEPARATOR, SEPARATOR, 20, 21, SEPARATOR]);
    read(&mut drafter, &[1]);
    drafter.begin();
    assert_eq!(proposals(&mut drafter, root(1)), []);
    read(&mut drafter, &[7]);
    drafter.begin();
    assert_eq!(proposals(&mut drafter, root(7)), [(Source::Context, 8)]);
}

#[test]
fn saved_text_comes_back_as_context() {
    let mut first = ContextDrafter::default();
    read(&mut first, &[10, 11, 12]);
    first.said(&TopK::from_weights([(13, 1.0)]));
    read(&mut first, &[14]);
    let mut second = ContextDrafter::default();
    read(&mut second, &[10, 11, 12]);
    let (text, rows) = first.stored();
    second.restore(text, rows);
    second.begin();
    assert_eq!(proposals(&mut second, root(12)), [(Source::Context, 14), (Source::Aligned, 13)]);
}

proptest! {
    #[test]
    fn rolling_back_equals_never_having_read(
        before in prop::collection::vec(0u32..4, 1..40), after in prop::collection::vec(0u32..4, 0..40)
    ) {
        let mut plain = ContextDrafter::default();
        read(&mut plain, &before);
        let mut rolled = plain.clone();
        rolled.mark();
        read(&mut rolled, &after);
        rolled.roll_back();
        plain.begin();
        rolled.begin();
        let place = root(before[before.len() - 1]);
        prop_assert_eq!(proposals(&mut rolled, place), proposals(&mut plain, place));
    }

    #[test]
    fn what_is_handed_in_is_kept_once_and_no_history_with_it(
        steps in prop::collection::vec((0u8..6, prop::collection::vec(0u32..4, 0..40)), 1..20)
    ) {
        let handed_in = |drafter: &ContextDrafter| -> Vec<Token> {
            drafter.text.iter().copied().filter(|&token| token >= 10 && token != SEPARATOR).collect()
        };
        let mut drafter = ContextDrafter::new(128);
        for (step, text) in steps {
            let quoted: Vec<Token> = text.iter().map(|token| token + 10).collect();
            match step {
                0 => read(&mut drafter, &text),
                1 => drafter.add_context(&quoted),
                2 => drafter.mark(),
                3 => drafter.roll_back(),
                4 => drafter.restore(&quoted, &vec![TopK::default(); quoted.len()]),
                _ => {
                    let mut before = handed_in(&drafter);
                    drafter.forget_history();
                    let mut after = handed_in(&drafter);
                    before.sort_unstable();
                    after.sort_unstable();
                    prop_assert_eq!(after, before);
                    prop_assert!(drafter.text.iter().all(|&token| token >= 10), "history was kept: {:?}", drafter.text);
                }
            }
            prop_assert_eq!(drafter.rows.len(), drafter.text.len());
            prop_assert!(drafter.text.len() <= 128);
        }
    }

    #[test]
    fn never_proposes_a_separator_or_a_token_twice(
        texts in prop::collection::vec(prop::collection::vec(0u32..3, 0..20), 1..5)
    ) {
        let mut drafter = ContextDrafter::new(128);
        for text in &texts {
            read(&mut drafter, text);
            drafter.add_context(text);
        }
        drafter.begin();
        let mut proposed = proposals(&mut drafter, root(0));
        prop_assert!(proposed.iter().all(|&(_, token)| token < 3));
        let n = proposed.len();
        proposed.sort();
        proposed.dedup();
        prop_assert_eq!(proposed.len(), n);
    }
}
