//! Executors, called in any order with any arguments: errors, and afterwards the same logits as ever.

use super::common::isolated;
use super::{EXECUTORS, File, gentle, small};
use fulcrum::executor::{Executor, Row};
use fulcrum::{Cancel, KvType, Model, ModelOptions};

const N_VOCAB: usize = 320;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn rows(&mut self) -> Vec<Row> {
        let n = self.pick(&[1, 2, 3, 8, 24, 25, 0]);
        (0..n).map(|row| self.row(row)).collect()
    }

    fn row(&mut self, row: usize) -> Row {
        let token = if self.once_in(40) { self.pick(&[320, 1 << 31, u32::MAX]) } else { self.below(N_VOCAB) as u32 };
        let parent = match self.below(12) {
            0 => None,
            1 if self.once_in(8) => Some(self.pick(&[row as u32, row as u32 + 1, u32::MAX])),
            _ => (row > 0).then(|| self.below(row) as u32),
        };
        Row { token, parent, wants_logits: self.below(3) > 0 }
    }

    /// Some of the rows of a pass of `n`, and now and then one that is not there.
    fn some(&mut self, n: usize, one_in: usize) -> Vec<u32> {
        let mut rows: Vec<u32> = (0..n as u32).filter(|_| self.once_in(one_in)).collect();
        if self.once_in(12) {
            rows.push(self.pick(&[n as u32, u32::MAX]));
        }
        rows
    }
}

/// One call; whether it worked. `n` is how many rows were asked for last.
fn call(executor: &mut dyn Executor, random: &mut Random, n: &mut usize) -> bool {
    match random.below(8) {
        0 | 1 => {
            let rows = random.rows();
            *n = rows.len();
            executor.begin(&rows).is_ok()
        }
        2 | 3 => executor.run(random.pick(&[2, 2, 2, 1, 0, usize::MAX]), &Cancel::new()).is_ok(),
        4 => executor.keep(&random.some(*n, 1)).is_ok(),
        5 => {
            let rows = random.some(*n, 3);
            let n_logits = if random.once_in(10) { random.below(1000) } else { rows.len() * N_VOCAB };
            executor.project(&rows, &mut vec![0.0; n_logits]).is_ok()
        }
        6 => executor.commit(&random.some((*n).min(3), 2)).is_ok(),
        _ if random.once_in(2) => {
            executor.rollback();
            true
        }
        _ => {
            let len = if random.once_in(3) {
                random.pick(&[40, 41, 1 << 32, usize::MAX])
            } else {
                random.below(executor.len() + 1)
            };
            executor.truncate(len).is_ok()
        }
    }
}

fn logits(executor: &mut dyn Executor) -> Vec<f32> {
    let rows: Vec<Row> = (0..5).map(|i| Row { token: 7 * i, parent: i.checked_sub(1), wants_logits: true }).collect();
    executor.begin(&rows).unwrap();
    executor.run(2, &Cancel::new()).unwrap();
    let mut logits = vec![0.0; 5 * N_VOCAB];
    executor.project(&[0, 1, 2, 3, 4], &mut logits).unwrap();
    executor.commit(&[0, 1, 2, 3, 4]).unwrap();
    logits
}

#[test]
fn calls_in_any_order_do_no_harm() {
    isolated::each("calls::calls_in_any_order_do_no_harm", 0..24, |i| {
        let file = File::new(&small().write());
        let kv_type = [KvType::F16, KvType::Q8_0][i / 2 % 2];
        let options = ModelOptions { batch_size: 24, kv_type, ..gentle(EXECUTORS[i % 2]) };
        let model = Model::load(file.path(), options).unwrap();
        let new = || model.weights().executor(40).unwrap();
        let (mut executor, mut random, mut n) = (new(), Random(i as u64), 0);
        let worked = (0..400).filter(|_| call(&mut *executor, &mut random, &mut n)).count();
        assert!((40..360).contains(&worked), "{worked} of 400 calls worked");
        executor.rollback();
        executor.truncate(0).unwrap();
        assert!(logits(&mut *executor) == logits(&mut *new()), "the executor is not what it was");
    });
}
