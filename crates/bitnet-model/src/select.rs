//! Which logits each row of a batch is to give: [`RowWant`], and [`Executor::forward_select`] by way of all logits.

use crate::draw::Draw;
use crate::executor::{Batch, ExecError, Executor, TopLogits};

/// Bits of a word of a [`TokenSet`].
const BITS: usize = u32::BITS as usize;

/// A set of tokens as bits: token `t` is bit `t % 32` of word `t / 32`. Tokens behind the last word are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenSet<'a> {
    words: &'a [u32],
}

impl<'a> TokenSet<'a> {
    /// The set whose bits are in `words`.
    pub fn new(words: &'a [u32]) -> Self {
        Self { words }
    }

    /// Tokens `32 * index..32 * (index + 1)` as bits.
    #[inline]
    pub fn word(self, index: usize) -> u32 {
        self.words.get(index).copied().unwrap_or(0)
    }

    /// How many words there are: no token from `32 * words()` on is in it.
    pub fn words(self) -> usize {
        self.words.len()
    }

    /// Whether a token is in it.
    #[inline]
    pub fn contains(self, token: u32) -> bool {
        self.word(token as usize / BITS) >> (token as usize % BITS) & 1 == 1
    }

    /// How many tokens are in it.
    pub fn count(self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Its tokens, ascending.
    pub fn tokens(self) -> impl Iterator<Item = u32> + 'a {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let rest = std::iter::successors(Some(word), |&rest| Some(rest & rest.wrapping_sub(1)));
            rest.take_while(|&rest| rest != 0).map(move |rest| (index * BITS) as u32 + rest.trailing_zeros())
        })
    }
}

/// The largest logits of a row, of all tokens or of some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopWant<'a> {
    /// How many at least, if there are so many.
    pub k: usize,
    /// The tokens that count; `None`: all.
    pub allowed: Option<TokenSet<'a>>,
}

impl TopWant<'_> {
    /// Whether a token counts.
    pub fn allows(&self, token: u32) -> bool {
        self.allowed.is_none_or(|set| set.contains(token))
    }
}

/// What a row of a batch is to give.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RowWant<'a> {
    /// All logits.
    All,
    /// The largest ones.
    Top(TopWant<'a>),
    /// The token that is drawn from the largest ones, alone, or these: then the caller draws. What [draws](Executor::draws)
    /// gives the former wherever it can.
    Draw(Draw),
}

impl<'a> RowWant<'a> {
    /// What is wanted of it if not all logits, or would be if a draw were not.
    pub fn top(&self) -> Option<TopWant<'a>> {
        match self {
            RowWant::All => None,
            RowWant::Top(top) => Some(*top),
            RowWant::Draw(draw) => Some(TopWant { k: draw.k, allowed: None }),
        }
    }

    /// The draw that is wanted.
    pub fn draw(&self) -> Option<Draw> {
        match self {
            RowWant::Draw(draw) => Some(*draw),
            RowWant::All | RowWant::Top(_) => None,
        }
    }
}

impl Batch<'_> {
    /// Checks that there is one want for each row the batch asks for, that `logits` has room for the rows that want all, and
    /// `top` one element for each other.
    ///
    /// # Errors
    /// [`ExecError::OutputSize`].
    pub fn check_select(
        &self,
        vocab_size: usize,
        wants: &[RowWant<'_>],
        logits: &[f32],
        top: &[TopLogits],
    ) -> Result<(), ExecError> {
        let tops = wants.iter().filter(|want| want.top().is_some()).count();
        let sizes = [
            (self.logit_rows(), wants.len()),
            ((wants.len() - tops) * vocab_size, logits.len()),
            (tops, top.len()),
        ];
        match sizes.into_iter().find(|(needed, given)| needed != given) {
            Some((needed, given)) => Err(ExecError::OutputSize { needed, given }),
            None => Ok(()),
        }
    }
}

/// [`Executor::forward_select`] by way of all logits of all rows: what is given of a row is all that counts.
///
/// # Errors
/// As [`Executor::forward_select`].
pub fn full_as_select<E: Executor + ?Sized>(
    executor: &mut E,
    batch: &Batch<'_>,
    wants: &[RowWant<'_>],
    logits: &mut [f32],
    top: &mut [TopLogits],
) -> Result<(), ExecError> {
    let vocab = executor.spec().vocab_size;
    batch.check_select(vocab, wants, logits, top)?;
    if top.is_empty() {
        return executor.forward(batch, logits);
    }
    let mut full = vec![0.0; wants.len() * vocab];
    executor.forward(batch, &mut full)?;
    let (mut rows, mut tops) = (logits.chunks_exact_mut(vocab), top.iter_mut());
    for (want, full) in wants.iter().zip(full.chunks_exact(vocab)) {
        match want.top() {
            None => rows.next().into_iter().for_each(|row| row.copy_from_slice(full)),
            Some(want) => {
                let Some(top) = tops.next() else { continue };
                top.ids.clear();
                top.ids.extend((0..vocab as u32).filter(|&token| want.allows(token)));
                top.logits.clear();
                top.logits.extend(top.ids.iter().map(|&token| full[token as usize]));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_tokens() {
        let set = TokenSet::new(&[1 << 31 | 1, 0, 6]);
        assert_eq!(set.tokens().collect::<Vec<_>>(), [0, 31, 65, 66]);
        assert_eq!(set.count(), 4);
        assert!(set.contains(65) && !set.contains(64) && !set.contains(96) && !set.contains(u32::MAX));
        assert_eq!(TokenSet::new(&[]).tokens().count(), 0);
        assert_eq!(TokenSet::new(&[u32::MAX]).tokens().collect::<Vec<_>>(), (0..32).collect::<Vec<_>>());
    }
}
