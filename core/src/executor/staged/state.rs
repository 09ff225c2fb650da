//! One sequence's tensors: K/V cache, hidden states between stages, and the inputs of a pass.

use std::sync::Arc;

use super::weights::{Setup, StagedModel};
use crate::error::{ErrorKind, Result};
use crate::executor::options::KvType;
use crate::executor::pass::Pass;
use crate::kernels::custom::SIGHT_HEADER;
use crate::kernels::machine::Device;
use crate::kernels::store::{StoreBuilder, TensorId, TensorStore, element};
use crate::kv_cache::KvCache;

/// Tensors of the session's store.
#[derive(Clone)]
pub(super) struct StateTensors {
    /// Positions that the sequence may have.
    pub(super) n_cells: usize,
    /// `[max_rows]`, i32.
    pub(super) tokens: TensorId,
    /// `[max_rows]`, i32.
    pub(super) positions: TensorId,
    /// `[max_rows]`, i64.
    pub(super) cells: TensorId,
    /// `[max_rows]`, i32: rows that a stage or a projection selects.
    pub(super) selection: TensorId,
    /// Who sees whom.
    pub(super) sight: Sight,
    /// `[n_embd, max_rows]`, f32.
    pub(super) hidden: TensorId,
    /// `[head_dim, padded cells, kv heads]` per layer: attention reads one head over all cells, so a head's cells follow each
    /// other, as the memory's own prefetching wants it.
    pub(super) keys: Vec<TensorId>,
    /// As `keys`.
    pub(super) values: Vec<TensorId>,
}

/// Who sees whom, as the attention kernels want to be told.
#[derive(Clone, Copy)]
pub(super) enum Sight {
    /// For ours: `[SIGHT_HEADER + words · max_rows]`, i64.
    Ancestors(TensorId),
    /// For ggml's: `[padded cells · max_rows]`, f16, of which a pass uses the start as `[n_kv, rows]`; and the same for layers with a
    /// sliding window.
    Masks(TensorId, Option<TensorId>),
}

/// The tensors and the host memory to fill them from.
pub(super) struct State {
    store: Arc<TensorStore>,
    tensors: StateTensors,
    window: Option<usize>,
    n_embd: usize,
    /// Of one head in one cell.
    head_bytes: usize,
    n_heads_kv: usize,
    numbers: Vec<i32>,
    cells: Vec<i64>,
    mask: Vec<u16>,
    ancestors: Vec<u64>,
    row: Vec<f32>,
    cell: Vec<u8>,
}

impl State {
    /// Attention looks at a multiple of this many cells, so that a graph serves that many positions.
    const CELL_STEP: usize = 256;

    /// `n_cells` rounded up to what graphs are built for.
    pub(super) fn padded(n_cells: usize) -> usize {
        n_cells.next_multiple_of(Self::CELL_STEP)
    }

    /// Bytes that [`new`](Self::new) takes, of tensors and of what fills them. In floating point: nothing overflows, and more
    /// than there are addresses is still more than there is memory.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn bytes(setup: &Setup, n_cells: usize, max_rows: usize) -> u64 {
        let arch = &setup.arch;
        let (cells, rows) = (Self::padded(n_cells) as f64, max_rows as f64);
        let cell = f64::from(arch.n_embd_kv()) * setup.options.kv_type.bytes_per_value();
        let cache = 2.0 * f64::from(arch.n_layers) * cell * cells;
        let mask_tensors = if arch.window.is_some() { 2.0 } else { 1.0 };
        let sight =
            if setup.attends() { 2.0 * rows * (rows / 8.0 + 8.0) } else { (mask_tensors + 1.0) * 2.0 * cells * rows };
        (cache + sight + 4.0 * rows * f64::from(arch.n_embd)) as u64
    }

    pub(super) fn new(model: &StagedModel, n_cells: usize, max_rows: usize) -> Result<Self> {
        let (arch, kv_type) = (model.arch(), model.options().kv_type);
        let head_dim = arch.head_dim as usize;
        let (kv_element, head_bytes) = match kv_type {
            KvType::F16 => (element::F16, head_dim * 2),
            KvType::Q8_0 if head_dim.is_multiple_of(32) => (element::Q8_0, head_dim / 32 * 34),
            KvType::Q8_0 => {
                let reason =
                    format!("q8_0 needs heads of a multiple of 32 elements, these have {}; use f16", arch.head_dim);
                return Err(ErrorKind::InvalidOption { option: "kv_type", reason }.into());
            }
        };
        let (store, tensors) = allocate(model, kv_element, n_cells, max_rows)?;
        Ok(Self {
            store,
            tensors,
            window: arch.window.map(|w| w as usize),
            n_embd: arch.n_embd as usize,
            head_bytes,
            n_heads_kv: arch.n_heads_kv as usize,
            numbers: Vec::with_capacity(max_rows),
            cells: Vec::with_capacity(max_rows),
            mask: Vec::new(),
            ancestors: vec![0; SIGHT_HEADER + max_rows.div_ceil(64) * max_rows],
            row: vec![0.0; arch.n_embd as usize],
            cell: vec![0; head_bytes],
        })
    }

    pub(super) fn store(&self) -> &Arc<TensorStore> {
        &self.store
    }

    pub(super) fn tensors(&self) -> &StateTensors {
        &self.tensors
    }

    /// Writes what the stages of a pass read: tokens, positions, cells, masks and the selection of the last layer.
    pub(super) fn write_inputs(&mut self, pass: &Pass, cache: &KvCache) {
        let (rows, kept) = (pass.rows(), pass.kept());
        if pass.layers_done() == 0 {
            self.write_numbers(self.tensors.tokens, kept.iter().map(|&r| to_i32(rows[r as usize].token as usize)));
        }
        self.write_numbers(self.tensors.positions, kept.iter().map(|&r| to_i32(cache.position(r))));
        let wanted = kept.iter().enumerate().filter(|(_, r)| rows[**r as usize].wants_logits);
        self.write_numbers(self.tensors.selection, wanted.map(|(i, _)| to_i32(i)));
        self.cells.clear();
        self.cells.extend(kept.iter().map(|&r| i64::from(to_i32(cache.cell(r)))));
        self.store.write(self.tensors.cells, 0, &self.cells);
        match self.tensors.sight {
            Sight::Ancestors(tensor) => self.write_ancestors(tensor, kept, cache),
            Sight::Masks(mask, window_mask) => {
                self.write_mask(mask, kept, None, cache);
                if let Some(mask) = window_mask {
                    self.write_mask(mask, kept, self.window, cache);
                }
            }
        }
    }

    /// Writes which hidden states a projection reads.
    pub(super) fn write_selection(&mut self, places: impl Iterator<Item = usize>) {
        self.write_numbers(self.tensors.selection, places.map(to_i32));
    }

    fn write_numbers(&mut self, tensor: TensorId, numbers: impl Iterator<Item = i32>) {
        self.numbers.clear();
        self.numbers.extend(numbers);
        self.store.write(tensor, 0, &self.numbers);
    }

    fn write_ancestors(&mut self, tensor: TensorId, kept: &[u32], cache: &KvCache) {
        let words = cache.n_rows().div_ceil(64);
        let used = SIGHT_HEADER + words * kept.len();
        self.ancestors[0] = cache.len() as u64;
        self.ancestors[1] = words as u64;
        cache.write_ancestors(kept, words, &mut self.ancestors[SIGHT_HEADER..used]);
        self.store.write(tensor, 0, &self.ancestors[..used]);
    }

    fn write_mask(&mut self, tensor: TensorId, kept: &[u32], window: Option<usize>, cache: &KvCache) {
        let n_kv = Self::padded(cache.n_used());
        self.mask.resize(n_kv * kept.len(), 0);
        cache.write_mask(kept, window, n_kv, &mut self.mask);
        self.store.write(tensor, 0, &self.mask);
    }

    /// Moves the hidden states at `places`, ascending, to the front.
    pub(super) fn compact_hidden(&mut self, places: impl Iterator<Item = usize>) {
        let row_bytes = self.n_embd * size_of::<f32>();
        for (to, from) in places.enumerate().filter(|(to, from)| to != from) {
            self.store.read(self.tensors.hidden, from * row_bytes, &mut self.row);
            self.store.write(self.tensors.hidden, to * row_bytes, &self.row);
        }
    }

    /// Copies K and V of one cell over another in every layer.
    pub(super) fn move_cell(&mut self, from: usize, to: usize) {
        let cells = Self::padded(self.tensors.n_cells);
        for &tensor in self.tensors.keys.iter().chain(&self.tensors.values) {
            for head in 0..self.n_heads_kv {
                self.store.read(tensor, (head * cells + from) * self.head_bytes, &mut self.cell);
                self.store.write(tensor, (head * cells + to) * self.head_bytes, &self.cell);
            }
        }
    }
}

fn to_i32(n: usize) -> i32 {
    i32::try_from(n).expect("tokens, positions and cells are below 2^31")
}

fn allocate(model: &StagedModel, kv: u32, n_cells: usize, max_rows: usize) -> Result<(Arc<TensorStore>, StateTensors)> {
    let arch = model.arch();
    let n_layers = arch.n_layers as usize;
    let mut store = StoreBuilder::new(Device::cpu()?, 7 + 2 * n_layers, Vec::new());
    let (rows, cells) = (max_rows as u64, State::padded(n_cells) as u64);
    let kv_shape = [arch.head_dim, arch.n_heads_kv].map(u64::from);
    let kv_shape = [kv_shape[0], cells, kv_shape[1]];
    let sight = if model.attends() {
        let words = SIGHT_HEADER as u64 + rows.div_ceil(64) * rows;
        Sight::Ancestors(store.zeroed("inputs", element::I64, &[words])?)
    } else {
        let mut mask = || store.zeroed("the attention mask", element::F16, &[cells * rows]);
        Sight::Masks(mask()?, arch.window.map(|_| mask()).transpose()?)
    };
    let tensors = StateTensors {
        n_cells,
        tokens: store.zeroed("inputs", element::I32, &[rows])?,
        positions: store.zeroed("inputs", element::I32, &[rows])?,
        cells: store.zeroed("inputs", element::I64, &[rows])?,
        selection: store.zeroed("inputs", element::I32, &[rows])?,
        sight,
        hidden: store.zeroed("hidden states", element::F32, &[u64::from(arch.n_embd), rows])?,
        keys: (0..n_layers).map(|_| store.zeroed("the K/V cache", kv, &kv_shape)).collect::<Result<_>>()?,
        values: (0..n_layers).map(|_| store.zeroed("the K/V cache", kv, &kv_shape)).collect::<Result<_>>()?,
    };
    Ok((store.build(), tensors))
}
