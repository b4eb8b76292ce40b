// SPDX-License-Identifier: GPL-2.0

//! Orders of memory accesses, each a type.

use core::sync::atomic::Ordering as Std;

/// None.
pub struct Relaxed;
/// Before all that follows.
pub struct Acquire;
/// Behind all that came before.
pub struct Release;
/// Both.
pub struct Full;

/// Any of them.
pub trait Ordering {
    /// As `std` has it.
    const ORDER: Std;
}

impl Ordering for Relaxed {
    const ORDER: Std = Std::Relaxed;
}

impl Ordering for Acquire {
    const ORDER: Std = Std::Acquire;
}

impl Ordering for Release {
    const ORDER: Std = Std::Release;
}

impl Ordering for Full {
    const ORDER: Std = Std::SeqCst;
}

/// Those of loads.
pub trait AcquireOrRelaxed: Ordering {}

impl AcquireOrRelaxed for Acquire {}
impl AcquireOrRelaxed for Relaxed {}

/// Those of stores.
pub trait ReleaseOrRelaxed: Ordering {}

impl ReleaseOrRelaxed for Release {}
impl ReleaseOrRelaxed for Relaxed {}
