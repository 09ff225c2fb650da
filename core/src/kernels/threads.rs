//! ggml's own thread pool: how many threads, how urgent, on which processors, and asleep when nobody computes.
//!
//! The sessions of a model share one pool and take turns, pass by pass: two pools of all cores would spend their time waiting
//! for each other's threads at ggml's spinning barriers. OpenMP is not used: its threads spin also between computations. These
//! poll for the next computation for as long as the options say, about a millisecond by default, and then sleep until it comes;
//! `ggml_threadpool_pause` would only save that millisecond, and is not in the registry.

use std::ptr::NonNull;
use std::time::Duration;

use llama_cpp_sys_2 as sys;
use parking_lot::{Mutex, MutexGuard};

use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::executor::options::{ThreadOptions, ThreadPriority};
use crate::kernels::runtime;

type New = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> sys::ggml_threadpool_t;
type Free = unsafe extern "C" fn(sys::ggml_threadpool_t);

/// How often a session that waits for its turn looks whether it was cancelled.
pub(crate) const POLL_CANCEL: Duration = Duration::from_millis(2);

/// Worker threads. Whoever computes on them holds a [`Turn`].
pub(crate) struct ThreadPool {
    raw: NonNull<sys::ggml_threadpool>,
    n_threads: usize,
    free: Free,
    turn: Mutex<()>,
}

/// The right to compute on the pool, until it is dropped.
pub(crate) struct Turn<'a>(#[allow(dead_code)] MutexGuard<'a, ()>);

// SAFETY: the pool is a heap object; it is used from any thread, by one at a time (`turn`).
unsafe impl Send for ThreadPool {}
// SAFETY: as above.
unsafe impl Sync for ThreadPool {}

impl ThreadPool {
    /// Starts the threads, asleep.
    ///
    /// Fails with `InvalidOption` if an option is out of range, and with `Backend` if this build has no thread pool.
    pub(crate) fn new(options: &ThreadOptions) -> Result<Self> {
        options.check()?;
        runtime::start();
        let no_pool = || ErrorKind::Backend {
            operation: "starting the threads",
            reason: "the CPU backend has no thread pool".to_owned(),
        };
        // SAFETY: these are the types of the functions that the registry has under these names; null becomes `None`.
        let (new, free) = unsafe {
            (
                std::mem::transmute::<*mut std::ffi::c_void, Option<New>>(runtime::cpu_function(
                    c"ggml_threadpool_new",
                )),
                std::mem::transmute::<*mut std::ffi::c_void, Option<Free>>(runtime::cpu_function(
                    c"ggml_threadpool_free",
                )),
            )
        };
        let (Some(new), Some(free)) = (new, free) else { return Err(no_pool().into()) };
        let mut params = params(options);
        // SAFETY: the parameters are complete and in range (`check`), and copied by the call.
        let raw = NonNull::new(unsafe { new(&raw mut params) }).ok_or_else(no_pool)?;
        Ok(Self { raw, n_threads: options.n_threads, free, turn: Mutex::new(()) })
    }

    /// Threads, the calling one included.
    pub(crate) fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Waits until nobody else computes on the pool.
    ///
    /// Fails with `Cancelled` if `cancel` is raised before that.
    pub(crate) fn turn(&self, cancel: &Cancel) -> Result<Turn<'_>> {
        loop {
            if cancel.is_cancelled() {
                return Err(ErrorKind::Cancelled.into());
            }
            if let Some(guard) = self.turn.try_lock_for(POLL_CANCEL) {
                return Ok(Turn(guard));
            }
        }
    }

    /// The pool for ggml, valid while `self` lives. To compute on it takes a [`turn`](Self::turn).
    pub(crate) fn as_ptr(&self) -> sys::ggml_threadpool_t {
        self.raw.as_ptr()
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        // SAFETY: made by ggml_threadpool_new, freed once; nobody borrows it, so nobody computes on it.
        unsafe { (self.free)(self.raw.as_ptr()) }
    }
}

fn params(options: &ThreadOptions) -> sys::ggml_threadpool_params {
    let n_threads = i32::try_from(options.n_threads).unwrap_or(1);
    // SAFETY: takes a number, returns a value.
    let mut params = unsafe { sys::ggml_threadpool_params_default(n_threads) };
    params.prio = match options.priority {
        ThreadPriority::Low => sys::GGML_SCHED_PRIO_LOW,
        ThreadPriority::Normal => sys::GGML_SCHED_PRIO_NORMAL,
        ThreadPriority::Medium => sys::GGML_SCHED_PRIO_MEDIUM,
        ThreadPriority::High => sys::GGML_SCHED_PRIO_HIGH,
        ThreadPriority::Realtime => sys::GGML_SCHED_PRIO_REALTIME,
    };
    params.poll = options.poll;
    params.paused = true;
    for &cpu in options.cpu_mask.iter().flatten() {
        params.cpumask[cpu] = true;
    }
    params
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_ggml() {
        let options =
            ThreadOptions { n_threads: 3, priority: ThreadPriority::Low, cpu_mask: Some(vec![0, 2]), poll: 7 };
        let params = params(&options);
        assert_eq!((params.n_threads, params.prio, params.poll, params.paused), (3, sys::GGML_SCHED_PRIO_LOW, 7, true));
        assert_eq!((params.cpumask[0], params.cpumask[1], params.cpumask[2]), (true, false, true));
    }

    #[test]
    fn pools_start_and_end() {
        for n_threads in [1, 2, 8] {
            let pool = ThreadPool::new(&ThreadOptions::new(n_threads)).unwrap();
            assert_eq!(pool.n_threads(), n_threads);
        }
        assert!(ThreadPool::new(&ThreadOptions::new(0)).is_err());
    }

    #[test]
    fn turns_are_one_at_a_time_and_waiting_can_be_cancelled() {
        let pool = ThreadPool::new(&ThreadOptions::new(1)).unwrap();
        let first = pool.turn(&Cancel::new()).unwrap();
        std::thread::scope(|scope| {
            let cancel = Cancel::new();
            let waiting = scope.spawn({
                let (pool, cancel) = (&pool, cancel.clone());
                move || pool.turn(&cancel).map(drop)
            });
            std::thread::sleep(Duration::from_millis(10));
            assert!(!waiting.is_finished());
            cancel.cancel();
            assert!(waiting.join().unwrap().is_err_and(|error| error.is_cancelled()));
        });
        drop(first);
        assert!(pool.turn(&Cancel::new()).is_ok());
    }
}
