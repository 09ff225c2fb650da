//! The CPU as ggml sees it: a device, its threads, and the one allocator that every graph draws from.
//!
//! Everything CPU-specific is reached through ggml's registry and `get_proc_address`, never by symbol, so that the same code runs
//! with statically linked backends and with backends loaded at run time.
//!
//! A machine runs one graph at a time. Sessions of one model share it behind a lock: two passes at once on the same cores would
//! fight over the memory bandwidth that one of them already uses up.

use std::ffi::{CStr, c_void};
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use llama_cpp_sys_2 as sys;

use super::graph::Graph;
use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};

/// Scheduling priority of the worker threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThreadPriority {
    /// Below other work.
    Low,
    /// The system's default.
    #[default]
    Normal,
    /// Above other work; may need rights that an app does not have.
    High,
}

/// How a machine's threads run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Threads {
    /// Threads that compute, the caller's included.
    pub(crate) count: usize,
    pub(crate) priority: ThreadPriority,
    /// CPUs the threads may run on; empty for any.
    pub(crate) cpus: Vec<usize>,
}

impl Threads {
    /// ggml's limit on threads and on CPU numbers.
    pub(crate) const MAX: usize = 512; // GGML_MAX_N_THREADS, a macro that the bindings do not carry
}

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
        // SAFETY: registry look-ups; loading is idempotent and guarded by the OnceLock.
        unsafe {
            let mut raw = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            if raw.is_null() {
                sys::ggml_backend_load_all();
                raw = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            }
            if raw.is_null() {
                return None;
            }
            let mut device = Self { raw, extra: Vec::new() };
            type GetExtra = unsafe extern "C" fn(sys::ggml_backend_dev_t) -> *mut sys::ggml_backend_buffer_type_t;
            if let Some(get) = device.procedure::<GetExtra>(c"ggml_backend_dev_get_extra_bufts") {
                let mut at = get(raw);
                while !at.is_null() && !(*at).is_null() {
                    device.extra.push(*at);
                    at = at.add(1);
                }
            }
            Some(device)
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

    /// A function of the device's backend.
    ///
    /// # Safety
    ///
    /// `F` is the function pointer type that ggml documents for `name`.
    unsafe fn procedure<F: Copy>(&self, name: &CStr) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        // SAFETY: the device is alive; the caller vouches for the type.
        unsafe {
            let registry = sys::ggml_backend_dev_backend_reg(self.raw);
            let address = sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr());
            (!address.is_null()).then(|| mem::transmute_copy(&address))
        }
    }
}

type SetThreadpool = unsafe extern "C" fn(sys::ggml_backend_t, *mut sys::ggml_threadpool);
type NewThreadpool = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> *mut sys::ggml_threadpool;
type FreeThreadpool = unsafe extern "C" fn(*mut sys::ggml_threadpool);
type SetThreads = unsafe extern "C" fn(sys::ggml_backend_t, i32);
type AbortCallback = unsafe extern "C" fn(*mut c_void) -> bool;
type SetAbort = unsafe extern "C" fn(sys::ggml_backend_t, Option<AbortCallback>, *mut c_void);

/// The CPU with its threads and its graph memory.
pub(crate) struct Machine {
    backend: NonNull<sys::ggml_backend>,
    pool: *mut sys::ggml_threadpool,
    free_pool: Option<FreeThreadpool>,
    set_abort: Option<SetAbort>,
    allocator: NonNull<sys::ggml_gallocr>,
    allocated: usize,
    generation: u64,
}

// SAFETY: the machine is used through `&mut self` by one thread at a time; ggml's pool has no affinity to its creator.
unsafe impl Send for Machine {}

impl Machine {
    /// Starts the threads.
    pub(crate) fn start(device: &Device, threads: &Threads) -> Result<Self> {
        let failed = |reason: &str| -> Error { ErrorKind::Backend { operation: "starting the CPU", reason: reason.into() }.into() };
        // SAFETY: the device is alive and takes no parameters.
        let backend = unsafe { sys::ggml_backend_dev_init(device.raw, ptr::null()) };
        let backend = NonNull::new(backend).ok_or_else(|| failed("the backend did not start"))?;
        // SAFETY: the buffer type is static.
        let allocator = unsafe { sys::ggml_gallocr_new(device.host_buffers()) };
        let allocator = NonNull::new(allocator).ok_or_else(|| failed("no graph allocator"))?;
        let mut machine =
            Self { backend, pool: ptr::null_mut(), free_pool: None, set_abort: None, allocator, allocated: 0, generation: 1 };
        machine.start_threads(device, threads)?;
        Ok(machine)
    }

    fn start_threads(&mut self, device: &Device, threads: &Threads) -> Result<()> {
        let mut params = pool_params(threads);
        let n = params.n_threads;
        // SAFETY: the types are those ggml documents for these names (ggml-cpu.h); the pool outlives its use by the backend.
        unsafe {
            self.set_abort = device.procedure::<SetAbort>(c"ggml_backend_set_abort_callback");
            self.free_pool = device.procedure::<FreeThreadpool>(c"ggml_threadpool_free");
            if let Some(set) = device.procedure::<SetThreads>(c"ggml_backend_set_n_threads") {
                set(self.backend.as_ptr(), n);
            }
            let new = device.procedure::<NewThreadpool>(c"ggml_threadpool_new");
            let set = device.procedure::<SetThreadpool>(c"ggml_backend_cpu_set_threadpool");
            if let (Some(new), Some(set), Some(_)) = (new, set, self.free_pool) {
                self.pool = new(&raw mut params);
                if self.pool.is_null() {
                    let reason = format!("{n} threads could not be started");
                    return Err(ErrorKind::Backend { operation: "starting the CPU", reason }.into());
                }
                set(self.backend.as_ptr(), self.pool);
            }
        }
        Ok(())
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
        if cancel.is_cancelled() {
            return Err(ErrorKind::Cancelled.into());
        }
        self.abort_on(Some(cancel.flag()));
        // SAFETY: every node has memory in the current generation, and the stores are alive by the graph's own references.
        let status = unsafe { sys::ggml_backend_graph_compute(self.backend.as_ptr(), graph.raw()) };
        self.abort_on(None);
        match status {
            sys::GGML_STATUS_SUCCESS => Ok(true),
            sys::GGML_STATUS_ABORTED => Err(ErrorKind::Cancelled.into()),
            sys::GGML_STATUS_ALLOC_FAILED => Err(ErrorKind::OutOfMemory { what: "a graph", needed: 0, available: None }.into()),
            other => Err(ErrorKind::Backend { operation: "running the model", reason: format!("ggml status {other}") }.into()),
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

    /// Bytes of memory that graphs share.
    pub(crate) fn graph_bytes(&self) -> u64 {
        self.allocated as u64
    }

    fn abort_on(&self, flag: Option<&AtomicBool>) {
        unsafe extern "C" fn raised(flag: *mut c_void) -> bool {
            // SAFETY: the flag outlives the computation that polls it: `compute` borrows it and clears the callback.
            unsafe { &*flag.cast::<AtomicBool>() }.load(Ordering::Relaxed)
        }
        if let Some(set) = self.set_abort {
            let data = flag.map_or(ptr::null_mut(), |f| ptr::from_ref(f).cast_mut().cast());
            // SAFETY: the backend is alive; the callback only reads the flag.
            unsafe { set(self.backend.as_ptr(), flag.map(|_| raised as AbortCallback), data) }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: each was created by ggml and is freed once, the pool after the backend that uses it.
        unsafe {
            sys::ggml_gallocr_free(self.allocator.as_ptr());
            sys::ggml_backend_free(self.backend.as_ptr());
            if let (Some(free), false) = (self.free_pool, self.pool.is_null()) {
                free(self.pool);
            }
        }
    }
}

fn pool_params(threads: &Threads) -> sys::ggml_threadpool_params {
    let count = i32::try_from(threads.count.clamp(1, Threads::MAX)).unwrap_or(1);
    // SAFETY: a pure function.
    let mut params = unsafe { sys::ggml_threadpool_params_default(count) };
    // Workers spin for about a millisecond after a pass, which spans the gap to the next one, and then sleep: an idle session
    // burns no core, and no call is needed to pause it.
    params.poll = 1;
    params.prio = match threads.priority {
        ThreadPriority::Low => sys::GGML_SCHED_PRIO_LOW,
        ThreadPriority::Normal => sys::GGML_SCHED_PRIO_NORMAL,
        ThreadPriority::High => sys::GGML_SCHED_PRIO_HIGH,
    };
    for &cpu in &threads.cpus {
        if let Some(allowed) = params.cpumask.get_mut(cpu) {
            *allowed = true;
        }
    }
    params.strict_cpu = !threads.cpus.is_empty();
    params
}
