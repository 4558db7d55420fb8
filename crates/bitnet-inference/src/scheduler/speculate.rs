//! Prompt lookup: what followed the last few tokens where they stood before is guessed to follow again. Where a constraint
//! leaves no choice, what it demands is guessed.
//!
//! [`guess`] finds the guess, [`Drafter`] decides whether to compute it. How often guesses are right is known without
//! computing any: each is compared with the token that is drawn. What rows cost is known from [`Pace`].

use super::options::Speculation;
use super::pace::Pace;

/// Fewest tokens at the end that must have stood before.
const SHORTEST: usize = 2;
/// Tokens beyond which a longer match says no more.
const LONGEST: usize = 6;
/// Most tokens that are guessed at a time, unless told otherwise: with the one before them, rows up to which CPUs multiply
/// few rows.
const MOST: usize = 7;
/// Tokens that are looked through at most, the last ones.
const WINDOW: usize = 1 << 15;
/// How often guesses are taken to be right before anything is known.
const FIRST_RATE: f64 = 0.4;
/// How often demanded tokens are taken to be right before anything is known.
const FIRST_FORCED_RATE: f64 = 0.9;
/// Where the rate of demanded tokens is kept.
const FORCED: usize = LONGEST + 1;
/// Weight of a new observation.
const WEIGHT: f64 = 0.1;
/// A step must give so many times more tokens a second than without a guess.
const MARGIN: f64 = 1.05;
/// Rate from which on calls of sizes that were never measured are tried.
const CURIOUS: f64 = 0.8;

/// Puts up to `most` tokens into `out` that may follow `history`; returns how many of its last tokens stood before where
/// these were found, 0 if there are none. Of the longest such places it takes the latest.
pub(super) fn guess(history: &[u32], most: usize, out: &mut Vec<u32>) -> usize {
    let history = &history[history.len().saturating_sub(WINDOW)..];
    let Some((&last, before)) = history.split_last() else { return 0 };
    let (mut best, mut next) = (SHORTEST - 1, 0);
    for place in (1..before.len()).rev().filter(|&place| before[place] == last) {
        let same = || history[..place].iter().rev().zip(before.iter().rev());
        let length = 1 + same().take(LONGEST - 1).take_while(|(a, b)| a == b).count();
        if length > best {
            (best, next) = (length, place + 1);
            if length == LONGEST {
                break;
            }
        }
    }
    if next == 0 {
        return 0;
    }
    let start = out.len();
    for i in 0..most {
        // A guess that runs into the end of the text goes on in itself: the text is repeating.
        let token = history.get(next + i).copied();
        out.push(token.unwrap_or_else(|| out[start + next + i - history.len()]));
    }
    best
}

/// How well guesses do for one text.
#[derive(Debug, Clone)]
pub(super) struct Drafter {
    speculation: Speculation,
    /// Whether to guess from the text.
    looks_up: bool,
    /// By the length of the match, how often the next token was guessed right, lately; at last that of demanded tokens.
    rates: [f64; LONGEST + 2],
    /// The guess for the token that is drawn next, and the length of its match.
    expected: Option<(u32, usize)>,
}

impl Drafter {
    /// For a text that is `greedy` or not.
    pub(super) fn new(speculation: Speculation, greedy: bool) -> Self {
        let mut rates = [FIRST_RATE; LONGEST + 2];
        rates[FORCED] = FIRST_FORCED_RATE;
        Self { speculation, looks_up: greedy || speculation != Speculation::Auto, rates, expected: None }
    }

    /// Whether nothing is ever guessed.
    pub(super) fn is_off(&self) -> bool {
        self.speculation == Speculation::Off
    }

    /// Puts the tokens behind `history` that are worth computing into `out`, at most `room`. The call has `rows` rows
    /// already, of which `texts` give a token each.
    pub(super) fn draft(
        &mut self,
        history: &[u32],
        room: usize,
        (rows, texts): (usize, usize),
        pace: &Pace,
        out: &mut Vec<u32>,
    ) {
        self.expected = None;
        let most = match self.speculation {
            Speculation::Off => return,
            Speculation::Auto if !self.looks_up => return,
            Speculation::Auto => MOST,
            Speculation::Always(most) => most,
        };
        let start = out.len();
        let length = guess(history, most.min(room).max(1), out);
        if length == 0 {
            return;
        }
        self.expected = Some((out[start], length));
        let count = match self.speculation {
            Speculation::Always(_) => most,
            _ => worth(&self.rates[length..FORCED], rows, texts, pace),
        };
        out.truncate(start + count.min(room));
    }

    /// The same where a constraint demands these tokens, or other spellings of them.
    pub(super) fn draft_forced(
        &mut self,
        forced: &[u32],
        room: usize,
        (rows, texts): (usize, usize),
        pace: &Pace,
        out: &mut Vec<u32>,
    ) {
        self.expected = forced.first().map(|&token| (token, FORCED));
        let most = match self.speculation {
            Speculation::Off => 0,
            Speculation::Always(most) => most,
            Speculation::Auto => worth(&self.rates[FORCED..], rows, texts, pace),
        };
        out.extend(&forced[..most.min(room).min(forced.len())]);
    }

    /// Learns which token was drawn where one was guessed; `then` is the guess for the one after it.
    pub(super) fn observe(&mut self, token: u32, then: Option<u32>) {
        if let Some((guess, length)) = self.expected.take() {
            let right = guess == token;
            self.rates[length] += WEIGHT * (f64::from(u8::from(right)) - self.rates[length]);
            let next = if length == FORCED { FORCED } else { (length + 1).min(LONGEST) };
            self.expected = then.filter(|_| right).map(|then| (then, next));
        }
    }
}

/// How many tokens are worth guessing beside `rows` rows that give `texts` tokens. The first is right with the first
/// probability of `rates`, the next with the next, all further ones with the last.
fn worth(rates: &[f64], rows: usize, texts: usize, pace: &Pace) -> usize {
    let Some(base) = pace.predict(rows) else { return 0 };
    let (mut best, mut most) = (0, MARGIN * texts as f64 / base);
    let (mut gain, mut chance) = (0.0, 1.0);
    for count in 1..=MOST {
        chance *= rates[(count - 1).min(rates.len() - 1)];
        gain += chance;
        if chance >= CURIOUS && !pace.is_known(rows + count) {
            return count;
        }
        let Some(seconds) = pace.predict(rows + count) else { break };
        let speed = (texts as f64 + gain) / seconds;
        if speed > most {
            (best, most) = (count, speed);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn guessed(history: &[u32], most: usize) -> (Vec<u32>, usize) {
        let mut out = Vec::new();
        let length = guess(history, most, &mut out);
        (out, length)
    }

    #[test]
    fn the_latest_of_the_longest_matches_is_continued() {
        assert_eq!(guessed(&[1, 2, 3, 9, 2, 3, 4, 5, 1, 2, 3], 2), (vec![9, 2], 3));
        assert_eq!(guessed(&[7, 2, 3, 9, 8, 2, 3, 4, 5, 2, 3], 3), (vec![4, 5, 2], 2));
        assert_eq!(guessed(&[1, 2, 3, 4], 3), (vec![], 0));
        assert_eq!(guessed(&[3, 1, 4, 3], 3), (vec![], 0), "one token is no match");
        assert_eq!(guessed(&[], 3), (vec![], 0));
        assert_eq!(guessed(&[5], 3), (vec![], 0));
    }

    #[test]
    fn a_text_that_repeats_itself_goes_on() {
        assert_eq!(guessed(&[8, 8, 8], 4), (vec![8, 8, 8, 8], 2));
        assert_eq!(guessed(&[1, 2, 1, 2, 1], 5), (vec![2, 1, 2, 1, 2], 3));
    }

    fn machine(cost: impl Fn(usize) -> f64) -> Pace {
        let mut pace = Pace::default();
        for rows in (1..=64).flat_map(|rows| [rows, rows]) {
            pace.record(rows, Duration::from_secs_f64(cost(rows)));
        }
        pace
    }

    #[test]
    fn guesses_are_computed_where_they_pay() {
        let memory_bound = machine(|rows| 0.026 + 0.001 * rows as f64);
        let compute_bound = machine(|rows| 0.004 + 0.022 * rows as f64);
        assert_eq!(worth(&[0.9], 1, 1, &memory_bound), MOST);
        assert_eq!(worth(&[0.05], 1, 1, &memory_bound), 0);
        assert_eq!(worth(&[0.7], 1, 1, &compute_bound), 0);
        assert!(worth(&[0.99], 1, 1, &compute_bound) > 0);
        // Beside many others a guess must be right as often as a row of theirs gives a token.
        assert_eq!(worth(&[0.3], 40, 40, &machine(|rows| 0.001 + 0.01 * rows as f64)), 0);
        assert_eq!(worth(&[0.9], 1, 1, &Pace::default()), 0, "nothing is known yet");
    }

    #[test]
    fn rates_follow_what_is_drawn_without_computing_anything() {
        let pace = machine(|rows| 0.026 + 0.004 * rows as f64);
        let (mut drafter, mut out) = (Drafter::new(Speculation::Auto, true), Vec::new());
        let history = [1, 2, 3, 4, 1, 2];
        for _ in 0..40 {
            out.clear();
            drafter.draft(&history, 10, (1, 1), &pace, &mut out);
            drafter.observe(77, None);
        }
        assert!(out.is_empty(), "always wrong: {drafter:?}");
        for _ in 0..40 {
            out.clear();
            drafter.draft(&history, 10, (1, 1), &pace, &mut out);
            drafter.observe(3, None);
        }
        assert_eq!(out[..2], [3, 4], "always right: {drafter:?}");
        out.clear();
        drafter.draft(&history, 2, (1, 1), &pace, &mut out);
        assert_eq!(out, [3, 4], "no more than there is room for");
        out.clear();
        drafter.draft(&history, 0, (1, 1), &pace, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn requests_with_chance_are_left_alone_unless_told() {
        let pace = machine(|_| 0.026);
        let mut out = Vec::new();
        for (speculation, greedy, count) in [
            (Speculation::Auto, false, 0),
            (Speculation::Off, true, 0),
            (Speculation::Always(3), false, 3),
            (Speculation::Always(3), true, 3),
        ] {
            out.clear();
            Drafter::new(speculation, greedy).draft(&[1, 2, 3, 1, 2], 10, (1, 1), &pace, &mut out);
            assert_eq!(out.len(), count, "{speculation:?} {greedy}");
        }
    }
}
