//! Where a long text may be cut so that its pieces, encoded one by one, are the tokens of the whole.
//!
//! llama.cpp keeps what it has found of special tokens in a list and walks along it for each one that it finds: in a text with
//! 80,000 of them that takes ten seconds. So long texts are cut in front of special tokens, where that changes nothing. It does not where
//!
//! - no other special token can share a byte with this one, nor can it with itself: then it is found, whichever is looked for first,
//!   and none lies across the cut;
//! - it begins and ends with a printable ASCII character: tokens that take the whitespace beside them stop there;
//! - it takes none of what is before it.
//!
//! Text between special tokens is encoded by itself anyway. Whether a space is put in front of it depends on the token before it, which is
//! in the same piece.

use std::collections::{HashMap, HashSet};

/// Bytes that a piece has at least. Texts of up to twice as many stay whole.
const PIECE: usize = 8 << 10;

/// A special token, as it is looked for in texts.
pub(crate) struct Special {
    pub(crate) text: Box<[u8]>,
    /// Whether the whitespace before it is part of it.
    pub(crate) strips_before: bool,
}

/// The special tokens of a vocabulary, and those of them that a piece may begin with.
pub(crate) struct Cuts {
    texts: Vec<Box<[u8]>>,
    openers: HashSet<Box<[u8]>>,
    lengths: Vec<usize>,
    first_bytes: [bool; 256],
}

impl Cuts {
    /// For a vocabulary in which all of these, and nothing else, are special.
    pub(crate) fn new(specials: impl IntoIterator<Item = Special>) -> Self {
        let mut cuts =
            Self { texts: Vec::new(), openers: HashSet::new(), lengths: Vec::new(), first_bytes: [false; 256] };
        for Special { text, strips_before } in specials {
            if let (Some(first), Some(last), false) = (text.first(), text.last(), strips_before)
                && first.is_ascii_graphic()
                && last.is_ascii_graphic()
            {
                cuts.first_bytes[usize::from(*first)] = true;
                cuts.lengths.push(text.len());
                cuts.openers.insert(text.clone());
            }
            cuts.texts.push(text);
        }
        cuts.lengths.sort_unstable();
        cuts.lengths.dedup();
        cuts
    }

    /// `text`, cut.
    pub(crate) fn pieces<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let (mut pieces, mut rest, mut known) = (Vec::new(), text, HashMap::new());
        while rest.len() > 2 * PIECE {
            let cut = (PIECE..rest.len()).find(|&at| self.is_cut(&rest.as_bytes()[at..], &mut known));
            // What begins with an ASCII character begins at a code point.
            let Some((piece, behind)) = cut.map(|at| rest.split_at(at)) else { break };
            pieces.push(piece);
            rest = behind;
        }
        pieces.push(rest);
        pieces
    }

    /// Whether what begins with `text` may begin a piece. `known` says which special tokens stand alone, as far as it was asked.
    fn is_cut<'s>(&'s self, text: &[u8], known: &mut HashMap<&'s [u8], bool>) -> bool {
        let opens = |len: &usize| self.openers.get(text.get(..*len)?);
        let mut alone = |opener: &'s [u8]| *known.entry(opener).or_insert_with(|| self.stands_alone(opener));
        self.first_bytes[usize::from(text[0])] && self.lengths.iter().filter_map(opens).any(|opener| alone(opener))
    }

    fn stands_alone(&self, opener: &[u8]) -> bool {
        self.texts.iter().all(|text| !overlap(opener, text))
    }
}

/// Whether there is a text in which `a` and `b` share bytes; if they are the same, an `a` with another.
fn overlap(a: &[u8], b: &[u8]) -> bool {
    let agree = |a: &[u8], b: &[u8]| a.iter().zip(b).all(|(a, b)| a == b);
    (0..a.len()).any(|at| agree(&a[at..], b) && (at > 0 || a != b)) || (1..b.len()).any(|at| agree(&b[at..], a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cuts(specials: &[&str]) -> Cuts {
        Cuts::new(
            specials.iter().map(|text| Special { text: text.as_bytes().into(), strips_before: *text == "<strip>" }),
        )
    }

    #[test]
    fn what_can_share_bytes_overlaps() {
        for (a, b) in [("<a>", "<a>x"), ("<a>", "x<a>"), ("<a>", "x<a>x"), ("<a>", "><"), ("><", "<a>"), ("<><", "<><")]
        {
            assert!(overlap(a.as_bytes(), b.as_bytes()) && overlap(b.as_bytes(), a.as_bytes()), "{a} {b}");
        }
        for (a, b) in [("<a>", "<a>"), ("<a>", "<b>"), ("<|im_start|>", "<|im_end|>")] {
            assert!(!overlap(a.as_bytes(), b.as_bytes()), "{a} {b}");
        }
    }

    #[test]
    fn cuts_are_before_tokens_that_stand_alone() {
        let cuts = cuts(&["<a>", "<b>", "<b>b", "<strip>", " <c>", "<d>\n", "(("]);
        let text = |piece: &str| piece.repeat(10 * PIECE / piece.len());
        for (piece, is_cut) in
            [("x<a>", true), ("x<b>b", false), ("x<strip>", false), ("x <c>", false), ("x<d>\n", false), ("x((", false)]
        {
            let text = text(piece);
            let pieces = cuts.pieces(&text);
            assert_eq!(pieces.concat(), text);
            assert_eq!(pieces.len() > 1, is_cut, "{piece}");
            assert!(pieces[1..].iter().all(|piece| piece.starts_with("<a>")));
            assert!(!is_cut || pieces.iter().all(|piece| piece.len() <= 2 * PIECE));
        }
        assert_eq!(cuts.pieces("").len(), 1);
    }

    proptest! {
        /// Looked for anywhere: what two texts share of a text.
        #[test]
        fn overlaps_are_what_a_search_finds(a in "[ab]{1,4}", b in "[ab]{1,4}", around in "[ab]{0,12}") {
            let at = |text: &str, of: &str| -> Vec<usize> {
                (0..text.len()).filter(|&at| text[at..].starts_with(of)).collect()
            };
            let shared = at(&around, &a).iter().any(|&i| {
                at(&around, &b).iter().any(|&j| i < j + b.len() && j < i + a.len() && (a != b || i != j))
            });
            prop_assert!(!shared || overlap(a.as_bytes(), b.as_bytes()));
        }
    }
}
