//! A model's weights where the staged executor wants them.
//!
//! Every matrix is resident in one layout: ours where our kernels multiply its format, else the one that the device prefers, else
//! the file's. Vectors, which every layer reads, are copied; the embeddings stay in the mapped file, and so do matrices in its layout.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::StagedExecutor;
use super::budgeted::Residency;
use crate::architecture::{Architecture, GlobalTensor, LayerTensor};
use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::options::{Kernels, KvType};
use crate::executor::{Executor, Weights};
use crate::gguf::{Gguf, TensorInfo};
use crate::kernels::attention::{AttentionShape, CacheFormat};
use crate::kernels::gemm::{Isa, PackedShape};
use crate::kernels::machine::{Device, Machine};
use crate::kernels::mapping::Mapping;
use crate::kernels::region::{Piece, Region};
use crate::kernels::store::{PackedId, StoreBuilder, TensorId, TensorStore};
use crate::kernels::threads::{POLL_CANCEL, ThreadPool};
use crate::residency::layout::packed_shape;

/// How a staged model is set up.
#[derive(Clone)]
pub(crate) struct StagedOptions {
    /// The threads, shared with whatever else computes for the model.
    pub(crate) threads: Arc<ThreadPool>,
    pub(crate) kv_type: KvType,
    /// Rows that one pass may have.
    pub(crate) max_rows: usize,
    /// Whose kernels multiply.
    pub(crate) kernels: Kernels,
    /// Layers per stage.
    pub(crate) stage_layers: usize,
}

/// A model's kind, and how it is to run.
pub(crate) struct Setup {
    pub(crate) arch: Architecture,
    pub(crate) options: StagedOptions,
}

impl Setup {
    /// Attention in `layer`, for our kernels.
    pub(super) fn attention(&self, layer: u32) -> AttentionShape {
        let arch = &self.arch;
        let format = match self.options.kv_type {
            KvType::F16 => CacheFormat::F16,
            KvType::Q8_0 => CacheFormat::Q8_0,
        };
        AttentionShape {
            n_head: arch.n_heads as usize,
            n_head_kv: arch.n_heads_kv as usize,
            head_dim: arch.head_dim as usize,
            keys: format,
            values: format,
            scale: if arch.family.scale_queries { 1.0 } else { arch.attention_scale },
            soft_cap: arch.attention_cap.unwrap_or(0.0),
            window: arch.layer_window(layer).map_or(usize::MAX, |w| w as usize),
        }
    }

    /// Whether our kernels attend; if not, ggml's do.
    pub(super) fn attends(&self) -> bool {
        self.options.kernels != Kernels::Ggml && self.attention(0).is_supported()
    }
}

/// Where a tensor is, and so who multiplies with it.
#[derive(Clone, Copy)]
pub(super) enum Weight {
    /// A tensor of ggml's, in the file's layout or the device's own.
    Ggml(TensorId),
    /// A matrix packed for our kernels.
    Packed(PackedId),
}

impl Weight {
    /// The tensor, of a weight that is no matrix and so never packed.
    fn tensor(self) -> TensorId {
        match self {
            Self::Ggml(id) => id,
            Self::Packed(_) => unreachable!("only matrices are packed"),
        }
    }
}

/// Tensors of one layer.
pub(super) struct LayerWeights([Option<Weight>; LayerTensor::ALL.len()]);

impl LayerWeights {
    pub(super) fn new(tensors: [Option<Weight>; LayerTensor::ALL.len()]) -> Self {
        Self(tensors)
    }

    pub(super) fn matrix(&self, which: LayerTensor) -> Weight {
        self.0[which as usize].expect("the architecture was checked against the file")
    }

    /// A bias, gain or other vector, if the file has it.
    pub(super) fn vector(&self, which: LayerTensor) -> Option<TensorId> {
        self.0[which as usize].map(Weight::tensor)
    }
}

/// A model that the staged executor runs: weights, the machine, and how to use them.
pub(crate) struct StagedModel {
    setup: Setup,
    layers: Vec<LayerWeights>,
    globals: [Option<Weight>; GlobalTensor::ALL.len()],
    output: Weight,
    isa: Isa,
    store: Arc<TensorStore>,
    machine: Mutex<Machine>,
    residency: Option<Residency>,
}

impl StagedModel {
    /// Places the weights of `file`, whose parts are `mappings`. `progress` is told the share done, 0 to 1.
    ///
    /// # Errors
    ///
    /// `File` if a file cannot be read or was cut, `Cancelled`, `OutOfMemory`, or `Backend` if the threads cannot be started.
    pub(crate) fn load(
        arch: Architecture,
        file: &Gguf<'_>,
        mappings: &[Arc<Mapping>],
        options: StagedOptions,
        progress: &mut dyn FnMut(f32),
        cancel: &Cancel,
    ) -> Result<Arc<Self>> {
        let device = Device::cpu()?;
        let isa = Isa::detect();
        let mut loader = Loader {
            file,
            mappings,
            device,
            isa,
            kernels: options.kernels,
            n_threads: options.threads.n_threads(),
            store: StoreBuilder::new(device, file.tensors().len() + 1, mappings.to_vec()),
            done: 0,
            progress,
            cancel,
        };
        let mut globals = [None; GlobalTensor::ALL.len()];
        for which in GlobalTensor::ALL {
            globals[which as usize] = loader.place(which.name(), which == GlobalTensor::Output)?;
        }
        let mut layers = Vec::with_capacity(arch.n_layers as usize);
        for layer in 0..arch.n_layers {
            let mut tensors = [None; LayerTensor::ALL.len()];
            for which in LayerTensor::ALL.into_iter().filter(|t| t.spec(&arch).is_some()) {
                tensors[which as usize] = loader.place(&which.name(layer), which.is_matrix())?;
            }
            layers.push(LayerWeights(tensors));
        }
        let output = match globals[GlobalTensor::Output as usize] {
            Some(output) => output,
            None => loader.tied_output(globals[GlobalTensor::TokenEmbedding as usize])?,
        };
        let store = loader.store.build();
        Self::from_parts(Setup { arch, options }, layers, globals, output, store, None)
    }

    /// A model of weights that are placed.
    ///
    /// Fails with `InvalidOption` if only our kernels may run and they cannot.
    pub(super) fn from_parts(
        setup: Setup,
        layers: Vec<LayerWeights>,
        globals: [Option<Weight>; GlobalTensor::ALL.len()],
        output: Weight,
        store: Arc<TensorStore>,
        residency: Option<Residency>,
    ) -> Result<Arc<Self>> {
        if setup.options.kernels == Kernels::Own && !setup.attends() {
            return Err(no_kernel(&format!("attention with heads of {} numbers", setup.arch.head_dim)));
        }
        let machine = Mutex::new(Machine::new(Device::cpu()?, Arc::clone(&setup.options.threads))?);
        Ok(Arc::new(Self { setup, layers, globals, output, isa: Isa::detect(), store, machine, residency }))
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(super) fn arch(&self) -> &Architecture {
        &self.setup.arch
    }

    pub(super) fn options(&self) -> &StagedOptions {
        &self.setup.options
    }

    /// What is streamed, of a model under a memory budget.
    pub(crate) fn residency(&self) -> Option<&Residency> {
        self.residency.as_ref()
    }

    pub(super) fn layer(&self, layer: usize) -> &LayerWeights {
        &self.layers[layer]
    }

    pub(super) fn get(&self, tensor: GlobalTensor) -> Option<TensorId> {
        self.globals[tensor as usize].map(Weight::tensor)
    }

    pub(super) fn required(&self, tensor: GlobalTensor) -> TensorId {
        self.get(tensor).expect("the architecture was checked against the file")
    }

    /// The output matrix; the embeddings, or a copy of them in another layout, where the two are tied.
    pub(super) fn output(&self) -> Weight {
        self.output
    }

    /// The instruction set that weights are packed for.
    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// Attention in `layer`, for our kernels.
    pub(super) fn attention(&self, layer: u32) -> AttentionShape {
        self.setup.attention(layer)
    }

    /// Whether our kernels attend; if not, ggml's do.
    pub(super) fn attends(&self) -> bool {
        self.setup.attends()
    }

    /// Whether every kernel that sees several rows gives each the bits it would have alone: ours do, ggml's do not.
    pub(super) fn is_invariant(&self) -> bool {
        let ours = |weight: &Weight| matches!(weight, Weight::Packed(_));
        let matrices = LayerTensor::ALL.into_iter().filter(|which| which.is_matrix());
        let mut present =
            self.layers.iter().flat_map(|layer| matrices.clone().filter_map(|which| layer.0[which as usize].as_ref()));
        self.attends() && ours(&self.output) && present.all(ours)
    }

    pub(super) fn store(&self) -> &Arc<TensorStore> {
        &self.store
    }

    /// The machine, when the other sessions have done with it. Fails with `Cancelled` if `cancel` is raised before that: theirs
    /// may be long passes.
    pub(super) fn machine(&self, cancel: &Cancel) -> Result<MutexGuard<'_, Machine>> {
        loop {
            if cancel.is_cancelled() {
                return Err(ErrorKind::Cancelled.into());
            }
            if let Some(machine) = self.machine.try_lock_for(POLL_CANCEL) {
                return Ok(machine);
            }
        }
    }
}

/// A handle from which executors are made.
pub(crate) struct StagedWeights(pub(crate) Arc<StagedModel>);

impl Weights for StagedWeights {
    fn executor(&self, n_cells: usize) -> Result<Box<dyn Executor>> {
        Ok(Box::new(StagedExecutor::new(Arc::clone(&self.0), n_cells)?))
    }
}

/// Puts one tensor after the other into the store.
struct Loader<'a> {
    file: &'a Gguf<'a>,
    mappings: &'a [Arc<Mapping>],
    device: &'static Device,
    isa: Isa,
    kernels: Kernels,
    n_threads: usize,
    store: StoreBuilder<'static>,
    done: usize,
    progress: &'a mut dyn FnMut(f32),
    cancel: &'a Cancel,
}

impl Loader<'_> {
    /// ggml's vector code reads tensors at this alignment, in bytes.
    const ALIGNMENT: u64 = 32;

    fn place(&mut self, name: &str, is_matrix: bool) -> Result<Option<Weight>> {
        if self.cancel.is_cancelled() {
            return Err(ErrorKind::Cancelled.into());
        }
        let Some(info) = self.file.tensor(name) else { return Ok(None) };
        let weight = if is_matrix { self.matrix(info)? } else { Weight::Ggml(self.plain(info)?) };
        self.done += 1;
        #[allow(clippy::cast_precision_loss)] // a share for a progress bar
        (self.progress)(self.done as f32 / self.file.tensors().len() as f32);
        Ok(Some(weight))
    }

    /// Output weights that are the embeddings: the same tensor, unless products want it in another layout.
    fn tied_output(&mut self, embedding: Option<Weight>) -> Result<Weight> {
        let info = self.file.tensor(GlobalTensor::TokenEmbedding.name());
        let (Some(embedding), Some(info)) = (embedding, info) else { unreachable!("the embeddings are required") };
        let preferred = self.device.preferred_layout(info.ty.code(), info.shape.dims());
        if self.packed_shape(info).is_none() && preferred.is_none() { Ok(embedding) } else { self.matrix(info) }
    }

    /// A matrix in the layout of our kernels, else in the one the device prefers, else as it is in the file.
    fn matrix(&mut self, info: &TensorInfo<'_>) -> Result<Weight> {
        if let Some(shape) = self.packed_shape(info) {
            return self.store.packed(shape, info.file, info.offset, self.n_threads).map(Weight::Packed);
        }
        if self.kernels == Kernels::Own {
            return Err(no_kernel(&format!("`{}` is {} {:?}", info.name, info.ty.name(), info.shape.dims())));
        }
        let (element, dims) = (info.ty.code(), info.shape.dims());
        let Some(layout) = self.device.preferred_layout(element, dims) else {
            return self.plain(info).map(Weight::Ggml);
        };
        let mut memory = self.read(info)?;
        self.store.copied(element, dims, memory.bytes_mut(), Some(layout)).map(Weight::Ggml)
    }

    fn packed_shape(&self, info: &TensorInfo<'_>) -> Option<PackedShape> {
        packed_shape(&info.into(), self.kernels, self.isa)
    }

    fn plain(&mut self, info: &TensorInfo<'_>) -> Result<TensorId> {
        let (element, dims) = (info.ty.code(), info.shape.dims());
        // The mapping begins at a page.
        if info.shape.n_rows() > 1 && info.offset.is_multiple_of(Self::ALIGNMENT) {
            self.store.map(element, dims, info.file, info.offset)
        } else {
            let mut memory = self.read(info)?;
            self.store.copied(element, dims, memory.bytes_mut(), None)
        }
    }

    /// The bytes of a tensor, read and not mapped: the file may be cut meanwhile.
    fn read(&self, info: &TensorInfo<'_>) -> Result<Piece> {
        let len = usize::try_from(info.size).expect("a mapped file fits the address space");
        let mut memory = Region::allocate("reading", len)?;
        self.mappings[info.file].read_at(info.offset, memory.bytes_mut())?;
        Ok(memory)
    }
}

/// What is refused when only our kernels may run.
pub(super) fn no_kernel(what: &str) -> Error {
    let reason = format!("`own` has no kernel for this: {what}; `auto` leaves it to ggml");
    ErrorKind::InvalidOption { option: "kernels", reason }.into()
}
