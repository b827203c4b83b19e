//! Core, part of the fleet: the answers to orders that their caller gave a key. They are kept in the same commit as what
//! the order did, so that an order that is sent again, because its answer was lost, is answered as before and carried out
//! once: also after a restart. Touches `api`, `common` and the other cores of the fleet.

use common::wire::http::Refused;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::{KeptAnswer, Keyed};
use super::decide::Fleet;
use super::state::Change;

/// The most answers that are kept.
const ANSWERS_MAX: usize = 1024;
/// How long an answer is kept: whoever asks again does so within minutes.
const ANSWER_LIFE: SignedDuration = SignedDuration::from_hours(24);

impl Fleet {
    /// The answer that was given to this order; `None` if it is new.
    ///
    /// # Errors
    /// When another order was given under its key.
    pub fn answer_before<T: DeserializeOwned>(&self, asked: &Keyed) -> Result<Option<T>, Refused> {
        let before = self.state.answers.get(&(asked.who.clone(), asked.key.clone()));
        let Some(kept) = before else { return Ok(None) };
        if kept.of.order != asked.order {
            return Err(Refused {
                error: "another order was given under this Idempotency-Key".to_owned(),
                cause: Some(format!("that was at {:.0}", kept.at)),
                hint: Some("take a new key for each order, and the same one only to ask again".to_owned()),
            });
        }
        // An answer that a later version cannot read must not lead to a second order.
        serde_json::from_str(&kept.answer).map(Some).map_err(|error| Refused {
            error: "this order was carried out already, and its answer cannot be read any more".to_owned(),
            cause: Some(error.to_string()),
            hint: Some("`swarmboot deploy list` shows what was ordered".to_owned()),
        })
    }

    /// Keeps the answer to an order.
    pub fn keep_answer(&mut self, of: Keyed, answer: &impl Serialize, now: Timestamp) {
        let Ok(answer) = serde_json::to_string(answer) else { return };
        self.drop_old_answers(now);
        self.put(Change::Answer(Box::new(KeptAnswer { of, answer, at: now })));
    }

    /// Removes answers that are old, and of too many the oldest, so that there is room for one.
    fn drop_old_answers(&mut self, now: Timestamp) {
        let mut all: Vec<(Timestamp, (String, String))> =
            self.state.answers.iter().map(|(key, kept)| (kept.at, key.clone())).collect();
        all.sort_unstable();
        let surplus = (all.len() + 1).saturating_sub(ANSWERS_MAX);
        for (at, (given, (who, key))) in all.into_iter().enumerate() {
            if at < surplus || now.duration_since(given) >= ANSWER_LIFE {
                self.put(Change::AnswerGone { who, key });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use common::id::Hash;

    use super::*;
    use crate::fleet::state::State;

    fn keyed(who: &str, key: &str, order: &str) -> Keyed {
        Keyed { who: who.to_owned(), key: key.to_owned(), order: Hash::of(order.as_bytes()) }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_same_order_is_answered_as_before_and_another_refused() {
        let mut fleet = Fleet::new(State::default(), crate::fleet::testing::settings());
        let mine = keyed("anna", "k1", "order");
        assert_eq!(fleet.answer_before::<u32>(&mine), Ok(None));
        fleet.keep_answer(mine.clone(), &7, at(1));
        assert_eq!(fleet.answer_before::<u32>(&mine), Ok(Some(7)));
        assert_eq!(fleet.answer_before::<u32>(&keyed("bert", "k1", "order")), Ok(None), "each has own keys");
        assert_eq!(fleet.answer_before::<u32>(&keyed("anna", "k2", "order")), Ok(None));
        let refusal = fleet.answer_before::<u32>(&keyed("anna", "k1", "other")).unwrap_err();
        assert!(refusal.error.contains("Idempotency-Key"), "{refusal:?}");
        // What cannot be read any more is no reason to order twice.
        assert!(fleet.answer_before::<String>(&mine).is_err());
    }

    #[test]
    fn answers_do_not_pile_up() {
        let mut fleet = Fleet::new(State::default(), crate::fleet::testing::settings());
        for n in 0..i64::try_from(ANSWERS_MAX).unwrap() + 5 {
            fleet.keep_answer(keyed("anna", &n.to_string(), "order"), &n, at(n));
        }
        assert_eq!(fleet.state.answers.len(), ANSWERS_MAX);
        assert_eq!(fleet.answer_before::<i64>(&keyed("anna", "4", "order")), Ok(None));
        assert_eq!(fleet.answer_before::<i64>(&keyed("anna", "5", "order")), Ok(Some(5)));
        fleet.keep_answer(keyed("anna", "next", "order"), &0, at(500_000));
        assert_eq!(fleet.state.answers.len(), 1, "the others are older than a day");
    }
}
