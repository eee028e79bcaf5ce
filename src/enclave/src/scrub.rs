use std::{
    hint::black_box,
    io,
    thread::{self, Scope, ScopedJoinHandle},
};

use zeroize::Zeroize as _;

/// Stack of a wiped thread, bytes.
const STACK_BYTES: usize = 4 << 20;
/// How much of it is overwritten at the end, bytes: several times what age, CMS and JSON parsing reach, also in builds
/// without optimisation.
const WIPED_BYTES: usize = 1 << 20;

/// Runs `work` on a thread of its own and overwrites that thread's stack before it ends.
///
/// Secrets in variables are wiped by their types, but the copies a compiler makes when it moves or spills them are not,
/// and a C library keeps the stacks of ended threads for later ones. Nothing secret may be in what `work` returns.
pub(crate) fn on_wiped_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = spawn(scope, work)?;
        worker.join().map_err(|_| panicked())
    })
}

/// Runs all of `works` at the same time, each as [`on_wiped_stack`] does; results are in the order of `works`.
pub(crate) fn on_wiped_stacks<T: Send>(works: Vec<impl FnOnce() -> T + Send>) -> io::Result<Vec<T>> {
    thread::scope(|scope| {
        let workers = works.into_iter().map(|work| spawn(scope, work)).collect::<io::Result<Vec<_>>>()?;
        workers.into_iter().map(|worker| worker.join().map_err(|_| panicked())).collect()
    })
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    thread::Builder::new().name("secrets".to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, || {
        let result = below(work);
        wipe_stack();
        result
    })
}

fn panicked() -> io::Error {
    io::Error::other("a thread that handles secrets has panicked")
}

/// Keeps every frame of `work` below the caller's, where [`wipe_stack`] will reach.
#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

#[inline(never)]
#[allow(clippy::large_stack_arrays, reason = "the stack is what is wiped")]
fn wipe_stack() {
    let mut frame = [0_u8; WIPED_BYTES];
    black_box(&mut frame).zeroize();
    black_box(&frame);
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::FileExt as _};

    use super::*;

    #[inline(never)]
    fn leave_on_stack(pattern: u8) -> usize {
        let secret = [pattern; 4096];
        black_box(&secret);
        secret.as_ptr() as usize
    }

    fn read_own_memory(address: usize) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        fs::File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, address as u64).unwrap();
        bytes
    }

    #[test]
    fn what_the_work_left_on_its_stack_is_gone_when_the_thread_ends() {
        let (address, before, after) = thread::scope(|scope| {
            scope
                .spawn(|| {
                    let address = below(|| leave_on_stack(0xa5));
                    let before = read_own_memory(address);
                    wipe_stack();
                    (address, before, read_own_memory(address))
                })
                .join()
                .unwrap()
        });
        assert_ne!(address, 0);
        assert!(
            before.windows(1024).any(|window| window == [0xa5; 1024]),
            "the pattern was not there to be wiped"
        );
        assert!(!after.windows(16).any(|window| window == [0xa5; 16]), "the pattern is still on the stack");
    }

    #[test]
    fn the_result_of_the_work_comes_back() {
        let borrowed = String::from("borrowed");
        assert_eq!(on_wiped_stack(|| borrowed.len()).unwrap(), 8);
    }

    #[test]
    fn results_of_several_threads_keep_their_order() {
        let works: Vec<_> = (0..4).map(|number| move || number * 10).collect();
        assert_eq!(on_wiped_stacks(works).unwrap(), [0, 10, 20, 30]);
    }

    #[test]
    fn a_panic_of_the_work_is_an_error() {
        let result = on_wiped_stack(|| assert!(black_box(false), "on purpose"));
        assert!(result.unwrap_err().to_string().contains("panicked"));
    }
}
