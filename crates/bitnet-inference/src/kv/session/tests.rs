//! Sessions of one pool over simulated memory: what is read is always what the session's own tokens gave.

use proptest::prelude::*;

use super::*;

const BLOCK: usize = 3;

/// Blocks in which every slot holds the tokens that its keys and values were computed from, all before included.
struct Memory {
    blocks: Vec<Vec<Vec<u32>>>,
    copies: usize,
    can_copy: bool,
}

impl Memory {
    fn new(budget: usize) -> Self {
        Self { blocks: vec![vec![Vec::new(); BLOCK]; budget], copies: 0, can_copy: true }
    }

    fn copy(&mut self, from: u32, to: u32) -> Result<(), ExecError> {
        if !self.can_copy {
            return Err(ExecError::Unsupported { backend: "test", what: "copies".to_owned() });
        }
        assert_ne!(from, to);
        self.copies += 1;
        self.blocks[to as usize] = self.blocks[from as usize].clone();
        Ok(())
    }

    /// Computes all waiting tokens of a session.
    fn compute(&mut self, session: &mut Session) -> Result<(), PoolExhausted> {
        session.cover(session.tokens.len())?;
        session.copy_by(|from, to| self.copy(from, to)).unwrap();
        for position in session.computed..session.tokens.len() {
            let block = session.blocks[position / BLOCK];
            self.blocks[block as usize][position % BLOCK] = session.tokens[..=position].to_vec();
        }
        session.set_computed(session.tokens.len());
        self.verify(session);
        Ok(())
    }

    /// Checks all that a session has computed.
    fn verify(&self, session: &Session) {
        for position in 0..session.computed {
            // Before a copy is run, what it will copy is looked at.
            let index = position / BLOCK;
            let block = session.copy.filter(|c| c.index == index).map_or(session.blocks[index], |c| c.from);
            let slot = &self.blocks[block as usize][position % BLOCK];
            assert_eq!(slot[..], session.tokens[..=position], "position {position}");
        }
    }
}

fn pool(budget: usize) -> Arc<Mutex<BlockPool>> {
    Arc::new(Mutex::new(BlockPool::new(budget, BLOCK)))
}

fn check<'a>(pool: &Mutex<BlockPool>, sessions: impl IntoIterator<Item = &'a Session>) {
    let tables = |s: &'a Session| s.blocks.iter().copied().chain(s.copy.map(|copy| copy.from));
    lock(pool).check(sessions.into_iter().flat_map(tables));
}

fn computed(memory: &mut Memory, session: &mut Session, text: &[u32]) -> usize {
    let kept = session.extend(text);
    memory.compute(session).unwrap();
    kept
}

#[test]
fn keeps_the_common_beginning() {
    let (pool, mut memory) = (pool(8), Memory::new(8));
    let mut session = Session::new(Arc::clone(&pool), 32).alone();
    assert_eq!(computed(&mut memory, &mut session, &[1, 2, 3, 4]), 0);
    assert_eq!(session.blocks().len(), 2);
    let longer = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(computed(&mut memory, &mut session, &longer), 4, "a longer text keeps all of the old");
    assert_eq!(computed(&mut memory, &mut session, &longer), 7, "the last token is computed again");
    assert_eq!(computed(&mut memory, &mut session, &[1, 2, 9]), 2);
    assert_eq!(session.blocks().len(), 1);
    assert_eq!(lock(&pool).in_use(), 1);
    assert_eq!(computed(&mut memory, &mut session, &[7]), 0);
    drop(session);
    assert_eq!((lock(&pool).stats().free, memory.copies), (8, 0), "nobody was to find what it computed");
}

#[test]
fn tokens_that_were_not_computed_are_not_kept() {
    let mut session = Session::new(pool(8), 32);
    computed(&mut Memory::new(8), &mut session, &[1, 2]);
    session.push(4);
    assert_eq!(session.extend(&[1, 2, 4, 5]), 2);
    assert_eq!(session.tokens(), [1, 2, 4, 5]);
}

#[test]
fn blocks_come_back_when_a_session_ends() {
    let pool = pool(2);
    let mut first = Session::new(Arc::clone(&pool), 32);
    computed(&mut Memory::new(2), &mut first, &[1; 6]);
    let mut second = Session::new(Arc::clone(&pool), 32);
    assert_eq!(second.cover(1), Err(PoolExhausted { budget: 2 }));
    drop(first);
    second.cover(6).unwrap();
    second.clear();
    assert_eq!(lock(&pool).in_use(), 0);
}

#[test]
fn a_fresh_session_finds_what_another_computed() {
    let (pool, mut memory) = (pool(8), Memory::new(8));
    let new = || Session::new(Arc::clone(&pool), 32);
    let mut first = new();
    computed(&mut memory, &mut first, &[1, 2, 3, 4, 5]);
    let mut second = new();
    // The block that is not full yet is known when its session has ended.
    assert_eq!(computed(&mut memory, &mut second, &[1, 2, 3, 4, 5, 6]), 3);
    drop(first);
    assert_eq!(computed(&mut memory, &mut new(), &[1, 2, 3, 4, 9]), 4);
    assert_eq!(memory.copies, 1, "the end of the first is still there for others");
    assert_eq!(computed(&mut memory, &mut new(), &[1, 2, 3, 4, 5, 7]), 5);
    assert_eq!(
        computed(&mut memory, &mut second, &[1, 2, 3, 4, 9, 9]),
        5,
        "what another has is longer than its own"
    );
    check(&pool, [&second]);
}

#[test]
fn drafts_that_were_not_accepted_are_not_found() {
    let (pool, mut memory) = (pool(8), Memory::new(8));
    let mut session = Session::new(Arc::clone(&pool), 32);
    computed(&mut memory, &mut session, &[1, 2]);
    for draft in [3, 4, 5] {
        session.push(draft);
    }
    session.cover(5).unwrap();
    // Computed, but only the first is accepted.
    session.set_computed(3);
    session.truncate(3);
    assert_eq!(Session::new(Arc::clone(&pool), 32).extend(&[1, 2, 3, 4, 5, 6]), 3);
    check(&pool, [&session]);
}

#[test]
fn an_executor_that_cannot_copy_computes_again() {
    let (pool, mut memory) = (pool(8), Memory::new(8));
    memory.can_copy = false;
    let mut first = Session::new(Arc::clone(&pool), 32);
    computed(&mut memory, &mut first, &[1, 2, 3, 4, 5, 6]);
    let mut second = first.fork();
    second.truncate(4);
    assert_eq!(computed(&mut memory, &mut second, &[1, 2, 3, 4, 7]), 4, "until it shows");
    check(&pool, [&first, &second]);
    memory.verify(&first);
}

#[test]
fn a_suspended_session_finds_its_blocks_again() {
    let (pool, mut memory) = (pool(4), Memory::new(4));
    let mut session = Session::new(Arc::clone(&pool), 32);
    computed(&mut memory, &mut session, &[1, 2, 3, 4, 5, 6, 7]);
    session.push(8);
    session.suspend();
    assert_eq!((lock(&pool).in_use(), session.tokens().len()), (0, 8));
    assert_eq!(session.recall(), 7);
    memory.compute(&mut session).unwrap();
    session.suspend();
    let mut other = Session::new(Arc::clone(&pool), 32);
    computed(&mut memory, &mut other, &[9; 7]);
    assert_eq!(session.recall(), 3, "the other needed the rest");
    check(&pool, [&session, &other]);
}

/// What may happen to one of the sessions.
#[derive(Debug, Clone)]
enum Op {
    Extend(Vec<u32>),
    Push(Vec<u32>),
    Truncate(usize),
    /// Truncates to at least one token, which is computed again.
    Rewind(usize),
    Cover(usize),
    Compute,
    Clear,
    Renew,
    Fork(usize),
    Suspend,
    Recall,
    ForgetCached,
}

fn tokens(most: usize) -> impl Strategy<Value = Vec<u32>> {
    // Few tokens, so that texts have much in common.
    prop::collection::vec(0..2u32, 1..most)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => tokens(14).prop_map(Op::Extend),
        3 => tokens(5).prop_map(Op::Push),
        2 => (0..14usize).prop_map(Op::Truncate),
        1 => (1..14usize).prop_map(Op::Rewind),
        1 => (0..14usize).prop_map(Op::Cover),
        8 => Just(Op::Compute),
        1 => Just(Op::Clear),
        2 => Just(Op::Renew),
        1 => (0..4usize).prop_map(Op::Fork),
        1 => Just(Op::Suspend),
        1 => Just(Op::Recall),
        1 => Just(Op::ForgetCached),
    ]
}

/// Runs operations on four sessions of a pool, checking everything after each.
fn run(budget: usize, caching: bool, ops: Vec<(usize, Op)>) {
    let (pool, mut memory) = (pool(budget), Memory::new(budget));
    lock(&pool).set_prefix_cache(caching);
    let new = || Session::new(Arc::clone(&pool), 64);
    let mut sessions = [new(), new(), new(), new().alone()];
    // All that is known to the cache as long as it need not forget anything.
    let mut known: Vec<Vec<u32>> = Vec::new();
    for (index, op) in ops {
        lock(&pool).collide();
        let evictions = lock(&pool).stats().evictions;
        let session = &mut sessions[index];
        let shares = session.shares;
        let before = session.tokens[..session.computed].to_vec();
        match op {
            Op::Extend(text) => {
                let kept = session.extend(&text);
                assert!(kept < text.len() && session.tokens == text);
                if shares && caching && budget > 100 {
                    let most = known.iter().map(|k| common(k, &text).min(text.len() - 1)).max().unwrap_or(0);
                    assert!(kept >= most, "{kept} of {most} tokens found");
                }
            }
            Op::Push(tokens) if session.tokens.len() < 40 => tokens.into_iter().for_each(|t| session.push(t)),
            Op::Push(_) => {}
            Op::Truncate(len) => session.truncate(len),
            Op::Rewind(len) if len <= session.tokens.len() => session.rewind(len),
            Op::Rewind(_) => {}
            Op::Cover(more) => {
                let _ = session.cover(session.tokens.len() + more);
            }
            Op::Compute => {
                let available = lock(&pool).available();
                let done = memory.compute(session);
                if available > 20 {
                    done.unwrap();
                }
            }
            Op::Clear => session.clear(),
            Op::Renew => {
                *session = if shares { new() } else { new().alone() };
                if shares && caching {
                    known.push(before);
                }
            }
            Op::Fork(other) if other != index => {
                let fork = session.fork();
                sessions[other] = fork;
            }
            Op::Fork(_) => {}
            Op::Suspend => session.suspend(),
            Op::Recall => {
                session.recall();
            }
            Op::ForgetCached => {
                lock(&pool).forget_cached();
                known.clear();
            }
        }
        sessions.iter().for_each(|session| memory.verify(session));
        check(&pool, &sessions);
        assert!(budget < 100 || lock(&pool).stats().evictions == evictions);
    }
    drop(sessions);
    check(&pool, []);
    assert_eq!(lock(&pool).available(), budget, "no block was lost");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn content_is_right_when_blocks_are_scarce(
        budget in 1..14usize,
        caching in prop::bool::weighted(0.9),
        ops in prop::collection::vec((0..4usize, op()), 1..80),
    ) {
        run(budget, caching, ops);
    }

    #[test]
    fn everything_is_found_when_blocks_are_plenty(ops in prop::collection::vec((0..4usize, op()), 1..80)) {
        run(2000, true, ops);
    }
}
