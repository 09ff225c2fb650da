//! Strings that end a generation and are never shown.
//!
//! Text comes in pieces and a stop string may straddle them, so the end of the text is held back exactly as long as it may
//! still become a stop string, and released with the piece that rules it out.
//!
//! Deliberately not known here: tokens. A stop string may begin or end in the middle of one.

use crate::error::{ErrorKind, Result};

/// What a piece of text became.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOutput {
    /// Text that can be shown now.
    pub text: String,
    /// The stop string that ended the text (an index into the list given), if one did.
    pub stopped: Option<usize>,
}

/// Watches a text for stop strings. It ends where the first of them is complete; of several that are complete at the same
/// place, the longest counts.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    /// The end of the text so far: the longest suffix that begins a stop string.
    held: String,
    stopped: Option<usize>,
}

impl StopStrings {
    /// Watches for any of `stops`; an empty list lets everything pass.
    ///
    /// Fails with `InvalidOption` if one of them is empty.
    pub fn new(stops: Vec<String>) -> Result<Self> {
        if let Some(index) = stops.iter().position(String::is_empty) {
            let reason =
                format!("stop string {index} is empty and would end every answer before it begins; leave it out");
            return Err(ErrorKind::InvalidOption { option: "stop", reason }.into());
        }
        Ok(Self { stops, ..Self::default() })
    }

    /// Takes the next piece of text. Once a stop string was found, nothing more is let through.
    pub fn push(&mut self, piece: &str) -> StopOutput {
        if self.stopped.is_some() {
            return StopOutput { text: String::new(), stopped: self.stopped };
        }
        let mut text = std::mem::take(&mut self.held);
        text.push_str(piece);
        if let Some((index, start)) = self.first_match(&text) {
            text.truncate(start);
            self.stopped = Some(index);
        } else {
            self.held = text.split_off(text.len() - self.undecided(&text));
        }
        StopOutput { text, stopped: self.stopped }
    }

    /// Ends the text and returns what was held back: it did not become a stop string. Nothing after a stop.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The stop string that was found.
    pub fn stopped(&self) -> Option<usize> {
        self.stopped
    }

    /// The stop string that is complete first, and where it starts.
    fn first_match(&self, text: &str) -> Option<(usize, usize)> {
        // A search looks at all of what it looks for first, and a stop string may be long.
        let possible = self.stops.iter().enumerate().filter(|(_, stop)| stop.len() <= text.len());
        let matches = possible.filter_map(|(i, stop)| text.find(stop.as_str()).map(|at| (i, at)));
        matches.min_by_key(|&(i, start)| (start + self.stops[i].len(), start))
    }

    /// Length of the longest suffix of `text` that is the beginning of a stop string.
    fn undecided(&self, text: &str) -> usize {
        let longest = |stop: &String| {
            let lengths = 1..stop.len().min(text.len() + 1);
            lengths.rev().find(|&n| text.as_bytes().ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::StopStrings;
    use proptest::prelude::*;

    fn watch(stops: &[&str]) -> StopStrings {
        StopStrings::new(stops.iter().map(|s| (*s).to_owned()).collect()).unwrap()
    }

    #[test]
    fn straddling_stop_never_leaks() {
        let mut watch = watch(&["</answer>", "\nUser:"]);
        assert_eq!(watch.push("Fine.</ans").text, "Fine.");
        assert_eq!(watch.push("wer").text, "");
        let out = watch.push("> and more");
        assert_eq!((out.text.as_str(), out.stopped), ("", Some(0)));
        assert_eq!(watch.push("nothing after it").text, "");
        assert_eq!(watch.finish(), "");
    }

    #[test]
    fn false_alarm_is_released_at_once() {
        let mut watch = watch(&["aab"]);
        assert_eq!(watch.push("aa").text, "");
        // "aaa": the first a can no longer begin the stop, the last two still can.
        assert_eq!(watch.push("a").text, "a");
        assert_eq!(watch.push("c").text, "aac");
        assert_eq!(watch.push("a").text, "");
        assert_eq!(watch.finish(), "a");
    }

    #[test]
    fn first_to_be_complete_wins_and_then_the_longest() {
        let out = watch(&["abcd", "bc"]).push("abcd");
        assert_eq!((out.text.as_str(), out.stopped), ("a", Some(1)));
        let out = watch(&["c", "abc"]).push("xabc");
        assert_eq!((out.text.as_str(), out.stopped), ("x", Some(1)));
    }

    #[test]
    fn code_points_stay_whole() {
        let mut watch = watch(&["é!"]);
        assert_eq!(watch.push("è").text, "è");
        assert_eq!(watch.push("é").text, "");
        assert_eq!(watch.push("?").text, "é?");
    }

    #[test]
    fn empty_stop_is_refused_and_an_empty_list_is_transparent() {
        assert!(StopStrings::new(vec!["ok".into(), String::new()]).is_err());
        assert_eq!(watch(&[]).push("anything").text, "anything");
    }

    /// The definition: the first place where any stop string is complete, the longest of them there.
    fn naive(stops: &[String], text: &str) -> (String, Option<usize>) {
        for end in 0..=text.len() {
            let here = |i: &usize| text.as_bytes()[..end].ends_with(stops[*i].as_bytes());
            // The first of equals, as the list may hold a string twice.
            if let Some(i) = (0..stops.len()).filter(here).min_by_key(|&i| std::cmp::Reverse(stops[i].len())) {
                return (text[..end - stops[i].len()].to_owned(), Some(i));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn agrees_with_naive_search_at_every_piece(
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            pieces in prop::collection::vec("[abcé]{0,3}", 0..12),
        ) {
            let mut watch = StopStrings::new(stops.clone()).unwrap();
            let (mut text, mut shown) = (String::new(), String::new());
            for piece in &pieces {
                text.push_str(piece);
                let out = watch.push(piece);
                shown.push_str(&out.text);
                let (visible, stopped) = naive(&stops, &text);
                prop_assert_eq!(out.stopped, stopped);
                // As much as possible is shown: what is held back really begins a stop string.
                let held = visible.strip_prefix(shown.as_str()).expect("leaked");
                prop_assert!(held.is_empty() || (stopped.is_none() && stops.iter().any(|s| s.starts_with(held))), "held {:?}", held);
            }
            shown.push_str(&watch.finish());
            prop_assert_eq!(shown, naive(&stops, &text).0);
        }
    }
}
