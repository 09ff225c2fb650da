//! Which layers stay in memory, how many slots the others share, and how large a chunk of prefill may be.
//!
//! Pure: sizes in, plan out. Of two things that cost the same memory, the one that saves more reading goes first: what every pass
//! needs once (embeddings, output rows) is always pinned, then the sequence's own memory, then slots, then as many layers as fit.
//! Pinned layers are spread evenly among the streamed ones (FlexInfer), so that the next streamed layer arrives while pinned ones
//! compute. A chunk of prefill reads every streamed layer once, so it is as large as the memory allows without
//! pushing out layers for more than it saves.

use std::fmt;

/// What a model takes, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The matrices of each layer, as they lie in memory.
    pub layers: Vec<u64>,
    /// Embeddings, output rows and all vectors: always in memory.
    pub always: u64,
    /// One sequence's K/V cache and inputs, and what the process takes beside the model.
    pub session: u64,
    /// Graph memory of a pass, per row.
    pub per_row: u64,
    /// Rows of a pass at most: what prefill has where memory does not matter.
    pub max_rows: usize,
}

/// What stays, what streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// For each layer, whether it stays in memory.
    pub pinned: Vec<bool>,
    /// Layers that are in memory at a time beside the pinned ones, the one that computes included; 0 if all are pinned.
    pub slots: usize,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Rows of a pass at most.
    pub max_rows: usize,
    /// Bytes of weights that stay, those that always do included.
    pub pinned_bytes: u64,
    /// Bytes of weights that each pass reads.
    pub streamed_bytes: u64,
    /// Bytes that all this takes.
    pub total: u64,
}

/// Not even the smallest plan fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// Bytes of the smallest plan.
    pub needed: u64,
}

/// Slots that keep the flash busy: one computes, one is read. Reading takes longer than computing or streaming costs nothing, so
/// by the time one slot is full the other is free again.
const SLOTS: usize = 2;

/// Slots with memory to spare: one more covers drafting and projection between passes.
const MORE_SLOTS: usize = 3;

/// Pinned layers that are worth less than the third slot.
const SPARE_LAYERS: usize = 5;

/// Rows of a prefill chunk at least, where the model allows them: below, reading the layers again costs more than layers do.
const MIN_ROWS: usize = 64;

/// Of the memory that is left for layers and graphs, the share that graphs may have.
const GRAPH_SHARE: u64 = 4;

impl Plan {
    /// The plan for `budget` bytes.
    ///
    /// # Errors
    ///
    /// [`TooSmall`] if two layers, the smallest chunk and what is always there do not fit.
    pub fn new(sizes: &Sizes, budget: u64) -> Result<Self, TooSmall> {
        let fixed = sizes.always.saturating_add(sizes.session);
        let all = Self::with(sizes, sizes.layers.len(), sizes.max_rows);
        if all.total <= budget {
            return Ok(all);
        }
        let smallest = Self::smallest(sizes);
        if smallest.total > budget {
            return Err(TooSmall { needed: smallest.total });
        }
        let room = budget.saturating_sub(fixed);
        let mut max_rows = sizes.max_rows;
        while max_rows > MIN_ROWS
            && (sizes.per_row * max_rows as u64 > room / GRAPH_SHARE || Self::with(sizes, 0, max_rows).total > budget)
        {
            max_rows = (max_rows / 2).max(MIN_ROWS);
        }
        let n_layers = sizes.layers.len();
        let fitting = (0..=n_layers).rev().map(|n| Self::with(sizes, n, max_rows)).find(|plan| plan.total <= budget);
        Ok(fitting.unwrap_or(smallest))
    }

    /// The plan that takes the least: nothing pinned that need not be.
    pub fn smallest(sizes: &Sizes) -> Self {
        let with = |n_pinned| Self::with(sizes, n_pinned, sizes.max_rows.min(MIN_ROWS));
        // Of one or two layers, slots take as much as the layers themselves.
        let (streamed, resident) = (with(0), with(sizes.layers.len()));
        if resident.total <= streamed.total { resident } else { streamed }
    }

    /// Whether every layer is pinned.
    pub fn is_resident(&self) -> bool {
        self.slots == 0
    }

    /// Layers that stream.
    pub fn n_streamed(&self) -> usize {
        self.pinned.iter().filter(|&&pinned| !pinned).count()
    }

    /// The plan with `n_pinned` layers in memory, whatever it takes.
    fn with(sizes: &Sizes, n_pinned: usize, max_rows: usize) -> Self {
        let pinned = spread(n_pinned, sizes.layers.len());
        let bytes = |wanted: bool| {
            sizes.layers.iter().zip(&pinned).filter(move |(_, pinned)| **pinned == wanted).map(|(bytes, _)| *bytes)
        };
        let (pinned_bytes, streamed_bytes) = (sizes.always + bytes(true).sum::<u64>(), bytes(false).sum());
        let slot_bytes = bytes(false).max().unwrap_or(0);
        let slots = if n_pinned >= SPARE_LAYERS { MORE_SLOTS } else { SLOTS };
        let slots = slots.min(bytes(false).count());
        let total = pinned_bytes + slots as u64 * slot_bytes + sizes.session + sizes.per_row * max_rows as u64;
        Self { pinned, slots, slot_bytes, max_rows, pinned_bytes, streamed_bytes, total }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, streamed) = (self.pinned.len(), self.n_streamed());
        write!(
            f,
            "{} of {n} layers pinned, {streamed} streamed through {} slots of {} bytes; {} bytes in memory, {} read per pass; \
             {} rows per pass",
            n - streamed,
            self.slots,
            self.slot_bytes,
            self.total,
            self.streamed_bytes,
            self.max_rows
        )
    }
}

/// `n` of `of` layers, as far apart as they go. The first layer is the last to be pinned: it is read while the draft works.
fn spread(n: usize, of: usize) -> Vec<bool> {
    (0..of).map(|layer| (layer + 1) * n / of != layer * n / of).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizes(layers: usize) -> Sizes {
        Sizes { layers: vec![100; layers], always: 50, session: 30, per_row: 1, max_rows: 512 }
    }

    #[test]
    fn what_fits_stays() {
        let plan = Plan::new(&sizes(4), 50 + 30 + 400 + 512).unwrap();
        assert!(plan.is_resident());
        assert_eq!((plan.total, plan.streamed_bytes, plan.max_rows), (992, 0, 512));
        let plan = Plan::new(&sizes(4), 991).unwrap();
        assert!(plan.is_resident() && plan.max_rows < 512, "smaller chunks, before a layer streams");
        assert!(!Plan::new(&sizes(4), 50 + 30 + 400 + 63).unwrap().is_resident());
    }

    #[test]
    fn pinned_layers_stand_far_apart() {
        let pinned = |n, of| spread(n, of).iter().map(|&p| if p { 'P' } else { '.' }).collect::<String>();
        assert_eq!(pinned(0, 8), "........");
        assert_eq!(pinned(2, 8), "...P...P");
        assert_eq!(pinned(3, 8), "..P..P.P");
        assert_eq!(pinned(4, 8), ".P.P.P.P");
        assert_eq!(pinned(7, 8), ".PPPPPPP");
        assert_eq!(pinned(8, 8), "PPPPPPPP");
    }

    #[test]
    fn too_little_is_refused_with_the_number() {
        let smallest = 50 + 30 + 2 * 100 + 64;
        assert_eq!(Plan::new(&sizes(8), smallest - 1), Err(TooSmall { needed: smallest }));
        let plan = Plan::new(&sizes(8), smallest).unwrap();
        assert_eq!((plan.n_streamed(), plan.slots, plan.max_rows, plan.total), (8, 2, 64, smallest));
    }

    #[test]
    fn chunks_of_prefill_follow_memory() {
        let rows = |budget| Plan::new(&sizes(40), budget).unwrap().max_rows;
        assert_eq!(rows(400), 64);
        assert_eq!(rows(80 + 1024), 256);
        assert_eq!(rows(80 + 2048), 512);
    }

    fn any_sizes() -> impl Strategy<Value = Sizes> {
        (prop::collection::vec(1_u64..1000, 1..60), 0_u64..5000, 0_u64..5000, 0_u64..10, 1_usize..1024).prop_map(
            |(layers, always, session, per_row, max_rows)| Sizes { layers, always, session, per_row, max_rows },
        )
    }

    proptest! {
        #[test]
        fn a_plan_keeps_its_budget_and_adds_up(sizes in any_sizes(), budget in 0_u64..60_000) {
            match Plan::new(&sizes, budget) {
                Err(TooSmall { needed }) => {
                    prop_assert!(needed > budget);
                    prop_assert!(Plan::new(&sizes, needed).is_ok());
                }
                Ok(plan) => {
                    prop_assert!(plan.total <= budget);
                    let all: u64 = sizes.layers.iter().sum();
                    prop_assert_eq!(plan.pinned_bytes + plan.streamed_bytes, all + sizes.always);
                    prop_assert_eq!(plan.pinned.len(), sizes.layers.len());
                    prop_assert_eq!(plan.is_resident(), plan.n_streamed() == 0);
                    prop_assert!(plan.slots <= plan.n_streamed());
                    prop_assert!(plan.n_streamed() < SLOTS || plan.slots >= SLOTS);
                    prop_assert!(plan.max_rows <= sizes.max_rows && plan.max_rows >= sizes.max_rows.min(MIN_ROWS));
                    for (bytes, pinned) in sizes.layers.iter().zip(&plan.pinned) {
                        prop_assert!(*pinned || *bytes <= plan.slot_bytes);
                    }
                }
            }
        }

        #[test]
        fn with_equal_layers_more_memory_never_reads_more_but_for_larger_chunks(
            n in 1_usize..60, layer in 1_u64..1000, budget in 0_u64..60_000, more in 0_u64..5_000
        ) {
            let sizes = Sizes { layers: vec![layer; n], always: 10, session: 10, per_row: 0, max_rows: 512 };
            if let Ok(small) = Plan::new(&sizes, budget) {
                prop_assert!(Plan::new(&sizes, budget + more).unwrap().streamed_bytes <= small.streamed_bytes);
            }
        }

        #[test]
        fn pinned_layers_are_spread_evenly(n in 0_usize..60, of in 1_usize..60) {
            let n = n.min(of);
            let pinned = spread(n, of);
            prop_assert_eq!(pinned.iter().filter(|&&p| p).count(), n);
            // Any two windows of a length hold numbers of pinned layers that differ by one at most.
            for len in 1..=of {
                let counts: Vec<usize> = pinned.windows(len).map(|w| w.iter().filter(|&&p| p).count()).collect();
                let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
                prop_assert!(most - least <= 1);
            }
        }
    }
}
