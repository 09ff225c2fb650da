//! What a text that is not complete yet begins with.

use serde_json::{Deserializer, Map, Value};

/// What the text begins with, and the text behind it.
pub(super) type Scanned<'a, T> = Result<(T, &'a str), Unread>;

/// Why there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The text begins with something else.
    Other,
    /// More of the text has to come first.
    Undecided,
    /// An object is open: nothing changes before the next brace that closes.
    Open,
}

/// A text with any white space, or none, between its words, because models are not exact there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marker(Vec<String>);

impl Marker {
    pub(super) fn new(text: &str) -> Self {
        Self(text.split_whitespace().map(str::to_owned).collect())
    }

    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it could stand in any text, so that only its place tells that it is one.
    pub(super) fn is_weak(&self) -> bool {
        !self.words().any(|word| word.contains(char::is_alphanumeric))
    }

    pub(super) fn scan<'a>(&self, text: &'a str) -> Scanned<'a, ()> {
        let mut rest = text;
        for word in self.words() {
            rest = rest.trim_start();
            rest = match rest.strip_prefix(word) {
                Some(behind) => behind,
                None if word.starts_with(rest) => return Err(Unread::Undecided),
                None => return Err(Unread::Other),
            };
        }
        Ok(((), rest))
    }
}

/// A name or an id. It ends where something else begins.
pub(super) fn word(text: &str) -> Scanned<'_, &str> {
    let text = text.trim_start();
    match text.find(|c: char| !(c.is_alphanumeric() || "_-.".contains(c))) {
        None => Err(Unread::Undecided),
        Some(0) => Err(Unread::Other),
        Some(end) => Ok(text.split_at(end)),
    }
}

/// A JSON object.
pub(super) fn object(text: &str) -> Scanned<'_, Map<String, Value>> {
    let text = text.trim_start();
    match text.chars().next() {
        None => return Err(Unread::Undecided),
        Some('{') => {}
        Some(_) => return Err(Unread::Other),
    }
    let mut objects = Deserializer::from_str(text).into_iter();
    match objects.next() {
        Some(Ok(object)) => Ok((object, &text[objects.byte_offset()..])),
        Some(Err(error)) if !error.is_eof() => Err(Unread::Other),
        Some(Err(_)) | None => Err(Unread::Open),
    }
}
