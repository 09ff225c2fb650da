//! A model's weights under a memory budget: what the plan pins is read into memory, the rest is streamed.
//!
//! Nothing is mapped: a file that shrinks under us is an error then, not a signal. The layout in memory is the same as without
//! a budget for all weights that our kernels multiply, so the text is the same.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::graphs::Graphs;
use super::state::State;
use super::weights::{LayerWeights, Setup, StagedModel, StagedOptions, Weight, no_kernel};
use crate::architecture::{Architecture, GlobalTensor, LayerTensor};
use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::executor::options::Kernels;
use crate::gguf::Gguf;
use crate::kernels::gemm::Isa;
use crate::kernels::machine::Device;
use crate::kernels::region::{Piece, Region};
use crate::kernels::store::{AnchorId, StoreBuilder};
use crate::metrics::FlashMetrics;
use crate::residency::ResidencyInfo;
use crate::residency::layout::{Blob, Form, Part, Role, blobs};
use crate::residency::plan::{Plan, Sizes};
use crate::residency::sidecar::{PreparedSource, Sidecar};
use crate::residency::source::{BlobSource, ModelSource, ReadBlocks, read_blob};
use crate::residency::stream::{IN_FLIGHT, Pass, Stream};

/// What a model is loaded within.
pub(crate) struct Within<'a> {
    /// Bytes that model and process may take.
    pub(crate) budget: u64,
    /// Bytes of it that are for the process beside the model.
    pub(crate) beside: u64,
    /// Positions of the session that is planned for.
    pub(crate) n_cells: usize,
    /// The model's first file.
    pub(crate) model: &'a Path,
    /// All of its files, open.
    pub(crate) files: Vec<Arc<dyn ReadBlocks>>,
    /// Where the prepared file is kept; beside the model if nowhere else.
    pub(crate) folder: Option<&'a Path>,
    /// Told the share done, 0 to 1.
    pub(crate) progress: &'a mut dyn FnMut(f32),
    /// Stops loading.
    pub(crate) cancel: &'a Cancel,
}

/// The streamed part of a model, and what is left of its budget.
pub(crate) struct Residency {
    plan: Plan,
    info: ResidencyInfo,
    anchors: Vec<AnchorId>,
    stream: Option<Stream>,
    /// Bytes that sessions may still take.
    room: Mutex<u64>,
}

/// A session's share of the budget; given back when it is dropped.
pub(super) struct Share {
    model: Arc<StagedModel>,
    bytes: u64,
}

/// What a program takes that does nothing but run the model: code, vocabulary, template, tables of drafters, threads and the headers
/// of graphs.
pub(crate) const ALLOWANCE: u64 = 40 << 20;

/// What one model takes, as the plan wants to know it.
fn sizes(setup: &Setup, file: &Gguf<'_>, n_cells: usize, beside: u64) -> Sizes {
    let mut blobs = blobs(&setup.arch, file, setup.options.kernels, Isa::detect());
    let matrices: HashSet<_> = blobs.iter().flat_map(|blob| &blob.parts).map(|part| (part.file, part.offset)).collect();
    let vectors = file.tensors().iter().filter(|tensor| !matrices.contains(&(tensor.file, tensor.offset)));
    let vectors: u64 = vectors.map(|tensor| tensor.size).sum();
    let outside = blobs.pop().map_or(0, |blob| blob.bytes as u64);
    let max_rows = setup.options.max_rows.min(n_cells);
    let session = session_bytes(setup, n_cells, max_rows) + beside;
    Sizes {
        layers: blobs.iter().map(|blob| blob.bytes as u64).collect(),
        always: outside + vectors,
        session,
        per_row: Graphs::bytes_per_row(&setup.arch),
        max_rows,
    }
}

/// What loading a model within a budget would come to.
pub(crate) struct Forecast {
    /// What would be in memory and what would stream.
    pub(crate) info: ResidencyInfo,
    /// Bytes of the smallest plan.
    pub(crate) smallest: u64,
    /// Bytes of the pinned weights that a pass reads single rows of.
    pub(crate) embedding_bytes: u64,
    /// The prepared file.
    pub(crate) prepared_path: PathBuf,
    /// Its length.
    pub(crate) prepared_bytes: u64,
    /// Whether it is there.
    pub(crate) prepared_ready: bool,
}

impl Forecast {
    /// Of the model at `model`, whose `files` are open, within `budget` bytes, of which some are for the process `beside` it, with one
    /// session of `n_cells` positions.
    ///
    /// # Errors
    ///
    /// Those of [`StagedModel::load_within`].
    pub(crate) fn new(
        setup: &Setup,
        file: &Gguf<'_>,
        model: &Path,
        files: Vec<Arc<dyn ReadBlocks>>,
        [budget, beside]: [u64; 2],
        n_cells: usize,
        folder: Option<&Path>,
    ) -> Result<Self> {
        let sizes = sizes(setup, file, n_cells, beside);
        let plan = plan(&sizes, budget)?;
        let source = Arc::new(ModelSource::new(files, blobs(&setup.arch, file, setup.options.kernels, Isa::detect())));
        let outside = source.blobs().last().map_or(&[][..], |blob| &blob.parts);
        let embedding = outside.iter().filter(|part| part.role == Role::Embedding).map(|part| part.len as u64).sum();
        let sidecar = Sidecar::of(model, &source, plan.pinned.len(), folder)?;
        Ok(Self {
            info: info(&plan, budget),
            smallest: Plan::smallest(&sizes).total,
            embedding_bytes: if outside.len() > 1 { embedding } else { 0 },
            prepared_path: sidecar.path().to_owned(),
            prepared_bytes: sidecar.bytes(),
            prepared_ready: sidecar.open(source).is_some(),
        })
    }
}

fn plan(sizes: &Sizes, budget: u64) -> Result<Plan> {
    Plan::new(sizes, budget).map_err(|too_small| {
        let (what, available) = ("the model under its memory budget", Some(budget));
        ErrorKind::OutOfMemory { what, needed: too_small.needed, available }.into()
    })
}

/// What a session takes but for the graphs of its passes, which all sessions share.
fn session_bytes(setup: &Setup, n_cells: usize, max_rows: usize) -> u64 {
    State::bytes(setup, n_cells, max_rows) + Graphs::bytes(setup, n_cells)
}

impl StagedModel {
    /// Places the weights of `file` as far as the budget goes, and streams the others.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`, with the numbers, if not even the smallest plan fits; `File` if a file cannot be read; `Cancelled`.
    pub(crate) fn load_within(
        arch: Architecture,
        file: &Gguf<'_>,
        options: StagedOptions,
        within: Within<'_>,
    ) -> Result<Arc<Self>> {
        let mut setup = Setup { arch, options };
        let sizes = sizes(&setup, file, within.n_cells, within.beside);
        let plan = plan(&sizes, within.budget)?;
        log::info!("memory budget of {} bytes: {}", within.budget, plan);
        setup.options.max_rows = plan.max_rows;
        let blobs = blobs(&setup.arch, file, setup.options.kernels, Isa::detect());
        if setup.options.kernels == Kernels::Own {
            check_packed(&blobs)?;
        }
        let model = Arc::new(ModelSource::new(within.files, blobs));
        let mut info = info(&plan, within.budget);
        let mut source = Arc::clone(&model) as Arc<dyn BlobSource>;
        if !plan.is_resident() {
            let sidecar = Sidecar::of(within.model, &model, plan.pinned.len(), within.folder)?;
            if let Some(prepared) = prepare(&sidecar, &model, within.progress, within.cancel)? {
                info.prepared = Some(sidecar.path().to_owned());
                source = Arc::new(prepared);
            }
        }
        let loader = Placing { file, plan: &plan, model, source, cancel: within.cancel };
        let placed = loader.place(&setup, within.progress)?;
        let fixed = plan.total - session_bytes(&setup, within.n_cells, setup.options.max_rows.min(within.n_cells));
        let room = Mutex::new(within.budget.saturating_sub(fixed));
        let residency = Residency { plan, info, anchors: placed.anchors, stream: placed.stream, room };
        Self::from_parts(setup, placed.layers, placed.globals, placed.output, placed.store, Some(residency))
    }
}

/// The prepared file, made if need be; `None` if it cannot be made. Fails with `Cancelled` only.
fn prepare(
    sidecar: &Sidecar,
    model: &Arc<ModelSource>,
    progress: &mut dyn FnMut(f32),
    cancel: &Cancel,
) -> Result<Option<PreparedSource>> {
    if let Some(prepared) = sidecar.open(Arc::clone(model)) {
        return Ok(Some(prepared));
    }
    log::info!("preparing {}, {} bytes, once", sidecar.path().display(), sidecar.bytes());
    match sidecar.make(model, &mut |share| progress(PREPARING * share), cancel) {
        Ok(()) => Ok(sidecar.open(Arc::clone(model))),
        Err(error) if error.is_cancelled() => Err(error),
        Err(error) => {
            log::warn!("{error}; layers are read from the model's own file, which costs time on every pass");
            Ok(None)
        }
    }
}

/// Of the time of loading, what preparing takes, in the eyes of who watches.
const PREPARING: f32 = 0.8;

/// Fails with `InvalidOption` if our kernels do not multiply one of the matrices.
fn check_packed(blobs: &[Blob]) -> Result<()> {
    let mut multiplied = blobs.iter().flat_map(|blob| &blob.parts).filter(|part| part.role != Role::Embedding);
    match multiplied.find(|part| matches!(part.form, Form::Plain { .. })) {
        Some(part) => Err(no_kernel(&format!("a matrix ({:?})", part.role))),
        None => Ok(()),
    }
}

/// A plan in the words of the API.
pub(crate) fn info(plan: &Plan, budget: u64) -> ResidencyInfo {
    ResidencyInfo {
        budget,
        memory: plan.total,
        pinned_layers: plan.pinned.len() - plan.n_streamed(),
        streamed_layers: plan.n_streamed(),
        pinned_bytes: plan.pinned_bytes,
        streamed_bytes: plan.streamed_bytes,
        slots: plan.slots,
        slot_bytes: plan.slot_bytes,
        max_rows: plan.max_rows,
        prepared: None,
    }
}

impl Residency {
    /// What was planned, and where layers are read from.
    pub(crate) fn info(&self) -> &ResidencyInfo {
        &self.info
    }

    /// A pass over the streamed layers, if there are any.
    pub(super) fn pass(&self, cancel: &Cancel) -> Result<Option<Pass<'_>>> {
        self.stream.as_ref().map(|stream| stream.pass(cancel)).transpose()
    }

    /// Where the tensors of `layer` are moored, if it streams.
    pub(super) fn streamed(&self, layer: usize) -> Option<AnchorId> {
        (!self.plan.pinned[layer]).then(|| self.anchors[layer])
    }

    /// What was read so far.
    pub(super) fn figures(&self) -> FlashMetrics {
        self.stream.as_ref().map(Stream::figures).unwrap_or_default()
    }
}

impl Share {
    /// Takes what a session of `n_cells` positions needs.
    ///
    /// Fails with `OutOfMemory` if the budget has not that much left.
    pub(super) fn take(model: &Arc<StagedModel>, n_cells: usize, max_rows: usize) -> Result<Option<Self>> {
        let Some(residency) = model.residency() else { return Ok(None) };
        let bytes = session_bytes(model.setup(), n_cells, max_rows);
        let mut room = residency.room.lock();
        if bytes > *room {
            let (what, available) = ("a session under the model's memory budget", Some(*room));
            return Err(ErrorKind::OutOfMemory { what, needed: bytes, available }.into());
        }
        *room -= bytes;
        Ok(Some(Self { model: Arc::clone(model), bytes }))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(residency) = self.model.residency() {
            *residency.room.lock() += self.bytes;
        }
    }
}

/// Reads what is pinned and moors what streams.
struct Placing<'a> {
    file: &'a Gguf<'a>,
    plan: &'a Plan,
    model: Arc<ModelSource>,
    source: Arc<dyn BlobSource>,
    cancel: &'a Cancel,
}

struct Placed {
    layers: Vec<LayerWeights>,
    globals: [Option<Weight>; GlobalTensor::ALL.len()],
    output: Weight,
    anchors: Vec<AnchorId>,
    store: Arc<crate::kernels::store::TensorStore>,
    stream: Option<Stream>,
}

impl Placing<'_> {
    fn place(&self, setup: &Setup, progress: &mut dyn FnMut(f32)) -> Result<Placed> {
        let n_layers = self.plan.pinned.len();
        let mut store = StoreBuilder::new(Device::cpu()?, self.file.tensors().len() + 1, Vec::new());
        let mut memory = Region::allocate("weights", self.region_bytes())?;
        store.add_region(&memory)?;
        let slots: Vec<Piece> = (0..self.plan.slots).map(|_| memory.split_to(to_usize(self.plan.slot_bytes))).collect();
        let pinned = self.plan.pinned.iter().filter(|&&pinned| pinned).count() + 1;
        let mut anchors = Vec::with_capacity(n_layers + 1);
        let mut done = 0;
        for (blob, layout) in self.model.blobs().iter().enumerate() {
            if self.cancel.is_cancelled() {
                return Err(ErrorKind::Cancelled.into());
            }
            let stays = self.plan.pinned.get(blob).copied().unwrap_or(true);
            if !stays {
                anchors.push(store.anchor(&slots[0]));
                continue;
            }
            let piece = read_blob(&*self.source, blob, memory.split_to(layout.bytes), IN_FLIGHT)?;
            anchors.push(store.anchor(&piece));
            store.pin(piece);
            done += 1;
            #[allow(clippy::cast_precision_loss)] // a share for a progress bar
            progress(done as f32 / pinned as f32);
        }
        let layers = (0..n_layers).map(|layer| self.layer(setup, layer, &mut store, anchors[layer]));
        let layers = layers.collect::<Result<_>>()?;
        let (globals, output) = self.globals(&mut store, anchors[n_layers])?;
        let streamed: Vec<usize> = (0..n_layers).filter(|&layer| !self.plan.pinned[layer]).collect();
        let source = Arc::clone(&self.source);
        let stream = if streamed.is_empty() { None } else { Some(Stream::start(source, streamed, slots)?) };
        Ok(Placed { layers, globals, output, anchors, store: store.build(), stream })
    }

    fn region_bytes(&self) -> usize {
        let stays = |blob: usize| self.plan.pinned.get(blob).copied().unwrap_or(true);
        let pinned: usize =
            self.model.blobs().iter().enumerate().filter(|(i, _)| stays(*i)).map(|(_, blob)| blob.bytes).sum();
        pinned + self.plan.slots * to_usize(self.plan.slot_bytes)
    }

    fn layer(
        &self,
        setup: &Setup,
        layer: usize,
        store: &mut StoreBuilder<'_>,
        anchor: AnchorId,
    ) -> Result<LayerWeights> {
        let mut weights = [None; LayerTensor::ALL.len()];
        let number = u32::try_from(layer).expect("layers are counted in u32");
        for which in LayerTensor::ALL.into_iter().filter(|t| t.spec(&setup.arch).is_some()) {
            let part = self.model.blobs()[layer].parts.iter().find(|part| part.role == Role::Layer(which));
            weights[which as usize] = match part {
                Some(part) => Some(moored(store, anchor, part)?),
                None => self.vector(&which.name(number), store)?,
            };
        }
        Ok(LayerWeights::new(weights))
    }

    fn globals(
        &self,
        store: &mut StoreBuilder<'_>,
        anchor: AnchorId,
    ) -> Result<([Option<Weight>; GlobalTensor::ALL.len()], Weight)> {
        let mut globals = [None; GlobalTensor::ALL.len()];
        let mut output = None;
        for part in self.model.blobs().last().iter().flat_map(|blob| &blob.parts) {
            let weight = moored(store, anchor, part)?;
            match part.role {
                Role::Embedding => globals[GlobalTensor::TokenEmbedding as usize] = Some(weight),
                _ => output = Some(weight),
            }
        }
        for which in GlobalTensor::ALL {
            if !matches!(which, GlobalTensor::TokenEmbedding | GlobalTensor::Output) {
                globals[which as usize] = self.vector(which.name(), store)?;
            }
        }
        let embedding = globals[GlobalTensor::TokenEmbedding as usize].expect("the architecture was checked");
        Ok((globals, output.unwrap_or(embedding)))
    }

    /// A tensor that is no matrix, if the file has it: small, and always in memory.
    fn vector(&self, name: &str, store: &mut StoreBuilder<'_>) -> Result<Option<Weight>> {
        let Some(info) = self.file.tensor(name) else { return Ok(None) };
        let bytes = self.model.bytes(info.file, info.offset, to_usize(info.size))?;
        Ok(Some(Weight::Ggml(store.copied(info.ty.code(), info.shape.dims(), &bytes, None)?)))
    }
}

/// The matrix `part` of the memory at `anchor`.
fn moored(store: &mut StoreBuilder<'_>, anchor: AnchorId, part: &Part) -> Result<Weight> {
    match part.form {
        Form::Packed(shape) => Ok(Weight::Packed(store.packed_at(shape, anchor, part.at))),
        Form::Plain { element, dims } => Ok(Weight::Ggml(store.tensor_at(element, &dims, anchor, part.at)?)),
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("the plan fits the address space")
}
