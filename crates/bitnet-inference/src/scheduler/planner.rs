//! Which tokens the next step computes. Nothing but numbers in and numbers out.

/// A sequence that wants to be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) priority: i32,
    /// Its tokens that have no keys and values yet; one while it generates.
    pub(super) pending: usize,
}

/// Shares `budget` tokens of prompts among the sequences; gives each one's tokens.
///
/// Those with one token pending always get it, beside the budget. Prompts of the highest priority get all they can use
/// before others get any; prompts of the same priority get equal shares, so that a short one is not kept waiting by a
/// long one. What cannot be divided goes to others each `turn`.
pub(super) fn share(wishes: &[Wish], mut budget: usize, turn: usize) -> Vec<usize> {
    let mut tokens: Vec<usize> = wishes.iter().map(|w| usize::from(w.pending == 1)).collect();
    let mut prompts: Vec<usize> = (0..wishes.len()).filter(|&i| wishes[i].pending > 1).collect();
    // Within a priority those that want least come first: what they leave of their share is for the others.
    prompts.sort_by_key(|&i| (std::cmp::Reverse(wishes[i].priority), wishes[i].pending));
    let mut rest = &prompts[..];
    while let Some(&first) = rest.first() {
        let level = rest.iter().take_while(|&&i| wishes[i].priority == wishes[first].priority).count();
        for (done, &i) in rest[..level].iter().enumerate() {
            let left = level - done;
            // The remainder of the division falls to a different prompt each turn.
            let extra = usize::from((done + turn) % level < budget % left);
            let part = (budget / left + extra).min(wishes[i].pending).min(budget);
            tokens[i] = part;
            budget -= part;
        }
        rest = &rest[level..];
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(list: &[(i32, usize)]) -> Vec<Wish> {
        list.iter().map(|&(priority, pending)| Wish { priority, pending }).collect()
    }

    #[test]
    fn who_generates_always_has_its_token() {
        assert_eq!(share(&wishes(&[(0, 1), (5, 100), (-3, 1)]), 0, 0), [1, 0, 1]);
        assert_eq!(share(&wishes(&[(0, 1); 300]), 0, 0), [1; 300]);
    }

    #[test]
    fn prompts_of_a_priority_share_alike_and_short_ones_leave_the_rest() {
        assert_eq!(share(&wishes(&[(0, 1000), (0, 10), (0, 1000)]), 110, 0), [50, 10, 50]);
        assert_eq!(share(&wishes(&[(0, 20), (0, 30)]), 192, 3), [20, 30]);
        assert_eq!(share(&wishes(&[(0, 1000), (1, 1000), (0, 5)]), 1003, 0), [1, 1000, 2]);
    }

    #[test]
    fn single_tokens_go_round() {
        let list = wishes(&[(0, 500), (0, 600), (0, 700)]);
        let mut got = [0; 3];
        for turn in 0..300 {
            let tokens = share(&list, 1, turn);
            assert_eq!(tokens.iter().sum::<usize>(), 1);
            got.iter_mut().zip(tokens).for_each(|(sum, n)| *sum += n);
        }
        assert!(got.iter().all(|&n| n >= 75), "{got:?}");
    }

    #[test]
    fn the_budget_is_used_up_or_everyone_is_served() {
        for budget in 0..60 {
            for turn in 0..7 {
                let list = wishes(&[(0, 9), (2, 12), (0, 1), (0, 7), (2, 3), (-1, 20)]);
                let tokens = share(&list, budget, turn);
                let prompts: usize = tokens.iter().sum::<usize>() - 1;
                assert_eq!(prompts, budget.min(9 + 12 + 7 + 3 + 20), "{budget} {turn}: {tokens:?}");
                assert!(tokens.iter().zip(&list).all(|(&n, w)| n <= w.pending));
            }
        }
    }
}
