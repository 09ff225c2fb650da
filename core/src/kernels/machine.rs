//! The CPU as ggml sees it: a device, and the one allocator that every graph of a model draws from.
//!
//! Everything CPU-specific is reached through ggml's registry and `get_proc_address`, never by symbol, so that the same code runs
//! with statically linked backends and with backends loaded at run time.
//!
//! A machine runs one graph at a time. Sessions of one model share it behind a lock: two passes at once on the same cores would
//! fight over the memory bandwidth that one of them already uses up.

use std::ffi::{CStr, c_void};
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use llama_cpp_sys_2 as sys;

use super::graph::Graph;
use super::threads::ThreadPool;
use super::{guard, runtime};
use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};

/// A compute device.
pub(crate) struct Device {
    raw: sys::ggml_backend_dev_t,
    extra: Vec<sys::ggml_backend_buffer_type_t>,
}

// SAFETY: devices and buffer types are static objects of ggml's registry.
unsafe impl Send for Device {}
// SAFETY: as above; they are never written after registration.
unsafe impl Sync for Device {}

impl Device {
    /// The CPU. Loads the run-time backends first, where the build has any.
    pub(crate) fn cpu() -> Result<&'static Self> {
        static CPU: OnceLock<Option<Device>> = OnceLock::new();
        CPU.get_or_init(Self::find_cpu).as_ref().ok_or_else(|| {
            let reason = "no CPU backend is registered; ship the backend libraries beside the app".into();
            ErrorKind::Backend { operation: "finding the CPU", reason }.into()
        })
    }

    fn find_cpu() -> Option<Self> {
        runtime::start();
        // SAFETY: registry look-ups; `GetExtra` is the type ggml documents for this name (ggml-backend.h).
        unsafe {
            let raw = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            if raw.is_null() {
                return None;
            }
            type GetExtra = unsafe extern "C" fn(sys::ggml_backend_dev_t) -> *mut sys::ggml_backend_buffer_type_t;
            let mut extra = Vec::new();
            if let Some(get) = function::<GetExtra>(c"ggml_backend_dev_get_extra_bufts") {
                let mut at = get(raw);
                while !at.is_null() && !(*at).is_null() {
                    extra.push(*at);
                    at = at.add(1);
                }
            }
            Some(Self { raw, extra })
        }
    }

    pub(super) fn raw(&self) -> sys::ggml_backend_dev_t {
        self.raw
    }

    /// Buffer types beyond plain memory, best first.
    pub(super) fn extra_buffers(&self) -> &[sys::ggml_backend_buffer_type_t] {
        &self.extra
    }

    /// Plain memory of the device.
    pub(super) fn host_buffers(&self) -> sys::ggml_backend_buffer_type_t {
        // SAFETY: the device is alive.
        unsafe { sys::ggml_backend_dev_buffer_type(self.raw) }
    }
}

/// A function of the CPU backend.
///
/// # Safety
///
/// `F` is the function pointer type that ggml documents for `name`.
unsafe fn function<F: Copy>(name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    let address = runtime::cpu_function(name);
    // SAFETY: a function pointer is as large as an address (checked above); the caller vouches for the type.
    (!address.is_null()).then(|| unsafe { mem::transmute_copy(&address) })
}

type SetThreadpool = unsafe extern "C" fn(sys::ggml_backend_t, *mut sys::ggml_threadpool);
type SetThreads = unsafe extern "C" fn(sys::ggml_backend_t, i32);
type AbortCallback = unsafe extern "C" fn(*mut c_void) -> bool;
type SetAbort = unsafe extern "C" fn(sys::ggml_backend_t, Option<AbortCallback>, *mut c_void);

fn failed_to_start(reason: &str) -> Error {
    ErrorKind::Backend { operation: "starting the CPU", reason: reason.into() }.into()
}

/// A backend that computes on `threads`, which outlive it.
fn start(device: &Device, threads: &ThreadPool) -> Result<NonNull<sys::ggml_backend>> {
    // SAFETY: the device is alive and takes no parameters.
    let backend = NonNull::new(unsafe { sys::ggml_backend_dev_init(device.raw, ptr::null()) });
    let backend = backend.ok_or_else(|| failed_to_start("the backend did not start"))?;
    let n_threads = i32::try_from(threads.n_threads()).unwrap_or(1);
    // SAFETY: the types are those ggml documents for these names (ggml-cpu.h); the caller keeps the pool alive.
    unsafe {
        if let Some(set) = function::<SetThreads>(c"ggml_backend_set_n_threads") {
            set(backend.as_ptr(), n_threads);
        }
        if let Some(set) = function::<SetThreadpool>(c"ggml_backend_cpu_set_threadpool") {
            set(backend.as_ptr(), threads.as_ptr());
        }
    }
    Ok(backend)
}

/// The CPU with its graph memory.
pub(crate) struct Machine {
    // Freed first, in `drop`: it uses the pool. `None` after an exception: what threw is neither used again nor freed.
    backend: Option<NonNull<sys::ggml_backend>>,
    device: &'static Device,
    threads: Arc<ThreadPool>,
    set_abort: Option<SetAbort>,
    allocator: NonNull<sys::ggml_gallocr>,
    allocated: usize,
    generation: u64,
}

// SAFETY: the machine is used through `&mut self` by one thread at a time; ggml's pool has no affinity to its creator.
unsafe impl Send for Machine {}

impl Machine {
    /// A machine that computes on `threads`.
    pub(crate) fn new(device: &'static Device, threads: Arc<ThreadPool>) -> Result<Self> {
        let backend = Some(start(device, &threads)?);
        // SAFETY: the buffer type is static.
        let allocator = NonNull::new(unsafe { sys::ggml_gallocr_new(device.host_buffers()) });
        let allocator = allocator.ok_or_else(|| failed_to_start("no graph allocator"))?;
        // SAFETY: the type is the one ggml documents for this name (ggml-cpu.h).
        let set_abort = unsafe { function::<SetAbort>(c"ggml_backend_set_abort_callback") };
        Ok(Self { backend, device, threads, set_abort, allocator, allocated: 0, generation: 1 })
    }

    /// Runs `graph`, giving its nodes memory first if they have none.
    ///
    /// Returns `false`, having run nothing, if the graph's memory was moved since; the caller builds it again.
    pub(crate) fn compute(&mut self, graph: &mut Graph, cancel: &Cancel) -> Result<bool> {
        if graph.generation == 0 {
            self.place(graph)?;
        } else if graph.generation != self.generation {
            return Ok(false);
        }
        let threads = Arc::clone(&self.threads);
        let _turn = threads.turn(cancel)?;
        let backend = match self.backend {
            Some(backend) => backend,
            None => *self.backend.insert(start(self.device, &self.threads)?),
        };
        self.abort_on(backend, Some(cancel.flag()));
        // SAFETY: every node has memory in the current generation, and the stores are alive by the graph's own references.
        let status = match unsafe { guard::compute(backend.as_ptr(), graph.raw()) } {
            Ok(status) => status,
            Err(guard::Thrown(reason)) => {
                self.backend = None;
                return Err(ErrorKind::Backend { operation: "running the model", reason }.into());
            }
        };
        self.abort_on(backend, None);
        match status {
            sys::GGML_STATUS_SUCCESS => Ok(true),
            sys::GGML_STATUS_ABORTED => Err(ErrorKind::Cancelled.into()),
            sys::GGML_STATUS_ALLOC_FAILED => {
                Err(ErrorKind::OutOfMemory { what: "a graph", needed: 0, available: None }.into())
            }
            other => {
                Err(ErrorKind::Backend { operation: "running the model", reason: format!("ggml status {other}") }
                    .into())
            }
        }
    }

    /// Gives the nodes of a new graph their memory. Graphs placed earlier keep theirs unless the memory had to grow.
    pub(crate) fn place(&mut self, graph: &mut Graph) -> Result<()> {
        // SAFETY: the graph is alive and unplaced.
        let placed = unsafe { sys::ggml_gallocr_alloc_graph(self.allocator.as_ptr(), graph.raw()) };
        // SAFETY: the allocator is alive and has one buffer.
        let size = unsafe { sys::ggml_gallocr_get_buffer_size(self.allocator.as_ptr(), 0) };
        if !placed {
            // The old buffer may be gone: nothing placed before may run again.
            self.generation += 1;
            return Err(ErrorKind::OutOfMemory { what: "a graph", needed: size as u64, available: None }.into());
        }
        if size != self.allocated {
            self.allocated = size;
            self.generation += 1;
        }
        graph.generation = self.generation;
        Ok(())
    }

    /// Copies the graph's result, `[values.len()]` floats, after a successful [`compute`](Self::compute) of the same graph.
    pub(crate) fn read_result(&self, graph: &Graph, values: &mut [f32]) {
        let tensor = graph.result().expect("the graph was built with a result");
        assert_eq!(graph.generation, self.generation, "the graph's memory is gone");
        // SAFETY: the result is an output node of a graph that is placed in the current memory.
        unsafe {
            assert_eq!(sys::ggml_nbytes(tensor), size_of_val(values), "result size");
            sys::ggml_backend_tensor_get(tensor, values.as_mut_ptr().cast(), 0, size_of_val(values));
        }
    }

    fn abort_on(&self, backend: NonNull<sys::ggml_backend>, flag: Option<&AtomicBool>) {
        unsafe extern "C" fn raised(flag: *mut c_void) -> bool {
            // SAFETY: the flag outlives the computation that polls it: `compute` borrows it and clears the callback.
            unsafe { &*flag.cast::<AtomicBool>() }.load(Ordering::Relaxed)
        }
        if let Some(set) = self.set_abort {
            let data = flag.map_or(ptr::null_mut(), |f| ptr::from_ref(f).cast_mut().cast());
            // SAFETY: the backend is alive; the callback only reads the flag.
            unsafe { set(backend.as_ptr(), flag.map(|_| raised as AbortCallback), data) }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: each was created by ggml and is freed once; the pool outlives the backend that uses it.
        unsafe {
            sys::ggml_gallocr_free(self.allocator.as_ptr());
            if let Some(backend) = self.backend {
                sys::ggml_backend_free(backend.as_ptr());
            }
        }
    }
}
