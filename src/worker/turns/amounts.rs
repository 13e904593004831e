//! How much one turn takes with it: how many messages it asks for, and how many settles it sends.

use crate::worker::prefetch::AUTO_MAX;

/// How many settles go in one turn: beyond, one statement only takes longer.
pub(super) const SETTLES_MAX: usize = 1000;

/// What was learned of that from the turns that there were.
#[derive(Debug)]
pub(super) struct Amounts {
    /// How many messages the worker handles at once.
    places: usize,
    /// How many are claimed in one turn: few at first and where nothing waited, twice as many each time all came.
    at_once: usize,
    /// At most so many, and so many settles: fewer after a turn that was not answered, which may have been too large for the
    /// time that it has; then more by and by.
    claims_most: usize,
    settles_most: usize,
}

impl Amounts {
    pub(super) fn new(concurrency: usize) -> Self {
        let places = concurrency.max(1);
        Self { places, at_once: places, claims_most: places + AUTO_MAX, settles_most: SETTLES_MAX }
    }

    /// How many messages are asked for at most.
    pub(super) fn claims(&self) -> usize {
        self.at_once.min(self.claims_most)
    }

    /// How many settles are sent at most.
    pub(super) fn settles(&self) -> usize {
        self.settles_most
    }

    /// A turn was answered that asked for `want` messages, of which there were `found`, with so many `settles`.
    pub(super) fn answered(&mut self, want: usize, found: usize, settles: usize) {
        let (places, most) = (self.places, self.places + AUTO_MAX);
        self.at_once = if want == 0 {
            self.at_once.max(self.at_once.saturating_mul(2).min(places))
        } else if found == want || self.at_once < places {
            let most = if found == want { most } else { places };
            self.at_once.saturating_mul(2).min(most)
        } else {
            self.at_once.min(2 * found).max(places)
        };
        if want >= self.claims_most {
            self.claims_most = (self.claims_most + self.claims_most / 16 + 1).min(most);
        }
        if settles >= self.settles_most {
            self.settles_most = (self.settles_most + self.settles_most / 16 + 1).min(SETTLES_MAX);
        }
    }

    /// One was not.
    pub(super) fn unanswered(&mut self, want: usize, settles: usize) {
        if want > 1 {
            self.claims_most = want / 2;
        }
        if settles > 1 {
            self.settles_most = settles / 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_is_not_answered_is_made_smaller_until_it_goes_through() {
        let mut amounts = Amounts::new(100);
        let mut tried = Vec::new();
        // A server that is done in time with a hundred settles, or with a hundred messages.
        while tried.len() < 9 {
            tried.push((amounts.claims(), amounts.settles()));
            if amounts.claims() <= 60 && amounts.settles() <= 100 {
                break;
            }
            amounts.unanswered(amounts.claims(), amounts.settles());
        }
        assert_eq!(tried, [(100, 1000), (50, 500), (25, 250), (12, 125), (6, 62)]);
        // Of one, half is none: it is tried as it is.
        amounts.unanswered(1, 1);
        assert_eq!((amounts.claims(), amounts.settles()), (6, 62));
        // What had none of a kind says nothing of that.
        amounts.unanswered(0, 40);
        assert_eq!((amounts.claims(), amounts.settles()), (6, 20));
    }

    #[test]
    fn what_goes_through_grows_again_by_and_by() {
        let mut amounts = Amounts::new(100);
        amounts.unanswered(100, 1000);
        // A smaller one says nothing of larger ones.
        amounts.answered(49, 49, 499);
        assert_eq!((amounts.claims(), amounts.settles()), (50, 500));
        amounts.answered(50, 50, 500);
        assert_eq!((amounts.claims(), amounts.settles()), (54, 532));
        for _ in 0..100 {
            let (claims, settles) = (amounts.claims(), amounts.settles());
            amounts.answered(claims, claims, settles);
            assert!(amounts.claims() <= claims + claims / 16 + 1, "not at once");
            assert!(amounts.settles() <= settles + settles / 16 + 1, "not at once");
        }
        assert_eq!((amounts.claims(), amounts.settles()), (100 + AUTO_MAX, SETTLES_MAX));
    }

    #[test]
    fn as_many_are_asked_for_as_there_seem_to_be() {
        let mut amounts = Amounts::new(10);
        assert_eq!(amounts.claims(), 10);
        amounts.answered(10, 10, 0);
        amounts.answered(20, 20, 0);
        assert_eq!(amounts.claims(), 40);
        amounts.answered(40, 7, 0);
        assert_eq!(amounts.claims(), 14, "twice as many as there were");
        amounts.answered(14, 0, 0);
        assert_eq!(amounts.claims(), 10, "as many as can be begun");
        amounts.answered(0, 0, 5);
        assert_eq!(amounts.claims(), 10, "nothing was asked");
    }
}
