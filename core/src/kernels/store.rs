//! Tensors with data: a model's weights, a session's cache and inputs.
//!
//! A store is filled once and shared (`Arc`) by every graph that uses it. Its tensors live in buffers of ggml: over a mapped file,
//! in plain host memory, or in a layout that ggml's CPU kernels prefer ("repacked").

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use llama_cpp_sys_2 as sys;

use super::gemm::{PackedMatrix, PackedShape};
use super::graph::{Arena, Tensor};
use super::machine::Device;
use super::mapping::Mapping;
use super::region::{Piece, Region};
use crate::error::{ErrorKind, Result};

/// A tensor of a [`TensorStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TensorId(u32);

/// A packed matrix of a [`TensorStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedId(u32);

/// Memory of a [`TensorStore`] that comes and goes, with the tensors in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnchorId(u32);

/// A packed matrix, wherever it is at the moment: where it begins is read anew for every product.
#[derive(Clone)]
pub(crate) struct StoredMatrix {
    shape: PackedShape,
    base: Arc<AtomicPtr<u8>>,
    offset: usize,
}

impl StoredMatrix {
    /// The shape.
    pub(crate) fn shape(&self) -> &PackedShape {
        &self.shape
    }

    /// The matrix where it is now; valid until its memory is [moored](TensorStore::moor) elsewhere.
    pub(super) fn matrix(&self) -> PackedMatrix {
        let base = self.base.load(Ordering::Acquire);
        // SAFETY: the store points every base at aligned memory that it keeps alive and that is long enough for what was placed in
        // it, from the beginning on (`StoreBuilder::anchor`, `TensorStore::moor`); who runs a graph has moored the layers that it reads.
        unsafe { PackedMatrix::from_raw(self.shape, base.wrapping_add(self.offset)) }
    }
}

/// A range of memory that tensors live in, and which ones.
struct Anchor {
    base: Arc<AtomicPtr<u8>>,
    len: usize,
    tensors: Vec<(TensorId, usize)>,
}

/// Element types that callers read and write.
///
/// # Safety
///
/// Implementors have no padding and no invalid bit patterns.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: plain numbers.
unsafe impl Plain for u8 {}
// SAFETY: plain numbers.
unsafe impl Plain for u16 {}
// SAFETY: plain numbers.
unsafe impl Plain for i32 {}
// SAFETY: plain numbers.
unsafe impl Plain for i64 {}
// SAFETY: plain numbers.
unsafe impl Plain for u64 {}
// SAFETY: plain numbers.
unsafe impl Plain for f32 {}

/// The number by which ggml and GGUF call an element type.
pub(crate) mod element {
    use llama_cpp_sys_2 as sys;
    pub(crate) const F32: u32 = sys::GGML_TYPE_F32;
    pub(crate) const F16: u32 = sys::GGML_TYPE_F16;
    pub(crate) const Q8_0: u32 = sys::GGML_TYPE_Q8_0;
    pub(crate) const I32: u32 = sys::GGML_TYPE_I32;
    pub(crate) const I64: u32 = sys::GGML_TYPE_I64;
}

/// A buffer of ggml; freed with its owner.
struct Buffer(NonNull<sys::ggml_backend_buffer>);

impl Buffer {
    fn base(&self) -> *mut std::ffi::c_void {
        // SAFETY: the buffer is alive.
        unsafe { sys::ggml_backend_buffer_get_base(self.0.as_ptr()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated by ggml and freed once.
        unsafe { sys::ggml_backend_buffer_free(self.0.as_ptr()) }
    }
}

/// Tensors and the memory they live in.
pub(crate) struct TensorStore {
    tensors: Vec<NonNull<sys::ggml_tensor>>,
    _arena: Arena,
    buffers: Vec<Buffer>,
    packed: Vec<StoredMatrix>,
    memory: Vec<PackedMemory>,
    anchors: Vec<Anchor>,
    regions: Vec<(Arc<Region>, Buffer)>,
    pinned: Vec<Piece>,
    mappings: Vec<Arc<Mapping>>,
}

// SAFETY: headers are immutable once the store is built. Data is written through `write`/`read`, whose callers hold the executor
// that owns the store mutably, or by a graph under `&mut Machine`; weights are never written after loading.
unsafe impl Send for TensorStore {}
// SAFETY: as above.
unsafe impl Sync for TensorStore {}

impl TensorStore {
    /// Fails with `File` if a file that weights are mapped from is no longer what it was.
    pub(crate) fn check_files(&self) -> Result<()> {
        self.mappings.iter().try_for_each(|mapping| mapping.check())
    }

    /// The header of `id`.
    pub(super) fn tensor(&self, id: TensorId) -> Tensor<'_> {
        Tensor::new(self.tensors[id.0 as usize].as_ptr())
    }

    /// The matrix `id`; it is valid while the store lives.
    pub(super) fn packed(&self, id: PackedId) -> StoredMatrix {
        self.packed[id.0 as usize].clone()
    }

    /// Has the tensors of `anchor` be in `memory` from now on, which stays as it is until they are moored elsewhere.
    ///
    /// Called by whoever has the machine, so that no graph runs meanwhile.
    ///
    /// # Panics
    ///
    /// If the memory is not of a region of this store, or too short.
    pub(crate) fn moor(&self, anchor: AnchorId, memory: &Piece) {
        assert!(self.regions.iter().any(|(region, _)| Arc::ptr_eq(region, memory.region())), "memory of another store");
        self.anchors[anchor.0 as usize].moor(memory, &self.tensors);
    }

    /// Writes `values` to `id`, from element byte `offset` on.
    pub(crate) fn write<T: Plain>(&self, id: TensorId, offset: usize, values: &[T]) {
        let tensor = self.checked(id, offset, size_of_val(values));
        // SAFETY: the range was checked against the tensor; `T` is plain.
        unsafe { sys::ggml_backend_tensor_set(tensor, values.as_ptr().cast(), offset, size_of_val(values)) }
    }

    /// Reads `values.len()` elements of `id`, from byte `offset` on.
    pub(crate) fn read<T: Plain>(&self, id: TensorId, offset: usize, values: &mut [T]) {
        let tensor = self.checked(id, offset, size_of_val(values));
        // SAFETY: the range was checked against the tensor; every bit pattern of `T` is valid.
        unsafe { sys::ggml_backend_tensor_get(tensor, values.as_mut_ptr().cast(), offset, size_of_val(values)) }
    }

    fn checked(&self, id: TensorId, offset: usize, len: usize) -> *mut sys::ggml_tensor {
        let tensor = self.tensor(id).raw();
        // SAFETY: the header is alive.
        let size = unsafe { sys::ggml_nbytes(tensor) };
        assert!(offset.checked_add(len).is_some_and(|end| end <= size), "bytes {offset}+{len} of a tensor of {size}");
        tensor
    }
}

/// Collects tensors for a [`TensorStore`].
pub(crate) struct StoreBuilder<'d> {
    device: &'d Device,
    store: TensorStore,
    mapped: Vec<Option<Buffer>>,
}

impl<'d> StoreBuilder<'d> {
    /// Room for `capacity` tensors; `mappings` are the files that [`map`](Self::map) refers to.
    pub(crate) fn new(device: &'d Device, capacity: usize, mappings: Vec<Arc<Mapping>>) -> Self {
        let mapped = mappings.iter().map(|_| None).collect();
        let arena = Arena::new(capacity, 0);
        let store = TensorStore {
            tensors: Vec::with_capacity(capacity),
            _arena: arena,
            buffers: Vec::new(),
            packed: Vec::new(),
            memory: Vec::new(),
            anchors: Vec::new(),
            regions: Vec::new(),
            pinned: Vec::new(),
            mappings,
        };
        Self { device, store, mapped }
    }

    fn header(&mut self, element: u32, ne: &[u64]) -> (TensorId, *mut sys::ggml_tensor) {
        let mut dims = [1_i64; 4];
        for (dim, &n) in dims.iter_mut().zip(ne) {
            *dim = i64::try_from(n).expect("tensor dimensions are checked against the file");
        }
        // SAFETY: the arena counts its tensors; the element type is one that ggml knows, by the reader's table.
        let raw = unsafe { sys::ggml_new_tensor(self.store._arena.take(), element, 4, dims.as_ptr()) };
        let id = TensorId(u32::try_from(self.store.tensors.len()).expect("fewer than 2^32 tensors"));
        self.store.tensors.push(NonNull::new(raw).expect("ggml returned no tensor"));
        (id, raw)
    }

    /// A tensor whose data is in mapping `file` at byte `offset`; the range lies inside the file.
    pub(crate) fn map(&mut self, element: u32, ne: &[u64], file: usize, offset: u64) -> Result<TensorId> {
        let (id, raw) = self.header(element, ne);
        let offset = usize::try_from(offset).expect("a mapped file fits the address space");
        let bytes = self.store.mappings[file].bytes();
        // SAFETY: the header is alive.
        let size = unsafe { sys::ggml_nbytes(raw) };
        assert!(offset.checked_add(size).is_some_and(|end| end <= bytes.len()), "tensor outside its file");
        let base = bytes.as_ptr().cast_mut().cast::<std::ffi::c_void>();
        if self.mapped[file].is_none() {
            self.mapped[file] = Some(self.device.wrap(base, bytes.len())?);
        }
        let buffer = self.mapped[file].as_ref().expect("wrapped above");
        // SAFETY: the address lies inside the wrapped mapping, which the store keeps alive. ggml only reads weights.
        let status = unsafe { sys::ggml_backend_tensor_alloc(buffer.0.as_ptr(), raw, base.byte_add(offset)) };
        success("placing a mapped tensor", status).map(|()| id)
    }

    /// A tensor in zeroed host memory.
    pub(crate) fn zeroed(&mut self, what: &'static str, element: u32, ne: &[u64]) -> Result<TensorId> {
        let (id, raw) = self.header(element, ne);
        let buffer = self.place(what, raw, self.device.host_buffers())?;
        // SAFETY: the buffer is alive and host memory.
        unsafe { sys::ggml_backend_buffer_clear(buffer.0.as_ptr(), 0) };
        self.store.buffers.push(buffer);
        Ok(id)
    }

    /// A tensor copied from `bytes` into host memory, or into the device's preferred layout for products if `layout` is given.
    pub(crate) fn copied(
        &mut self,
        element: u32,
        ne: &[u64],
        bytes: &[u8],
        layout: Option<Layout>,
    ) -> Result<TensorId> {
        let (id, raw) = self.header(element, ne);
        // SAFETY: the header is alive.
        assert_eq!(unsafe { sys::ggml_nbytes(raw) }, bytes.len(), "tensor bytes");
        let kind = layout.map_or(self.device.host_buffers(), |l| l.0);
        let buffer = self.place("weights", raw, kind)?;
        // SAFETY: the tensor lies in the buffer and has exactly these bytes; a repacking buffer converts the whole tensor here.
        unsafe {
            sys::ggml_backend_buffer_set_usage(buffer.0.as_ptr(), sys::GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
            sys::ggml_backend_tensor_set(raw, bytes.as_ptr().cast(), 0, bytes.len());
        }
        self.store.buffers.push(buffer);
        Ok(id)
    }

    /// The weights at byte `offset` of mapping `file`, which `n_threads` threads read from the file and pack for our kernels.
    pub(crate) fn packed(
        &mut self,
        shape: PackedShape,
        file: usize,
        offset: u64,
        n_threads: usize,
    ) -> Result<PackedId> {
        if self.store.memory.last().is_none_or(|memory| memory.room() < shape.bytes()) {
            self.store.memory.push(PackedMemory::with_room_for(shape.bytes())?);
        }
        let memory = self.store.memory.last_mut().expect("there is one now").take(shape.bytes());
        pack(shape, &self.store.mappings[file], offset, memory, n_threads)?;
        // The memory is aligned, was just packed in this shape, stands still (a mapping) and is not written again.
        let base = Arc::new(AtomicPtr::new(memory.as_mut_ptr()));
        Ok(self.push_packed(StoredMatrix { shape, base, offset: 0 }))
    }

    fn push_packed(&mut self, matrix: StoredMatrix) -> PackedId {
        let id = PackedId(u32::try_from(self.store.packed.len()).expect("fewer than 2^32 matrices"));
        self.store.packed.push(matrix);
        id
    }

    /// Has the store keep the memory that `memory` is a piece of, for tensors of ggml to live in.
    pub(crate) fn add_region(&mut self, memory: &Piece) -> Result<()> {
        let (base, len) = memory.region().extent();
        let buffer = self.device.wrap(base.cast(), len)?;
        self.store.regions.push((Arc::clone(memory.region()), buffer));
        Ok(())
    }

    /// Memory for tensors that are placed together; `memory`, of the region last added, is where they are at first.
    pub(crate) fn anchor(&mut self, memory: &Piece) -> AnchorId {
        let base = Arc::new(AtomicPtr::new(memory.as_ptr().cast_mut()));
        let id = AnchorId(u32::try_from(self.store.anchors.len()).expect("fewer than 2^32 anchors"));
        self.store.anchors.push(Anchor { base, len: memory.len(), tensors: Vec::new() });
        id
    }

    /// Memory that stays as it is; it holds what was placed at its anchor.
    pub(crate) fn pin(&mut self, memory: Piece) {
        self.store.pinned.push(memory);
    }

    /// A packed matrix at byte `offset` of `anchor`.
    pub(crate) fn packed_at(&mut self, shape: PackedShape, anchor: AnchorId, offset: usize) -> PackedId {
        let anchor = &self.store.anchors[anchor.0 as usize];
        assert!(offset + shape.bytes() <= anchor.len, "a matrix beyond its memory");
        let base = Arc::clone(&anchor.base);
        self.push_packed(StoredMatrix { shape, base, offset })
    }

    /// A tensor at byte `offset` of `anchor`.
    pub(crate) fn tensor_at(&mut self, element: u32, ne: &[u64], anchor: AnchorId, offset: usize) -> Result<TensorId> {
        let (id, raw) = self.header(element, ne);
        let anchor = &mut self.store.anchors[anchor.0 as usize];
        // SAFETY: the header is alive.
        let size = unsafe { sys::ggml_nbytes(raw) };
        assert!(offset + size <= anchor.len, "a tensor beyond its memory");
        anchor.tensors.push((id, offset));
        let (_, buffer) = self.store.regions.last().expect("an anchor is in a region");
        let address = anchor.base.load(Ordering::Acquire).wrapping_add(offset);
        // SAFETY: the address lies in the region that the buffer wraps, which the store keeps alive.
        let status = unsafe { sys::ggml_backend_tensor_alloc(buffer.0.as_ptr(), raw, address.cast()) };
        success("placing a tensor", status).map(|()| id)
    }

    fn place(
        &mut self,
        what: &'static str,
        raw: *mut sys::ggml_tensor,
        kind: sys::ggml_backend_buffer_type_t,
    ) -> Result<Buffer> {
        // SAFETY: `kind` is a buffer type of the device and the header is alive.
        let needed = unsafe { sys::ggml_backend_buft_get_alloc_size(kind, raw) };
        let buffer = allocate(what, kind, needed)?;
        // SAFETY: the buffer is at least `needed` bytes long.
        let status = unsafe { sys::ggml_backend_tensor_alloc(buffer.0.as_ptr(), raw, buffer.base()) };
        success("placing a tensor", status)?;
        Ok(buffer)
    }

    /// The finished store.
    pub(crate) fn build(mut self) -> Arc<TensorStore> {
        self.store.buffers.extend(self.mapped.into_iter().flatten());
        Arc::new(self.store)
    }
}

impl Anchor {
    fn moor(&self, memory: &Piece, tensors: &[NonNull<sys::ggml_tensor>]) {
        assert!(self.len <= memory.len(), "{} bytes for {}", memory.len(), self.len);
        self.base.store(memory.as_ptr().cast_mut(), Ordering::Release);
        for &(id, offset) in &self.tensors {
            let address = memory.as_ptr().wrapping_add(offset).cast_mut();
            // SAFETY: the header is alive, and no graph that reads it runs. The address is in the region of its buffer.
            unsafe { (*tensors[id.0 as usize].as_ptr()).data = address.cast() };
        }
    }
}

/// A layout for weights that the device's own products prefer to the file's.
#[derive(Clone, Copy)]
pub(crate) struct Layout(pub(super) sys::ggml_backend_buffer_type_t);

impl Device {
    fn wrap(&self, base: *mut std::ffi::c_void, len: usize) -> Result<Buffer> {
        // SAFETY: the caller keeps the memory alive and never writes it.
        let raw = unsafe { sys::ggml_backend_dev_buffer_from_host_ptr(self.raw(), base, len, len) };
        let raw = NonNull::new(raw).ok_or_else(|| ErrorKind::Backend {
            operation: "mapping the model",
            reason: "the device cannot use memory that is mapped from a file".into(),
        })?;
        Ok(Buffer(raw))
    }

    /// The layout in which the device multiplies `[k, n]` weights of type `element` by rows fastest, if it is not the file's.
    pub(crate) fn preferred_layout(&self, element: u32, ne: &[u64]) -> Option<Layout> {
        self.extra_buffers().iter().copied().find(|&kind| self.multiplies_from(kind, element, ne)).map(Layout)
    }

    /// Asks the device, as it must be asked before a tensor is put there: an unsupported one would call through a null trait.
    fn multiplies_from(&self, kind: sys::ggml_backend_buffer_type_t, element: u32, ne: &[u64]) -> bool {
        let arena = Arena::new(4, 0);
        let dims = [ne[0] as i64, ne.get(1).map_or(1, |&n| n as i64)];
        // SAFETY: headers in a throwaway arena; the empty buffer only says where the weights would be.
        unsafe {
            let w = sys::ggml_new_tensor_2d(arena.take(), element, dims[0], dims[1]);
            let x = sys::ggml_new_tensor_2d(arena.take(), sys::GGML_TYPE_F32, dims[0], 512);
            let Some(empty) = NonNull::new(sys::ggml_backend_buft_alloc_buffer(kind, 0)).map(Buffer) else {
                return false;
            };
            (*w).buffer = empty.0.as_ptr();
            let product = sys::ggml_mul_mat(arena.take(), w, x);
            sys::ggml_backend_dev_supports_op(self.raw(), product)
        }
    }
}

/// Memory for packed matrices, taken from the front. What is never taken is never touched, so it costs address space only.
struct PackedMemory {
    map: memmap2::MmapMut,
    used: usize,
}

impl PackedMemory {
    /// Bytes of one piece; larger matrices get a piece of their own.
    const PIECE: usize = 256 << 20;

    fn with_room_for(len: usize) -> Result<Self> {
        let needed = len.max(Self::PIECE);
        let map = memmap2::MmapOptions::new().len(needed).map_anon();
        let map =
            map.map_err(|_| ErrorKind::OutOfMemory { what: "weights", needed: needed as u64, available: None })?;
        // Weights are read from one end to the other: large pages spare the walks through page tables.
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(memmap2::Advice::HugePage) {
            log::debug!("large pages for weights: {error}");
        }
        Ok(Self { map, used: 0 })
    }

    fn room(&self) -> usize {
        self.map.len() - self.used
    }

    /// The next `len` bytes. Packed matrices are whole multiples of their alignment, so the next ones are aligned too.
    fn take(&mut self, len: usize) -> &mut [u8] {
        let start = self.used;
        self.used += len;
        &mut self.map[start..start + len]
    }
}

/// Bytes that a thread reads before it packs them; some groups more where one is larger.
const READ: usize = 1 << 20;

/// Packs the matrix at byte `offset` of `file`: runs of groups on several threads, each of which reads what it packs.
fn pack(shape: PackedShape, file: &Mapping, offset: u64, out: &mut [u8], n_threads: usize) -> Result<()> {
    let row_bytes = shape.format().gguf_row_bytes(shape.k());
    let (group_rows, group_bytes) = (shape.interleave().group, shape.group_bytes());
    let share = shape.groups().div_ceil(n_threads.max(1));
    let at_once = (READ / (group_rows * row_bytes)).clamp(1, share);
    let pack_run = |first: usize, out: &mut [u8]| -> Result<()> {
        let mut rows = Vec::new();
        for (i, out) in out.chunks_mut(at_once * group_bytes).enumerate() {
            let row = (first + i * at_once) * group_rows;
            let n_rows = (out.len() / group_bytes * group_rows).min(shape.n() - row);
            rows.resize(n_rows * row_bytes, 0);
            file.read_at(offset + (row * row_bytes) as u64, &mut rows)?;
            let groups = rows.chunks(group_rows * row_bytes).zip(out.chunks_exact_mut(group_bytes));
            groups.for_each(|(rows, out)| shape.pack_group(rows, out));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let runs = out.chunks_mut(share * group_bytes).enumerate();
        let pack_run = &pack_run;
        let threads: Vec<_> = runs.map(|(i, out)| scope.spawn(move || pack_run(i * share, out))).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        let packed: Vec<_> = joined.map(|run| run.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
        packed.into_iter().collect()
    })
}

fn allocate(what: &'static str, kind: sys::ggml_backend_buffer_type_t, len: usize) -> Result<Buffer> {
    // SAFETY: `kind` is a live buffer type; ggml returns null when the memory cannot be had.
    let raw = unsafe { sys::ggml_backend_buft_alloc_buffer(kind, len) };
    let raw = NonNull::new(raw).ok_or(ErrorKind::OutOfMemory { what, needed: len as u64, available: None })?;
    Ok(Buffer(raw))
}

fn success(operation: &'static str, status: sys::ggml_status) -> Result<()> {
    if status == sys::GGML_STATUS_SUCCESS {
        return Ok(());
    }
    Err(ErrorKind::Backend { operation, reason: format!("ggml status {status}") }.into())
}
