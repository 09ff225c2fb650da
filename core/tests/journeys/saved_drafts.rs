//! What a session drafts from outlives it: a later session is fast from its first answer on, and one that cannot read what was saved is
//! as good as before.

use std::path::{Path, PathBuf};

use fulcrum::executor::scripted::ByteVocabulary;
use fulcrum::{ChatSession, Drafting, ErrorKind, GenerationOptions, Response, SessionOptions};

use crate::support::*;

/// No two bytes of it are the same, and none is of a prompt: whoever foresees one of it has read it before.
const TEXT: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// A file's path in a folder for this process, removed again.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("fulcrum-saved-drafts-{}-{name}", std::process::id())))
    }

    fn with(name: &str, bytes: &[u8]) -> Self {
        let file = Self::new(name);
        std::fs::write(&file.0, bytes).unwrap();
        file
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A session of a new model, which has learnt nothing.
fn fresh(vocabulary: ByteVocabulary) -> ChatSession {
    let weights = replying(|_, _| TEXT.into()).weights();
    model_with(weights, 2000, vocabulary, None).session(SessionOptions::default()).unwrap()
}

fn answer(session: &ChatSession) -> Response {
    let options = GenerationOptions { drafting: Drafting::Chain { n: 8 }, ..Default::default() };
    let response = session.respond_with("?", &options).unwrap();
    assert_eq!(response.text, TEXT);
    response
}

/// Drafts that a session saved after an answer.
fn save(name: &str, vocabulary: ByteVocabulary) -> File {
    let file = File::new(name);
    let session = fresh(vocabulary);
    answer(&session);
    session.save_drafts(&file.0).unwrap();
    file
}

#[test]
fn the_first_answer_of_a_later_session_is_drafted_from_what_was_saved() {
    let without = answer(&fresh(ByteVocabulary::new())).metrics;
    assert_eq!(without.accepted, 0, "it cannot be foreseen");
    let file = save("whole", ByteVocabulary::new());
    let session = fresh(ByteVocabulary::new());
    session.load_drafts(&file.0).unwrap();
    let with = answer(&session).metrics;
    assert!(with.accepted > 20 && with.accepted_by.context > 20, "{with:?}");
    assert!(with.target_passes * 3 < without.target_passes, "{with:?}");
    assert_eq!(session.history().len(), 2, "what was loaded is no part of the conversation");
    // And on: the later session saves what the earlier one had.
    let passed_on = File::new("passed-on");
    let last = fresh(ByteVocabulary::new());
    let middle = fresh(ByteVocabulary::new());
    middle.load_drafts(&file.0).unwrap();
    middle.save_drafts(&passed_on.0).unwrap();
    last.load_drafts(&passed_on.0).unwrap();
    assert_eq!(answer(&last).metrics.accepted, with.accepted);
}

/// Loading fails and leaves a session that answers as if it had not been tried; returns what went wrong.
fn refused(session: &ChatSession, path: &Path) -> fulcrum::Error {
    let error = session.load_drafts(path).unwrap_err();
    assert_eq!(answer(session).metrics.accepted, 0, "something of it was taken");
    error
}

#[test]
fn what_was_saved_with_another_vocabulary_is_refused() {
    // Of the same size, so that every token saved is one of its own, which means something else.
    let file = save("vocabulary", ByteVocabulary::with_pieces(&["the "]));
    let error = refused(&fresh(ByteVocabulary::with_pieces(&["and "])), &file.0);
    assert!(matches!(error.kind(), ErrorKind::InvalidOption { option: "saved drafts", .. }), "{error:?}");
    assert!(error.to_string().contains("vocabulary"), "{error}");
}

#[test]
fn a_file_that_is_cut_off_empty_damaged_or_not_there_is_refused() {
    let whole = std::fs::read(&save("to-damage", ByteVocabulary::new()).0).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let cut = [0, 1, 7, 8, 27, 28, whole.len() / 2, whole.len() - 1].map(|n| whole[..n].to_vec());
    for bytes in cut.iter().chain([&flipped]) {
        let file = File::with("damaged", bytes);
        let error = refused(&fresh(ByteVocabulary::new()), &file.0);
        assert!(matches!(error.kind(), ErrorKind::InvalidOption { option: "saved drafts", .. }), "{error:?}");
    }
    let missing = File::new("missing");
    let error = refused(&fresh(ByteVocabulary::new()), &missing.0);
    assert!(matches!(error.kind(), ErrorKind::File { .. }), "{error:?}");
    // A session that was given what is damaged takes what is sound.
    let (session, sound) = (fresh(ByteVocabulary::new()), File::with("sound", &whole));
    assert!(session.load_drafts(&missing.0).is_err());
    session.load_drafts(&sound.0).unwrap();
    assert!(answer(&session).metrics.accepted > 20);
}

#[test]
fn what_a_reset_forgot_is_neither_drafted_from_nor_saved() {
    let session = fresh(ByteVocabulary::new());
    answer(&session);
    session.reset().unwrap();
    let file = File::new("reset");
    session.save_drafts(&file.0).unwrap();
    assert_eq!(answer(&session).metrics.accepted, 0);
    let later = fresh(ByteVocabulary::new());
    later.load_drafts(&file.0).unwrap();
    assert_eq!(answer(&later).metrics.accepted, 0);
}

#[test]
fn drafts_are_not_saved_where_they_cannot_be_or_while_an_answer_is_generated() {
    let session = fresh(ByteVocabulary::new());
    let nowhere = std::env::temp_dir().join(format!("fulcrum-no-such-folder-{}", std::process::id())).join("drafts");
    assert!(matches!(session.save_drafts(&nowhere).unwrap_err().kind(), ErrorKind::File { .. }));
    let file = File::new("busy");
    let stream = session.stream_response("?").unwrap();
    assert!(matches!(session.save_drafts(&file.0).unwrap_err().kind(), ErrorKind::Busy));
    assert!(!file.0.exists());
    stream.finish().unwrap();
    session.save_drafts(&file.0).unwrap();
    session.close();
    assert!(matches!(session.save_drafts(&file.0).unwrap_err().kind(), ErrorKind::Closed));
}
