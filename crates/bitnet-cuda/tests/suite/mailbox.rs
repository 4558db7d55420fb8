//! Steps whose inputs and results go through memory that host and device share, or not: the oracle's bits, whatever comes
//! between them.

use bitnet_core::DType;
use bitnet_core::bytes::ByteView;
use bitnet_cuda::CudaExecutor;
use bitnet_model::conformance::{Random, Sample, random_weights, samples};
use bitnet_model::kv_rows::KvRows;
use bitnet_model::reference::ReferenceExecutor;
use bitnet_model::{Batch, DenseTensor, ExecError, Executor, KvType, LogitRows, Sequence, TopLogits};

use crate::emulator::Emulator;
use crate::{executor, executor_on, on_device};

/// Steps in a row, of which the third and all later ones go through the mailbox.
const STEPS: usize = 6;
/// Blocks of each text.
const EACH: u32 = 10;

/// An executor for each way in which steps can run, with the name of that way.
fn ways(sample: &Sample) -> Vec<(&'static str, CudaExecutor)> {
    if on_device() {
        return vec![("device", executor(&sample.spec, &sample.weights, KvType::F16, "sm_80").unwrap())];
    }
    let on = |emulator| executor_on(emulator, &sample.spec, &sample.weights, KvType::F16).unwrap();
    vec![("no mailbox", on(Emulator::new(true).apart())), ("mailbox", on(Emulator::new(true)))]
}

/// Texts that an executor goes on with, and what came of them: the best token of each step with its logit's bits.
struct Play<'a> {
    executor: &'a mut dyn Executor,
    texts: Vec<(usize, u32)>,
    seen: Vec<(u32, u32)>,
}

impl<'a> Play<'a> {
    fn new(executor: &'a mut dyn Executor, texts: u32) -> Self {
        executor.reserve_blocks((texts * EACH) as usize).unwrap();
        Self { executor, texts: vec![(0, 0); texts as usize], seen: Vec::new() }
    }

    fn blocks(text: usize) -> Vec<u32> {
        (text as u32 * EACH..(text as u32 + 1) * EACH).collect()
    }

    /// Runs some tokens of some texts.
    fn run(&mut self, texts: &[(usize, &[u32])]) -> Result<(), ExecError> {
        let tables: Vec<Vec<u32>> = texts.iter().map(|&(text, _)| Self::blocks(text)).collect();
        let sequences: Vec<Sequence<'_>> = texts
            .iter()
            .zip(&tables)
            .map(|(&(text, tokens), blocks)| Sequence {
                tokens,
                position: self.texts[text].0,
                blocks,
                logits: LogitRows::Last,
            })
            .collect();
        let mut top = vec![TopLogits::default(); texts.len()];
        self.executor.forward_top(&Batch { sequences: &sequences }, 1, &mut top)?;
        for (&(text, tokens), top) in texts.iter().zip(&top) {
            let better = |a: usize, b: usize| if top.logits[b] > top.logits[a] { b } else { a };
            let best = (0..top.ids.len()).reduce(better).unwrap();
            self.texts[text] = (self.texts[text].0 + tokens.len(), top.ids[best]);
            self.seen.push((top.ids[best], top.logits[best].to_bits()));
        }
        Ok(())
    }

    /// Begins a text.
    fn prompt(&mut self, text: usize, tokens: &[u32]) {
        self.texts[text].0 = 0;
        self.run(&[(text, tokens)]).unwrap();
    }

    /// A step of some texts.
    fn step(&mut self, texts: &[usize]) -> Result<(), ExecError> {
        let tokens: Vec<[u32; 1]> = texts.iter().map(|&text| [self.texts[text].1]).collect();
        let all: Vec<(usize, &[u32])> =
            texts.iter().zip(&tokens).map(|(&text, token)| (text, &token[..])).collect();
        self.run(&all)
    }

    fn steps(&mut self, texts: &[usize]) {
        (0..STEPS).for_each(|_| self.step(texts).unwrap());
    }
}

/// Batches that change in many ways.
fn changing(executor: &mut dyn Executor, kv: KvRows) -> (Vec<(u32, u32)>, Vec<u8>) {
    let mut play = Play::new(executor, 4);
    play.prompt(0, &[5, 6, 7, 8, 9]);
    play.prompt(1, &[15, 16, 17, 18, 19, 20, 21, 22, 23]);
    play.steps(&[0, 1]);
    play.prompt(2, &[31, 32, 33]);
    play.steps(&[0, 1, 2]);
    // A text ends, and its blocks go to the next at once.
    play.steps(&[0, 2]);
    play.prompt(1, &[41, 42, 43, 44, 45, 46]);
    play.steps(&[1, 0, 2]);
    // A text becomes two; what was queued last wrote to the blocks that are copied.
    play.steps(&[2]);
    for block in 0..EACH {
        play.executor.copy_block(2 * EACH + block, 3 * EACH + block).unwrap();
    }
    play.texts[3] = play.texts[2];
    play.steps(&[3]);
    // All logits of a row in between.
    let s = Sequence { tokens: &[3], position: 10, blocks: &Play::blocks(1), logits: LogitRows::Last };
    let mut logits = vec![0.0; play.executor.spec().vocab_size];
    play.executor.forward(&Batch { sequences: &[s] }, &mut logits).unwrap();
    play.seen.extend(logits.iter().map(|logit| (0, logit.to_bits())));
    play.steps(&[3]);
    let mut bytes = vec![0; 4 * kv.position_bytes()];
    play.executor.read_block(3 * EACH, 4, &mut bytes).unwrap();
    (play.seen, bytes)
}

#[test]
fn batches_that_change_between_steps_have_the_bits_of_the_oracle() {
    let sample = &samples()[0];
    let kv = KvRows::new(&sample.spec, KvType::F16);
    let mut oracle = ReferenceExecutor::new(sample.spec.clone(), &sample.weights, KvType::F16).unwrap();
    let want = changing(&mut oracle, kv);
    for (way, mut executor) in ways(sample) {
        assert!(changing(&mut executor, kv) == want, "{way}");
    }
}

#[test]
fn what_is_not_a_number_is_noticed_in_steps() {
    // An untied output layer, and a token whose row is not numbers.
    let mut sample = samples().swap_remove(1);
    let (vocab, hidden, bad) = (sample.spec.vocab_size, sample.spec.hidden_size, 50);
    let mut random = Random::new(9);
    let mut rows: Vec<f32> = (0..vocab * hidden).map(|_| random.next_f32()).collect();
    rows[bad * hidden..][..hidden].fill(f32::NAN);
    let data = ByteView::from_vec(DType::F32.encode(&rows));
    sample.weights.embedding = DenseTensor::new(vocab, hidden, DType::F32, data).unwrap();
    for (way, mut executor) in ways(&sample) {
        let mut play = Play::new(&mut executor, 1);
        play.prompt(0, &[1, 2, 3]);
        play.steps(&[0]);
        let before = play.texts[0];
        play.step(&[0]).unwrap();
        let want = *play.seen.last().unwrap();
        for _ in 0..STEPS {
            play.texts[0] = (before.0, bad as u32);
            assert!(matches!(play.step(&[0]), Err(ExecError::NotFinite)), "{way}");
        }
        play.texts[0] = before;
        play.step(&[0]).unwrap();
        assert_eq!(*play.seen.last().unwrap(), want, "{way}");
    }
}

/// What comes of steps that want the `k` largest logits, beside all of them.
fn check_many(executor: &mut CudaExecutor, k: usize, way: &str) -> usize {
    let vocab = executor.spec().vocab_size;
    executor.reserve_blocks(2).unwrap();
    let (mut top, mut all) = ([TopLogits::default()], vec![0.0; vocab]);
    for position in 0..STEPS {
        let s = Sequence { tokens: &[7], position, blocks: &[0, 1], logits: LogitRows::Last };
        executor.forward_top(&Batch { sequences: &[s] }, k, &mut top).unwrap();
        executor.forward(&Batch { sequences: &[s] }, &mut all).unwrap();
        let same = |(&id, logit): (&u32, &f32)| all[id as usize].to_bits() == logit.to_bits();
        assert!(top[0].ids.len() >= k && top[0].ids.is_sorted(), "{way}");
        assert!(top[0].ids.iter().zip(&top[0].logits).all(same), "{way}");
    }
    top[0].ids.len()
}

#[test]
fn more_than_there_is_room_for_comes_all_the_same() {
    let mut sample = samples().swap_remove(0);
    sample.spec.vocab_size = 1500;
    sample.weights = random_weights(&sample.spec, DType::BF16, &mut Random::new(5));
    for (way, mut executor) in ways(&sample) {
        // More than the mailbox takes, and less.
        check_many(&mut executor, 1100, way);
        check_many(&mut executor, 5, way);
    }
    // All logits are the same: more than is kept on the device.
    sample.weights.final_norm.fill(0.0);
    for (way, mut executor) in ways(&sample) {
        assert_eq!(check_many(&mut executor, 1, way), 1500, "{way}");
    }
}
