use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::accept::{Choice, accept};
use crate::cancel::Cancel;
use crate::cost::PassCost;
use crate::draft::{Answer, Candidate, Hindsight, TopK};
use crate::error::Result;
use crate::tree::{Claim, DraftTree, NodeId, ROOT};

/// Rows cost next to nothing beside the pass.
fn cheap_rows() -> CostModel {
    let mut cost = CostModel::default();
    for (rows, ms) in [(1, 30.1), (8, 30.4), (64, 33.2)] {
        cost.observe(&PassCost { rows, leaves: 1, verify_ms: ms, ..PassCost::default() });
    }
    cost
}

fn speculation(drafting: Drafting) -> Speculation {
    Speculation::new(drafting, Limits::default(), 1000, cheap_rows().into())
}

/// Decodes `text[at..]` to its end; returns the rows of each pass.
fn decode(spec: &mut Speculation, text: &[Token], from: usize) -> Vec<usize> {
    let (mut at, mut rows) = (from, Vec::new());
    while at < text.len() {
        let plan = spec.plan(at - 1, 64, &|| 0.0, &Cancel::new()).unwrap();
        let n = plan.flat.rows.len();
        let choose = |path: &[u32]| {
            let next = at + path.len() - 1;
            Ok(if next + 1 < text.len() { Choice::Continue(text[next]) } else { Choice::Stop(text[next]) })
        };
        let accepted = accept(&plan.flat, choose).unwrap();
        assert_eq!(accepted.emitted(&plan.flat).collect::<Vec<_>>(), text[at..at + accepted.path.len()]);
        let pass = PassCost { rows: n, leaves: 1, cached: at - 1, verify_ms: 30.0, ..PassCost::default() };
        at += spec.settle(&plan, &accepted, &[], &pass, &|| 0.0).emitted;
        rows.push(n);
    }
    rows
}

fn read(spec: &mut Speculation, text: &[Token]) {
    text.iter().for_each(|&token| spec.read(token, None));
}

/// A phrase of twenty tokens, four times.
fn repetitive() -> Vec<Token> {
    (0..80).map(|i| 100 + i % 20).collect()
}

#[test]
fn what_repeats_is_drafted_and_what_is_off_is_not() {
    let text = repetitive();
    let mut on = speculation(Drafting::Auto);
    read(&mut on, &text[..30]);
    let passes = decode(&mut on, &text, 30);
    assert!(passes.len() < 20, "{passes:?}");
    let mut off = speculation(Drafting::Off);
    read(&mut off, &text[..30]);
    assert_eq!(decode(&mut off, &text, 30), vec![1; 50]);
}

#[test]
fn a_chain_is_as_long_as_ordered() {
    let text = repetitive();
    let mut spec = speculation(Drafting::Chain { n: 4 });
    read(&mut spec, &text[..30]);
    let plan = spec.plan(29, 64, &|| 0.0, &Cancel::new()).unwrap();
    assert_eq!(plan.flat.rows.iter().map(|r| r.token).collect::<Vec<_>>(), [109, 110, 111, 112, 113]);
    let narrow = spec.plan(29, 3, &|| 0.0, &Cancel::new()).unwrap();
    assert_eq!(narrow.flat.rows.len(), 3, "the context has no room for more");
}

#[test]
fn without_any_measurement_the_first_pass_is_plain() {
    let text = repetitive();
    let mut spec = Speculation::new(Drafting::Auto, Limits::default(), 1000, Experience::default());
    read(&mut spec, &text[..30]);
    let passes = decode(&mut spec, &text, 30);
    assert_eq!(passes[0], 1);
    assert!(passes.iter().any(|&rows| rows > planning::FIRST_ROWS), "{passes:?}");
    // All passes take as long here: from the second size on, rows look free.
    for (i, &rows) in passes.iter().enumerate() {
        let tried = passes[..i].iter().copied().max().unwrap_or(0);
        assert!(rows <= (2 * tried).max(planning::FIRST_ROWS), "{passes:?}");
    }
}

#[test]
fn a_turn_that_was_rolled_back_is_not_drafted_from() {
    let mut spec = speculation(Drafting::Auto);
    read(&mut spec, &[1, 2, 3]);
    spec.mark();
    read(&mut spec, &[7, 8, 9, 7]);
    spec.roll_back();
    spec.read(7, None);
    let plan = spec.plan(3, 64, &|| 0.0, &Cancel::new()).unwrap();
    assert_eq!(plan.tree.len(), 1, "nothing follows 7 any more");
    assert_eq!(plan.tree.nodes()[ROOT].token, 7);
}

#[test]
fn a_prompt_rendered_anew_is_read_from_where_it_differs() {
    let mut spec = speculation(Drafting::Auto);
    read(&mut spec, &[1, 2, 3, 50, 51, 4]);
    assert_eq!(spec.align(&[1, 2, 3, 50, 51, 4, 9]), 6);
    spec.cast_shadow(&spec.cost.prices(5, 8), Limits::default(), &|| 0.0).unwrap();
    assert_eq!(spec.align(&[1, 2, 3, 60, 50]), 3);
    assert!(spec.shadow.is_none() && spec.wanted.is_empty(), "they were about a text that is gone");
    read(&mut spec, &[60, 50]);
    let plan = spec.plan(4, 64, &|| 0.0, &Cancel::new()).unwrap();
    assert_eq!(plan.tree.nodes()[ROOT].token, 50);
    assert!(plan.tree.child(ROOT, 51).is_some(), "what was left out may still be quoted");
}

#[test]
fn nothing_of_the_last_answer_is_judged_by_the_next_prompt() {
    let mut spec = speculation(Drafting::Auto);
    read(&mut spec, &[1, 2, 3, 1, 2]);
    spec.cast_shadow(&spec.cost.prices(5, 8), Limits::default(), &|| 0.0).unwrap();
    spec.reuse.verified(crate::draft::Verified { drafted: &[4, 5, 6], predicted: &[9] });
    spec.mark();
    assert!(spec.shadow.is_none(), "it was about the last answer");
    let learnt = spec.kinds.clone();
    spec.read(7, Some(&TopK::of(&[0.0, 1.0])));
    let first_rate = |kinds: &Kinds| kinds.current().first_rate(Source::Reuse);
    assert_eq!(first_rate(&spec.kinds), first_rate(&learnt));
}

#[test]
fn settling_is_booked_with_the_next_step() {
    let clock = std::cell::Cell::new(0.0);
    let tick = || {
        clock.set(clock.get() + 0.5);
        clock.get()
    };
    let text = repetitive();
    let mut spec = speculation(Drafting::Auto);
    read(&mut spec, &text[..30]);
    let plan = spec.plan(29, 64, &|| 0.0, &Cancel::new()).unwrap();
    assert_eq!(plan.draft_ms, 0.0);
    let accepted = accept(&plan.flat, |path| Ok(Choice::Continue(text[29 + path.len()]))).unwrap();
    let pass = PassCost { rows: plan.flat.rows.len(), leaves: 1, verify_ms: 30.0, ..PassCost::default() };
    spec.settle(&plan, &accepted, &[], &pass, &tick);
    assert_eq!(spec.plan(40, 64, &|| 0.0, &Cancel::new()).unwrap().draft_ms, 0.5);
}

#[test]
fn saved_drafts_work_in_another_session() {
    let text = repetitive();
    let mut first = speculation(Drafting::Auto);
    read(&mut first, &text[..20]);
    let saved = first.saved();
    let mut second = speculation(Drafting::Auto);
    second.restore(&saved);
    read(&mut second, &[105, 106]);
    let plan = second.plan(1, 64, &|| 0.0, &Cancel::new()).unwrap();
    assert!(plan.tree.child(ROOT, 107).is_some());
}

/// A draft model that always says one token and fails when it is cancelled.
#[derive(Default)]
struct Parrot {
    unread: usize,
    at_most: Arc<AtomicUsize>,
}

impl BatchDrafter for Parrot {
    fn commit(&mut self, _token: Token) {
        self.unread += 1;
    }

    fn n_unread(&self) -> usize {
        self.unread
    }

    fn read_at_most(&mut self, tokens: usize) {
        self.at_most.store(tokens, Ordering::Relaxed);
    }

    fn propose(&mut self, _tree: &DraftTree, nodes: &[NodeId], cancel: &Cancel) -> Result<Answer> {
        if cancel.is_cancelled() {
            return Err(crate::ErrorKind::Cancelled.into());
        }
        self.unread = 0;
        let claim = Claim { source: Source::Model, major: 11, minor: 0 };
        Ok(Answer { candidates: vec![vec![Candidate { token: 5, claim }]; nodes.len()], hindsight: Vec::new() })
    }

    fn look(&mut self, _n: usize, _cancel: &Cancel) -> Result<Vec<Hindsight>> {
        self.unread = 0;
        Ok(Vec::new())
    }

    fn rewind(&mut self, _len: usize) {}

    fn mark(&mut self) {}

    fn roll_back(&mut self) {}
}

#[test]
fn a_draft_model_drafts_and_its_errors_come_through() {
    let mut spec = speculation(Drafting::Auto).with_model(Box::<Parrot>::default());
    read(&mut spec, &[1, 5]);
    let passes = decode(&mut spec, &[5; 60], 2);
    assert!(passes.len() < 20, "{passes:?}");
    let cancel = Cancel::new();
    cancel.cancel();
    let mut chain = speculation(Drafting::Chain { n: 2 }).with_model(Box::<Parrot>::default());
    chain.read(1, None);
    assert!(chain.plan(0, 64, &|| 0.0, &cancel).unwrap_err().is_cancelled());
    let mut context = speculation(Drafting::Context).with_model(Box::<Parrot>::default());
    context.read(1, None);
    assert_eq!(context.plan(0, 64, &|| 0.0, &cancel).unwrap().growth.model_rounds, 0, "the model is not asked");
}

#[test]
fn a_draft_model_reads_the_last_message_as_far_as_one_pass_of_the_target_pays_for_it() {
    const END: Token = 7;
    let at_most_of = |drafting: Drafting, token_ms: f64, text: &[Token]| {
        let parrot = Parrot::default();
        let at_most = Arc::clone(&parrot.at_most);
        let mut spec = speculation(drafting).with_model(Box::new(parrot)).with_ends(vec![END]);
        let plain = PassCost { rows: 1, leaves: 1, verify_ms: 30.0, ..PassCost::default() };
        spec.cost.observe(&plain);
        spec.cost.observe_draft_batch(64, 64.0 * token_ms);
        read(&mut spec, text);
        spec.let_model_read(64, &|| 0.0, &Cancel::new()).unwrap();
        at_most.load(Ordering::Relaxed)
    };
    let at_most = |drafting, token_ms| at_most_of(drafting, token_ms, &[5; 400]);
    assert_eq!(at_most(Drafting::Auto, 0.1), 300, "a pass of 30 ms");
    assert_eq!(at_most(Drafting::Auto, 0.5), 60);
    assert_eq!(at_most(Drafting::Auto, 50.0), LOOK_BACK, "enough to be judged by");
    assert!(at_most(Drafting::Auto, 0.0) > 400);
    assert_eq!(at_most(Drafting::Chain { n: 4 }, 0.5), 60, "the second token waits for a chain's model too");

    // Messages that the template ends, and one behind the end of an answer that it does not.
    for (last, opening) in [(&[5; 100][..], &[END, 9, 9][..]), (&[5; 103], &[])] {
        let text = [&[5; 200], &[END][..], last, opening].concat();
        assert_eq!(at_most_of(Drafting::Auto, 0.1, &text), 103);
        assert_eq!(at_most_of(Drafting::Auto, 0.5, &text), 60);
        assert_eq!(at_most_of(Drafting::Auto, 0.05, &text), 150, "of a short one some of what is before");
    }
}

#[test]
fn drafters_that_were_not_wanted_catch_up() {
    // Turns of plain decoding and of drafting, kept and rolled back, and a new rendering that ends earlier.
    let turns =
        [(false, true), (true, true), (false, false), (false, true), (true, false), (false, true), (true, true)];
    let texts = [false, true].map(|hears_all| {
        let mut spec = speculation(Drafting::Auto).with_model(Box::<Parrot>::default());
        let mut text: Vec<Token> = vec![1, 2, 3];
        for (turn, (drafts, keeps)) in (0u32..).zip(turns) {
            spec.set_drafting(if drafts || hears_all { Drafting::Auto } else { Drafting::Off });
            let before = text.len();
            text.extend([7, 8, 7 + turn, 9]);
            let common = spec.align(&text);
            assert_eq!(common, if turn == 0 { 0 } else { before });
            spec.mark();
            read(&mut spec, &text[common..]);
            if !keeps {
                spec.roll_back();
                text.truncate(before);
            }
        }
        spec.align(&text[..text.len() - 2]);
        spec.set_drafting(Drafting::Auto);
        spec.mark();
        assert_eq!(spec.n_heard, spec.n_read());
        spec.saved().context.iter().map(|(token, _)| *token).collect::<Vec<_>>()
    });
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn plain_decoding_pays_for_no_drafter() {
    let mut spec = speculation(Drafting::Off).with_model(Box::<Parrot>::default());
    let before = spec.bytes();
    read(&mut spec, &[1, 2, 3, 1, 2, 3]);
    decode(&mut spec, &[5; 20], 2);
    assert_eq!((spec.bytes(), spec.n_heard, spec.n_read()), (before, 0, 24));
}

#[test]
fn drafting_is_read_as_people_write_it() {
    assert_eq!("auto".parse::<Drafting>().unwrap(), Drafting::Auto);
    assert_eq!("chain:8".parse::<Drafting>().unwrap(), Drafting::Chain { n: 8 });
    for wrong in ["", "Auto", "chain", "chain:", "chain:0", "chain:64", "chain:-1"] {
        let message = wrong.parse::<Drafting>().unwrap_err().to_string();
        assert!(message.starts_with("drafting: ") && message.contains("chain:N"), "{message}");
    }
}
