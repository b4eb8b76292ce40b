// SPDX-License-Identifier: GPL-2.0

//! Models: all that threads can do to each other.
//!
//! loom wants atomics to be made within a model, by code; those of the module may be `static`, and
//! made by constants. So each takes the next of a few that were made when the model began, when it is
//! used for the first time. This is to say that all threads know about it from the beginning: how it
//! got to them is not checked.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use loom::model::Builder;
use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Mutex, PoisonError},
};

type Cells = Vec<Rc<loom::sync::atomic::AtomicU64>>;

/// The atomics of one execution.
#[derive(Default)]
struct Pool {
    execution: u64,
    cells: Cells,
    used: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Number of the last execution, of all models there are.
static EXECUTIONS: AtomicU64 = AtomicU64::new(0);

/// What is `static` is there once for all models.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Where an atomic finds its memory.
pub(super) struct Slot {
    /// The execution it is of.
    execution: AtomicU64,
    index: AtomicU64,
}

impl Slot {
    pub(super) const fn new() -> Self {
        Self {
            execution: AtomicU64::new(0),
            index: AtomicU64::new(0),
        }
    }

    pub(super) fn cell(&self) -> Rc<loom::sync::atomic::AtomicU64> {
        // All threads of a model are one for the system, and change places in loom's atomics only.
        POOL.with_borrow_mut(|pool| {
            if self.execution.load(Relaxed) != pool.execution {
                self.execution.store(pool.execution, Relaxed);
                self.index.store(pool.used as u64, Relaxed);
                pool.used += 1;
            }
            let index = self.index.load(Relaxed) as usize;
            let cell = pool.cells.get(index);
            cell.expect("a model uses more atomics than were made for it")
                .clone()
        })
    }
}

/// Checks a model that uses `atomics` atomics at most. With `preemptions`, only with that many
/// switches to another thread, at most, where none is forced.
pub fn check(atomics: usize, preemptions: Option<usize>, f: impl Fn() + Sync + Send + 'static) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    // Loads that take no turns count, too.
    builder.max_branches = 100_000;
    builder.check(move || {
        let cells: Cells = (0..atomics).map(|_| Rc::default()).collect();
        POOL.set(Pool {
            execution: EXECUTIONS.fetch_add(1, Relaxed) + 1,
            cells,
            used: 0,
        });
        f();
    });
}
