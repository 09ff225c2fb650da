//! The messages of a session, and which of them a prompt is made of.
//!
//! Pure: rendering and encoding come in as a function. What was left out of a prompt stays in the history.

use super::options::ContextOverflow;
use crate::chat::{Message, Role, Tool};
use crate::error::{ErrorKind, Result};
use crate::token::Token;

/// A conversation between turns.
#[derive(Clone, Debug, Default)]
pub(super) struct Conversation {
    pub(super) system: Option<String>,
    pub(super) tools: Vec<Tool>,
    pub(super) messages: Vec<Message>,
    /// Messages at the beginning that are no longer part of the prompt.
    pub(super) dropped: usize,
}

/// A prompt that fits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fitted {
    pub(super) tokens: Vec<Token>,
    pub(super) dropped: usize,
}

/// The room a prompt has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Tokens the context holds.
    pub(super) capacity: usize,
    /// Tokens the answer may have.
    pub(super) max_tokens: usize,
}

impl Conversation {
    /// All messages, the system prompt as the first.
    pub(super) fn history(&self) -> Vec<Message> {
        self.from(0, &[])
    }

    /// The opposite of [`history`](Self::history).
    pub(super) fn restore(&mut self, mut messages: Vec<Message>) {
        let has_system = messages.first().is_some_and(|first| first.role == Role::System);
        self.system = has_system.then(|| messages.remove(0).content);
        self.messages = messages;
        self.dropped = 0;
    }

    /// Adds a turn that came to its end.
    pub(super) fn commit(&mut self, turn: Vec<Message>, answer: Message, dropped: usize) {
        self.messages.extend(turn);
        self.messages.push(answer);
        self.dropped = dropped;
    }

    /// The prompt's tokens with `new` messages at the end, after dropping what `policy` allows to drop.
    ///
    /// Where turns are to go, it is usually one; else how many is searched by halves, because a long history takes long to encode. What
    /// cannot even be encoded is taken for too long, unless nothing more can go.
    pub(super) fn fit(
        &self,
        new: &[Message],
        policy: ContextOverflow,
        room: Room,
        mut encode: impl FnMut(&[Message]) -> Result<Vec<Token>>,
    ) -> Result<Fitted> {
        let beginnings: Vec<usize> = match policy {
            ContextOverflow::Error => vec![self.dropped],
            ContextOverflow::DropOldestTurns => {
                std::iter::successors(Some(self.dropped), |&dropped| self.next_turn(dropped, new)).collect()
            }
        };
        let last = beginnings.len() - 1;
        // Of the first `long` beginnings the prompt is too long; from `enough` on it is not, or nothing more can go.
        let (mut long, mut enough, mut found) = (0, last, None);
        while found.is_none() || long < enough {
            let at = if long < 2 { long } else { long.midpoint(enough) };
            match encode(&self.from(beginnings[at], new)) {
                Ok(tokens) if at == last || room.is_enough(&tokens) => (enough, found) = (at, Some(tokens)),
                Err(error) if at == last || error.is_cancelled() => return Err(error),
                _ => long = at + 1,
            }
        }
        let (tokens, dropped) = (found.unwrap_or_default(), beginnings[enough]);
        if tokens.len() > room.capacity {
            return Err(ErrorKind::ContextFull { needed: tokens.len(), capacity: room.capacity }.into());
        }
        Ok(Fitted { tokens, dropped })
    }

    fn from(&self, dropped: usize, new: &[Message]) -> Vec<Message> {
        let system = self.system.iter().map(Message::system);
        system.chain(self.messages[dropped..].iter().chain(new).cloned()).collect()
    }

    /// Where the turn after the one at `dropped` begins, if the one at `dropped` can go. A turn begins with what the user says;
    /// the last one stays if the new messages belong to it (results of tools that it called).
    fn next_turn(&self, dropped: usize, new: &[Message]) -> Option<usize> {
        let is_user = |message: &Message| message.role == Role::User;
        let later = self.messages.iter().skip(dropped + 1).position(is_user).map(|i| dropped + 1 + i);
        let all = (dropped < self.messages.len() && new.first().is_some_and(is_user)).then_some(self.messages.len());
        later.or(all)
    }
}

impl Room {
    /// Whether it holds the prompt and an answer.
    fn is_enough(self, prompt: &[Token]) -> bool {
        prompt.len() + self.for_answer() <= self.capacity
    }

    /// What dropping turns should leave for the answer.
    fn for_answer(self) -> usize {
        self.max_tokens.min(self.capacity / 4).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    /// Three turns of 20 tokens each, the second with a tool call, and a system prompt of 10.
    fn conversation() -> Conversation {
        let (u, a, t) =
            (|| Message::user("0123456789"), || Message::assistant("0123456789"), || Message::tool("01234"));
        let call = Message::assistant("01234");
        Conversation {
            system: Some("0123456789".into()),
            messages: vec![u(), a(), Message::user(""), call, t(), a(), u(), a()],
            ..Default::default()
        }
    }

    fn fit(conversation: &Conversation, new: &[Message], policy: ContextOverflow, capacity: usize) -> Result<Fitted> {
        let encode =
            |messages: &[Message]| Ok(messages.iter().flat_map(|m| m.content.bytes().map(u32::from)).collect());
        conversation.fit(new, policy, Room { capacity, max_tokens: 8 }, encode)
    }

    #[test]
    fn whole_turns_go_until_prompt_and_answer_fit() {
        let new = [Message::user("0123456789")];
        let dropped = |capacity| {
            let fitted = fit(&conversation(), &new, ContextOverflow::DropOldestTurns, capacity).expect("fits");
            (fitted.tokens.len(), fitted.dropped)
        };
        assert_eq!(dropped(88), (80, 0));
        assert_eq!(dropped(87), (60, 2), "the answer wants 8");
        assert_eq!(dropped(67), (40, 6), "a turn with its tool messages");
        assert_eq!(dropped(47), (20, 8), "everything but system prompt and message");
        assert_eq!(dropped(20), (20, 8), "no room for the answer, but for the prompt");
    }

    #[test]
    fn what_cannot_fit_is_an_error() {
        let new = [Message::user("0123456789")];
        let needs = |policy, capacity| match fit(&conversation(), &new, policy, capacity).map_err(Error::into_kind) {
            Err(ErrorKind::ContextFull { needed, capacity: c }) if c == capacity => Some(needed),
            _ => None,
        };
        assert_eq!(needs(ContextOverflow::DropOldestTurns, 19), Some(20));
        assert_eq!(needs(ContextOverflow::Error, 79), Some(80));
        assert_eq!(needs(ContextOverflow::Error, 80), None);
    }

    #[test]
    fn a_long_history_is_encoded_a_few_times() {
        let turn = || [Message::user("0123456789"), Message::assistant("0123456789")];
        let conversation = Conversation { messages: (0..3000).flat_map(|_| turn()).collect(), ..Default::default() };
        for capacity in [30, 47, 500, 30_000, 60_010, 60_011, 70_000] {
            let mut encoded = 0;
            let encode = |messages: &[Message]| {
                encoded += messages.len();
                Ok(vec![0; messages.iter().map(|message| message.content.len()).sum()])
            };
            let (new, room) = ([Message::user("0123456789")], Room { capacity, max_tokens: 1 });
            let fitted = conversation.fit(&new, ContextOverflow::DropOldestTurns, room, encode).expect("fits");
            let turns = (capacity - 11).min(60_000) / 20;
            assert_eq!((fitted.dropped, fitted.tokens.len()), (6000 - 2 * turns, 20 * turns + 10), "{capacity}");
            assert!(encoded <= 14 * 6001, "{capacity}: {encoded} messages were encoded");
        }
    }

    #[test]
    fn what_is_too_long_to_be_encoded_is_dropped() {
        let encode = |most: usize| {
            move |messages: &[Message]| match messages.len() {
                n if n <= most => Ok(vec![0; n]),
                _ => Err(ErrorKind::Tokenizer { reason: "too long".into() }.into()),
            }
        };
        let (new, room) = ([Message::user("0123456789")], Room { capacity: 100, max_tokens: 1 });
        let fit = |most, policy| conversation().fit(&new, policy, room, encode(most)).map_err(Error::into_kind);
        assert_eq!(fit(8, ContextOverflow::DropOldestTurns).expect("fits").dropped, 2);
        assert!(matches!(fit(8, ContextOverflow::Error), Err(ErrorKind::Tokenizer { .. })));
        assert!(matches!(fit(1, ContextOverflow::DropOldestTurns), Err(ErrorKind::Tokenizer { .. })));
    }

    #[test]
    fn a_turn_that_waits_for_its_tool_stays() {
        let mut conversation = conversation();
        conversation.messages.truncate(4);
        let fitted = fit(&conversation, &[Message::tool("01")], ContextOverflow::DropOldestTurns, 20).expect("fits");
        assert_eq!(fitted.dropped, 2);
        assert!(fit(&conversation, &[Message::tool("01")], ContextOverflow::DropOldestTurns, 10).is_err());
    }

    #[test]
    fn dropping_goes_on_from_where_it_was() {
        let mut conversation = conversation();
        conversation.dropped = 6;
        let fitted = fit(&conversation, &[Message::user("")], ContextOverflow::Error, 100).expect("fits");
        assert_eq!((fitted.tokens.len(), fitted.dropped), (30, 6));
    }

    #[test]
    fn history_and_restore_are_opposites() {
        let mut restored = Conversation { dropped: 1, ..Default::default() };
        restored.restore(conversation().history());
        assert_eq!((restored.history(), restored.dropped), (conversation().history(), 0));
        restored.restore(vec![Message::user("x")]);
        assert_eq!((restored.system, restored.messages.len()), (None, 1));
    }
}
