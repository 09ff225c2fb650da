//! A model's weights where the staged executor wants them.
//!
//! Matrices go into the layout in which the device multiplies fastest; everything else stays in the mapped file.

use std::sync::Arc;

use parking_lot::Mutex;

use super::StagedExecutor;
use crate::architecture::{Architecture, GlobalTensor, LayerTensor};
use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::executor::options::KvType;
use crate::executor::{Executor, Weights};
use crate::gguf::{Gguf, TensorInfo};
use crate::kernels::machine::{Device, Machine};
use crate::kernels::mapping::Mapping;
use crate::kernels::store::{StoreBuilder, TensorId, TensorStore};
use crate::kernels::threads::ThreadPool;

/// How a staged model is set up.
#[derive(Clone)]
pub(crate) struct StagedOptions {
    /// The threads, shared with whatever else computes for the model.
    pub(crate) threads: Arc<ThreadPool>,
    pub(crate) kv_type: KvType,
    /// Rows that one pass may have.
    pub(crate) max_rows: usize,
    /// Layers per stage.
    pub(crate) stage_layers: usize,
}

/// Tensors of one layer.
pub(super) struct LayerWeights([Option<TensorId>; LayerTensor::ALL.len()]);

impl LayerWeights {
    pub(super) fn get(&self, tensor: LayerTensor) -> Option<TensorId> {
        self.0[tensor as usize]
    }
}

/// A model that the staged executor runs: weights, the machine, and how to use them.
pub(crate) struct StagedModel {
    arch: Architecture,
    options: StagedOptions,
    layers: Vec<LayerWeights>,
    globals: [Option<TensorId>; GlobalTensor::ALL.len()],
    output: TensorId,
    store: Arc<TensorStore>,
    machine: Mutex<Machine>,
}

impl StagedModel {
    /// Places the weights of `file`, whose parts are `mappings`. `progress` is told the share done, 0 to 1.
    ///
    /// # Errors
    ///
    /// `Cancelled`, `OutOfMemory`, or `Backend` if the threads cannot be started.
    pub(crate) fn load(
        arch: Architecture, file: &Gguf<'_>, mappings: &[Arc<Mapping>], options: StagedOptions,
        progress: &mut dyn FnMut(f32), cancel: &Cancel,
    ) -> Result<Arc<Self>> {
        let device = Device::cpu()?;
        let mut loader = Loader {
            file,
            mappings,
            device,
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
        let (store, machine) = (loader.store.build(), Machine::new(device, Arc::clone(&options.threads))?);
        Ok(Arc::new(Self { arch, options, layers, globals, output, store, machine: Mutex::new(machine) }))
    }

    pub(super) fn arch(&self) -> &Architecture {
        &self.arch
    }

    pub(super) fn options(&self) -> &StagedOptions {
        &self.options
    }

    pub(super) fn layer(&self, layer: usize) -> &LayerWeights {
        &self.layers[layer]
    }

    pub(super) fn get(&self, tensor: GlobalTensor) -> Option<TensorId> {
        self.globals[tensor as usize]
    }

    pub(super) fn required(&self, tensor: GlobalTensor) -> TensorId {
        self.get(tensor).expect("the architecture was checked against the file")
    }

    /// The output matrix; the embeddings, or a copy of them in another layout, where the two are tied.
    pub(super) fn output(&self) -> TensorId {
        self.output
    }

    pub(super) fn store(&self) -> &Arc<TensorStore> {
        &self.store
    }

    pub(super) fn machine(&self) -> &Mutex<Machine> {
        &self.machine
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
    store: StoreBuilder<'static>,
    done: usize,
    progress: &'a mut dyn FnMut(f32),
    cancel: &'a Cancel,
}

impl<'a> Loader<'a> {
    /// ggml's vector code reads tensors at this alignment, in bytes.
    const ALIGNMENT: usize = 32;

    fn place(&mut self, name: &str, is_matrix: bool) -> Result<Option<TensorId>> {
        if self.cancel.is_cancelled() {
            return Err(ErrorKind::Cancelled.into());
        }
        let Some(info) = self.file.tensor(name) else { return Ok(None) };
        let id = if is_matrix { self.matrix(info)? } else { self.plain(info)? };
        self.done += 1;
        #[allow(clippy::cast_precision_loss)] // a share for a progress bar
        (self.progress)(self.done as f32 / self.file.tensors().len() as f32);
        Ok(Some(id))
    }

    /// Output weights that are the embeddings: the same tensor, unless products want it in another layout.
    fn tied_output(&mut self, embedding: Option<TensorId>) -> Result<TensorId> {
        let info = self.file.tensor(GlobalTensor::TokenEmbedding.name());
        let (Some(id), Some(info)) = (embedding, info) else { unreachable!("the embeddings are required") };
        match self.device.preferred_layout(info.ty.code(), info.shape.dims()) {
            None => Ok(id),
            Some(_) => self.matrix(info),
        }
    }

    fn matrix(&mut self, info: &TensorInfo<'_>) -> Result<TensorId> {
        let Some(layout) = self.device.preferred_layout(info.ty.code(), info.shape.dims()) else { return self.plain(info) };
        let bytes = self.bytes(info);
        self.store.copied(info.ty.code(), info.shape.dims(), bytes, Some(layout))
    }

    fn plain(&mut self, info: &TensorInfo<'_>) -> Result<TensorId> {
        let (element, dims) = (info.ty.code(), info.shape.dims());
        let bytes = self.bytes(info);
        if bytes.as_ptr().addr().is_multiple_of(Self::ALIGNMENT) {
            self.store.map(element, dims, info.file, info.offset)
        } else {
            self.store.copied(element, dims, bytes, None)
        }
    }

    fn bytes(&self, info: &TensorInfo<'_>) -> &'a [u8] {
        let range = |at: u64| usize::try_from(at).expect("a mapped file fits the address space");
        &self.mappings[info.file].bytes()[range(info.offset)..range(info.end())]
    }
}
